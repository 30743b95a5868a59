"""What a reward model may learn: the objectives, functions of the same scores, and the judgements each of them reads.

`ranking` is InstructGPT's equation 1 and needs nothing but a labeler's order. `soft` asks how likely one response is
the better: the share of labelers who preferred it, an AI labeler's own probability (RLAIF, arXiv 2309.00267, section
2.2), or the mean of both, each labeler weighted. `regression` asks for a mark of each response, scaled to mean
0 and standard deviation 1 over the training responses.

Symbols: B rankings of up to Kmax responses; score, rank, valid, target (B, Kmax); share, weight (B, Kmax, Kmax).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pstdev
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, Self, get_args

import torch
from pydantic import Field, model_validator

from heedful.batch import RankedRows
from heedful.config import Config, InputError, nearest
from heedful.feedback.marks import MARKS
from heedful.losses.ranking import (
    best_of,
    best_of_k_loss,
    hinge_ranking_loss,
    ranking_loss,
    regression_loss,
    soft_ranking_loss,
)
from heedful.snapshot import Snapshot
from heedful.text.collate import EncodedRanking, Encoder
from heedful.text.principles import PrincipleFormat, guideline
from heedful.types import Labeler, LabelerKind, Prompt, Ranking, Response, Split

Objective = Callable[[torch.Tensor, RankedRows, float], torch.Tensor]  # score, its batch, margin → (B,)
Judged = list[tuple[Prompt, list[Response], Ranking]]
Weight = Annotated[float, Field(ge=0)]  # of what a labeler says; 0 leaves it out
Weights = Mapping[str, float]  # by a labeler's id, a kind, or "others"


# Each function gives one value per ranking, (B,); `margin` is the hinge's.


def ranking(score: torch.Tensor, batch: RankedRows, margin: float) -> torch.Tensor:
    return ranking_loss(score, batch.rank, batch.valid, batch.weight)


def hinge(score: torch.Tensor, batch: RankedRows, margin: float) -> torch.Tensor:
    return hinge_ranking_loss(score, batch.rank, margin, batch.valid, batch.weight)


def best_of_k(score: torch.Tensor, batch: RankedRows, margin: float) -> torch.Tensor:
    return best_of_k_loss(score, best_of(batch.rank, batch.valid), batch.valid)


def soft(score: torch.Tensor, batch: RankedRows, margin: float) -> torch.Tensor:
    assert batch.share is not None
    return soft_ranking_loss(score, batch.share, batch.valid, batch.weight)


def regression(score: torch.Tensor, batch: RankedRows, margin: float) -> torch.Tensor:
    """The mean over the prompt's marked responses."""
    assert batch.target is not None
    error = regression_loss(score, batch.target).masked_fill(~batch.valid, 0)
    return error.sum(1) / batch.valid.sum(1)


OBJECTIVES: dict[str, Objective] = {
    "ranking": ranking,
    "hinge": hinge,
    "best_of_k": best_of_k,
    "soft": soft,
    "regression": regression,
}


# What is learned from.


class LearnedConfig(Config):
    """What a reward model learns, and from which judgements."""

    objective: Literal["ranking", "hinge", "best_of_k", "soft", "regression"] = "ranking"  # ranking: the paper's eq. 1
    target: Literal["likert", "good_bad", "bleu", "rouge_l"] = "likert"  # the mark that regression is to predict
    comparison_weight: Literal["equal", "per_pair"] = "equal"  # per_pair: 1/n of one that n labelers made
    labeler_weights: dict[str, Weight] = Field(default_factory=dict)  # by name, kind or "others", as {ai: 0.5}; else 1
    guideline: PrincipleFormat | None = None  # learn from rankings under principles, written so; null: from rankings
    fixed_principles: tuple[str, ...] = ()  # of the guideline: from plain rankings, all of them under these texts

    @model_validator(mode="after")
    def _has_pairs_to_weigh(self) -> Self:
        if self.comparison_weight != "equal" and self.objective in ("best_of_k", "regression"):
            raise ValueError(f"comparison_weight weighs comparisons, and {self.objective} has none; take it out")
        if self.labeler_weights and self.objective in ("best_of_k", "regression"):
            raise ValueError(f"labeler_weights weigh comparisons, and {self.objective} has none; take them out")
        return self

    @model_validator(mode="after")
    def _learns_what_there_is(self) -> Self:
        if self.fixed_principles and self.guideline is None:
            raise ValueError("fixed_principles stand in a guideline; give one, as guideline: {}")
        if self.guideline is None or self.fixed_principles:
            return self
        if self.objective == "regression":
            raise ValueError("objective is regression, and rankings under principles have no marks")
        if self.labeler_weights or self.comparison_weight != "equal":
            raise ValueError("rankings under principles weigh alike; take labeler_weights and comparison_weight out")
        return self


