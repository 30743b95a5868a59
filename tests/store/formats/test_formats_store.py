"""Files into a store and out of it: twice is once, a prompt in one split, training without held-out judgements."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heedful.config import InputError
from heedful.store.database import Store, open_store
from heedful.store.erase import erase_labeler, erase_user
from heedful.store.export import export_snapshot
from heedful.store.formats.convert import convert
from heedful.store.formats.give_out import Choice, Given, export_file
from heedful.store.formats.item import Reading, Writing
from heedful.store.formats.reading import Source, shape_of
from heedful.store.formats.shapes import SHAPES
from heedful.store.formats.take_in import Placing, Taken, import_file
from heedful.store.labels import add_labeler, add_rating, add_response, edit
from heedful.store.pools import add_prompt
from heedful.types import Labeler, Prompt, Rating, Response
from small_store import fill, ranking

SYSTEM, GAPS = "Be\n\nbrief.", "a\n\nb\n\nc"


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def take(store: Store, path: Path, shape: str | None = None, placing: Placing | None = None, **more: Any) -> Taken:
    return import_file(store, Source(path, shape_of(path, shape), **more), placing)


def said(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def pair(prompt: list[dict[str, str]], chosen: str, rejected: str) -> dict[str, Any]:
    answers = {"chosen": chosen, "rejected": rejected}
    return {"prompt": prompt} | {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}


def pairs(number: int) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": SYSTEM}]
    rows = [pair(said(f"q{n}", GAPS, f"r{n}"), f"好 {n}\u2028", f'=1,\n"{n}"') for n in range(number)]
    return rows + [pair(system + said(f"q{n}"), "a", "a ") for n in range(number)]


def content(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps({k: row[k] for k in ("prompt", "chosen", "rejected")}) for row in rows)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_twice_is_once_and_an_export_makes_the_same_export(
    store: Store, new_place: Callable[[], str], tmp_path: Path
) -> None:
    path = write(tmp_path / "in.jsonl", [*pairs(20), *pairs(1)])
    first = take(store, path)
    assert first.new == {"prompts": 40, "labelers": 1, "responses": 80, "rankings": 40} and first.known == 2
    assert not take(store, path, placing=Placing(split="train", pool="ppo")).new
    export_file(store, tmp_path / "one.jsonl", SHAPES["trl-preference"])
    assert content(lines(tmp_path / "one.jsonl")) == content(pairs(20))
    with open_store(new_place()) as other:
        take(other, tmp_path / "one.jsonl")
        export_file(other, tmp_path / "two.jsonl", SHAPES["trl-preference"])
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("shape", "row"),
    [
        ("trl-messages", {"messages": [{"role": "system", "content": SYSTEM}, *said("q", GAPS, "r", "a\r")]}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "👍"}]}),
        ("trl-completion", {"prompt": said("q"), "completion": [{"role": "assistant", "content": "a"}]}),
        ("trl-completion-text", {"prompt": "q", "completion": " a"}),
        ("alpaca", {"instruction": GAPS, "input": GAPS, "output": "a", "system": SYSTEM, "history": [["q", "r"]]}),
        ("hh", {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}),
        ("alpaca-eval", {"instruction": "q", "output": "a", "generator": "m"}),
        (
            "ultrafeedback",
            {"instruction": "q", "generations": ["a", "b"], "ratings": [2.0, 6.0], "generation_models": ["", "m"]},
        ),
        ("trl-unpaired-text", {"prompt": "q", "completion": "a", "label": False}),
    ],
)
def test_rows_come_out_of_the_store_as_they_went_in(tmp_path: Path, shape: str, row: dict[str, Any]) -> None:
    path, out = write(tmp_path / "in.jsonl", [row]), tmp_path / "out.jsonl"
    with open_store(tmp_path / "s.db") as store:
        taken = take(store, path, how=Reading(overall=True, marks=(6, 2)))
        assert taken.read.shape is SHAPES[shape]
        export_file(store, out, SHAPES[shape])
    assert lines(out) == [row]


def test_broken_rows_refuse_the_file_or_are_listed(tmp_path: Path) -> None:
    rows = [*pairs(2), {"prompt": 1}, *pairs(3)[2:], pair(said("q"), "x\0", "y"), pair(said("q"), "\ud800", "y")]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n{", encoding="utf-8")
    with open_store(tmp_path / "s.db") as store:
        with pytest.raises(InputError) as refused:
            take(store, path)
        for part in (
            "4 of 12 rows broken",
            "line 5: prompt",
            "line 10: a text holds a NUL",
            "line 11: ",
            "line 12: not",
        ):
            assert part in str(refused.value)
        assert export_snapshot(store).prompts == ()
        taken = take(store, path, broken="skip")
        assert len(taken.read.broken) == 4 and taken.new["rankings"] == 6
        assert any(line.endswith("line 5: prompt: no text") for line in taken.lines())


def test_all_of_one_opening_or_user_stands_in_one_split(tmp_path: Path) -> None:
    rows = [pair(said(f"open {n}", "a", "go on"), "x", "y") | {"who": f"u{n % 30}"} for n in range(150)]
    rows += [pair(said(f"open {n}"), "x", "y") | {"who": f"u{n % 30}"} for n in range(150)]
    path = write(tmp_path / "in.jsonl", rows)
    with open_store(tmp_path / "a.db") as store, open_store(tmp_path / "b.db") as other:
        take(store, path)
        by_opening: dict[str, set[str]] = {}
        found = export_snapshot(store).prompts
        for prompt in found:
            by_opening.setdefault((prompt.examples or ((prompt.text, ""),))[0][0], set()).add(prompt.split)
        assert len(by_opening) == 150 and all(len(splits) == 1 for splits in by_opening.values())
        assert set(Counter(prompt.split for prompt in found)) == {"train", "valid", "test"}
        take(other, path, user="who")
        splits: dict[str, set[str]] = {}
        for prompt in export_snapshot(other).prompts:
            splits.setdefault(prompt.user, set()).add(prompt.split)
        assert set(splits) == {f"u{n}" for n in range(30)} and all(len(found) == 1 for found in splits.values())
    with open_store(tmp_path / "c.db") as store:
        taken = take(store, path, placing=Placing(split="test"), labeler="who")
        assert {prompt.split for prompt in export_snapshot(store).prompts} == {"test"} and taken.new["labelers"] == 30
        with pytest.raises(InputError, match="two splits"):
            take(
                store,
                write(tmp_path / "more.jsonl", [pair(said("open 1", "b", "c"), "x", "y")]),
                placing=Placing(split="train"),
            )


def test_a_labeler_keeps_the_group_they_have(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", pairs(1))
    with open_store(tmp_path / "s.db") as store:
        add_labeler(store, Labeler(id="hal", group="heldout"))
        take(store, path, placing=Placing(labeler="hal"))
        given = export_file(store, tmp_path / "out.jsonl", SHAPES["trl-preference"])
        assert given.rows == 0 and given.tally.left_out == {"rankings by held-out labelers": 2}
        with pytest.raises(InputError, match="of the heldout group in the store, not train"):
            take(store, write(tmp_path / "b.jsonl", pairs(2)), placing=Placing(labeler="hal", group="train"))


def give(store: Store, path: Path, shape: str, how: Writing = Writing(), **choice: Any) -> Given:  # noqa: B008
    return export_file(store, path, SHAPES[shape], Choice(**choice), how)


def test_an_export_leaves_out_what_is_not_for_it_and_counts_it(filled: Store, tmp_path: Path) -> None:
    from heedful.store.labels import add_ranking

    add_ranking(filled, ranking("ev", 0, "ann", purpose="evaluation"), ranking("tie", 1, "bob", (1, 1, 2)))
    edit(filled, ranking("ann-0b", 0, "ann", (2, 1, 1)), "ann-0")
    out = tmp_path / "out.jsonl"
    given = give(filled, out, "trl-preference-text")
    assert given.tally.left_out == {
        "rankings for another purpose (--purpose)": 1,
        "rankings by held-out labelers": 3,
        "tied pairs": 2,
    }
    rows = lines(out)
    groups = [row["group_id"] for row in rows]
    assert (
        groups
        == ["ann-0b"] * 2 + ["bob-0"] * 3 + ["ann-1"] * 3 + ["bob-1"] * 3 + ["tie"] * 2 + ["ann-2"] * 3 + ["bob-2"] * 3
    )
    assert [(row["chosen"], row["rejected"]) for row in rows[:2]] == [("Ja 1", "Ja 0"), ("Ja 2", "Ja 0")]
    given = give(filled, out, "trl-preference-text", split="train", round=0, pool="reward_model")
    assert given.tally.left_out["rankings of the valid split (--split)"] == 2
    for refused in ({"heldout": True}, {"heldout": True, "purpose": None}):
        with pytest.raises(InputError, match="with --heldout goes --purpose evaluation"):
            give(filled, out, "trl-preference-text", **refused)
    given = give(filled, out, "ranking", purpose="evaluation", heldout=True)
    assert [row["id"] for row in lines(out)] == ["ev"] and given.rows == 1
    first = out.read_bytes()
    give(filled, out, "ranking", purpose="evaluation", heldout=True)
    assert out.read_bytes() == first
    with pytest.raises(InputError, match="holds no ratings"):
        give(filled, out, "hh", kind="rating")
    with pytest.raises(InputError, match="only read"):
        give(filled, out, "oasst")


def test_ratings_give_margins_labels_and_feedback(filled: Store, tmp_path: Path) -> None:
    for position, mark in enumerate((6, 4, 2)):
        marked = {"prompt_id": "p0", "response_id": f"r0{position}", "overall": mark}
        add_rating(filled, Rating(id=f"g{position}", labeler="ann", **marked))
        add_rating(filled, Rating(id=f"h{position}", labeler="hal", **marked))
    out = tmp_path / "out.jsonl"
    given = give(filled, out, "trl-preference-text", Writing("rating"), split="train")
    assert [row["margin"] for row in lines(out)] == [2, 4, 2]
    assert given.tally.left_out["pairs without a rating to take the margin from"] == 9
    given = give(filled, out, "trl-unpaired-text", Writing(threshold=4))
    assert [row["label"] for row in lines(out)] == [True, True, False]
    assert given.tally.left_out == {"ratings by held-out labelers": 3}
    give(filled, out, "ultrafeedback")
    assert [row["ratings"] for row in lines(out)] == [[6, 4, 2]]
    give(filled, out, "ranking")
    assert lines(out)[0]["scores"]["overall"] == [6, 4, 2]


def test_responses_go_out_for_outside_judges(filled: Store, tmp_path: Path) -> None:
    add_response(filled, Response(id="zz", prompt_id="p1", text="new", model="sft"))
    give(filled, tmp_path / "out.json", "alpaca-eval", split="train")
    rows = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert len(rows) == 7 and rows[-1] == {"instruction": "Say 1, 说“好”\u2028😀", "output": "new", "generator": "sft"}


def test_a_folder_keeps_splits(tmp_path: Path) -> None:
    with open_store(tmp_path / "a.db") as store, open_store(tmp_path / "b.db") as other:
        fill(store)
        give(store, tmp_path / "data", "trl-preference")
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["train.jsonl", "validation.jsonl"]
        take(other, tmp_path / "data", placing=Placing(split="keep"))
        assert sorted((p.text, p.split) for p in export_snapshot(other).prompts) == sorted(
            (p.text, p.split) for p in export_snapshot(store).prompts
        )


def test_what_was_erased_stays_out_and_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", pairs(3))
    with open_store(tmp_path / "s.db") as store:
        take(store, path)
        gone = export_snapshot(store).prompts[0]
        erase_user(store, gone.user)
        taken = take(store, path)
        assert not taken.new and taken.known == 5
        assert taken.read.tally.left_out["rankings erased on request, or of what was"] == 1
        erase_labeler(store, "imported")
        taken = take(store, path)
        assert set(taken.new) <= {"prompts", "responses"}
        assert taken.read.tally.left_out["rankings erased on request, or of what was"] == 6


def test_a_prompt_of_intake_is_found_again(tmp_path: Path) -> None:
    from heedful.store.incoming import IncomingPrompt

    row = {"prompt": "q", "chosen": "a", "rejected": "b", "who": "u"}
    with open_store(tmp_path / "s.db") as store:
        own = IncomingPrompt(id="", text="q", user="u", split="valid").plain()
        add_prompt(store, own, pool="ppo")
        taken = take(store, write(tmp_path / "in.jsonl", [row]), user="who")
        assert "prompts" not in taken.new and export_snapshot(store).prompts == (own,)


def test_texts_that_stand_twice_in_a_ranking_are_two_responses(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "a"}] * 2)
    with open_store(tmp_path / "s.db") as store:
        assert take(store, path).new == {"prompts": 1, "labelers": 1, "responses": 2, "rankings": 1}


def test_a_prompts_system_is_taken_apart_only_where_it_stands(tmp_path: Path) -> None:
    from heedful.store.formats.give_out import asked_of

    for task in ({"format": {"system": "S", "input": "I"}}, {"format": 3}, {}):
        prompt = Prompt(id="p", text="other text", user="u", task=task)
        assert asked_of(prompt) == {"text": "other text", "examples": (), "system": "", "input": ""}
    prompt = Prompt(id="p", text="S\n\nq\n\nI", user="u", task={"format": {"system": "S", "input": "I"}})
    assert asked_of(prompt) == {"text": "q\n\nI", "examples": (), "system": "S", "input": "I"}


def test_converting_needs_no_store(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", pairs(2))
    source = Source(path, shape_of(path, None))
    read, given = convert(source, tmp_path / "out.csv", SHAPES["arena"])
    assert (read.items, given.rows) == (4, 4)
    back, again = convert(
        Source(tmp_path / "out.csv", shape_of(tmp_path / "out.csv", None)),
        tmp_path / "back.jsonl",
        SHAPES["trl-preference"],
    )
    assert back.shape is SHAPES["arena"] and again.rows == 4
    assert content(lines(tmp_path / "back.jsonl")) == content(pairs(2))
    assert [row["group_id"] for row in lines(tmp_path / "back.jsonl")] == ["1", "2", "3", "4"]
    write(path, [*pairs(1), {"prompt": 3}])
    with pytest.raises(InputError, match="line 3"):
        convert(source, tmp_path / "none.jsonl", SHAPES["hh"])
    assert not list(tmp_path.glob("none*"))
    _, given = convert(dataclasses.replace(source, broken="skip"), tmp_path / "some.jsonl", SHAPES["hh"])
    assert given.rows == 2 and given.tally.changed == {"system messages that open the first user text": 1}


def test_columns_that_say_nothing_to_heedful_are_counted(tmp_path: Path) -> None:
    rows = [{"question": "q", "std": "a", "class": "math", "empty": None}] * 2
    path = write(tmp_path / "in.jsonl", rows)
    with pytest.raises(
        InputError, match=r"hold question, std, class, empty, which is plainly no shape; name it, one of trl"
    ):
        shape_of(path, None)
    names = {"instruction": "question", "output": "std"}
    source = Source(path, shape_of(path, None, names), Reading(names))
    with open_store(tmp_path / "s.db") as store:
        taken = import_file(store, source)
    assert taken.read.shape is SHAPES["alpaca"] and taken.new["demonstrations"] == 1
    assert taken.read.tally.changed == {"rows whose column class was not read": 2}


def test_a_user_keeps_the_split_they_have_in_the_store(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b", "who": f"u{n % 8}"} for n in range(40)]
    with open_store(tmp_path / "s.db") as store:
        for n in range(8):
            add_prompt(store, Prompt(id=f"old{n}", text="old", user=f"u{n}", split="valid"))
        take(store, write(tmp_path / "in.jsonl", rows), user="who")
        assert {prompt.split for prompt in export_snapshot(store).prompts} == {"valid"}


def test_what_has_no_place_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [*pairs(1), pair(said("q"), " \n", "b"), pair(said("q", "a"), "x", "y"), pair(said("q"), "x", "")]
    with open_store(tmp_path / "s.db") as store:
        taken = take(store, write(tmp_path / "in.jsonl", rows))
    assert taken.read.tally.left_out == {
        "rows with an empty prompt or response": 2,
        "prompts that end with the assistant": 1,
    }
    assert taken.new["rankings"] == 2 and "  left out, prompts that end with the assistant: 1" in taken.lines()
