"""Forms: blind, filled in with a text editor, taken in whole or refused by line; corrections."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heedful.config import InputError
from heedful.store.database import Store, open_store
from heedful.store.erase import erase_user
from heedful.store.forms import write_forms
from heedful.store.jsonl import edit_jsonl, export_jsonl, import_jsonl
from heedful.store.labels import add_labeler, add_response
from heedful.store.pools import add_prompt
from heedful.store.progress import Work, progress
from heedful.store.records import is_current, select_records
from heedful.store.schema import TABLE_OF
from heedful.types import METADATA_FLAGS, Demonstration, Labeler, Prompt, Ranking, Rating, Response
from small_store import fill

RANKING = Work("ranking", round=1, pool="evaluation", purpose="evaluation")
RATING = Work("rating", round=1, pool="evaluation")
DEMONSTRATION = Work("demonstration", pool="evaluation")


@pytest.fixture
def asked(store_of: Callable[..., Store]) -> Store:
    """Two prompts, three policies' responses to each, two labelers."""
    return store_of(ask)


def ask(store: Store) -> None:
    pairs = (("Say A", "A"), ("Say B", "B"))
    add_prompt(
        store,
        Prompt(id="test-rude-0", text="Say hello", user="u0", split="test", use_case="chat", task={"gold": 1}),
        Prompt(id="test-rude-1", text="Say C", user="u1", split="test", kind="few_shot", examples=pairs),
        pool="evaluation",
    )
    for n in range(2):
        made = [Response(id=f"{m}/{n}", prompt_id=f"test-rude-{n}", text=f"hi {m[1:]}", model=m) for m in MODELS]
        add_response(store, *made, round=1)
    add_labeler(store, Labeler(id="ada"), Labeler(id="bea"))


MODELS = ("sft", "ppo", "gpt")


