"""Records: what they refuse, and that they go to JSON and back unchanged."""

from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from heedful.ranks import dense, rank_of, soft_labels, untied_pairs
from heedful.types import METADATA_FLAGS, Demonstration, Document, Labeler, Prompt, Ranking, Rating, Record, Response

RANKING = {"id": "k", "prompt_id": "p", "labeler": "l", "responses": ("a", "b", "c"), "rank": (1, 2, 2)}
few = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": (1, 2)}, "rank has 2 entries for 3 responses"),
        ({"responses": ("a", "b", "a")}, "a response stands twice"),
        ({"rank": (0, 1, 2)}, r"ranks must lie in 1..3, found \[0, 1, 2\]"),
        ({"rank": (1, 2, 4)}, "ranks must lie in 1..3"),
        ({"order": ("a", "b")}, "order must list the same responses"),
        ({"order": ("a", "b", "b")}, "order must list the same responses"),
        ({"responses": ("a",), "rank": (1,)}, "at least 2 items"),
        ({"both_bad": True}, "both_bad is for two responses that tie"),
        ({"both_bad": True, "responses": ("a", "b"), "rank": (1, 2)}, "both_bad is for two responses that tie"),
        ({"preference": ((0.5, 0.5),)}, "preference has 1 pairs for 3 responses"),
        ({"preference": ((0.9, 0.9), (1.2, 0.9), (0.5, 0.5))}, "preference holds probabilities, from 0 to 1"),
        ({"preference": ((0.9, 0.9), (0.9, -0.1), (0.5, 0.5))}, "preference holds probabilities, from 0 to 1"),
        ({"preference": ((0.9, 0.9), (float("nan"), 0.9), (0.5, 0.5))}, "preference holds probabilities"),
        ({"preference": ((0.9, 0.9), (0.9, 0.9), (0.6, 0.5))}, r"rank is \[1, 2, 2\], but preference says \[1, 2, 3\]"),
        ({"seconds": -1.0}, "greater than or equal to 0"),
        ({"purpose": "fun"}, "'train', 'evaluation' or 'screening'"),
    ],
)
def test_a_ranking_that_cannot_be(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Ranking(**(RANKING | changes))


@pytest.mark.parametrize(
    ("record", "values"),
    [
        (Prompt, {"id": "", "text": "t", "user": "u"}),
        (Prompt, {"id": "p", "text": "", "user": "u"}),
        (Prompt, {"id": "p", "text": "t", "user": ""}),
        (Prompt, {"id": "p", "text": "t", "user": "u", "split": "dev"}),
        (Prompt, {"id": "p", "text": "t", "user": "u", "examples": [["one"]]}),
        (Demonstration, {"id": "d", "prompt_id": "p", "text": "", "labeler": "l"}),
        (Labeler, {"id": "l", "group": "other"}),
        (Rating, {"id": "r", "prompt_id": "p", "response_id": "a", "labeler": "l", "overall": 0}),
        (Rating, {"id": "r", "prompt_id": "p", "response_id": "a", "labeler": "l", "overall": 8}),
        (Document, {"text": ""}),
        (Response, {"id": "r", "prompt_id": "p", "text": "t", "colour": "red"}),
    ],
)
def test_impossible_values_are_refused(record: type[Record], values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        record(**values)


def test_records_do_not_change() -> None:
    labeler = Labeler(id="l")
    with pytest.raises(ValidationError):
        labeler.group = "heldout"  # type: ignore[misc]


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@few
@given(text, text, st.lists(st.tuples(text, text), max_size=3), st.dictionaries(text, st.integers() | text, max_size=2))
def test_any_text_survives_json(
    words: str, user: str, examples: list[tuple[str, str]], task: dict[str, object]
) -> None:
    prompt = Prompt(id="p", text=words, user=user, examples=tuple(examples), task=task)
    assert Prompt.model_validate_json(prompt.model_dump_json()) == prompt
    response = Response(id="r", prompt_id="p", text=words, tokens=(1, 2), finished=False)
    assert Response.model_validate_json(response.model_dump_json()) == response


@few
@given(st.lists(st.integers(1, 9), max_size=9))
def test_untied_pairs_are_all_pairs_but_the_ties(rank: list[int]) -> None:
    pairs = untied_pairs(rank)
    assert len(set(pairs)) == len(pairs)
    assert all(rank[chosen] < rank[rejected] for chosen, rejected in pairs)
    ties = sum(a == b for i, a in enumerate(rank) for b in rank[i + 1 :])
    assert len(pairs) + ties == len(rank) * (len(rank) - 1) // 2
    assert pairs == sorted(pairs)


def test_table_3_is_whole() -> None:
    assert len(set(METADATA_FLAGS)) == len(METADATA_FLAGS) == 11


shares = st.floats(0, 1)


@few
@given(st.integers(2, 5), st.data())
def test_ranks_agree_with_probabilities(number: int, data: st.DataObject) -> None:
    pairs = list(combinations(range(number), 2))
    preference = tuple(data.draw(st.tuples(shares, shares)) for _ in pairs)
    ids = tuple("abcde"[:number])
    rank = rank_of(preference, number)
    ranking = Ranking(id="k", prompt_id="p", labeler="l", responses=ids, rank=rank, preference=preference)
    assert Ranking.model_validate_json(ranking.model_dump_json()) == ranking
    share = ranking.share()
    assert len(share) == number * (number - 1)
    for (i, j), soft, (first, second) in zip(pairs, soft_labels(preference), preference, strict=True):
        assert share[ids[i], ids[j]] == soft == pytest.approx(fmean((first, second)))
        assert share[ids[i], ids[j]] + share[ids[j], ids[i]] == pytest.approx(1)
    wins = [fmean(share[one, other] for other in ids if other != one) for one in ids]
    for i, j in pairs:
        if abs(wins[i] - wins[j]) > 1e-12:
            assert (rank[i] < rank[j]) == (wins[i] > wins[j])


def test_a_circle_is_a_tie() -> None:
    assert rank_of([(0.9, 0.9), (0.1, 0.1), (0.9, 0.9)], 3) == (1, 1, 1)  # a before b before c before a
    assert rank_of([(0.7, 0.7), (1 - 0.7, 1 - 0.7), (0.7, 0.7)], 3) == (1, 1, 1)


def test_ranks_with_holes_agree_too() -> None:
    values = RANKING | {"rank": (3, 1, 1), "preference": ((0.1, 0.1), (0.1, 0.1), (0.7, 0.3))}
    assert Ranking(**values).share()["b", "c"] == 0.5
    assert dense([2.5, 1, 1]) == (2, 1, 1)
