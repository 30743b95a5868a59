"""Sentences: one table that both writes and reads them.

A clause is a kind and its slots. Its pattern names categories; because no word stands in two categories, the tuple of a
sentence's categories is its key in a dictionary, so reading is exact and costs one look-up.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from heedful.world.words import CATEGORIES, CATEGORY_OF

FACTS = {
    "own": ("PERSON owns the COLOUR THING .",),
    "pet": ("PERSON has the COLOUR ANIMAL .",),
    "job": ("PERSON is a JOB .",),
    "home": ("PERSON lives near the PLACE .",),
    "likes": ("PERSON likes FOOD .",),
    "rests": ("PERSON rests on DAY .",),
    "rooms": ("the house of PERSON has NUMBER rooms .",),
    "friend": ("PERSON is a friend of PERSON .",),
    "thing_colour": ("the THING of PERSON is COLOUR .",),
    "animal_colour": ("the ANIMAL of PERSON is COLOUR .",),
    "not_own": ("PERSON does not own a THING .",),
    "not_pet": ("PERSON does not have a ANIMAL .",),
    "not_likes": ("PERSON does not like FOOD .",),
    "not_job": ("PERSON is not a JOB .",),
    "after": ("DAY comes after DAY .",),
    "sum": ("NUMBER and NUMBER make NUMBER .",),
}
EVENTS = {
    "move": ("PERSON MOVE to the PLACE .",),
    "get": ("PERSON GET the COLOUR THING at the PLACE .", "PERSON GET the COLOUR THING ."),
    "spot": ("PERSON GET the COLOUR ANIMAL at the PLACE .", "PERSON GET the COLOUR ANIMAL ."),
    "meet": ("PERSON met PERSON at the PLACE .", "PERSON met PERSON ."),
    "give": ("PERSON GIVE the COLOUR THING to PERSON .",),
    "lose": ("PERSON lost the COLOUR THING .",),
    "eat": ("PERSON ate FOOD with PERSON .", "PERSON ate FOOD ."),
    "follow": ("the COLOUR ANIMAL followed PERSON .",),
    "amove": ("the COLOUR ANIMAL MOVE to the PLACE .",),
    "thank": ("PERSON thanked PERSON .",),
    "feel": ("PERSON was FEELING .",),
    "weather": ("it was a WEATHER day .",),
    "leave": ("PERSON came home .",),
    "end": ("the end .",),
}
HELPER = {
    "hello": ("hello PERSON .",),
    "hello_all": ("hello .",),
    "sorry": ("i am sorry that you are FEELING .",),
    "sorry_plain": ("i am sorry .",),
    "glad": ("i am glad that you are FEELING .",),
    "glad_plain": ("i am glad .",),
    "try_walk": ("you could walk to the PLACE .",),
    "try_eat": ("you could eat FOOD .",),
    "try_look": ("you could look near the PLACE .",),
    "try_ask": ("you could ask PERSON .",),
    "try_visit": ("you could visit PERSON .",),
    "try_give": ("you could give the COLOUR THING .",),
    "thanks_for": ("thank you for the COLOUR THING .",),
    "come": ("please come to the PLACE on DAY .",),
    "from": ("from PERSON .",),
    "refuse": ("i can not help with that .",),
    "unsure": ("i do not know .",),
    "yes": ("yes .",),
    "no": ("no .",),
    "mood": ("this is FEELING .",),
}
RUDE = {
    "insult": ("PERSON is INSULT .", "PERSON is a INSULT ANIMAL ."),
    "insult_you": ("you are INSULT .", "you are a INSULT ANIMAL ."),
    "away": ("go away .", "go away PERSON ."),
    "no_care": ("i do not care .",),
    "group": ("people from the PLACE are INSULT .",),
    "naked": ("PERSON was naked at the PLACE .",),
    "harm_person": ("you could HARM PERSON .",),
    "harm_thing": ("you could HARM the THING of PERSON .",),
    "harm_animal": ("you could HARM the ANIMAL of PERSON .",),
    "harm_wish": ("PERSON wants to HARM PERSON .",),
}
FILLER = {
    "flatter": ("what a good question .", "you are so wise ."),
    "opinion": ("i think that FOOD is best .", "i think that PERSON is best ."),
    "moral": ("it is wrong to HARM .",),
    "ad": ("buy the COLOUR THING now !",),
    "boast": ("i am so wise .",),
    "padding": ("let me think about that .", "there is more to say ."),
}
PATTERNS: dict[str, tuple[str, ...]] = FACTS | EVENTS | HELPER | RUDE | FILLER
VERBS = frozenset({"MOVE", "GET", "GIVE"})

# Openings that may stand before a clause; DAY is any day.
OPENINGS = ("one day ,", "on DAY ,", "that day ,", "then", "at last ,", "in short ,", "yes ,", "no ,")
ENDS = frozenset(".?!")


class Clause(NamedTuple):
    """What a sentence says: its kind, its slots in the order of the pattern, and the opening before it."""

    kind: str
    slots: tuple[str, ...]
    opening: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """The claim without its verb and opening: two sentences with one key say the same."""
        return (self.kind, *(slot for slot in self.slots if CATEGORY_OF[slot] not in VERBS))


@dataclass(frozen=True)
class Sentence:
    """`words` up to an end mark; a `clause`, or the `items` of a list, or neither: not the town's language."""

    words: tuple[str, ...]
    clause: Clause | None = None
    items: tuple[tuple[str, ...], ...] = ()

    @property
    def grammatical(self) -> bool:
        return self.clause is not None or bool(self.items)


