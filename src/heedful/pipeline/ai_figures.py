"""An AI labeler's figures: how far it agrees with people, and which habits it has, with their intervals."""

from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray

from heedful.evaluate.statistics import Estimate, cluster_bootstrap, clustered_mean, clustered_proportion
from heedful.feedback.ai.report import (
    FEWEST,
    PairKey,
    calibration_error,
    compared,
    judged_pairs,
    of_longer,
    pair_keys,
    same_position,
)
from heedful.snapshot import Snapshot
from heedful.types import Ranking

PEOPLE = ("person", "simulated")  # whose preferences an AI labeler's are held against


def figures(snapshot: Snapshot, labeler: str) -> dict[str, Estimate]:
    """What there is to say of the AI labeler's rankings, with 95 % intervals clustered by prompt.

    `alignment`: how often its soft label is on the side of a person's untied comparison; `alignment_one_order`, that of
    one order alone; `alignment_same_position`, that of pairs of which both orders prefer one place and the mean alone
    decides; `calibration_error` of the soft label's certainty, which too few comparisons have none of. `same_position`:
    pairs of which both orders prefer the same place, `first_of_same`, of those the first. `order_gap`: how far the two
    orders' probabilities lie apart. `prefers_longer`: probability that the longer response is better, and by `people`
    how often it was, over the pairs that both judged (its own, where people judged none of them).
    """
    kind = {one.id: one.kind for one in snapshot.labelers}
    own = [ranking for ranking in snapshot.rankings if ranking.labeler == labeler]
    people = [ranking for ranking in snapshot.rankings if kind[ranking.labeler] in PEOPLE]
    beside = compared(judged_pairs(own), people)
    sure = compared(judged_pairs(ranking for ranking in own if ranking.preference), people)  # marks have no certainty
    prompts = [one.prompt_id for one in beside]
    both_orders = judged_pairs(ranking for ranking in own if ranking.preference)
    places = [(pair.prompt_id, place) for pair in both_orders if (place := same_position(pair)) is not None]
    same = [(id, place) for id, place in places if place]
    length = {response.id: len(response.text) for response in snapshot.responses}
    both_judged = pair_keys(own) & pair_keys(people)
    return {
        "alignment": clustered_proportion([one.right for one in beside], prompts),
        "alignment_one_order": clustered_proportion(
            [one.in_one_order for one in sure], [one.prompt_id for one in sure]
        ),
        "alignment_same_position": clustered_proportion(
            [one.right for one in sure if one.same_place], [one.prompt_id for one in sure if one.same_place]
        ),
        "calibration_error": _calibration(
            [one.right for one in sure], [one.certainty for one in sure], [one.prompt_id for one in sure]
        ),
        "same_position": clustered_proportion([float(place > 0) for _, place in places], [id for id, _ in places]),
        "first_of_same": clustered_proportion([float(place == 1) for _, place in same], [id for id, _ in same]),
        "order_gap": clustered_mean(
            [abs(pair.first - pair.second) for pair in both_orders], [pair.prompt_id for pair in both_orders]
        ),
        "prefers_longer": _longer(own, length, both_judged or pair_keys(own)),
        "people_prefer_longer": _longer(people, length, both_judged),
    }


def _longer(rankings: Sequence[Ranking], length: dict[str, int], among: Set[PairKey]) -> Estimate:
    found = of_longer(rankings, length, among)
    return clustered_proportion([share for _, share in found], [id for id, _ in found])


def _calibration(right: list[float], certainty: list[float], prompts: list[str]) -> Estimate:
    def error(index: NDArray[np.intp]) -> float:
        return calibration_error([right[i] for i in index], [certainty[i] for i in index])

    if len(right) < FEWEST:
        why = f"fewer than {FEWEST} comparisons: by chance alone it would be about 1/√n"
        return Estimate(None, None, None, None, len(right), len(set(prompts)), why)
    return cluster_bootstrap(error, prompts, num_resamples=200)


def report_of(snapshot: Snapshot) -> dict[str, dict[str, Estimate]]:
    """AI labeler → figures, of every one that ranked something."""
    return {one.id: figures(snapshot, one.id) for one in snapshot.labelers if one.kind == "ai"}
