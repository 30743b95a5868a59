"""The laws of over-optimisation: gold score against how far a proxy was maximised (Gao et al. 2022, arXiv 2210.10760).

    d = √KL(π ‖ π_init), nats;   best-of-n: R(d) = d·(α − β·d);   RL: R(d) = d·(α − β·ln d), R(0) = 0

R is the gold score gained over the start. Both laws are linear in α and β, so fitting them is least squares; where β is
above 0 they have a peak, beyond which more of the proxy costs gold.

Symbols: N samples of a prompt, P prompts, M points (d, gold).
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

Form = Literal["best_of_n", "rl"]
Numbers = NDArray[np.float64]


def best_of_n_value(proxy: ArrayLike, gold: ArrayLike, n: int) -> Numbers:
    """The expected gold score of the best of n by the proxy, estimated without bias from N ≥ n samples of each prompt.

    proxy and gold are (P, N); the result is (P,). In the proxy's order the i-th sample is the best of n that are drawn
    without replacement with probability C(i − 1, n − 1) / C(N, n). Samples of equal proxy score share their chance.

    Nakano et al. 2021 (WebGPT, arXiv 2112.09332), appendix I; Gao et al. 2022, section 3.

    >>> best_of_n_value([[0.1, 0.3, 0.2]], [[5.0, 1.0, 3.0]], n=2).tolist()  # (3 + 1 + 1) / 3
    [1.6666666666666667]
    """
    proxy, gold = np.atleast_2d(np.asarray(proxy, np.float64)), np.atleast_2d(np.asarray(gold, np.float64))
    number = proxy.shape[1]
    if not 1 <= n <= number:
        raise ValueError(f"the best of {n} needs at least as many samples of a prompt, and there are {number}")
    # P(the best is among the i lowest) = C(i, n) / C(N, n)
    i = np.arange(number + 1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        log_chance = gammaln(i + 1) - gammaln(i - n + 1) - gammaln(number + 1) + gammaln(number - n + 1)
    at_most = np.where(i >= n, np.exp(log_chance), 0.0)
    ordered = np.sort(proxy, axis=1)
    below = np.stack([np.searchsorted(row, own, side="left") for row, own in zip(ordered, proxy, strict=True)])
    up_to = np.stack([np.searchsorted(row, own, side="right") for row, own in zip(ordered, proxy, strict=True)])
    chance = (at_most[up_to] - at_most[below]) / (up_to - below)
    return np.asarray((chance * gold).sum(1))


class Peak(NamedTuple):
    """Where a law is highest, in √nats, and how high."""

    d: float
    gold: float


class Law(NamedTuple):
    """A fitted law."""

    form: Form
    alpha: float
    beta: float

    def at(self, d: ArrayLike) -> Numbers:
        """Gold score gained at d, √nats."""
        d = np.asarray(d, dtype=np.float64)
        return self.alpha * d - self.beta * _bent(self.form, d)

    @property
    def peak(self) -> Peak | None:
        """None where there is none at d > 0: the gold score only rises, or only falls.

        >>> Law("best_of_n", alpha=2.0, beta=0.5).peak
        Peak(d=2.0, gold=2.0)
        >>> Law("rl", alpha=1.0, beta=1.0).peak
        Peak(d=1.0, gold=1.0)
        """
        if self.beta <= 0 or (self.form == "best_of_n" and self.alpha <= 0):
            return None
        if self.form == "best_of_n":
            return Peak(self.alpha / (2 * self.beta), self.alpha**2 / (4 * self.beta))
        exponent = self.alpha / self.beta - 1
        if exponent > 50:  # further than anyone will ever optimise
            return None
        d = math.exp(exponent)
        return Peak(d, self.beta * d)


def _bent(form: Form, d: Numbers) -> Numbers:
    """What β is a factor of: d² or d·ln d."""
    return d * d if form == "best_of_n" else d * np.log(np.where(d > 0, d, 1.0))


def fit(form: Form, d: ArrayLike, gold: ArrayLike, weight: ArrayLike | None = None) -> Law | None:
    """The law nearest to M points in (weighted) squares; None where they are fewer than two different d above 0.

    d is √KL, gold the score gained over the start, both (M,); weight (M,), 1 / variance, is 1 without.
    """
    d, gold = np.asarray(d, np.float64), np.asarray(gold, np.float64)
    root = np.sqrt(np.ones_like(d) if weight is None else np.asarray(weight, np.float64))
    if len(np.unique(d[d > 0])) < 2:
        return None
    columns = np.stack([d, -_bent(form, d)], 1) * root[:, None]
    (alpha, beta), *_ = np.linalg.lstsq(columns, gold * root, rcond=None)
    return Law(form, float(alpha), float(beta))


def residual(law: Law, d: ArrayLike, gold: ArrayLike) -> float:
    """Root of the mean squared distance of the points from the law, in gold score."""
    return float(np.sqrt(np.mean((law.at(d) - np.asarray(gold, np.float64)) ** 2)))


def observed_peak(d: Sequence[float], gold: Sequence[float]) -> Peak:
    """The highest of the points themselves; of equal ones the nearest."""
    place = int(np.argmax(gold))
    return Peak(float(d[place]), float(gold[place]))
