"""Simulated studies with a known truth: how often do 95 % intervals cover it?

A study has prompts, each judged several times. Judgements of one prompt share their luck with a chance that makes their
correlation what the setting says; they are won, tied or lost with exactly the stated probabilities.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from heedful.evaluate.bradley_terry import Game, bradley_terry
from heedful.evaluate.compare import share_test, smallest_difference
from heedful.evaluate.length_control import length_controlled
from heedful.evaluate.statistics import Estimate, clustered_proportion, paired_share_difference

STRENGTHS = np.array([-0.8, 0.0, 0.4, 1.2])
RESAMPLES = 300


class Setting(NamedTuple):
    """`sizes`: fewest and most judgements of a prompt; `ties`: their share where neither side is better."""

    prompts: int
    sizes: tuple[int, int] = (2, 2)
    correlation: float = 0.3
    ties: float = 0.3

    def __str__(self) -> str:
        low, high = self.sizes
        each = f"{low}" if low == high else f"{low}–{high}"
        return f"{self.prompts} prompts × {each}, correlation {self.correlation}, ties {self.ties}"


Study = Callable[[np.random.Generator, Setting], Sequence[tuple[Estimate, float]]]  # intervals and the truths


def luck(rng: np.random.Generator, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Each judgement's prompt, and its uniform draw, shared within the prompt now and then."""
    number = rng.integers(setting.sizes[0], setting.sizes[1] + 1, size=setting.prompts)
    prompt = np.repeat(np.arange(setting.prompts), number)
    shared = rng.random(len(prompt)) < np.sqrt(setting.correlation)
    return prompt, np.where(shared, rng.random(setting.prompts)[prompt], rng.random(len(prompt)))


def judged(draw: np.ndarray, mean: np.ndarray | float, ties: float) -> np.ndarray:
    """1, ½ or 0 with the given mean; ties are `ties` at ½ and fewer the further the mean lies from it."""
    tied = ties * 2 * np.minimum(mean, 1 - np.asarray(mean))
    won = mean - tied / 2
    return np.where(draw < won, 1.0, np.where(draw < won + tied, 0.5, 0.0))


def win_rate_at(mean: float) -> Study:
    def study(rng: np.random.Generator, setting: Setting) -> Sequence[tuple[Estimate, float]]:
        prompt, draw = luck(rng, setting)
        return [(clustered_proportion(judged(draw, mean, setting.ties), prompt), mean)]

    return study


def difference(rng: np.random.Generator, setting: Setting) -> Sequence[tuple[Estimate, float]]:
    """Two policies, 0.65 and 0.55 against the baseline; half of their luck is the prompt's alone."""
    prompt, one = luck(rng, setting)
    other = np.where(rng.random(len(one)) < 0.5, one, rng.random(len(one)))
    a, b = judged(one, 0.65, setting.ties), judged(other, 0.55, setting.ties)
    return [(paired_share_difference(a, b, prompt), 0.65 - 0.55)]


def strengths(rng: np.random.Generator, setting: Setting) -> Sequence[tuple[Estimate, float]]:
    """Four models, every two of them judged on every prompt; each strength against the second one's."""
    log_nu = np.log(2 * setting.ties / (1 - setting.ties)) if setting.ties else -np.inf
    games = []
    for i in range(len(STRENGTHS)):
        for j in range(i):
            prompt, draw = luck(rng, setting)
            half = (STRENGTHS[i] - STRENGTHS[j]) / 2
            odds = np.exp([half, log_nu, -half])
            won, tied, _ = odds / odds.sum()
            value = np.where(draw < won, 1.0, np.where(draw < won + tied, 0.5, 0.0))
            games += [Game(f"p{p}", f"m{i}", f"m{j}", v) for p, v in zip(prompt, value.tolist(), strict=True)]
    found = bradley_terry(games, "m1", num_resamples=RESAMPLES, seed=int(rng.integers(2**31)))
    return [(found.strength[f"m{i}"], STRENGTHS[i] - STRENGTHS[1]) for i in (0, 2, 3)]


def length_control(rng: np.random.Generator, setting: Setting) -> Sequence[tuple[Estimate, float]]:
    """A policy of longer responses, which judges like; at equal length it wins σ(0.4) of comparisons."""
    prompt, draw = luck(rng, setting)
    theta, phi = 0.4, 0.8
    longer = 0.3 + 0.7 * rng.normal(size=setting.prompts)[prompt] + 0.7 * rng.normal(size=len(prompt))
    mean = 1 / (1 + np.exp(-theta - phi * np.tanh(longer / np.sqrt(0.98))))
    seed = int(rng.integers(2**31))
    won = judged(draw, mean, setting.ties)
    found = length_controlled(won, 100 * longer, prompt, num_resamples=RESAMPLES, seed=seed)
    return [(found.win_rate, 1 / (1 + np.exp(-theta)))]


def coverage(study: Study, setting: Setting, number: int, seed: int = 0) -> list[float]:
    """Share of `number` studies whose interval covers the truth, for each of the study's intervals."""
    hits = []
    for n in range(number):
        found = study(np.random.default_rng([seed, n]), setting)
        hits.append([covers(estimate, truth) for estimate, truth in found])
    return np.mean(hits, axis=0).tolist()


def power(setting: Setting, observed: float, number: int, seed: int = 0) -> float:
    """Share of `number` studies that find the smallest difference which a study of that observed rate tells of.

    It is told of 3,000 prompts of the setting, so that the promise is tested and not the luck of one study.
    """
    rng = np.random.default_rng([seed, int(100 * observed)])
    prompt, draw = luck(rng, setting._replace(prompts=3000))
    smallest = smallest_difference(judged(draw, observed, setting.ties), prompt, setting.prompts).difference
    assert smallest is not None
    found = []
    for _ in range(number):
        prompt, draw = luck(rng, setting)
        p = share_test(judged(draw, 0.5 + smallest, setting.ties), prompt)
        found.append(p is not None and p < 0.05)
    return float(np.mean(found))


def covers(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low - 1e-12 <= truth <= estimate.high + 1e-12
