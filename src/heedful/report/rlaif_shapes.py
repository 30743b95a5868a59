"""Which of RLAIF's shapes came out (Lee et al. 2023, arXiv 2309.00267): each a claim of the paper's, tested by the rows
of over_seeds.json.

A claim of more or less holds where it does by the means and in most seeds, fails where it does not by the means, and is
open where the means say yes and most seeds do not. That two are alike holds where the interval lies within `ALIKE` of
one half, fails where it lies outside, and is open in between: a wide interval shows nothing.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from heedful.report.shapes import Shape, said

Json = dict[str, Any]
SIZES = ("small", "same_size", "large")
ALIKE = 0.05  # of a win rate, around one half
PEOPLE = "reward_model"  # the reward model of people's labels
OF_LABELERS = {"large": "the largest labeler's", "same_size": "the same size's", "small": "the smallest labeler's"}


class Rows:
    """Rows by table, name and measure."""

    def __init__(self, rows: Sequence[Json]) -> None:
        self._found = {(row["table"], row["name"], row["measure"]): row for row in rows}

    def seeds(self, table: str, name: str, measure: str) -> list[float]:
        """The number of every seed that has it."""
        row = self._found.get((table, name, measure))
        return row["seeds"] if row else []

    def interval(self, table: str, name: str, measure: str) -> tuple[float, float] | None:
        row = self._found.get((table, name, measure))
        return None if row is None or row["low"] is None else (row["low"], row["high"])

    def sizes(self, figure: str) -> list[list[float]]:
        return [self.seeds("ai_labelers", size, figure) for size in SIZES]

    def wins(self, policy: str, other: str = "") -> list[float]:
        return self.seeds("pairwise", policy, other) if other else self.seeds("policies", policy, "win_rate")

    def accuracy(self, model: str) -> list[float]:
        return self.seeds("reward_models", model, "accuracy_heldout")

    def error(self, model: str) -> list[float]:
        return self.seeds("reward_models", model, "calibration_error")


def rises(figure: str, claim: str, paper: str, values: Sequence[Sequence[float]]) -> Shape:
    """A claim that each is above the one before; every entry has a number for each seed."""
    means = [mean(own) for own in values]
    ours = percent(means)
    if not values[0] or len({len(own) for own in values}) > 1:
        return Shape(figure, claim, paper, ours, None)
    by_seed = [climbs([own[seed] for own in values]) for seed in range(len(values[0]))]
    holds = (2 * sum(by_seed) > len(by_seed) or None) if climbs(means) else False
    return Shape(figure, claim, paper, f"{ours}, {sum(by_seed)} of {len(by_seed)} seeds", holds)


def climbs(values: Sequence[float]) -> bool:
    return all(before < after for before, after in pairwise(values))


def shapes(rows: Sequence[Json]) -> list[Shape]:
    """All claims in the order of the paper's tables."""
    r = Rows(rows)
    return [*of_labelers(r), *of_reward_models(r), *of_policies(r)]


def of_labelers(r: Rows) -> list[Shape]:
    alignment, bias, alone = (r.sizes(figure) for figure in ("alignment", "same_position", "alignment_one_order"))
    gains = [[a - b for a, b in zip(both, one, strict=False)] for both, one in zip(alignment, alone, strict=True)]
    in_order = [gain for _, gain in sorted(zip(bias, gains, strict=True), key=lambda pair: mean(pair[0]))]
    return [
        rises("alignment", "a larger labeler agrees with people more often", "62.7 73.8 78.0 %", alignment),
        rises("position", "a smaller labeler prefers a place more often", "L 18, S 21, XS 56 %", bias[::-1]),
        rises(
            "position",
            "averaging both orders gains the more, the larger the bias",
            "orders are always averaged",
            in_order,
        ),
    ]


def of_reward_models(r: Rows) -> list[Shape]:
    found = [
        rises(
            "reward model",
            "people's labels teach more about people's than the largest labeler's",
            "74.2 < 79.3 %",
            [r.accuracy("large_soft"), r.accuracy(PEOPLE)],
        )
    ]
    for size, whose in OF_LABELERS.items():
        claim = f"{whose} soft labels teach more than its hard ones"
        found.append(rises("soft labels", claim, "soft", [r.accuracy(f"{size}_hard"), r.accuracy(f"{size}_soft")]))
        claim = f"{whose} soft labels leave a smaller calibration error than its hard ones"
        found.append(rises("soft labels", claim, "–", [r.error(f"{size}_soft"), r.error(f"{size}_hard")]))
    claim = "a larger labeler's labels make a better reward model"
    by_size = [r.accuracy(f"{size}_soft") for size in SIZES]
    return [*found, rises("reward model", claim, "XS 66.4, L 77.9 % (base prompt, no exemplars)", by_size)]


def of_policies(r: Rows) -> list[Shape]:
    against = {
        "rlaif": ("RLAIF beats SFT", "71 %"),
        "rlhf": ("RLHF beats SFT", "73 %"),
        "same_size": ("RLAIF by a labeler of the policy's size beats SFT", "68 %"),
        "direct": ("direct RLAIF by that labeler beats SFT", "74 %"),
    }
    found = [above_half(claim, paper, r.wins(name)) for name, (claim, paper) in against.items()]
    found.append(alike(r))
    found.append(above_half("direct RLAIF beats RLAIF, both by that labeler", "60 %", r.wins("direct", "same_size")))
    return [*found, gains_nothing(r)]


def above_half(claim: str, paper: str, values: Sequence[float]) -> Shape:
    return rises("win rate", claim, paper, [[0.5] * len(values), values])._replace(ours=won(values))


def won(values: Sequence[float]) -> str:
    """A win rate, and the seeds in which it is above one half."""
    above = sum(value > 0.5 for value in values)
    return f"{percent([mean(values)])}, {above} of {len(values)} seeds" if values else "–"


def alike(r: Rows) -> Shape:
    claim = f"RLAIF and RLHF are alike: the interval lies within {50 - 100 * ALIKE:.0f}…{50 + 100 * ALIKE:.0f} %"
    found, values = r.interval("pairwise", "rlaif", "rlhf"), r.wins("rlaif", "rlhf")
    if found is None:
        return Shape("win rate", claim, "50 %", won(values), None)
    low, high = found
    inside = 0.5 - ALIKE <= low and high <= 0.5 + ALIKE
    outside = high < 0.5 - ALIKE or low > 0.5 + ALIKE
    ours = f"{percent([mean(values)])} ({said([100 * low], 1)}…{said([100 * high], 1)})"
    return Shape("win rate", claim, "50 %", ours, True if inside else False if outside else None)


def gains_nothing(r: Rows) -> Shape:
    """Open where the interval holds both no gain and one of `ALIKE`."""
    claim = "people's and the machine's labels mixed gain nothing over people's: less than 5 points"
    found, values = r.interval("pairwise", "mixed", "rlhf"), r.wins("mixed", "rlhf")
    if found is None:
        return Shape("win rate", claim, "71 and 74 %", won(values), None)
    low, high = found
    ours = f"{percent([mean(values)])} ({said([100 * low], 1)}…{said([100 * high], 1)}) against RLHF"
    holds = False if low > 0.5 else True if high <= 0.5 + ALIKE else None
    return Shape("win rate", claim, "71 and 74 %", ours, holds)


def mean(values: Sequence[float]) -> float:
    """NaN of none."""
    return sum(values) / len(values) if values else float("nan")


def percent(values: Sequence[float]) -> str:
    return said([None if value != value else 100 * value for value in values], 1) + " %"
