"""A language model as a labeler: the label from its log-probabilities, in both orders (RLAIF, arXiv 2309.00267).

Who answers is an `Ask`: a model of ours (`local`) or a server (`server`). What is made of its answers stands here and
knows neither.

1. A prompt ends where the label stands, "1" or "2"; of their log-probabilities P(first) = 1 / (1 + exp(l₂ − l₁)).
2. Each pair is asked about in both orders; the mean is the soft label, so a model that minds nothing but the order says
   exactly ½. Both stay on record (`types.Ranking.preference`).
3. With a chain of thought the model first writes a rationale, and the label is read behind it; of several rationales
   the probabilities are averaged (self-consistency).
4. K responses: all pairs, ranked by their mean soft label over the others; or a mark from 1 to 10 each.

A pair of which one order has no answer is not judged, and neither is a set with such a pair: it has a reason, never a
0 and never a tie.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from typing import Literal, NamedTuple, Protocol

from heedful.feedback.ai.template import Template, marks_of, trimmed, write, write_score
from heedful.feedback.verdict import Item, Verdict
from heedful.ranks import dense, rank_of
from heedful.types import Labeler, Prompt

Kind = Literal["ok", "long", "parse", "refusal", "api"]
SHOWN = 300  # characters of what is said of a failure


@dataclass(frozen=True)
class Outcome:
    """What came of one question.

    ok: an answer. long: more tokens than the model's context holds. parse: an answer in which nothing that was asked
    for can be found. refusal: the model would not say. api: no answer, the server failed.
    """

    kind: Kind = "ok"
    logprobs: tuple[float, ...] = ()  # of `choose`: nats, in the labels' order, spellings pooled, at least one finite
    text: str = ""  # of `write`
    cut: bool = False  # of `write`: the limit ended it, not the model
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


class Answer(NamedTuple):
    """A number made of a model's answer; None with the kind of outcome it is missing for, and that one's message."""

    value: float | None
    reason: str = ""
    message: str = ""


Reading = Callable[[Sequence[float]], float]  # what is made of the labels' log-probabilities
Pair = tuple[Prompt, str, str]  # what is asked, the response shown first, the one shown second


@dataclass(frozen=True)
class AILabeler:
    """A model with a template: an `evaluate.judges.Judge`, whose verdicts hold probabilities.

    `counts` gathers, over its life, outcomes by kind, `prompt_tokens`, `new_tokens` and the rationales that were `cut`.
    """

    ask: Ask
    template: Template
    labeler: Labeler
    rationales: int = 1  # of each order, with a chain of thought
    temperature: float = 0.0  # of rationales; RLAIF: 0
    max_tokens: int = 512  # of a rationale; RLAIF: 512
    seed: int = 0
    by: Literal["pairs", "scores"] = "pairs"
    counts: Counter[str] = field(default_factory=Counter)

    def judge(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict per item, in their order; the reason for none is the outcome's kind."""
        return self._by_scores(items) if self.by == "scores" else self._by_pairs(items)

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Answer]:
        """The expected mark of each (prompt, response), in −1 … 1 (RLAIF, section 2.3)."""
        texts = [write_score(self.template, prompt, response) for prompt, response in pairs]
        found = self.asked(list(dict.fromkeys(texts)), marks_of(self.template), expected_score)
        return [found[text] for text in texts]

    def questions(self, items: Sequence[Item]) -> list[str]:
        """The different prompts that judging the items begins with: what an estimate counts."""
        if self.by == "scores":
            texts = (write_score(self.template, prompt, r.text) for prompt, responses in items for r in responses)
        else:
            texts = (write(self.template, *pair) for item in items for pair in orders(item))
        return list(dict.fromkeys(texts))

    def _by_pairs(self, items: Sequence[Item]) -> list[Verdict]:
        asked = [orders(item) for item in items]
        answers = self._first_is_better([pair for pairs in asked for pair in pairs])
        verdicts, place = [], 0
        for pairs, (_, responses) in zip(asked, items, strict=True):
            verdicts.append(verdict(answers[place : place + len(pairs)], len(responses)))
            place += len(pairs)
        return verdicts

    def _by_scores(self, items: Sequence[Item]) -> list[Verdict]:
        marks = iter(self.score([(prompt, response.text) for prompt, responses in items for response in responses]))
        verdicts = []
        for _, responses in items:
            own = [next(marks) for _ in responses]
            known = [-mark.value for mark in own if mark.value is not None]
            failed = missing(own)
            verdicts.append(no_verdict(failed) if failed else Verdict(dense(known)))
        return verdicts

    def _first_is_better(self, pairs: Sequence[Pair]) -> list[Answer]:
        """P(the response shown first is the better) of each; equal prompts are asked once."""
        texts = [write(self.template, *pair) for pair in pairs]
        different = dict(zip(texts, pairs, strict=True))
        if self.template.rationale_ending is None:
            found = self.asked(list(different), self.template.labels, share_of_first)
        else:
            found = self._thought(different)
        if self.template.asks_for == "worse":
            found = {text: turned(answer) for text, answer in found.items()}
        return [found[text] for text in texts]

    def _thought(self, different: dict[str, Pair]) -> dict[str, Answer]:
        """Step 1: rationales. Step 2: the label behind each; their mean, or the first failure among them."""
        written = self.ask.write(list(different), self.rationales, self.temperature, self.max_tokens, self.seed)
        behind = {
            text: [self._behind(pair, outcome) for outcome in outcomes]
            for (text, pair), outcomes in zip(different.items(), written, strict=True)
        }
        step_two = list(dict.fromkeys(one for seconds in behind.values() for one in seconds if isinstance(one, str)))
        found = self.asked(step_two, self.template.labels, share_of_first)
        return {
            text: mean_answer([found[one] if isinstance(one, str) else one for one in seconds])
            for text, seconds in behind.items()
        }

    def _behind(self, pair: Pair, outcome: Outcome) -> str | Answer:
        """The prompt of step 2; what is missing where step 1 failed."""
        self._note(outcome)
        self.counts["cut"] += outcome.cut
        if outcome.kind != "ok":
            return failure(outcome)
        return write(self.template, *pair, rationale=trimmed(self.template, outcome.text))

    def asked(self, prompts: Sequence[str], labels: Sequence[str], read: Reading) -> dict[str, Answer]:
        """What `read` makes of the labels' log-probabilities behind each prompt, counted in `counts`."""
        outcomes = self.ask.choose(prompts, labels) if prompts else []
        found = {}
        for prompt, outcome in zip(prompts, outcomes, strict=True):
            self._note(outcome)
            found[prompt] = Answer(read(outcome.logprobs)) if outcome.kind == "ok" else failure(outcome)
        return found

    def _note(self, outcome: Outcome) -> None:
        self.counts[outcome.kind] += 1
        self.counts["prompt_tokens"] += outcome.prompt_tokens
        self.counts["new_tokens"] += outcome.new_tokens


