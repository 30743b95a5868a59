"""AI labelers in a run: judges are taught, they rank beside people, reward models learn from whom they are told to,
and their marks can be the reward."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from heedful.feedback.ai.template import FOLDER, read_template, write_score
from heedful.models.checkpoint import weights_hash
from heedful.pipeline.judges import answers_of, marks, pages_of, template_of
from heedful.pipeline.labelling import without_strangers
from heedful.pipeline.recipe import Recipe
from heedful.run import read_jsonl
from heedful.snapshot import read_snapshot
from heedful.steps import planned_steps
from heedful.world import World
from report.page import Page
from tiny import TINY, refuse, succeed

SMALL = "iterations: 2, batch_size: 8, max_new_tokens: 12, lr: 1.0e-3, warmup_iterations: 0"
TAUGHT = "prompts: 40, batch_size: 16, lr: 1.0e-3, residual_dropout: 0"
SETTINGS = (
    "evaluate.prompted=false",
    "world.document_tokens=6000",
    f"judges={{{TAUGHT}, variants: {{own: {{pretrain: {{shape: {{hidden_size: 16}}}}}}, same: {{policy: sft}}}}}}",
    "ai_labelers={own: {judge: own, template: world}, same: {judge: same, template: world}}",
    "rankings.by=both",
    "reward_model.labeler_weights={simulated: 1, others: 0}",
    "further_reward_models={soft: {objective: soft, labeler_weights: {own: 1, others: 0}}}",
    "ppo.variants={ppo: {ptx_coef: 0}, rlaif: {ptx_coef: 0, reward: soft}}",
    f"reinforce={{{SMALL}, variants: {{direct: {{reward: same}}}}}}",
)


def overrides(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rlaif") / "run"
    succeed("run", TINY, "--dir", folder, *overrides(SETTINGS), "--cores", "1")
    return folder


def test_every_step_is_planned(whole: Path) -> None:
    begun = {str(path.parent.relative_to(whole)) for path in whole.rglob("manifest.json")}
    assert begun == set(planned_steps(read(whole / "recipe.json")))


def test_a_judge_is_taught_from_its_own_start(whole: Path) -> None:
    starts = {name: read(whole / "judges" / name / "taught" / "manifest.json")["parents"] for name in ("own", "same")}
    assert starts["same"]["model"] == weights_hash(whole / "pretrain" / "model")
    assert starts["own"]["model"] == weights_hash(whole / "judges" / "own" / "pretrain" / "model")
    shape = read(whole / "judges" / "own" / "pretrain" / "model" / "config.json")
    assert (shape["hidden_size"], shape["intermediate_size"]) == (16, 48)  # laid over the pretrain block
    pages = read_snapshot(whole / "judges" / "own" / "pages" / "snapshot")
    assert {one.text for one in pages.demonstrations} > {" one", " two", " three", " ten"}
    assert {prompt.split for prompt in pages.prompts} == {"train", "valid"}


def test_a_judge_may_be_taught_on_a_policy_s_answers(whole: Path) -> None:
    """Each text that it was asked to mark is what the policy says to that prompt, as it says it when asked alone."""
    recipe = Recipe.model_validate(read(whole / "recipe.json"))
    manifest = read(whole / "judges" / "same" / "pages" / "manifest.json")
    policy = whole / "sft" / f"epoch-0{read(whole / 'sft' / 'done.json')['results']['lowest_loss_epoch']}"
    assert manifest["parents"]["policy"] == weights_hash(policy)
    prompts = World(recipe.seed).prompts(40, "train", pool="judge")
    config = pages_of(recipe.judges["same"], recipe.rankings)
    said = answers_of(policy, prompts, recipe.format, config, recipe.seed)
    assert said == answers_of(policy, prompts, recipe.format, config, recipe.seed)
    template = read_template("world")
    marked = {write_score(template, one, text) for one in prompts for text in said[one.id]}
    pages = {one.text for one in read_snapshot(whole / "judges" / "same" / "pages" / "snapshot").prompts_of("train")}
    assert marked == {text for text in pages if text.endswith(" how many ?")}
    own = {one.text for one in read_snapshot(whole / "judges" / "own" / "pages" / "snapshot").prompts_of("train")}
    assert not marked & own and any(text.strip() for texts in said.values() for text in texts)


def test_ai_labelers_rank_every_set_beside_people(whole: Path) -> None:
    ranked = read_snapshot(whole / "round-1" / "rankings" / "snapshot")
    kind = {one.id: one.kind for one in ranked.labelers}
    sets = {ranking.prompt_id for ranking in ranked.rankings if kind[ranking.labeler] == "simulated"}
    for name in ("own", "same"):
        own = [ranking for ranking in ranked.rankings if ranking.labeler == name]
        assert {ranking.prompt_id for ranking in own} == sets and kind[name] == "ai"
        assert all(len(ranking.preference) == math.comb(len(ranking.responses), 2) for ranking in own)


def test_each_reward_model_learns_from_whom_it_is_told_to(whole: Path) -> None:
    ranked = read_snapshot(whole / "round-1" / "rankings" / "snapshot")
    kind = {one.id: one.kind for one in ranked.labelers}
    of_training = [ranking for _, _, ranking in ranked.rankings_of("train", "train")]
    people = sum(kind[ranking.labeler] == "simulated" for ranking in of_training)
    own = sum(ranking.labeler == "own" for ranking in of_training)
    first, soft = (read(whole / "round-1" / name / "done.json") for name in ("reward_model", "further/soft"))
    assert soft["results"]["num_rankings"] == own
    assert first["results"]["num_rankings"] <= people  # those without an untied pair teach nothing
    assert first["counts"]["ranking_of_no_weight"] == len([r for r in ranked.rankings if kind[r.labeler] == "ai"])
    parents = {name: read(whole / "round-1" / name / "manifest.json")["parents"] for name in ("ppo", "rlaif", "direct")}
    assert parents["ppo"]["reward_model_folder"] == weights_hash(whole / "round-1" / "reward_model" / "model")
    assert parents["rlaif"]["reward_model_folder"] == weights_hash(whole / "round-1" / "further" / "soft" / "model")
    taught = weights_hash(whole / "judges" / "same" / "taught" / "epoch-01")
    assert parents["direct"]["labeler_model"] == taught and '"judge":"same"' in parents["direct"]["labeler"]


def test_direct_scores_are_the_judge_s_expected_marks(whole: Path) -> None:
    """What the log says of a sampled episode is what the judge says of it when it is asked alone."""
    recipe = Recipe.model_validate(read(whole / "recipe.json"))
    same = recipe.ai_labelers["same"]
    score = marks(same, template_of(same), whole / "judges" / "same" / "taught" / "epoch-01")
    prompts = read_snapshot(whole / "data" / "ppo").prompt_by_id()
    for row in read_jsonl(whole / "round-1" / "direct" / "samples.jsonl"):
        sampled: Any = type("Sampled", (), {"text": [row["text"]]})
        assert float(score([prompts[row["prompt_id"]]], sampled)) == pytest.approx(row["score"], abs=1e-5)
        assert -1 < row["score"] < 1


def test_results_tell_of_labelers_and_reward_models_and_the_report_shows_them(whole: Path) -> None:
    results = read(whole / "results.json")
    figures = {(row["labeler"], row["figure"]): row for row in results["ai_labelers"]}
    assert {name for name, _ in figures} == {"own", "same"}
    assert figures["own", "alignment"]["num"] > 0 and 0 <= figures["own", "same_position"]["mean"] <= 1
    assert {row["reward_model"] for row in results["reward_models"]} == {"reward_model", "soft"}
    assert {row["labelers"] for row in results["reward_models"]} == {"train", "heldout"}
    main = next(
        r for r in results["reward_models"] if r["reward_model"] == "reward_model" and r["labelers"] == "heldout"
    )
    assert main["mean"] == results["reward_model"]["accuracy"]["heldout_labelers"]["mean"]
    page = (whole / "report.html").read_text(encoding="utf-8")
    shown = Page(page)
    assert "same place, both orders" in shown.section("ai-labelers") and "own" in shown.section("ai-labelers")
    assert "Every reward model of the run" in shown.section("reward-model")
    keys = {element.attributes.get("data-key") for element in shown.elements}
    for table in ("ai_labelers", "reward_models"):
        assert {f"/{table}/{n}/mean" for n in range(len(results[table]))} <= keys


def test_begun_again_it_does_nothing_anew(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("done.json")}
    succeed("run", TINY, "--dir", whole, *overrides(SETTINGS), "--cores", "1")
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("done.json")} == before


def test_ai_alone_ranks_what_is_trained_on(tmp_path: Path) -> None:
    changed = [setting for setting in SETTINGS if not setting.startswith(("ppo", "reinforce", "further"))]
    changed += ["rankings.by=ai", "reward_model.labeler_weights={}"]
    succeed("reward", TINY, "--dir", tmp_path / "run", *overrides(tuple(changed)), "--cores", "1")
    ranked = read_snapshot(tmp_path / "run" / "round-1" / "rankings" / "snapshot")
    kind, split = {one.id: one.kind for one in ranked.labelers}, {one.id: one.split for one in ranked.prompts}
    assert {kind[r.labeler] for r in ranked.rankings if split[r.prompt_id] == "train"} == {"ai"}
    assert {r.labeler for r in ranked.rankings if split[r.prompt_id] == "test"} > {"own", "same"}  # and held-out people


def test_the_plan_knows_every_step(tmp_path: Path) -> None:
    shown = succeed("run", TINY, "--dir", tmp_path / "run", *overrides(SETTINGS), "--dry-run")
    for step in ("judges/own/pretrain", "judges/same/taught", "labels/own", "further/soft", "scores-soft"):
        assert step.rpartition("/")[2] in shown, step


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("ai_labelers={a: {template: world}}", "give either model"),
        (
            "ai_labelers={a: {judge: none, template: world}}",
            "a.judge is 'none', and judges holds own, same",
        ),
        ("judges.variants.same.policy=stf", "judges.same.policy is 'stf', and sft holds"),
        ("rankings.by=people", "rankings.by is people; set it to ai or both"),
        ("ai_labelers={}", "rankings.by is both, and no AI labeler ranks"),
        ("ppo.variants.ppo.reward=sof", "ppo.reward .of ppo. is 'sof', which is none of"),
        ("ai_labelers.own.template=wrold", "no template 'wrold', did you mean world?"),
        ("further_reward_models={own: {}}", "'own' names both a further reward model and an AI labeler"),
    ],
)
def test_what_stands_for_nothing_is_refused_before_anything_runs(setting: str, told: str, tmp_path: Path) -> None:
    line = refuse("run", TINY, "--dir", tmp_path / "run", *overrides((*SETTINGS, setting)))
    assert re.search(told, line), line
    assert not (tmp_path / "run").exists()


def test_a_template_without_marks_is_no_reward(tmp_path: Path) -> None:
    found = yaml.safe_load((FOLDER / "world.yaml").read_text(encoding="utf-8"))
    del found["score"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")
    without = f"ai_labelers.same.template={tmp_path / 'mine.yaml'}"
    line = refuse("run", TINY, "--dir", tmp_path / "run", *overrides((*SETTINGS, without)))
    assert "no score block, which marks by same are asked with" in line


def test_a_template_that_was_edited_is_another(whole: Path, tmp_path: Path) -> None:
    """Steps are known by what a template says, not by its file's name."""
    recipe = Recipe.model_validate(read(whole / "recipe.json"))
    named = recipe.ai_labelers["own"].model_copy(update={"template": str(tmp_path / "mine.yaml")})
    text = (FOLDER / "world.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    before = template_of(named)
    (tmp_path / "mine.yaml").write_text(text.replace("which ?", "which one ?"), encoding="utf-8")
    assert before.model_dump_json() != template_of(named).model_dump_json()
    parents = read(whole / "round-1" / "rankings" / "manifest.json")["parents"]
    assert parents["own template"] == before.model_dump_json()


def test_ai_labels_from_beside_the_run_are_learned_from_where_they_are_named(whole: Path) -> None:
    """What `heedful judge label` put into the store counts for whoever names it, and for nobody else."""
    recipe, snapshot = (
        Recipe.model_validate(read(whole / "recipe.json")),
        read_snapshot(whole / "round-1" / "rankings" / "snapshot"),
    )
    plain = recipe.model_copy(update={"ai_labelers": {}, "further_reward_models": {}})
    assert recipe.reward_model is not None
    for weights, heard in (({}, set()), ({"own": 0.5}, {"own"}), ({"ai": 1.0}, {"own", "same"})):
        reward = recipe.reward_model.model_copy(update={"labeler_weights": weights})
        kept = without_strangers(plain.model_copy(update={"reward_model": reward}), snapshot)
        ids = {ranking.labeler for ranking in kept.rankings}
        assert {one.id for one in kept.labelers if one.kind == "ai"} == heard == ids & {"own", "same"}
        left_out = sum(ranking.labeler in {"own", "same"} - heard for ranking in snapshot.rankings)
        assert kept.dropped.get("rankings_by_unnamed_ai_labelers", 0) == left_out
    assert without_strangers(recipe, snapshot).rankings == snapshot.rankings