class Learned(NamedTuple):
    """Items to train on and to validate with; what the results tell of them, and what was left out."""

    train: list[EncodedRanking]
    valid: list[EncodedRanking]
    told: Mapping[str, float]
    dropped: dict[str, int]


def learned_from(
    config: LearnedConfig, encoder: Encoder, snapshot: Snapshot, written: Snapshot, place: Path
) -> Learned:
    """What the objective reads off the judgements; `written` holds further demonstrations to compare with.

    Raises:
        InputError: there is nothing to learn from: see the functions below.
    """
    if config.guideline is not None and not config.fixed_principles:
        return under_principles(encoder, snapshot, place, config.guideline, config.objective == "soft")
    if config.guideline is not None:
        encoder = encoder.under(guideline(config.fixed_principles, config.guideline))
    if config.objective == "regression":
        demonstrations = (*snapshot.demonstrations, *written.demonstrations)
        return marked(encoder, replace(snapshot, demonstrations=demonstrations), place, config.target)
    soft, per_pair = config.objective == "soft", config.comparison_weight == "per_pair"
    return compared(encoder, snapshot, place, soft, per_pair, config.labeler_weights)


def compared(
    encoder: Encoder, snapshot: Snapshot, place: Path, soft: bool, per_pair: bool, weights: Weights | None = None
) -> Learned:
    """Rankings, one item each; for `soft` those without an untied pair too, since a tie is a share of one half.

    `weights`: what a judgement counts, see `weight_of`; those of weight 0 are left out.

    Raises:
        InputError: no training ranking has an untied pair, or a weight is of nobody.
    """
    by_labeler = weight_of(snapshot.labelers, weights or {})
    heard = replace(snapshot, rankings=tuple(r for r in snapshot.rankings if by_labeler[r.labeler]))

    def items(split: Split) -> list[EncodedRanking]:
        judged = heard.rankings_of(split, "train")
        found = encoder.rankings(judged, keep_tied=soft)
        return with_votes(found, judged, soft, per_pair, by_labeler)

    data, valid = items("train"), items("valid")
    if not ordered(data):
        raise InputError(f"{place}: no ranking of a training prompt with an untied pair; rank some first")
    untied, tied = comparisons(heard)
    told = {"num_rankings": len(data), "num_comparisons": untied + tied * soft}
    dropped = {} if soft else {"comparisons_tied": tied}
    if unheard := len(snapshot.rankings) - len(heard.rankings):
        dropped["ranking_of_no_weight"] = unheard
    return Learned(data, valid, told, dropped)


def under_principles(encoder: Encoder, snapshot: Snapshot, place: Path, format: PrincipleFormat, soft: bool) -> Learned:
    """Rankings under principles, one item each, the principles behind its responses; `soft` as in `compared`.

    Raises:
        InputError: no training ranking has an untied pair, or a principle's text is missing.
    """

    def items(split: Split) -> list[EncodedRanking]:
        judged = snapshot.principle_rankings_of(split)
        found = []
        for prompt, responses, ranking in judged:
            under = encoder.under(guideline(snapshot.asked_for(ranking), format))
            item = under.ranking(prompt, responses, ranking, keep_tied=soft)
            if item is not None:
                found.append(item._replace(share=_grid(ranking.share(), item)) if soft else item)
        return found

    data, valid = items("train"), items("valid")
    if not data:
        raise InputError(f"{place}: no ranking under principles of a training prompt; score pairs and aggregate first")
    return Learned(data, valid, {"num_rankings": len(data)}, {})


def _grid(share: Mapping[tuple[str, str], float], item: EncodedRanking) -> tuple[tuple[float, ...], ...]:
    """`EncodedRanking.share` of the pairs' shares; 0 for those nobody judged."""
    return tuple(tuple(share.get((one, other), 0.0) for other in item.responses) for one in item.responses)


