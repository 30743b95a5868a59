"""Win rates between policies, from evaluation rankings, with intervals clustered by prompt.

A labeler ranks the responses of several policies to one prompt; a win counts 1, a tie ½, a loss 0. Judgements of one
prompt are not independent, so the prompt is the cluster. Policies that gave the same text share one response, which is
a tie without anyone being asked. The interval stays within 0..1 and never closes on one value, however clear the
judgements; ties narrow it, since they vary less than wins and losses do.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from heedful.evaluate.statistics import Estimate, clustered_proportion
from heedful.types import Ranking


class WinRate(NamedTuple):
    """`estimate.mean` in 0..1; the counts are judgements."""

    estimate: Estimate
    wins: int
    ties: int
    losses: int


def win_rate(
    rankings: Sequence[Ranking], responses: Mapping[str, Mapping[str, str]], policy: str, baseline: str
) -> WinRate:
    """The policy's win rate against the baseline.

    `responses[name][prompt_id]` is the id of the response the named policy gave. A ranking counts when it holds both
    responses. Where both policies gave the same one, every ranking that holds it is a tie, so that such a prompt weighs
    as much as others; where all policies gave it and nobody was asked, it is one tie.
    """
    value: list[float] = []
    cluster: list[str] = []
    for ranking in rankings:
        rank = dict(zip(ranking.responses, ranking.rank, strict=True))
        ours = rank.get(responses[policy].get(ranking.prompt_id, ""))
        theirs = rank.get(responses[baseline].get(ranking.prompt_id, ""))
        if ours is not None and theirs is not None:
            value.append(0.5 if ours == theirs else float(ours < theirs))
            cluster.append(ranking.prompt_id)
    same = {p for p, id in responses[policy].items() if responses[baseline].get(p) == id}
    for prompt_id in sorted(same - set(cluster)):
        value.append(0.5)
        cluster.append(prompt_id)
    return WinRate(clustered_proportion(value, cluster), value.count(1.0), value.count(0.5), value.count(0.0))


def compare_scores(score: Mapping[str, float], baseline: Mapping[str, float]) -> WinRate:
    """The win rate where a scorer decides: scores by prompt id, higher is better, equal is a tie."""
    prompts = sorted(score.keys() & baseline.keys())
    value = [0.5 if score[p] == baseline[p] else float(score[p] > baseline[p]) for p in prompts]
    return WinRate(clustered_proportion(value, prompts), value.count(1.0), value.count(0.5), value.count(0.0))
