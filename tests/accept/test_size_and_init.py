"""Reward accuracy by model size and by what the reward model starts from (InstructGPT, section 3.5 and appendix C.2).

Accuracy is the share of comparisons ordered as held-out labelers did, on prompts of users nobody trained on. Each seed
draws its own part of the rankings; each arm has its own best learning rate, chosen on validation prompts.
"""

import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from heedful.evaluate.statistics import Estimate
from heedful.report.charts import Dot, interval_chart
from heedful.run import Run
from heedful.stages import pretrain, sft
from heedful.stages.reward_model import objective, validate
from studies import SEEDS, Prepared, each, new_reward_model, over_seeds, shown, standalone, training

pytestmark = pytest.mark.accept
RANKINGS, JUDGED = 700, 240
RATES = (1e-3, 3e-3)
SMALLER = {"32 wide, 2 layers": (32, 2), "64 wide, 2 layers": (64, 2)}
OWN_SIZE = "128 wide, 3 layers"
SIMILAR = 0.02  # at most so far apart counts as similar


def fit(world: Prepared, start: Path, from_random: bool, lr: float, seed: int) -> tuple[float, float]:
    """Validation loss, and accuracy against the held-out labelers, after one pass."""
    data = random.Random(seed).sample(world.rankings("train", "train"), RANKINGS)
    config = world.config.model_copy(update={"lr": lr, "epochs": 1})
    model = new_reward_model(start, seed, from_random)
    for _ in training(model, data, config, world.pad, seed):
        pass
    loss, _ = validate(model, world.rankings("valid", "train"), world.pad, objective(config), config)
    _, accuracy = validate(model, world.rankings("test", "heldout")[:JUDGED], world.pad, objective(config), config)
    return loss, accuracy


@cache
def over_all_seeds(world: Prepared, start: Path, from_random: bool = False) -> list[float]:
    """One accuracy per seed, at the rate whose validation loss was lowest on the first."""
    tried = {lr: fit(world, start, from_random, lr, SEEDS[0]) for lr in RATES}
    best = min(tried, key=lambda lr: tried[lr][0])
    return [tried[best][1], *(fit(world, start, from_random, best, seed)[1] for seed in SEEDS[1:])]


def pretrained(world: Prepared, width: int, layers: int, folder: Path) -> Path:
    """A model of another size, pretrained as the quickstart's."""
    assert world.recipe.pretrain is not None
    size = {"hidden_size": width, "intermediate_size": width * 11 // 4, "num_hidden_layers": layers}
    shape = world.recipe.pretrain.shape | size | {"initializer_range": width**-0.5}
    config = world.recipe.pretrain.model_copy(update={"shape": shape})
    run = Run.open(folder, "pretrain", config.model_dump(mode="json"), world.recipe.seed)
    pretrain.main(config, run, world.tokenizer, world.folder / "data" / "documents", world.recipe.format)
    return folder / "model"


def difference(a: list[float], b: list[float]) -> Estimate:
    return over_seeds([x - y for x, y in zip(a, b, strict=True)])


def test_larger_reward_models_are_more_accurate(prepared: Prepared, tmp_path: Path, record_property: Any) -> None:
    record_property("claim", "reward accuracy on held-out labelers grows with the model's size")
    starts = {name: pretrained(prepared, *size, tmp_path / str(size[0])) for name, size in SMALLER.items()}
    found = {name: over_all_seeds(prepared, start) for name, start in (starts | {OWN_SIZE: prepared.start}).items()}
    gain = difference(found[OWN_SIZE], found[next(iter(SMALLER))])
    record_property("measured", f"{told(found)}. Largest minus smallest: {shown(gain)}")
    record_property("figure", picture(found, "Reward accuracy by size"))
    means = [sum(values) for values in found.values()]
    assert means == sorted(means)
    assert gain.low is not None and gain.low > 0


def test_sft_and_pretrained_starts_are_alike(prepared: Prepared, record_property: Any) -> None:
    record_property(
        "claim",
        f"reward models from SFT and from the pretrained model are alike in accuracy (within {SIMILAR}); random "
        "weights stand beside them, of which the paper says nothing",
    )
    fine_tuned = sft.epoch_folder(prepared.folder / "sft", prepared.recipe.sft["sft"].epochs)
    found = {
        "SFT": over_all_seeds(prepared, fine_tuned),
        "pretrained": over_all_seeds(prepared, prepared.start),
        "random": over_all_seeds(prepared, prepared.start, from_random=True),
    }
    between = difference(found["SFT"], found["pretrained"])
    over_random = [difference(found[name], found["random"]) for name in ("SFT", "pretrained")]
    record_property(
        "measured",
        f"{told(found)}. SFT minus pretrained {shown(between)}; minus random: SFT {shown(over_random[0])}, "
        f"pretrained {shown(over_random[1])}",
    )
    record_property("figure", picture(found, "Reward accuracy by start"))
    assert between.mean is not None and abs(between.mean) <= SIMILAR


def told(found: dict[str, list[float]]) -> str:
    arms = (f"{name} {shown(over_seeds(values))} ({each(values)})" for name, values in found.items())
    return f"seeds {each(SEEDS, 0)}, {RANKINGS} rankings each. Accuracy: " + "; ".join(arms)


def picture(found: dict[str, list[float]], title: str) -> str:
    dots = []
    for i, (name, values) in enumerate(found.items()):
        mean, _, low, high, *_ = over_seeds(values)
        dots.append(Dot(name, mean, low, high, 2 + i, f"{mean:.3f}"))
    low = min(dot.low for dot in dots if dot.low is not None)
    high = max(dot.high for dot in dots if dot.high is not None)
    return standalone(interval_chart(dots, "", low - 0.01, high + 0.01, unit=100), 0, f"{title}, % of comparisons")
