"""The over-optimisation lab: gold ranks, proxies learn, best-of-n and PPO maximise them, laws are fitted and shown."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heedful.evaluate.overoptimization import Law
from heedful.models.checkpoint import load_reward_model, weights_hash
from heedful.pipeline.lab_laws import best_of_n_curve, law_row, rl_curve, within
from heedful.ranks import untied_pairs
from heedful.run import read_jsonl
from heedful.snapshot import read_snapshot
from heedful.steps import planned_steps
from heedful.world import World
from tiny import TINY, refuse, succeed

PPO = "iterations: 6, batch_size: 8, minibatch_size: 4, max_new_tokens: 12, lr: 1.0e-3, warmup_iterations: 0"
SETTINGS = (
    "evaluate.prompted=false",
    "world.document_tokens=6000",
    "ppo={variants: {}}",
    f"lab={{sizes: {{tiny: {{shape: {{hidden_size: 16}}}}, own: {{}}}}, rankings: [6, 12], samples: 8, "
    f"kl_coefs: [0.5], ppo: {{{PPO}}}}}",
)
PROXIES = ["tiny-6", "tiny-12", "own-6", "own-12"]


def overrides(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "run"
    succeed("run", TINY, "--dir", folder, *overrides(SETTINGS), "--cores", "1")
    return folder


def test_every_step_is_planned(whole: Path) -> None:
    begun = {str(path.parent.relative_to(whole)) for path in whole.rglob("manifest.json")}
    assert begun == set(planned_steps(read(whole / "recipe.json")))


def test_gold_ranks_by_the_exact_utility_and_fewer_rankings_are_part_of_more(whole: Path) -> None:
    world = World(0)
    few, many = (read_snapshot(whole / "lab" / "gold" / number) for number in ("6", "12"))
    assert {r.id for r in few.rankings} < {r.id for r in many.rankings}
    splits = [prompt.split for prompt in many.prompts]
    assert splits.count("train") == 12 and splits.count("test") == 0 and splits.count("valid") > 0
    prompts, responses = many.prompt_by_id(), many.response_by_id()
    for ranking in many.rankings:
        worth = [
            world.rate(prompts[ranking.prompt_id], responses[id].text).evaluation_utility for id in ranking.responses
        ]
        assert all(worth[i] > worth[j] for i, j in untied_pairs(ranking.rank))


def test_a_proxy_has_its_size_and_its_rankings(whole: Path) -> None:
    for name in PROXIES:
        size, number = name.split("-")
        proxy, _ = load_reward_model(whole / "lab" / "proxies" / name / "model")
        assert proxy.trunk.config.hidden_size == {"tiny": 16, "own": 32}[size]
        assert read(whole / "lab" / "proxies" / name / "done.json")["results"]["num_rankings"] <= int(number)


def test_samples_hold_gold_and_every_proxy_s_score(whole: Path) -> None:
    rows = read_jsonl(whole / "lab" / "samples" / "samples.jsonl")
    assert len(rows) == 10 and all(list(row["scores"]) == PROXIES for row in rows)
    assert all(len(own) == len(row["gold"]) == 8 for row in rows for own in row["scores"].values())


def test_ppo_maximises_its_proxy_under_the_eyes_of_gold(whole: Path) -> None:
    for name in [*PROXIES, "own-12-kl-0.5"]:
        step = whole / "lab" / "ppo" / name
        assert len(read_jsonl(step / "gold.jsonl")) == len(read_jsonl(step / "metrics.jsonl")) == 6
        proxy = name.removesuffix("-kl-0.5")
        read_from = read(step / "manifest.json")["parents"]["reward_model_folder"]
        assert read_from == weights_hash(whole / "lab" / "proxies" / proxy / "model")
        assert read(step / "manifest.json")["config"]["kl_coef"] == (0.5 if "kl" in name else 0.0)


def test_rows_of_gold_beyond_what_was_saved_are_dropped(whole: Path, tmp_path: Path) -> None:
    """As a kill leaves them: nothing was saved yet, and two iterations had been rated."""
    from heedful.pipeline.lab import watched
    from heedful.pipeline.lab_settings import ppo_of
    from heedful.pipeline.recipe import Recipe
    from heedful.run import Run

    recipe = Recipe.model_validate(read(whole / "recipe.json"))
    inputs: dict[str, Any] = {
        "policy_folder": next((whole / "ppo_init").glob("epoch-*")),
        "prompts": whole / "data" / "ppo",
    }
    inputs |= {"reward_model_folder": whole / "lab" / "proxies" / "own-12" / "model", "format": recipe.format}
    config = ppo_of(recipe)
    whole_run = Run.open(tmp_path / "whole", "lab_ppo", config.model_dump(mode="json"), 0)
    watched(config, whole_run, **inputs)
    stopped = Run.open(tmp_path / "stopped", "lab_ppo", config.model_dump(mode="json"), 0)
    (tmp_path / "stopped" / "gold.jsonl").write_text('{"gold": 1.0}\n{"gold": 2.0}\n', encoding="utf-8")
    watched(config, stopped, **inputs)
    assert read_jsonl(tmp_path / "stopped" / "gold.jsonl") == read_jsonl(tmp_path / "whole" / "gold.jsonl")


def test_results_and_report_hold_curves_and_laws(whole: Path) -> None:
    lab = read(whole / "results.json")["lab"]
    assert [(row["proxy"], row["form"]) for row in lab["laws"]][:4] == [(name, "best_of_n") for name in PROXIES]
    assert {row["proxy"] for row in lab["laws"] if row["form"] == "rl"} == {*PROXIES, "own-12-kl-0.5"}
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "Over-optimisation" in page and "Best of n: exact utility gained" in page and "Laws and peaks" in page


def test_the_plan_knows_every_step(tmp_path: Path) -> None:
    assert "proxies/own-12" in succeed("run", TINY, "--dir", tmp_path / "run", *overrides(SETTINGS), "--dry-run")


# The laws, on curves that are known.


def test_a_perfect_proxy_s_curve_only_rises_and_a_contrary_one_s_only_falls() -> None:
    gold = np.random.default_rng(0).normal(size=(50, 16))
    up, down = best_of_n_curve(gold, gold), best_of_n_curve(-gold, gold)
    assert [point["gold"] for point in up] == sorted(point["gold"] for point in up)
    assert [point["gold"] for point in down] == sorted((point["gold"] for point in down), reverse=True)
    assert up[0] == {"n": 1, "kl": 0.0, "gold": pytest.approx(0), "score": pytest.approx(0)}
    assert up[-1]["gold"] == pytest.approx(float((gold.max(1) - gold.mean(1)).mean()))


@pytest.mark.parametrize(("form", "alpha", "beta"), [("best_of_n", 1.0, 0.35), ("rl", 1.0, 0.55)])
def test_a_peak_is_predicted_from_the_near_half(form: Any, alpha: float, beta: float) -> None:
    law = Law(form, alpha, beta)
    d = np.linspace(0, 4, 60)
    row = law_row(form, [{"kl": float(x * x), "gold": float(y)} for x, y in zip(d, law.at(d), strict=True)])
    assert (row["alpha"], row["beta"]) == (pytest.approx(alpha), pytest.approx(beta))
    peak = law.peak
    assert peak is not None and row["predicted_kl"] == pytest.approx(peak.d**2, abs=0.02)
    assert row["off"] < 0.2 and row["observed_kl"] == pytest.approx(peak.d**2, abs=0.2)


def test_a_law_that_only_rises_is_highest_where_it_was_last_seen() -> None:
    found = within(Law("best_of_n", 1.0, 0.0), 1.5)
    assert found is not None and found.d == pytest.approx(1.5)
    assert within(None, 1.0) is None


def test_an_rl_curve_is_gold_over_the_start_policy_s(tmp_path: Path) -> None:
    rows = [{"kl_k1": float(i), "score": 10.0 + i} for i in range(7)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "gold.jsonl").write_text(
        "".join(json.dumps({"gold": 2.0 * i}) + "\n" for i in range(7)), encoding="utf-8"
    )
    points = rl_curve(tmp_path, start=1.0)
    assert [point["iteration"] for point in points] == [3, 6]  # the seventh makes no whole point
    assert points[1] == {"kl": 4.0, "gold": 7.0, "score": 4.0, "iteration": 6}
    assert math.isclose(points[0]["gold"], 1.0)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("lab.rankings=[12, 6]", "lab.rankings: give different numbers, the smallest first"),
        ("reward_model=null", "it needs prompts: world, a pretrain and a reward_model block"),
        ("lab.ppo.iteration=3", "lab.ppo.iteration"),
    ],
)
def test_a_lab_that_cannot_be_is_refused(setting: str, told: str, tmp_path: Path) -> None:
    more = ("ppo_start=ppo_init",) if setting.startswith("reward") else ()
    assert told in refuse("run", TINY, "--dir", tmp_path / "run", *overrides((*SETTINGS, *more, setting)))
