"""The whole loop on the tiny recipe: two rounds, what each step was made from, and results that leave nothing out."""

import fcntl
import json
import math
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from heedful.config import InputError, read_recipe
from heedful.evaluate.win_rate import win_rate
from heedful.models.checkpoint import weights_hash
from heedful.pipeline.recipe import build
from heedful.pipeline.results import gather, write_results
from heedful.pipeline.start import at_work
from heedful.ranks import untied_pairs
from heedful.report.folder import RunFolder
from heedful.report.page import render
from heedful.run import read_jsonl
from heedful.snapshot import read_snapshot
from heedful.steps import planned_steps
from report.page import Page
from same_run import content, files
from tiny import TINY, refuse, succeed


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def two_rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds with as little as possible besides: no prompted baseline, one policy; judged by training labelers
    too."""
    folder = tmp_path_factory.mktemp("two") / "run"
    settings = ["rounds=2", "evaluate.prompted=false", "ppo.variants={ppo: {ptx_coef: 0}}", "pools.reward_model=14"]
    settings += ["labelers.heldout=1", "world.document_tokens=6000", "evaluate.best_of=[2, 3]", "reward_model_folds=2"]
    settings += ["evaluate.training_labelers=true"]
    recipe = build(read_recipe(str(TINY), settings))
    with at_work(recipe, folder, cores=1) as loop:
        loop.run()
        write_results(recipe, folder)
    return folder


# Low-rank adapters.


def test_adapters_in_every_stage_change_each_matrix_by_their_rank(tmp_path: Path) -> None:
    settings = [f"{stage}.lora_rank=2" for stage in ("sft", "reward_model", "ppo")]
    settings += ["evaluate.prompted=false", "ppo.variants={ppo: {ptx_coef: 0}}", "ppo.lr=1e-2", "sft.lr=1e-2"]
    recipe = build(read_recipe(str(TINY), [*settings, "world.document_tokens=6000"]))
    with at_work(recipe, tmp_path / "run", cores=1) as loop:
        loop.run(until="ppo")
    assert changed_by(loop.start(), loop.ppo_start()) == {2}
    assert changed_by(loop.ppo_start(), loop.round_folder(1) / "ppo" / "model") == {2}
    assert changed_by(loop.fine_tuned("sft"), loop.reward_model(1), prefix="model.") == {2}


def test_recomputed_activations_change_no_bit(tiny_run: Path, tmp_path: Path) -> None:
    settings = [f"{stage}.activation_checkpointing=true" for stage in ("sft", "reward_model", "ppo")]
    recipe = build(read_recipe(str(TINY), settings))
    with at_work(recipe, tmp_path / "run", cores=1) as loop:
        loop.run(until="ppo")
        models = [loop.start(), loop.reward_model(1), loop.round_folder(1) / "ppo" / "model"]
    for model in models:
        assert weights_hash(model) == weights_hash(tiny_run / model.relative_to(tmp_path / "run")), model


def changed_by(before: Path, after: Path, prefix: str = "") -> set[int]:
    """The ranks of the differences between two models' linear modules; nothing else differs."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    found = set()
    for name, weight in new.items():
        difference = weight - old[prefix + name]
        if name.endswith("_proj.weight"):
            found.add(int(torch.linalg.matrix_rank(difference, rtol=1e-3)))
        else:
            assert not difference.any(), name
    return found


# Two rounds.


def test_the_second_round_ranks_the_first_rounds_policy(two_rounds: Path) -> None:
    made = read(two_rounds / "round-2" / "responses" / "manifest.json")["parents"]
    assert made["policy"] == weights_hash(two_rounds / "round-1" / "ppo" / "model")
    first = read(two_rounds / "round-1" / "responses" / "manifest.json")["parents"]
    assert first["policy"] != made["policy"] and first["prompts"] == made["prompts"]


def test_the_second_reward_model_learns_from_the_rankings_of_both_rounds(two_rounds: Path) -> None:
    first, second = (read_snapshot(two_rounds / f"round-{n}" / "rankings" / "snapshot") for n in (1, 2))
    assert {r.id for r in first.rankings} < {r.id for r in second.rankings}
    assert {r.model for r in first.responses} == {"round-1"}
    assert {r.model for r in second.responses} == {"round-1", "round-2"}
    made = read(two_rounds / "round-2" / "reward_model" / "manifest.json")["parents"]
    assert made["rankings"] == second.hash
    trained = [read(two_rounds / f"round-{n}" / "reward_model" / "done.json")["results"] for n in (1, 2)]
    assert trained[1]["num_rankings"] > trained[0]["num_rankings"]
    held = {labeler.id for labeler in second.labelers if labeler.group == "heldout"}
    split = {prompt.id: prompt.split for prompt in second.prompts}
    assert held and all(split[r.prompt_id] != "train" for r in second.rankings if r.labeler in held)


