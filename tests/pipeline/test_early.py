"""What would stop a run late, or make it tell of another model than it names, is refused before anybody works."""

import json
import random
import re
from pathlib import Path

import pytest

from heedful.config import InputError, read_recipe
from heedful.pipeline.labelling import check_judged
from heedful.pipeline.recipe import Recipe, build
from heedful.snapshot import Snapshot, read_snapshot
from heedful.stages.reward_model import RewardModelConfig
from heedful.store.database import open_store
from heedful.store.labels import add_demonstration, add_labeler, add_ranking
from heedful.store.progress import Work, to_label
from heedful.types import Demonstration, Labeler, LabelerGroup, Prompt, Ranking, Rating, Response
from people_recipe import text, write_prompts, write_recipe
from tiny import TINY, cli, refuse


def built(*settings: str) -> Recipe:
    return build(read_recipe(str(TINY), settings))


# Names of policies: each is a folder of the run and a row of its results.


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("ppo.variants={sft: {ptx_coef: 0}}", "two policies have one name: sft, of sft.variants and ppo.variants"),
        ("start_name=sft", "two policies have one name: sft, of start_name and sft.variants"),
        ("ppo.variants={gpt_prompted: {}}", "gpt_prompted, of ppo.variants and evaluate.prompted"),
        ("evaluate={best_of: 4, baseline: gpt}", "best_of_4, of ppo.variants and evaluate.best_of"),
        ("ppo_start=sft", "ppo_start, of ppo.variants and the last epoch of ppo_start"),
        ("sft.variants={sft: {}, ppo_init: {}, data: {}}", "sft.variants: 'data' is what a run's own folder is called"),
        ("sft.variants={sft: {}, ppo_init: {}, round-2: {}}", "sft.variants: 'round-2'"),
        ("sft.variants={sft: {}, ppo_init: {}, store.db: {}}", "sft.variants: 'store.db'"),
        ("ppo.variants={responses: {}}", "ppo.variants: 'responses' is what"),
        ("ppo.variants={choose_epoch: {}}", "ppo.variants: 'choose_epoch' is what"),
        ("start_name=judgements", "start_name: 'judgements' is what"),
        ("sft.variants={sft: {}, ppo_init: {}, a/b: {}}", "sft.variants: 'a/b' cannot name a folder; use letters"),
        ("ppo.variants={..: {}}", "ppo.variants: '..' cannot name a folder"),
        ('start_name=""', "start_name: '' cannot name a folder"),
    ],
)
def test_a_policy_has_a_name_of_its_own(setting: str, words: str) -> None:
    both = ["ppo.variants={best_of_4: {}, ppo_start: {}}"] if setting.startswith(("evaluate", "ppo_start=")) else []
    with pytest.raises(InputError, match=re.escape(words)):
        built(*both, setting)


def test_names_that_meet_nothing_are_taken() -> None:
    names = "ppo.variants={best_of_4: {}, ppo_start: {}, sft 2: {}, ptx-0.1: {}, 模型: {}, data: {}}"
    assert list(built(names).ppo) == ["best_of_4", "ppo_start", "sft 2", "ptx-0.1", "模型", "data"]
    assert built("start_name=pythia-1.4b").start_name == "pythia-1.4b"


def test_a_name_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    for dry in ([], ["--dry-run"]):
        line = refuse("run", TINY, "--set", "ppo.variants={rankings: {}}", "--dir", tmp_path / "run", *dry)
        assert "ppo.variants: 'rankings'" in line and not (tmp_path / "run").exists()


# Prompts that leave a later step without any.


def refused_at_once(folder: Path, *arguments: object) -> str:
    """The same line from the run, which leaves no folder, and from its dry run."""
    lines = {refuse("run", *arguments, "--dir", folder, *extra) for extra in (["--cores", "1"], ["--dry-run"])}
    assert not folder.exists() and len(lines) == 1, lines
    return lines.pop()


