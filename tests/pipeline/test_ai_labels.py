"""An AI labeler at work by the command line: on people's comparisons, on a store, stopped and gone on with."""

import json
from pathlib import Path
from typing import Any

import pytest

from heedful import run as runs
from heedful.config import InputError
from heedful.feedback.ai.labeler import AILabeler
from heedful.pipeline import ai_labels
from heedful.run import read_done
from heedful.snapshot import read_snapshot
from heedful.store.database import open_store
from heedful.store.export import export_snapshot
from heedful.store.labels import add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt
from heedful.types import Labeler, Prompt, Ranking, Response
from public_data import folder, stories_model
from tiny import refuse, succeed

SHORT = ("a cat", "the dog ran", "a red ball lay there", "no")


@pytest.fixture
def model() -> str:
    return str(stories_model())


@pytest.fixture
def short_template(tmp_path: Path) -> str:
    """One that leaves a context of 512 tokens room."""
    path = tmp_path / "short.yaml"
    path.write_text(
        "task: short\nlanguage: en\npreamble: Which is better?\nexample: '>>>'\nfollow: '>>>'\n"
        "turn: '{prompt} {response} '\nsample: '{history}{prompt} 1: {first} 2: {second}'\n"
        "rationale_ending: 'Why:'\nending: 'Better:'\n"
        "score: {preamble: 'How good?', sample: '{history}{prompt} {response}', ending: 'Score:'}\n",
        encoding="utf-8",
    )
    return str(path)


def fill(place: Path, prompts: int = 5) -> None:
    """Prompt p0 that nobody ranked; of the others two labelers ranked the same four, one of p1 and two a pair too."""
    with open_store(place) as store:
        add_labeler(store, Labeler(id="ann"), Labeler(id="hal", group="heldout"))
        for number in range(prompts):
            prompt = Prompt(id=f"p{number}", text=f"Say {number}", user=f"u{number}")
            add_prompt(store, prompt, pool="reward_model")
            ids = tuple(f"r{number}{k}" for k in range(4))
            add_response(
                store, *(Response(id=id, prompt_id=prompt.id, text=text) for id, text in zip(ids, SHORT, strict=True))
            )
            for who in ("ann", "hal") if number else ():
                common: dict[str, Any] = {"prompt_id": prompt.id, "labeler": who}
                order = ids if who == "ann" else ids[::-1]
                add_ranking(store, Ranking(id=f"{who}{number}", responses=order, rank=(1, 2, 3, 3), **common))
                if number == 1:
                    add_ranking(store, Ranking(id=f"{who}-pair", responses=order[1:3], rank=(1, 2), **common))


def label(place: Path, out: Path, model: str, template: str, *more: object) -> str:
    return succeed("judge", "label", place, "--dir", out, "--labeler", model, "--template", template, *more)


def test_a_store_is_judged_beside_its_people(tmp_path: Path, model: str, short_template: str) -> None:
    fill(tmp_path / "store.db")
    said = label(tmp_path / "store.db", tmp_path / "judged", model, short_template)
    assert "6 sets, 60 questions" in said and "6 of 6 sets judged" in said  # p0 whole, the four, p1's pair
    with open_store(tmp_path / "store.db") as store:
        found = export_snapshot(store, heldout="include")
    name = "stories260K short.yaml"
    own = [ranking for ranking in found.rankings if ranking.labeler == name]
    assert sorted(len(ranking.responses) for ranking in own) == [2, 4, 4, 4, 4, 4]
    assert all(len(ranking.preference) in (1, 6) and ranking.purpose == "train" for ranking in own)
    assert found.labeler_by_id()[name] == Labeler(id=name, kind="ai")
    done = read_done(tmp_path / "judged")
    assert done["counts"] == {} and done["results"]["asked"]["ok"] == 60
    figures = done["results"]["figures"]
    assert figures["alignment"]["num"] == 2 * (4 * 5 + 1) and figures["same_position"]["num"] == 31
    assert figures["alignment"]["num_clusters"] == 4 and 0 <= figures["order_gap"]["mean"] <= 1
    written = read_snapshot(tmp_path / "judged" / "snapshot").rankings
    assert sorted(written, key=lambda ranking: ranking.id) == list(found.rankings)
    assert "agrees with people, both orders averaged" in succeed("judge", "report", tmp_path / "judged")
    assert succeed("judge", "report", tmp_path / "store.db") == succeed("judge", "report", tmp_path / "judged")
    before = (tmp_path / "judged" / "done.json").read_bytes()
    label(tmp_path / "store.db", tmp_path / "judged", model, short_template)  # finished: nothing is asked again
    assert (tmp_path / "judged" / "done.json").read_bytes() == before


