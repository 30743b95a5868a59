"""Adding, adding again, editing, refusing; what is still to be labelled."""

import pytest

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.labels import (
    add_demonstration,
    add_labeler,
    add_ranking,
    add_rating,
    add_response,
    edit,
)
from heedful.store.pools import add_prompt
from heedful.store.progress import Work, progress, to_label
from heedful.store.records import is_current, make_record, select_entries, select_records
from heedful.store.schema import TABLE_OF
from heedful.types import Demonstration, Labeler, Prompt, Ranking, Rating, Response
from small_store import ranking

NASTY = 'commas, "quotes", =, line\nbreaks, \u2028, tabs\t, שלום, 中文, 😀, \\, \x1b, \ufeff'


def stored(store: Store, kind: type) -> list:
    with store.read() as connection:
        return select_records(connection, kind)


def test_records_come_back_as_they_went_in(store: Store) -> None:
    records = [
        Prompt(id=NASTY, text=NASTY, user=NASTY, kind="few_shot", source="labeler", use_case="chat", split="valid",
               examples=((NASTY, "1"), ("2", NASTY)), task={"b": [1, 2.5, None], "a": {"x": NASTY}}),
        Labeler(id=NASTY, group="heldout", kind="ai"),
        Response(id="r2", prompt_id=NASTY, text=NASTY, model=NASTY, finished=False, tokens=(5, 2), tokenizer="t"),
        Response(id="r1", prompt_id=NASTY, text="x"),
        Demonstration(id="d", prompt_id=NASTY, text=NASTY, labeler=NASTY, guideline="v2", seconds=0.1),
        Rating(id="g", prompt_id=NASTY, response_id="r1", labeler=NASTY, overall=7, flags={"b": True, "a": False}),
        Ranking(id="k", prompt_id=NASTY, labeler=NASTY, responses=("r2", "r1"), rank=(1, 1), order=("r1", "r2"),
                purpose="evaluation", guideline="v3", seconds=1 / 3),
        Ranking(id="l", prompt_id=NASTY, labeler=NASTY, responses=("r1", "r2"), rank=(2, 1)),
    ]  # fmt: skip
    add = {Prompt: add_prompt, Labeler: add_labeler, Response: add_response, Demonstration: add_demonstration,
           Rating: add_rating, Ranking: add_ranking}  # fmt: skip
    for record in records:
        assert add[type(record)](store, record) == 1
    for record in records:
        assert record in stored(store, type(record))
    assert list(stored(store, Rating)[0].flags) == ["b", "a"]


def test_adding_again_changes_nothing(filled: Store) -> None:
    before = stored(filled, Ranking)
    assert add_ranking(filled, *before, before[0]) == 0
    assert stored(filled, Ranking) == before


@pytest.mark.parametrize("change", [{"rank": (3, 2, 1)}, {"seconds": 3.0}, {"order": ()}, {"guideline": "v2"}])
def test_another_content_under_a_taken_id_is_refused(filled: Store, change: dict) -> None:
    other = stored(filled, Ranking)[0].model_copy(update=change)
    with pytest.raises(InputError, match=f"ranking ann-0 is already stored with another {next(iter(change))}"):
        add_ranking(filled, ranking("new", 0, "ann"), other)
    assert len(stored(filled, Ranking)) == 9  # all or nothing


def test_a_batch_that_contradicts_itself_is_refused(filled: Store) -> None:
    with pytest.raises(InputError, match="given twice with different content"):
        add_ranking(filled, ranking("new", 0, "ann"), ranking("new", 0, "ann", (3, 2, 1)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (ranking("x", 9, "ann"), "no prompt p9"),
        (ranking("x", 0, "zoe"), "no labeler zoe"),
        (ranking("x", 0, "ann").model_copy(update={"responses": ("r00", "zz", "r01"), "order": ()}), "no response zz"),
        (ranking("x", 0, "ann").model_copy(update={"prompt_id": "p1"}), "r00 answers prompt p0, not p1"),
    ],
)
def test_a_ranking_must_fit_what_is_stored(filled: Store, record: Ranking, message: str) -> None:
    with pytest.raises(InputError, match=message):
        add_ranking(filled, record)


def test_other_bad_input(filled: Store) -> None:
    with pytest.raises(InputError, match="response e is empty"):
        add_response(filled, Response(id="e", prompt_id="p0", text=" \n"))
    with pytest.raises(InputError, match="responses: n: text holds a NUL"):
        add_response(filled, Response(id="n", prompt_id="p0", text="a\0b"))
    with pytest.raises(InputError, match="demonstration d is empty"):
        add_demonstration(filled, Demonstration(id="d", prompt_id="p0", text=" ", labeler="ann"))
    with pytest.raises(InputError, match="answers prompt p1, not p0"):
        add_rating(filled, Rating(id="g", prompt_id="p0", response_id="r10", labeler="ann", overall=3))
    with pytest.raises(InputError, match="labeler hal is already stored with another group"):
        add_labeler(filled, Labeler(id="hal", group="train"))
    with pytest.raises(InputError, match="user u0 would stand in two splits, train and test"):
        add_prompt(filled, Prompt(id="q", text="x", user="u0", split="test"))
    with pytest.raises(InputError, match=r"line 3: responses: .*at least 2"):
        make_record(Ranking, {"id": "k", "prompt_id": "p", "labeler": "a", "responses": ("r",), "rank": (1,)}, "line 3")


