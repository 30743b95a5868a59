"""Explicit constraints a user adds to a request: drawn, put into words, and checked on an answer."""

import random
from collections.abc import Sequence
from typing import Any

from heedful.world.grammar import Sentence
from heedful.world.stories import random_needs
from heedful.world.tasks import Task
from heedful.world.town import Town, other_than
from heedful.world.words import CATEGORIES

Constraint = dict[str, Any]

SHARES = {
    "story": (0.4, 0.4, 0.2),
    "describe": (0.5, 0.5),
    "list": (0.6, 0.4),
    "answer": (0.65, 0.35),
    "parts": (0.8, 0.2),
}
LIKELY_WORDS = ("then", "went", "walked", "found", "saw", "home", "happy", "day", "gave")
STARTS = ("one day", "that day", "on monday", "on friday")
WORDING = {
    "sentences": "use {} .",
    "mention": "mention {} .",
    "avoid": "do not use the word {} .",
    "start": "start with {} .",
    "end": "end with {} .",
    "full": "use a full sentence .",
    "brief": "be short .",
}
BRIEF_WORDS = 5  # with the end mark


def draw(rng: random.Random, town: Town, task: Task) -> list[Constraint]:
    """None, one or two constraints of different kinds that the task's answer can meet."""
    truth = task.truth
    shares = SHARES.get(truth["type"], (1.0,))
    if truth.get("harmful") or (truth["type"] != "story" and "context" in truth):
        return []
    number = rng.choices(range(len(shares)), shares)[0]
    kinds = {
        "story": ["sentences", "mention", "avoid", "start", "end"],
        "describe": ["sentences"],
        "list": ["avoid"],
        "answer": ["full", "brief"] if truth.get("short") else ["full"],
        "parts": ["end"],
    }.get(truth["type"], [])
    drawn: list[Constraint] = []
    for kind in rng.sample(kinds, number):
        drawn.append({"kind": kind, "value": _value(rng, town, kind, truth, drawn)})
    return drawn


def _value(rng: random.Random, town: Town, kind: str, truth: dict[str, Any], drawn: Sequence[Constraint]) -> Any:
    if kind == "sentences":
        if truth["type"] == "describe":
            return rng.choice((1, 2, 3))
        needed = len({"thing", "animal", "other", "food"} & truth["needs"].keys())
        mentions = any(constraint["kind"] == "mention" for constraint in drawn)
        return rng.randint(min(max(1, needed + mentions), 3), 3)
    if kind == "mention":
        cast = random_needs(rng, town)
        options = [n for n in ("thing", "animal", "food") if n not in truth["needs"]]
        return cast[rng.choice(options)]
    if kind == "avoid" and truth["type"] == "list":
        return rng.choice(CATEGORIES[truth["items"]])
    if kind == "avoid":
        taken = {word for c in drawn for word in str(c["value"]).split()}
        return other_than(rng, LIKELY_WORDS, *taken)
    if kind == "start":
        avoided = {constraint["value"] for constraint in drawn if constraint["kind"] == "avoid"}
        return rng.choice([start for start in STARTS if not avoided & set(start.split())])
    return "the end" if kind == "end" else ""


def wording(constraints: Sequence[Constraint]) -> str:
    """The constraints as the user writes them."""
    return " ".join(WORDING[c["kind"]].format(_said(c)) for c in constraints)


def _said(constraint: Constraint) -> str:
    kind, value = constraint["kind"], constraint["value"]
    if kind == "sentences":
        return f"{CATEGORIES['NUMBER'][value - 1]} {'sentence' if value == 1 else 'sentences'}"
    if kind == "mention" and " " in value:
        return f"the {value}"
    return str(value)


def satisfied(constraint: Constraint, sentences: Sequence[Sentence], words: Sequence[str]) -> bool:
    """Whether an answer meets the constraint; an empty one meets none."""
    kind, value = constraint["kind"], constraint["value"]
    text = f" {' '.join(words)} "
    if not words:
        return False
    if kind == "sentences":
        return len(sentences) == value and words[-1] in ".?!"
    if kind in ("mention", "avoid"):
        return (f" {value} " in text) == (kind == "mention")
    if kind == "start":
        return text.startswith(f" {value} ")
    if kind == "end":
        return text.endswith(f" {value} . ")
    if kind == "full":
        return any(sentence.clause and len(sentence.words) > 3 for sentence in sentences)
    return len(words) <= BRIEF_WORDS
