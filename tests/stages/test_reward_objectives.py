"""The reward model's other objectives, from the snapshot to the weights: soft labels, weights, regression on marks."""

import math
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean, pstdev
from zlib import crc32

import pytest
import torch

from heedful.config import InputError, parse, read_recipe
from heedful.feedback.objectives import OBJECTIVES, Learned, weight_of
from heedful.models.checkpoint import load_reward_model, save_policy
from heedful.models.heads import RewardModel
from heedful.pipeline.recipe import build
from heedful.pipeline.start import at_work
from heedful.ranks import rank_of
from heedful.run import Run, read_done, read_jsonl
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.stages.reward_model import (
    RewardModelConfig,
    backward,
    learned_from,
    main,
    objective,
    train,
    validate,
)
from heedful.text.collate import EncodedRanking, Encoder
from heedful.text.format import PromptFormat
from heedful.types import Demonstration, Labeler, Prompt, Ranking, Rating, Response
from tiny import TINY
from toys import PAD, TOKENIZER, gradients, make_policy, make_reward_model, open_run, plain_score, read_log

FORMAT = PromptFormat(template="{prompt} \n", max_prompt_tokens=20, max_response_tokens=10)
TEXTS = ["w1 w1", "w2 w3 w1", "w4"]  # of each prompt's responses
VOTES = {  # prompt → labeler → rank; `out` is held out
    "p0": {"ada": (1, 2, 3), "bob": (2, 1, 3), "out": (3, 2, 1)},
    "p1": {"ada": (1, 1, 3)},
    "p2": {"ada": (2, 2, 2), "bob": (3, 1, 2), "cleo": (3, 2, 1)},
    "v0": {"bob": (1, 2, 2)},
    "v1": {"out": (1, 2, 2)},
}
MARKS = {"p0": (7, 2, None), "p1": (None, 6, None), "p2": (4, 4, 1), "v0": (5, 1, 3), "t0": (1, 1, 1)}