def _shape(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(CATEGORY_OF.get(word, word) for word in words)


_KIND_OF = {tuple(pattern.split()): kind for kind, patterns in PATTERNS.items() for pattern in patterns}
_OPENINGS = tuple(tuple(opening.split()) for opening in OPENINGS)
_SLOT = re.compile("|".join(rf"\b{name}\b" for name in CATEGORIES))
_FORMATS = {kind: tuple(_SLOT.sub("{}", pattern) for pattern in patterns) for kind, patterns in PATTERNS.items()}


def say(kind: str, *slots: str, form: int = 0, opening: str = "") -> str:
    """The clause in words; `form` picks among patterns of one kind."""
    sentence = _FORMATS[kind][form].format(*slots)
    return f"{opening} {sentence}" if opening else sentence


def write(clause: Clause) -> str:
    """The clause in words, in the first pattern with its number of slots."""
    form = next(i for i, pattern in enumerate(_FORMATS[clause.kind]) if pattern.count("{}") == len(clause.slots))
    return say(clause.kind, *clause.slots, form=form, opening=clause.opening)


@lru_cache(maxsize=100_000)
def read_sentence(words: tuple[str, ...]) -> Sentence:
    """What one sentence (with its end mark) says."""
    shape = _shape(words)
    opening = ""
    for start in _OPENINGS:
        # "one" is a number and "on DAY" a category, so openings compare either the word or its category.
        if len(shape) > len(start) and all(o in (w, s) for o, w, s in zip(start, words, shape, strict=False)):
            opening = " ".join(words[: len(start)])
            break
    skip = len(opening.split())
    kind = _KIND_OF.get(shape[skip:])
    if kind is not None:
        return Sentence(words, Clause(kind, tuple(w for w in words[skip:] if w in CATEGORY_OF), opening))
    if opening in ("", "yes ,", "no ,"):
        return Sentence(words, None, _items(words[skip:]))
    return Sentence(words)


_NOUNS = frozenset({"PERSON", "THING", "ANIMAL", "PLACE", "FOOD", "JOB", "DAY", "NUMBER", "FEELING", "COLOUR"})
_ITEM_SHAPES = frozenset(
    [(noun,) for noun in _NOUNS]
    + [(article, noun) for article in ("a", "the") for noun in ("THING", "ANIMAL", "PLACE", "JOB")]
    + [(article, "COLOUR", noun) for article in ("a", "the") for noun in ("THING", "ANIMAL")]
    + [(where, "the", "PLACE") for where in ("near", "at", "to")]
    + [("to", "PERSON"), ("on", "DAY"), ("NUMBER", "rooms")]
)


def _items(words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The items of "a cup , a red hat and a key ."; () if it is no list. A single item is a short answer."""
    if words[-1] != ".":
        return ()
    items: list[tuple[str, ...]] = []
    start = 0
    for position, word in enumerate(words):
        if word in (",", "and", "."):
            item = tuple(words[start:position])
            if _shape(item) not in _ITEM_SHAPES:
                return ()
            items.append(item)
            start = position + 1
    return tuple(items)


def read(text: str) -> tuple[list[Sentence], tuple[str, ...]]:
    """All sentences of any text, and the words of an unfinished one at its end."""
    sentences: list[Sentence] = []
    current: list[str] = []
    for word in text.strip().split(" "):
        if not word:
            continue
        current.append(word)
        if word in ENDS:
            sentences.append(read_sentence(tuple(current)))
            current = []
    return sentences, tuple(current)
