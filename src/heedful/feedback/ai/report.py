"""How an AI labeler did: counts and values, one each for a judgement, for whoever draws intervals of them.

Alignment and position bias as in RLAIF (arXiv 2309.00267), sections 2.4 and appendix B; calibration by the expected
calibration error (Naeini et al. 2015, Guo et al. 2017) of its surer answers.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import combinations
from math import fsum
from typing import Any, NamedTuple

from heedful.types import Ranking

NUMBER = re.compile(r"(?<!\d)(?!\d{3}:)\d+")  # in a message; a status stands before a colon
TOLD = 3  # messages of failures of one kind that are shown, the most frequent ones
BINS = 10  # of the certainty, ½ … 1
FEWEST = 400  # comparisons of a calibration error: of a labeler without any, some 1/√n comes by chance

PairKey = tuple[str, frozenset[str]]  # prompt, both responses


class Judged(NamedTuple):
    """One pair in both orders: P(`one` is the better) when it is shown first, and when `other` is."""

    prompt_id: str
    one: str
    other: str
    first: float
    second: float

    @property
    def share(self) -> float:
        """The soft label."""
        return (self.first + self.second) / 2


class Compared(NamedTuple):
    """One person's untied comparison beside what the AI labeler says of the same pair."""

    prompt_id: str
    right: float  # 1 where the surer side is the person's, ½ where neither is surer
    in_one_order: float  # the mean of the same over the two orders, each alone
    certainty: float  # probability of the surer side, ½ … 1
    same_place: bool  # whether both orders prefer one place: then it is their mean alone that decides


def judged_pairs(rankings: Iterable[Ranking]) -> list[Judged]:
    """Every pair of the rankings; of one without probabilities both are 1, 0 or ½, as its ranks say."""
    found = []
    for ranking in rankings:
        share = ranking.share()
        for place, (one, other) in enumerate(combinations(ranking.responses, 2)):
            both = ranking.preference[place] if ranking.preference else (share[one, other],) * 2
            found.append(Judged(ranking.prompt_id, one, other, *both))
    return found


def same_position(pair: Judged) -> int | None:
    """1 or 2 where that place is preferred in both orders, 0 where the same response is.

    None where an order prefers neither: then there is no habit to see. Rankings without probabilities have no orders.
    """
    if 0.5 in (pair.first, pair.second):
        return None
    first, second = pair.first > 0.5, pair.second < 0.5  # whether the response shown first wins
    return 0 if first != second else 1 if first else 2


def compared(pairs: Sequence[Judged], people: Iterable[Ranking]) -> list[Compared]:
    """Each untied comparison by a person of a pair that the AI labeler judged, be it in several sets."""
    said: dict[tuple[str, str, str], list[bool]] = defaultdict(list)  # whether the first is the better
    for ranking in people:
        for (one, a), (other, b) in combinations(zip(ranking.responses, ranking.rank, strict=True), 2):
            if a != b:
                said[ranking.prompt_id, one, other].append(a < b)
                said[ranking.prompt_id, other, one].append(b < a)
    once = {(pair.prompt_id, *sorted((pair.one, pair.other))): pair for pair in pairs}.values()
    return [_compared(pair, better) for pair in once for better in said[pair.prompt_id, pair.one, pair.other]]


def _compared(pair: Judged, better: bool) -> Compared:
    def right(share: float) -> float:
        return 0.5 if share == 0.5 else float((share > 0.5) == better)

    alone = (right(pair.first) + right(pair.second)) / 2
    sure, place = max(pair.share, 1 - pair.share), same_position(pair)
    return Compared(pair.prompt_id, right(pair.share), alone, sure, place is not None and place > 0)


def calibration_error(right: Sequence[float], certainty: Sequence[float]) -> float:
    """Σ over bins of the certainty of (share of answers in it)·|share right − mean certainty|; NaN of none.

    >>> calibration_error([1, 0, 1, 1], [0.75, 0.75, 0.75, 0.75])
    0.0
    """
    bins: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for hit, sure in zip(right, certainty, strict=True):
        bins[min(BINS - 1, int((sure - 0.5) * 2 * BINS))].append((hit, sure))
    gaps = [abs(fsum(hit - sure for hit, sure in found)) for found in bins.values()]
    return fsum(gaps) / len(right) if right else float("nan")


def pair_keys(rankings: Iterable[Ranking]) -> set[PairKey]:
    """The pairs that the rankings compare."""
    return {(ranking.prompt_id, frozenset(pair)) for ranking in rankings for pair in combinations(ranking.responses, 2)}


def of_longer(rankings: Iterable[Ranking], length: Mapping[str, int], among: Set[PairKey]) -> list[tuple[str, float]]:
    """(prompt, P(the longer response is the better)) of each pair of `among` of unlike length; `length` by response."""
    found = []
    for ranking in rankings:
        share = ranking.share()
        for pair in combinations(ranking.responses, 2):
            longer, shorter = sorted(pair, key=lambda id: -length[id])
            if length[longer] != length[shorter] and (ranking.prompt_id, frozenset(pair)) in among:
                found.append((ranking.prompt_id, share[longer, shorter]))
    return found


def failures(said: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Of (reason, message) the most frequent messages of each reason, with their numbers; those that differ in numbers
    alone, and not in an HTTP status, are one (`num_messages` tells how many)."""
    every = Counter((reason, message) for reason, message in said if message)
    alike: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
    for (reason, message), number in every.most_common():
        alike[reason, NUMBER.sub("#", message)].append((message, number))
    shown = Counter[str]()
    rows = []
    for (reason, _), found in sorted(alike.items(), key=lambda one: -sum(number for _, number in one[1])):
        shown[reason] += 1
        told = {"reason": reason, "message": found[0][0], "num": sum(number for _, number in found)}
        rows += [told | {"num_messages": len(found)}] if shown[reason] <= TOLD else []
    return rows
