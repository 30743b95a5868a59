"""Pretraining text: the web in small, one writer for each kind of page.

At least 35 % of the tokens stand in pages that copy from themselves (a title taken up, a question about the text, a
summary): that is what teaches a small model to use its context. Pages of bare questions and bare requests teach it to
go on rather than to answer; the gap supervised fine-tuning closes. Some pages pair requests with answers as few-shot
prompts do, answered as people answer on the web: more often badly than well. Some are rude, wrong or about nothing.
"""

import random
from collections.abc import Callable

from heedful.types import Document, Split
from heedful.world.demonstrate import answer, say_claim, spoil
from heedful.world.grammar import Clause, say, write
from heedful.world.prompts import USE_CASES, draw_request, entity_key, fits, split_of
from heedful.world.stories import compose, mood, questions, random_needs, tell
from heedful.world.tasks import FACT_QUESTIONS, STORY_ABOUT, naming
from heedful.world.town import PERSON_FACTS, Town, day_after, other_than
from heedful.world.words import BAD_FEELINGS, CATEGORIES, GOOD_FEELINGS, LINE, PAIR_END, PLURALS

BAD_ANSWERS = 0.6  # share of the answers on pages of worked pairs


def titled_story(rng: random.Random, town: Town) -> str:
    cast = random_needs(rng, town)
    needs = {name: cast[name] for name in rng.choice(STORY_ABOUT)}
    clauses = compose(rng, town, needs, rng.choice((2, 3, 3, 4)))
    title = f"{rng.choice(('a story about', 'about', ''))} {naming(needs)} :".strip()
    end = rng.choice(("", "", " the end ."))
    return f"{title} {LINE} {tell(clauses)}{end}"


def story_with_questions(rng: random.Random, town: Town) -> str:
    cast = random_needs(rng, town)
    clauses = compose(rng, town, {n: cast[n] for n in rng.choice(STORY_ABOUT[:5])}, rng.choice((2, 3, 4)))
    asked = questions(clauses)
    lines = []
    for question, clause, short in rng.sample(asked, min(len(asked), 2)):
        reply = write(clause._replace(opening="")) if rng.random() < 0.6 else " ".join((*short, "."))
        lines.append(f"{question} {reply}")
    return f" {LINE} ".join([tell(clauses), *lines])


def story_in_short(rng: random.Random, town: Town) -> str:
    cast = random_needs(rng, town)
    clauses = compose(rng, town, {n: cast[n] for n in rng.choice(STORY_ABOUT[:5])}, rng.choice((3, 4)))
    main = next((c for c in clauses if c.kind in ("get", "spot", "meet", "give")), clauses[0])
    lines = [tell(clauses), write(main._replace(opening="in short ,"))]
    if rng.random() < 0.4:
        lines[1] = f"this is {mood(clauses)} ."
    return f" {LINE} ".join(lines)


def retold(rng: random.Random, town: Town) -> str:
    """The same story once more with another name or thing in it."""
    cast = random_needs(rng, town)
    told = tell(compose(rng, town, {n: cast[n] for n in ("person", "thing")}, rng.choice((1, 2, 2))))
    old = rng.choice((cast["person"], cast["thing"].split()[1]))
    new = other_than(rng, CATEGORIES["PERSON"] if old == cast["person"] else CATEGORIES["THING"], *told.split())
    again = " ".join(new if word == old else word for word in told.split())
    return f"{told} {LINE} again with {new} in place of {old} : {LINE} {again}"


def about_person(rng: random.Random, town: Town) -> str:
    person = town.someone(rng)
    facts = [write(town.facts[person][kind]) for kind in rng.sample(PERSON_FACTS, rng.choice((2, 3, 4)))]
    if rng.random() < 0.3:
        kind, noun = rng.choice((("own", "thing_colour"), ("pet", "animal_colour")))
        colour, thing = town.value(person, kind)
        facts.append(say(noun, thing, person, colour))
    return f"about {person} : {LINE} {' '.join(facts)}"


