"""Pairwise agreement against brute force, closed forms and hand counts."""

from itertools import combinations, product
from math import isclose, sqrt
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.store.agreement import agreement, agreement_by_group
from heedful.types import Labeler, Ranking


def rank(prompt: str, labeler: str, ranks: tuple[int, ...], **more: object) -> Ranking:
    responses = tuple(f"{prompt}-{i}" for i in range(len(ranks)))
    return Ranking(id=f"{prompt}/{labeler}", prompt_id=prompt, labeler=labeler, responses=responses, rank=ranks, **more)


def brute_force(rankings: list[Ranking], ties: str) -> tuple[float, int]:
    agreed, compared = 0.0, 0
    for a, b in combinations(rankings, 2):
        if a.prompt_id != b.prompt_id:
            continue
        for i, j in combinations(range(len(a.rank)), 2):
            x, y = a.rank[i] - a.rank[j], b.rank[i] - b.rank[j]
            if ties == "skip" and x * y == 0:
                continue
            compared += 1
            if x * y > 0 or x == y == 0:
                agreed += 1
            elif x * y == 0 and ties == "half":
                agreed += 0.5
    return agreed, compared


@given(st.integers(0, 10_000), st.sampled_from(["skip", "half", "exact"]))
def test_equals_brute_force(seed: int, ties: str) -> None:
    random = Random(seed)
    rankings = []
    for prompt in range(random.randint(1, 4)):
        k = random.randint(2, 5)
        for labeler in range(random.randint(1, 4)):
            rankings.append(rank(f"p{prompt}", f"l{labeler}", tuple(random.randint(1, k) for _ in range(k))))
    agreed, compared = brute_force(rankings, ties)
    found = agreement(rankings, ties)
    assert found.num_comparisons == compared
    assert found.mean is None if compared == 0 else isclose(found.mean, agreed / compared)
    assert agreement(rankings[::-1], ties).mean == pytest.approx(found.mean)


def test_order_of_responses_does_not_matter() -> None:
    one = Ranking(id="1", prompt_id="p", labeler="a", responses=("x", "y", "z"), rank=(1, 2, 3))
    other = Ranking(id="2", prompt_id="p", labeler="b", responses=("z", "x", "y"), rank=(3, 1, 2))
    assert agreement([one, other]).mean == 1.0


def test_only_shared_responses_count() -> None:
    one = Ranking(id="1", prompt_id="p", labeler="a", responses=("x", "y", "z"), rank=(1, 2, 3))
    other = Ranking(id="2", prompt_id="p", labeler="b", responses=("y", "z", "w"), rank=(2, 1, 3))
    assert agreement([one, other]).num_comparisons == 1 and agreement([one, other]).mean == 0.0


def test_ties_by_hand() -> None:
    # pairs (0,1), (0,2), (1,2): a says <, <, =; b says <, >, <
    rankings = [rank("p", "a", (1, 2, 2)), rank("p", "b", (2, 3, 1))]
    assert agreement(rankings).mean == 1 / 2  # (1,2) is tied by a
    assert agreement(rankings, "half").mean == pytest.approx((1 + 0 + 0.5) / 3)
    assert agreement(rankings, "exact").mean == pytest.approx(1 / 3)


def test_purposes_are_not_mixed_and_one_labeler_is_no_pair() -> None:
    rankings = [rank("p", "a", (1, 2)), rank("p", "b", (1, 2), purpose="evaluation"), rank("q", "a", (1, 2))]
    found = agreement(rankings)
    assert (found.mean, found.stderr, found.num_comparisons) == (None, None, 0)
    assert str(found) == "no prompt was ranked by two labelers"


def test_stderr_with_one_comparison_per_prompt_is_the_binomial_one() -> None:
    agreeing, n = 7, 10
    rankings = []
    for p in range(n):
        rankings += [rank(f"p{p}", "a", (1, 2)), rank(f"p{p}", "b", (1, 2) if p < agreeing else (2, 1))]
    found = agreement(rankings)
    assert found.mean == pytest.approx(0.7)
    assert found.stderr == pytest.approx(sqrt(0.7 * 0.3 / (n - 1)))
    assert str(found).startswith("70.0 ± 15.3 %")


def test_stderr_grows_with_clusters_not_with_copies_of_comparisons() -> None:
    """Ten labelers who all agree or all disagree on a prompt tell no more about prompts than two do."""
    few, many = [], []
    for p in range(10):
        few += [rank(f"p{p}", "a", (1, 2)), rank(f"p{p}", "b", (1, 2) if p < 7 else (2, 1))]
        for i, j in product("abcde", "12"):
            flipped = p >= 7 and j == "2"
            many.append(rank(f"p{p}", i + j, (2, 1) if flipped else (1, 2)))
    assert agreement(many).stderr > 0.4 * agreement(few).stderr
    naive = sqrt(0.25 / agreement(many).num_comparisons)
    assert agreement(many).stderr > 2 * naive


def test_by_group() -> None:
    rankings = [rank("p", who, order) for who, order in (("a", (1, 2)), ("b", (2, 1)), ("h", (1, 2)), ("i", (1, 2)))]
    labelers = [Labeler(id=who, group="heldout" if who in "hi" else "train") for who in "abhi"]
    found = agreement_by_group(rankings, labelers)
    assert (found["train"].mean, found["heldout"].mean) == (0.0, 1.0)
