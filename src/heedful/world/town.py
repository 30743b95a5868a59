"""The town's truth, drawn from a seed: who owns what, lives where, likes what. Every claim has one answer."""

import random
from collections.abc import Sequence
from typing import TypeVar

from heedful.world.grammar import Clause
from heedful.world.words import CATEGORIES

T = TypeVar("T")

PERSON_FACTS = ("own", "pet", "job", "home", "likes", "rests", "rooms", "friend")


def generator(seed: int, *purpose: object) -> random.Random:
    """A generator of its own for each purpose, so that parts do not shift each other."""
    return random.Random("/".join(map(str, (seed, *purpose))))


class Town:
    """Facts by person: `facts[person][kind]` is the clause that is true."""

    def __init__(self, seed: int) -> None:
        rng = generator(seed, "town")
        self.people = list(CATEGORIES["PERSON"])
        rng.shuffle(self.people)
        # Fame falls like Zipf's law: the last people are hardly ever written about, so their facts are hard to know.
        self.fame = [1 / (rank + 2) for rank in range(len(self.people))]
        self._cumulative = [sum(self.fame[: i + 1]) for i in range(len(self.fame))]
        owned = rng.sample([(c, t) for c in CATEGORIES["COLOUR"] for t in CATEGORIES["THING"]], len(self.people))
        pets = rng.sample([(c, a) for c in CATEGORIES["COLOUR"] for a in CATEGORIES["ANIMAL"]], len(self.people))
        paired = rng.sample(self.people, len(self.people))
        friend = {a: paired[i ^ 1] for i, a in enumerate(paired)}
        self.facts: dict[str, dict[str, Clause]] = {}
        for person, thing, animal in zip(self.people, owned, pets, strict=True):
            values = {
                "own": thing,
                "pet": animal,
                "job": (rng.choice(CATEGORIES["JOB"]),),
                "home": (rng.choice(CATEGORIES["PLACE"]),),
                "likes": (rng.choice(CATEGORIES["FOOD"]),),
                "rests": (rng.choice(CATEGORIES["DAY"]),),
                "rooms": (rng.choice(CATEGORIES["NUMBER"][1:]),),
                "friend": (friend[person],),
            }
            self.facts[person] = {kind: Clause(kind, (person, *value)) for kind, value in values.items()}
        self.owner = {self.facts[p]["own"].slots[1:]: p for p in self.people}
        self.keeper = {self.facts[p]["pet"].slots[1:]: p for p in self.people}

    def someone(self, rng: random.Random) -> str:
        """A person, famous ones more often."""
        return rng.choices(self.people, cum_weights=self._cumulative)[0]

    def value(self, person: str, kind: str) -> tuple[str, ...]:
        return self.facts[person][kind].slots[1:]

    def is_true(self, clause: Clause) -> bool | None:
        """Whether a fact holds; None for clauses that claim nothing about the town."""
        kind, slots = clause.kind, clause.slots
        if kind in PERSON_FACTS:
            return self.value(slots[0], kind) == slots[1:]
        if kind in ("thing_colour", "animal_colour"):
            noun, person, colour = slots
            return self.value(person, "own" if kind == "thing_colour" else "pet") == (colour, noun)
        if kind in ("not_own", "not_pet", "not_likes", "not_job"):
            return self.value(slots[0], kind[4:])[-1] != slots[1]
        if kind == "after":
            return day_after(slots[1]) == slots[0]
        if kind == "sum":
            numbers = [CATEGORIES["NUMBER"].index(slot) + 1 for slot in slots]
            return numbers[0] + numbers[1] == numbers[2]
        return None


def day_after(day: str) -> str:
    days = CATEGORIES["DAY"]
    return days[(days.index(day) + 1) % len(days)]


def other_than(rng: random.Random, options: Sequence[T], *taken: T) -> T:
    """One of the options that is not taken."""
    return rng.choice([option for option in options if option not in taken])
