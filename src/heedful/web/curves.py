"""Training curves from a log that may be growing: few enough points to draw, numbers that JSON can say."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

POINTS = 200  # of a curve; more are drawn as means of neighbours
MOST_CURVES = 6
# What a person looks for first; the others follow in the order of the log.
FIRST = ("score", "kl_k1", "valid_loss", "loss", "valid_accuracy", "accuracy", "value_loss", "entropy", "length")
LEFT_OUT = ("step", "seconds", "tokens_per_second", "tokens", "epoch", "lr")


class Curves(NamedTuple):
    """`curves`: (name, [(step, value), …]). `last`: every number of the newest row. `whole`: nothing was too long."""

    steps: int
    curves: list[tuple[str, list[tuple[float, float]]]]
    last: dict[str, float]
    whole: bool


def curves_of(rows: Sequence[dict[str, Any]], whole: bool = True) -> Curves:
    """The curves of a log's rows. A value that is no finite number is left out of its curve."""
    found: dict[str, list[tuple[float, float]]] = {}
    last: dict[str, float] = {}
    for number, row in enumerate(rows):
        at = float(row["step"] if is_number(row.get("step")) else number)
        for name, value in row.items():
            if is_number(value):
                found.setdefault(name, []).append((at, float(value)))
                last[name] = value
    names = [name for name in (*FIRST, *found) if name in found and name not in LEFT_OUT]
    drawn = list(dict.fromkeys(names))[:MOST_CURVES]
    return Curves(int(last.get("step", len(rows))), [(name, thinned(found[name])) for name in drawn], last, whole)


def is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and abs(value) < 1e15


def thinned(points: Sequence[tuple[float, float]], most: int = POINTS) -> list[tuple[float, float]]:
    """At most so many: means of neighbours."""
    width = math.ceil(len(points) / most)
    if width <= 1:
        return list(points)
    groups = [points[at : at + width] for at in range(0, len(points), width)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
