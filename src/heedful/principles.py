"""The nouns of written principles (SALMON, arXiv 2310.05910): a principle, a score by it, a ranking under several.

A `types.Ranking` says which response is better. A `PrincipleRanking` says which is better *under these principles*:
negate the one that decides, and the other wins, of the same two responses. So it is a record of its own, in a table of
its own. What counts rankings (agreement, win rates, a reward model that reads no principles) never sees one, and cannot
learn from a choice whose condition it does not know. Whoever trains on it puts the principles beside the prompt; ranks
and losses are those of rankings.
"""

from typing import Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from heedful.ranks import shares
from heedful.types import Record

Language = Literal["en", "zh"]
Listed = tuple[str, bool]  # a principle's id, and whether it is negated


class Principle(Record):
    """A written principle in one language.

    `definition` says what a response that keeps to it is like, `negative` what is asked for where it is negated.
    `weight` is how often it is drawn beside others; one of weight 0 is asked about and never drawn.
    """

    id: str = Field(pattern=r"^[\w-]+$")
    language: Language
    title: str = Field(min_length=1)
    definition: str = Field(min_length=1)
    negative: str = Field(min_length=1)
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    def text(self, negated: bool = False) -> str:
        """What is asked for."""
        return self.negative if negated else self.definition


class PrincipleScore(Record):
    """How much better the first of two responses to a prompt keeps to a principle than the second, by a labeler.

    `orders` are log P(first) − log P(second) in nats, with the first shown first and with the second shown first
    (SALMON's s12 and s21). Both have the sign of the response, not of the place: a labeler who minds the place alone
    says x and −x, whose mean is 0.
    """

    prompt_id: str
    labeler: str
    principle: str
    responses: tuple[str, str]
    orders: tuple[FiniteFloat, FiniteFloat]

    @property
    def gap(self) -> float:
        """The mean of both orders; above 0: the first response is better."""
        return (self.orders[0] + self.orders[1]) / 2

    @model_validator(mode="after")
    def _two_responses(self) -> Self:
        if self.responses[0] == self.responses[1]:
            raise ValueError("a response is compared with itself")
        return self


class PrincipleRanking(Record):
    """An order of responses to one prompt under a list of principles, some of them negated.

    `rank[i]` belongs to `responses[i]`: 1 is best. `principles` are `Principle.id`s in the language `language`, in the
    order in which they are to be read. `decided_by` is the principle that settled it, or "rule:" and a rule's name;
    `flipped`: the label was turned round as noise, so it contradicts what decided it. `preference` is what the scores
    say of each pair as probabilities, as in `types.Ranking`; `rank` may take for ties what they hardly tell apart.
    """

    id: str = Field(min_length=1)
    prompt_id: str
    labeler: str
    language: Language
    principles: tuple[Listed, ...] = Field(min_length=1)
    responses: tuple[str, ...] = Field(min_length=2)
    rank: tuple[int, ...]
    decided_by: str = ""
    flipped: bool = False
    preference: tuple[tuple[float, float], ...] = ()

    @model_validator(mode="after")
    def _ranks_fit_responses(self) -> Self:
        if len(self.rank) != len(self.responses):
            raise ValueError(f"rank has {len(self.rank)} entries for {len(self.responses)} responses")
        if len(set(self.responses)) != len(self.responses):
            raise ValueError("a response stands twice in one ranking")
        if min(self.rank) < 1 or max(self.rank) > len(self.rank):
            raise ValueError(f"ranks must lie in 1..{len(self.rank)}, found {list(self.rank)}")
        if len({id for id, _ in self.principles}) != len(self.principles):
            raise ValueError("a principle stands twice in one ranking")
        if self.preference and len(self.preference) != len(self.rank) * (len(self.rank) - 1) // 2:
            raise ValueError(f"preference has {len(self.preference)} pairs for {len(self.rank)} responses")
        if not all(0 <= probability <= 1 for pair in self.preference for probability in pair):
            raise ValueError("preference holds probabilities, from 0 to 1")
        return self

    def share(self) -> dict[tuple[str, str], float]:
        """As `types.Ranking.share`."""
        return shares(self.responses, self.rank, self.preference)
