"""The pretraining coefficient γ against the KL coefficient β (InstructGPT, equation 2 and figures 33 and 34).

Short PPO runs from one quickstart folder. The tax is what PPO adds to the loss on held-out pretraining text; the gain
is what it adds to the reward model's score on prompts of users nobody trained on, in standard deviations at the start.
"""

from pathlib import Path
from statistics import mean, pstdev
from typing import Any, NamedTuple

import pytest

from heedful.evaluate.statistics import Estimate, paired_difference
from heedful.pipeline.measure import MeasureConfig, measure
from heedful.report.charts import Mark, Series, line_chart
from heedful.run import Run, read_jsonl
from heedful.stages import ppo, sft
from studies import Prepared, each, shown, standalone

pytestmark = pytest.mark.accept
SEEDS = (0, 1)
PLAIN = 0.1  # the quickstart's KL coefficient
KL_COEFS = (PLAIN, 0.2, 0.5, 2.0)  # without pretraining loss
PTX_COEFS = (0.1, 0.4, 1.6)  # at the plain KL coefficient
SETTINGS = {"iterations": 12, "warmup_iterations": 2, "lr": 4e-4, "value_lr": 1.6e-3}  # few steps, but larger ones
KEPT = 0.8  # of the gain without pretraining loss: most of it


class Measured(NamedTuple):
    lm_loss: float
    kl: float
    score: dict[str, float]  # by prompt


def start_of(world: Prepared) -> Path:
    name = world.recipe.ppo_start
    return sft.epoch_folder(world.folder / name, world.recipe.sft[name].epochs)


def reward_model_of(world: Prepared) -> Path:
    return world.folder / "round-1" / "reward_model" / "model"


def train(world: Prepared, kl_coef: float, ptx_coef: float, seed: int, folder: Path) -> Path:
    """A short PPO run; the policy's folder."""
    coefficients = {"kl_coef": kl_coef, "ptx_coef": ptx_coef}
    config = world.recipe.ppo["ppo"].model_copy(update=SETTINGS | coefficients)
    run = Run.open(folder, "ppo", config.model_dump(mode="json"), seed)
    data = world.folder / "data"
    ppo.main(
        config, run, start_of(world), reward_model_of(world), data / "ppo", world.recipe.format, data / "documents"
    )
    return folder / "model"


def look(world: Prepared, policy: Path, seed: int, folder: Path) -> Measured:
    config = MeasureConfig(name="policy", temperature=1.0, max_new_tokens=world.recipe.evaluate.max_new_tokens)
    run = Run.open(folder, "measure", config.model_dump(mode="json"), seed)
    data = world.folder / "data"
    inputs = (policy, start_of(world), reward_model_of(world), data / "evaluation", data / "documents")
    measure(config, run, *inputs, world.recipe.format)
    score = {row["prompt_id"]: row["score"] for row in read_jsonl(folder / "samples.jsonl")}
    return Measured(run.results["lm_loss"], run.results["kl"], score)


def gain_of(found: Measured, start: Measured) -> Estimate:
    """In standard deviations of the start's scores, paired by prompt."""
    spread = pstdev(start.score.values())
    prompts = sorted(found.score)
    return paired_difference(
        [found.score[id] / spread for id in prompts], [start.score[id] / spread for id in prompts], prompts
    )


def test_no_kl_coefficient_does_what_the_pretraining_loss_does(
    prepared: Prepared, tmp_path: Path, record_property: Any
) -> None:
    record_property(
        "claim",
        "a pretraining coefficient (γ) undoes all of what PPO adds to the language loss and keeps most of its gain in "
        "reward; no KL coefficient (β) undoes all of it, and larger ones cost more and more of the gain",
    )
    arms = [(kl_coef, 0.0) for kl_coef in KL_COEFS] + [(PLAIN, ptx_coef) for ptx_coef in PTX_COEFS]
    start = look(prepared, start_of(prepared), SEEDS[0], tmp_path / "start")
    gain: dict[tuple[float, float], Estimate] = {}
    tax: dict[tuple[float, float], float] = {}
    told = []
    for arm in arms:
        runs = []
        for seed in SEEDS:
            policy = train(prepared, *arm, seed, tmp_path / f"{arm} {seed}")
            runs.append(look(prepared, policy, seed, tmp_path / f"{arm} {seed} measured"))
        score = {id: mean(run.score[id] for run in runs) for id in start.score}
        taxes = [run.lm_loss - start.lm_loss for run in runs]
        gain[arm], tax[arm] = gain_of(Measured(0, 0, score), start), mean(taxes)
        kl = mean(run.kl for run in runs)
        told.append(f"β {arm[0]:g} γ {arm[1]:g}: {shown(gain[arm], 2)}, {tax[arm]:.3f} ({each(taxes)}), KL {kl:.1f}")
    record_property(
        "measured",
        f"seeds {each(SEEDS, 0)}, {SETTINGS['iterations']} iterations. Gain in score (in sd, interval by prompt), rise "
        "of the language loss (nats per token): " + "; ".join(told),
    )
    record_property("figure", picture(gain, tax))
    plain = (PLAIN, 0.0)

    by_kl, by_ptx = [arm for arm in arms if not arm[1]], [arm for arm in arms if arm[1]]
    assert tax[plain] > 0
    assert any(tax[arm] <= 0 and value(gain[arm]) >= KEPT * value(gain[plain]) for arm in by_ptx)
    assert all(tax[arm] > 0 for arm in by_kl)
    assert sorted(by_kl, key=lambda arm: -value(gain[arm])) == by_kl


def value(found: Estimate) -> float:
    assert found.mean is not None
    return found.mean


def picture(gain: dict[tuple[float, float], Estimate], tax: dict[tuple[float, float], float]) -> str:
    plain = (PLAIN, 0.0)
    kl = [arm for arm in gain if not arm[1]]
    ptx = [plain, *(arm for arm in gain if arm[1])]
    series = [
        Series("KL coefficient β", [tax[a] for a in kl], [value(gain[a]) for a in kl], 3, "both"),
        Series("pretraining coefficient γ", [tax[a] for a in ptx], [value(gain[a]) for a in ptx], 4, "both"),
    ]
    marks = [Mark(tax[a], value(gain[a]), f"β {a[0]:g}", 3) for a in kl]
    marks += [Mark(tax[a], value(gain[a]), f"γ {a[1]:g}", 4) for a in ptx[1:]]
    chart = line_chart(series, "", "rise of the loss on pretraining text, nats per token", marks=marks)
    return standalone(chart, 40, "Gain in score (sd): β alone (red), γ at β = 0.1 (green)")
