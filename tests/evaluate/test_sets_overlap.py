"""Overlap of texts with references, against hand counts and the libraries' own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics.bleu import BLEU

from heedful.evaluate.sets.overlap import (
    best_f1,
    best_match,
    bleu_of,
    bleu_statistics,
    drop_f1,
    human_f1,
    quac_f1,
    rouge_l,
    token_f1,
)

TEXT = st.lists(st.sampled_from(["the", "red", "boat", "Red!", "4", "four", "-"]), max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("text", "reference", "wanted"),
    [
        ("The North Sea.", "north sea", 1.0),
        ("in 1912", "1912", 2 / 3),
        ("red red boat", "red boat boat", 2 / 3),
        ("", "", 1.0),
        ("the", "", 1.0),
        ("Paris", "", 0.0),
        ("", "Paris", 0.0),
    ],
)
def test_token_f1(text: str, reference: str, wanted: float) -> None:
    assert token_f1(text, reference) == pytest.approx(wanted)


@given(TEXT, TEXT)
def test_token_f1_is_symmetric_and_a_share(text: str, reference: str) -> None:
    found = token_f1(text, reference)
    assert 0 <= found <= 1 and found == token_f1(reference, text) and token_f1(text, text) == 1
    assert best_f1(text, [reference, text]) == 1 and best_match(text, [reference, text]) == 1


def test_drop_f1_matches_spans_one_to_one() -> None:
    """Counted by hand by the rules of Dua et al. 2019."""
    assert drop_f1(["red boat"], ["red boat"]) == 1
    assert drop_f1(["red", "blue"], ["blue", "red"]) == 1
    assert drop_f1(["blue"], ["blue", "red"]) == 0.5  # one span of two is missing
    assert drop_f1(["red boat", "red boat"], ["red boat", "blue cat"]) == 0.5  # no reference twice
    assert drop_f1(["41,809"], ["$41,809.0"]) == 0.0  # the dot goes with the punctuation: 418090
    assert drop_f1(["41,809 dollars"], ["41809"]) == 0.67
    assert drop_f1(["7 yards"], ["8 yards"]) == 0.0
    assert drop_f1(["well-known man"], ["well known"]) == 0.8
    assert drop_f1([""], [""]) == 1.0


def test_quac_leaves_out_each_reference_once() -> None:
    references = ["red boat", "a red boat", "blue cat"]
    assert quac_f1("red boat", references) == pytest.approx(1.0)  # some reference of each two is right
    assert quac_f1("blue cat", references) == pytest.approx(2 / 3)
    assert quac_f1("blue cat", ["blue cat"]) == 1
    assert quac_f1("CANNOTANSWER", ["CANNOTANSWER", "red"]) == 1
    assert quac_f1("red", ["CANNOTANSWER", "red"]) == 0
    assert quac_f1("red", ["CANNOTANSWER", "red", "red boat"]) == pytest.approx((1 + 2 / 3) / 2)
    assert human_f1(["red boat", "red boat", "cat"]) == pytest.approx(2 / 3) and human_f1(["x"]) == 1


@pytest.mark.parametrize(
    ("references", "people"),
    [
        (["red boat", "CANNOTANSWER"], 1.0),  # half say no: there is no answer
        (["red boat", "red boat", "CANNOTANSWER"], 1.0),
        (["CANNOTANSWER", "CANNOTANSWER", "red boat", "north"], 1.0),
        (["red boat", "boat", "CANNOTANSWER"], 2 / 3),
        (["red boat", "north", "CANNOTANSWER"], 0.0),
    ],
)
def test_people_agree_once_it_is_settled_whether_there_is_an_answer(references: list[str], people: float) -> None:
    """Counted by hand by QuAC's rule: most of the references decide, before each is compared with the others."""
    assert human_f1(references) == pytest.approx(people)


def test_bleu_is_sacrebleus_of_any_choice_of_sentences() -> None:
    texts = ["the red boat is there now", "a cat sat on it", "", "nothing alike here at all"]
    references = ["the red boat is here now", "a cat sat on the mat", "a house", "some other words entirely"]
    statistics = bleu_statistics(texts, references)
    for chosen in ([0, 1, 2, 3], [0, 0, 1], [1, 2], [3], [2]):
        theirs = BLEU().corpus_score([texts[i] for i in chosen], [[references[i] for i in chosen]]).score
        assert bleu_of(statistics[np.array(chosen)]) == pytest.approx(theirs)


def test_rouge_l_is_of_the_longest_common_subsequence() -> None:
    assert rouge_l("the cat sat on a mat", "the cat was sitting on the mat") == pytest.approx(2 * 4 / 13)
    assert rouge_l("boats", "boat") == 1.0  # stems
    assert rouge_l("", "boat") == 0.0
