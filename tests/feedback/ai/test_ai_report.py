"""How an AI labeler did: each value in numbers that can be checked by hand."""

import doctest
import math

import pytest

from heedful.feedback.ai import report as module
from heedful.feedback.ai.report import (
    Compared,
    Judged,
    calibration_error,
    compared,
    failures,
    judged_pairs,
    of_longer,
    pair_keys,
    same_position,
)
from heedful.ranks import rank_of
from heedful.types import Ranking


def said(id: str, preference: tuple[tuple[float, float], ...], ids: str = "ab") -> Ranking:
    rank = rank_of(preference, len(ids))
    return Ranking(id=id, prompt_id=id, labeler="ai", responses=tuple(ids), rank=rank, preference=preference)


def person(id: str, rank: tuple[int, ...], ids: str = "ab") -> Ranking:
    return Ranking(id=f"person {id}", prompt_id=id, labeler="ann", responses=tuple(ids), rank=rank)


def test_the_examples() -> None:
    assert doctest.testmod(module).failed == 0


def test_pairs_of_a_ranking_with_and_without_probabilities() -> None:
    three = said("p", ((0.9, 0.7), (0.6, 0.2), (0.5, 0.5)), "abc")
    assert judged_pairs([three]) == [
        Judged("p", "a", "b", 0.9, 0.7),
        Judged("p", "a", "c", 0.6, 0.2),
        Judged("p", "b", "c", 0.5, 0.5),
    ]
    assert judged_pairs([three])[0].share == pytest.approx(0.8)
    assert [(pair.first, pair.second) for pair in judged_pairs([person("p", (2, 1, 2), "abc")])] == [
        (0, 0),
        (0.5, 0.5),
        (1, 1),
    ]


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        (0.9, 0.8, 0),  # a, wherever it stands
        (0.1, 0.2, 0),  # b
        (0.9, 0.2, 1),  # a where it is first, b where b is
        (0.1, 0.7, 2),  # b where a is first, a where b is
        (0.5, 0.7, None),
        (0.7, 0.5, None),
    ],
)
def test_which_place_is_preferred(first: float, second: float, place: int | None) -> None:
    assert same_position(Judged("p", "a", "b", first, second)) == place


def test_beside_people() -> None:
    judged = judged_pairs([said("p", ((0.9, 0.4),)), said("q", ((0.3, 0.7),)), said("r", ((0.8, 0.8),))])
    people = [
        person("p", (1, 2)),
        person("p", (2, 1)),
        person("q", (1, 2)),
        person("r", (1, 1)),
        person("r", (1, 2), "ba"),
        person("r", (1, 2), "ac"),
    ]
    found = compared(judged, people)
    assert [(one.prompt_id, one.right, one.in_one_order) for one in found] == [
        ("p", 1.0, 0.5),
        ("p", 0.0, 0.5),
        ("q", 0.5, 0.5),
        ("r", 0.0, 0.0),
    ]
    assert [one.certainty for one in found] == pytest.approx([0.65, 0.65, 0.5, 0.8])
    assert compared([], people) == [] and isinstance(found[0], Compared)


def test_calibration_in_numbers() -> None:
    assert calibration_error([1, 0], [1.0, 1.0]) == 0.5
    assert calibration_error([1, 1, 0, 0], [0.5, 0.52, 0.94, 0.96]) == pytest.approx((0.98 + 0.94 + 0.96) / 4)
    assert calibration_error([1, 0, 1, 0, 1], [0.6] * 5) == pytest.approx(0)
    assert math.isnan(calibration_error([], []))


def test_the_longer_one() -> None:
    rankings = [said("p", ((0.9, 0.7),)), said("q", ((0.25, 0.25),), "ac"), person("r", (1, 2), "ba")]
    length = {"a": 3, "b": 5, "c": 3}
    every = pair_keys(rankings)
    assert every == {("p", frozenset("ab")), ("q", frozenset("ac")), ("r", frozenset("ab"))}
    assert of_longer(rankings, length, every) == [("p", pytest.approx(0.2)), ("r", 1.0)]
    assert of_longer(rankings, length, every - {("p", frozenset("ab"))}) == [("r", 1.0)]


def test_failures_that_differ_in_numbers_alone_are_one() -> None:
    long = [("long", f"{n} tokens exceed the model's context of 512") for n in (580, 723, 723)]
    api = [("api", "8 tries: 500: planted"), ("api", "8 tries: 503: planted")]
    assert failures([*long, *api, ("parse", "")]) == [
        {"reason": "long", "message": "723 tokens exceed the model's context of 512", "num": 3, "num_messages": 2},
        {"reason": "api", "message": "8 tries: 500: planted", "num": 1, "num_messages": 1},
        {"reason": "api", "message": "8 tries: 503: planted", "num": 1, "num_messages": 1},
    ]