def test_what_a_labeler_judged_before_is_not_judged_again(tmp_path: Path, model: str, short_template: str) -> None:
    fill(tmp_path / "store.db")
    label(tmp_path / "store.db", tmp_path / "one", model, short_template, "--limit", 2, "--seed", 3)
    said = label(tmp_path / "store.db", tmp_path / "two", model, short_template)
    assert "4 of 4 sets judged" in said and "2 judged_before" in said
    assert read_done(tmp_path / "one")["counts"] == {"beyond_limit": 4}
    third = refuse(
        *("judge", "label", tmp_path / "store.db", "--dir", tmp_path / "three", "--labeler", model),
        *("--template", short_template),
    )
    assert "has nothing to judge: of 6 sets of two or more responses it judged 6 before" in third


@pytest.mark.parametrize("more", [("--think", "--rationale-tokens", 12), ("--by", "scores"), ("--shots", 0)])
def test_stopped_and_gone_on_with_it_says_the_same(
    tmp_path: Path, model: str, short_template: str, more: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ai_labels, "CHUNK", 2)
    monkeypatch.setenv(runs.CHECKPOINT_VARIABLE, "0")
    for name in ("whole", "cut"):
        fill(tmp_path / f"{name}.db")
    label(tmp_path / "whole.db", tmp_path / "whole", model, short_template, *more)
    asked: list[int] = []
    judge = AILabeler.judge

    def dies(self: AILabeler, items: Any) -> Any:
        asked.append(len(items))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return judge(self, items)

    monkeypatch.setattr(AILabeler, "judge", dies)
    arguments = ("judge", "label", tmp_path / "cut.db", "--dir", tmp_path / "cut", "--labeler", model)
    refuse(*arguments, "--template", short_template, *more, code=130)
    label(tmp_path / "cut.db", tmp_path / "cut", model, short_template, *more)
    assert asked == [2, 2, 2, 2]  # the first two sets were not judged again
    whole, cut = (read_done(tmp_path / name)["results"] for name in ("whole", "cut"))
    assert whole == cut
    one, two = (read_snapshot(tmp_path / name / "snapshot") for name in ("whole", "cut"))
    assert one.rankings == two.rankings


def comparisons(name: str, number: int, place: Path) -> Path:
    """The first of a public set's human comparisons as a file of HH-RLHF's shape."""
    import gzip

    if name == "hh_rlhf":
        lines = gzip.open(folder(name) / "harmless-base_test.jsonl.gz", "rt", encoding="utf-8").read().splitlines()
    else:
        text = (folder(name) / "evals" / "438HHHEvaluations.jsonl").read_text(encoding="utf-8")
        rows = map(json.loads, text.splitlines())
        lines = [json.dumps({"chosen": row["text_correct"], "rejected": row["text_incorrect"]}) for row in rows]
    path = place / f"{name}.jsonl"
    path.write_text("\n".join(lines[:number]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "template"), [("hh_rlhf", "harmless.base.en"), ("constitutional_ai", "helpful.base.en")]
)
def test_real_comparisons_are_judged_and_what_is_too_long_is_counted(
    name: str, template: str, tmp_path: Path, model: str
) -> None:
    said = label(comparisons(name, 60, tmp_path), tmp_path / "judged", model, template)
    results, counts = read_done(tmp_path / "judged")["results"], read_done(tmp_path / "judged")["counts"]
    assert results["num_judged"] + counts["long"] == results["num_sets"] > 40
    assert results["num_judged"] > 5 and counts["long"] > 5 and "exceed the model's context" in said
    assert results["asked"]["long"] >= counts["long"]  # a set is too long in one order or in both
    alignment = results["figures"]["alignment"]
    assert alignment["num"] >= results["num_judged"] and alignment["low"] < 0.5  # it knows stories alone
    assert (tmp_path / "judged" / "store.db").exists() and "read as hh" in said


