"""Rows of other tools, as those tools write them: what is read of them, and what is left out and counted."""

import dataclasses
from typing import Any

import pytest

from heedful.store.formats.item import Answer, BadRow, Item, LeftOut, Reading, Tally, Writing
from heedful.store.formats.shapes import SHAPES, detect

PLAIN = Reading()


def read(name: str, row: dict[str, Any], how: Reading = PLAIN) -> tuple[list[Item], Tally]:
    tally = Tally()
    return list(SHAPES[name].read(row, how, tally)), tally


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content} | more


USER, ANSWER = said("user", "q"), said("assistant", "a")
TREE = {
    "message_tree_id": "t1",
    "tree_state": "ready_for_export",
    "prompt": {
        "text": "q",
        "role": "prompter",
        "replies": [
            {"text": "worse", "role": "assistant", "rank": 1, "replies": [{"text": "q2", "role": "prompter"}]},
            {
                "text": "better",
                "role": "assistant",
                "rank": 0,
                "model_name": "m",
                "replies": [
                    {
                        "text": "q3",
                        "role": "prompter",
                        "replies": [
                            {"text": "x", "role": "assistant", "rank": 2},
                            {"text": "y", "role": "assistant", "rank": 0},
                            {"text": "z", "role": "assistant", "rank": None},
                            {"text": "gone", "role": "assistant", "rank": 1, "deleted": True},
                        ],
                    },
                    {"text": "q4", "role": "prompter", "replies": [{"text": "alone", "role": "assistant"}]},
                ],
            },
        ],
    },
}
ITEMS = [
    {"id": "i1", "title": "T", "body": "first"},
    {"id": "i2", "title": "T", "body": "second"},
    {"id": "i3", "title": "third"},
]


def annotated(result: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"completed_by": 7, "lead_time": 12.5, "result": [result]} | more


def ranker(value: Any) -> dict[str, Any]:
    return {"from_name": "rank", "to_name": "list", "type": "ranker", "value": {"ranker": value}}


def pairwise(side: str) -> dict[str, Any]:
    return {"from_name": "pw", "to_name": "a,b", "type": "pairwise", "value": {"selected": side}}


def test_a_tree_gives_each_ranked_set_of_replies() -> None:
    assert detect(TREE) is SHAPES["oasst"]
    items, tally = read("oasst", TREE)
    assert items == [
        Item("q", answers=(Answer("worse"), Answer("better", "m")), rank=(2, 1), user="t1"),
        Item("q3", (("q", "better"),), answers=(Answer("x"), Answer("y")), rank=(2, 1), user="t1"),
    ]
    assert +tally.left_out == {
        "deleted messages": 1,
        "replies without a rank": 1,
        "prompts with fewer than two ranked replies": 1,
    }
    with pytest.raises(BadRow, match="role"):
        read("oasst", {"message_tree_id": "t", "prompt": {"text": "q", "role": "assistant"}})
    with pytest.raises(BadRow, match=r"trees\.jsonl"):
        read("oasst", {"message_id": "m", "text": "q"})


@pytest.mark.parametrize("value", [["i2", "i1"], {"rank": ["i2", "i1"], "_": ["i3"]}, {"_": [], "any": ["i2", "i1"]}])
def test_label_studio_ranker(value: Any) -> None:
    row = {"id": 1, "data": {"prompt": "q", "items": ITEMS}, "annotations": [annotated(ranker(value))]}
    assert detect(row) is SHAPES["label-studio"]
    items, tally = read("label-studio", row)
    expected = Item("q", answers=(Answer("second"), Answer("first")), rank=(1, 2), labeler="7", seconds=12.5)
    assert items == [expected]
    assert tally.left_out["ranked items that were not placed"] == (isinstance(value, dict) and len(value["_"]))


def test_label_studio_pairwise_skips_and_buckets() -> None:
    data = {"prompt": "q", "answer1": "a", "answer2": "b", "items": ITEMS}
    row = {
        "data": data,
        "annotations": [
            annotated(pairwise("right"), completed_by={"id": 3, "email": "ann@example.org"}),
            annotated(pairwise("left"), was_cancelled=True),
            annotated(ranker({"good": ["i1"], "bad": ["i2"]})),
            annotated({"type": "choices", "value": {"choices": ["x"]}}),
            annotated(ranker(["i3"])),
        ],
    }
    items, tally = read("label-studio", row)
    assert items == [
        Item("q", answers=(Answer("a"), Answer("b")), rank=(2, 1), labeler="ann@example.org", seconds=12.5)
    ]
    assert {reason: number for reason, number in tally.left_out.items() if number} == {
        "annotations that were skipped or cancelled": 1,
        "rankings into several buckets": 1,
        "results of other controls than Ranker and Pairwise": 1,
        "annotations without a ranking or comparison": 1,
        "rankings of fewer than two placed items": 1,
    }
    renamed = {"data": {"question": "q", "answer1": "a", "answer2": "b"}, "annotations": [annotated(pairwise("left"))]}
    with pytest.raises(BadRow, match=r"--column prompt=NAME names it, one of question, answer1, answer2"):
        read("label-studio", renamed)
    assert read("label-studio", renamed, Reading({"prompt": "question"}))[0][0].rank == (1, 2)
    with pytest.raises(BadRow, match="no list of items holds all"):
        read("label-studio", {"data": data, "annotations": [annotated(ranker(["i1", "gone"]))]})