def orders(item: Item) -> list[Pair]:
    """Every pair i < j of the item's responses, in both orders: i first, then j first."""
    prompt, responses = item
    texts = [response.text for response in responses]
    return [pair for a, b in combinations(texts, 2) for pair in ((prompt, a, b), (prompt, b, a))]


def verdict(answers: Sequence[Answer], number: int) -> Verdict:
    """What the answers to `orders` of `number` responses say: preference and rank, or why not."""
    if failed := missing(answers):
        return no_verdict(failed)
    values = [answer.value for answer in answers if answer.value is not None]
    preference = tuple((first, 1 - second) for first, second in zip(values[::2], values[1::2], strict=True))
    return Verdict(rank_of(preference, number), "", preference)


def missing(answers: Iterable[Answer]) -> Answer | None:
    """Why not all of them have a value, if so: the first that will stay without one, else the first that a server
    failed on, which may have one another time."""
    lacking = [answer for answer in answers if answer.value is None]
    return min(lacking, key=lambda answer: answer.reason == "api", default=None)


def failure(outcome: Outcome) -> Answer:
    """What is missing, and why, on one short line that any file can hold."""
    said = " ".join(outcome.message.encode(errors="replace").decode().split())
    return Answer(None, outcome.kind, said[:SHOWN])


def no_verdict(failed: Answer) -> Verdict:
    return Verdict(None, failed.reason, (), failed.message)


def share_of_first(logprobs: Sequence[float]) -> float:
    """The first of two labels' probability, of the two alone; turned round, it and its counterpart sum to exactly 1.

    >>> round(share_of_first([math.log(0.6), math.log(0.2)]), 3)
    0.75
    """
    first, second = logprobs
    return 1 - share_of_first((second, first)) if first < second else 1 / (1 + math.exp(second - first))


def expected_score(logprobs: Sequence[float]) -> float:
    """Σ i·P(i) over the marks i = 1 … n, their probabilities renormalised, scaled linearly to −1 … 1.

    RLAIF (arXiv 2309.00267), section 2.3, which names the interval and not the scaling.

    >>> expected_score([-math.inf] * 9 + [-5.0]), expected_score([-3.0] * 10)
    (1.0, 0.0)
    """
    most = max(logprobs)
    weight = [math.exp(logprob - most) for logprob in logprobs]
    mean = math.fsum(mark * own for mark, own in enumerate(weight, start=1)) / math.fsum(weight)
    middle = (len(weight) + 1) / 2
    return (mean - middle) / (middle - 1)


def turned(answer: Answer) -> Answer:
    """Of a template that asks for the worse response."""
    return answer if answer.value is None else Answer(1 - answer.value)


def mean_answer(answers: Sequence[Answer]) -> Answer:
    """The mean; where one is missing, so is the mean."""
    return missing(answers) or Answer(fmean(answer.value for answer in answers if answer.value is not None))