def snapshot(**changes: object) -> Snapshot:
    prompts = tuple(
        Prompt(id=id, text="w0", user=id, split={"p": "train", "v": "valid", "t": "test"}[id[0]])  # type: ignore[arg-type]
        for id in (*VOTES, "t0")
    )
    found = Snapshot(
        prompts=prompts,
        responses=tuple(
            Response(id=f"{p.id}-{k}", prompt_id=p.id, text=text) for p in prompts for k, text in enumerate(TEXTS)
        ),
        labelers=(Labeler(id="ada"), Labeler(id="bob"), Labeler(id="cleo"), Labeler(id="out", group="heldout")),
        demonstrations=tuple(
            Demonstration(id=f"d{p.id}", prompt_id=p.id, text="w1 w1 w1", labeler="ada")
            for p in prompts
            if p.id != "p1"
        ),
        rankings=tuple(
            Ranking(
                id=f"{id}-{who}", prompt_id=id, labeler=who, responses=tuple(f"{id}-{k}" for k in range(3)), rank=rank
            )
            for id, given in VOTES.items()
            for who, rank in given.items()
        ),
        ratings=tuple(
            Rating(id=f"m-{id}-{k}", prompt_id=id, response_id=f"{id}-{k}", labeler="ada", overall=mark)
            for id, marks in MARKS.items()
            for k, mark in enumerate(marks)
            if mark is not None
        ),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def config(**changes: object) -> RewardModelConfig:
    return RewardModelConfig(**({"batch_size": 2, "lr": 1e-2, "precision": "fp32"} | changes))


def learned(asked: RewardModelConfig, data: Snapshot | None = None) -> Learned:
    return learned_from(asked, Encoder(TOKENIZER, FORMAT), data or snapshot(), Snapshot(), Path("data"))


# Soft labels and weights.


def shares() -> dict[tuple[str, int, int], tuple[float, int]]:
    """(prompt, i, j) → the share of training labelers who preferred i to j, ties half, and how many there are."""
    found = {}
    for id, given in VOTES.items():
        ranks = [rank for who, rank in given.items() if who != "out"]
        for i, j in combinations(range(3), 2):
            prefer = [1.0 if r[i] < r[j] else 0.5 if r[i] == r[j] else 0.0 for r in ranks]
            if prefer:
                found[id, i, j] = sum(prefer) / len(prefer), len(prefer)
    return found


def plain_soft(model: RewardModel, items: list[EncodedRanking], weigh: bool) -> torch.Tensor:
    losses = []
    for item in items:
        score, terms = [plain_score(model, row) for row in item.rows], []
        for i, j in combinations(range(3), 2):
            p, n = shares()[item.id[:2], i, j]
            gap = score[i] - score[j]
            cross_entropy = -p * gap.sigmoid().log() - (1 - p) * (1 - gap.sigmoid()).log()
            terms.append(cross_entropy / (n if weigh else 1))
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("comparison_weight", ["equal", "per_pair"])
@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_soft_labels_are_the_share_of_labelers_written_out(comparison_weight: str, max_tokens: int) -> None:
    asked = config(objective="soft", comparison_weight=comparison_weight, max_tokens=max_tokens)
    found = learned(asked)
    # A ranking without an untied pair stays: its ties are shares of one half.
    assert [item.id for item in found.train] == ["p0-ada", "p0-bob", "p1-ada", "p2-ada", "p2-bob", "p2-cleo"]
    assert [item.id for item in found.valid] == ["v0-bob"]
    assert found.dropped == {} and found.told == {"num_rankings": 6, "num_comparisons": 18}
    model = make_reward_model()
    loss, accuracy = backward(model, found.train, PAD, objective(asked), asked)
    mine = gradients(model)
    plain = plain_soft(model, found.train, comparison_weight == "per_pair")
    plain.backward()
    assert float(loss) == pytest.approx(float(plain.detach()), abs=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-5, atol=1e-5)
    # All ties can be neither right nor wrong: they are left out of the accuracy.
    untied = [item for item in found.train if len(set(item.rank)) > 1]
    alone = fmean(validate(model, [item], PAD, objective(asked), asked)[1] for item in untied)
    assert len(untied) == 5 and float(accuracy) == pytest.approx(alone, abs=1e-6)


@pytest.mark.parametrize("name", ["ranking", "hinge"])
def test_per_pair_weighs_a_comparison_by_how_many_made_it(name: str) -> None:
    equal, weighed = config(objective=name), config(objective=name, comparison_weight="per_pair")
    model = make_reward_model()
    number = {"p0": 2, "p1": 1, "p2": 3}  # labelers of the prompt; one of p2's tied all three, and counts
    per_item = {
        item.id: validate(model, [item], PAD, objective(equal), equal)[0] / number[item.id[:2]]
        for item in learned(equal).train
    }
    items = learned(weighed).train
    assert {item.id for item in items} == set(per_item) and len(items) == 5
    loss, _ = backward(model, items, PAD, objective(weighed), weighed)
    assert float(loss) == pytest.approx(fmean(per_item.values()), abs=1e-5)


def test_soft_labels_of_one_labeler_are_that_labelers_ranking() -> None:
    data = snapshot(rankings=tuple(r for r in snapshot().rankings if r.id == "p0-bob"))
    model = make_reward_model()
    found = {}
    for name in ("ranking", "soft"):
        asked = config(objective=name)
        found[name] = validate(model, learned(asked, data).train, PAD, objective(asked), asked)
    assert found["soft"] == pytest.approx(found["ranking"], abs=1e-6)


def test_what_has_no_comparisons_takes_no_weights() -> None:
    for name in ("best_of_k", "regression"):
        with pytest.raises(InputError, match=f"comparison_weight weighs comparisons, and {name} has none"):
            parse(RewardModelConfig, {"objective": name, "comparison_weight": "per_pair"}, "reward_model")


# Human and AI labels.

SURE = ((0.9, 0.7), (0.6, 0.2), (0.3, 0.3))  # what an AI labeler says of p0's responses: shares 0.8, 0.4, 0.3


def with_ai() -> Snapshot:
    """The people's rankings, and an AI labeler's of p0."""
    people, ids = snapshot(), tuple(f"p0-{k}" for k in range(3))
    said = Ranking(id="p0-ai", prompt_id="p0", labeler="ai", responses=ids, rank=rank_of(SURE, 3), preference=SURE)
    labelers, rankings = (*people.labelers, Labeler(id="ai", kind="ai")), (*people.rankings, said)
    return replace(people, labelers=labelers, rankings=rankings)


def of_item(found: Learned, id: str) -> EncodedRanking:
    return next(item for item in found.train if item.id == id)


def test_an_ai_labelers_probabilities_are_its_soft_labels() -> None:
    alone = replace(with_ai(), rankings=tuple(r for r in with_ai().rankings if r.labeler == "ai"))
    item = of_item(learned(config(objective="soft"), alone), "p0-ai")
    assert [item.share[0][1], item.share[0][2], item.share[1][2]] == pytest.approx([0.8, 0.4, 0.3])
    assert [item.share[1][0], item.share[2][0], item.share[2][1]] == pytest.approx([0.2, 0.6, 0.7])
    assert item.rank == (2, 3, 1) and not item.weight


@pytest.mark.parametrize("weight", [1.0, 0.5, 3.0])
@pytest.mark.parametrize("comparison_weight", ["equal", "per_pair"])
def test_human_and_ai_labels_mix_by_weight(weight: float, comparison_weight: str) -> None:
    asked = config(objective="soft", comparison_weight=comparison_weight, labeler_weights={"ai": weight})
    found = learned(asked, with_ai())
    people = {(0, 1): 0.5, (0, 2): 1.0, (1, 2): 1.0}  # ada and bob of p0
    total = 2 + weight
    for id, own in (("p0-ada", 1.0), ("p0-bob", 1.0), ("p0-ai", weight)):
        item = of_item(found, id)
        for (i, j), ai in zip(combinations(range(3), 2), (0.8, 0.4, 0.3), strict=True):
            assert item.share[i][j] == pytest.approx((2 * people[i, j] + weight * ai) / total)
            if comparison_weight == "per_pair":
                assert item.weight[i][j] == pytest.approx(own / total)
            elif weight == 1:
                assert not item.weight
            else:
                assert item.weight[i][j] == own
    assert of_item(found, "p1-ada").share[0][1] == 0.5  # where the AI labeler said nothing, people's word stands


def test_a_weight_is_the_pull_of_a_comparison() -> None:
    model = make_reward_model()
    plain, half = config(), config(labeler_weights={"ai": 0.5})
    losses = {
        item.id: validate(model, [item], PAD, objective(plain), plain)[0] for item in learned(plain, with_ai()).train
    }
    items = learned(half, with_ai()).train
    found = {item.id: validate(model, [item], PAD, objective(half), half)[0] for item in items}
    assert found == pytest.approx({id: loss * (0.5 if id == "p0-ai" else 1) for id, loss in losses.items()}, abs=1e-6)


def test_weights_go_by_name_before_kind_before_others() -> None:
    who = [Labeler(id="ada"), Labeler(id="bob"), Labeler(id="critic", kind="ai"), Labeler(id="other", kind="ai")]
    assert weight_of(who, {}) == {"ada": 1, "bob": 1, "critic": 1, "other": 1}
    asked = {"critic": 0.5, "ai": 2.0, "others": 0.0, "bob": 3.0}
    assert weight_of(who, asked) == {"ada": 0, "bob": 3, "critic": 0.5, "other": 2}
    with pytest.raises(InputError, match=r"labeler_weights\.critc: no labeler .* did you mean critic"):
        weight_of(who, {"critc": 1.0})


def test_votes_as_soft_labels_are_each_labeler_s_hard_ones() -> None:
    """Cross-entropy is linear in the label: the gain of soft labels is not one of several people over one."""
    model = make_reward_model()
    soft, hard = config(objective="soft"), config()

    def total(asked: RewardModelConfig) -> float:
        items = [item for item in learned(asked).train if item.id.startswith("p0")]
        return sum(validate(model, [item], PAD, objective(asked), asked)[0] for item in items)

    assert total(soft) == pytest.approx(total(hard), abs=1e-6)


def test_a_kind_of_weight_0_is_left_out_and_counted() -> None:
    found = learned(config(labeler_weights={"ai": 0}), with_ai())
    people = learned(config(labeler_weights={}))
    assert found.train == people.train and found.told == people.told
    assert found.dropped == people.dropped | {"ranking_of_no_weight": 1}
    with pytest.raises(InputError, match=r"labeler_weights\.ai: must be greater than or equal to 0"):
        parse(RewardModelConfig, {"labeler_weights": {"ai": -1}}, "reward_model")
    with pytest.raises(InputError, match="labeler_weights weigh comparisons, and best_of_k has none"):
        parse(RewardModelConfig, {"labeler_weights": {"ai": 2}, "objective": "best_of_k"}, "reward_model")


# Regression.


def test_regression_is_the_squared_error_to_scaled_marks_written_out() -> None:
    asked = config(objective="regression", target="likert", max_tokens=1)
    found = learned(asked)
    assert [(item.id, len(item.rows), item.rank) for item in found.train] == [
        ("p0", 2, (1, 2)),
        ("p1", 1, (1,)),
        ("p2", 3, (1, 1, 3)),
    ]
    marks = [7, 2, 6, 4, 4, 1]
    mean, sd = fmean(marks), pstdev(marks)
    assert found.told == pytest.approx({"num_prompts": 3, "num_marks": 6, "target_mean": mean, "target_sd": sd})
    assert found.dropped == {"response_without_mark": 3 * 5 - 6 - 3}  # of training and validation prompts
    assert [mark for item in found.train for mark in item.target] == pytest.approx([(m - mean) / sd for m in marks])
    assert found.valid[0].target == pytest.approx([(m - mean) / sd for m in (5, 1, 3)])  # on the training scale
    model = make_reward_model()
    loss, accuracy = backward(model, found.train, PAD, objective(asked), asked)
    mine = gradients(model)
    errors = []
    for item in found.train:
        own = [(plain_score(model, row) - mark) ** 2 for row, mark in zip(item.rows, item.target, strict=True)]
        errors.append(torch.stack(own).mean())
    plain = torch.stack(errors).mean()
    plain.backward()
    assert float(loss) == pytest.approx(float(plain.detach()), abs=1e-5)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-5, atol=1e-5)
    right = []
    for item in (found.train[0], found.train[2]):  # a single response, p1's, is in no order
        score = [float(plain_score(model, row).detach()) for row in item.rows]
        pairs = [(i, j) for i in range(len(score)) for j in range(len(score)) if item.rank[i] < item.rank[j]]
        right.append(fmean(score[i] > score[j] for i, j in pairs))
    assert float(accuracy) == pytest.approx(fmean(right), abs=1e-6)