@pytest.mark.parametrize(
    "value",
    [
        ["response-2", "response-1"],
        [{"value": "response-1", "rank": 2}, {"value": "response-2", "rank": 1}],
        {"value": ["response-1", "response-2"], "rank": [2, 1]},
    ],
)
def test_argilla_rankings_keep_their_users(value: Any) -> None:
    fields = {"prompt": "q", "response-1": "a", "response-2": "b"}
    new = {"order.responses": [value, value, None], "order.responses.users": ["u1", "u2", "u3"]}
    new |= {"order.responses.status": ["submitted", "draft", "submitted"]}
    old = {"order": [{"user_id": "u1", "value": value, "status": "submitted"}]}
    for columns in (new, old):
        assert detect(fields | columns) is SHAPES["argilla"]
        items, tally = read("argilla", fields | columns)
        assert len(items) == 1 and items[0].labeler == "u1" and items[0].text == "q"
        assert {answer.text: rank for answer, rank in zip(items[0].answers, items[0].rank, strict=True)} == {
            "a": 2,
            "b": 1,
        }
        if columns is new:
            assert +tally.left_out == {"answers that are draft": 1, "answers that are empty": 1}


def test_argilla_texts_marks_and_ties() -> None:
    row = {"instruction": "q", "response": "a", "text.responses": ["mine"], "text.responses.users": ["u"]}
    row |= {"quality.responses": [6], "label.responses": ["yes"], "order.responses": [None]}
    items, tally = read("argilla", row, Reading(overall=True))
    assert items == [
        Item("q", demonstration="mine", labeler="u"),
        Item("q", answers=(Answer("a", overall=6),)),
    ]
    assert +tally.left_out == {"answers to label, a label": 1, "answers that are empty": 1}
    tied = {"prompt": "q", "a": "x", "b": "y", "o.responses": [[{"value": "a", "rank": 1}, {"value": "b", "rank": 1}]]}
    assert read("argilla", tied)[0][0].rank == (1, 1)
    with pytest.raises(BadRow, match="ranks 'c', which is no field"):
        read("argilla", {"prompt": "q", "a": "x", "o.responses": [["a", "c"]]})


def test_the_arena_keeps_ties_and_which_of_them_were_bad() -> None:
    row = {"model_a": "m1", "model_b": "m2", "winner": "tie (bothbad)", "judge": "arena_user_1"}
    row |= {"conversation_a": [USER, ANSWER], "conversation_b": [USER, said("assistant", "b")]}
    items, tally = read("arena", row)
    tie = Item("q", answers=(Answer("a", "m1"), Answer("b", "m2")), rank=(1, 1), labeler="arena_user_1")
    bad = dataclasses.replace(tie, both_bad=True)
    assert items == [bad] == read("arena", row | {"winner": "both_bad"})[0] and not tally.changed
    assert read("arena", row | {"winner": "tie"})[0] == [tie]
    for item, winner in ((tie, "tie"), (bad, "tie (bothbad)")):
        (battle,) = SHAPES["arena"].write(item, Writing(), tally)
        assert battle["winner"] == winner and read("arena", battle)[0] == [item]
    with pytest.raises(BadRow, match="winner"):
        read("arena", row | {"winner": "model_c"})
    two = [USER, ANSWER, said("user", "r"), ANSWER]
    with pytest.raises(LeftOut, match="part before"):
        read("arena", row | {"conversation_a": two, "conversation_b": [USER, said("assistant", "b"), *two[2:]]})


def test_ratings_become_ranks_and_marks_only_when_they_are_ours() -> None:
    row = {"instruction": "q", "generations": ["a", "b", None, "d"], "ratings": [4.5, 2, 1, 4.5]}
    (item,), tally = read("ultrafeedback", row)
    assert item.rank == (1, 2, 1) and all(answer.overall is None for answer in item.answers)
    assert tally.left_out == {"generations without a text or a rating": 1}
    with pytest.raises(BadRow, match=r"4\.5 is no mark"):
        read("ultrafeedback", row, Reading(overall=True))
    (item,), _ = read("ultrafeedback", row | {"ratings": [7, 2, None, 1]}, Reading(overall=True))
    assert [answer.overall for answer in item.answers] == [7, 2, 1]
    with pytest.raises(LeftOut, match="fewer than two"):
        read("ultrafeedback", row | {"ratings": [1, None, None, None]})
    with pytest.raises(BadRow, match="4 generations, 1 ratings"):
        read("ultrafeedback", row | {"ratings": [1]})


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([USER, said("assistant", None, tool_calls=[{"id": 1}])], "tool calls"),
        ([USER, said("tool", "x"), ANSWER], "tool calls"),
        ([said("user", [{"type": "image_url"}, {"type": "text", "text": "q"}]), ANSWER], "images"),
        ([said("user", [{"type": "text", "text": "q"}] * 2), ANSWER], "several text parts"),
        ([USER, USER, ANSWER], "do not alternate"),
        ([ANSWER], "do not alternate"),
        ([USER, ANSWER, said("system", "s"), USER, ANSWER], "in the middle"),
        ([USER], "end with the user"),
    ],
)
def test_conversations_without_a_place_are_left_out_whole(messages: list[Any], reason: str) -> None:
    with pytest.raises(LeftOut, match=reason):
        read("trl-messages", {"messages": messages})


