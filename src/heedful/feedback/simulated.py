"""Simulated labelers: a utility seen through own weights, noise, ties and a position habit.

A labeler sees utility + noise, one Gaussian draw per text (Thurstone 1927), so two labelers agree on a pair the more
often the further its texts lie apart. The utility is any function of prompt and text: the world's gold rater, a
sentiment scorer, a metric. Judging the same texts again gives the same record with the same id.

Command: none; recipes name the groups they need.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from heedful.config import InputError
from heedful.types import UNKNOWN_GUIDELINE, Labeler, LabelerGroup, Prompt, Ranking, Rating, Response
from heedful.world import EVALUATION_WEIGHTS, TRAIN_WEIGHTS, GoldRating, World, weighted

Utility = Callable[[Prompt, str], float]
Purpose = Literal["train", "evaluation"]
ResponseSet = tuple[Prompt, Sequence[Response]]

TRAIN_AGREEMENT, HELDOUT_AGREEMENT = 0.726, 0.773  # InstructGPT, section 3.4 and appendix B.1
WORLD_RANGE = (-0.8, 4.0)  # utilities that are marked 1 and 7


@dataclass(frozen=True)
class SimulatedLabeler:
    """`evaluation_utility` serves judgements of purpose "evaluation"; without one they use `utility`.

    noise_sd, tie_width and position_habit are in units of the utility: neighbours closer than tie_width are tied, and
    the first place on the page is worth position_habit more than the last. `range` holds the utilities marked 1 and 7.
    """

    labeler: Labeler
    utility: Utility
    noise_sd: float
    tie_width: float = 0.0
    position_habit: float = 0.0
    evaluation_utility: Utility | None = None
    flags: Callable[[Prompt, str], dict[str, bool]] | None = None
    range: tuple[float, float] = (-1.0, 1.0)
    guideline: str = UNKNOWN_GUIDELINE
    seed: int = 0

    def rank(self, prompt: Prompt, responses: Sequence[Response], purpose: Purpose = "train") -> Ranking:
        """An order of the responses, presented in a shuffled order that is kept."""
        order = self._order(prompt, responses)
        seen = self._means(prompt, responses, purpose) + self.noise_sd * self._noise(prompt, responses, purpose)
        words = sum(len(response.text.split()) for response in responses)
        ids = tuple(response.id for response in responses)
        key = (prompt.id, *sorted(ids))
        pace = random.Random(_digest(self.seed, self.labeler.id, "pace", *key)).uniform(0.7, 1.4)
        return Ranking(
            id=f"rank-{_digest(self.seed, self.labeler.id, purpose, self.guideline, *key)}",
            prompt_id=prompt.id,
            labeler=self.labeler.id,
            responses=ids,
            rank=ranks(seen, self.tie_width),
            order=tuple(responses[i].id for i in order),
            purpose=purpose,
            guideline=self.guideline,
            seconds=round(pace * (10 + 0.4 * words + 4 * len(responses)), 1),
        )

    def rate(self, prompt: Prompt, response: Response, purpose: Purpose = "train") -> Rating:
        """An overall mark 1..7 from the noisy utility, and the boxes of `flags`."""
        utility, low, high = self._utility(purpose), *self.range
        noise = self._noise(prompt, [response], purpose)[0]
        seen = utility(prompt, response.text) + self.noise_sd * noise
        key = (prompt.id, response.id)
        pace = random.Random(_digest(self.seed, self.labeler.id, "pace", *key)).uniform(0.7, 1.4)
        return Rating(
            id=f"rate-{_digest(self.seed, self.labeler.id, purpose, self.guideline, *key)}",
            prompt_id=prompt.id,
            response_id=response.id,
            labeler=self.labeler.id,
            overall=min(7, max(1, round(1 + 6 * (seen - low) / (high - low)))),
            flags=self.flags(prompt, response.text) if self.flags else {},
            purpose=purpose,
            guideline=self.guideline,
            seconds=round(pace * (6 + 0.4 * len(response.text.split())), 1),
        )

    def _utility(self, purpose: Purpose) -> Utility:
        return self.evaluation_utility if purpose == "evaluation" and self.evaluation_utility else self.utility

    def _order(self, prompt: Prompt, responses: Sequence[Response]) -> list[int]:
        order = sorted(range(len(responses)), key=lambda i: responses[i].id)
        random.Random(
            _digest(self.seed, self.labeler.id, "order", prompt.id, *(responses[i].id for i in order))
        ).shuffle(order)
        return order

    def _means(self, prompt: Prompt, responses: Sequence[Response], purpose: Purpose) -> np.ndarray:
        """(K,) utilities with the place on the page, before noise."""
        utility = self._utility(purpose)
        mean = np.array([utility(prompt, response.text) for response in responses])
        for place, i in enumerate(self._order(prompt, responses)):
            mean[i] += self.position_habit * (0.5 - place / max(1, len(responses) - 1))
        return mean

    def _noise(self, prompt: Prompt, responses: Sequence[Response], purpose: Purpose) -> np.ndarray:
        """(K,) standard normal draws; equal texts share one, so a labeler never tells them apart."""
        keys = (
            _digest(self.seed, self.labeler.id, "noise", purpose, prompt.id, response.text) for response in responses
        )
        return np.array([random.Random(key).gauss() for key in keys])


def ranks(utility: Iterable[float], tie_width: float) -> tuple[int, ...]:
    """Ranks from 1 (best); a response less than tie_width below the best of its rank is tied with it."""
    values = list(utility)
    rank = [0] * len(values)
    place, best = 0, float("inf")
    for i in sorted(range(len(values)), key=lambda i: -values[i]):
        if place == 0 or best - values[i] > tie_width:
            place, best = place + 1, values[i]
        rank[i] = place
    return tuple(rank)


def world_labelers(
    world: World, num_train: int = 10, num_heldout: int = 5, noise_sd: tuple[float, float] = (1.0, 0.8), seed: int = 0
) -> list[SimulatedLabeler]:
    """The world's two groups; `noise_sd` is for the training and the held-out group (see `calibrate_noise`).

    Each labeler weighs the parts of the gold rating in their own way, around the guideline's weights.
    """
    gold = _Gold(world)
    groups: list[tuple[LabelerGroup, int, float]] = [
        ("train", num_train, noise_sd[0]),
        ("heldout", num_heldout, noise_sd[1]),
    ]
    return [_world_labeler(gold, group, i, sd, seed) for group, num, sd in groups for i in range(num)]


def _world_labeler(gold: "_Gold", group: LabelerGroup, number: int, noise_sd: float, seed: int) -> SimulatedLabeler:
    rng = random.Random(_digest(seed, group, number))
    own = {name: rng.lognormvariate(0, 0.25) for name in TRAIN_WEIGHTS}
    return SimulatedLabeler(
        labeler=Labeler(id=f"{group}-{number}", group=group, kind="simulated"),
        utility=gold.utility({name: own[name] * weight for name, weight in TRAIN_WEIGHTS.items()}),
        evaluation_utility=gold.utility({name: own[name] * weight for name, weight in EVALUATION_WEIGHTS.items()}),
        noise_sd=noise_sd,
        tie_width=rng.uniform(0.05, 0.25),
        position_habit=rng.uniform(0.0, 0.2),
        flags=lambda prompt, text: boxes(prompt, gold.rating(prompt, text)),
        range=WORLD_RANGE,
        guideline="world-1",
        seed=seed,
    )


def boxes(prompt: Prompt, rating: GoldRating) -> dict[str, bool]:
    """The boxes a labeler is shown for the prompt: whether it keeps to a constraint only where the prompt sets one."""
    return {
        flag: ticked
        for flag, ticked in rating.flags.items()
        if flag != "satisfies_constraint" or prompt.task.get("constraints")
    }


class _Gold:
    """Gold ratings, each computed once however many labelers judge the text."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[tuple[str, str], GoldRating] = {}

    def rating(self, prompt: Prompt, text: str) -> GoldRating:
        key = (prompt.id, text)
        if key not in self._known:
            self._known[key] = self._world.rate(prompt, text)
        return self._known[key]

    def utility(self, weights: Mapping[str, float]) -> Utility:
        return lambda prompt, text: weighted(self.rating(prompt, text).parts, weights)