def weight_of(labelers: Sequence[Labeler], weights: Weights) -> dict[str, float]:
    """Each labeler's weight: by its id, else its kind, else that of "others", else 1.

    Raises:
        InputError: a name that is none of these.
    """
    known = {*(labeler.id for labeler in labelers), *get_args(LabelerKind), "others"}
    if unknown := [name for name in weights if name not in known]:
        raise InputError(
            f"reward_model.labeler_weights.{unknown[0]}: no labeler and no kind of labelers is called so"
            f"{nearest(unknown[0], sorted(known))}"
        )
    rest = weights.get("others", 1.0)
    return {one.id: weights.get(one.id, weights.get(one.kind, rest)) for one in labelers}


def with_votes(
    items: Sequence[EncodedRanking],
    judged: Judged,
    soft: bool,
    per_pair: bool,
    by_labeler: Mapping[str, float] = MappingProxyType({}),
) -> list[EncodedRanking]:
    """The items with what all labelers together say of each pair, and what each item's pairs weigh.

    The share is the mean of the labelers' soft labels (`Ranking.share`), weighted by labeler (1 where one is not
    named). An item's pair weighs what its labeler does; with `per_pair`, that over what all who judged the pair do.
    """
    above: dict[tuple[str, str], float] = defaultdict(float)
    total: dict[tuple[str, str], float] = defaultdict(float)
    own = {ranking.id: by_labeler.get(ranking.labeler, 1.0) for _, _, ranking in judged}
    weighty = per_pair or any(weight != 1 for weight in own.values())
    for _, _, ranking in judged if soft or per_pair else ():
        for pair, share in ranking.share().items():
            above[pair] += own[ranking.id] * share
            total[pair] += own[ranking.id]

    mean = {pair: above[pair] / (number or 1) for pair, number in total.items()}

    def voted(item: EncodedRanking) -> EncodedRanking:
        pairs = [[(one, other) for other in item.responses] for one in item.responses]
        heavy = tuple(tuple(own[item.id] / ((total[pair] or 1) if per_pair else 1) for pair in row) for row in pairs)
        return item._replace(share=_grid(mean, item) if soft else (), weight=heavy if weighty else ())

    return [voted(item) for item in items]


def marked(encoder: Encoder, snapshot: Snapshot, place: Path, target: str) -> Learned:
    """Responses with a mark of the kind `target`, one item per prompt, whose `rank` is the marks' order.

    Raises:
        InputError: no training response has a mark, or all have the same.
    """
    try:
        marks = MARKS[target](snapshot)
    except InputError as error:
        raise InputError(f"{place}: reward_model.target is {target}, but {error}") from None
    prompts = snapshot.prompt_by_id()
    asked: dict[str, list[Response]] = defaultdict(list)
    for response in snapshot.responses:
        if prompts[response.prompt_id].split != "test":
            asked[response.prompt_id].append(response)

    def items(split: Split) -> list[EncodedRanking]:
        found = []
        for id, responses in asked.items():
            known = [response for response in responses if response.id in marks]
            fitting = encoder.responses(prompts[id], known) if known and prompts[id].split == split else None
            if fitting:
                own = tuple(marks[known[i].id] for i, _ in fitting)
                rank = tuple(1 + sum(other > mine for other in own) for mine in own)
                found.append(EncodedRanking([row for _, row in fitting], rank, id, target=own))
        return found

    data, valid = items("train"), items("valid")
    targets = [mark for item in data for mark in item.target]
    if len(set(targets)) < 2:
        raise InputError(f"{place}: the training responses have no two different {target} marks to learn from")
    mean, sd = fmean(targets), pstdev(targets)

    def scaled(item: EncodedRanking) -> EncodedRanking:
        return item._replace(target=tuple((mark - mean) / sd for mark in item.target))

    without = sum(response.id not in marks for responses in asked.values() for response in responses)
    told = {"num_prompts": len(data), "num_marks": len(targets), "target_mean": mean, "target_sd": sd}
    return Learned(list(map(scaled, data)), list(map(scaled, valid)), told, {"response_without_mark": without})


def ordered(items: Sequence[EncodedRanking]) -> list[EncodedRanking]:
    """Those with an untied pair: only they can be got right or wrong."""
    return [item for item in items if len(set(item.rank)) > 1]


def comparisons(snapshot: Snapshot) -> tuple[int, int]:
    """How many comparisons the training rankings hold that train, and how many are ties and do not."""
    ranks = [ranking.rank for _, _, ranking in snapshot.rankings_of("train", "train")]
    tied = sum(a == b for rank in ranks for i, a in enumerate(rank) for b in rank[i + 1 :])
    return sum(len(r) * (len(r) - 1) // 2 for r in ranks) - tied, tied
