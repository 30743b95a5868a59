"""Sentences: what is written is read back, and what is not the town's language is said to be not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.world import World
from heedful.world.grammar import FACTS, OPENINGS, PATTERNS, Clause, read, read_sentence, say, write
from heedful.world.words import CATEGORIES, CATEGORY_OF, entities

WORDS = World(0).vocabulary


@st.composite
def clauses(draw: st.DrawFn) -> Clause:
    kind = draw(st.sampled_from(sorted(PATTERNS)))
    pattern = draw(st.sampled_from(PATTERNS[kind])).split()
    slots = tuple(draw(st.sampled_from(CATEGORIES[word])) for word in pattern if word in CATEGORIES)
    opening = draw(st.sampled_from(["", *(o for o in OPENINGS if "DAY" not in o), "on friday ,"]))
    return Clause(kind, slots, opening)


def test_no_word_stands_in_two_categories_or_is_part_of_a_pattern_and_a_slot() -> None:
    assert len(CATEGORY_OF) == sum(len(words) for words in CATEGORIES.values())
    plain = {word for patterns in PATTERNS.values() for p in patterns for word in p.split()} - CATEGORIES.keys()
    assert not plain & CATEGORY_OF.keys()


def test_no_two_kinds_share_a_pattern() -> None:
    patterns = [pattern for options in PATTERNS.values() for pattern in options]
    assert len(patterns) == len(set(patterns))


@given(clauses())
def test_a_clause_written_is_the_clause_read(clause: Clause) -> None:
    # Kinds with fixed sentences in several forms ("what a good question .") are written in the first.
    sentences, tail = read(write(clause))
    assert not tail
    assert [sentence.clause for sentence in sentences] == [clause]


@given(st.lists(st.sampled_from(WORDS), max_size=30))
def test_any_text_is_read_and_no_word_is_lost(words: list[str]) -> None:
    text = " ".join(words)
    sentences, tail = read(text)
    assert [w for s in sentences for w in s.words] + list(tail) == [w for w in text.strip().split(" ") if w]


@pytest.mark.parametrize(
    "text", ["ada owns boat .", "ada the owns red boat .", "one day , .", ".", "ada and .", "owns", "then a kite ."]
)
def test_what_is_not_the_language_is_not_grammatical(text: str) -> None:
    sentences, tail = read(text)
    assert tail or not any(sentence.grammatical for sentence in sentences)


def test_lists_and_short_answers_are_read_as_items() -> None:
    listed = read_sentence(tuple("the red kite , a cup and bread .".split()))
    assert listed.items == (("the", "red", "kite"), ("a", "cup"), ("bread",)) and listed.clause is None
    assert read_sentence(tuple("near the mill .".split())).items == (("near", "the", "mill"),)
    assert not read_sentence(tuple("a kite a cup .".split())).grammatical


def test_an_opening_is_read_apart_from_the_clause() -> None:
    clause = read_sentence(tuple("on monday , ada lost the red kite .".split())).clause
    assert clause == Clause("lose", ("ada", "red", "kite"), "on monday ,")
    assert read_sentence(tuple("yes , ada likes soup .".split())).clause == Clause("likes", ("ada", "soup"), "yes ,")


def test_the_key_forgets_the_verb_and_the_opening_only() -> None:
    found, saw = (Clause("get", ("ada", verb, "red", "kite"), o) for verb, o in (("found", ""), ("saw", "then")))
    assert found.key == saw.key != Clause("get", ("ada", "found", "red", "cup")).key


def test_say_fills_the_slots_in_order() -> None:
    assert say("own", "ada", "red", "boat") == "ada owns the red boat ."
    assert say("feel", "ada", "sad", opening="at last ,") == "at last , ada was sad ."
    assert "own" in FACTS


def test_entities_name_what_a_text_is_about() -> None:
    assert entities("write a story about ben and the red kite .") == ("ben", "kite")
    assert entities("what do two and one make ?") == ("one", "two")
    assert entities("hello .") == ()
