"""What every set is made of: items, worked examples before them, and what is told of a set once a model went through.

An item that cannot be scored is counted by reason; a set of which less than half fits a model's context is unscored.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.evaluate.statistics import Estimate, cluster_bootstrap
from heedful.models.checkpoint import load_policy
from heedful.models.load import context_length
from heedful.models.optimizer import Precision

FITTING = 0.5  # the least share of a set that must fit a model's context for the set to be scored
SEPARATOR = "\n\n"  # behind a worked example


class Item(NamedTuple):
    """One question. `choices` and `references` follow the prompt as they are written, leading space included."""

    id: str
    prompt: str
    choices: tuple[str, ...] = ()
    right: tuple[int, ...] = ()  # which choices are
    references: tuple[str, ...] = ()  # of an answer to be generated
    cluster: str = ""  # what it shares with items that are not independent of it: a passage, a question
    about: Mapping[str, Any] = {}
    head: str = ""  # what the prompt begins with, worked examples behind it: an instruction

    @property
    def asked(self) -> str:
        """The prompt behind its head."""
        return self.prompt[len(self.head) :]

    @property
    def group(self) -> str:
        """The cluster; its own id where it shares nothing."""
        return self.cluster or self.id

    @property
    def worked(self) -> str:
        """The item as an example: the prompt without its head, with a right answer."""
        return self.asked + (self.choices[self.right[0]] if self.right else f" {self.references[0]}")


class Part(NamedTuple):
    """A set as read: what is asked, what worked examples are drawn from, where it came from, what was left out."""

    items: list[Item]
    examples: Callable[[], list[Item]] | None  # reads them; None: the set has none
    source: str
    left_out: Mapping[str, int] = {}
    files: Mapping[str, str] = {}  # all that was read, with its SHA-256
    fewer_examples: int = 0  # items with fewer worked examples than were wanted


class Model(NamedTuple):
    """The model that is evaluated."""

    decoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    precision: Precision = "fp32"

    @property
    def context(self) -> int:
        return context_length(self.decoder)

    @property
    def begin(self) -> list[int]:
        """The tokenizer's begin token, which stands before every prompt, if it has one."""
        bos = self.tokenizer.bos_token_id
        return [] if bos is None else [bos]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens."""
        found: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return found


def load_model(name: str | Path, precision: Precision = "fp32") -> Model:
    """A policy's folder or a hub name.

    Raises:
        InputError: whatever `load_policy` refuses.
    """
    policy, tokenizer = load_policy(name)
    return Model(policy.decoder, tokenizer, precision)


Judge = Callable[[Sequence[tuple[str, str]]], Sequence[float | None]]  # (question, answer) → probability
Scorer = Callable[[Sequence[str]], Sequence[float | None]]  # text → 0 to 1; None: it cannot be scored


class Tools(NamedTuple):
    """What some sets' measures need besides the answers."""

    model: Model
    truthful: Judge | None = None
    informative: Judge | None = None
    toxicity: Scorer | None = None


class Measured(NamedTuple):
    """A set's numbers, and how many answers could not be scored, by reason."""

    metrics: dict[str, Estimate]
    unscored: Mapping[str, int] = {}


def unscored(metrics: Sequence[str], reason: str, num: int = 0) -> Measured:
    """Every metric undefined, with the reason."""
    return Measured({name: Estimate(None, None, None, None, num, 0, reason) for name in metrics})


def clusters(items: Sequence[Item]) -> list[str]:
    return [item.group for item in items]


def resampled(statistic: Callable[[NDArray[np.intp]], float], cluster: Sequence[str]) -> Estimate:
    """`cluster_bootstrap`, without an interval where every resample gives one number: it would close on a point, which
    says that nothing can be seen of the spread and not that there is none."""
    found = cluster_bootstrap(statistic, cluster)
    if found.low is None or found.low != found.high:
        return found
    return found._replace(stderr=None, low=None, high=None, reason="all resamples are alike: an interval needs more")


def drawn(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """At most `limit` of the items, drawn by the seed, in their order."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i] for i in sorted(random.Random(seed).sample(range(len(items)), limit))]


def with_examples(items: Sequence[Item], examples: Sequence[Item], shots: int, seed: int) -> tuple[list[Item], int]:
    """Each item behind `shots` worked examples, the first of one shuffle that share nothing with it; and how many items
    have fewer, because there are no more.

    Almost all items thus have one prefix, which a model computes once. An item is never its own example, nor is one of
    the same cluster. What prompts begin with is said once, before the examples.

    >>> one, two = Item("1", "Q: a\\nA:", references=("b",)), Item("2", "Q: c\\nA:", references=("d",))
    >>> [item.prompt for item in with_examples([one, two], [one, two], 1, 0)[0]]
    ['Q: c\\nA: d\\n\\nQ: a\\nA:', 'Q: a\\nA: b\\n\\nQ: c\\nA:']
    """
    if not shots:
        return list(items), 0
    order = random.Random(seed).sample(list(examples), len(examples))
    ready = [(example.id, example.group, example.worked + SEPARATOR) for example in order]
    chosen = [_chosen(item, ready, shots) for item in items]
    asked = [i._replace(prompt=i.head + "".join(texts) + i.asked) for i, texts in zip(items, chosen, strict=True)]
    return asked, sum(len(texts) < shots for texts in chosen)


def _chosen(item: Item, ready: Sequence[tuple[str, str, str]], shots: int) -> list[str]:
    chosen: list[str] = []
    for id, group, text in ready:
        if id != item.id and group != item.group:
            chosen.append(text)
            if len(chosen) == shots:
                break
    return chosen


def misfit(fitting: int, num: int, context: int) -> str:
    """Why a set is unscored; "" where enough of it fits.

    >>> misfit(10, 40, 64)
    'only 10 of 40 items fit the context of 64 tokens'
    """
    if fitting and fitting >= FITTING * num:
        return ""
    return f"only {fitting} of {num} items fit the context of {context} tokens" if num else "the set has no items"
