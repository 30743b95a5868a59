"""Held-out language loss over plain text: WikiText-2 and TinyStories."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from heedful.evaluate.sets.item import Measured, Model
from heedful.evaluate.sets.read import Wanted, need, read_text
from heedful.evaluate.statistics import Estimate, clustered_mean
from heedful.models.heads import Policy
from heedful.models.optimizer import autocast
from heedful.models.threads import in_order
from heedful.text.collate import Encoder, texts
from heedful.text.format import PromptFormat
from heedful.text.parts import by_length

WIDTH = 1024  # tokens a row, or what the context holds: comparable losses need equal widths
MAX_TOKENS = {"cpu": 4096, "cuda": 65536}
WIKITEXT = Wanted(
    "wikitext-2/wiki.test.tokens|wikitext2_valid_test/test.txt", "WikiText-2 is in github.com/pytorch/examples"
)
STORIES = Wanted(
    "TinyStoriesV2-GPT4-valid.txt|TinyStories-valid.txt|tinystories_10k.txt",
    "it is at huggingface.co/datasets/roneneldan/TinyStories",
)
STORY_END = "<|endoftext|>"


class Texts(NamedTuple):
    """Documents, and where they came from."""

    documents: list[str]
    source: str
    files: Mapping[str, str] = {}  # all that was read, with its SHA-256


def wikitext(data: Path | None) -> Texts:
    """The whole file as one text, as its perplexity is always told."""
    path = need(data, WIKITEXT)
    return Texts([read_text(path)], str(path))


def stories(data: Path | None) -> Texts:
    path = need(data, STORIES)
    found = [story.strip() for story in read_text(path).split(STORY_END)]
    return Texts([story for story in found if story], str(path))


def language_loss(model: Model, documents: list[str], limit: int | None) -> tuple[Measured, int]:
    """`loss` in nats per token, `perplexity`, `bits_per_byte`, and the number of rows; at most `limit` rows.

    Rows of WIDTH tokens (the context, where that is less) follow one another without overlap, so a row's first tokens
    are predicted from little; intervals take the row as the cluster. Bits per byte compare models of different
    tokenizers.
    """
    encoder = Encoder(model.tokenizer, PromptFormat())
    data = texts(documents, encoder, min(WIDTH, model.context), rest=True)
    size, num_tokens = sum(len(text.encode()) for text in documents), int(data.length.sum())
    rows = data.select(torch.arange(min(len(data.length), limit or len(data.length))))
    policy = Policy(model.decoder)

    def of_part(index: torch.Tensor) -> list[torch.Tensor]:
        with autocast(policy.device, model.precision):
            loss, mask = policy.language_loss(*rows.select(index).to(policy.device))
        return [row[keep].cpu() for row, keep in zip(loss, mask, strict=True)]

    parts = by_length(rows.length, MAX_TOKENS[policy.device.type])
    order = [int(i) for part in parts for i in part]
    found = [row for part in in_order(policy, of_part, parts) for row in part]
    loss = clustered_mean(torch.cat(found).double().numpy(), np.repeat(order, [len(row) for row in found]))
    per_byte = num_tokens / size / math.log(2)
    perplexity = through(loss, math.exp)._replace(stderr=None)
    metrics = {"loss": loss, "perplexity": perplexity, "bits_per_byte": through(loss, lambda nats: nats * per_byte)}
    return Measured(metrics), len(rows.length)


def through(loss: Estimate, change: Callable[[float], float]) -> Estimate:
    """The estimate on another, rising scale; its standard error only where that is the old one times a number."""
    values = (None if value is None else change(value) for value in (loss.mean, loss.low, loss.high))
    mean, low, high = values
    return loss._replace(mean=mean, low=low, high=high, stderr=None if loss.stderr is None else change(loss.stderr))