def agreement(labelers: Sequence[SimulatedLabeler], sets: Sequence[ResponseSet], purpose: Purpose = "train") -> float:
    """Share of (labeler pair, response pair) with the same order, over response pairs neither of the two ties."""
    return _agreement(np.array([labeler.noise_sd for labeler in labelers]), _seen(labelers, sets, purpose))


class _Seen(NamedTuple):
    """What L labelers see of S sets of up to K responses; −inf where a set has fewer."""

    mean: np.ndarray  # (S, L, K)
    noise: np.ndarray  # (S, L, K)
    tie_width: np.ndarray  # (L,)


def _seen(labelers: Sequence[SimulatedLabeler], sets: Sequence[ResponseSet], purpose: Purpose) -> _Seen:
    most = max((len(responses) for _, responses in sets), default=0)
    mean = np.full((len(sets), len(labelers), most), -np.inf)
    noise = np.zeros_like(mean)
    for s, (prompt, responses) in enumerate(sets):
        for l, labeler in enumerate(labelers):
            mean[s, l, : len(responses)] = labeler._means(prompt, responses, purpose)
            noise[s, l, : len(responses)] = labeler._noise(prompt, responses, purpose)
    return _Seen(mean, noise, np.array([labeler.tie_width for labeler in labelers]))