def test_an_edit_supersedes_and_the_old_one_stays(filled: Store) -> None:
    new = ranking("ann-0b", 0, "ann", (3, 2, 1))
    assert edit(filled, new, "ann-0") == 1
    assert edit(filled, new, "ann-0") == 0
    newest = ranking("ann-0c", 0, "ann", (2, 2, 1))
    assert edit(filled, newest, "ann-0b") == 1
    table = TABLE_OF[Ranking]
    with filled.read() as connection:
        current = select_records(connection, Ranking, is_current(table), table.c.labeler == "ann")
        rows = select_entries(connection, Ranking, table.c.labeler == "ann")
    assert [r.id for r in current] == ["ann-0c", "ann-1", "ann-2"]
    assert {r.id: row["supersedes"] for r, row in rows}.items() >= {"ann-0b": "ann-0", "ann-0c": "ann-0b"}.items()


@pytest.mark.parametrize(
    ("record", "supersedes", "message"),
    [
        (ranking("x", 0, "ann"), "nothing", "no nothing to supersede"),
        (ranking("x", 0, "bob"), "ann-0", "another labeler"),
        (ranking("x", 1, "ann"), "ann-0", "another labeler's or prompt's"),
        (ranking("x", 2, "ann"), "ann-2", "already superseded by ann-2b"),
    ],
)
def test_edits_that_are_refused(filled: Store, record: Ranking, supersedes: str, message: str) -> None:
    edit(filled, ranking("ann-2b", 2, "ann"), "ann-2")
    with pytest.raises(InputError, match=message):
        edit(filled, record, supersedes)


def test_progress_counts_wanted_judgements_once(filled: Store) -> None:
    add_labeler(filled, Labeler(id="cy"))
    assert str(progress(filled, Work("ranking", overlap=2))) == "6 of 6 rankings"
    assert str(progress(filled, Work("ranking", overlap=1))) == "3 of 3 rankings"  # the second ones are extra
    assert str(progress(filled, Work("ranking", overlap=3))) == "6 of 9 rankings"
    assert str(progress(filled, Work("ranking", group="heldout"))) == "1 of 1 rankings by held-out labelers"
    assert str(progress(filled, Work("ranking", purpose="evaluation"))) == "0 of 3 rankings"
    assert str(progress(filled, Work("ranking", pool="sft"))) == "0 of 0 rankings"
    edit(filled, ranking("ann-0b", 0, "ann"), "ann-0")
    add_ranking(filled, ranking("again", 0, "ann"))
    assert str(progress(filled, Work("ranking", overlap=3))) == "6 of 9 rankings"


def test_the_next_round_counts_its_own(filled: Store) -> None:
    add_response(filled, *(Response(id=f"s{i}", prompt_id="p0", text="new") for i in range(2)), round=1)
    add_response(filled, Response(id="s9", prompt_id="p1", text="alone, nothing to rank"), round=1)
    assert str(progress(filled, Work("ranking", round=1))) == "0 of 1 rankings"
    add_ranking(filled, Ranking(id="n", prompt_id="p0", labeler="ann", responses=("s0", "r00"), rank=(1, 2)))
    assert str(progress(filled, Work("ranking", round=1))) == "1 of 1 rankings"
    assert str(progress(filled, Work("ranking", overlap=3))) == "6 of 9 rankings"


def test_what_is_still_to_label(filled: Store) -> None:
    add_labeler(filled, Labeler(id="cy"), Labeler(id="hy", group="heldout"))
    add_prompt(filled, Prompt(id="p3", text="one response", user="u3"), pool="reward_model")
    add_response(filled, Response(id="r30", prompt_id="p3", text="x"))
    assert to_label(filled, Work("ranking", overlap=2), "cy") == []
    open_items = to_label(filled, Work("ranking", overlap=3), "cy", limit=2)
    assert [(prompt.id, [r.id for r in rs]) for prompt, rs in open_items] == [
        ("p0", ["r00", "r01", "r02"]),
        ("p1", ["r10", "r11", "r12"]),
    ]
    assert to_label(filled, Work("ranking", overlap=3), "ann") == []
    assert to_label(filled, Work("ranking", overlap=1), "hy") == []  # hal did them; hy is of the same group
    add_rating(filled, Rating(id="g", prompt_id="p0", response_id="r00", labeler="ann", overall=4))
    rest = to_label(filled, Work("rating"), "cy")
    assert len(rest) == 9 and (rest[0][0].id, rest[0][1][0].id) == ("p0", "r01")
    written = to_label(filled, Work("demonstration"), "cy")
    assert [(prompt.id, responses) for prompt, responses in written] == [(f"p{i}", ()) for i in range(4)]
    with pytest.raises(InputError, match="no labeler zoe"):
        to_label(filled, Work("ranking"), "zoe")