@pytest.mark.parametrize("target", ["likert", "good_bad", "bleu", "rouge_l"])
def test_it_learns_the_marks(target: str, tmp_path: Path) -> None:
    asked = config(objective="regression", target=target, epochs=40, lr=2e-2)
    found, model = learned(asked), make_reward_model()
    before = validate(model, found.train, PAD, objective(asked), asked)[0]
    train(asked, model, found.train, [], PAD, open_run(tmp_path))
    after, accuracy = validate(model, found.train, PAD, objective(asked), asked)
    assert before > 0.5 and after < 0.7 * before  # the same text has other marks elsewhere: never 0
    assert accuracy > 0.7 or target == "good_bad"


@pytest.mark.parametrize(
    ("target", "changes", "message"),
    [
        ("likert", {"ratings": ()}, "data: reward_model.target is likert, but no response has a mark from a training"),
        ("bleu", {"demonstrations": ()}, "data: reward_model.target is bleu, but no prompt with responses has a demon"),
        (
            "likert",
            {"ratings": tuple(r for r in snapshot().ratings if r.prompt_id in ("v0", "p1"))},
            "data: the training responses have no two different likert marks to learn from",
        ),
    ],
)
def test_nothing_to_regress_on_is_said(target: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        learned(config(objective="regression", target=target), snapshot(**changes))


# From files to files.


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "hinge", "comparison_weight": "per_pair"},
        {"objective": "best_of_k"},
        {"objective": "soft"},
        {"objective": "soft", "comparison_weight": "per_pair"},
        *({"objective": "regression", "target": target} for target in ("likert", "good_bad", "bleu", "rouge_l")),
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_main_with_each_objective(settings: dict[str, object], tmp_path: Path) -> None:
    save_policy(tmp_path / "start", make_policy(), TOKENIZER, {})
    asked = config(**settings)
    write_snapshot(tmp_path / "data", snapshot())
    run = Run.open(tmp_path / "rm", "reward_model", asked.model_dump(), 0)
    main(asked, run, tmp_path / "start", tmp_path / "data", tmp_path / "data", FORMAT)
    results = read_done(run.folder)["results"]
    assert 0 <= results["valid_accuracy"] <= 1 and results["valid_loss"] > 0
    assert abs(results["demonstration_score_mean"]) < 1e-6
    assert all(math.isfinite(row["loss"]) and math.isfinite(row["valid_loss"]) for row in read_log(run.folder)[-1:])
    assert len(read_jsonl(run.folder / "samples.jsonl")) == 1
    load_reward_model(run.folder / "model")


