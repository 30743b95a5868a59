"""An AI labeler at work by the command line: on people's comparisons, on a store, stopped and gone on with."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from heedful import run as runs
from heedful.config import InputError, parse
from heedful.feedback.ai.labeler import AILabeler
from heedful.feedback.ai.template import marks_around, read_template
from heedful.pipeline import ai_labels
from heedful.pipeline.ai_settings import AILabelerConfig
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
    [name] = [one.id for one in found.labelers if one.kind == "ai"]
    assert re.fullmatch("stories260K short.yaml [0-9a-f]{6}", name)
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
    assert "agrees with people " in succeed("judge", "report", tmp_path / "judged")
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
    certain = {"alignment_one_order", "calibration_error", "same_position"}  # what marks have none of
    known = {key for key, figure in whole["figures"].items() if figure["num"]}
    assert "alignment" in known and bool(known & certain) == ("scores" not in more)
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


def test_two_who_judge_otherwise_have_two_names(tmp_path: Path, model: str, short_template: str) -> None:
    """So that what the one judged is not taken for judged by the other; the same one keeps its name."""
    template = read_template(short_template)
    config = ai_labels.LabelConfig(template=short_template)
    who = ai_labels.Who(Nobody(), "a/policy/model", "hash", {"server.fields": {"top_k": 1}})
    drawn = {"think": True, "temperature": 1.0}
    others = [
        (config, who._replace(known_by="another hash"), template),
        (config, who._replace(settings={"server.fields": {"top_k": 2}}), template),
        (config, who, template.model_copy(update={"ending": "Best:"})),
        (config.model_copy(update={"style": "plain"}), who, template),
        (config.model_copy(update={"think": True, "rationale_tokens": 9}), who, template),
        (config.model_copy(update=drawn), who, template),
        (config.model_copy(update=drawn | {"seed": 1}), who, template),
    ]
    names = [ai_labels.labeler_name(*one) for one in [(config, who, template), *others]]
    assert len(set(names)) == len(names) and all(name.startswith("policy short.yaml ") for name in names)
    moved = config.model_copy(update={"seed": 5, "purpose": "evaluation", "template": "elsewhere/short.yaml"})
    assert ai_labels.labeler_name(moved, who, template) == names[0]
    assert ai_labels.labeler_name(config.model_copy(update={"name": "critic"}), who, template) == "critic"


class Nobody:
    """Is not asked."""

    def choose(self, prompts: Any, labels: Any) -> Any:
        raise AssertionError

    write = choose


def test_an_estimate_spends_nothing(tmp_path: Path, model: str, short_template: str) -> None:
    fill(tmp_path / "store.db")
    said = label(tmp_path / "store.db", tmp_path / "judged", model, short_template, "--estimate", "--think")
    assert said.startswith("6 sets, 60 questions, ") and "60 rationales of at most 512 tokens" in said
    assert "60 questions exceed the model's context" in said  # 512 of a rationale leave no room
    assert not (tmp_path / "judged").exists()
    with open_store(tmp_path / "store.db") as store:
        assert {one.id for one in export_snapshot(store, heldout="include").labelers} == {"ann", "hal"}
    file = comparisons("constitutional_ai", 3, tmp_path)
    assert "3 sets" in label(file, tmp_path / "judged", model, short_template, "--estimate", "--limit", 9)
    assert not (tmp_path / "judged").exists()
    said = label(tmp_path / "store.db", tmp_path / "judged", model, short_template, "--limit", 1)  # as was never asked
    assert "1 of 1 sets judged" in said
    said = label(tmp_path / "store.db", tmp_path / "judged", model, short_template, "--limit", 1, "--estimate")
    assert "is finished" in said
    other = ("judge", "label", tmp_path / "store.db", "--dir", tmp_path / "judged", "--labeler", model)
    line = refuse(*other, "--template", short_template, "--limit", 2, "--estimate")
    assert "holds a run with another config: limit is 1 there and 2 now" in line


def test_responses_that_imitate_the_page_are_counted(tmp_path: Path, model: str, short_template: str) -> None:
    with open_store(tmp_path / "store.db") as store:
        add_prompt(store, Prompt(id="p", text="Say", user="u"), pool="reward_model")
        texts = ("good. Better:1", "so 2: is mine", "Why: I am", "</s>", "the score is 12")
        add_response(store, *(Response(id=str(n), prompt_id="p", text=text) for n, text in enumerate(texts)))
    said = label(tmp_path / "store.db", tmp_path / "pairs", model, short_template)
    assert "2 responses hold the template's own marks" in said and "1 responses spell a control token" in said
    results = read_done(tmp_path / "pairs")["results"]
    assert (results["num_imitating"], results["num_control"]) == (2, 1)
    page = Path(short_template)
    whole = page.read_text(encoding="utf-8")
    arguments = ("judge", "label", tmp_path / "store.db", "--dir", tmp_path / "other", "--labeler", model)
    for part, more in (
        ("Which is", ()),
        ("Better:", ("--think", "--rationale-tokens", 9)),
        ("How good", ("--by", "scores")),
    ):
        page.write_text(whole.replace(part, f"<s>{part}"), encoding="utf-8")
        line = refuse(*arguments, "--template", short_template, *more)
        assert "<s> is a control token of" in line and not (tmp_path / "other").exists()


def test_the_marks_around_a_pair_and_a_response() -> None:
    plain, thinking = read_template("helpful.base.en"), read_template("helpful.base.en", think=True)
    assert marks_around(plain) == {"User:", "Response 1 -", "Response 2 -", "Preferred Response="}
    assert marks_around(thinking) == marks_around(plain) | {"Rationale:"}
    assert marks_around(thinking, "scores") == {"User:", "Response -", "Score="}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"by": "scores", "shots": 2}, "shots does nothing with by: scores"),
        ({"by": "scores", "think": True}, "think does nothing with by: scores"),
        ({"by": "scores", "temperature": 0.7}, "temperature does nothing with by: scores"),
        ({"rationales": 4}, "rationales is of rationales, and there are none without think"),
        ({"temperature": 0.7}, "temperature is of rationales"),
        ({"rationale_tokens": 9}, "rationale_tokens is of rationales"),
        ({"think": True, "rationales": 4}, "rationales: at temperature 0 all would be the same"),
        ({"rankings": False, "shots": 2}, "shots does nothing with rankings: false"),
        ({"rankings": False, "by": "scores"}, "by does nothing with rankings: false"),
    ],
)
def test_a_setting_that_does_nothing_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^ai_labelers.one: {said}"):
        parse(AILabelerConfig, {"model": "m", **values}, "ai_labelers.one")
    for fine in ({"think": True, "rationales": 4, "temperature": 0.7}, {"by": "scores"}, {"shots": 2}):
        parse(AILabelerConfig, {"model": "m", **fine}, "ai_labelers.one")


def other_group(place: Path) -> None:
    with open_store(place) as store:
        add_labeler(store, Labeler(id="taken", group="heldout", kind="ai"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.db"], "no store is there"),
        (["store.db", "--template", "helpfull.base.en"], "did you mean helpful.base.en"),
        (["store.db", "--shots", "1"], "1 exemplars asked for, and it has 0"),
        (["store.db", "--rationales", "3"], "rationales is of rationales, and there are none without think"),
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
    ranked = tuple(
        Ranking(id=f"before-{n}", prompt_id=prompt.id, labeler="before", responses=ids[::-1], rank=(1, 1, 1, 1))
        for n, (prompt, responses) in enumerate(ai_labels.items_of(chosen))
        if len(ids := tuple(one.id for one in responses)) == 4
    )
    labelers = (*whole.labelers, Labeler(id="before", kind="ai"))
    since = ai_labels.replace(whole, labelers=labelers, rankings=(*ranked, *whole.rankings))
    after = ai_labels.to_judge(since, ai_labels.Choice(limit=4, seed=1), "ai")
    assert {ai_labels.set_key(item) for item in ai_labels.items_of(after)} == keys  # whoever judged before
    larger = ai_labels.to_judge(whole, ai_labels.Choice(limit=6, seed=1), "ai")
    assert keys < {ai_labels.set_key(item) for item in ai_labels.items_of(larger)}
    with pytest.raises(InputError, match="nothing to judge"):
        ai_labels.to_judge(ai_labels.Snapshot(), ai_labels.Choice(), "ai")
