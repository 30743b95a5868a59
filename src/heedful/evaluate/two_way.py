"""Intervals for judgements that share a prompt or a labeler: clustered both ways.

    s² = s²(prompt) + s²(labeler) − s²(prompt and labeler)      never below either of the first two

Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering". Each part has the corrections for few
clusters of `statistics.spread`; the sum can turn out below a single part, even negative, and then the largest part
stands for it (MacKinnon, Nielsen and Webb 2024). Student's t has the degrees of freedom of the smaller clustering, so a
handful of labelers makes a wide interval: it speaks of labelers like these, where one clustered by prompt speaks of
these labelers alone.

Ties of equal texts that nobody was asked about (`win_rate.NOBODY`) are no labeler's. They count in the mean and in
s²(prompt); the other two parts are those of the q judgements that were asked for, times (q/n)², since no labeler moves
the rest.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from heedful.evaluate.statistics import (
    Estimate,
    Spread,
    clustered_mean,
    mean_interval,
    share_interval,
    shares,
    spread,
)
from heedful.evaluate.win_rate import NOBODY


def two_way_mean(value: ArrayLike, prompt: ArrayLike, labeler: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean with an interval clustered by prompt and by labeler.

    `num_clusters` counts prompts. With fewer than two prompts or two labelers there is no interval, with a reason.

    Raises:
        ValueError: lists of different lengths, or a value that is not finite.

    >>> estimate = two_way_mean([1.0, 3.0, 2.0, 6.0], ["p", "p", "q", "q"], ["k", "l", "k", "l"])
    >>> estimate.mean, round(estimate.stderr, 3)
    (3.0, 1.5)
    """
    by_prompt = clustered_mean(value, prompt, confidence)
    if by_prompt.low is None:
        return by_prompt
    x, index, who = np.asarray(value, dtype=np.float64), _numbered(prompt), _labelers(labeler)
    if who.max() < 1:
        return _few_labelers(by_prompt, who)
    return mean_interval(x, two_way_spread(x, index, who), by_prompt.num_clusters, confidence)


def two_way_proportion(value: ArrayLike, prompt: ArrayLike, labeler: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Share with an interval inside 0..1, clustered by prompt and by labeler; otherwise as `clustered_proportion`.

    Raises:
        ValueError: as `statistics.clustered_proportion`.
    """
    x, index, num_prompts = shares(value, prompt)
    by_prompt = clustered_mean(x, prompt, confidence)
    if by_prompt.low is None:
        return by_prompt
    who = _labelers(labeler)
    if who.max() < 1:
        return _few_labelers(by_prompt, who)
    fewest = min(num_prompts, int(who.max()) + 1)
    found = share_interval(x, two_way_spread(x, index, who), fewest, confidence)
    return found._replace(num_clusters=num_prompts)


def two_way_spread(x: NDArray[np.float64], prompt: NDArray[np.intp], labeler: NDArray[np.intp]) -> Spread:
    """Variance and degrees of freedom; prompt and labeler (n,) numbered from 0, at least two of each; −1: nobody."""
    asked = labeler >= 0
    weight = float(asked.mean()) ** 2
    cell = _numbered(prompt[asked] * (labeler.max() + 1) + labeler[asked])
    by_prompt = spread(x, prompt, int(prompt.max()) + 1)
    by_labeler = spread(x[asked], labeler[asked], int(labeler.max()) + 1)
    shared = spread(x[asked], cell, int(cell.max()) + 1)
    parts = [by_prompt.variance, weight * by_labeler.variance]
    total = sum(parts) - weight * shared.variance
    return Spread(max(total, *parts), min(by_prompt.freedom, by_labeler.freedom))


def _numbered(names: ArrayLike) -> NDArray[np.intp]:
    return np.unique(np.asarray(names), return_inverse=True)[1]


def _labelers(names: ArrayLike) -> NDArray[np.intp]:
    """Numbered from 0; −1 where nobody was asked."""
    found = np.asarray(names)
    asked = found != NOBODY
    number = np.full(found.shape, -1, dtype=np.intp)
    number[asked] = _numbered(found[asked])
    return number


def _few_labelers(by_prompt: Estimate, who: NDArray[np.intp]) -> Estimate:
    why = f"a two-way interval needs at least 2 labelers, found {who.max() + 1}"
    return by_prompt._replace(stderr=None, low=None, high=None, reason=why)
