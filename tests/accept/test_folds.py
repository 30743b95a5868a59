"""Cross-validation over groups of labelers (InstructGPT, section 4.1): who was trained on is predicted best.

Five groups; a reward model learns from four and is measured on validation prompts against the rankings of those four
and of the fifth. The paper's: 72.4 % against its own groups, 69.6 % against the one left out.
"""

import random
from collections import defaultdict
from typing import Any

import pytest

from heedful.evaluate.statistics import clustered_proportion, kfold_groups, paired_difference
from heedful.report.charts import Dot, interval_chart
from studies import SEEDS, Prepared, accuracies, each, new_reward_model, shown, standalone, training

pytestmark = pytest.mark.accept
FOLDS, RANKINGS, JUDGED = 5, 600, 500
MOST = 0.05  # the largest drop that counts as generalising; the paper's is 0.028


def test_a_group_of_labelers_left_out_is_predicted_nearly_as_well(prepared: Prepared, record_property: Any) -> None:
    record_property(
        "claim",
        f"a reward model trained on four groups of labelers predicts the fifth at most {MOST} worse than its own "
        "(five folds; the paper: 0.724 against 0.696)",
    )
    labeler, prompt = prepared.labelers(), prepared.prompts()
    data = prepared.rankings("train", "train")
    judged = [*prepared.rankings("valid", "train"), *prepared.rankings("test", "train")][:JUDGED]
    names = sorted({labeler[item.id] for item in data})
    own: dict[str, list[float]] = defaultdict(list)  # ranking → accuracy of each model that was trained on its labeler
    left_out: dict[str, list[float]] = defaultdict(list)
    for seed in SEEDS:
        fold_of = dict(zip(names, kfold_groups(names, FOLDS, seed), strict=True))
        for fold in range(FOLDS):
            rest = [item for item in data if fold_of[labeler[item.id]] != fold]
            sample = random.Random(seed * FOLDS + fold).sample(rest, RANKINGS)
            model = new_reward_model(prepared.start, seed)
            for _ in training(model, sample, prepared.config, prepared.pad, seed):
                pass
            for item, accuracy in zip(judged, accuracies(model, judged, prepared.pad, prepared.config), strict=True):
                (left_out if fold_of[labeler[item.id]] == fold else own)[item.id].append(accuracy)
    of_prompt = [prompt[item.id] for item in judged]
    as_own = [sum(own[item.id]) / len(own[item.id]) for item in judged]
    as_left_out = [sum(left_out[item.id]) / len(left_out[item.id]) for item in judged]
    drop = paired_difference(as_own, as_left_out, of_prompt)
    groups = {"own": clustered_proportion(as_own, of_prompt), "left out": clustered_proportion(as_left_out, of_prompt)}
    record_property(
        "measured",
        f"{FOLDS} folds, seeds {each(SEEDS, 0)}, {RANKINGS} rankings each; on {len(judged)} rankings of validation "
        f"prompts: own groups {shown(groups['own'])}, the group left out {shown(groups['left out'])}, drop "
        f"{shown(drop)}, intervals by prompt",
    )
    dots = [Dot(name, e.mean, e.low, e.high, 2 + i, f"{e.mean:.3f}") for i, (name, e) in enumerate(groups.items())]
    chart = interval_chart(dots, "", 0.6, 0.8, unit=100)
    record_property("figure", standalone(chart, 0, "Reward accuracy by labeler group, % of comparisons"))
    assert drop.high is not None and drop.high <= MOST