def test_the_figures_at_the_end_are_equation_1s_for_every_objective(tmp_path: Path) -> None:
    save_policy(tmp_path / "start", make_policy(), TOKENIZER, {})
    write_snapshot(tmp_path / "data", snapshot())
    found = []
    for settings in ({}, {"objective": "hinge"}, {"objective": "soft", "comparison_weight": "per_pair"}):
        asked = config(**settings, lr=1e-12)  # so small that all end where they began
        run = Run.open(tmp_path / f"rm-{len(found)}", "reward_model", asked.model_dump(), 0)
        main(asked, run, tmp_path / "start", tmp_path / "data", None, FORMAT)
        found.append(read_done(run.folder)["results"]["valid_loss"])
    assert found == pytest.approx([found[0]] * 3, abs=1e-6)


# Through a recipe.

CHEAP = ["evaluate.prompted=false", "ppo.variants={ppo: {ptx_coef: 0}}", "world.document_tokens=6000"]
CHEAP += ["sft.variants={sft: {epochs: 1}, ppo_init: {epochs: 1}}", "pools.reward_model=12"]
JUDGED = ["labelers.ratings=true", "labelers.references=true"]


@pytest.fixture(scope="module")
def judged_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run up to its first reward model, in which people ranked, rated and wrote references."""
    folder = tmp_path_factory.mktemp("judged") / "run"
    with at_work(build(read_recipe(str(TINY), [*CHEAP, *JUDGED])), folder, cores=1) as loop:
        loop.prepare()
        loop.pretrain()
        loop.demonstrate()
        loop.fine_tune()
        loop.collect(1)
    return folder


def spread(place: Path) -> None:
    """Draw the marks of a snapshot anew: what an untrained model writes is bad throughout."""
    found = read_snapshot(place)
    marks = [rating.model_copy(update={"overall": 1 + crc32(rating.id.encode()) % 7}) for rating in found.ratings]
    shutil.rmtree(place)
    write_snapshot(place, replace(found, ratings=tuple(marks)))


def test_ratings_and_references_are_collected_beside_the_rankings(judged_run: Path) -> None:
    found = read_snapshot(judged_run / "round-1" / "rankings" / "snapshot")
    assert {rating.response_id for rating in found.ratings} == {response.id for response in found.responses}
    groups = {labeler.id: labeler.group for labeler in found.labelers}
    assert {groups[rating.labeler] for rating in found.ratings} == {"train"}
    assert {d.prompt_id for d in found.demonstrations} == {response.prompt_id for response in found.responses}


@pytest.mark.parametrize(
    "settings",
    [
        ["objective=soft", "comparison_weight=per_pair"],
        ["objective=hinge"],
        *(["objective=regression", f"target={target}"] for target in ("likert", "good_bad", "bleu", "rouge_l")),
    ],
    ids=" ".join,
)
def test_each_objective_is_reached_from_a_recipe(settings: list[str], judged_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(judged_run, tmp_path / "run"))
    (folder / "recipe.json").unlink()  # the steps so far are those of this recipe too
    spread(folder / "round-1" / "rankings" / "snapshot")
    folds = 2 * ({"target=likert", "target=bleu"} & set(settings) != set())
    sets = [*CHEAP, *JUDGED, *(f"reward_model.{setting}" for setting in settings), f"reward_model_folds={folds}"]
    with at_work(build(read_recipe(str(TINY), sets)), folder, cores=1) as loop:
        loop.reward(1)
    done = read_done(folder / "round-1" / "reward_model")["results"]
    assert ("num_marks" in done) == ("objective=regression" in settings)
    load_reward_model(folder / "round-1" / "reward_model" / "model")
    assert len(list((folder / "round-1" / "folds").glob("scores-*/done.json"))) == folds


@pytest.mark.parametrize(("target", "wanted"), [("likert", "ratings"), ("rouge_l", "references")])
def test_a_recipe_without_marks_is_refused_before_any_labelling(target: str, wanted: str) -> None:
    sets = ["reward_model.objective=regression", f"reward_model.target={target}"]
    with pytest.raises(InputError, match=f"reward_model.target {target} needs .*; set labelers.{wanted}=true"):
        build(read_recipe(str(TINY), sets))
    build(read_recipe(str(TINY), [*sets, f"labelers.{wanted}=true"]))


def test_every_objective_is_a_function_of_its_name() -> None:
    fields = RewardModelConfig.model_fields
    assert list(OBJECTIVES) == list(fields["objective"].annotation.__args__)  # type: ignore[union-attr]
