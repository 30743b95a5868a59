"""The nouns of the loop: prompts, responses, demonstrations, rankings, ratings, labelers.

Every record is immutable, validates itself, and goes to and from JSON; none knows of tensors, SQL or HTML.
A judgement is one type whoever made it: a person, a simulated labeler, a language model or a list of principles.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from heedful.ranks import misfit, shares

Split = Literal["train", "valid", "test"]
PromptKind = Literal["plain", "few_shot", "user_based"]
Source = Literal["labeler", "customer"]
LabelerKind = Literal["person", "simulated", "ai", "principles", "metric"]
LabelerGroup = Literal["train", "heldout"]
Purpose = Literal["train", "evaluation", "screening"]

UNKNOWN_GUIDELINE = "none"


class Record(BaseModel):
    """An immutable row; an unknown or missing field is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Prompt(Record):
    """What a user wrote.

    `text` is what the model is asked; `few_shot` prompts carry their worked pairs in `examples`, which
    `text.format.write_prompt` writes out before it, in the recipe's format. `user` is the key of the split: no user
    stands in two splits (InstructGPT, appendix A.2). `task` is opaque to everything but the source that made the
    prompt (the world's rater keeps its truth there).
    """

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    user: str = Field(min_length=1)
    kind: PromptKind = "plain"
    source: Source = "customer"
    use_case: str = "other"
    split: Split = "train"
    examples: tuple[tuple[str, str], ...] = ()
    task: dict[str, Any] = Field(default_factory=dict)


class Response(Record):
    """What came back. `model` names the policy that wrote it; `finished` is False when the length limit cut it.

    `tokens` are the policy's own token ids (without the end token) under the tokenizer whose fingerprint is
    `tokenizer`, so that training on a response never re-tokenizes its text into something else.
    """

    id: str = Field(min_length=1)
    prompt_id: str
    text: str
    model: str = ""
    finished: bool = True
    tokens: tuple[int, ...] = ()
    tokenizer: str = ""


class Labeler(Record):
    """Who judges. Held-out labelers never enter training data (InstructGPT, section 3.4)."""

    id: str = Field(min_length=1)
    group: LabelerGroup = "train"
    kind: LabelerKind = "person"


class Demonstration(Record):
    """A labeler's own response to a prompt."""

    id: str = Field(min_length=1)
    prompt_id: str
    text: str = Field(min_length=1)
    labeler: str
    guideline: str = UNKNOWN_GUIDELINE
    seconds: float | None = Field(default=None, ge=0)


class Ranking(Record):
    """One labeler's order of K responses to one prompt.

    `rank[i]` belongs to `responses[i]`: 1 is best and equal ranks tie. `order` lists the response ids as they were
    presented, so position habits can be measured. `purpose` keeps training judgements (helpfulness first) apart
    from evaluation judgements (truthfulness and harmlessness first) and from those that measure the labeler, whose
    answer is known (screening). `strength` says of two responses how much better one is: 1 slightly, 2 clearly, 3 much;
    `both_bad`, of two that tie, that neither is any good.

    `preference` is what a labeler says who gives probabilities (RLAIF, arXiv 2309.00267, section 2.1): for each pair
    i < j of `responses`, in lexicographic order, P(i is the better) when i is shown first and when j is. Their mean is
    the soft label, their difference how much the labeler minds the order. `rank` is then by the mean soft label over
    the others, see `rank_of`.
    """

    id: str = Field(min_length=1)
    prompt_id: str
    labeler: str
    responses: tuple[str, ...] = Field(min_length=2)
    rank: tuple[int, ...]
    order: tuple[str, ...] = ()
    strength: int | None = Field(default=None, ge=1, le=3)
    both_bad: bool = False
    preference: tuple[tuple[float, float], ...] = ()
    purpose: Purpose = "train"
    guideline: str = UNKNOWN_GUIDELINE
    seconds: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _ranks_fit_responses(self) -> Self:
        if len(self.rank) != len(self.responses):
            raise ValueError(f"rank has {len(self.rank)} entries for {len(self.responses)} responses")
        if len(set(self.responses)) != len(self.responses):
            raise ValueError("a response stands twice in one ranking")
        if min(self.rank) < 1 or max(self.rank) > len(self.rank):
            raise ValueError(f"ranks must lie in 1..{len(self.rank)}, found {list(self.rank)}")
        if self.order and sorted(self.order) != sorted(self.responses):
            raise ValueError("order must list the same responses as the ranking")
        if self.strength is not None and (len(self.rank) != 2 or self.rank[0] == self.rank[1]):
            raise ValueError("strength is for two responses of which one is better")
        if self.both_bad and (len(self.rank) != 2 or self.rank[0] != self.rank[1]):
            raise ValueError("both_bad is for two responses that tie")
        return self

    @model_validator(mode="after")
    def _preference_fits_ranks(self) -> Self:
        if self.preference and (wrong := misfit(self.preference, self.rank)):
            raise ValueError(wrong)
        return self

    def share(self) -> dict[tuple[str, str], float]:
        """P(the first of two responses is the better), by their ids, every pair both ways; by `rank` alone 1, 0, ½."""
        return shares(self.responses, self.rank, self.preference)


class Rating(Record):
    """One labeler's marks for one response: overall quality 1-7, the boxes of InstructGPT's table 3, and `scales` of
    tasks that ask for more, such as toxicity, toxicity relative to the prompt, continuity."""

    id: str = Field(min_length=1)
    prompt_id: str
    response_id: str
    labeler: str
    overall: int = Field(ge=1, le=7)
    flags: dict[str, bool] = Field(default_factory=dict)
    scales: dict[str, int] = Field(default_factory=dict)
    purpose: Purpose = "train"
    guideline: str = UNKNOWN_GUIDELINE
    seconds: float | None = Field(default=None, ge=0)


class Document(Record):
    """A piece of pretraining text."""

    text: str = Field(min_length=1)
    split: Split = "train"


# InstructGPT's table 3, in its order; a project may edit the list.
METADATA_FLAGS: tuple[str, ...] = tuple(
    "fails_instruction inappropriate_assistant hallucination satisfies_constraint sexual violent encourages_harm "
    "denigrates_protected harmful_advice opinion moral_judgment".split()
)
