"""Which checkpoints differ: p-values that fit their intervals, Holm by hand, and how small a difference shows."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coverage_studies import Setting, power
from heedful.evaluate import compare as module
from heedful.evaluate import two_way as two_way_module
from heedful.evaluate.compare import holm, paired_differences, rule_of_three, share_test, smallest_difference
from heedful.evaluate.statistics import clustered_mean, clustered_proportion, paired_share_difference
from heedful.evaluate.two_way import two_way_mean, two_way_proportion, two_way_spread
from heedful.evaluate.win_rate import NOBODY

few = settings(max_examples=80, deadline=None, derandomize=True)
judgements = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 6)), min_size=2, max_size=40)


@pytest.mark.parametrize("each", [module, two_way_module])
def test_examples_run(each: object) -> None:
    outcome = doctest.testmod(each)
    assert outcome.attempted and not outcome.failed


# p-values


@few
@given(judgements, st.sampled_from([0.5, 0.3, 0.8]))
def test_a_p_value_is_below_five_percent_where_the_interval_leaves_the_null_out(items: list, null: float) -> None:
    value, cluster = zip(*items, strict=True)
    found, p = clustered_proportion(value, cluster), share_test(value, cluster, null)
    if found.low is None:
        assert p is None
    elif len(set(value)) > 1:  # equal values have an interval by another rule
        assert (p < 0.05) == (not found.low <= null <= found.high) or p == pytest.approx(0.05, abs=1e-9)


def test_a_fair_coin_gives_uniform_p_values() -> None:
    rng = np.random.default_rng(0)
    cluster = np.repeat(range(60), 3)
    tilt = [rng.beta(2, 2, size=60)[cluster] for _ in range(600)]
    p = [share_test(rng.random(180) < each, cluster) for each in tilt]
    assert 0.03 < np.mean(np.less(p, 0.05)) < 0.08 and 0.4 < np.mean(p) < 0.6


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == [] and holm([None]) == [None]


@few
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_lies_between_one_test_and_bonferroni(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(min(1, own) <= after <= min(1, own * len(p)) + 1e-12 for own, after in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= -1e-12).all()


def test_holm_errs_once_in_twenty_studies_where_single_tests_err_in_most() -> None:
    """Fifteen policies no better than the baseline."""
    rng = np.random.default_rng(1)
    p = [[share_test(rng.integers(0, 2, size=80), range(80)) for _ in range(15)] for _ in range(60)]
    assert np.mean([min(row) < 0.05 for row in p]) > 0.3
    assert np.mean([min(holm(row)) < 0.05 for row in p]) < 0.15


# differences


def test_differences_are_paired_judgement_by_judgement() -> None:
    values = {
        "a": {("p", "k"): 1.0, ("q", "k"): 1.0, ("r", "k"): 0.5},
        "b": {("p", "k"): 0.0, ("q", "k"): 1.0, ("s", "k"): 0.0},
        "c": {},
    }
    found = paired_differences(values)
    assert [(d.first, d.second) for d in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert found[0].estimate == paired_share_difference([1, 1], [0, 1], ["p", "q"])
    assert found[1].p is None and not found[1].differs and found[1].estimate.reason == "no values"
    assert found[0].p == found[0].p_adjusted  # the others have nothing to test


def test_a_clear_difference_differs_after_adjustment() -> None:
    rng = np.random.default_rng(2)
    keys = [(f"p{n}", "k") for n in range(150)]
    rates = {"strong": 0.8, "weak": 0.5, "weak_too": 0.5}
    values = {name: dict(zip(keys, (rng.random(150) < rate) * 1.0, strict=True)) for name, rate in rates.items()}
    differs = {(d.first, d.second): d.differs for d in paired_differences(values)}
    assert differs == {("strong", "weak"): True, ("strong", "weak_too"): True, ("weak", "weak_too"): False}


def test_share_differences_mirror_and_stay_in_bounds() -> None:
    a, b, cluster = [1, 1, 0.5, 1, 1], [0, 0, 0.5, 0, 0.5], [1, 2, 3, 4, 4]
    one, other = paired_share_difference(a, b, cluster), paired_share_difference(b, a, cluster)
    assert one.mean == pytest.approx(0.7) and one[:4] == pytest.approx((-other[0], other[1], -other[3], -other[2]))
    whole = paired_share_difference([1] * 9, [0] * 9, range(9))
    assert whole.mean == 1 and whole.high == 1 and 0 < whole.low < 1


# power


@pytest.mark.parametrize(
    "setting",
    [Setting(20, (1, 1), 0.0, 0.0), Setting(20, (1, 6), 0.3, 0.3), Setting(50, (2, 2), 0.3, 0.6)],
    ids=str,
)
@pytest.mark.parametrize("observed", [0.5, 0.9])
def test_the_smallest_difference_is_found_as_often_as_was_promised(setting: Setting, observed: float) -> None:
    """Whatever rate the study saw that tells of it; with ties the promise is kept with room to spare."""
    assert 0.73 < power(setting, observed, 300) < (0.9 if observed == 0.5 else 0.97)


def test_the_smallest_difference_does_not_shrink_with_the_observed_rate() -> None:
    """Nineteen of twenty won, and ten of twenty, are studies of one size."""
    one, other = (smallest_difference([1] * n + [0] * (20 - n), range(20)).difference for n in (19, 10))
    assert one == pytest.approx(other) and 0.3 < one < 0.33


@pytest.mark.parametrize(
    ("value", "reason"), [([1.0] * 20, "all judgements are equal"), ([0.5] * 20, "equal"), ([0.0] * 20, "equal")]
)
def test_what_did_not_vary_has_no_smallest_difference(value: list[float], reason: str) -> None:
    found = smallest_difference(value, range(20))
    assert found.difference is None and reason in found.reason


def test_a_study_that_finds_nothing_says_so() -> None:
    assert "not even a record without a loss" in smallest_difference([1, 0, 1], range(3)).reason
    assert share_test([1, 1, 1], range(3)) > 0.05
    assert "at least 2 prompts, found 1" in smallest_difference([1, 0], ["p", "p"]).reason
    assert "found 0" in smallest_difference([], []).reason


def test_a_paired_difference_has_twice_the_smallest_difference_of_its_half() -> None:
    rng = np.random.default_rng(5)
    a, b = (dict(zip([(f"p{n}", "k") for n in range(60)], rng.integers(0, 2, 60) * 1.0, strict=True)) for _ in "ab")
    [found] = paired_differences({"a": a, "b": b})
    halves = [(a[key] - b[key] + 1) / 2 for key in a]
    assert found.smallest.difference == pytest.approx(2 * smallest_difference(halves, range(60)).difference)
    [same] = paired_differences({"a": a, "b": a})
    assert same.smallest.difference is None and same.smallest.reason


def test_rule_of_three() -> None:
    for n in (10, 100, 1000):
        rate = rule_of_three(n)
        assert stats.binom.pmf(0, n, rate) == pytest.approx(0.05)
        assert 0.85 * 3 / n < rate < 3 / n < clustered_proportion([0] * n, range(n)).high < 1.8 * 3 / n


# two-way clusters


def two_way_study(rng: np.random.Generator, prompts: int, labelers: int) -> tuple:
    """Every labeler judges every prompt; a third of the variance each from prompt, labeler and neither."""
    prompt, labeler = (part.ravel() for part in np.indices((prompts, labelers)))
    x = rng.normal(size=prompts)[prompt] + rng.normal(size=labelers)[labeler] + rng.normal(size=len(prompt))
    return x, prompt, labeler


def test_two_way_intervals_cover_where_prompts_alone_do_not() -> None:
    studies = [two_way_study(np.random.default_rng([4, n]), 40, 10) for n in range(200)]
    both = [two_way_mean(*study) for study in studies]
    alone = [clustered_mean(x, prompt) for x, prompt, _ in studies]
    assert 0.9 < np.mean([e.low <= 0 <= e.high for e in both]) < 0.99
    assert np.mean([e.low <= 0 <= e.high for e in alone]) < 0.75


def test_the_parts_of_a_two_way_variance_by_hand() -> None:
    """2 × 2, one judgement each: s²(prompt) + s²(labeler) − s²(cell), never below the larger of the first two."""
    x, prompt, labeler = [1.0, 3.0, 2.0, 6.0], ["p", "p", "q", "q"], ["k", "l", "k", "l"]
    by_prompt, by_labeler = clustered_mean(x, prompt), clustered_mean(x, labeler)
    cells = clustered_mean(x, range(4))
    total = by_prompt.stderr**2 + by_labeler.stderr**2 - cells.stderr**2
    assert two_way_mean(x, prompt, labeler).stderr ** 2 == pytest.approx(max(total, by_labeler.stderr**2))
    assert two_way_mean(x, labeler, prompt)[:4] == pytest.approx(two_way_mean(x, prompt, labeler)[:4])


def test_a_negative_variance_falls_back_to_the_larger_part() -> None:
    """Judgements that balance within prompts and within labelers: both parts are 0 and the cells' is not."""
    x, prompt, labeler = [0.0, 1.0, 1.0, 0.0], [0, 0, 1, 1], [0, 1, 0, 1]
    assert two_way_mean(x, prompt, labeler).stderr == 0
    found = two_way_proportion(x, prompt, labeler)
    assert found.low < 0.3 and found.high > 0.7  # the floor of a share holds


