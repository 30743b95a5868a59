"""Which checkpoints differ, once all that were compared are counted; how small a difference could have been seen."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from heedful.evaluate.statistics import Estimate, effective_size, paired_share_difference, shares, spread


class Difference(NamedTuple):
    """One policy's win rate less another's, on the judgements both stand in.

    `p_adjusted` is Holm's over all that were compared together; `differs` says that it is below 1 − confidence;
    `smallest` is what such a study finds in 80 % of cases, as `smallest_difference`.
    """

    first: str
    second: str
    estimate: Estimate
    p: float | None
    p_adjusted: float | None
    differs: bool
    smallest: "Smallest"


def share_test(value: ArrayLike, cluster: ArrayLike, null: float = 0.5) -> float | None:
    """p-value of the share being `null`, two-sided: the test whose inversion is `clustered_proportion`'s interval.

    z = (m − null) / √(null·(1 − null)/k), k the effective sample size, against Student's t. None with fewer than two
    clusters.

    Raises:
        ValueError: as `statistics.clustered_proportion`.

    >>> share_test([1, 0, 1, 0], ["a", "b", "c", "d"])
    1.0
    """
    x, index, num_clusters = shares(value, cluster)
    if num_clusters < 2:
        return None
    found = spread(x, index, num_clusters)
    error = np.sqrt(null * (1 - null) / effective_size(x, found, num_clusters))
    return float(2 * stats.t.sf(abs(x.mean() - null) / error, found.freedom))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values, in the order given: reject where one is at most α, and all errors together stay at α.

    adjusted₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1)·p₍ⱼ₎). Values that are None (nothing to test) stay None and do
    not count.

    Holm 1979.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - place) * p))
        adjusted[i] = highest
    return adjusted


def paired_differences(
    values: Mapping[str, Mapping[tuple[str, str], float]],
    pairs: Sequence[tuple[str, str]] | None = None,
    confidence: float = 0.95,
) -> list[Difference]:
    """The paired difference of every two policies' win rates, with Holm's adjustment over all of them.

    values[name] holds 1, ½ or 0 by (prompt, labeler). `pairs` lists which to compare; None: every two, in the order
    given. Differences are taken judgement by judgement, where both have one, and clustered by prompt.
    """
    wanted = list(combinations(values, 2)) if pairs is None else list(pairs)
    found: list[tuple[Estimate, float | None, Smallest]] = []
    for one, other in wanted:
        keys = sorted(values[one].keys() & values[other].keys())
        first, second = ([values[name][key] for key in keys] for name in (one, other))
        prompts = [prompt for prompt, _ in keys]
        halves = [(a - b + 1) / 2 for a, b in zip(first, second, strict=True)]
        estimate = paired_share_difference(first, second, prompts, confidence)
        half = smallest_difference(halves, prompts, confidence=confidence)
        smallest = Smallest(None if half.difference is None else 2 * half.difference, half.reason)
        found.append((estimate, share_test(halves, prompts), smallest))
    adjusted = holm([p for _, p, _ in found])
    return [
        Difference(one, other, estimate, p, after, after is not None and after < 1 - confidence, smallest)
        for (one, other), (estimate, p, smallest), after in zip(wanted, found, adjusted, strict=True)
    ]


class Smallest(NamedTuple):
    """A difference, or the reason why there is none."""

    difference: float | None
    reason: str = ""


def smallest_difference(
    value: ArrayLike,
    cluster: ArrayLike,
    num_prompts: int | None = None,
    confidence: float = 0.95,
    power: float = 0.8,
) -> Smallest:
    """How far from ½ a true share must lie for `share_test` to find it in `power` of studies like this one.

    d solves d = t(1 − α/2)·½/√k + t(power)·√(p(1 − p)/k) at p = ½ + d: the test's own error, and the error of the share
    itself. k = n/D · p/(p − 2τ) is the effective sample size there. D = s²·n/v, v the variance of the n values, is how
    much clusters widen the error, and is at least ½ as in `clustered_proportion`; τ = m(1 − m) − v is what ties take
    off the variance at ½, and 2(1 − p)·τ at p, since what is unequal ties less. Student's t has the test's freedom. So
    the observed share m does not count by itself, only the study's size, its clusters and its ties. `num_prompts`: of
    another study with such prompts; None: of this one.

    For a paired difference give (a − b + 1)/2 and double it. There is none with fewer than two clusters, where all
    values are equal, and where not even a record without a loss would be found.

    Bloom 1995, "Minimum detectable effects", with the errors of a share.

    Raises:
        ValueError: as `statistics.clustered_proportion`.

    >>> won = [1, 0] * 50
    >>> [round(smallest_difference(won, range(100), number).difference, 3) for number in (100, 400)]
    [0.14, 0.07]
    >>> smallest_difference([1] * 20, range(20)).reason
    'all judgements are equal, so how much such judgements vary cannot be seen'
    """
    x, index, num_clusters = shares(value, cluster)
    if num_clusters < 2:
        return Smallest(None, f"it needs at least 2 prompts, found {num_clusters}")
    if np.ptp(x) == 0:
        return Smallest(None, "all judgements are equal, so how much such judgements vary cannot be seen")
    found, number = spread(x, index, num_clusters), num_prompts or num_clusters
    freedom = max(1.0, (found.freedom + 1) * number / num_clusters - 1)
    sure, likely = stats.t.ppf([(1 + confidence) / 2, power], freedom)
    tied = 2 * (x.mean() * (1 - x.mean()) - x.var())
    error = np.sqrt(max(found.variance / x.var(), 0.5 / len(x)) * num_clusters / number)

    def beyond(d: float) -> float:
        """Convex and below 0 at 0, so it crosses 0 once or not at all."""
        p = 0.5 + d
        return float(d - error * (sure * np.sqrt((p - tied) / p) / 2 + likely * np.sqrt((1 - p) * (p - tied))))

    if beyond(0.5) < 0:
        return Smallest(None, f"{number} prompts are too few: not even a record without a loss would be found so often")
    return Smallest(float(optimize.brentq(beyond, 0.0, 0.5)))


def rule_of_three(num_prompts: int, confidence: float = 0.95) -> float:
    """The highest rate under which `num_prompts` prompts without a single case still have probability 1 − confidence.

    1 − (1 − confidence)^(1/n), about 3/n at 95 % (Hanley and Lippman-Hand 1983). It is one-sided; the two-sided
    interval of `statistics.clustered_proportion` ends somewhat higher.

    >>> round(rule_of_three(100), 4)
    0.0295
    """
    return float(1 - (1 - confidence) ** (1 / num_prompts))