def test_ppo_begins_again_from_its_reference_with_the_newest_reward_model(two_rounds: Path) -> None:
    first, second = (read(two_rounds / f"round-{n}" / "ppo" / "manifest.json")["parents"] for n in (1, 2))
    assert first["policy_folder"] == second["policy_folder"] == weights_hash(two_rounds / "ppo_init" / "epoch-01")
    assert second["reward_model_folder"] == weights_hash(two_rounds / "round-2" / "reward_model" / "model")
    assert first["reward_model_folder"] != second["reward_model_folder"]
    evaluated = read(two_rounds / "evaluation" / "ppo" / "manifest.json")["parents"]
    assert evaluated["policy"] == weights_hash(two_rounds / "round-2" / "ppo" / "model")


def test_only_one_held_out_labeler_is_no_agreement_but_no_obstacle(two_rounds: Path) -> None:
    found = read(two_rounds / "results.json")["agreement"]["heldout"]
    assert found["mean"] is None and found["reason"]


def test_the_best_of_n_has_no_kl_and_scores_no_worse_than_one(two_rounds: Path) -> None:
    policies = read(two_rounds / "results.json")["policies"]
    for n in (2, 3):
        best = policies[f"best_of_{n}"]
        assert best["kl"] is None and best["reason"]["kl"]
        assert best["kl_bound"] == pytest.approx(math.log(n) - (n - 1) / n)
        assert best["sampled_per_answer"] > best["length"]
        assert len(read_snapshot(two_rounds / "evaluation" / f"best_of_{n}" / "responses").responses) == 10
    folders = (two_rounds / "evaluation" / name / "samples.jsonl" for name in ("ppo_init", "best_of_2", "best_of_3"))
    scores = [{row["prompt_id"]: row["score"] for row in read_jsonl(path)} for path in folders]
    for fewer, more in pairwise(scores):  # the same draws, and one more of each prompt
        assert all(more[prompt] >= fewer[prompt] - 1e-6 for prompt in fewer)
        assert any(more[prompt] > fewer[prompt] + 1e-3 for prompt in fewer)
    alone = policies["ppo"]
    assert "kl_bound" not in alone and alone["sampled_per_answer"] == pytest.approx(alone["length"])


# Cross-validation over groups of labelers.


def test_each_fold_learns_from_the_other_labelers_alone(two_rounds: Path) -> None:
    folder = two_rounds / "round-2"
    dealt = read(folder / "folds" / "done.json")["results"]["folds"]
    whole = read_snapshot(folder / "rankings" / "snapshot")
    ours = {labeler.id for labeler in whole.labelers if labeler.group == "train"}
    assert len(dealt) == 2 and sorted(dealt[0] + dealt[1]) == sorted(ours) and len(ours) == 4
    for n, left_out in enumerate(dealt, start=1):
        given = read_snapshot(folder / "folds" / f"fold-{n}")
        assert {r.labeler for r in given.rankings} == ours - set(left_out)
        assert {r.id for r in given.rankings} == {r.id for r in whole.rankings if r.labeler in ours - set(left_out)}
        made = read(folder / "folds" / f"model-{n}" / "manifest.json")
        assert made["parents"]["rankings"] == given.hash
        assert made["config"] == read(folder / "reward_model" / "manifest.json")["config"]
        scored = read(folder / "folds" / f"scores-{n}" / "manifest.json")["parents"]
        assert scored["reward_model"] == weights_hash(folder / "folds" / f"model-{n}" / "model")
        assert scored["snapshot"] == whole.hash
    assert not (two_rounds / "round-1" / "folds").exists()  # once, of all rankings


