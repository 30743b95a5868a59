"""A local model that is asked for labels: prefix-shared scoring of every spelling, our engine for rationales.

A label has several spellings in tokens: with a space before it or none, full width (１), joined to what stands before
it or not. Their probabilities are summed. Where the tokens of one label begin another's, as 1 begins 10, what belongs
to the longer one is taken off.

A page is text. What looks in it like a control token, such as <|im_end|>, is read as its characters; control tokens are
only those of the chat template, and the one that begins a text. Added tokens in brackets that a tokenizer does not call
special, such as <think>, are control tokens too; added words and blanks are not.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.config import InputError
from heedful.engine.sample import Sampler
from heedful.engine.score import score_continuations
from heedful.feedback.ai.labeler import Outcome
from heedful.models.load import context_length
from heedful.models.optimizer import Precision
from heedful.text.format import PromptFormat, write_prompt
from heedful.types import Prompt

AS_IT_IS = PromptFormat(template="{prompt}")
CHAT = PromptFormat(template="{prompt}", style="chat")
FULL_WIDTH = {ord(" ") + i: 0xFF00 + i for i in range(1, 95)}  # ! to ~
STAND_IN = "the page"  # in a chat template, to see what that puts around one
BEFORE = 8  # characters before a label that decide how it is split
BRACKETED = re.compile(r"[<\[{|].*[>\]}|]", re.DOTALL)  # an added token that steers, such as <think>

Tokens = tuple[int, ...]
Spelled = tuple[tuple[Tokens, ...], ...]  # the spellings of each label


class Estimate(NamedTuple):
    """What asking will cost: tokens of all prompts, and how many prompts are too long to be asked."""

    tokens: int
    too_long: int


@dataclass(frozen=True)
class LocalAsk:
    """An `Ask`. `format` surrounds a prompt: as it is, or as the user's turn of the tokenizer's chat template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    format: PromptFormat = AS_IT_IS
    precision: Precision = "fp32"

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[Outcome]:
        """Raises InputError where the tokenizer cannot tell two labels apart."""
        texts, encoded = self._encode(prompts)
        spelled = self._spelled(texts, labels)
        lengths = [len(ids) + _longest(found) for ids, found in zip(encoded, spelled, strict=True)]
        kept = [n for n, length in enumerate(lengths) if length <= context_length(self.model)]
        outcomes = [Outcome("long", message=self._too_long(length)) for length in lengths]
        asked = [[list(tokens) for found in spelled[n] for tokens in found] for n in kept]
        scores = score_continuations(self.model, [encoded[n] for n in kept], asked, self.precision)
        for n, found in zip(kept, scores, strict=True):
            outcomes[n] = _read(pooled(spelled[n], found), len(encoded[n]))
        return outcomes

    def write(
        self, prompts: Sequence[str], n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[Outcome]]:
        """A prompt's draws depend on it and the seed alone, not on what else is asked."""
        _, encoded = self._encode(prompts)
        room = context_length(self.model) - max_tokens
        kept = [i for i, ids in enumerate(encoded) if len(ids) <= room]
        outcomes = [[Outcome("long", message=self._too_long(len(ids) + max_tokens))] * n for ids in encoded]
        if not kept:
            return outcomes
        sampler = Sampler(self.model, self.tokenizer, max_tokens, temperature, precision=self.precision)
        seeds = [_seed(seed, prompts[i]) for i in kept]
        sampled = sampler([encoded[i] for i in kept], seeds, [n] * len(kept))
        ends = sampled.finished.tolist()
        for place, i in enumerate(kept):
            rows = range(place * n, place * n + n)
            outcomes[i] = [
                Outcome(
                    text=sampled.text[row],
                    cut=not ends[row],
                    prompt_tokens=len(encoded[i]),
                    new_tokens=len(sampled.tokens[row]),
                )
                for row in rows
            ]
        return outcomes

    def estimate(self, prompts: Sequence[str], labels: Sequence[str], max_tokens: int = 0) -> Estimate:
        """Counted exactly; `max_tokens` are those of a rationale that each prompt must leave room for."""
        texts, encoded = self._encode(prompts)
        needed = [max(max_tokens, _longest(found)) for found in self._spelled(texts, labels)]
        room = context_length(self.model)
        too_long = sum(len(ids) + more > room for ids, more in zip(encoded, needed, strict=True))
        return Estimate(sum(map(len, encoded)), too_long)

    def _spelled(self, texts: Sequence[str], labels: Sequence[str]) -> list[Spelled]:
        return [_spellings(self.tokenizer, text[-BEFORE:], tuple(labels)) for text in texts]

    def _encode(self, prompts: Sequence[str]) -> tuple[list[str], list[list[int]]]:
        """The prompts as the model reads them, as text and as tokens."""
        texts = [self._written(prompt) for prompt in prompts]
        plain = self.format.style == "plain"
        encoded = self._ids(texts, plain) if texts else []
        for n, prompt in enumerate(prompts):
            if not plain and self.control_in(prompt):
                encoded[n] = self._apart(texts[n])
        begin = self.tokenizer.bos_token_id
        return texts, [[begin, *ids] for ids in encoded] if plain and begin is not None else encoded

    def control_in(self, text: str) -> str:
        """The first of the tokenizer's control tokens that the text spells; "" where it spells none."""
        return next((token for token in self._control if token in text), "")

    @cached_property
    def _control(self) -> list[str]:
        added = self.tokenizer.added_tokens_decoder.values()
        steering = (one.content for one in added if one.special or BRACKETED.fullmatch(one.content))
        return sorted({*self.tokenizer.all_special_tokens, *steering})

    @cached_property
    def _reader(self) -> Tokenizer:
        """The tokenizer to which every control token is special, and a special token its characters."""
        whole = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for token in whole["added_tokens"]:
            token["special"] = token["special"] or token["content"] in self._control
        found = Tokenizer.from_str(json.dumps(whole))
        found.no_truncation()
        found.no_padding()
        found.encode_special_tokens = True
        return found

    def _written(self, prompt: str) -> str:
        return write_prompt(Prompt(id="asked", text=prompt, user="asked"), self.format, self.tokenizer)

    def _ids(self, texts: Sequence[str], as_text: bool) -> list[list[int]]:
        """`as_text`: control tokens are their characters."""
        if as_text and any(self.control_in(text) for text in texts):
            return [one.ids for one in self._reader.encode_batch(list(texts), add_special_tokens=False)]
        return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def _apart(self, text: str) -> list[int]:
        """A page that spells a control token, apart from the chat template around it.

        Raises:
            InputError: the chat template does not leave pages as they are.
        """
        head, _, tail = (whole := self._written(STAND_IN)).partition(STAND_IN)
        if whole.count(STAND_IN) != 1 or not (text.startswith(head) and text.endswith(tail)):
            raise InputError(
                "a page spells a control token, and the chat template changes pages, so that it cannot be told from "
                "the template's own; use --style plain"
            )
        (first, last), [page] = (
            self._ids([head, tail], False),
            self._ids([text[len(head) : len(text) - len(tail)]], True),
        )
        return [*first, *page, *last]

    def _too_long(self, number: int) -> str:
        return f"{number} tokens exceed the model's context of {context_length(self.model)}"


