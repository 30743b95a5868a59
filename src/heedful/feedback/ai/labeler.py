"""A language model as a labeler: the label from its log-probabilities, in both orders (RLAIF, arXiv 2309.00267).

Who answers is an `Ask`: a model of ours (`local`) or a server (`server`). What is made of its answers stands here and
knows neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["ok", "long", "parse", "refusal", "api"]


@dataclass(frozen=True)
class Outcome:
    """What came of one question.

    ok: an answer. long: more tokens than the model's context holds. parse: an answer in which nothing that was asked
    for can be found. refusal: the model would not say. api: no answer, the server failed.
    """

    kind: Kind = "ok"
    logprobs: tuple[float, ...] = ()  # of `choose`: nats, in the labels' order, spellings pooled, at least one finite
    text: str = ""  # of `write`
    message: str = ""  # of a failure, one line
    prompt_tokens: int = 0  # as the model counts them
    new_tokens: int = 0


class Ask(Protocol):
    """A model that can be asked; every question has one outcome, in order, and none raises for its own failure."""

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[Outcome]:
        """How likely each label is behind each prompt. They need not sum to 1: what is missing went elsewhere."""
        ...

    def write(
        self, prompts: Sequence[str], n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[Outcome]]:
        """`n` continuations of each prompt, at most `max_tokens` long; temperature 0 is greedy."""
        ...