def test_one_labeler_or_one_prompt_has_no_two_way_interval() -> None:
    for estimator in (two_way_mean, two_way_proportion):
        found = estimator([1.0, 0.0], ["p", "q"], ["k", "k"])
        assert found.mean == 0.5 and found.low is None and "labelers" in found.reason
        assert "clusters" in estimator([1.0, 0.0], ["p", "p"], ["k", "l"]).reason
    assert two_way_proportion([], [], []).reason == "no values"


def test_a_tie_that_nobody_was_asked_of_is_no_labelers() -> None:
    """One person and the ties of equal texts: there is nothing to tell of other labelers."""
    value, prompt = [1.0, 0.0, 1.0, 1.0, 0.5, 0.5], list("abcdef")
    for who, number in ((["ann"] * 4 + [NOBODY] * 2, 1), ([NOBODY] * 6, 0)):
        for estimator in (two_way_mean, two_way_proportion):
            found = estimator(value, prompt, who)
            assert found.low is None and found.reason.endswith(f"at least 2 labelers, found {number}")


def test_ties_that_nobody_was_asked_of_dilute_what_labelers_differ_in() -> None:
    """Half of the judgements are such ties: the labelers' part of the variance is a quarter of theirs alone."""
    x, prompt, labeler = (np.asarray(part) for part in two_way_study(np.random.default_rng(6), 12, 5))
    num = len(x)
    alone = two_way_spread(x, prompt, labeler)
    diluted = two_way_spread(
        np.r_[x, np.full(num, x.mean())], np.r_[prompt, 12 + np.arange(num)], np.r_[labeler, np.full(num, -1)]
    )
    by_prompt = clustered_mean(x, prompt).stderr ** 2
    with_ties = clustered_mean(np.r_[x, np.full(num, x.mean())], np.r_[prompt, 12 + np.arange(num)]).stderr ** 2
    assert alone.variance > 1.5 * by_prompt
    assert diluted.variance - with_ties == pytest.approx((alone.variance - by_prompt) / 4)
    assert diluted.freedom <= 4


def test_a_study_without_such_ties_is_what_it_was() -> None:
    x, prompt, labeler = two_way_study(np.random.default_rng(7), 9, 4)
    named = [f"l{n}" for n in labeler]
    assert two_way_mean(x, prompt, named) == two_way_mean(x, prompt, labeler)