def test_cross_validated_accuracy_can_be_counted_again(two_rounds: Path) -> None:
    folder = two_rounds / "round-2"
    found = read(two_rounds / "results.json")["reward_model"]["cross_validation"]
    snapshot = read_snapshot(folder / "rankings" / "snapshot")
    tested = {prompt.id for prompt in snapshot.prompts if prompt.split == "test"}
    within, out = [], []
    for n, left_out in enumerate(read(folder / "folds" / "done.json")["results"]["folds"], start=1):
        score = {row["response_id"]: row["score"] for row in read_jsonl(folder / "folds" / f"scores-{n}/samples.jsonl")}
        for ranking in snapshot.rankings:
            if ranking.prompt_id in tested and ranking.labeler.startswith("train"):
                pairs = [(ranking.responses[i], ranking.responses[j]) for i, j in untied_pairs(ranking.rank)]
                right = [0.5 if score[a] == score[b] else float(score[a] > score[b]) for a, b in pairs]
                (out if ranking.labeler in left_out else within).extend(right)
    assert len(within) == len(out) == found["num_comparisons"] > 10  # two folds: every comparison once in each
    assert found["out_of_group"]["mean"] == pytest.approx(sum(out) / len(out))
    assert found["within_group"]["mean"] == pytest.approx(sum(within) / len(within))
    assert found["difference"]["mean"] == pytest.approx(found["within_group"]["mean"] - found["out_of_group"]["mean"])
    assert sum(fold["num_comparisons"] for fold in found["folds"]) == len(out)


def test_the_report_and_the_plan_know_the_folds(two_rounds: Path) -> None:
    text = Page(render(RunFolder(two_rounds))).section("reward-model")
    found = read(two_rounds / "results.json")["reward_model"]["cross_validation"]
    for key in ("within_group", "out_of_group", "difference"):
        assert f"{100 * found[key]['mean']:.1f} %".replace("-", "−") in text
    assert all(", ".join(fold["labelers"]) in text for fold in found["folds"])
    planned = [name for name in planned_steps(read(two_rounds / "recipe.json")) if "folds" in name]
    assert planned == [
        f"round-2/{name}" for name in ("folds", *(f"folds/{k}-{n}" for k in ("model", "scores") for n in (1, 2)))
    ]
    assert all((two_rounds / name / "done.json").exists() for name in planned)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["reward_model_folds=1"], "reward_model_folds is 1, which leaves nobody to learn from"),
        (["reward_model_folds=5"], "reward_model_folds is 5 for 4 labelers.train; lower it"),
        (["reward_model_folds=2", "reward_model=null"], "reward_model_folds needs a reward_model block"),
    ],
)
def test_impossible_folds_are_refused_at_once(settings: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build(read_recipe(str(TINY), [*settings, "ppo.variants={}", "evaluate.prompted=false"]))


# What was made from what.


def manifests(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.rglob("manifest.json")):
        yield str(path.parent.relative_to(folder)), read(path)


def test_every_step_records_the_hashes_of_what_it_read(tiny_run: Path) -> None:
    models = {weights_hash(path.parent) for path in tiny_run.rglob("config.json")}
    snapshots = {read(path)["hash"] for path in tiny_run.rglob("snapshot.json")}
    for name, manifest in manifests(tiny_run):
        parents = manifest["parents"]
        assert parents or name == "data", name
        for key, value in parents.items():
            if key != "format":
                assert value in models | snapshots, (name, key)
    pretrain, sft = (read(tiny_run / name / "manifest.json")["parents"] for name in ("pretrain", "sft"))
    assert set(pretrain) == {"documents", "format"}
    assert set(sft) == {"model", "demonstrations", "documents", "format"}


def test_models_carry_their_parents_with_them(tiny_run: Path) -> None:
    for path in tiny_run.rglob("heedful.json"):
        manifest = next(p / "manifest.json" for p in path.parents if (p / "manifest.json").exists())
        assert read(path)["parents"] == read(manifest)["parents"]


def test_a_step_whose_input_changed_is_refused(tiny_copy: Path) -> None:
    recipe = build(read_recipe(str(TINY)))
    weights = tiny_copy / "pretrain" / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with (
        at_work(recipe, tiny_copy, cores=1) as loop,
        pytest.raises(InputError, match=r"sft: what this step .* damaged since: model \("),
    ):
        loop.run()


def test_a_store_that_is_gone_is_not_made_anew(tiny_copy: Path) -> None:
    (tiny_copy / "store.db").unlink()
    (tiny_copy / "evaluation" / "judgements" / "done.json").unlink()
    line = refuse("run", TINY, "--dir", tiny_copy)
    assert "store.db is gone" in line and "heedful store restore" in line
    assert not (tiny_copy / "store.db").exists()


@pytest.mark.parametrize("name", ["pretrain/done.json", "round-1/rankings/done.json", "round-1/ppo/manifest.json"])
def test_a_torn_file_of_a_step_is_one_line_with_its_mend(tiny_copy: Path, name: str) -> None:
    torn = tiny_copy / name
    torn.write_text(torn.read_text()[:30])
    line = refuse("run", TINY, "--dir", tiny_copy, "--cores", 1)
    assert f"{torn} is damaged" in line and f"delete {torn.parent} and run the same command again" in line
    if name.startswith("round-1/rankings"):  # where the mend takes no training
        shutil.rmtree(torn.parent)
        succeed("run", TINY, "--dir", tiny_copy, "--cores", 1)


# Whose folder it is.


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("ppo.kl_coef=0.5", r"ppo\.ppo\.kl_coef = 0.02, now 0.5"),
        ("seed=7", "seed = 0, now 7"),
        ("rounds=2", "rounds = 1, now 2"),
        ("format.max_prompt_tokens=7", r"format\.max_prompt_tokens = 160, now 7"),
    ],
)
def test_a_folder_with_another_recipe_is_refused_by_the_key(override: str, words: str, tiny_copy: Path) -> None:
    before = {name: content(path) for name, path in files(tiny_copy).items()}
    recipe = build(read_recipe(str(TINY), [override]))
    with pytest.raises(InputError, match=f"holds a run with {words}; use another --dir"), at_work(recipe, tiny_copy):
        pass
    assert {name: content(path) for name, path in files(tiny_copy).items()} == before


