"""alpha, tau-b, distance and the rest against published figures, brute force and scipy."""

from collections import Counter
from itertools import combinations, permutations
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from heedful.store.agreement import Clusters, agreement, preferences_of
from heedful.store.reliability import (
    NO_PAIRS,
    NO_VARIATION,
    Reliability,
    alpha,
    best_share,
    concordance,
    distance,
    mean_rank,
    quartiles,
    tau_b,
    wilson,
)
from heedful.types import Ranking

# Krippendorff's example of four observers and twelve units, where a dot is a missing value (Computing Krippendorff's
# Alpha-Reliability, 2011, section E): nominal .743, ordinal .815, interval .849.
TABLE = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)
UNITS = [Counter(value for value in column if value is not None) for column in zip(*TABLE, strict=True)]


@pytest.mark.parametrize(("level", "value"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_krippendorff_s_own_example(level, value) -> None:
    found = alpha(UNITS, level)
    assert round(found.value, 3) == value
    assert (found.units, found.values, found.why) == (11, 40, "")


def by_force(units: list[list[int]], level: str) -> float | None:
    """alpha by its definition: every pair of values within units against every pair of values there is."""
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    totals = Counter(values)

    def far(c: int, k: int) -> float:
        if level == "nominal":
            return c != k
        if level == "interval":
            return (c - k) ** 2
        low, high = min(c, k), max(c, k)
        between = sum(number for value, number in totals.items() if low <= value <= high)
        return (between - (totals[c] + totals[k]) / 2) ** 2

    n = len(values)
    expected = sum(far(a, b) for a, b in permutations(values, 2)) / (n * (n - 1)) if n else 0
    if expected == 0:
        return None
    observed = sum(far(a, b) / (len(unit) - 1) for unit in units for a, b in permutations(unit, 2)) / n
    return 1 - observed / expected


@given(
    st.lists(st.lists(st.integers(1, 7), max_size=5), max_size=8), st.sampled_from(["nominal", "ordinal", "interval"])
)
def test_alpha_equals_its_definition(units: list[list[int]], level) -> None:
    found, wanted = alpha([Counter(unit) for unit in units], level), by_force(units, level)
    assert (found.value is None) == (wanted is None) == bool(found.why)
    assert wanted is None or isclose(found.value, wanted, abs_tol=1e-9)


def test_alpha_says_why_it_is_undefined() -> None:
    assert alpha([{1: 1}, {2: 1}]).why == NO_PAIRS
    assert alpha([{0: 2}, {0: 3}]).why == NO_VARIATION
    assert alpha([{0: 2}, {1: 2}]).value == 1


def test_alpha_s_jackknife_is_leaving_out_prompts() -> None:
    parts = [[Counter({1: 2}), Counter({2: 1, 1: 1})], [Counter({2: 2})], [Counter({3: 1, 1: 1})], [Counter({3: 1})]]
    kept = Reliability()
    for units in parts:
        kept.add(units)
    found = kept.alpha("interval")
    whole = [unit for units in parts for unit in units]
    assert found.value == pytest.approx(alpha(whole, "interval").value)
    left = [
        alpha([unit for other in parts if other is not units for unit in other], "interval").value
        for units in parts[:3]
    ]
    mean = sum(left) / 3
    assert found.stderr == pytest.approx((2 / 3 * sum((value - mean) ** 2 for value in left)) ** 0.5)


ranks = st.integers(2, 6).flatmap(lambda k: st.tuples(*[st.lists(st.integers(1, k), min_size=k, max_size=k)] * 2))


@given(ranks)
def test_tau_b_is_scipy_s(two) -> None:
    one, other = (dict(zip("abcdef", rank, strict=False)) for rank in two)
    found = tau_b(preferences_of(one), preferences_of(other))
    if len(set(two[0])) == 1 or len(set(two[1])) == 1:
        assert found is None
    else:
        assert found == pytest.approx(stats.kendalltau(*two, variant="b").statistic)


@given(ranks, st.lists(st.integers(1, 6), min_size=6, max_size=6))
def test_distance_is_a_metric_in_0_to_1(two, third: list[int]) -> None:
    a, b, c = (preferences_of(dict(zip("abcdef", rank, strict=False))) for rank in (*two, third[: len(two[0])]))
    assert distance(a, b) == distance(b, a) and 0 <= distance(a, b) <= 1
    assert (distance(a, b) == 0) == (a == b)
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-12


def test_distance_by_hand() -> None:
    one = preferences_of({"a": 1, "b": 2, "c": 3})
    assert distance(one, preferences_of({"a": 3, "b": 2, "c": 1})) == 1
    assert distance(one, preferences_of({"a": 1, "b": 1, "c": 2})) == pytest.approx(0.5 / 3)
    assert distance(one, preferences_of({"x": 1, "y": 2})) is None


def test_marks_beside_places() -> None:
    assert concordance({"a": 1, "b": 2, "c": 2}, {"a": 5, "b": 6, "c": 5}) == (0, 1, 1)
    assert concordance({"a": 1, "b": 2, "c": 3}, {"a": 7, "b": 4}) == (1, 0, 0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 5)), min_size=2, max_size=9))
