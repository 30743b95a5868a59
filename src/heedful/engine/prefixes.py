"""Which prompts of a batch begin alike, so that what they share is computed once.

    shared by all | shared by a group | rest of a prompt
                                      | rest of another
                  | shared by another group | …

Two levels: what all prompts begin with, and what the prompts of one group go on with. A judge who is asked about one
pair by sixteen principles is such a group; so are a question's answers, and a pair in both orders behind one text.
"""

from collections.abc import Sequence
from itertools import islice, pairwise, takewhile
from typing import NamedTuple

LEAST = 16  # tokens that a group has for itself at least: to keep fewer costs as much as to compute them again
MOST = 256  # members of a group, which bounds the search


class Group(NamedTuple):
    """Prompts, by their numbers, and how many tokens they begin with alike; one alone shares what all share."""

    members: list[int]
    length: int


def shared_length(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, at least the last of each left over."""
    return _same(min(prompts), max(prompts), 0, min(map(len, prompts)))  # what these two share in front, all share


def groups(prompts: Sequence[list[int]], shared: int) -> list[Group]:
    """The prompts, all of which share `shared` tokens, in groups: the cut of their sorted order that saves the most.

    A group of m with a prefix of c tokens behind the shared ones saves (m − 1)·c. The best cut into runs of neighbours
    is found from the front, in O(n · members). Groups around other groups, which are no runs, are not looked for: they
    would share what is short.
    """
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    pairs = [(prompts[a], prompts[b]) for a, b in pairwise(order)]
    alike = [0, *(_same(a, b, shared, min(len(a), len(b))) for a, b in pairs)]  # of each with the one before it
    saved, cut, width = [0], [0], [shared]  # of the first n: tokens saved, where the last group begins, its length
    for end in range(1, len(order) + 1):
        best = saved[end - 1], end - 1, shared
        length = len(prompts[order[end - 1]])
        for begin in range(end - 2, max(-1, end - 1 - MOST), -1):
            length = min(length, alike[begin + 1])
            if length - shared < LEAST:
                break
            best = max(best, (saved[begin] + (end - begin - 1) * (length - shared), begin, length))
        for known, value in zip((saved, cut, width), best, strict=True):
            known.append(value)
    found, end = [], len(order)
    while end:
        found.append(Group(order[cut[end] : end], width[end]))
        end = cut[end]
    return found[::-1]


def _same(a: list[int], b: list[int], known: int, shortest: int) -> int:
    """How many tokens both begin with, of which `known` are known to be the same; fewer than `shortest`."""
    behind = zip(islice(a, known, None), islice(b, known, None), strict=False)
    return min(known + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], behind)), shortest - 1)
