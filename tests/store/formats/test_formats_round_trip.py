"""What a shape holds comes back as it was, through every kind of file; what it cannot hold is counted."""

import dataclasses
import tempfile
from collections.abc import Callable
from math import comb
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from heedful.ranks import dense, rank_of
from heedful.store.formats.give_out import Given, write_items
from heedful.store.formats.hh import read_hh, write_hh
from heedful.store.formats.item import Answer, Item, LeftOut, Reading, Tally, Writing
from heedful.store.formats.reading import Read, Source, read_items
from heedful.store.formats.shapes import SHAPES, WRITABLE
from heedful.store.incoming import GAP

pytest.importorskip("pyarrow", reason="pyarrow is not installed")

NASTY = (
    'a,b;"c"\t',
    "one\ntwo\r\nthree\rfour",
    "=1+1",
    "مرحبا بالعالم",
    "汉字 “引号”",
    "👩‍👩‍👧 ",
    "x\u2028y\u2029z\u0085",
    "\ufeffmark",
    '[{"role": "user"}]',
    "null",
    " leading and trailing ",
    "\n\nHuman: I am a turn\n\nAssistant: and I",
    "ends with\n\nAssistant",
    "{{name}} <|im_end|> \\n \\u2028",
    "True",
)
anything = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
texts = (st.sampled_from(NASTY) | anything).filter(str.strip)
pairs = st.lists(st.tuples(texts | st.just(""), texts), max_size=2).map(tuple)
systems = st.just("") | texts
names = st.just("") | texts
asked = {"text": texts, "examples": pairs, "system": systems}


NO_MARK = st.none()


def answers(number: int, models: bool = False, marks: st.SearchStrategy[int | None] = NO_MARK) -> st.SearchStrategy:
    answer = st.builds(Answer, texts, names if models else st.just(""), marks)
    return st.lists(answer, min_size=number, max_size=number).map(tuple)


def rated(item: Item) -> Item:
    return dataclasses.replace(item, rank=dense([-(answer.overall or 0) for answer in item.answers]))


@st.composite
def full_ranking(draw: st.DrawFn) -> Item:
    number = draw(st.integers(2, 5))
    ranks = dense(draw(st.lists(st.integers(1, number), min_size=number, max_size=number)))
    pairs = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=comb(number, 2), max_size=comb(number, 2))
    preference = draw(st.just(()) | pairs.map(tuple))
    ranks = rank_of(preference, number) if preference else ranks
    return Item(
        **{name: draw(strategy) for name, strategy in asked.items()},
        answers=draw(answers(number, True, st.none() | st.integers(1, 7))),
        rank=ranks,
        strength=draw(st.sampled_from((None, 1, 2, 3))) if number == 2 and ranks[0] != ranks[1] else None,
        both_bad=draw(st.booleans()) if ranks == (1, 1) else False,
        preference=preference,
        order=draw(st.just(()) | st.permutations(range(number)).map(tuple)),
        labeler=draw(names),
        group=draw(st.sampled_from((None, "heldout"))),
        seconds=draw(st.none() | st.floats(0, 1e6)),
        guideline=draw(names),
    )


@st.composite
def with_input(draw: st.DrawFn) -> Item:
    item = draw(st.builds(Item, **asked, demonstration=texts))
    input = draw(names)
    return dataclasses.replace(item, text=item.text + GAP + input if input else item.text, input=input)


chats = st.builds(Item, **asked, demonstration=texts)
strengths = st.sampled_from((1, 2, 3))
pair_items = st.builds(Item, **asked, answers=answers(2), rank=st.just((1, 2)), strength=strengths)
good_or_bad = answers(1, marks=st.sampled_from((7, 1)))
HELD: dict[str, st.SearchStrategy[Item]] = {
    "trl-messages": chats,
    "openai": chats,
    "sharegpt": chats,
    "trl-completion": chats,
    "trl-completion-text": st.builds(Item, texts, demonstration=texts),
    "alpaca": with_input(),
    "trl-preference": pair_items,
    "trl-preference-implicit": pair_items,
    "trl-preference-text": st.builds(Item, texts, answers=answers(2), rank=st.just((1, 2)), strength=strengths),
    "trl-unpaired": st.builds(Item, **asked, answers=good_or_bad),
    "trl-unpaired-text": st.builds(Item, texts, answers=good_or_bad),
    "alpaca-eval": st.builds(
        Item, texts, answers=st.builds(lambda text, model: (Answer(text, model),), texts, texts.filter(bool))
    ),
    "ultrafeedback": st.integers(2, 4).flatmap(
        lambda k: st.builds(Item, texts, answers=answers(k, True, st.integers(1, 7)), kind=st.just("ai")).map(rated)
    ),
    "arena": st.builds(
        Item,
        **asked,
        answers=answers(2, True),
        rank=st.sampled_from(((1, 2), (2, 1), (1, 1))),
        labeler=names,
    ),
    "ranking": full_ranking(),
}
FILES = ("rows.jsonl", "rows.jsonl.gz", "rows.json", "rows.csv", "rows.parquet", "folder")


def through(
    items: list[Item], name: str, path: Path, bom: bool = False, escape: bool = False
) -> tuple[list[Item], Given, Read]:
    shape = SHAPES[name]
    given_, read = Given(path, shape, "item"), Read(path, shape)
    write_items(items, given_, Writing("strength", escape_formulas=escape), bom)
    how = Reading(overall=True, strength=True, marks=(7, 1), unescape_formulas=escape)
    return list(read_items(Source(path, shape, how), read)), given_, read


