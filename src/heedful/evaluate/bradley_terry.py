"""Strengths of many models from pairwise judgements with ties: Davidson's Bradley-Terry model, on the Elo scale too.

    P(i beats j) ∝ exp((θᵢ − θⱼ)/2)      P(tie) ∝ ν      P(j beats i) ∝ exp(−(θᵢ − θⱼ)/2)

so that θᵢ − θⱼ is the logarithm of the odds of winning to losing, ties apart (Davidson 1970, "On extending the
Bradley-Terry model to accommodate ties"). In Elo that is (θᵢ − θⱼ) · 400 / ln 10.

A weak prior keeps a perfect record finite: every model also met an average rival (θ = 0) on an imaginary prompt,
half won and half lost, which weighs as much as its real prompts do on average; θ and ln ν have normal priors of
sd 5 and 3. Intervals weigh whole prompts anew at random, the imaginary ones too (Rubin 1981, "The Bayesian bootstrap";
Muliere and Secchi 1996 for the prior), so that a perfect record has an interval with an open mind, not one of no width.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from heedful.config import InputError
from heedful.evaluate.resampling import widened_percentiles
from heedful.evaluate.statistics import Estimate

ELO = 400 / np.log(10)  # per unit of θ
ELO_ORIGIN = 1000.0  # the reference's
PRIOR_PROMPTS = 1.0  # imaginary prompts per model
THETA_SD = 5.0
LOG_NU_SD = 3.0
CHUNK = 250  # resamples fitted side by side

Floats = NDArray[np.float64]


class Game(NamedTuple):
    """One judgement of two models' responses to a prompt: value 1 where the first won, ½ a tie, 0 the second won."""

    prompt_id: str
    first: str
    second: str
    value: float


class BradleyTerry(NamedTuple):
    """`strength` in units of θ and `elo` by model, best first; `num` of an estimate counts the model's games."""

    strength: dict[str, Estimate]
    elo: dict[str, Estimate]
    log_nu: float  # ln ν: how readily judges tie; 0 makes a third of the games between equals ties
    reference: str | None  # whose strength is 0; None: the mean of all
    num_games: int
    num_ties: int
    num_prompts: int


class _Counts(NamedTuple):
    """Games of R resamples: `of_pair` (R, P, 3) first won, tied, second won; `prior` (R, M, 2) won and lost."""

    of_pair: Floats
    prior: Floats


class _Design(NamedTuple):
    first: NDArray[np.intp]  # (P,) the pairs' models
    second: NDArray[np.intp]
    incidence: Floats  # (P, M): +1 at the first, −1 at the second
    outer: Floats  # (P, M·M)