def test_a_folder_another_process_works_in_is_refused(tiny_copy: Path) -> None:
    recipe = build(read_recipe(str(TINY)))
    with (tiny_copy / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another heedful is at work there"), at_work(recipe, tiny_copy):
            pass
    with at_work(recipe, tiny_copy):  # and taken again once that process is gone
        pass


def test_a_finished_folder_is_not_worked_on_again(tiny_copy: Path) -> None:
    recipe = build(read_recipe(str(TINY)))
    before = {name: path.stat().st_mtime_ns for name, path in files(tiny_copy).items()}
    with at_work(recipe, tiny_copy, cores=1) as loop:
        loop.run()
    assert {name: path.stat().st_mtime_ns for name, path in files(tiny_copy).items()} == before


# Results.

POLICIES = ["gpt", "gpt_prompted", "sft", "ppo_init", "ppo", "ppo_ptx"]


def nulls(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every null, with what stands beside it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if inner is None:
                why = value.get("reason")
                yield f"{place}.{key}", why.get(key) if isinstance(why, dict) else why
            yield from nulls(inner, f"{place}.{key}")


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers(inner)
    elif isinstance(value, float):
        yield value


def test_results_hold_what_is_promised(tiny_run: Path) -> None:
    results = read(tiny_run / "results.json")
    assert results["seed"] == 0 and results["baseline"] == "sft"
    assert set(results["seconds"]) == {name for name, _ in manifests(tiny_run)} | {"total"}
    steps = sum(value for name, value in results["seconds"].items() if name != "total")
    assert results["seconds"]["total"] > steps - 0.1  # on one core no step runs beside another
    for group in ("train", "heldout"):
        assert set(results["agreement"][group]) >= {"mean", "stderr"}
    accuracy = results["reward_model"]["accuracy"]
    for group in ("train_labelers", "heldout_labelers"):
        assert accuracy[group]["low"] <= accuracy[group]["mean"] <= accuracy[group]["high"]
    assert results["reward_model"]["num_comparisons"] > 0
    assert abs(results["reward_model"]["demonstration_score_mean"]) < 1e-5
    assert list(results["policies"]) == POLICIES
    for name, policy in results["policies"].items():
        assert set(policy) >= {"win_rate", "likert", "score", "gold", "kl", "distinct_2", "lm_loss", "metadata"}, name
        assert set(policy["win_rate"]) >= {"mean", "low", "high", "num_prompts"}
        assert policy["win_rate"]["num_prompts"] == 10
        assert 0 <= policy["win_rate"]["low"] <= policy["win_rate"]["mean"] <= policy["win_rate"]["high"] <= 1
        assert policy["win_rate"]["low"] < policy["win_rate"]["high"] or name == "sft"
        assert policy["metadata"] and all(0 <= rate <= 1 for rate in policy["metadata"].values())
    assert {results["policies"]["sft"]["win_rate"][key] for key in ("mean", "low", "high")} == {0.5}
    assert all(map(math.isfinite, numbers(results)))


@pytest.mark.parametrize("run", ["tiny_run", "two_rounds"])
def test_every_null_has_its_reason_beside_it(run: str, request: pytest.FixtureRequest) -> None:
    found = dict(nulls(read(request.getfixturevalue(run) / "results.json")))
    assert found and all(found.values()), found


def test_results_are_gathered_from_the_folders_alone(tiny_run: Path) -> None:
    recipe = build(read_recipe(str(TINY)))
    assert json.loads(json.dumps(gather(recipe, tiny_run))) == read(tiny_run / "results.json")


def test_training_labelers_fill_the_other_half_of_figure_3_and_no_other_number(two_rounds: Path) -> None:
    judged = two_rounds / "evaluation" / "judgements"
    snapshot, results = read_snapshot(judged / "snapshot"), read(two_rounds / "results.json")
    group = {labeler.id: labeler.group for labeler in snapshot.labelers}
    heldout = [ranking for ranking in snapshot.rankings if group[ranking.labeler] == "heldout"]
    assert len(heldout) < len(snapshot.rankings)
    assert {group[rating.labeler] for rating in snapshot.ratings} == {"heldout"}
    given: dict[str, dict[str, str]] = {}
    for row in read_jsonl(judged / "samples.jsonl"):
        given.setdefault(row["policy"], {})[row["prompt_id"]] = row["response_id"]
    assert results["policies"]["ppo"]["win_rate"]["mean"] == win_rate(heldout, given, "ppo", "sft").estimate.mean
    rows = [row for row in results["preference"]["win_rates"] if row["policy"] == "ppo"]
    known = {row["group"] for row in rows if row["mean"] is not None}
    assert known == {"train", "heldout"}, rows


def test_win_rates_can_be_counted_again_from_the_judgements(tiny_run: Path) -> None:
    judged = tiny_run / "evaluation" / "judgements"
    rank = {}
    for ranking in read_snapshot(judged / "snapshot").rankings:
        assert ranking.purpose == "evaluation" and ranking.labeler.startswith("heldout")
        rank.update(dict(zip(ranking.responses, ranking.rank, strict=True)))
    given = {(row["policy"], row["prompt_id"]): row["response_id"] for row in read_jsonl(judged / "samples.jsonl")}
    prompts = {prompt for _, prompt in given}
    for name in POLICIES:
        points = []
        for prompt in prompts:
            mine, theirs = given[name, prompt], given["sft", prompt]
            points.append(0.5 if mine == theirs or rank[mine] == rank[theirs] else float(rank[mine] < rank[theirs]))
        found = read(tiny_run / "results.json")["policies"][name]["win_rate"]["mean"]
        assert found == pytest.approx(sum(points) / len(points))


@pytest.mark.parametrize("run", ["tiny_run", "two_rounds"])
def test_every_policy_is_compared_with_every_other(run: str, request: pytest.FixtureRequest) -> None:
    results = read(request.getfixturevalue(run) / "results.json")
    pairs, names = results["pairwise"], list(results["policies"])
    assert {(a, b) for a in pairs for b in pairs[a]} == {(a, b) for a in names for b in names if a != b}
    for a in names:
        for b in pairs[a]:
            assert pairs[a][b]["mean"] + pairs[b][a]["mean"] == pytest.approx(1)
            assert pairs[a][b]["low"] + pairs[b][a]["high"] == pytest.approx(1)
        if a != results["baseline"]:
            against = results["policies"][a]["win_rate"]
            assert pairs[a][results["baseline"]] == {key: against[key] for key in ("mean", "low", "high")}


def test_gold_and_kl_can_be_computed_again(tiny_run: Path) -> None:
    rows = read_jsonl(tiny_run / "evaluation" / "judgements" / "samples.jsonl")
    results = read(tiny_run / "results.json")["policies"]
    for name in POLICIES:
        gold = [row["gold"] for row in rows if row["policy"] == name]
        assert results[name]["gold"] == pytest.approx(sum(gold) / len(gold))
        scores = [row["score"] for row in read_jsonl(tiny_run / "evaluation" / name / "samples.jsonl")]
        assert results[name]["score"] == pytest.approx(sum(scores) / len(scores), abs=1e-5)
    assert results["ppo"]["kl"] is not None and results["gpt_prompted"]["kl"] is None


def test_the_tax_is_measured_from_where_ppo_began(tiny_run: Path, two_rounds: Path) -> None:
    for folder, start in ((tiny_run, "ppo_init"), (two_rounds, "ppo_init")):
        measured = read(folder / "evaluation" / start / "manifest.json")["parents"]
        begun = read(folder / "round-1" / "ppo" / "manifest.json")["parents"]["policy_folder"]
        assert measured["policy"] == measured["reference"] == begun
        results = read(folder / "results.json")
        tax, policies = results["alignment_tax"], results["policies"]
        assert tax["start"] == start and tax["start_lm_loss"] == policies[start]["lm_loss"]
        assert policies[start]["kl"] == pytest.approx(0, abs=1e-5)
        for name, found in tax["policies"].items():
            assert found["rise"] == pytest.approx(policies[name]["lm_loss"] - policies[start]["lm_loss"])
    assert set(read(tiny_run / "results.json")["alignment_tax"]["policies"]) == {"ppo", "ppo_ptx"}
    assert read(tiny_run / "results.json")["alignment_tax"]["policies"]["ppo_ptx"]["relative_to"] == "ppo"


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        ([], "ppo_init"),
        (["ppo_start=gpt"], "gpt"),
        (["ppo_start=sft"], "ppo_start"),  # the row sft is the epoch that the reward model prefers
        (["ppo_start=sft", "evaluate.baseline=gpt"], "sft"),
        (["ppo_start=gpt", "evaluate.baseline=gpt"], "gpt"),
    ],
)
def test_the_row_of_ppos_start(settings: list[str], row: str) -> None:
    recipe = build(read_recipe(str(TINY), settings))
    assert recipe.start_row() == row
    steps = planned_steps(recipe.model_dump(mode="json"))
    assert len(steps) == len(set(steps)) and f"evaluation/{row}" in steps