def test_clusters_added_one_by_one_are_the_linearised_variance(clusters) -> None:
    sums = Clusters()
    for agreed, compared in clusters:
        sums.add(agreed, compared)
    total, m = sum(n for _, n in clusters), len(clusters)
    mean = sum(a for a, _ in clusters) / total
    variance = m / (m - 1) * sum((a - mean * n) ** 2 for a, n in clusters) / total**2
    assert sums.agreement().mean == pytest.approx(mean)
    assert sums.agreement().stderr ** 2 == pytest.approx(variance, abs=1e-9)


@given(st.lists(st.permutations("abcd"), min_size=3, max_size=3))
def test_the_consensus_is_what_all_agree_on_and_names_do_not_matter(orders) -> None:
    rankings = [{id: place for place, id in enumerate(order, 1)} for order in orders]
    found = mean_rank(rankings)
    assert set(found.values()) == set(range(1, max(found.values()) + 1))
    for a, b in combinations("abcd", 2):
        if all(rank[a] < rank[b] for rank in rankings):
            assert found[a] < found[b]
    assert mean_rank([rankings[0]] * 2) == rankings[0]
    renamed = mean_rank([{id.upper(): place for id, place in rank.items()} for rank in rankings])
    assert renamed == {id.upper(): place for id, place in found.items()}


def test_ties_in_the_consensus() -> None:
    assert mean_rank([{"a": 1, "b": 2}, {"a": 2, "b": 1}]) == {"a": 1, "b": 1}
    # tied for places 2 and 3: both count as 2.5, so c's third place elsewhere decides
    assert mean_rank([{"a": 1, "b": 2, "c": 2}, {"a": 1, "b": 2, "c": 3}]) == {"a": 1, "b": 2, "c": 3}


def test_shares_and_quartiles() -> None:
    rank = {"a": 1, "b": 1, "c": 3}
    assert [best_share(rank, id) for id in "abc"] == [0.5, 0.5, 0]
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0.0, 5)[0] == 0 and wilson(1.0, 5)[1] == pytest.approx(1)
    assert quartiles([4, 1, 3, 2]) == (1.75, 2.5, 3.25) and quartiles([7]) == (7, 7, 7)


def test_tau_of_rankings_that_share_only_some_responses() -> None:
    one = Ranking(id="1", prompt_id="p", labeler="a", responses=("x", "y", "z"), rank=(1, 2, 3))
    other = Ranking(id="2", prompt_id="p", labeler="b", responses=("y", "z", "w"), rank=(2, 1, 3))
    pairs = [preferences_of(dict(zip(r.responses, r.rank, strict=True))) for r in (one, other)]
    assert tau_b(*pairs) == -1 and agreement([one, other]).mean == 0
