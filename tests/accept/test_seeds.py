"""The shipped recipes over seeds 0, 1, 2: what quickstart, stories and salmon promise, from their results.json.

A finished run of this commit in the folder HEEDFUL_RUNS is read; a seed that has none is run there.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from heedful.pipeline.start import run_recipe
from studies import ROOT, SEEDS, each, finished_run, new_folder, recipe_of

pytestmark = pytest.mark.accept
POLICIES = ("gpt", "gpt_prompted", "sft", "ppo", "ppo_ptx")
MODEL = ROOT.parent / "shared" / "models" / "stories260K"
STORIES = ROOT.parent / "shared" / "data" / "tinystories_10k" / "tinystories_10k.txt"


def results_of(name: str, seed: int, runs: Path, settings: tuple[str, ...] = ()) -> dict[str, Any]:
    """results.json of a finished run of this recipe and code, run now where there is none."""
    recipe = recipe_of(name, seed, settings)
    folder = finished_run(recipe, runs)
    if folder is None:
        return run_recipe(name, new_folder(recipe, runs), [f"seed={seed}", *settings])
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def each_result(values: list[float | None]) -> str:
    return "/".join("none" if value is None else f"{value:.3f}" for value in values)


def test_quickstart_over_seeds(runs: Path, record_property: Any) -> None:
    record_property(
        "claim",
        "quickstart, every seed: gpt < gpt_prompted < sft; ppo_ptx beats sft (mean ≥ 0.60, every interval above 0.50); "
        "reward accuracy on held-out labelers ≥ 0.70; agreement within 2 points of 0.73 and 0.77; PPO raises the "
        "language loss and PPO-ptx undoes more than half of the rise",
    )
    found = [results_of("quickstart", seed, runs) for seed in SEEDS]
    win = {name: [run["policies"][name]["win_rate"]["mean"] for run in found] for name in POLICIES}
    low = [run["policies"]["ppo_ptx"]["win_rate"]["low"] for run in found]
    accuracy = [run["reward_model"]["accuracy"]["heldout_labelers"]["mean"] for run in found]
    agreement = {group: [run["agreement"][group]["mean"] for run in found] for group in ("train", "heldout")}
    tax = [run["alignment_tax"]["policies"] for run in found]
    rise, undone = [one["ppo"]["rise"] for one in tax], [one["ppo_ptx"]["share_undone"] for one in tax]
    record_property(
        "measured",
        f"seeds {each(SEEDS, 0)}. Win rate against sft: "
        + "; ".join(f"{name} {each(values)}" for name, values in win.items() if name != "sft")
        + f"; lower ends of ppo_ptx {each(low)}. Reward accuracy {each(accuracy)}. Agreement "
        f"{each(agreement['train'])} and {each(agreement['heldout'])}. Rise of the language loss by PPO "
        f"{each_result(rise)}, share undone {each_result(undone)}. {minutes(found)}",
    )
    for gpt, prompted, sft in zip(win["gpt"], win["gpt_prompted"], win["sft"], strict=True):
        assert gpt < prompted < sft
    assert sum(win["ppo_ptx"]) / len(SEEDS) >= 0.60 and min(low) > 0.50
    assert min(accuracy) >= 0.70
    assert all(abs(value - 0.73) <= 0.02 for value in agreement["train"])
    assert all(abs(value - 0.77) <= 0.02 for value in agreement["heldout"])
    assert min(rise) > 0 and all(share is not None and share > 0.5 for share in undone)


def test_stories_over_seeds(runs: Path, record_property: Any) -> None:
    record_property(
        "claim",
        "stories, every seed, 300 held-out prompts: PPO beats the start in ≥ 88 % by VADER with KL ≤ 5 nats and "
        "distinct-2 ≥ 0.8 of the start's; the control without KL penalty fails distinct-2; the reward model orders "
        "held-out pairs as VADER does, and as noisy held-out labelers do, in ≥ 75 %; labelers agree within 2 points of "
        "77 %; best-of-64 beside them",
    )
    if not (MODEL.exists() and STORIES.exists()):
        pytest.skip(f"the model and the stories are not here: {MODEL}, {STORIES}")
    settings = (f"model={MODEL}", f"prompts={STORIES}")
    found = [results_of("stories_sentiment", seed, runs, settings) for seed in SEEDS]
    policies = [run["policies"] for run in found]
    names = [name for name in policies[0] if name != "start"]
    win = {name: [one[name]["win_rate"]["mean"] for one in policies] for name in names}
    low = [one["ppo"]["win_rate"]["low"] for one in policies]
    kl = {name: [one[name]["kl"] for one in policies] for name in ("ppo", "ppo_no_kl")}
    distinct = {name: [one[name]["distinct_2"] / one["start"]["distinct_2"] for one in policies] for name in names}
    prompts = [one["ppo"]["win_rate"]["num_prompts"] for one in policies]
    accuracy = {
        judge: [run["reward_model"]["accuracy"][judge]["mean"] for run in found]
        for judge in ("scorer", "heldout_labelers")
    }
    agreement = [(run["agreement"]["train"]["mean"] + run["agreement"]["heldout"]["mean"]) / 2 for run in found]
    record_property(
        "measured",
        f"seeds {each(SEEDS, 0)}, {each(prompts, 0)} prompts. Win rate: "
        + "; ".join(f"{name} {each(values)}" for name, values in win.items())
        + f"; lower ends of ppo {each(low)}. KL: "
        + "; ".join(f"{name} {each(values, 1)}" for name, values in kl.items())
        + ". Distinct-2, share of the start's: "
        + "; ".join(f"{name} {each(values, 2)}" for name, values in distinct.items())
        + f". Reward accuracy by VADER {each(accuracy['scorer'])}, by held-out labelers, who are noisy, "
        f"{each(accuracy['heldout_labelers'])}. Agreement {each(agreement)}. {minutes(found)}",
    )
    assert min(prompts) >= 300
    assert min(win["ppo"]) >= 0.88 and max(kl["ppo"]) <= 5
    assert min(distinct["ppo"]) >= 0.8 and max(distinct["ppo_no_kl"]) < 0.8
    assert min(accuracy["scorer"] + accuracy["heldout_labelers"]) >= 0.75
    assert all(abs(value - 0.77) <= 0.02 for value in agreement)


def test_salmon_over_seeds(runs: Path, record_property: Any) -> None:
    record_property(
        "claim",
        "salmon, every seed: the reward model's choice flips where the deciding principle is negated in ≥ 85 % of "
        "held-out pairs; PPO finds the planted praise of oneself in over half of its responses; with the principle "
        "against it, and no new label, praise is rarer than before PPO and exact utility higher than without; another "
        "principle, another behaviour; SALMON beats SFT with the interval above 0.50; at most 15 minutes",
    )
    found = [results_of("salmon", seed, runs) for seed in SEEDS]

    def kept(policy: str, figure: str) -> list[float]:
        return [
            next(row["mean"] for row in run["principles_kept"] if (row["policy"], row["figure"]) == (policy, figure))
            for run in found
        ]

    def followed(figure: str) -> list[float]:
        of = ("salmon", "all", figure)
        return [
            next(r["mean"] for r in run["principles_followed"] if (r["model"], r["principle"], r["figure"]) == of)
            for run in found
        ]

    names = ("ppo_init", "principled", "plain", "steered", "mended")
    win = {name: [run["policies"][name]["win_rate"]["mean"] for run in found] for name in names}
    low = [run["policies"]["principled"]["win_rate"]["low"] for run in found]
    gold = {name: [run["policies"][name]["gold"] for run in found] for name in names}
    praise = {name: kept(name, "boasts") for name in names}
    vivid = {name: kept(name, "vivid") for name in ("plain", "steered")}

    def told(what: dict[str, list[float]], digits: int) -> str:
        return "; ".join(f"{name} {each(values, digits)}" for name, values in what.items())

    record_property(
        "measured",
        f"seeds {each(SEEDS, 0)}. Flips {each(followed('flips'))}, accuracy {each(followed('accuracy'))}. Praise "
        f"{told(praise, 3)}. Exact utility {told(gold, 2)}. Vivid, nats, {told(vivid, 1)}. Win rate against sft "
        f"{told(win, 3)}; lower ends of principled {each(low)}. {minutes(found)}",
    )
    assert min(followed("flips")) >= 0.85
    assert min(praise["plain"]) > 0.5
    assert all(mended < start for mended, start in zip(praise["mended"], praise["ppo_init"], strict=True))
    assert all(mended > plain for mended, plain in zip(gold["mended"], gold["plain"], strict=True))
    assert all(steered > plain for steered, plain in zip(vivid["steered"], vivid["plain"], strict=True))
    assert min(low) > 0.5
    assert all(run["seconds"]["total"] <= 15 * 60 for run in found)


def minutes(found: list[dict[str, Any]]) -> str:
    return f"Minutes at work {each([run['seconds']['total'] / 60 for run in found], 1)}"