def bradley_terry(
    games: Sequence[Game],
    reference: str | None = None,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> BradleyTerry:
    """Fit strengths to the games; intervals by resampling prompts.

    `reference` names the model whose strength is 0 (Elo 1000), without doubt of its own; None: the mean of all models
    is. Percentiles are widened for few prompts as in `statistics.cluster_bootstrap`. With fewer than two prompts there
    is no interval. Models that no chain of games links are compared through the prior alone, with intervals to match.

    Raises:
        InputError: no game, a reference that played none, a model against itself, or a value that is not 1, ½ or 0: a
            probability is none of the model's three outcomes.
    """
    for game in games:
        _check(game)
    models = sorted({name for game in games for name in (game.first, game.second)})
    if not models:
        raise InputError("Bradley-Terry: there is no judgement of two different models")
    if reference is not None and reference not in models:
        raise InputError(f"Bradley-Terry: reference {reference!r} stands in no judgement; known: {', '.join(models)}")
    design, per_prompt, plays = _tabulate(games, models)
    num_prompts = per_prompt.shape[0]
    shape = (len(design.first), 3)
    weight = (np.array(plays.sum(0)) / np.maximum(np.array((plays > 0).sum(0)), 1)).ravel()  # games per prompt
    once = np.asarray(per_prompt.sum(0)).reshape(1, *shape)
    imaginary = np.tile(weight[None, :, None] / 2, (1, 1, 2))
    theta, log_nu = _fit(design, _Counts(once, PRIOR_PROMPTS * imaginary))
    rng = np.random.default_rng(seed)
    drawn = []
    for start in range(0, num_resamples if num_prompts > 1 else 0, CHUNK):
        number = min(CHUNK, num_resamples - start)
        counts = (per_prompt.T @ rng.standard_exponential((number, num_prompts)).T).T.reshape(number, *shape)
        prior = PRIOR_PROMPTS * rng.standard_exponential((number, len(models), 2)) * imaginary
        drawn.append(_fit(design, _Counts(counts, prior))[0])
    resampled = np.concatenate(drawn) if drawn else np.zeros((0, len(models)))
    origin = models.index(reference) if reference is not None else None
    theta, resampled = _relative(theta, origin), _relative(resampled, origin)
    played = np.asarray(plays.sum(0)).ravel().astype(int)
    strength = _estimates(models, theta[0], resampled, played, num_prompts, confidence, origin)
    elo = {name: _scaled(estimate) for name, estimate in strength.items()}
    ties = sum(game.value == 0.5 for game in games)
    return BradleyTerry(strength, elo, float(log_nu[0]), reference, len(games), ties, num_prompts)


def _check(game: Game) -> None:
    where = f"Bradley-Terry: the judgement of {game.first!r} and {game.second!r} on prompt {game.prompt_id!r}"
    if game.first == game.second:
        raise InputError(f"{where} is of one model against itself; leave it out")
    if game.value not in (0.0, 0.5, 1.0):
        raise InputError(f"{where} has the value {game.value}; it must be 1 (first won), 0.5 (tie) or 0 (second won)")


def _tabulate(games: Sequence[Game], models: Sequence[str]) -> tuple[_Design, sparse.csr_array, sparse.csr_array]:
    """The pairs, games by prompt and outcome (G, 3P), and games by prompt and model (G, M)."""
    place = {name: i for i, name in enumerate(models)}
    a = np.array([place[game.first] for game in games])
    b = np.array([place[game.second] for game in games])
    value = np.array([game.value for game in games])
    swapped = a > b
    low, high = np.where(swapped, b, a), np.where(swapped, a, b)
    outcome = np.rint(2 * (1 - np.where(swapped, 1 - value, value))).astype(int)  # 0 first won, 1 tied, 2 second won
    prompts, prompt = np.unique([game.prompt_id for game in games], return_inverse=True)
    pairs, pair = np.unique(low * len(models) + high, return_inverse=True)
    first, second = pairs // len(models), pairs % len(models)
    ones = np.ones(len(games))
    per_prompt = sparse.csr_array((ones, (prompt, 3 * pair + outcome)), shape=(len(prompts), 3 * len(pairs)))
    both = np.concatenate([prompt, prompt]), np.concatenate([low, high])
    plays = sparse.csr_array((np.ones(2 * len(games)), both), shape=(len(prompts), len(models)))
    incidence = np.zeros((len(pairs), len(models)))
    incidence[np.arange(len(pairs)), first] = 1
    incidence[np.arange(len(pairs)), second] = -1
    outer = np.einsum("pi,pj->pij", incidence, incidence).reshape(len(pairs), -1)
    return _Design(first, second, incidence, outer), per_prompt, plays


def _fit(design: _Design, counts: _Counts, tolerance: float = 1e-6) -> tuple[Floats, Floats]:
    """θ (R, M) and ln ν (R,) of the highest posterior, by Newton's method for all resamples at once."""
    num, models = counts.prior.shape[:2]
    theta, log_nu = np.zeros((num, models)), np.zeros(num)
    total, met = counts.of_pair.sum(2), counts.prior.sum(2)
    for _ in range(60):
        half = (theta[:, design.first] - theta[:, design.second]) / 2
        odds = np.exp(np.stack([half, np.broadcast_to(log_nu[:, None], half.shape), -half]))
        win, tie, lose = odds / odds.sum(0)
        average = 1 / (1 + np.exp(-theta))
        by_pair = (counts.of_pair[:, :, 0] - counts.of_pair[:, :, 2] - total * (win - lose)) / 2
        gradient = np.empty((num, models + 1))
        gradient[:, :models] = by_pair @ design.incidence + counts.prior[:, :, 0] - met * average
        gradient[:, :models] -= theta / THETA_SD**2
        gradient[:, models] = (counts.of_pair[:, :, 1] - total * tie).sum(1) - log_nu / LOG_NU_SD**2
        curve = np.empty((num, models + 1, models + 1))
        spread = total * (win + lose - (win - lose) ** 2) / 4
        curve[:, :models, :models] = (spread @ design.outer).reshape(num, models, models)
        curve[:, range(models), range(models)] += met * average * (1 - average) + 1 / THETA_SD**2
        curve[:, :models, models] = -(total * (win - lose) * tie / 2) @ design.incidence
        curve[:, models, :models] = curve[:, :models, models]
        curve[:, models, models] = (total * tie * (1 - tie)).sum(1) + 1 / LOG_NU_SD**2
        step = np.clip(np.linalg.solve(curve, gradient[:, :, None])[:, :, 0], -2, 2)
        theta, log_nu = theta + step[:, :models], log_nu + step[:, models]
        if np.abs(step).max() < tolerance:
            break
    return theta, log_nu


def _relative(theta: Floats, origin: int | None) -> Floats:
    return theta - (theta.mean(1) if origin is None else theta[:, origin])[:, None]


def _estimates(
    models: Sequence[str],
    theta: Floats,
    resampled: Floats,
    played: NDArray[np.intp],
    num_prompts: int,
    confidence: float,
    origin: int | None,
) -> dict[str, Estimate]:
    found = {}
    for i in sorted(range(len(models)), key=lambda i: -theta[i]):
        number, value = int(played[i]), float(theta[i])
        if i == origin:
            found[models[i]] = Estimate(0.0, 0.0, 0.0, 0.0, number, num_prompts, "the reference")
        elif num_prompts < 2:
            why = "an interval needs at least 2 prompts, found 1"
            found[models[i]] = Estimate(value, None, None, None, number, num_prompts, why)
        else:
            low, high = widened_percentiles(resampled[:, i], num_prompts, confidence)
            spread = float(resampled[:, i].std(ddof=1))
            found[models[i]] = Estimate(value, spread, low, high, number, num_prompts)
    return found


def _scaled(estimate: Estimate) -> Estimate:
    """The same on the Elo scale."""

    def elo(value: float | None) -> float | None:
        return None if value is None else float(ELO_ORIGIN + ELO * value)

    error = None if estimate.stderr is None else float(ELO * estimate.stderr)
    low, high = elo(estimate.low), elo(estimate.high)
    return estimate._replace(mean=elo(estimate.mean), stderr=error, low=low, high=high)


def probabilities(fitted: BradleyTerry, one: str, other: str) -> Mapping[str, float]:
    """The model's probabilities that `one` wins, ties with and loses to `other`.

    Raises:
        KeyError: a model that is not in the fit.
    """
    first, second = fitted.strength[one].mean, fitted.strength[other].mean
    assert first is not None and second is not None
    odds = np.exp([(first - second) / 2, fitted.log_nu, (second - first) / 2])
    return dict(zip(("win", "tie", "loss"), (odds / odds.sum()).tolist(), strict=True))