def test_a_mix_is_compared_with_the_plain_variant_most_like_it() -> None:
    variants = "{free: {ptx_coef: 0, kl_coef: 0}, ppo: {ptx_coef: 0}, ptx: {ptx_coef: 1}, free_ptx: {kl_coef: 0}}"
    recipe = build(read_recipe(str(TINY), [f"ppo.variants={variants}"]))
    assert recipe.plain_of() == {"ptx": "ppo", "free_ptx": "free"}
    assert build(read_recipe(str(TINY), ["ppo.variants={ptx: {ptx_coef: 1}}"])).plain_of() == {"ptx": None}


def test_train_and_evaluation_share_no_user(tiny_run: Path) -> None:
    pools = {
        pool: read_snapshot(tiny_run / "data" / pool).prompts for pool in ("sft", "reward_model", "ppo", "evaluation")
    }
    users = {pool: {p.user for p in prompts if p.split == "train"} for pool, prompts in pools.items()}
    tested = {prompt.user for prompt in pools["evaluation"]}
    assert tested and not users["evaluation"]
    assert not tested & (users["sft"] | users["reward_model"] | users["ppo"])


def test_a_recipe_without_a_reward_model_ends_with_results(tmp_path: Path) -> None:
    settings = ["reward_model=null", "evaluate.prompted=false", "world.document_tokens=6000", "ppo.variants={}"]
    recipe = build(read_recipe(str(TINY), [*settings, "sft.variants={sft: {epochs: 1}}", "ppo_start=sft"]))
    with at_work(recipe, tmp_path / "run", cores=1) as loop:
        loop.run()
        results = write_results(recipe, tmp_path / "run")
    assert list(results["policies"]) == ["gpt", "sft"]
    assert results["alignment_tax"] is None and results["reason"]["alignment_tax"]
    assert results["policies"]["sft"]["score"] is None and results["policies"]["sft"]["reason"]["score"]
    assert results["reward_model"]["accuracy"]["train_labelers"]["mean"] is None
    assert all(dict(nulls(json.loads(json.dumps(results)))).values())


def test_a_run_begun_before_a_setting_was_there_goes_on(tiny_copy: Path) -> None:
    """What came after stands at its default; what was changed is still refused."""
    path = tiny_copy / "recipe.json"
    old = json.loads(path.read_text(encoding="utf-8"))
    for block in (old, *old["ppo"].values()):
        for newer in ("lab", "judges", "reward"):
            block.pop(newer, None)
    path.write_text(json.dumps(old), encoding="utf-8")
    recipe = build(read_recipe(str(TINY)))
    with at_work(recipe, tiny_copy) as loop:
        assert loop.recipe == recipe
    with (
        pytest.raises(InputError, match="holds a run with new_prompts"),
        at_work(recipe.model_copy(update={"new_prompts": 3}), tiny_copy),
    ):
        pass
