"""How often two labelers prefer the same one of two responses (InstructGPT, section 3.4: 72.6 ± 1.5 %, held-out
labelers 77.3 ± 1.3 %).

For every prompt that at least two labelers ranked: every pair of labelers times every pair of responses both ranked.
The comparisons of one prompt are not independent, so the standard error is clustered by prompt. The paper does not
say what it does with ties: that is a parameter.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from typing import Literal

from heedful.types import Labeler, Ranking

Ties = Literal["skip", "half", "exact"]


@dataclass(frozen=True)
class Agreement:
    """Share of comparisons with the same preferred response, and its standard error clustered by prompt.

    `mean` is None without a comparison, `stderr` with fewer than two prompts.
    """

    mean: float | None
    stderr: float | None
    num_comparisons: int
    num_prompts: int

    def __str__(self) -> str:
        if self.mean is None:
            return "no prompt was ranked by two labelers"
        error = "" if self.stderr is None else f" ± {100 * self.stderr:.1f}"
        return f"{100 * self.mean:.1f}{error} % ({self.num_comparisons} comparisons, {self.num_prompts} prompts)"


def agreement(rankings: Iterable[Ranking], ties: Ties = "skip") -> Agreement:
    """Pairwise agreement between labelers.

    Rankings of different purposes follow different guidelines and are never compared with each other. Where a
    labeler ranked the same two responses more than once, the last ranking given counts.

    Args:
        ties: "skip" leaves out comparisons that either labeler tied; "half" counts a tie against a preference as
            one half and two ties as agreement; "exact" counts a tie against a preference as disagreement.
    """
    preferences: dict[tuple[str, str], dict[str, dict[tuple[str, str], int]]] = defaultdict(lambda: defaultdict(dict))
    for ranking in rankings:
        preferences[ranking.prompt_id, ranking.purpose][ranking.labeler].update(_preferences(ranking))
    agreed: dict[str, float] = defaultdict(float)
    compared: dict[str, int] = defaultdict(int)
    for (prompt_id, _), of_labeler in preferences.items():
        for one, other in combinations(of_labeler.values(), 2):
            for pair in one.keys() & other.keys():
                if ties == "skip" and 0 in (one[pair], other[pair]):
                    continue
                compared[prompt_id] += 1
                agreed[prompt_id] += _agree(one[pair], other[pair], ties)
    return _clustered([(agreed[prompt], number) for prompt, number in compared.items()])


def agreement_by_group(
    rankings: Iterable[Ranking], labelers: Iterable[Labeler], ties: Ties = "skip"
) -> dict[str, Agreement]:
    """Agreement within each group of labelers: "train" and "heldout"."""
    rankings = list(rankings)
    group = {labeler.id: labeler.group for labeler in labelers}
    return {
        name: agreement((ranking for ranking in rankings if group.get(ranking.labeler) == name), ties)
        for name in ("train", "heldout")
    }


def _preferences(ranking: Ranking) -> dict[tuple[str, str], int]:
    """For each pair of responses in order of id: 1 when the first is preferred, −1 the second, 0 a tie."""
    rank = sorted(zip(ranking.responses, ranking.rank, strict=True))
    return {(a, b): (rank_b > rank_a) - (rank_b < rank_a) for (a, rank_a), (b, rank_b) in combinations(rank, 2)}


def _agree(one: int, other: int, ties: Ties) -> float:
    if one == other:
        return 1.0
    return 0.5 if ties == "half" and 0 in (one, other) else 0.0


def _clustered(clusters: list[tuple[float, int]]) -> Agreement:
    """A ratio of sums with the linearised variance over clusters: m / (m − 1) · Σ (aᵢ − p nᵢ)² / (Σ nᵢ)²."""
    total = sum(number for _, number in clusters)
    if total == 0:
        return Agreement(None, None, 0, 0)
    mean = sum(agreed for agreed, _ in clusters) / total
    m = len(clusters)
    stderr = None
    if m > 1:
        residuals = sum((agreed - mean * number) ** 2 for agreed, number in clusters)
        stderr = sqrt(m / (m - 1) * residuals) / total
    return Agreement(mean, stderr, total, m)
