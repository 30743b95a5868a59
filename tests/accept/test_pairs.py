"""Comparisons shuffled as single data points against the prompt-wise batch (InstructGPT, section 3.5).

Both arms learn from the same rankings, the same number of comparisons in a step and the same number of passes over
them, each at its own best learning rate. Each seed has rankings of its own.
"""

from statistics import mean
from typing import Any

import pytest

from heedful.ranks import untied_pairs
from heedful.report.charts import Series, line_chart
from heedful.stages.reward_model import objective, validate
from heedful.text.collate import EncodedRanking
from studies import SEEDS, Prepared, each, new_reward_model, over_seeds, shown, standalone, training

pytestmark = pytest.mark.accept
RANKINGS, VALID, BATCH, PASSES = 240, 200, 4, 2
RATES = (3e-4, 1e-3, 3e-3)
Curve = list[tuple[float, float, float]]  # passes done, training loss since the point before, validation loss


def as_pairs(rankings: list[EncodedRanking]) -> list[EncodedRanking]:
    """Every untied comparison as a ranking of two."""
    return [
        EncodedRanking([item.rows[i], item.rows[j]], (1, 2), item.id)
        for item in rankings
        for i, j in untied_pairs(item.rank)
    ]


def learn(world: Prepared, shuffled: bool, lr: float, seed: int) -> tuple[Curve, float]:
    """The curve, and the loss on the training rankings after the first pass."""
    rankings = world.rankings("train", "train")[seed * RANKINGS : (seed + 1) * RANKINGS]
    valid = world.rankings("test", "train")[:VALID]
    data = as_pairs(rankings) if shuffled else rankings
    size = round(BATCH * len(data) / len(rankings))  # as many comparisons in a step as the prompt-wise batch has
    config = world.config.model_copy(update={"lr": lr, "batch_size": size, "epochs": PASSES})
    model = new_reward_model(world.start, seed)
    curve: Curve = []
    trained_loss = float("nan")
    for passes, loss in training(model, data, config, world.pad, seed):
        curve.append((passes, loss, validate(model, valid, world.pad, objective(config), config)[0]))
        if passes == 1:
            trained_loss = validate(model, rankings, world.pad, objective(config), config)[0]
    return curve, trained_loss


def first_pass(curve: Curve) -> list[float]:
    return [loss for passes, _, loss in curve if passes <= 1]


def test_shuffled_pairs_overfit_within_one_pass(prepared: Prepared, record_property: Any) -> None:
    record_property(
        "claim",
        "comparisons shuffled as single data points overfit within one pass (validation loss turns up, and lies "
        "further above the training loss); the prompt-wise batch does not",
    )
    chosen: dict[bool, float] = {}
    curves: dict[bool, list[Curve]] = {}
    rise: dict[bool, list[float]] = {}
    gap: dict[bool, list[float]] = {}
    for shuffled in (False, True):
        tried = {lr: learn(prepared, shuffled, lr, SEEDS[0]) for lr in RATES}
        chosen[shuffled] = min(tried, key=lambda lr: min(loss for _, _, loss in tried[lr][0]))
        found = [tried[chosen[shuffled]], *(learn(prepared, shuffled, chosen[shuffled], seed) for seed in SEEDS[1:])]
        curves[shuffled] = [curve for curve, _ in found]
        rise[shuffled] = [first_pass(curve)[-1] - min(first_pass(curve)) for curve, _ in found]
        gap[shuffled] = [first_pass(curve)[-1] - trained for curve, trained in found]
    more_gap = over_seeds([a - b for a, b in zip(gap[True], gap[False], strict=True)])
    lowest = {arm: [min(loss for _, _, loss in curve) for curve in curves[arm]] for arm in curves}
    end = {arm: [curve[-1][2] for curve in curves[arm]] for arm in curves}
    record_property(
        "measured",
        f"seeds {each(SEEDS, 0)}, {RANKINGS} rankings each. Validation loss at the end of pass 1 above its lowest "
        f"so far: shuffled {each(rise[True])}, prompt-wise {each(rise[False])}. Validation minus training loss after "
        f"pass 1: shuffled {each(gap[True])}, prompt-wise {each(gap[False])}, difference {shown(more_gap)}. Lowest "
        f"validation loss: shuffled {each(lowest[True])}, prompt-wise {each(lowest[False])}; after pass {PASSES}: "
        f"{each(end[True])} and {each(end[False])}. Best rates of {RATES}: {chosen[True]:g} and {chosen[False]:g}",
    )
    record_property("figure", picture(curves))
    assert all(a > 0 and a > b for a, b in zip(rise[True], rise[False], strict=True))
    assert more_gap.low is not None and more_gap.low > 0


def picture(curves: dict[bool, list[Curve]]) -> str:
    series = []
    for shuffled, name, colour in ((True, "shuffled", 3), (False, "prompt-wise", 4)):
        points = [[mean(values) for values in zip(*at, strict=True)] for at in zip(*curves[shuffled], strict=True)]
        passes, train, valid = zip(*points, strict=True)
        series += [Series(name, passes, valid, colour), Series("on its batches", passes, train, colour, "dashed")]
    chart = line_chart(series, "", "passes over the comparisons", x_range=(0, PASSES), named=True)
    return standalone(chart, 80, "Validation loss (solid), loss on training batches (dashed): mean of three seeds")
