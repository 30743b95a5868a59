"""Labels by principles within a run: a judge is taught, scores, and both forms of the reward model learn from it."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from heedful.engine.sample import score_rows
from heedful.evaluate.principles import ALL
from heedful.feedback.ai.template import read_template, write
from heedful.feedback.principles.book import read_principles
from heedful.feedback.principles.collect import asking, read_form
from heedful.models.checkpoint import guideline_of, load_reward_model, weights_hash
from heedful.pipeline import principle_measure as measured
from heedful.pipeline.ai_labels import local_ask
from heedful.pipeline.ai_results import followed, reward_models
from heedful.pipeline.principle_measure import as_pairs, exact_gap, heldout, turned
from heedful.pipeline.principle_scores import ScoreConfig, read_scores
from heedful.pipeline.principle_settings import Worded
from heedful.pipeline.principle_steps import score, shares
from heedful.principles import PrincipleRanking
from heedful.run import Run, read_jsonl
from heedful.snapshot import Snapshot, read_snapshot
from heedful.stages import sft
from heedful.steps import planned_steps
from heedful.text.collate import Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.text.principles import PrincipleFormat, guideline
from heedful.text.tokenizer import pad_id
from heedful.types import Prompt, Response
from heedful.world import World
from heedful.world.principles import PRINCIPLES, boasts
from public_data import stories_model
from tiny import TINY, refuse, succeed

GUIDELINE = '{item: "{text} ", template: " {principles}"}'
TAUGHT = "prompts: 20, answers: 3, batch_size: 16, lr: 1.0e-3"
SETTINGS = (
    "evaluate.prompted=false",
    "world.document_tokens=6000",
    "world.boasting=0.5",
    "principles.collection=world",
    "principles.template=world",
    f"principles.judge={{{TAUGHT}}}",
    "principles.labels.passes=2",
    f"principles.preference={{{TAUGHT}, guideline: {GUIDELINE}, fixed_principles: [people like it best .]}}",
    f"principles.decoded={{guideline: {GUIDELINE}, template: world, batch_size: 16, lr: 1.0e-3, residual_dropout: 0}}",
    f"further_reward_models={{salmon: {{guideline: {GUIDELINE}}}, people: {{lr: 2.0e-3}}}}",
    "principle_rewards={plain: {reward_model: salmon, principles: world_rl}, "
    "mended: {reward_model: salmon, principles: world_rl, number: 1, always: world_humble, scale: 2, apart: true}}",
    "ppo.variants={plain: {ptx_coef: 0, reward: plain}, mended: {ptx_coef: 0, reward: mended}}",
    "reinforce={iterations: 1, batch_size: 8, max_new_tokens: 12, normalize_score: true, "
    "variants: {direct: {reward: mended}}}",
)
STEPS = ("principles/pages", "principles/taught", "principles/comparisons", "principles/preference")
IN_ROUND = ("principles/scores", "principles/labels", "further/salmon", "principles/decoded", "principles/measured")


def overrides(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("principles") / "run"
    succeed("run", TINY, "--dir", folder, *overrides(SETTINGS), "--cores", "1")
    return folder


def test_every_step_is_planned_and_counted(run: Path, tmp_path: Path) -> None:
    begun = {str(path.parent.relative_to(run)) for path in run.rglob("manifest.json")}
    planned = planned_steps(read(run / "recipe.json"))
    assert begun <= set(planned) and begun >= {*STEPS, *(f"round-1/{name}" for name in IN_ROUND)}
    assert "round-1/scores-people" in begun and "round-1/scores-salmon" not in planned
    shown = succeed("run", TINY, "--dir", tmp_path / "plan", *overrides(SETTINGS), "--dry-run")
    for step in (*STEPS, *(f"round-1/{name}" for name in IN_ROUND)):
        assert step in shown or step.rpartition("/")[2] in shown, step
    labels = read_snapshot(run / "round-1" / "principles" / "labels" / "snapshot")
    made = [len(labels.principle_rankings_of("train")), len(labels.principle_rankings)]
    planned_labels = [int(n.replace(",", "")) for n in re.findall(r"at most\s+([\d,]+)\s+labels", shown)]
    assert len(planned_labels) == 2 and all(
        n <= most <= 2 * n for n, most in zip(made, sorted(planned_labels), strict=True)
    )


def test_the_judge_is_taught_on_answers_no_policy_wrote(run: Path) -> None:
    pages = read_snapshot(run / "principles" / "pages" / "snapshot")
    world, form = World(0), read_form("world")
    endings = {id: asking(form, one).ending for one in read_principles("world", "en") for id in [one.id]}
    of = {one.id: one for one in pages.prompts}
    asks = Counter(one.prompt_id for one in pages.demonstrations)
    assert max(asks.values()) > 2 and asks.keys() == of.keys()
    for one in pages.demonstrations:  # a question stands behind its page as the judge will be asked it
        principle = one.id.removeprefix(f"{one.prompt_id}-")
        assert one.text in (f"{endings[principle]} one", f"{endings[principle]} two")
        assert set(f"{of[one.prompt_id].text}{one.text}".split(" ")) <= set(world.vocabulary)
    said = {one.id: one.text for one in pages.demonstrations}
    people = [one for split, n in shares(20).items() for one in world.comparisons_by_principles(n, split, 3)]
    told = {f"page-{n}-{id}": better for n, one in enumerate(people) for id, better in one.first_is_better.items()}
    assert said.keys() == told.keys() and set(told.values()) == {True, False}
    assert all(said[id].endswith(" one" if better else " two") for id, better in told.items())
    asked = read_snapshot(run / "round-1" / "responses" / "responses")
    assert not {one.user for one in pages.prompts} & {one.user for one in asked.prompts}


def test_every_pair_is_scored_by_every_principle_and_made_into_labels(run: Path) -> None:
    responses = read_snapshot(run / "round-1" / "responses" / "responses")
    each = [sum(one.prompt_id == prompt.id for one in responses.responses) for prompt in responses.prompts]
    scores = read_scores(run / "round-1" / "principles" / "scores")
    assert len(scores) == sum(k * (k - 1) // 2 for k in each) * len(PRINCIPLES)
    labels = read_snapshot(run / "round-1" / "principles" / "labels" / "snapshot")
    assert len(labels.principle_rankings) + sum(labels.dropped.values()) == 2 * len(scores) // len(PRINCIPLES)
    assert all(len(one.principles) == 3 for one in labels.principle_rankings) and not labels.rankings


def test_the_reward_model_begins_with_preference_pretraining_and_knows_its_guideline(run: Path) -> None:
    salmon = run / "round-1" / "further" / "salmon"
    labels = read_snapshot(run / "round-1" / "principles" / "labels" / "snapshot")
    assert read(salmon / "done.json")["results"]["num_rankings"] == len(labels.principle_rankings_of("train"))
    assert guideline_of(salmon / "model") == guideline_of(run / "principles" / "preference" / "model") is not None
    parents = read(salmon / "manifest.json")["parents"]
    assert parents["model"] == weights_hash(run / "principles" / "preference" / "model")
    assert parents["rankings"] == labels.hash
    people = read(run / "round-1" / "further" / "people" / "manifest.json")["parents"]
    assert people["rankings"] == read_snapshot(run / "round-1" / "rankings" / "snapshot").hash


def test_both_forms_are_measured_by_principle_and_the_judge_beside_them(run: Path) -> None:
    rows = followed(run / "round-1")
    assert rows is not None
    assert {row["model"] for row in rows} == {"salmon", "decoded", "judge"}
    whole = {(row["model"], row["figure"]): row for row in rows if row["principle"] == ALL}
    labels = read_snapshot(run / "round-1" / "principles" / "labels" / "snapshot")
    asked = heldout(labels, 600, 0)
    for model in ("salmon", "decoded"):
        assert {whole[model, figure]["num"] for figure in ("accuracy", "flips")} == {len(asked)}
        assert all(0 <= whole[model, figure]["mean"] <= 1 for figure in ("accuracy", "flips", "exact"))
    assert {prompt.split for prompt, _, _ in asked} == {"test"}
    split = {one.id: one.split for one in labels.prompts}
    scored = read_scores(run / "round-1" / "principles" / "scores")
    assert whole["judge", "orders_agree"]["num"] == sum(split[one.prompt_id] != "train" for one in scored) < len(scored)
    assert whole["judge", "orders_agree"]["num"] > whole["judge", "exact"]["num"] > 0
    ranked = read_snapshot(run / "round-1" / "rankings" / "snapshot")
    plain = reward_models(run / "round-1", ranked, ranked.rankings)
    assert plain is not None and {row["reward_model"] for row in plain} == {"reward_model", "people"}


def test_policies_are_steered_by_other_principles_with_one_reward_model(run: Path) -> None:
    parents = {n: read(run / "round-1" / n / "manifest.json")["parents"] for n in ("plain", "mended", "direct")}
    salmon = weights_hash(run / "round-1" / "further" / "salmon" / "model")
    assert {found["reward_model_folder"] for found in parents.values()} == {salmon}
    assert "do not say that you are wise ." in parents["mended"]["principles"]  # what a step is known by
    assert parents["mended"]["principles"] == parents["direct"]["principles"] != parents["plain"]["principles"]
    for name, scale in (("plain", 1), ("mended", 2), ("direct", 2)):
        for row in read_jsonl(run / "round-1" / name / "metrics.jsonl"):
            terms = row["principle_score"] + row["length_bonus"] + row["language_bonus"]
            assert row["score"] == pytest.approx(scale * terms, abs=1e-4) and row["length_bonus"] > 0
    kept = read(run / "results.json")["principles_kept"]
    assert {row["policy"] for row in kept} >= {"sft", "plain", "mended", "direct"}
    assert {row["figure"] for row in kept} == {*PRINCIPLES, "boasts"}
    first = read_jsonl(run / "round-1" / "direct" / "metrics.jsonl")[0]
    assert abs(first["principle_score"]) < 0.01 < abs(first["score"])  # the model is scaled on the start, bonuses not


def test_a_label_is_asked_about_as_it_stood_and_with_what_decided_it_turned_round(run: Path) -> None:
    labels = read_snapshot(run / "round-1" / "principles" / "labels" / "snapshot")
    items, asked = heldout(labels, 5, 0), []

    def form(pairs: Sequence[measured.Asked]) -> list[float]:
        asked.extend(pairs)
        return [float(n) for n in range(len(pairs))]

    found, left_out = measured.followed(form, labels, items, None)
    assert left_out == 0 and [(one.margin, one.negated) for one in found] == [(2.0 * n, 2.0 * n + 1) for n in range(5)]
    by_id = {one.id: one for one in read_principles("world", "en")}
    for n, (_, responses, ranking) in enumerate(items):
        stood, otherwise = asked[2 * n], asked[2 * n + 1]
        assert [stood.first, stood.second] == sorted(
            responses, key=lambda one: ranking.rank[ranking.responses.index(one.id)]
        )
        assert (otherwise.first, otherwise.second) == (stood.first, stood.second)
        for (id, negated), text, other in zip(ranking.principles, stood.texts, otherwise.texts, strict=True):
            both = by_id[id].definition, by_id[id].negative
            assert (text, other) == (
                (both[negated], both[not negated]) if id == ranking.decided_by else (both[negated],) * 2
            )


def test_a_margin_is_the_first_response_s_score_less_the_second_s(run: Path) -> None:
    labels = read_snapshot(run / "round-1" / "principles" / "labels" / "snapshot")
    pairs = [
        measured.Asked(prompt, tuple(labels.asked_for(ranking)), *responses)
        for prompt, responses, ranking in heldout(labels, 4, 0)
    ]
    folder, format = (
        run / "round-1" / "further" / "salmon" / "model",
        PromptFormat(**read(run / "recipe.json")["format"]),
    )
    config = measured.PrincipleMeasureConfig(names=("salmon",), most=4, exact=False, precision="fp32")
    form = PrincipleFormat(**(guideline_of(folder) or {}))
    model, tokenizer = load_reward_model(folder, form)

    def score(one: measured.Asked, response: Response) -> float:
        """By itself, with nothing beside it."""
        encoder = Encoder(tokenizer, format).under(guideline(one.texts, form))
        ((_, row),) = encoder.responses(one.prompt, [response]) or []
        return float(score_rows(model, to_rows([row], pad_id(tokenizer)), 1000, "fp32")[0])

    wanted = [score(one, one.first) - score(one, one.second) for one in pairs]
    assert max(map(abs, wanted)) > 1e-3
    assert measured.ByScore(folder, format, config)(pairs) == pytest.approx(wanted, abs=1e-4)


def test_the_decoded_margin_is_the_mean_of_both_orders(run: Path) -> None:
    labels = read_snapshot(run / "round-1" / "principles" / "labels" / "snapshot")
    template, form = read_template("world"), PrincipleFormat(item="{text} ", template=" {principles}")
    model = stories_model()  # the run's own hardly minds a pair
    pairs, wanted = [], []
    for prompt, (first, second), ranking in heldout(labels, 3, 0):
        one = measured.Asked(prompt, tuple(labels.asked_for(ranking)), first, second)
        under = measured.asked_under(template, guideline(one.texts, form))
        texts = [write(under, prompt, *both) for both in ((first.text, second.text), (second.text, first.text))]
        as_shown, otherwise = (found.logprobs for found in local_ask(str(model), "auto").choose(texts, template.labels))
        wanted.append((as_shown[0] - as_shown[1] + otherwise[1] - otherwise[0]) / 2)
        pairs.append(one)
    assert max(map(abs, wanted)) > 0.01
    assert measured.ByDecoding(model, template, form, "auto")(pairs) == pytest.approx(wanted, abs=1e-4)


def test_the_pages_of_the_decoded_form_name_the_better_one(run: Path) -> None:
    labels = read_snapshot(run / "round-1" / "principles" / "labels" / "snapshot")
    template, form = read_template("world"), PrincipleFormat(item="{text} ", template=" {principles}")
    pages = read_snapshot(run / "round-1" / "principles" / "pairs" / "snapshot")
    said = {one.prompt_id: one.text for one in pages.demonstrations}
    shown, places = {one.id: one.text for one in pages.prompts}, Counter()
    for prompt, responses, ranking in as_pairs(labels.principle_rankings_of("train")):
        under = measured.asked_under(template, guideline(labels.asked_for(ranking), form))
        better, worse = (one.text for one in (responses if ranking.rank == (1, 2) else responses[::-1]))
        if better != worse:
            first = shown[ranking.id] == write(under, prompt, better, worse)
            assert first or shown[ranking.id] == write(under, prompt, worse, better)
            assert said[ranking.id] == f" {template.labels[0 if first else 1]}"
            places[first, ranking.rank] += 1
    assert len(places) == 4  # either response stands first, whichever is the better


def test_what_is_exact_is_turned_round_with_a_negated_principle_and_rules_are_not_measured() -> None:
    (prompt,) = (world := World(0)).prompts(1, "test")
    responses = tuple(
        Response(id=id, prompt_id=prompt.id, text=text) for id, text in (("a", "no ."), ("b", "no . no . no ."))
    )
    more = {"prompt_id": prompt.id, "labeler": "judge", "language": "en", "responses": ("a", "b"), "rank": (1, 2)}
    listed = {negated: (("concise", negated), ("humble", False)) for negated in (False, True)}
    rankings = [
        PrincipleRanking(id=f"r{negated}", principles=listed[negated], decided_by="concise", **more)
        for negated in listed
    ]
    ruled = PrincipleRanking(id="ruled", principles=listed[False], decided_by="rule:language", **more)
    data = Snapshot(
        (prompt,), responses, principles=read_principles("world", "en"), principle_rankings=(*rankings, ruled)
    )
    items = heldout(data, 9, 0)
    assert [ranking.id for _, _, ranking in items] == ["rFalse", "rTrue"]
    found, _ = measured.followed(lambda pairs: [1.0] * len(pairs), data, items, world)
    assert [one.exact for one in found] == [True, False]  # the first is the shorter one


def test_pairs_with_a_short_response_are_left_out_in_a_recipe_too(run: Path, tmp_path: Path) -> None:
    responses = run / "round-1" / "responses" / "responses"
    texts = {one.id: one.text for one in read_snapshot(responses).responses}
    least = sorted(map(len, texts.values()))[len(texts) // 2]
    config = ScoreConfig(principles="world_brief", template="world", min_characters=least)
    (brief,) = read_principles("world_brief", "en")
    own = Run.open(tmp_path / "scores", "judge_principles", {}, 0, {})
    score(
        config, own, run / "principles" / "taught" / "model", responses, Worded(principles=(brief,)), read_form("world")
    )
    scores = read_scores(tmp_path / "scores")
    assert scores and all(len(texts[id]) >= least for one in scores for id in one.responses)
    every = len(read_scores(run / "round-1" / "principles" / "scores")) // len(PRINCIPLES)
    assert own.counts["short"] == every - len(scores) > 0


def test_the_deciding_principle_is_turned_round_alone() -> None:
    assert turned((("a", False), ("b", True), ("c", False)), "b") == (("a", False), ("b", False), ("c", False))
    world = World(0)
    (prompt,) = world.prompts(1, "test")
    assert exact_gap(world, prompt, "humble", "i am so wise .", "i do not know .") == -4
    assert exact_gap(world, prompt, "creative", "a", "b") is None is exact_gap(None, prompt, "humble", "a", "b")


def test_a_ranking_of_many_is_measured_by_its_untied_pairs() -> None:
    prompt = Prompt(id="p", text="say no .", user="u", split="test")
    responses = [Response(id=id, prompt_id="p", text=id) for id in "abc"]
    ranking = PrincipleRanking(
        id="r",
        prompt_id="p",
        labeler="judge",
        language="en",
        principles=(("concise", True),),
        responses=("a", "b", "c"),
        rank=(2, 1, 2),
        decided_by="concise",
    )
    found = as_pairs([(prompt, responses, ranking)])
    assert [([one.id for one in pair], of.responses, of.rank) for _, pair, of in found] == [
        (["a", "b"], ("a", "b"), (2, 1)),
        (["b", "c"], ("b", "c"), (1, 2)),
    ]
    assert len({of.id for _, _, of in found}) == 2 and {of.principles for _, _, of in found} == {ranking.principles}


def test_a_policy_of_the_run_judges_and_comparisons_may_be_one_s_own(run: Path, tmp_path: Path) -> None:
    """As in the paper: the SFT model scores by principles, and preference pretraining is on comparisons at hand."""
    own = run / "principles" / "comparisons" / "snapshot"
    settings = (
        "world.document_tokens=6000",
        "principles={collection: world, template: world, policy: sft}",
        f"principles.preference={{{TAUGHT}, comparisons: '{own}', guideline: {GUIDELINE}, fixed_principles: [w]}}",
        f"further_reward_models={{salmon: {{guideline: {GUIDELINE}}}}}",
    )
    folder = tmp_path / "run"
    assert "principles/comparisons" not in succeed("run", TINY, "--dir", folder, *overrides(settings), "--dry-run")
    succeed("reward", TINY, "--dir", folder, *overrides(settings), "--cores", "1")
    scores = read(folder / "round-1" / "principles" / "scores" / "manifest.json")
    best = sft.epoch_folder(folder / "sft", read(folder / "sft" / "done.json")["results"]["lowest_loss_epoch"])
    assert scores["parents"]["model"] == weights_hash(best) and not (folder / "principles" / "comparisons").exists()
    pretrained = read(folder / "principles" / "preference" / "manifest.json")["parents"]
    assert pretrained["rankings"] == read_snapshot(own).hash
    begun = {str(path.parent.relative_to(folder)) for path in folder.rglob("manifest.json")}
    assert begun <= set(planned_steps(read(folder / "recipe.json")))


def test_half_of_the_demonstrations_boast(run: Path) -> None:
    shown = read_snapshot(run / "demonstrations" / "snapshot").demonstrations
    share = sum(boasts(one.text) for one in shown) / len(shown)
    assert 0.2 < share < 0.8


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("principles.model=none", "give either model .* or judge"),
        ("principles={template: world, collection: world, policy: nobody}", "principles.policy is 'nobody'; there is "),
        ("principles=null", "further_reward_models.salmon learns from labels by principles; give a principles block"),
        ("reward_model.guideline={}", "put it into further_reward_models"),
        ("principles.preference.fixed_principles=[]", "plain comparisons need a text or more to stand under"),
        ("further_reward_models.salmon.guideline.item=x {text}", "is not that of principles.preference; use one"),
        ("principles.from_judge=true", "give a judge block, and no preference block"),
        ("principles.collection=wrold", "no principles 'wrold', did you mean world"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_runs(setting: str, told: str, tmp_path: Path) -> None:
    line = refuse("reward", TINY, "--dir", tmp_path / "run", *overrides((*SETTINGS, setting)))
    assert re.search(told, line), line
    assert not (tmp_path / "run").exists()