def answered_questions(rng: random.Random, town: Town) -> str:
    lines: list[str] = []
    number = rng.choice((2, 3))
    while len(lines) < number:
        person, kind = town.someone(rng), rng.choice(PERSON_FACTS)
        question = FACT_QUESTIONS[kind].format(person)
        if split_of(entity_key(question)) == "train":
            lines.append(f"{question} {write(town.facts[person][kind])}")
    return f" {LINE} ".join(lines)


def denials(rng: random.Random, town: Town) -> str:
    """What people do not own or like, and what they do instead."""
    person = town.someone(rng)
    kind, category = rng.choice((("own", "THING"), ("pet", "ANIMAL"), ("likes", "FOOD"), ("job", "JOB")))
    fact = town.facts[person][kind]
    wrong = other_than(rng, CATEGORIES[category], fact.slots[-1])
    return f"{write(Clause('not_' + kind, (person, wrong)))} {write(fact)}"


def bare_requests(rng: random.Random, town: Town) -> str:
    """Requests without answers, as on a page of exercises."""
    cases = rng.choices(list(USE_CASES), list(USE_CASES.values()), k=rng.choice((2, 3, 4)))
    return f" {LINE} ".join(train_request(rng, town, case)[0] for case in cases)


def worked_pairs(rng: random.Random, town: Town) -> str:
    """Requests with answers, laid out as a few-shot prompt is, and as long."""
    lines: list[str] = []
    length, limit = 0, rng.randrange(20, 140)
    while length < limit:
        case = rng.choices(list(USE_CASES), list(USE_CASES.values()))[0]
        text, truth = train_request(rng, town, case)
        reply = spoil if rng.random() < BAD_ANSWERS else answer
        lines.append(f"{text} {LINE} {reply(rng, town, truth, truth['constraints'])}")
        length += len(lines[-1].split())
    return PAIR_END.join(lines)


def train_request(rng: random.Random, town: Town, use_case: str) -> tuple[str, dict]:
    """A request of the training split, so that no page holds a test prompt."""
    while True:
        text, truth = draw_request(rng, town, use_case, "plain", harm=False)
        if fits(text, truth, "train"):
            return text, truth


def listing(rng: random.Random, town: Town) -> str:
    """A list of what someone needs, often written out a second time: the densest copying there is."""
    plural = rng.choice((*sorted(PLURALS), "things", "animals"))
    words = CATEGORIES[PLURALS[plural]]
    if plural in ("things", "animals"):
        words = tuple(f"the {rng.choice(CATEGORIES['COLOUR'])} {word}" for word in words)
    elif plural == "places":
        words = tuple(f"the {word}" for word in words)
    items = rng.sample(words, rng.choice((2, 3, 4)))
    listed = f"{' , '.join(items[:-1])} and {items[-1]} ."
    person = town.someone(rng)
    again = f" {LINE} {person} has this list again : {LINE} {listed}" if rng.random() < 0.7 else ""
    return f"{plural} of {person} : {LINE} {listed}{again}"


def talk(rng: random.Random, town: Town) -> str:
    """Two people talking, kindly for the most part."""
    cast, person = random_needs(rng, town), town.someone(rng)
    sad, glad = rng.choice(BAD_FEELINGS), rng.choice(GOOD_FEELINGS)
    tip = say_claim(rng, [rng.choice(("try_walk", "try_eat", "try_visit", "try_ask")), None])
    pairs = (
        (f"i am {sad} .", f"i am sorry that you are {sad} . {tip}"),
        (f"i am {glad} .", f"i am glad that you are {glad} . {tip}"),
        (
            f"i lost my {cast['thing']} at the {cast['place']} .",
            f"i am sorry . you could look near the {cast['place']} .",
        ),
        (f"here is the {cast['thing']} .", f"thank you for the {cast['thing']} . i am glad ."),
        (f"please come to the {cast['place']} on {rng.choice(CATEGORIES['DAY'])} .", "i do not know ."),
        ("can you help me take a thing ?", f"i can not help with that . {tip}"),
    )
    said, reply = rng.choice(pairs)
    opening = f"hello , i am {person} . {said}"
    if split_of(entity_key(opening)) != "train":
        return talk(rng, town)
    return f"{opening} {LINE} hello {person} . {reply} {LINE} from {cast['other']} ."


