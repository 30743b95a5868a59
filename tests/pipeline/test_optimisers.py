"""Every way to optimise a policy side by side in one run: planned, run, begun again in a second round, reported."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from heedful.config import InputError, read_recipe
from heedful.models.checkpoint import weights_hash
from heedful.pipeline.early import needs
from heedful.pipeline.over_seeds import Finished, write_over_seeds
from heedful.pipeline.recipe import build
from heedful.pipeline.stories import StoriesSource
from heedful.pipeline.sweep import default_by, is_done, read_sweep, value_of
from heedful.report.over_seeds import read_groups
from heedful.run import read_jsonl
from heedful.snapshot import read_snapshot
from heedful.steps import OPTIMISERS, planned_steps
from report.page import Element, Page
from tiny import TINY, refuse, succeed

SMALL = "iterations: 2, batch_size: 8, max_new_tokens: 12, lr: 1.0e-3, warmup_iterations: 0, precision: fp32"
ALONE = ("evaluate.prompted=false", "world.document_tokens=6000")
BEST = "evaluate.best_of=[2, 4]"
BLOCKS = (
    "ppo.variants={ppo: {ptx_coef: 0}}",
    f"nlpo={{{SMALL}, inner_epochs: 2, top_p: 0.5, min_tokens: 5, target_update: 1}}",
    f"reinforce={{{SMALL}}}",
    f"rloo={{{SMALL}, responses_per_prompt: 2}}",
    f"grpo={{{SMALL}, responses_per_prompt: 4, minibatch_size: 4, inner_epochs: 2}}",
    f"best_of_n={{{SMALL}, responses_per_prompt: 4, minibatch_size: 1}}",
    "dpo={batch_size: 8, epochs: 2, lr: 1.0e-3, warmup_steps: 0, soft: true}",
)
SETTINGS = ("rounds=2", *ALONE, BEST, *BLOCKS)


def overrides(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shown_and_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("optimisers") / "run"
    return succeed("run", TINY, "--dir", folder, *overrides(SETTINGS), "--cores", "1"), folder


@pytest.fixture(scope="module")
def whole(shown_and_run: tuple[str, Path]) -> Path:
    return shown_and_run[1]


def test_every_optimiser_is_a_step_of_each_round_in_the_planned_order(whole: Path) -> None:
    begun = {str(p.parent.relative_to(whole)): p.stat().st_mtime_ns for p in whole.rglob("manifest.json")}
    assert planned_steps(read(whole / "recipe.json")) == sorted(begun, key=begun.__getitem__)
    for place in [f"round-{n}/{name}" for n in (1, 2) for name in OPTIMISERS]:
        assert read(whole / place / "manifest.json")["stage"] == place.partition("/")[2]
        assert (whole / place / "done.json").exists()


def test_all_begin_from_one_policy_and_each_ends_elsewhere(whole: Path) -> None:
    start = weights_hash(whole / "ppo_init" / "epoch-01")
    for n in (1, 2):
        made = {name: read(whole / f"round-{n}" / name / "manifest.json")["parents"] for name in OPTIMISERS}
        assert {parents["policy_folder"] for parents in made.values()} == {start}
        ends = {weights_hash(whole / f"round-{n}" / name / "model") for name in OPTIMISERS}
        assert len({start, *ends}) == 1 + len(OPTIMISERS)
        scored = weights_hash(whole / f"round-{n}" / "reward_model" / "model")
        pool = read_snapshot(whole / (f"round-{n}/prompts/ppo" if n > 1 else "data/ppo")).hash
        rankings = read_snapshot(whole / f"round-{n}" / "rankings" / "snapshot").hash
        for name in OPTIMISERS[:-1]:
            assert made[name]["reward_model_folder"] == scored and made[name]["prompts"] == pool, name
        assert "reward_model_folder" not in made["dpo"] and made["dpo"]["rankings"] == rankings


def test_the_next_round_ranks_the_last_ones_responses(whole: Path) -> None:
    made = [read(whole / f"round-{n}" / "responses" / "manifest.json")["parents"]["policy"] for n in (1, 2)]
    assert made[1] == weights_hash(whole / "round-1" / "dpo" / "model")
    assert made[0] in {weights_hash(place) for place in (whole / "sft").glob("epoch-*")}
    learned = [read(whole / f"round-{n}" / "dpo" / "done.json")["results"]["num_rankings"] for n in (1, 2)]
    assert 0 < learned[0] < learned[1]


def test_logs_begin_where_the_policy_is_its_reference(whole: Path) -> None:
    for name in OPTIMISERS[:-1]:
        rows = read_jsonl(whole / "round-2" / name / "metrics.jsonl")
        assert len(rows) == 2 and rows[0]["kl_k1"] == pytest.approx(0, abs=1e-4), name
        assert abs(rows[1]["kl_k1"]) > 10 * abs(rows[0]["kl_k1"]), name
        assert {row["prompt_id"] for row in read_jsonl(whole / "round-2" / name / "samples.jsonl")}
    first = read_jsonl(whole / "round-2" / "dpo" / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(0.6931, abs=1e-3) and first["best_logratio"] == pytest.approx(0, abs=1e-3)


def test_all_are_evaluated_and_compared_with_where_they_began(
    shown_and_run: tuple[str, Path],
) -> None:
    shown, folder = shown_and_run
    results = read(folder / "results.json")
    assert list(results["policies"]) == ["gpt", "best_of_2", "best_of_4", "sft", "ppo_init", *OPTIMISERS]
    for name in OPTIMISERS:
        measured = read(folder / "evaluation" / name / "manifest.json")["parents"]
        assert measured["policy"] == weights_hash(folder / "round-2" / name / "model")
        assert re.search(rf"^{name} .*{results['policies'][name]['win_rate']['mean']:.3f}", shown, re.MULTILINE)
        assert results["policies"][name]["kl"] != 0
    assert list(results["alignment_tax"]["policies"]) == list(OPTIMISERS)
    assert all(f"{name} " in shown.split("alignment tax over ppo_init")[1] for name in OPTIMISERS)


def test_what_each_cost_is_counted_over_both_rounds(whole: Path) -> None:
    found = read(whole / "results.json")["optimised"]
    assert list(found) == list(OPTIMISERS) == [row["stage"] for row in found.values()]
    for name in OPTIMISERS:
        steps = [whole / f"round-{n}" / name for n in (1, 2)]
        sampled = [row["length"] for step in steps for row in read_jsonl(step / "metrics.jsonl") if name != "dpo"]
        assert found[name]["sampled_tokens"] == round(8 * sum(sampled))
        assert found[name]["episodes"] == (0 if name == "dpo" else 32)


def test_over_seeds_each_stands_beside_where_it_began(whole: Path, tmp_path: Path) -> None:
    results = read(whole / "results.json")
    other = json.loads(json.dumps(results))
    other["policies"]["rloo"]["gold"] += 2.0
    write_over_seeds([Finished({}, 0, results), Finished({}, 1, other)], tmp_path)
    [group] = read(tmp_path / "over_seeds.json")["groups"]
    rows = {(row["name"], row["measure"]): row for row in group["rows"] if row["table"] == "over_start"}
    policies = results["policies"]
    assert {name for name, _ in rows} == {"best_of_2", "best_of_4", *OPTIMISERS} and group["start"] == "ppo_init"
    gained = policies["rloo"]["gold"] - policies["ppo_init"]["gold"]
    assert rows["rloo", "gold"]["seeds"] == pytest.approx([gained, gained + 2])
    assert rows["ppo", "sqrt_kl"]["mean"] == pytest.approx(max(policies["ppo"]["kl"], 0) ** 0.5)
    assert rows["best_of_4", "sqrt_kl"]["mean"] == pytest.approx((math.log(4) - 3 / 4) ** 0.5)
    assert rows["dpo", "win_rate"]["mean"] == results["pairwise"]["dpo"]["ppo_init"]["mean"]
    costs = {(row["name"], row["measure"]): row["mean"] for row in group["rows"] if row["table"] == "optimised"}
    assert costs["rloo", "seconds"] == sum(results["seconds"][f"round-{n}/rloo"] for n in (1, 2))
    assert costs["rloo", "sampled_tokens"] == results["optimised"]["rloo"]["sampled_tokens"]
    [shown] = read_groups(tmp_path, "optimisers")
    assert [panel.title.partition(" over")[0] for panel in shown.frontier] == ["Gold gained", "Win rate"]
    drawing = Page(str(shown.frontier[0].chart))
    assert len([e for e in drawing.elements if e.tag == "circle"]) == 2 + len(OPTIMISERS)
    [joined] = [e.attributes["points"].split() for e in drawing.elements if e.tag == "polyline"]
    dots = [f"{e.attributes['cx']},{e.attributes['cy']}" for e in drawing.elements if e.tag == "circle"]
    assert joined == dots[:2]  # best_of_2 and best_of_4
    assert [e.tag for e in drawing.elements if e.tag in ("line", "circle")][-len(dots) :] == ["circle"] * len(dots)
    whiskers = [e.attributes for e in drawing.elements if "whisker" in e.attributes.get("class", "")]
    assert any(a["x1"] == a["x2"] and a["y1"] != a["y2"] for a in whiskers)  # RLOO's, along the gold


@pytest.mark.parametrize("recipe", ["optimisers", "optimisers_stories"])
def test_the_shipped_comparison_is_of_equal_samples(recipe: str) -> None:
    raw = read_recipe(recipe)
    for cell in read_sweep(raw).cells:
        sampling = cell.recipe.sampling()
        assert {stage for stage, _ in cell.recipe.optimised().values()} == set(OPTIMISERS)
        assert len({config.iterations * config.batch_size for _, config in sampling.values()}) == 1
        assert len({(config.max_new_tokens, config.temperature) for _, config in sampling.values()}) == 1


# Seen from outside.


def test_status_tells_each_optimisers_result(whole: Path) -> None:
    lines = {line.split()[0]: " ".join(line.split()) for line in succeed("status", whole).splitlines() if line.strip()}
    for name in OPTIMISERS[:-1]:
        last = read_jsonl(whole / "round-1" / name / "metrics.jsonl")[-1]
        assert f"score {last['score']:.3f}, KL" in lines[f"round-1/{name}"].replace("−", "-"), name
    assert re.search(r"done .*accuracy \d", lines["round-1/dpo"])


def drawn(page: Page, caption: str) -> list[Element]:
    """What stands between the figure of the caption and the next."""
    figures = [n for n, e in enumerate(page.elements) if e.tag == "figure"]
    place = next(n for n in figures if caption in page.elements[n].text)
    return page.elements[place : next((n for n in figures if n > place), None)]


def test_the_report_shows_each(whole: Path) -> None:
    page = Page((whole / "report.html").read_text(encoding="utf-8"))
    for section in ("results", "curves", "frontier", "tax"):
        assert all(name in page.section(section) for name in OPTIMISERS), section
    for n in (1, 2):
        lines = drawn(page, f"Score against √KL, training, round {n}")
        assert [e.attributes["data-name"] for e in lines if e.tag == "polyline"] == list(OPTIMISERS[:-1])
    assert "the last iteration (1) of ppo" in page.section("traced")
    points = [e.attributes["class"] for e in drawn(page, "Utility against √KL, evaluation") if e.tag == "circle"]
    names = read(whole / "results.json")["policies"]
    assert len(points) == len(set(points)) == sum(policy["kl"] is not None for policy in names.values()) + 2 >= 8
    tiles = " ".join(e.text for e in page.all("div") if e.attributes.get("class") == "tile")
    assert all(f"{name} against sft" in tiles for name in OPTIMISERS)


def test_a_dry_run_counts_each_optimisers_work(tmp_path: Path) -> None:
    shown = succeed("run", TINY, "--dir", tmp_path / "run", *overrides(SETTINGS), "--dry-run")
    rows = {line.split()[0]: " ".join(line.split()) for line in shown.splitlines() if line.strip()}
    expected = {
        "ppo": "16 episodes, 4 updates",
        "nlpo": "16 episodes, 4 updates",
        "reinforce": "16 episodes, 2 updates",
    }
    expected |= {
        "rloo": "16 episodes, 2 updates",
        "grpo": "16 episodes, 8 updates",
        "best_of_n": "16 episodes, 4 updates",
        "dpo": "2 epochs, ",
    }
    for name, words in expected.items():
        assert f"round-1/{name} {words}" in rows[f"round-1/{name}"]
        assert "MiB" in rows[f"round-2/{name}"]


def test_a_sweep_looks_first_at_what_the_last_policy_has(whole: Path) -> None:
    for blocks, by in ((BLOCKS, "round-2/dpo.valid_accuracy"), (BLOCKS[:-1], "round-2/best_of_n.score")):
        recipe = build(read_recipe(str(TINY), ["rounds=2", *ALONE, *blocks]))
        assert default_by(recipe, "ppo") == by
        for until in ("reward", "ppo", "evaluate"):
            assert value_of(whole, default_by(recipe, until), lower=False)["value"] is not None
        assert is_done(whole, "ppo", recipe)


# Without a reward model, and what cannot be.


def test_dpo_needs_no_reward_model(tmp_path: Path) -> None:
    settings = overrides((*ALONE, "reward_model=null", "ppo.variants={}", BLOCKS[-1], "dpo.soft=false"))
    folder = tmp_path / "run"
    assert "round-1/dpo" in succeed("ppo", TINY, "--dir", folder, *settings, "--cores", "1")
    begun = {path.parent.name for path in (folder / "round-1").glob("*/done.json")}
    assert begun == {"responses", "rankings", "dpo"} and not (folder / "evaluation").exists()
    succeed("run", TINY, "--dir", folder, *settings, "--cores", "1")
    policies = read(folder / "results.json")["policies"]
    assert list(policies) == ["gpt", "sft", "ppo_init", "dpo"]
    assert policies["dpo"]["score"] is None and policies["dpo"]["win_rate"]["mean"] is not None
    followed = Page((folder / "report.html").read_text(encoding="utf-8")).section("traced")
    assert "This recipe optimises without PPO" in followed and "No PPO episode was logged" in followed


def test_each_needs_the_prompts_it_learns_from() -> None:
    rankings, samples = (build(read_recipe(str(TINY), [*ALONE, "ppo.variants={}", BLOCKS[place]])) for place in (-1, 1))
    assert [(need.pool, need.split) for need in needs(rankings, ["ppo"])] == [("reward_model", "train")]
    assert [(need.pool, need.split) for need in needs(samples, ["ppo"])] == [("ppo", "train")]


@pytest.mark.parametrize("stage", OPTIMISERS[:-1])
def test_whatever_maximises_a_score_needs_a_reward_model(stage: str) -> None:
    with pytest.raises(InputError, match=rf"{stage} needs a reward_model block"):
        build(read_recipe(str(TINY), [*ALONE, "reward_model=null", "ppo.variants={}", f"{stage}={{}}"]))


@pytest.mark.parametrize("stage", OPTIMISERS[1:])
def test_no_two_policies_have_one_name(stage: str) -> None:
    words = rf"two policies have one name: ppo, of ppo.variants and {stage}.variants"
    with pytest.raises(InputError, match=words):
        build(read_recipe(str(TINY), [*ALONE, BLOCKS[0], f"{stage}.variants={{ppo: {{}}}}"]))
    with pytest.raises(InputError, match=rf"{stage}.variants: 'rankings' is what a run's own folder is called"):
        build(read_recipe(str(TINY), [*ALONE, BLOCKS[0], f"{stage}.variants={{rankings: {{}}}}"]))


def test_the_command_up_to_ppo_needs_something_to_optimise(tmp_path: Path) -> None:
    settings = (*ALONE, "reward_model=null", "ppo.variants={}")
    line = refuse("ppo", TINY, "--dir", tmp_path / "run", *overrides(settings))
    assert "has no ppo block" in line and not (tmp_path / "run").exists()


def test_stories_that_no_prompt_is_cut_from_are_pretraining_text(tmp_path: Path) -> None:
    file = tmp_path / "stories.txt"
    told = [f"story {n} " + " ".join(f"w{n}x{i}." for i in range(30)) for n in range(60)]
    file.write_text("<|endoftext|>".join(told), encoding="utf-8")
    settings = [f"{key}={file}" for key in ("prompts", "documents")] + ["model=none", "stories.test_stories=10"]
    settings += ["pools={reward_model: 30, ppo: 30, evaluation: 5}"]
    raw = {k: v for k, v in read_recipe("optimisers_stories", settings).items() if not k.startswith("matrix")}
    source = StoriesSource(build(raw))
    prompts = source.prompts()
    documents = source.documents()
    assert len(documents) == 60 - 10 - 10 - 10 and {d.split for d in documents} == {"train", "valid"}
    cut = [prompt.text for pool in prompts.values() for prompt in pool]
    assert len(cut) == 65 and not any(text in document.text for text in cut for document in documents)
    assert source.dropped["stories not needed"] == 60 - 5 - 10 - 10
