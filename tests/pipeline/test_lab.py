"""The over-optimisation lab: gold ranks, proxies learn, best-of-n and PPO maximise them, laws are fitted and shown."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heedful.evaluate.overoptimization import Law
from heedful.models.checkpoint import load_policy, load_reward_model, weights_hash
from heedful.pipeline.lab_laws import (
    best_of_n_curve,
    comparisons,
    intervals,
    law_row,
    rl_curve,
    rl_intervals,
    within,
)
from heedful.ranks import untied_pairs
from heedful.run import read_jsonl
from heedful.snapshot import read_snapshot
from heedful.steps import planned_steps
from heedful.world import World
from tiny import TINY, refuse, succeed

PPO = "iterations: 6, batch_size: 8, minibatch_size: 4, max_new_tokens: 12, lr: 1.0e-3, warmup_iterations: 0"
PPO += ", precision: fp32"  # sampling and training agree but for the order of sums
SETTINGS = (
    "evaluate.prompted=false",
    "world.document_tokens=6000",
    "ppo={variants: {}}",
    f"lab={{sizes: {{tiny: {{shape: {{hidden_size: 16}}}}, own: {{}}}}, rankings: [6, 12], samples: 8, "
    f"kl_coefs: [0.5], policies: {{wide: {{shape: {{hidden_size: 48}}}}}}, rounds: 2, ppo: {{{PPO}}}}}",
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


def test_rl_gains_are_counted_from_the_start_policy_on_ppo_s_own_prompts(whole: Path) -> None:
    lab, pool = read(whole / "results.json")["lab"], read_snapshot(whole / "data" / "ppo")
    for own, name in (("", "own-12"), ("policies/wide", "own-12-by-wide")):
        found = read(whole / "lab" / own / "samples" / "done.json")["results"]
        assert found["num_ppo_prompts"] == len(pool.prompts_of("train"))
        rows = read_jsonl(whole / "lab" / (f"{own}/ppo" if own else f"ppo/{name}") / "metrics.jsonl")
        [point, *_] = [point for point in lab["curves"] if (point["proxy"], point["form"]) == (name, "rl")]
        assert point["gold"] == pytest.approx(sum(row["gold"] for row in rows[:3]) / 3 - found["ppo_gold"])


def test_ppo_maximises_its_proxy_under_the_eyes_of_gold(whole: Path) -> None:
    for name in [*PROXIES, "own-12-kl-0.5"]:
        step = whole / "lab" / "ppo" / name
        rows = read_jsonl(step / "metrics.jsonl")
        assert len(rows) == 6 and all(math.isfinite(row["gold"]) and "kl_begun" not in row for row in rows)
        proxy = name.removesuffix("-kl-0.5")
        read_from = read(step / "manifest.json")["parents"]["reward_model_folder"]
        assert read_from == weights_hash(whole / "lab" / "proxies" / proxy / "model")
        assert read(step / "manifest.json")["config"]["kl_coef"] == (0.5 if "kl" in name else 0.0)


def test_a_policy_of_another_size_begins_from_its_own_fine_tune(whole: Path) -> None:
    place = whole / "lab" / "policies" / "wide"
    policy, _ = load_policy(place / "ppo" / "model")
    assert policy.decoder.config.hidden_size == 48
    parents = {step: read(place / step / "manifest.json")["parents"] for step in ("sft", "samples", "ppo")}
    assert parents["sft"]["model"] == weights_hash(place / "pretrain" / "model")
    assert parents["ppo"]["policy_folder"] == parents["samples"]["policy"]
    assert parents["ppo"]["policy_folder"] == weights_hash(place / "sft" / "epoch-01")  # as ppo_init, of one epoch
    proxy = weights_hash(whole / "lab" / "proxies" / "own-12" / "model")
    assert parents["ppo"]["reward_model_folder"] == proxy == parents["samples"]["proxies"]


def test_a_later_round_goes_on_by_a_proxy_of_both_rounds_rankings(whole: Path) -> None:
    first, second = (whole / "lab" / "rounds" / n for n in ("1", "2"))
    parents = read(second / "ppo" / "manifest.json")["parents"]
    assert parents["policy_folder"] == weights_hash(first / "ppo" / "model")
    assert parents["begun"] == read(first / "ppo" / "manifest.json")["parents"]["policy_folder"]
    assert parents["reward_model_folder"] == weights_hash(second / "proxy" / "model")
    before, now = read_snapshot(whole / "lab" / "gold" / "12"), read_snapshot(second / "gold" / "12")
    assert now.rankings[: len(before.rankings)] == before.rankings and len(now.rankings) > len(before.rankings)
    made = {response.id: response.model for response in now.responses}
    assert {made[id] for r in now.rankings[len(before.rankings) :] for id in r.responses} == {"lab-2"}
    rows = [read_jsonl(step / "ppo" / "metrics.jsonl") for step in (first, second)]
    assert [len(own) for own in rows] == [3, 3]
    for row in rows[0]:  # it begins where it is measured from
        assert row["kl_begun"] == pytest.approx(row["kl_k1"], abs=1e-4)
    assert rows[1][0]["kl_k1"] == pytest.approx(0, abs=1e-4) and abs(rows[1][0]["kl_begun"]) > 1e-3


def test_results_and_report_hold_curves_and_laws(whole: Path) -> None:
    lab = read(whole / "results.json")["lab"]
    assert [(row["proxy"], row["form"]) for row in lab["laws"]][:4] == [(name, "best_of_n") for name in PROXIES]
    others = {"own-12-kl-0.5", "own-12-by-wide", "own-12-rounds-2"}
    assert {row["proxy"] for row in lab["laws"] if row["form"] == "rl"} == {*PROXIES, *others}
    compared = {(row["proxy"], row["form"]): row for row in lab["comparisons"]}
    fitted = [row["form"] for row in lab["laws"] if row["proxy"] == "own-12" and row["alpha"] is not None]
    rl = {(name, "rl") for name in others if "rl" in fitted}  # so short a run may not have left its start
    assert compared.keys() == rl | {("own-12-by-wide", "best_of_n")} and "best_of_n" in fitted
    assert [row["proxy"] for row in lab["proxies"]] == PROXIES
    for row in lab["proxies"]:
        log = read_jsonl(whole / "lab" / "proxies" / row["proxy"] / "metrics.jsonl")
        assert row["valid_accuracy"] == pytest.approx(log[-1]["valid_accuracy"]) and row["num_comparisons"] > 0
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "Over-optimisation" in page and "Best of n: exact utility gained" in page and "Laws and peaks" in page
    assert "PPO: β by rankings" in page and "Off the last proxy&#39;s own curve" in page
    assert "What the proxies learned" in page


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


def test_the_peak_of_an_rl_curve_is_not_its_luckiest_point() -> None:
    d, law = np.linspace(0, 3, 21), Law("rl", 1.0, 0.9)
    gold = law.at(d)
    gold[18] += 1.2  # above every other point, alone
    points = [{"kl": float(x * x), "gold": float(y)} for x, y in zip(d, gold, strict=True)]
    assert law.peak is not None
    assert law_row("rl", points)["observed_kl"] == pytest.approx(law.peak.d**2, abs=0.4)
    assert law_row("best_of_n", points)["observed_kl"] == pytest.approx(float(d[18] ** 2))
    rising = [{"kl": float(x * x), "gold": float(x)} for x in d]
    assert law_row("rl", rising)["observed_kl"] == law_row("rl", rising)["kl_reached"]


def test_intervals_are_of_the_laws_that_are_told() -> None:
    draw = np.random.default_rng(1)
    gold = draw.normal(size=(80, 24))
    row, found = law_row("best_of_n", best_of_n_curve(gold, gold)), intervals(gold, gold)
    for name in ("alpha", "beta"):  # without noise in what is chosen by, narrow, and around what was fitted
        assert found[f"{name}_low"] < row[name] < found[f"{name}_high"]
        middle = (found[f"{name}_low"] + found[f"{name}_high"]) / 2
        assert abs(middle - row[name]) < (found[f"{name}_high"] - found[f"{name}_low"]) / 4
    d, law = np.linspace(0.2, 3, 20), Law("rl", 1.0, 0.5)
    noisy = [
        [{"kl": float(x * x), "gold": float(y)} for x, y in zip(d, law.at(d) + sd * draw.normal(size=20), strict=True)]
        for sd in (0.05, 0.2)
    ]
    narrow, wide = (rl_intervals(points) for points in noisy)
    assert narrow["alpha_low"] < 1.0 < narrow["alpha_high"] and narrow["beta_low"] < 0.5 < narrow["beta_high"]
    assert wide["alpha_high"] - wide["alpha_low"] > 2 * (narrow["alpha_high"] - narrow["alpha_low"])


def test_a_law_that_only_rises_is_highest_where_it_was_last_seen() -> None:
    found = within(Law("best_of_n", 1.0, 0.0), 1.5)
    assert found is not None and found.d == pytest.approx(1.5)
    assert within(None, 1.0) is None


def test_an_rl_curve_is_gold_over_the_start_policy_s(tmp_path: Path) -> None:
    rows = [{"kl_k1": float(i), "score": 10.0 + i, "gold": 2.0 * i} for i in range(7)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    points = rl_curve([tmp_path], start=1.0)
    assert [point["iteration"] for point in points] == [3, 6]  # the seventh makes no whole point
    assert points[1] == {"kl": 4.0, "gold": 7.0, "score": 4.0, "iteration": 6}
    assert math.isclose(points[0]["gold"], 1.0)


@pytest.mark.parametrize(("rounds", "off"), [(1, 0.0), (2, 0.0), (3, 0.5)])
def test_the_iterated_law_is_the_plain_one_raised_by_beta_d_ln_k(rounds: int, off: float) -> None:
    law, d = Law("rl", 1.2, 0.4), np.linspace(0.5, 3, 10)
    plain = [{"kl": float(x * x), "gold": float(y), "score": 0.0} for x, y in zip(d, law.at(d), strict=True)]
    raised = [point | {"gold": point["gold"] + 0.4 * point["kl"] ** 0.5 * math.log(rounds) + off} for point in plain]
    laws = [{"proxy": "a-5"} | law_row("rl", plain)]
    [row] = comparisons("a-5", laws, {("a-5", "rl"): plain, ("a-5-rounds-9", "rl"): raised}, rounds)
    last = d[10 * (rounds - 1) // rounds :]  # the last round's: before it fewer than k were over
    assert row["iterated"] == pytest.approx(off, abs=1e-9) and row["points"] == len(last)
    assert row["gold"] == pytest.approx(off + 0.4 * math.log(rounds) * float(last.mean())) and row["score"] is None


def test_curves_are_compared_at_the_same_kl_by_what_was_measured() -> None:
    """The own curve is no law at all here, and the other has other points, some out of its reach."""
    own = [{"kl": float(d * d), "gold": 3.0 - abs(d - 1), "score": 2.0 * d} for d in (3, 0, 1, 2)]
    other = [{"kl": d * d, "gold": 3.0 - abs(d - 1) + 0.5, "score": 2.0 * d - 0.25} for d in (0.5, 1.5, 2.5)]
    other += [{"kl": 16.0, "gold": 99.0, "score": 99.0}]
    laws = [{"proxy": "a-5"} | law_row("rl", own)]
    [row] = comparisons("a-5", laws, {("a-5", "rl"): own, ("a-5-kl-0.1", "rl"): other}, 1)
    assert (row["points"], row["gold"], row["score"]) == (3, pytest.approx(0.5), pytest.approx(-0.25))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("lab.rounds=4", "lab.rounds share lab.ppo.iterations"),
        ("lab={ppo: {iterations: 2}}", "lab.ppo.iterations: a point of an RL curve is the mean of 3"),
        ("lab.sizes={a-b: {}}", "'a-b' cannot name a size"),
        ("ppo_start=gpt", "lab.policies are fine-tuned as ppo_start is"),
        ("lab.rankings=[12, 6]", "lab.rankings: give different numbers, the smallest first"),
        ("reward_model=null", "it needs prompts: world, a pretrain and a reward_model block"),
        ("lab.ppo.iteration=3", "lab.ppo.iteration"),
    ],
)
def test_a_lab_that_cannot_be_is_refused(setting: str, told: str, tmp_path: Path) -> None:
    more = ("ppo_start=ppo_init",) if setting.startswith("reward") else ()
    assert told in refuse("run", TINY, "--dir", tmp_path / "run", *overrides((*SETTINGS, *more, setting)))