def forms_of(store: Store, path: Path, work: Work, labeler: str = "ada", **more: Any) -> list[dict[str, Any]]:
    write_forms(store, path, work, labeler, **more)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def save(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def current(store: Store, kind: type) -> list:
    with store.read() as connection:
        return select_records(connection, kind, is_current(TABLE_OF[kind]))


@pytest.mark.parametrize("work", [RANKING, RATING, DEMONSTRATION])
def test_a_form_shows_texts_and_nothing_of_who_wrote_them(asked: Store, tmp_path: Path, work: Work) -> None:
    forms = forms_of(asked, tmp_path / "f.jsonl", work)
    assert len(forms) == (6 if work is RATING else 2)
    assert {form["prompt"]["text"] for form in forms} == {"Say hello", "Say C"}
    assert [["Say A", "A"], ["Say B", "B"]] in [form["prompt"]["examples"] for form in forms]
    rest = (tmp_path / "f.jsonl").read_text(encoding="utf-8")
    for shown in ("hi ft", "hi po", "hi pt"):
        assert shown in rest or work is DEMONSTRATION
    for hidden in (*MODELS, "test", "rude", "chat", "gold", "u0", "few_shot", "evaluation", "train"):
        if hidden != work.purpose:  # by which guideline to judge is no secret
            assert not re.search(rf"\b{hidden}", rest), hidden


def test_a_filled_form_becomes_what_the_labeler_said(asked: Store, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    forms = forms_of(asked, path, RANKING, guideline="v2")
    assert all(set(shown["metadata"]) == set(METADATA_FLAGS) for shown in forms[0]["responses"])
    order = [shown["text"] for shown in forms[0]["responses"]]
    for shown in forms[0]["responses"]:
        shown["rank"] = {"hi ft": 1, "hi po": 2, "hi pt": 2}[shown["text"]]
    marked = forms[0]["responses"][1]
    marked["overall"] = 3
    assert set(marked["metadata"].values()) == {False}
    marked["metadata"] |= {"hallucination": True, "satisfies_constraint": None}
    forms[0] |= {"seconds": 41.5}
    forms[0]["responses"].reverse()  # the order in the file is the labeler's business
    added = import_jsonl(asked, save(path, forms))
    assert added == {"rankings": 1, "ratings": 1, "forms not filled in": 1}
    assert not import_jsonl(asked, save(path, forms[:1]))
    (ranking,), (rating,) = current(asked, Ranking), current(asked, Rating)
    texts = {response.id: response.text for response in current_responses(asked)}
    assert {texts[id]: rank for id, rank in zip(ranking.responses, ranking.rank, strict=True)} == {
        "hi ft": 1, "hi po": 2, "hi pt": 2,
    }  # fmt: skip
    assert [texts[id] for id in ranking.order] == order
    assert (ranking.labeler, ranking.purpose, ranking.guideline, ranking.seconds) == ("ada", "evaluation", "v2", 41.5)
    assert (texts[rating.response_id], rating.overall) == (order[1], 3)
    unticked = dict.fromkeys(METADATA_FLAGS, False)
    del unticked["satisfies_constraint"]  # where no constraint was set there is none to satisfy
    assert rating.flags == unticked | {"hallucination": True}
    assert (rating.guideline, rating.seconds, rating.purpose) == ("v2", None, "evaluation")
    assert (progress(asked, RANKING).done, progress(asked, RATING).done) == (1, 0)


def current_responses(store: Store) -> list[Response]:
    with store.read() as connection:
        return select_records(connection, Response)


def test_ratings_and_demonstrations_by_form(asked: Store, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    forms = forms_of(asked, path, RATING)
    forms[0]["responses"][0] |= {"overall": 7, "metadata": {"opinion": True}}
    forms[0]["seconds"] = 8
    assert import_jsonl(asked, save(path, forms)) == {"ratings": 1, "forms not filled in": 5}
    (rating,) = current(asked, Rating)
    assert (rating.overall, rating.seconds) == (7, 8)
    assert rating.flags == dict.fromkeys(METADATA_FLAGS, False) | {"opinion": True}  # what is left out is not ticked
    forms = forms_of(asked, path, DEMONSTRATION)
    forms[0]["text"], forms[1]["text"] = "Hello!", " \n"
    assert import_jsonl(asked, save(path, forms)) == {"demonstrations": 1, "forms not filled in": 1}
    (demonstration,) = current(asked, Demonstration)
    assert (demonstration.text, demonstration.prompt_id) == ("Hello!", "test-rude-0")
    assert (progress(asked, RATING).done, progress(asked, DEMONSTRATION).done) == (1, 1)


def test_each_labeler_sees_an_order_of_their_own(store: Store, tmp_path: Path) -> None:
    add_prompt(store, Prompt(id="p", text="x", user="u"))
    add_response(store, *(Response(id=f"r{n}", prompt_id="p", text=f"answer {n}") for n in range(9)))
    add_labeler(store, Labeler(id="ada"), Labeler(id="bea"))
    work = Work("ranking", overlap=2)
    orders = {
        tuple(shown["text"] for shown in forms_of(store, tmp_path / "f.jsonl", work, who)[0]["responses"])
        for who in ("ada", "bea", "ada")
    }
    assert len(orders) == 2


def rank_all(form: dict[str, Any]) -> None:
    for place, shown in enumerate(form["responses"], start=1):
        shown["rank"] = place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda form: form["responses"][0].update(rank=4), "line 2: ranks must lie in 1..3"),
        (lambda form: form["responses"][0].update(rank=None), "line 2: response [0-9a-f]{16} has no rank"),
        (lambda form: form["responses"][0].update(rank="best"), r"line 2: responses\.0\.rank: .*integer"),
        (lambda form: form["responses"][0].update(overall=8), r"line 2: responses\.0\.overall: .*7"),
        (
            lambda form: form["responses"][0].update(metadata={"violence": True}),
            "no box violence, did you mean violent",
        ),
        (lambda form: form["responses"][0]["metadata"].update(violent=True), "line 2, .*: boxes without overall"),
        (lambda form: form["responses"][0].update(alias="zz"), "line 2, responses: not as handed out"),
        (lambda form: form["responses"][0].update(text="Better"), "line 2, responses: not as handed out"),
        (lambda form: form["prompt"].update(alias="zz"), "line 2, prompt: not as handed out"),
        (lambda form: form["prompt"].update(text="Say less"), "line 2, prompt: not as handed out"),
        (lambda form: form["prompt"].update(examples=[["Say A", "B"]]), "line 2, prompt: not as handed out"),
        (lambda form: form.update(labeler="zoe"), "line 2, labeler: not as handed out"),
        (
            lambda form: form.update(labeler="hal"),
            "line 2, labeler: not as handed out",
        ),  # held out, of a training prompt
        (lambda form: form.update(purpose="evaluation"), "line 2, purpose: not as handed out"),
        (lambda form: form.pop("seal"), r"line 2, seal\.prompt: not as handed out; put back"),
        (lambda form: form.update(seconds=-1), "line 2: seconds: "),
        (lambda form: form.update(colour="red"), "line 2: colour: "),
        (lambda form: form["responses"].pop(), "line 2, responses: not as handed out"),
        (lambda form: form.update(responses=form["responses"][:1]), "line 2, responses: not as handed out"),
        (lambda form: form.update(responses=[]), "line 2, responses: not as handed out"),
        (lambda form: form["responses"].append(form["responses"][0]), "line 2, responses: not as handed out"),
        (lambda form: form.update(schema="ranking-form/2"), "line 2: schema must be one of .*ranking-form/1"),
    ],
)
def test_a_form_that_does_not_fit_is_refused_by_its_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with open_store(tmp_path / "s.db") as store:
        fill(store)
        add_labeler(store, Labeler(id="ada"))
        forms = forms_of(store, tmp_path / "f.jsonl", Work("ranking", overlap=3))
        for form in forms:
            rank_all(form)
        change(forms[1])
        with pytest.raises(InputError, match=message):
            import_jsonl(store, save(tmp_path / "f.jsonl", forms))
        assert len(current(store, Ranking)) == 9  # nothing is taken