def test_an_estimate_spends_nothing(tmp_path: Path, model: str, short_template: str) -> None:
    fill(tmp_path / "store.db")
    said = label(tmp_path / "store.db", tmp_path / "judged", model, short_template, "--estimate", "--think")
    assert said.startswith("6 sets, 60 questions, ") and "60 rationales of at most 512 tokens" in said
    assert "60 questions exceed the model's context" in said  # 512 of a rationale leave no room
    assert not (tmp_path / "judged" / "done.json").exists()
    with open_store(tmp_path / "store.db") as store:
        assert not [r for r in export_snapshot(store, heldout="include").rankings if r.preference]


def other_group(place: Path) -> None:
    with open_store(place) as store:
        add_labeler(store, Labeler(id="taken", group="heldout", kind="ai"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.db"], "no store is there"),
        (["store.db", "--template", "helpfull.base.en"], "did you mean helpful.base.en"),
        (["store.db", "--shots", "1"], "1 exemplars asked for, and it has 0"),
        (["store.db", "--style", "chat"], "its tokenizer has no chat template"),
        (["store.db", "--labeler", "no/such/model/here"], "no/such/model/here"),
        (["store.db", "--name", "taken"], "taken"),
        (["store.db", "--pool", "ppo"], "has nothing to judge: of 0 sets"),
        (["odd.jsonl"], "plainly no shape"),
    ],
)
def test_what_cannot_be_judged_is_said_at_once(
    arguments: list[str], message: str, tmp_path: Path, model: str, short_template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "store.db")
    other_group(tmp_path / "store.db")
    (tmp_path / "odd.jsonl").write_text('{"colour": "red"}\n', encoding="utf-8")
    options = {"--labeler": model, "--template": short_template, "--dir": "judged"}
    place, *given = arguments
    options |= dict(zip(given[::2], given[1::2], strict=True))
    line = refuse("judge", "label", place, *(word for pair in options.items() for word in pair))
    assert message in line
    assert not (tmp_path / "judged" / "done.json").exists()


def test_reports_that_cannot_be(tmp_path: Path) -> None:
    fill(tmp_path / "store.db")
    assert "holds no rankings by an AI labeler" in refuse("judge", "report", tmp_path / "store.db")
    (tmp_path / "begun" / "items").mkdir(parents=True)
    assert "is not finished" in refuse("judge", "report", tmp_path / "begun")


def test_another_setting_needs_another_folder(tmp_path: Path, model: str, short_template: str) -> None:
    fill(tmp_path / "store.db")
    label(tmp_path / "store.db", tmp_path / "judged", model, short_template, "--limit", 2)
    line = refuse(
        *("judge", "label", tmp_path / "store.db", "--dir", tmp_path / "judged", "--labeler", model),
        *("--template", short_template, "--limit", 3),
    )
    assert "holds a run with another config" in line


def test_the_chosen_sets_are_the_same_ones_again(tmp_path: Path) -> None:
    fill(tmp_path / "store.db", prompts=9)
    with open_store(tmp_path / "store.db") as store:
        whole = export_snapshot(store, purpose=None, heldout="include")
    assert len(ai_labels.items_of(whole)) == 10
    chosen = ai_labels.to_judge(whole, ai_labels.Choice(limit=4, seed=1), "ai")
    keys = {ai_labels.set_key(item) for item in ai_labels.items_of(chosen)}
    assert len(keys) == 4 and keys <= {ai_labels.set_key(item) for item in ai_labels.items_of(whole)}
    assert {ai_labels.key_of(ranking) for ranking in chosen.rankings} <= keys
    assert chosen.dropped == {"beyond_limit": 6}
    again = ai_labels.to_judge(whole, ai_labels.Choice(limit=4, seed=1), "ai")
    other = ai_labels.to_judge(whole, ai_labels.Choice(limit=4, seed=2), "ai")
    assert again == chosen != other
    with pytest.raises(InputError, match="nothing to judge"):
        ai_labels.to_judge(ai_labels.Snapshot(), ai_labels.Choice(), "ai")