def _longest(spelled: Spelled) -> int:
    return max(len(tokens) for found in spelled for tokens in found)


def _read(logprobs: tuple[float, ...], prompt_tokens: int) -> Outcome:
    if any(map(math.isnan, logprobs)) or max(logprobs) == -math.inf:
        return Outcome("parse", message="no label has a probability above 0", prompt_tokens=prompt_tokens)
    return Outcome(logprobs=logprobs, prompt_tokens=prompt_tokens)


def pooled(spelled: Spelled, logprobs: Sequence[float]) -> tuple[float, ...]:
    """log Σ P over the spellings of each label, those that go on to spell another label taken off.

    `logprobs` are those of all spellings, label by label.
    """
    every = [(label, tokens) for label, found in enumerate(spelled) for tokens in found]
    known = dict(zip(every, logprobs, strict=True))
    found = []
    for label, spellings in enumerate(spelled):
        alone = []
        for tokens in spellings:
            longer = [x for (other, more), x in known.items() if other != label and more[: len(tokens)] == tokens]
            alone.append(_less(known[label, tokens], longer))
        found.append(_log_sum(alone))
    return tuple(found)


def _less(whole: float, parts: Sequence[float]) -> float:
    """log(exp(whole) − Σ exp(part)); −inf where rounding leaves nothing."""
    share = math.fsum(math.exp(part - whole) for part in parts) if parts else 0.0
    return whole + math.log1p(-share) if share < 1 else -math.inf


def _log_sum(logprobs: Sequence[float]) -> float:
    most = max(logprobs)
    return most if most == -math.inf else most + math.log(math.fsum(math.exp(x - most) for x in logprobs))


@lru_cache(maxsize=1024)
def _spellings(tokenizer: PreTrainedTokenizerBase, before: str, labels: tuple[str, ...]) -> Spelled:
    """The token sequences of each label behind `before`; none of a label's own begins another of its own.

    Raises:
        InputError: a label has no spelling, or two share one.
    """
    found = [_of_label(tokenizer, before, label) for label in labels]
    for i, label in enumerate(labels):
        if not found[i]:
            raise InputError(f"the tokenizer has no tokens for the label {label!r}; choose labels that it knows")
        for j in range(i):
            if set(found[i]) & set(found[j]):
                raise InputError(f"the tokenizer cannot tell the labels {labels[j]!r} and {label!r} apart")
    return tuple(found)


def _of_label(tokenizer: PreTrainedTokenizerBase, before: str, label: str) -> tuple[Tokens, ...]:
    found: set[Tokens] = set()
    head = _ids(tokenizer, before)
    wide = label.translate(FULL_WIDTH)
    for form in (label, f" {label}", wide, f" {wide}"):
        joined, alone = _ids(tokenizer, before + form), _ids(tokenizer, form)
        found.add(alone)
        if joined[: len(head)] == head:
            found.add(joined[len(head) :])
    told = {tokens for tokens in found if tokenizer.decode(tokens).strip() in (label, wide)}
    shortest = [t for t in told if not any(t != other and t[: len(other)] == other for other in told)]
    return tuple(sorted(shortest))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _seed(seed: int, prompt: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\x1f{prompt}".encode()).digest()[:6], "big")