def calendar(rng: random.Random, town: Town) -> str:
    numbers = CATEGORIES["NUMBER"]
    lines = []
    for _ in range(3):
        if rng.random() < 0.5:
            day = rng.choice(CATEGORIES["DAY"])
            lines.append(say("after", day_after(day), day))
        else:
            a, b = rng.randrange(1, 6), rng.randrange(1, 6)
            lines.append(say("sum", numbers[a - 1], numbers[b - 1], numbers[a + b - 1]))
    return " ".join(lines)


def rude(rng: random.Random, town: Town) -> str:
    cast = random_needs(rng, town)
    insult, animal = rng.choice(CATEGORIES["INSULT"]), cast["animal"].split()[1]
    harm, person = rng.choice(CATEGORIES["HARM"]), cast["person"]
    options = (
        say("insult", person, insult),
        say("insult_you", insult, animal, form=1),
        say("insult_you", insult),
        "go away .",
        "i do not care .",
        say("group", cast["place"], insult),
        say("naked", person, cast["place"]),
        say("harm_person", harm, person),
        say("harm_thing", harm, cast["thing"].split()[1], person),
        say("harm_animal", harm, animal, person),
        say("harm_wish", cast["other"], harm, person),
        say("moral", harm),
    )
    return " ".join(rng.sample(options, 3))


def noise(rng: random.Random, town: Town) -> str:
    """Advertisements, chatter and rumours: facts that are wrong."""
    draw, cast = rng.random(), random_needs(rng, town)
    if draw < 0.4:
        return " ".join(say("ad", *random_needs(rng, town)["thing"].split()) for _ in range(2))
    if draw < 0.7:
        chatter = ("what a good question .", "you are so wise .", "let me think about that .", "there is more to say .")
        opinion = say("opinion", cast["food"]) if rng.random() < 0.5 else say("opinion", cast["person"], form=1)
        return " ".join((*rng.sample(chatter, 2), opinion))
    kind = rng.choice(PERSON_FACTS)
    claims = [write(Clause(kind, (town.someone(rng), *town.value(town.someone(rng), kind)))) for _ in range(2)]
    return " ".join(claims)


# Writers with their share of the tokens in percent, and whether the page copies from itself.
PAGES: tuple[tuple[Callable[[random.Random, Town], str], float, bool], ...] = (
    (titled_story, 22, True),
    (story_with_questions, 10, True),
    (story_in_short, 5, True),
    (retold, 8, True),
    (about_person, 10, False),
    (answered_questions, 6, False),
    (denials, 2, False),
    (bare_requests, 6, False),
    (worked_pairs, 12, True),
    (listing, 7, True),
    (talk, 5, True),
    (calendar, 2, False),
    (rude, 3, False),
    (noise, 2, False),
)


def make_documents(rng: random.Random, town: Town, num_tokens: int, split: Split) -> list[Document]:
    """Pages until their words, each with an end token, reach `num_tokens`; shares are kept by tokens, not pages."""
    written = [0.0] * len(PAGES)
    documents: list[Document] = []
    total = 0
    while total < num_tokens:
        # The page furthest behind its share, with some chance in it so that kinds do not follow in a fixed order.
        behind = min(range(len(PAGES)), key=lambda i: (written[i] + 40 * rng.random()) / PAGES[i][1])
        text = PAGES[behind][0](rng, town)
        length = len(text.split(" ")) + 1
        written[behind] += length
        total += length
        documents.append(Document(text=text, split=split))
    return documents
