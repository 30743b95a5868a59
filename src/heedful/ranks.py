"""Ranks and soft labels of one set of responses, and how the one follows from the other.

A soft label is how likely the first of two responses is the better. Pairs i < j stand in lexicographic order.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import fsum

Preference = Sequence[
    tuple[float, float]
]  # of each pair: P(i is the better) with i shown first, and with j shown first


def soft_labels(preference: Preference) -> list[float]:
    """What the two orders say of each pair, averaged: a labeler who only minds the order says exactly ½.

    >>> soft_labels([(0.9, 0.5), (0.7, 1 - 0.7)])
    [0.7, 0.5]
    """
    return [(first + second) / 2 for first, second in preference]


def rank_of(preference: Preference, number: int) -> tuple[int, ...]:
    """Ranks of `number` responses by the mean soft label over the others, 1 the best, without holes; equal means tie.

    >>> rank_of([(0.9, 0.7), (0.8, 0.8), (0.6, 0.2)], 3)
    (1, 3, 2)
    """
    label = dict(zip(combinations(range(number), 2), soft_labels(preference), strict=True))
    label |= {(j, i): 1 - share for (i, j), share in label.items()}
    return dense([-fsum(label[i, j] for j in range(number) if j != i) for i in range(number)])


def dense(marks: Sequence[float]) -> tuple[int, ...]:
    """Ranks from marks of which the least is best: 1, 2, … without holes; equal marks tie."""
    place = {mark: number for number, mark in enumerate(sorted(set(marks)), start=1)}
    return tuple(place[mark] for mark in marks)


def hard_labels(rank: Sequence[int]) -> list[float]:
    """What ranks alone say of each pair: 1, 0, or ½ of two that tie.

    >>> hard_labels([1, 2, 2])
    [1.0, 1.0, 0.5]
    """
    return [(a < b) + (a == b) / 2 for a, b in combinations(rank, 2)]


def shares(responses: Sequence[str], rank: Sequence[int], preference: Preference = ()) -> dict[tuple[str, str], float]:
    """P(the first of two responses is the better), by their ids, every pair both ways; by `rank` alone 1, 0, ½."""
    label = soft_labels(preference) if preference else hard_labels(rank)
    found = dict(zip(combinations(responses, 2), label, strict=True))
    return found | {(j, i): 1 - share for (i, j), share in found.items()}


def misfit(preference: Preference, rank: Sequence[int]) -> str:
    """Why they cannot be of one ranking; "" where they can."""
    number = len(rank)
    if len(preference) != number * (number - 1) // 2:
        return f"preference has {len(preference)} pairs for {number} responses"
    if not all(0 <= probability <= 1 for pair in preference for probability in pair):
        return "preference holds probabilities, from 0 to 1"
    meant = rank_of(preference, number)
    return "" if meant == dense(rank) else f"rank is {list(rank)}, but preference says {list(meant)}"


def untied_pairs(rank: Iterable[int]) -> list[tuple[int, int]]:
    """Index pairs (chosen, rejected) of a ranking's untied comparisons, in index order of the chosen."""
    rank = list(rank)
    return [(i, j) for i, a in enumerate(rank) for j, b in enumerate(rank) if a < b]
