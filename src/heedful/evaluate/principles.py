"""How well a reward model follows the principles it is given: on labels of held-out prompts, by the principle that
decided each.

A label says which of two responses is better under a list of principles, some of them negated. Negate the one that
decided, and by the way labels are made (SALMON, arXiv 2310.05910, section 3.2) the other response wins: so a model that
follows the list must change its choice.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from heedful.evaluate.statistics import Estimate, clustered_proportion

ALL = "all"  # in the place of a principle's name: of all together


class Followed(NamedTuple):
    """A label, and by how much a model prefers the response that the label does, in whatever unit it speaks.

    `margin` under the principles as they stood, `negated` with the deciding one the other way round; `exact`: whether
    the label is right, None where nobody knows, or where the exact fulfilment is equal.
    """

    prompt_id: str
    decided_by: str
    margin: float
    negated: float
    exact: bool | None = None


class Gap(NamedTuple):
    """What a labeler said of a pair by one principle, in both orders, and the exact distance where it is known."""

    prompt_id: str
    principle: str
    orders: tuple[float, float]
    exact: float | None = None


def share(margin: float) -> float:
    """1 of a margin above 0, 0 of one below, ½ of none."""
    return 0.5 if margin == 0 else float(margin > 0)


def flips(item: Followed) -> bool:
    """Whether the choice is another once the deciding principle is turned round; no choice at all is none."""
    return item.margin * item.negated < 0


def followed_rows(model: str, items: Sequence[Followed]) -> list[dict[str, Any]]:
    """A row for each principle that decided, and for all, and each figure, with 95 % intervals clustered by prompt.

    accuracy    share of labels the model agrees with
    exact       share of choices that agree with the exact fulfilment of the deciding principle, negated where it is
    flips       share of choices that change when the deciding principle is turned round
    """
    rows = []
    for principle in (ALL, *sorted({item.decided_by for item in items})):
        own = [item for item in items if principle in (ALL, item.decided_by)]
        known = [item for item in own if item.exact is not None]
        figures = {
            "accuracy": of(own, [share(item.margin) for item in own]),
            "exact": of(known, [share(item.margin if item.exact else -item.margin) for item in known]),
            "flips": of(own, [float(flips(item)) for item in own]),
        }
        rows += [row(model, principle, figure, found) for figure, found in figures.items()]
    return rows


def labeler_rows(labeler: str, gaps: Sequence[Gap]) -> list[dict[str, Any]]:
    """The same table of who scored: `exact`, how often the mean of both orders is on the side of the exact fulfilment,
    over pairs that this tells apart, and `orders_agree`, how often both orders prefer one response."""
    rows = []
    for principle in (ALL, *sorted({gap.principle for gap in gaps})):
        own = [gap for gap in gaps if principle in (ALL, gap.principle)]
        known = [(gap, gap.exact) for gap in own if gap.exact]
        exact = [share((gap.orders[0] + gap.orders[1]) * way) for gap, way in known]
        agree = [float(gap.orders[0] * gap.orders[1] > 0) for gap in own]
        rows.append(row(labeler, principle, "exact", of([gap for gap, _ in known], exact)))
        rows.append(row(labeler, principle, "orders_agree", of(own, agree)))
    return rows


def of(items: Sequence[Followed | Gap], values: Sequence[float]) -> Estimate:
    return clustered_proportion(values, [item.prompt_id for item in items])


def row(model: str, principle: str, figure: str, found: Estimate) -> dict[str, Any]:
    numbers = {"mean": found.mean, "low": found.low, "high": found.high, "num": found.num}
    return {"model": model, "principle": principle, "figure": figure, **numbers}
