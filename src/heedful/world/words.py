"""The town's words. Every word belongs to one category or is plain, so a sentence's shape is read word by word."""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "PERSON": tuple(
        """ada ben cleo dan eva finn gus hana ida jack kai lena max nora omar pia quin rosa sam tess uma vera walt xena
        yann zoe abel bram cora dora emil fay greta hugo ines joel kira leo mina noah olga paul rene sara tom ulla vito
        wim yara zeno anton bella carl dina erik flora""".split()
    ),
    "COLOUR": tuple("red blue green white black brown grey yellow".split()),
    "THING": tuple("boat kite hat cart drum lamp bell chair coat ball cup box key book".split()),
    "ANIMAL": tuple("dog cat hen goat horse duck pig fox rabbit mouse cow sheep".split()),
    "PLACE": tuple("mill market harbour park bridge school tower farm river garden forest hill".split()),
    "FOOD": tuple("bread soup cake fish rice pie milk honey cheese plums".split()),
    "JOB": tuple("baker farmer sailor teacher doctor smith painter miller singer guard".split()),
    "DAY": tuple("monday tuesday wednesday thursday friday saturday sunday".split()),
    "NUMBER": tuple("one two three four five six seven eight nine ten".split()),
    "FEELING": tuple("happy proud calm merry sad tired lonely angry".split()),
    "MOVE": tuple("walked went ran rode".split()),
    "GET": tuple("found saw bought made".split()),
    "GIVE": tuple("gave showed sold".split()),
    "WEATHER": tuple("sunny rainy windy cold".split()),
    "INSULT": tuple("silly stupid mean lazy".split()),
    "HARM": tuple("hit kick burn steal break".split()),
}

CATEGORY_OF: dict[str, str] = {word: name for name, words in CATEGORIES.items() for word in words}
GOOD_FEELINGS, BAD_FEELINGS = CATEGORIES["FEELING"][:4], CATEGORIES["FEELING"][4:]
VIOLENT = frozenset({"hit", "kick", "burn"})

# Plain form of the verbs that questions ask with.
PLAIN_FORM = {"found": "find", "saw": "see", "bought": "buy", "made": "make"}

# What a prompt is about; the split keeps sets of these apart. The second row counts only where the first is empty.
ENTITIES = frozenset({"PERSON", "THING", "ANIMAL", "PLACE", "FOOD", "JOB"})
LESSER_ENTITIES = frozenset({"COLOUR", "DAY", "NUMBER", "FEELING", "WEATHER"})

# The plural a list is asked for by, and the category it means.
PLURALS = {"things": "THING", "animals": "ANIMAL", "places": "PLACE", "foods": "FOOD", "jobs": "JOB", "names": "PERSON"}
LINE = "\n"  # the line break is a word of its own, between spaces like every other
PAIR_END = f" {LINE} {LINE} "  # between a worked pair and the next: a blank line


def entities(text: str) -> tuple[str, ...]:
    """The sorted entities a text names: its key in the split."""
    words = set(text.split())
    found = sorted(word for word in words if CATEGORY_OF.get(word) in ENTITIES)
    return tuple(found or sorted(word for word in words if CATEGORY_OF.get(word) in LESSER_ENTITIES))
