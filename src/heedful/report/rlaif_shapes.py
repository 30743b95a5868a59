"""Which of RLAIF's shapes came out (Lee et al. 2023, arXiv 2309.00267): each a claim of the paper's, tested by the rows
of over_seeds.json. A claim holds by the means over seeds, but where it says that two are alike: then by the interval.
"""

from collections.abc import Sequence
from typing import Any

from heedful.report.shapes import Shape, holds, rising, said

Json = dict[str, Any]
SIZES = ("small", "same_size", "large")


class Rows:
    """Rows by table, name and measure."""

    def __init__(self, rows: Sequence[Json]) -> None:
        self._found = {(row["table"], row["name"], row["measure"]): row for row in rows}

    def mean(self, table: str, name: str, measure: str) -> float | None:
        row = self._found.get((table, name, measure))
        return row["mean"] if row else None

    def interval(self, table: str, name: str, measure: str) -> tuple[float | None, float | None]:
        row = self._found.get((table, name, measure))
        return (row["low"], row["high"]) if row else (None, None)

    def sizes(self, figure: str) -> list[float | None]:
        return [self.mean("ai_labelers", size, figure) for size in SIZES]

    def wins(self, policy: str, other: str = "") -> float | None:
        return self.mean("pairwise", policy, other) if other else self.mean("policies", policy, "win_rate")

    def accuracy(self, model: str) -> float | None:
        return self.mean("reward_models", model, "accuracy_heldout")


def shapes(rows: Sequence[Json]) -> list[Shape]:
    """All claims in the order of the paper's tables."""
    r = Rows(rows)
    return [*of_labelers(r), *of_reward_models(r), *of_policies(r)]


def of_labelers(r: Rows) -> list[Shape]:
    alignment, bias, alone = (r.sizes(figure) for figure in ("alignment", "same_position", "alignment_one_order"))
    gains = [None if a is None or b is None else a - b for a, b in zip(alignment, alone, strict=True)]
    falling = rising([None if value is None else -value for value in bias])
    known = [(b, g) for b, g in zip(bias, gains, strict=True) if b is not None and g is not None]
    most = max(known)[1] == max(gain for _, gain in known) if len(known) == len(SIZES) else None
    return [
        Shape(
            "alignment",
            "a larger labeler agrees with people more often",
            "62.7 73.8 78.0 %",
            percent(alignment),
            rising(alignment),
        ),
        Shape("position", "a larger labeler prefers a place less often", "56 21 18 %", percent(bias), falling),
        Shape(
            "position",
            "averaging both orders gains most where the bias is largest",
            "orders are always averaged",
            f"gains {said(gains)}",
            most,
        ),
    ]


def of_reward_models(r: Rows) -> list[Shape]:
    people, machine = r.accuracy("reward_model"), r.accuracy("large_soft")
    found = [
        Shape(
            "reward model",
            "people's labels teach more about people's than a machine's do",
            "79.3 > 74.2 %",
            percent([people, machine]),
            holds(lambda a, b: a > b, people, machine),
        )
    ]
    names = {"large": "the largest labeler's", "same_size": "the same size's", "small": "the smallest labeler's"}
    for size, whose in names.items():
        soft, hard = r.accuracy(f"{size}_soft"), r.accuracy(f"{size}_hard")
        claim = f"{whose} soft labels beat its hard ones"
        found.append(Shape("soft labels", claim, "soft", percent([soft, hard]), holds(lambda a, b: a > b, soft, hard)))
    soft, hard = r.accuracy("people_soft"), people
    claim = "people's votes as soft labels beat hard ones"
    found.append(Shape("soft labels", claim, "not asked", percent([soft, hard]), holds(lambda a, b: a > b, soft, hard)))
    by_size = [r.accuracy(f"{size}_soft") for size in SIZES]
    claim = "a larger labeler's labels make a better reward model"
    return [*found, Shape("reward model", claim, "XS 66.4, L 77.9 %", percent(by_size), rising(by_size))]


def of_policies(r: Rows) -> list[Shape]:
    against = {
        "rlaif": ("RLAIF beats SFT", "71 %"),
        "rlhf": ("RLHF beats SFT", "73 %"),
        "same_size": ("RLAIF by a labeler of the policy's size beats SFT", "68 %"),
        "direct": ("direct RLAIF beats SFT", "74 %"),
    }
    found = [
        Shape("win rate", claim, paper, percent([r.wins(name)]), holds(lambda a: a > 0.5, r.wins(name)))
        for name, (claim, paper) in against.items()
    ]
    low, high = r.interval("pairwise", "rlaif", "rlhf")
    alike = holds(lambda a, b: a <= 0.5 <= b, low, high)
    own = f"{percent([r.wins('rlaif', 'rlhf')])} ({percent([low, high])})"
    direct, mixed = r.wins("direct", "same_size"), [r.wins("mixed"), r.wins("rlhf")]
    return [
        *found,
        Shape("win rate", "RLAIF and RLHF are alike: the interval holds one half", "50 %", own, alike),
        Shape(
            "win rate",
            "direct RLAIF beats RLAIF of the same size",
            "60 %",
            percent([direct]),
            holds(lambda a: a > 0.5, direct),
        ),
        Shape(
            "win rate",
            "people's and machine's labels mixed gain nothing over people's",
            "71, 74 %",
            percent(mixed),
            no_gain(*mixed),
        ),
    ]


def no_gain(mixed: float | None, people: float | None) -> bool | None:
    return None if mixed is None or people is None else mixed <= people


def percent(values: Sequence[float | None]) -> str:
    return said([None if value is None else 100 * value for value in values], 1) + " %"
