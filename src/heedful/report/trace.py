"""One ranking followed from the labeler's form to the reward model's margins; `episodes` takes it to advantages."""

import math
from typing import NamedTuple

from markupsafe import Markup

from heedful.ranks import untied_pairs
from heedful.report.charts import Series, line_chart
from heedful.report.folder import RunFolder
from heedful.types import Labeler, Prompt, Ranking


class Shown(NamedTuple):
    """A response as it stood on the form, and what became of it."""

    id: str
    letter: str
    text: str
    rank: int
    before: float | None
    after: float | None


class Pair(NamedTuple):
    """A comparison out of the ranking; margins are score(chosen) − score(rejected)."""

    chosen: str
    rejected: str
    before: float | None
    after: float | None

    @property
    def probability(self) -> float | None:
        return None if self.after is None else 1 / (1 + math.exp(-self.after))


class RankingTrace(NamedTuple):
    prompt: Prompt
    ranking: Ranking
    labeler: Labeler
    shown: list[Shown]
    pairs: list[Pair]
    tied: int
    chart: Markup
    loss: tuple[float, float] | None  # mean −log σ(margin) before and after training
    round: int
    reason: str  # why a number is missing, or ""


def ranking_trace(run: RunFolder) -> RankingTrace | None:
    """The ranking that the last reward model's log follows; without one, the first training ranking, without scores."""
    place = f"{run.last_round}/rankings/snapshot"
    snapshot = run.snapshot(place) if run.has(place) else None
    if snapshot is None or not snapshot.rankings:
        return None
    log = run.rows(f"{run.last_round}/reward_model/samples.jsonl")
    logged = next((row for row in log if "ranking_id" in row), None)
    by_id = {ranking.id: ranking for ranking in snapshot.rankings}
    training = [ranking for _, _, ranking in snapshot.rankings_of("train")] or list(snapshot.rankings)
    reason = ""
    ranking = by_id.get(logged["ranking_id"]) if logged else None
    if logged is None:
        reason = "The reward model's log holds no scores of it (samples.jsonl), so margins are missing."
    elif ranking is None:
        reason = "The ranking the reward model's log follows is not in the snapshot, so margins are missing."
    elif len(logged["before"]) != len(ranking.responses):
        reason = "Some of its responses did not fit the model's limits, so margins are missing."
    scored = logged is not None and not reason
    ranking = ranking or training[0]
    before = dict(zip(ranking.responses, logged["before"], strict=True)) if scored and logged else {}
    after = dict(zip(ranking.responses, logged["after"], strict=True)) if scored and logged else {}
    texts, rank = snapshot.response_by_id(), dict(zip(ranking.responses, ranking.rank, strict=True))
    order = ranking.order or ranking.responses
    letter = {id: chr(ord("A") + n) for n, id in enumerate(order)}
    shown = [Shown(id, letter[id], texts[id].text, rank[id], before.get(id), after.get(id)) for id in order]
    pairs = []
    for i, j in untied_pairs(ranking.rank):
        a, b = ranking.responses[i], ranking.responses[j]
        pairs.append(
            Pair(
                letter[a], letter[b], before[a] - before[b] if before else None, after[a] - after[b] if after else None
            )
        )
    tied = len(rank) * (len(rank) - 1) // 2 - len(pairs)
    loss = None
    if before and pairs:
        loss = mean_loss([p.before for p in pairs]), mean_loss([p.after for p in pairs])
    prompt, labeler = snapshot.prompt_by_id()[ranking.prompt_id], snapshot.labeler_by_id()[ranking.labeler]
    round = run.rounds[-1] if run.rounds else 1
    return RankingTrace(prompt, ranking, labeler, shown, pairs, tied, slope(shown), loss, round, reason)


def mean_loss(margins: list[float | None]) -> float:
    """−log σ(margin), averaged over the pairs (InstructGPT, equation 1)."""
    known = [margin for margin in margins if margin is not None]
    return sum(math.log1p(math.exp(-margin)) for margin in known) / len(known)


def slope(shown: list[Shown]) -> Markup:
    """Each response's score before and after training, the colours from best to worst rank."""
    ends = [(0, "before training"), (1, "after training")]
    series = [
        Series(f"{s.letter}, rank {s.rank}", [0, 1], [s.before, s.after], min(s.rank - 1, 7), "both")
        for s in shown
        if s.before is not None and s.after is not None
    ]
    return (
        line_chart(series, "Scores before and after", "", x_range=(-0.25, 1.4), x_names=ends, named=True)
        if series
        else Markup("")
    )
