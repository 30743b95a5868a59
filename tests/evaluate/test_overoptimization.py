"""The laws against what their papers print, brute force over all draws, and points made from known coefficients."""

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.evaluate.overoptimization import (
    Law,
    Peak,
    best_of_n_value,
    fit,
    observed_peak,
    residual,
)
from heedful.losses.best_of_n import best_of_n_kl


@pytest.mark.parametrize(
    ("n", "kl"),
    [(1, 0), (2, 0.1931), (4, 0.6363), (16, 1.8351), (64, 3.1745), (1_000, 5.9088), (60_000, 10.0021)],
)
def test_the_kl_of_the_best_of_n(n: int, kl: float) -> None:
    assert float(best_of_n_kl(n)) == pytest.approx(kl, abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_choosing_moves_further_than_the_bound_and_different_scores_reach_it(n: int) -> None:
    """A uniform policy over m responses with different scores: P(y is the best) = (rank/m)ⁿ − ((rank − 1)/m)ⁿ."""
    for m in (2, 10, 4_000):
        rank = np.arange(1, m + 1)
        chance = (rank / m) ** n - ((rank - 1) / m) ** n
        kl = float((chance * np.log(chance * m)).sum())
        assert kl <= float(best_of_n_kl(n)) + 1e-12
    assert kl == pytest.approx(float(best_of_n_kl(n)), abs=1e-3)


def test_the_best_of_n_of_the_best_of_n_is_the_best_of_its_square() -> None:
    rank = np.arange(1, 4_001) / 4_000
    for n, rounds in ((2, 3), (4, 2)):
        reached = rank  # the share of probability up to each response
        for _ in range(rounds):
            reached = reached**n
        chance = np.diff(reached, prepend=0.0)
        kl = float((chance * np.log(np.maximum(chance, 1e-300) * 4_000)).sum())
        assert kl == pytest.approx(float(best_of_n_kl(n, rounds)), abs=5e-3)
    assert float(best_of_n_kl(8, rounds=0)) == 0 and float(best_of_n_kl(64, rounds=500)) < 500 * math.log(64)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9)), min_size=1, max_size=7),
    n=st.integers(1, 7),
)
def test_the_estimate_is_the_mean_over_every_choice_of_n_samples(scores: list[tuple[int, int]], n: int) -> None:
    """Where several of those chosen share the highest proxy, each is as likely."""
    if n > len(scores):
        with pytest.raises(ValueError, match="needs at least as many samples"):
            best_of_n_value(*zip(*scores, strict=True), n)
        return
    values = []
    for chosen in combinations(scores, n):
        best = max(proxy for proxy, _ in chosen)
        gold = [g for proxy, g in chosen if proxy == best]
        values.append(sum(gold) / len(gold))
    # ties share their chance within the chosen here, over all samples there: alike in expectation over the order
    proxy, gold_of = zip(*scores, strict=True)
    found = best_of_n_value([proxy], [gold_of], n)[0]
    assert found == pytest.approx(sum(values) / len(values))


def test_it_is_unbiased_for_a_known_policy() -> None:
    """Three responses with known chances: the mean estimate over every sequence of N draws is the exact value."""
    chance, proxy, gold = (0.5, 0.3, 0.2), (0.0, 1.0, 2.0), (1.0, 4.0, -2.0)
    n, number = 2, 4
    up_to = np.cumsum(chance)
    exact = sum(g * (p**n - q**n) for g, p, q in zip(gold, up_to, [0, *up_to[:-1]], strict=True))
    mean = 0.0
    for draws in product(range(3), repeat=number):
        weight = math.prod(chance[i] for i in draws)
        mean += weight * float(best_of_n_value([proxy[i] for i in draws], [gold[i] for i in draws], n)[0])
    assert mean == pytest.approx(exact)


def test_the_best_of_one_is_the_mean_and_of_all_the_highest() -> None:
    proxy, gold = np.random.default_rng(0).normal(size=(2, 5, 9))
    np.testing.assert_allclose(best_of_n_value(proxy, gold, 1), gold.mean(1))
    np.testing.assert_allclose(best_of_n_value(proxy, gold, 9), gold[np.arange(5), proxy.argmax(1)])
    assert np.isfinite(best_of_n_value(np.arange(60_000.0)[None], np.ones((1, 60_000)), 1_000)).all()


@pytest.mark.parametrize(
    ("law", "peak"),
    [
        (Law("best_of_n", 3.0, 0.5), Peak(3.0, 4.5)),
        (Law("rl", 2.0, 0.5), Peak(math.exp(3.0), 0.5 * math.exp(3.0))),
        (Law("best_of_n", 1.0, 0.0), None),
        (Law("rl", 1.0, -0.1), None),
        (Law("best_of_n", -1.0, 0.3), None),
        (Law("rl", 90.0, 1.0), None),
    ],
)
def test_a_peak_is_the_highest_point_of_its_law(law: Law, peak: Peak | None) -> None:
    if peak is None:
        assert law.peak is None
        return
    assert law.peak == pytest.approx(peak)
    assert law.peak is not None
    grid = np.linspace(1e-3, 3 * law.peak.d, 20_001)
    assert grid[law.at(grid).argmax()] == pytest.approx(law.peak.d, rel=1e-3)
    assert law.at(grid).max() == pytest.approx(law.peak.gold, rel=1e-6)


@pytest.mark.parametrize("form", ["best_of_n", "rl"])
def test_a_fit_finds_the_coefficients_that_made_the_points(form: str) -> None:
    law = Law(form, 1.7, 0.45)  # type: ignore[arg-type]
    d = np.linspace(0, 4, 30)
    exact = fit(law.form, d, law.at(d))
    assert exact is not None and exact[1:] == pytest.approx((1.7, 0.45))
    assert float(law.at(0.0)) == 0.0
    rng = np.random.default_rng(1)
    found = [fit(law.form, d, law.at(d) + rng.normal(scale=0.05, size=30)) for _ in range(200)]
    mean = np.mean([each[1:] for each in found if each is not None], 0)
    assert mean == pytest.approx((1.7, 0.45), abs=0.02)
    assert residual(law, d, law.at(d) + 0.1) == pytest.approx(0.1)


def test_weights_say_whom_to_believe() -> None:
    law = Law("best_of_n", 2.0, 0.4)
    d = np.linspace(0.2, 3, 12)
    gold, weight = law.at(d), np.ones(12)
    gold[5], weight[5] = 50.0, 0.0
    found = fit("best_of_n", d, gold, weight)
    assert found is not None and found[1:] == pytest.approx((2.0, 0.4))


def test_too_few_points_are_no_law() -> None:
    assert fit("rl", [0.0, 0.0, 2.0, 2.0], [0, 0, 1, 1]) is None
    assert observed_peak([0, 1, 2, 3], [0, 5, 5, 1]) == (1, 5)
