"""Who judges, behind one interface: people through the store, simulated labelers, the gold rater, a reward model, any
Python function.

A judge is given prompts, each with the responses to compare, and returns a verdict for each: ranks, or why there are
none. `ask` makes of them the same `Ranking` records that people's judgements are, so every table of
`evaluate.preference` can be drawn by any judge, and what it left unjudged is counted.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from transformers import PreTrainedTokenizerBase

from heedful.engine.sample import score_rows
from heedful.feedback.simulated import Purpose, SimulatedLabeler, ranks
from heedful.feedback.verdict import Item, Unjudged, Verdict
from heedful.models.heads import RewardModel
from heedful.models.load import context_length
from heedful.models.optimizer import Precision
from heedful.text.collate import Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.text.tokenizer import pad_id
from heedful.types import Labeler, Prompt, Ranking, Response

Score = float | None


class Judge(Protocol):
    """Whoever ranks. `labeler` is the name the judgements carry, with its group and kind."""

    @property
    def labeler(self) -> Labeler: ...

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict per item, in their order."""


class Asked(NamedTuple):
    """A judge's rankings, and the items that have none."""

    labeler: Labeler
    rankings: list[Ranking]
    unjudged: list[Unjudged]

    @property
    def unscored(self) -> Counter[str]:
        """How many items have no ranking, by reason."""
        return Counter(one.reason for one in self.unjudged)


def ask(judge: Judge, items: Sequence[Item], purpose: Purpose = "evaluation") -> Asked:
    """The judge's rankings of the items; one response alone is nothing to rank."""
    comparable = [(prompt, responses) for prompt, responses in items if len(responses) > 1]
    alone = [(prompt, responses) for prompt, responses in items if len(responses) < 2]
    unjudged = [_unjudged(item, Verdict(None, "fewer than two responses")) for item in alone]
    rankings = []
    for (prompt, responses), verdict in zip(comparable, judge.judge(comparable), strict=True):
        if verdict.rank is None:
            unjudged.append(_unjudged((prompt, responses), verdict))
            continue
        ids = tuple(response.id for response in responses)
        key = "\x1f".join((judge.labeler.id, purpose, prompt.id, *ids))
        rankings.append(
            Ranking(
                id=f"judge-{hashlib.sha256(key.encode()).hexdigest()[:16]}",
                prompt_id=prompt.id,
                labeler=judge.labeler.id,
                responses=ids,
                rank=verdict.rank,
                preference=verdict.preference,
                purpose=purpose,
            )
        )
    return Asked(judge.labeler, rankings, unjudged)


def _unjudged(item: Item, verdict: Verdict) -> Unjudged:
    prompt, responses = item
    ids = tuple(response.id for response in responses)
    return Unjudged(prompt_id=prompt.id, responses=ids, reason=verdict.reason, message=verdict.message)


def by_score(scores: Iterable[Score], tie_width: float = 0.0) -> Verdict:
    """Ranks by score, the highest first; scores within `tie_width` of the best of their rank tie."""
    known = list(scores)
    if any(score is None or not math.isfinite(score) for score in known):
        return Verdict(None, "a response has no score")
    return Verdict(ranks([float(score) for score in known if score is not None], tie_width))


@dataclass(frozen=True)
class FunctionJudge:
    """Any function of prompt and text to a number, higher is better; None where it has no opinion.

    FunctionJudge("gold", source.utility) is the gold rater, FunctionJudge("VADER", sentiment) a sentiment scorer.
    """

    name: str
    score: Callable[[Prompt, str], Score]
    tie_width: float = 0.0

    @property
    def labeler(self) -> Labeler:
        return Labeler(id=self.name, group="heldout", kind="metric")

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [
            by_score((self.score(prompt, response.text) for response in responses), self.tie_width)
            for prompt, responses in items
        ]


@dataclass(frozen=True)
class RewardModelJudge:
    """A reward model; a response over the format's limits or the model's context has no score."""

    name: str
    model: RewardModel
    tokenizer: PreTrainedTokenizerBase
    format: PromptFormat
    tie_width: float = 0.0
    max_tokens: int = 8192
    precision: Precision = "auto"

    @property
    def labeler(self) -> Labeler:
        return Labeler(id=self.name, group="heldout", kind="metric")

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """All responses are scored in one batch, those of a prompt behind one copy of it."""
        encoder = Encoder(self.tokenizer, self.format, context_length(self.model.trunk))
        rows = [[encoder.response(prompt, response) for response in responses] for prompt, responses in items]
        fitting = [row for group in rows for row in group if row is not None]
        if not fitting:
            return [Verdict(None, "a response has no score") for _ in items]
        batch = to_rows(fitting, pad_id(self.tokenizer))
        found = iter(score_rows(self.model, batch, self.max_tokens, self.precision).tolist())
        scores = [[None if row is None else next(found) for row in group] for group in rows]
        return [by_score(group, self.tie_width) for group in scores]


@dataclass(frozen=True)
class SimulatedJudge:
    """A simulated labeler."""

    simulated: SimulatedLabeler
    purpose: Purpose = "evaluation"

    @property
    def labeler(self) -> Labeler:
        return self.simulated.labeler

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        return [Verdict(self.simulated.rank(prompt, responses, self.purpose).rank) for prompt, responses in items]


@dataclass(frozen=True)
class RecordedJudge:
    """One labeler's rankings as they are on record: a person's, from a snapshot of the store.

    What they never ranked together has no verdict. Of several rankings of one prompt the last counts.
    """

    labeler: Labeler
    rankings: Sequence[Ranking]

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        by_prompt: dict[str, list[Ranking]] = {}
        for ranking in self.rankings:
            if ranking.labeler == self.labeler.id:
                by_prompt.setdefault(ranking.prompt_id, []).append(ranking)
        return [_recorded(by_prompt.get(prompt.id, ()), responses) for prompt, responses in items]


def _recorded(own: Sequence[Ranking], responses: Sequence[Response]) -> Verdict:
    """By the last of one labeler's rankings of a prompt that holds all the responses."""
    for ranking in reversed(own):
        rank = dict(zip(ranking.responses, ranking.rank, strict=True))
        if all(response.id in rank for response in responses):
            return by_score(-rank[response.id] for response in responses)
    return Verdict(None, "not ranked by this labeler")
