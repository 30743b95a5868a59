"""Answers that people set beside each other and mark: what a language model of this world learns to judge from.

Several answers to a prompt: a policy's, or none a model's: people's own, right or flawed, and damaged ones (words
swapped, cut, repeated, gone on with another's). People see utility with logistic noise (Bradley and Terry 1952), and
the answer they read first is worth `HABIT` more to them, so whoever learns from them learns that habit too.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

from heedful.types import Prompt
from heedful.world.demonstrate import MAX_WORDS, swap
from heedful.world.town import generator

NOISE = 0.6  # scale of the logistic noise on a difference of utilities
HABIT = 0.3  # utility that the first place is worth
FLAWED = 0.7  # of people's own answers
DAMAGED = 0.5  # of all answers
RANGE = (-0.8, 4.0)  # utilities that are marked 1 and 10


class Comparison(NamedTuple):
    """Whether people found the answer they read first the better one."""

    prompt: Prompt
    first: str
    second: str
    first_is_better: bool


class Mark(NamedTuple):
    """What people gave an answer, 1 (worst) to 10."""

    prompt: Prompt
    text: str
    mark: int


class Compared(NamedTuple):
    comparisons: list[Comparison]
    marks: list[Mark]


def compare(
    seed: int,
    prompts: Sequence[Prompt],
    num_answers: int,
    write: Callable[[Prompt, int, float], str],
    utility: Callable[[Prompt, str], float],
    given: Mapping[str, Sequence[str]] | None = None,
) -> Compared:
    """Half of all ordered pairs of each prompt's answers compared, and every answer marked.

    `write(prompt, index, flaw_rate)` is what a person writes, `utility` what an answer is worth; `given`: different
    answers by their prompt's id, in the place of people's own.
    """
    rng = generator(seed, "comparisons")
    others = others_by_use_case(prompts, write)
    found = Compared([], [])
    for prompt in prompts:
        if given is None:
            texts = answers_to(rng, prompt, num_answers, write, others[prompt.use_case])
        else:
            texts = list(given.get(prompt.id, ()))
        worth = [utility(prompt, text) for text in texts]
        for i, j in permutations(range(len(texts)), 2):
            if rng.random() < 0.5:
                better = rng.random() < sigmoid((worth[i] - worth[j] + HABIT) / NOISE)
                found.comparisons.append(Comparison(prompt, texts[i], texts[j], better))
        found.marks.extend(Mark(prompt, text, _mark(rng, own)) for text, own in zip(texts, worth, strict=True))
    return found


def others_by_use_case(prompts: Sequence[Prompt], write: Callable[[Prompt, int, float], str]) -> dict[str, list[str]]:
    """Right answers, by the use case of their prompts."""
    others: dict[str, list[str]] = {}
    for prompt in prompts:
        others.setdefault(prompt.use_case, []).append(write(prompt, 0, 0.0))
    return others


def answers_to(
    rng: random.Random, prompt: Prompt, num: int, write: Callable[[Prompt, int, float], str], others: Sequence[str]
) -> list[str]:
    """Different answers; fewer than asked for where a prompt has hardly any."""
    found: dict[str, None] = {}
    for _ in range(8 * num):
        text = write(prompt, rng.randrange(1, 1000), FLAWED)
        found[_damaged(rng, text, others) if rng.random() < DAMAGED else text] = None
        if len(found) == num:
            break
    return list(found)


def _damaged(rng: random.Random, text: str, others: Sequence[str]) -> str:
    """The answer with what can go wrong in writing: wrong words, another's answer or half of it, cut, said twice."""
    words, other = text.split(), rng.choice(others)
    way = rng.choice(("words", "words", "other", "joined", "cut", "repeated", "order"))
    if way == "words":
        for _ in range(rng.randint(1, 3)):
            text = swap(rng, text)
        return text
    if way == "other":
        return other
    if way == "joined":
        begun = words[: rng.randint(1, len(words))]
        return " ".join([*begun, *other.split()[-len(other.split()) // 2 :]][:MAX_WORDS])
    if way == "cut":
        return " ".join(words[: rng.randint(1, len(words))])
    if way == "repeated":
        said = [f"{part.strip()} ." for part in text.split(" .") if part.strip()]
        return " ".join(" ".join([text, rng.choice(said)]).split()[:MAX_WORDS])
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    words[i], words[j] = words[j], words[i]
    return " ".join(words)


def _mark(rng: random.Random, utility: float) -> int:
    low, high = RANGE
    return min(10, max(1, round(1 + 9 * (utility + rng.gauss(0, NOISE) - low) / (high - low))))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))