def _agreement(noise_sd: np.ndarray, seen: _Seen) -> float:
    """`noise_sd` (L,)."""
    rank = rank_grid(seen.mean + noise_sd[:, None] * seen.noise, seen.tie_width)
    first, second = np.triu_indices(rank.shape[2], 1)
    real = np.isfinite(seen.mean[:, :, second])  # the later response is there, hence both are
    better = ((rank[:, :, first] < rank[:, :, second]) & real).sum(1)  # (S, pairs) labelers who prefer the first
    worse = ((rank[:, :, first] > rank[:, :, second]) & real).sum(1)
    same = (better * (better - 1) + worse * (worse - 1)).sum()
    total = ((better + worse) * (better + worse - 1)).sum()
    if not total:
        raise InputError("agreement: no pair of responses was ordered by two labelers; give more labelers or responses")
    return float(same / total)


def rank_grid(seen: np.ndarray, tie_width: np.ndarray) -> np.ndarray:
    """`ranks` of every set and labeler at once: seen (S, L, K), tie_width (L,) → (S, L, K)."""
    order = np.argsort(-seen, axis=2, kind="stable")
    descending = np.take_along_axis(seen, order, 2)
    rank = np.zeros(seen.shape, int)
    place, best = np.zeros(seen.shape[:2], int), np.full(seen.shape[:2], np.inf)
    for k in range(seen.shape[2]):
        value = descending[:, :, k]
        with np.errstate(invalid="ignore"):  # −inf − (−inf), among places where nothing is
            apart = (best - value > tie_width) | (place == 0)
        place, best = place + apart, np.where(apart, value, best)
        np.put_along_axis(rank, order[:, :, k : k + 1], place[:, :, None], 2)
    return rank


def calibrate_noise(
    labelers: Sequence[SimulatedLabeler], sets: Sequence[ResponseSet], target: float, purpose: Purpose = "train"
) -> list[SimulatedLabeler]:
    """The labelers with one noise_sd under which their agreement on `sets` is nearest to `target`, by bisection.

    Raises:
        InputError: even without noise their weights differ too much to agree that often.
    """
    seen = _seen(labelers, sets, purpose)
    best = _agreement(np.zeros(len(labelers)), seen)
    if best < target:
        raise InputError(
            f"calibrate_noise: without noise the labelers agree on {best:.3f} of pairs, below {target:.3f}"
        )
    spread = float(np.std(seen.mean[np.isfinite(seen.mean)])) or 1.0
    low, high = 0.0, 8 * spread
    for _ in range(12):  # to a five-hundredth of the spread
        middle = (low + high) / 2
        low, high = (middle, high) if _agreement(np.full(len(labelers), middle), seen) > target else (low, middle)
    return [replace(labeler, noise_sd=round((low + high) / 2, 6)) for labeler in labelers]


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]