def of_one_user(path: Path, number: int) -> None:
    draw = random.Random(1)
    rows = [{"text": text(draw), "user": "one", "source": "labeler"} for _ in range(number)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_prompts_that_cannot_be_split_are_told_before_anybody_writes(tmp_path: Path) -> None:
    recipe, prompts = write_recipe(tmp_path), tmp_path / "prompts.jsonl"
    of_one_user(prompts, 12)
    line = refused_at_once(tmp_path / "run", recipe)
    assert line.startswith(f"error: {prompts}: sft needs ") and "of the 12 in the sft pool none is one" in line
    mend = 'give prompts of more users, mark those of labelers with "source": "labeler", or change intake.shares'
    assert mend in line


def test_an_empty_file_of_prompts_is_named_and_its_mend_is_taken(tmp_path: Path) -> None:
    recipe, prompts = write_recipe(tmp_path), tmp_path / "prompts.jsonl"
    prompts.write_text("", encoding="utf-8")
    line = refused_at_once(tmp_path / "run", recipe)
    assert f"{prompts}: sft needs training prompts, and the sft pool has none; give prompts" in line
    (tmp_path / "run").mkdir()  # one that stays, since it was there before
    assert refuse("run", recipe, "--dir", tmp_path / "run") == line
    write_prompts(prompts)
    assert cli("run", recipe, "--dir", tmp_path / "run", "--cores", 1).exit_code == 3


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("pools.sft=0", "pools.sft is 0: sft needs training prompts, and the sft pool has none; raise it"),
        (
            "pools.sft=1",
            "pools.sft is 1: sft needs validation prompts, and of the 1 in the sft pool none is one; raise",
        ),
        ("pools.reward_model=0", "pools.reward_model is 0: rankings needs prompts, and the reward_model pool has none"),
        ("pools.reward_model=3", "reward_model is 3: choosing an epoch of sft by score needs validation prompts"),
        ("pools.ppo=0", "pools.ppo is 0: ppo needs training prompts, and the ppo pool has none; raise it"),
        ("format.max_prompt_tokens=1", "prompts of the sft pool that sft needs is within format.max_prompt_tokens (1)"),
    ],
)
def test_pools_without_a_prompt_are_told_at_the_start(setting: str, words: str, tmp_path: Path) -> None:
    assert words in refused_at_once(tmp_path / "run", TINY, "--set", setting)


def test_a_command_of_one_stage_asks_for_no_prompts_of_later_ones(tmp_path: Path) -> None:
    settings = ["--set", "pools.ppo=0", "--set", "pools.reward_model=0", "--set", "world.document_tokens=4000"]
    assert cli("pretrain", TINY, "--dir", tmp_path / "run", *settings, "--cores", 1).exit_code == 0
    words = "rankings needs prompts"
    assert words in refuse("reward", TINY, "--dir", tmp_path / "other", *settings) and not (tmp_path / "other").exists()


# Responses over the model's context.


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            "rankings.max_new_tokens=255",
            r"rankings.max_new_tokens is 255: .* \(reward_model pool\) that exceeds .* 256;",
        ),
        (
            "ppo.max_new_tokens=250",
            r"ppo.max_new_tokens \(of ppo\) is 250: with the \d+ tokens of prompt \S+ \(ppo pool\)",
        ),
        (
            "evaluate.max_new_tokens=200",
            r"evaluate.max_new_tokens is 200: .* \(evaluation pool\) behind a prefix of \d+",
        ),
        (
            "pretrain.shape.max_position_embeddings=32",
            r"context of 32; lower format.max_prompt_tokens to 20, which leaves",
        ),
    ],
)
def test_responses_over_the_context_are_told_at_the_start(setting: str, words: str, tmp_path: Path) -> None:
    assert re.search(words, refused_at_once(tmp_path / "run", TINY, "--set", setting))


