"""How well a reward model predicts labelers: accuracy by group, margin and length, calibration, cross-validation."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from heedful.evaluate.statistics import Estimate, clustered_proportion, paired_share_difference
from heedful.ranks import untied_pairs
from heedful.types import Labeler, Ranking


class Comparison(NamedTuple):
    """One untied comparison: the margin is score(chosen) − score(rejected).

    `longer`: length of the chosen less that of the rejected; None where lengths were not given.
    """

    prompt_id: str
    labeler: str
    margin: float
    longer: float | None = None


def comparisons(
    rankings: Sequence[Ranking], score: Mapping[str, float], length: Mapping[str, float] | None = None
) -> list[Comparison]:
    """Every untied comparison whose responses both have a score; score and length by response id."""
    found = []
    for ranking in rankings:
        for i, j in untied_pairs(ranking.rank):
            chosen, rejected = ranking.responses[i], ranking.responses[j]
            if chosen in score and rejected in score:
                longer = None if length is None else length[chosen] - length[rejected]
                margin = score[chosen] - score[rejected]
                found.append(Comparison(ranking.prompt_id, ranking.labeler, margin, longer))
    return found


def scorer_comparisons(
    utility: Mapping[str, float], prompt_of: Mapping[str, str], score: Mapping[str, float]
) -> list[Comparison]:
    """Every pair of one prompt's responses that an exact scorer tells apart; utility and score by response id."""
    groups: dict[str, list[str]] = defaultdict(list)
    for id in utility.keys() & score.keys():
        groups[prompt_of[id]].append(id)
    return [
        Comparison(prompt_id, "scorer", score[a] - score[b])
        for prompt_id, ids in sorted(groups.items())
        for a in sorted(ids)
        for b in sorted(ids)
        if utility[a] > utility[b]
    ]


def accuracy(items: Sequence[Comparison]) -> Estimate:
    """Share of comparisons with a positive margin (an equal score counts ½), clustered by prompt."""
    return clustered_proportion([_right(item) for item in items], [item.prompt_id for item in items])


def _right(item: Comparison) -> float:
    return 0.5 if item.margin == 0 else float(item.margin > 0)


def accuracy_by_group(items: Sequence[Comparison], labelers: Mapping[str, Labeler]) -> dict[str, Estimate]:
    """Accuracy against the training and the held-out labelers."""
    groups = {group: [c for c in items if labelers[c.labeler].group == group] for group in ("train", "heldout")}
    return {group: accuracy(chosen) for group, chosen in groups.items()}


class Bin(NamedTuple):
    """Comparisons whose margin or difference of length lies between low and high, and the accuracy on them."""

    low: float
    high: float
    accuracy: Estimate


def accuracy_by_margin(items: Sequence[Comparison], num_bins: int = 5) -> list[Bin]:
    """Accuracy by how far apart the model sees the two responses, |margin|, in bins of about equal numbers."""
    return _binned(items, [abs(item.margin) for item in items], num_bins)


def accuracy_by_length(items: Sequence[Comparison], num_bins: int = 5) -> list[Bin]:
    """Accuracy by how much longer the preferred response is, in bins of about equal numbers.

    A model that has learned "longer is better" is right where the preferred response is longer and wrong where it is
    shorter. Comparisons without lengths are left out.
    """
    known = [item for item in items if item.longer is not None]
    return _binned(known, [float(item.longer) for item in known if item.longer is not None], num_bins)


def _binned(items: Sequence[Comparison], value: Sequence[float], num_bins: int) -> list[Bin]:
    """Bins between quantiles; equal values stay in one bin, so there may be fewer."""
    if not items:
        return []
    edges = np.unique(np.quantile(value, np.linspace(0, 1, num_bins + 1)))
    place = np.clip(np.searchsorted(edges, value, side="right") - 1, 0, max(len(edges) - 2, 0))
    found = []
    for n in range(max(len(edges) - 1, 1)):
        inside = [item for item, own in zip(items, place, strict=True) if own == n]
        if inside:
            found.append(Bin(float(edges[n]), float(edges[min(n + 1, len(edges) - 1)]), accuracy(inside)))
    return found


class CrossValidation(NamedTuple):
    """The same comparisons asked of models that did and did not learn from the labeler's group."""

    within_group: Estimate  # a comparison counts the share of models right about it that learned from its labeler
    out_of_group: Estimate  # whether the model is right that did not
    difference: Estimate  # within − out, comparison by comparison
    by_fold: list[Estimate]  # out_of_group of each fold's labelers alone


def cross_validation(
    rankings: Sequence[Ranking], fold_of: Mapping[str, int], scores: Sequence[Mapping[str, float]]
) -> CrossValidation:
    """Accuracy on labelers a model learned from and on those it did not, clustered by prompt.

    `fold_of` gives each labeler's fold 0, 1, …; scores[f] are those, by response id, of the model trained without fold
    f. Rankings of other labelers are left out. Both accuracies are over the same comparisons, so that harder prompts or
    noisier labelers do not pass for a difference.

    InstructGPT (arXiv 2203.02155), section 4.1: 72.4 ± 0.4 % within, 69.6 ± 0.9 % out of the groups.
    """
    asked = [ranking for ranking in rankings if ranking.labeler in fold_of]
    margins = [comparisons(asked, score) for score in scores]
    right = np.array([[_right(item) for item in items] for items in margins]).reshape(len(scores), -1)
    prompts = [item.prompt_id for item in margins[0]]
    fold = np.array([fold_of[item.labeler] for item in margins[0]], dtype=np.intp)
    out = right[fold, np.arange(len(fold))]
    within = (right.sum(0) - out) / (len(scores) - 1)
    by_fold = [
        clustered_proportion(out[fold == f], [p for p, own in zip(prompts, fold, strict=True) if own == f])
        for f in range(len(scores))
    ]
    return CrossValidation(
        clustered_proportion(within, prompts),
        clustered_proportion(out, prompts),
        paired_share_difference(within, out, prompts),
        by_fold,
    )


class CalibrationBin(NamedTuple):
    """Comparisons whose predicted probability lies in one bin."""

    predicted: float  # mean σ(margin), taken for the response the model prefers, so 0.5 … 1
    observed: float  # share of them where the labeler agreed
    number: int


def calibration(items: Sequence[Comparison], num_bins: int = 5) -> tuple[list[CalibrationBin], float]:
    """Predicted against observed agreement in equal-width bins over 0.5 … 1, and the expected calibration error."""
    if not items:
        return [], float("nan")
    margin = np.array([item.margin for item in items])
    predicted = 1 / (1 + np.exp(-np.abs(margin)))
    agreed = np.where(margin == 0, 0.5, margin > 0)
    index = np.minimum(((predicted - 0.5) * 2 * num_bins).astype(int), num_bins - 1)
    bins = [
        CalibrationBin(float(predicted[index == i].mean()), float(agreed[index == i].mean()), int((index == i).sum()))
        for i in range(num_bins)
        if (index == i).any()
    ]
    return bins, sum(abs(b.predicted - b.observed) * b.number for b in bins) / len(items)