def test_every_writable_shape_is_tried() -> None:
    assert set(HELD) | {"hh"} == set(WRITABLE)


@pytest.mark.parametrize("name", HELD)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_as_it_was(name: str, data: st.DataObject) -> None:
    items = data.draw(st.lists(HELD[name], min_size=1, max_size=4))
    file = data.draw(st.sampled_from(FILES))
    bom = file.endswith(".csv") and data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        escape = file.endswith(".csv") and data.draw(st.booleans())
        back, given_, read = through(items, name, Path(folder) / file, bom, escape)
    assert [dataclasses.replace(item, split=None) for item in back] == items
    assert not +given_.tally.left_out and not +read.tally.left_out and not read.broken
    assert given_.rows == read.rows == len(items)


turns = st.sampled_from(
    ("Human:", "Assistant:", "\n\nHuman: a", "\n\nAssistant: b", "\n\n", "\n", " ", "word", "\n\nAssi")
)
spoken = (st.lists(turns, min_size=1, max_size=5).map("".join) | texts).filter(str.strip)


@settings(max_examples=300, deadline=None)
@given(text=spoken, examples=st.lists(st.tuples(spoken, spoken), max_size=2).map(tuple), better=spoken, worse=spoken)
@example("q", (), "x\n\nHuman: y\n\nAssistant: z", "x\n\nHuman: y\n\nAssistant: w")
@example("q\n\nAssistant:", (), "a", "b")
@example("q", (), "same", "same")
def test_hh_gives_the_same_back_or_says_that_it_cannot(
    text: str, examples: tuple[tuple[str, str], ...], better: str, worse: str
) -> None:
    item = Item(text, examples, answers=(Answer(better), Answer(worse)), rank=(1, 2))
    tally = Tally()
    rows = list(write_hh(item, Writing(), tally))
    if rows:
        assert list(read_hh(rows[0], Reading(), Tally())) == [item]
    else:
        assert tally.left_out.total() == 1
    if "\n\nHuman:" not in (whole := "|".join((text, better, worse, *sum(examples, ())))) and (
        "\n\nAssistant:" not in whole and not whole.endswith("\n\nAssistant")
    ):
        assert rows, "a text without a mark must come through"


def test_a_ranking_of_four_becomes_its_untied_pairs_side_by_side() -> None:
    ranked = Item("q", answers=tuple(Answer(text) for text in "abcd"), rank=(2, 1, 2, 3), id="k1")
    tally = Tally()
    rows = list(SHAPES["trl-preference-text"].write(ranked, Writing(), tally))
    found = [(row["chosen"], row["rejected"], row["margin"], row["group_id"]) for row in rows]
    assert found == [
        ("a", "d", 1, "k1"),
        ("b", "a", 1, "k1"),
        ("b", "c", 1, "k1"),
        ("b", "d", 2, "k1"),
        ("c", "d", 1, "k1"),
    ]
    assert tally.left_out == {"tied pairs": 1}


def test_margins_come_from_ranks_ratings_or_strength() -> None:
    marked = Item("q", answers=(Answer("a", overall=3), Answer("b", overall=5)), rank=(1, 2), strength=3)
    write: Callable = SHAPES["trl-preference"].write
    tally = Tally()
    assert [next(write(marked, Writing(margin), tally))["margin"] for margin in ("rank", "rating", "strength")] == [
        1.0,
        -2.0,
        3.0,
    ]
    assert tally.changed == {"pairs whose ratings contradict the ranking: their margin is negative": 1}
    bare = Item("q", answers=(Answer("a"), Answer("b")), rank=(1, 2))
    for margin in ("rating", "strength"):
        tally = Tally()
        assert not list(write(bare, Writing(margin), tally))
        assert tally.left_out == {"tied pairs": 0, f"pairs without a {margin} to take the margin from": 1}


def test_best_of_and_good_or_bad() -> None:
    ranked = Item("q", answers=(Answer("a", overall=4), Answer("b", overall=5), Answer("c")), rank=(2, 1, 1))
    tally = Tally()
    assert next(SHAPES["alpaca"].write(ranked, Writing(), tally))["output"] == "b"
    assert tally.changed["rankings with several best responses, of which the first was taken"] == 1
    rows = list(SHAPES["trl-unpaired-text"].write(ranked, Writing(threshold=5), tally))
    assert [(row["completion"], row["label"]) for row in rows] == [("a", False), ("b", True)]
    assert tally.left_out == {"responses without a mark": 1}
    tied = dataclasses.replace(ranked, rank=(1, 1, 1))
    with pytest.raises(LeftOut, match="all tie"):
        list(SHAPES["sharegpt"].write(tied, Writing(), tally))


@pytest.mark.parametrize("name", ["trl-completion-text", "trl-preference-text", "alpaca-eval", "ultrafeedback"])
def test_several_turns_have_no_place_in_one_text(name: str) -> None:
    item = Item("q", (("a", "b"),), answers=(Answer("c", "m", 1), Answer("d", "m", 2)), rank=(2, 1), demonstration="e")
    with pytest.raises(LeftOut, match="several turns"):
        list(SHAPES[name].write(item, Writing(), Tally()))


def test_a_system_message_is_folded_and_counted() -> None:
    item, tally = Item("q", system="Be kind.", demonstration="a"), Tally()
    (row,) = SHAPES["trl-completion-text"].write(item, Writing(), tally)
    assert row["prompt"] == "Be kind.\n\nq"
    assert tally.changed == {"system messages that open the first user text": 1}