def test_people_are_not_asked_for_what_the_models_context_cannot_hold(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    line = refused_at_once(tmp_path / "run", recipe, "--set", "rankings.max_new_tokens=1000")
    found = re.search(r"with the (\d+) tokens of prompt \S+ .* context of (\d+); lower", line)
    assert found is not None and "rankings.max_new_tokens is 1000" in line


def test_both_mends_of_a_full_context_let_the_run_begin(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    line = refused_at_once(tmp_path / "run", recipe, "--set", "ppo.max_new_tokens=1000")
    context = int(line.split("context of ")[1].split(";")[0])
    setting = f"ppo.max_new_tokens={context - 4}"
    line = refused_at_once(tmp_path / "run", recipe, "--set", setting)
    left = int(line.split("lower ppo.max_new_tokens (of ppo) to ")[1].split()[0])
    refused_at_once(tmp_path / "run", recipe, "--set", f"ppo.max_new_tokens={left + 1}")
    settings = ["--set", f"ppo.max_new_tokens={left}"]
    assert cli("run", recipe, "--dir", tmp_path / "run", *settings, "--cores", 1).exit_code == 3


# Judgements that teach nothing.


def label_all(folder: Path) -> None:
    """Ada writes what is wanted; then she and Kim, who is held out, rank everything, all of it tied."""
    groups: dict[str, LabelerGroup] = {"ada": "train", "kim": "heldout"}
    with open_store(folder / "store.db") as store:
        add_labeler(store, *(Labeler(id=name, group=group) for name, group in groups.items()))
        for prompt, _ in to_label(store, Work("demonstration", pool="sft"), "ada"):
            written = Demonstration(id=f"d-{prompt.id}", prompt_id=prompt.id, text="w1 w2", labeler="ada")
            add_demonstration(store, written)
        for name in groups:
            for prompt, responses in to_label(store, Work("ranking", round=1, pool="reward_model"), name):
                ids = tuple(response.id for response in responses)
                id = f"k-{name}-{prompt.id}"
                rank = (1,) * len(ids)
                add_ranking(store, Ranking(id=id, prompt_id=prompt.id, labeler=name, responses=ids, rank=rank))


@pytest.mark.parametrize(
    ("settings", "learner"),
    [([], "reward_model"), (["reward_model=null", "ppo.variants={}", "dpo={batch_size: 4}"], "dpo")],
)
def test_rankings_without_an_order_are_told_before_they_are_frozen(
    settings: list[str], learner: str, tmp_path: Path
) -> None:
    recipe, folder, out = write_recipe(tmp_path), tmp_path / "run", tmp_path / "labels.jsonl"
    whole = ("run", recipe, "--dir", folder, "--cores", 1, *(part for one in settings for part in ("--set", one)))
    for _ in range(2):  # demonstrations, rankings
        assert cli(*whole).exit_code == 3
        label_all(folder)
    line = refuse(*whole)
    assert "rankings of training prompts all are tied throughout" in line and not list(
        folder.glob("round-1/rankings/[ds]*")
    )
    assert f"heedful label edit FILE --store {folder / 'store.db'}" in line
    assert refuse(*whole) == line
    # The mend that it names.
    assert cli("label", "export", out, "--store", folder / "store.db").exit_code == 0
    rows = [json.loads(row) for row in out.read_text(encoding="utf-8").splitlines()]
    mended = [row for row in rows if row["schema"] == "ranking/1"]
    for row in mended:
        row["ranking"]["rank"] = [1, 2, 2][: len(row["ranking"]["rank"])]
    out.write_text("".join(json.dumps(row) + "\n" for row in mended), encoding="utf-8")
    assert cli("label", "edit", out, "--store", folder / "store.db").exit_code == 0
    assert cli(*whole).exit_code in (0, 3)
    assert (folder / f"round-1/{learner}/done.json").exists()
    assert len(read_snapshot(folder / "round-1/rankings/snapshot").rankings) == len(mended)


def test_equal_marks_are_told_before_they_are_frozen(tmp_path: Path) -> None:
    """Only the training labelers' marks of training prompts are learned from: others' do not count."""
    prompts = tuple(Prompt(id=split, text=split, user=split, split=split) for split in ("train", "valid"))
    responses = tuple(Response(id=f"{p.id}{n}", prompt_id=p.id, text=f"{n}") for p in prompts for n in range(2))
    labelers = Labeler(id="ada"), Labeler(id="kim", group="heldout")
    given = [
        ("ada", "train0", 4),
        ("ada", "train1", 4),
        ("kim", "train1", 7),
        ("ada", "valid0", 1),
        ("ada", "valid1", 6),
    ]
    config = RewardModelConfig(objective="regression", target="likert")
    with open_store(tmp_path / "s.db") as store:

        def judged(*marks: tuple[str, str, int]) -> None:
            ratings = tuple(
                Rating(id=f"{who}{id}", response_id=id, prompt_id=id[:-1], labeler=who, overall=mark)
                for who, id, mark in marks
            )
            found = Snapshot(prompts=prompts, responses=responses, labelers=labelers, ratings=ratings)
            check_judged(config, found, store, tmp_path)

        with pytest.raises(InputError, match="the likert marks of 2 responses to training prompts are all equal"):
            judged(*given)
        with pytest.raises(InputError, match="of 0 responses"):
            judged()
        judged(("ada", "train0", 5), *given[1:])