def test_parts_of_text_and_other_fields_of_messages() -> None:
    parts = said("user", [{"type": "text", "text": "q"}], name="ann")
    items, tally = read("openai", {"messages": [said("developer", "s"), parts, ANSWER]})
    assert items == [Item("q", system="s", demonstration="a")]
    assert tally.changed == {"messages whose name was not read": 1}
    for row in (
        {"messages": [said("pope", "x")]},
        {"messages": []},
        {"messages": ["x"]},
        {"messages": [said("user", 1)]},
    ):
        with pytest.raises(BadRow):
            read("openai", row)


def test_binarized_feedback_is_read_though_its_prompt_is_a_text() -> None:
    row = {"prompt": "q", "chosen": [USER, ANSWER], "rejected": [USER, said("assistant", "b")], "score_chosen": 8.0}
    shape = detect(row)
    assert shape is SHAPES["trl-preference-implicit"]
    assert read(shape.name, row)[0] == [Item("q", answers=(Answer("a"), Answer("b")), rank=(1, 2))]


def test_margins_are_strengths_only_where_that_is_said() -> None:
    row = {"prompt": "q", "chosen": "a", "rejected": "b", "margin": 2}
    (item,), tally = read("trl-preference", row)
    assert item.strength is None and tally.changed.total() == 1
    assert read("trl-preference", row, Reading(strength=True))[0][0].strength == 2
    with pytest.raises(BadRow, match="no strength"):
        read("trl-preference", row | {"margin": 0.5}, Reading(strength=True))


def test_unpaired_rows_want_two_marks() -> None:
    row = {"prompt": "q", "completion": "a", "label": False}
    with pytest.raises(BadRow, match="--marks 6,2"):
        read("trl-unpaired", row)
    assert read("trl-unpaired", row, Reading(marks=(6, 2)))[0][0].answers == (Answer("a", overall=2),)
    with pytest.raises(BadRow, match="neither true nor false"):
        read("trl-unpaired", row | {"label": 1}, Reading(marks=(6, 2)))


def test_tasks_with_instances() -> None:
    row = {"instruction": "Add", "instances": [{"input": "1 1", "output": "2"}, {"input": "", "output": "?"}]}
    assert detect(row) is SHAPES["self-instruct"]
    assert read("self-instruct", row)[0] == [
        Item("Add\n\n1 1", input="1 1", demonstration="2"),
        Item("Add", demonstration="?"),
    ]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "trl-preference-text"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, "trl-preference"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}, "hh"),
        ({"prompt": "q", "completion": "a"}, "trl-completion-text"),
        ({"prompt": "q", "completion": "a", "label": True}, "trl-unpaired-text"),
        ({"messages": [USER, ANSWER]}, "trl-messages"),
        ({"conversations": []}, "sharegpt"),
        ({"instruction": "q", "input": "", "output": "a"}, "alpaca"),
        ({"instruction": "q", "output": "a", "generator": "m"}, "alpaca-eval"),
        ({"ranks": [1, 2], "responses": [{}, {}], "prompt": [USER]}, "ranking"),
        ({"text": "plain"}, None),
        ({"instruction": "q", "output": "a", "messages": [USER]}, None),
        ({}, None),
    ],
)
def test_shapes_are_recognised_where_that_is_plain(row: dict[str, Any], name: str | None) -> None:
    shape = detect(row)
    assert (shape.name if shape else None) == name


@pytest.mark.parametrize(
    "change",
    [
        {"ranks": [1]},
        {"ranks": [1, "2"]},
        {"scores": {"overall": [8, 1]}},
        {"scores": {"overall": [1]}},
        {"presented_order": [0, 2]},
        {"responses": [{"text": "a"}, {}]},
        {"active_seconds": -1},
        {"strength": 9},
        {"both_bad": True},
        {"both_bad": "yes", "ranks": [1, 1]},
        {"preference": [[0.5, 0.5], [0.5, 0.5]], "ranks": [1, 1]},
        {"preference": [[0.5]], "ranks": [1, 1]},
        {"preference": [[0.5, 1.5]], "ranks": [1, 1]},
        {"preference": [[0.5, True]], "ranks": [1, 1]},
        {"preference": "0.5", "ranks": [1, 1]},
        {"preference": [[0.9, 0.9]], "ranks": [1, 1]},
    ],
)
def test_flat_rankings_that_do_not_fit_are_broken(change: dict[str, Any]) -> None:
    row = {"prompt": [USER], "responses": [{"text": "a"}, {"text": "b"}], "ranks": [2, 1]}
    assert read("ranking", row)[0][0].rank == (2, 1)
    with pytest.raises(BadRow, match=next(iter(change))):
        read("ranking", row | change)