def test_a_response_under_another_prompt_or_erased_since_is_refused(asked: Store, tmp_path: Path) -> None:
    forms = forms_of(asked, tmp_path / "f.jsonl", RANKING)
    for form in forms:
        rank_all(form)
    mixed = json.loads(json.dumps(forms))
    mixed[0]["responses"][0]["alias"] = forms[1]["responses"][0]["alias"]
    with pytest.raises(InputError, match="line 1, responses: not as handed out"):
        import_jsonl(asked, save(tmp_path / "m.jsonl", mixed))
    erase_user(asked, "u0")
    with pytest.raises(InputError, match=r"line 1: no prompt .* in this store; .* what it shows was erased"):
        import_jsonl(asked, save(tmp_path / "f.jsonl", forms))
    with open_store(tmp_path / "other.db") as other, pytest.raises(InputError, match=r"no labeler .ada.*another store"):
        import_jsonl(other, save(tmp_path / "f.jsonl", forms[1:]))
    assert import_jsonl(asked, tmp_path / "f.jsonl") == {"rankings": 1}


# Corrections.


def ranks(store: Store) -> list[tuple[str, tuple[int, ...]]]:
    return [(ranking.id, ranking.rank) for ranking in current(store, Ranking)]


def test_a_form_brought_again_replaces_what_it_said(asked: Store, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    forms = forms_of(asked, path, RANKING)[:1]
    rank_all(forms[0])
    import_jsonl(asked, save(path, forms))
    (first,) = ranks(asked)
    assert edit_jsonl(asked, path) == {"unchanged": 1}
    for shown in forms[0]["responses"]:
        shown |= {"rank": 1, "overall": 4}
    with pytest.raises(InputError, match="already stored with another rank; heedful label edit replaces it"):
        import_jsonl(asked, save(path, forms))
    assert edit_jsonl(asked, path) == {"rankings": 1, "ratings": 3}
    assert ranks(asked) == [(f"{first[0]}/v2", (1, 1, 1))]
    assert edit_jsonl(asked, path) == {"unchanged": 4}
    rank_all(forms[0])
    assert edit_jsonl(asked, save(path, forms)) == {"rankings": 1, "unchanged": 3}
    assert ranks(asked) == [(f"{first[0]}/v3", first[1])]
    with asked.read() as connection:
        assert len(select_records(connection, Ranking)) == 3  # all on record
    assert progress(asked, RANKING).done == 1


def test_an_exported_line_corrected_replaces_the_stored_one(filled: Store, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    export_jsonl(filled, path, "ranking")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    lines[0]["ranking"]["rank"] = [3, 2, 1]
    assert edit_jsonl(filled, save(path, lines)) == {"rankings": 1, "unchanged": 8}
    assert dict(ranks(filled))["ann-0/v2"] == (3, 2, 1) and "ann-0" not in dict(ranks(filled))
    lines[0]["ranking"]["rank"] = [2, 2, 1]  # the old id finds the newest version
    assert edit_jsonl(filled, save(path, lines)) == {"rankings": 1, "unchanged": 8}
    assert dict(ranks(filled))["ann-0/v3"] == (2, 2, 1)


def test_nobody_edits_what_is_not_there_or_not_theirs(filled: Store, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    export_jsonl(filled, path, "ranking")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:2]]
    lines[1]["ranking"] |= {"labeler": "bob", "rank": [2, 2, 1]}
    with pytest.raises(
        InputError, match="line 2: bob has made no judgement ann-1 of that prompt; heedful label import"
    ):
        edit_jsonl(filled, save(path, lines))
    lines[1]["ranking"] |= {"labeler": "ann", "id": "new"}
    with pytest.raises(InputError, match="line 2: ann has made no judgement new"):
        edit_jsonl(filled, save(path, lines))
    assert len(ranks(filled)) == 9 and "ann-1/v2" not in dict(ranks(filled))
