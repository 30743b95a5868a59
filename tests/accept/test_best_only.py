"""Learning which response was best (a softmax over K, Ziegler et al.) against learning the whole ranking.

Both arms see the same rankings as often, each at its own best learning rate. Each seed has rankings of its own.
"""

from statistics import mean
from typing import Any

import pytest

from heedful.evaluate.statistics import Estimate
from heedful.report.charts import Series, line_chart
from heedful.stages.reward_model import objective, validate
from studies import Prepared, each, new_reward_model, over_seeds, shown, standalone, training

pytestmark = pytest.mark.accept
SEEDS = range(6)
RANKINGS, VALID, BATCH, PASSES = 240, 200, 4, 3
RATES = (3e-4, 1e-3, 3e-3)
ARMS = ("ranking", "best_of_k")
Curve = list[tuple[float, float, float]]  # passes done, loss and accuracy on validation, the loss being the arm's own


def learn(world: Prepared, arm: str, lr: float, seed: int) -> Curve:
    data = world.rankings("train", "train")[seed * RANKINGS : (seed + 1) * RANKINGS]
    valid = world.rankings("test", "train")[:VALID]
    settings = {"objective": arm, "lr": lr, "batch_size": BATCH, "epochs": PASSES}
    config = world.config.model_copy(update=settings)
    model = new_reward_model(world.start, seed)
    curve: Curve = []
    for passes, _ in training(model, data, config, world.pad, seed):
        if passes * 2 % 1 == 0:
            curve.append((passes, *validate(model, valid, world.pad, objective(config), config)))
    return curve


def test_best_only_overfits_where_the_whole_ranking_does_not(prepared: Prepared, record_property: Any) -> None:
    record_property(
        "claim",
        "learning only which response was best overfits (its validation loss turns up) more than the whole ranking "
        "does, and orders validation comparisons worse, at its best and after the last pass",
    )
    curves: dict[str, list[Curve]] = {}
    rates: dict[str, float] = {}
    for arm in ARMS:
        tried = {lr: learn(prepared, arm, lr, SEEDS[0]) for lr in RATES}
        rates[arm] = max(tried, key=lambda lr: max(accuracy for _, _, accuracy in tried[lr]))
        curves[arm] = [tried[rates[arm]], *(learn(prepared, arm, rates[arm], seed) for seed in SEEDS[1:])]
    best = {arm: [max(accuracy for _, _, accuracy in curve) for curve in curves[arm]] for arm in ARMS}
    last = {arm: [curve[-1][2] for curve in curves[arm]] for arm in ARMS}
    rise = {arm: [curve[-1][1] / min(loss for _, loss, _ in curve) - 1 for curve in curves[arm]] for arm in ARMS}
    gain = {"at its best": difference(best), f"after pass {PASSES}": difference(last)}
    less_rise = difference(rise)
    record_property(
        "measured",
        f"seeds {each(SEEDS, 0)}, {RANKINGS} rankings each. Whole ranking minus best-only, accuracy on validation: "
        + "; ".join(f"{when} {shown(found)}" for when, found in gain.items())
        + f". Best accuracy: whole {each(best['ranking'])}, best-only {each(best['best_of_k'])}. Own validation loss "
        f"at the end above its lowest, as a share of that: whole {each(rise['ranking'])}, best-only "
        f"{each(rise['best_of_k'])}, difference {shown(less_rise)}. "
        f"Best rates of {RATES}: {rates['ranking']:g} and {rates['best_of_k']:g}",
    )
    record_property("figure", picture(curves))
    assert all(found.low is not None and found.low > 0 for found in gain.values())
    assert less_rise.high is not None and less_rise.high < 0


def difference(values: dict[str, list[float]]) -> Estimate:
    """What the whole ranking has more than best-only, paired by seed."""
    return over_seeds([a - b for a, b in zip(values["ranking"], values["best_of_k"], strict=True)])


def picture(curves: dict[str, list[Curve]]) -> str:
    series = []
    for arm, name, colour in (("ranking", "whole ranking", 4), ("best_of_k", "best only", 3)):
        points = [[mean(values) for values in zip(*at, strict=True)] for at in zip(*curves[arm], strict=True)]
        passes, _, accuracy = zip(*points, strict=True)
        series.append(Series(name, passes, accuracy, colour, "both"))
    chart = line_chart(series, "", "passes over the rankings", x_range=(0, PASSES), named=True)
    return standalone(chart, 80, f"Accuracy on validation comparisons: mean of {len(SEEDS)} seeds")
