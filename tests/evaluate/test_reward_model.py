"""How well a reward model predicts labelers, counted by hand."""

import itertools
import math
import random

import pytest

from heedful.evaluate.reward_model import Comparison, accuracy, accuracy_by_group, calibration, comparisons
from heedful.types import Labeler, Ranking

LABELERS = {"in": Labeler(id="in"), "out": Labeler(id="out", group="heldout")}


def ranking(labeler: str, prompt: str, rank: tuple[int, ...]) -> Ranking:
    ids = tuple(f"{prompt}{k}" for k in range(len(rank)))
    return Ranking(id=f"{labeler}{prompt}", prompt_id=prompt, labeler=labeler, responses=ids, rank=rank)


def test_every_untied_pair_with_two_scores_is_a_comparison() -> None:
    score = {"p0": 1.0, "p1": 3.0, "p2": 0.0, "q0": 1.0}
    found = comparisons([ranking("in", "p", (1, 2, 2)), ranking("out", "q", (1, 2))], score)
    assert found == [Comparison("p", "in", -2.0), Comparison("p", "in", 1.0)]  # q1 was never scored


def test_accuracy_by_group_counts_equal_scores_half() -> None:
    items = [
        Comparison("p", "in", 1.0),
        Comparison("p", "in", 0.0),
        Comparison("q", "out", -1.0),
        Comparison("r", "out", 2.0),
    ]
    by_group = accuracy_by_group(items, LABELERS)
    assert by_group["train"].mean == 0.75 and by_group["heldout"].mean == 0.5
    assert (by_group["train"].num_clusters, by_group["heldout"].num_clusters) == (1, 2)
    assert accuracy([]).mean is None and accuracy([]).reason


def test_a_model_that_is_the_labelers_utility_is_always_right() -> None:
    draw = random.Random(0)
    score, rankings = {}, []
    for n in range(20):
        value = [draw.random() for _ in range(5)]
        score.update({f"p{n}.{k}": v for k, v in enumerate(value)})
        rank = tuple(1 + sum(other > mine for other in value) for mine in value)
        rankings.append(ranking("in", f"p{n}.", rank))
    found = accuracy(comparisons(rankings, score))
    assert found.mean == 1.0 and found.num == 20 * math.comb(5, 2) and found.num_clusters == 20
    assert found.high == 1.0 and found.low < 1.0
    worst = accuracy(comparisons(rankings, {id: -value for id, value in score.items()}))
    assert worst.mean == 0.0


def test_a_calibrated_model_has_no_calibration_error() -> None:
    items = []
    for probability, number in ((0.6, 10), (0.8, 20), (0.95, 40)):
        margin = math.log(probability / (1 - probability))
        agree = round(probability * number)
        items += [Comparison(f"p{n}", "in", margin if n < agree else -margin) for n in range(number)]
    bins, error = calibration(items)
    assert error == pytest.approx(0.0, abs=1e-9)
    assert [bin.number for bin in bins] == [10, 20, 40]
    assert [bin.predicted for bin in bins] == pytest.approx([0.6, 0.8, 0.95])


def test_too_sure_is_an_error_as_large_as_it_is_off() -> None:
    items = [Comparison(f"p{n}", "in", 50.0 if n < 6 else -50.0) for n in range(10)]
    bins, error = calibration(items)
    assert len(bins) == 1 and error == pytest.approx(0.4)
    assert calibration([Comparison("p", "in", 0.0)])[1] == 0.0
    empty = calibration([])
    assert empty[0] == [] and math.isnan(empty[1])


def test_comparisons_are_those_of_brute_force() -> None:
    draw = random.Random(1)
    for _ in range(20):
        rank = tuple(draw.randint(1, 4) for _ in range(4))
        score = {f"p{k}": draw.gauss(0, 1) for k in range(4)}
        expected = sorted(
            score[f"p{i}"] - score[f"p{j}"] for i, j in itertools.permutations(range(4), 2) if rank[i] < rank[j]
        )
        assert sorted(c.margin for c in comparisons([ranking("in", "p", rank)], score)) == pytest.approx(expected)
