"""Log-probabilities of given continuations: what a judge thinks of "1" and "2" behind many prompts.

    shared prefix | rest of prompt 1 | continuation a | continuation b | …
                  | rest of prompt 2 | continuation a | …

The prefix that all prompts begin with is computed once, and what is left of each prompt once for all of its
continuations, which count their positions on from its end and do not see each other. A continuation's last token is
only read, so continuations of one token cost nothing. Shapes: N rows, T tokens behind the prefix, P of the prefix.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from heedful.config import InputError
from heedful.engine.engine import evaluating
from heedful.losses.logprob import all_logprobs
from heedful.models.attention import Layout
from heedful.models.heads import MAX_LOGITS
from heedful.models.load import context_length, head_logits
from heedful.models.optimizer import Precision, autocast
from heedful.models.threads import in_order
from heedful.text.parts import by_width

MAX_TOKENS = {"cpu": 1024, "cuda": 32768}  # padded tokens of one pass; a CPU is a tenth faster than with twice as many


class _Prefix:
    """Layout of the shared prefix, (1, P): keeps its keys and values (1, Hkv, P, D) by layer."""

    def __init__(self) -> None:
        self.key: dict[int, torch.Tensor] = {}
        self.value: dict[int, torch.Tensor] = {}

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        self.key[layer], self.value[layer] = key, value
        return key, value, None


class _Branches:
    """Layout of what stands behind the prefix: position (N, T); part (N, T), 0 the prompt, 1 … its continuations."""

    def __init__(self, prefix: _Prefix, length: int, position: torch.Tensor, part: torch.Tensor) -> None:
        self._prefix, self._length, self._position, self._part = prefix, length, position, part
        self._causal = not length and not bool((part > 0).any())
        self._masks: dict[int | None, torch.Tensor] = {}

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if self._causal:
            return key, value, None
        if window not in self._masks:
            seen = self._seen(window)
            self._masks[window] = torch.zeros_like(seen, dtype=key.dtype).masked_fill(~seen, float("-inf"))
        if self._length:
            rows = len(key)
            key = torch.cat([self._prefix.key[layer].expand(rows, -1, -1, -1), key], 2)
            value = torch.cat([self._prefix.value[layer].expand(rows, -1, -1, -1), value], 2)
        return key, value, self._masks[window]

    def _seen(self, window: int | None) -> torch.Tensor:
        """Which keys each query sees, (N, 1, T, P + T) bool."""
        part, position = self._part, self._position
        tokens = part.shape[1]
        own = (part[:, None] == 0) | (part[:, None] == part[:, :, None])
        own &= torch.ones(tokens, tokens, dtype=torch.bool, device=part.device).tril()
        before = torch.arange(self._length, device=part.device).expand(len(part), -1)
        seen = torch.cat([torch.ones_like(before, dtype=torch.bool)[:, None].expand(-1, tokens, -1), own], 2)
        if window is not None:
            seen = seen & (position[:, :, None] - torch.cat([before, position], 1)[:, None] < window)
        return seen[:, None]


class Scored(NamedTuple):
    """What a model gives a continuation: log-probability in nats, and whether each of its tokens is the likeliest."""

    logprob: float
    greedy: bool


class _Row(NamedTuple):
    """One prompt behind the prefix, with its continuations."""

    tokens: list[int]
    position: list[int]
    part: list[int]
    read: list[tuple[int, int, int]]  # (place whose hidden state predicts it, token, continuation)


def score_continuations(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    continuations: Sequence[Sequence[list[int]]],
    precision: Precision = "fp32",
) -> list[list[float]]:
    """log π(continuation | prompt) in nats, the sum over its tokens, of each continuation of each prompt.

    `continuations[i]` are those of `prompts[i]`, token ids all. What all prompts begin with is found here.

    Raises:
        InputError: an empty prompt or continuation, an id outside the vocabulary, more than the context holds.
    """
    scored = _scored(model, prompts, continuations, precision, greedy=False)
    return [[found.logprob for found in asked] for asked in scored]


def score_and_compare(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    continuations: Sequence[Sequence[list[int]]],
    precision: Precision = "fp32",
) -> list[list[Scored]]:
    """As `score_continuations`, and whether greedy decoding would have written the continuation.

    Raises:
        InputError: as `score_continuations`.
    """
    return _scored(model, prompts, continuations, precision, greedy=True)


def _scored(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    continuations: Sequence[Sequence[list[int]]],
    precision: Precision,
    greedy: bool,
) -> list[list[Scored]]:
    """`greedy`: also compare each token with the likeliest, one more pass over the vocabulary; else all are True."""
    _check(model, prompts, continuations)
    scores = [[0.0] * len(asked) for asked in continuations]
    likeliest = [[True] * len(asked) for asked in continuations]
    asking = [i for i, asked in enumerate(continuations) if asked]
    if not asking:
        return [[] for _ in continuations]
    length = shared_length([prompts[i] for i in asking])
    rows = [_row(prompts[i], length, continuations[i]) for i in asking]
    device = model.device
    prefix = _Prefix()
    with evaluating(model), torch.inference_mode(), autocast(device, precision):
        if length:
            _run(model, torch.tensor([prompts[asking[0]][:length]]), torch.arange(length)[None], prefix)
            if len(prefix.key) != model.config.get_text_config().num_hidden_layers:
                raise InputError(f"architecture {model.config.model_type!r} shares keys between layers")

    def of_part(index: torch.Tensor) -> list[tuple[int, int, float, bool]]:
        with torch.inference_mode(), autocast(device, precision):  # a thread's modes are its own
            return _score_pass(model, [(asking[n], rows[n]) for n in index.tolist()], prefix, length, greedy)

    with evaluating(model):
        parts = by_width(torch.tensor([len(row.tokens) for row in rows]), MAX_TOKENS[device.type])
        for found in in_order(model, of_part, parts):
            for i, continuation, logprob, best in found:
                scores[i][continuation] += logprob
                likeliest[i][continuation] &= best
    return [[Scored(*pair) for pair in zip(*row, strict=True)] for row in zip(scores, likeliest, strict=True)]


def shared_length(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, at least the last of each left over."""
    least, most = min(prompts), max(prompts)  # what these two share in front, all share
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(least, most, strict=False)))
    return min(same, min(map(len, prompts)) - 1)


def _row(prompt: list[int], shared: int, continuations: Sequence[list[int]]) -> _Row:
    tokens = prompt[shared:]
    position = list(range(shared, len(prompt)))
    part = [0] * len(tokens)
    last = len(tokens) - 1
    read = []
    for c, continuation in enumerate(continuations):
        places = [last, *range(len(tokens), len(tokens) + len(continuation) - 1)]
        read += [(place, token, c) for place, token in zip(places, continuation, strict=True)]
        tokens = tokens + continuation[:-1]
        position += range(len(prompt), len(prompt) + len(continuation) - 1)
        part += [c + 1] * (len(continuation) - 1)
    return _Row(tokens, position, part, read)


def _score_pass(
    model: PreTrainedModel, rows: list[tuple[int, _Row]], prefix: _Prefix, length: int, greedy: bool
) -> list[tuple[int, int, float, bool]]:
    """(row's number, continuation, log-probability, whether it is the likeliest) of every token read."""
    width = max(len(row.tokens) for _, row in rows)

    def padded(values: Sequence[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([[*x, *[filler] * (width - len(x))] for x in values], device=model.device)

    position = padded([row.position for _, row in rows], length)
    layout = _Branches(prefix, length, position, padded([row.part for _, row in rows], -1))
    hidden = _run(model, padded([row.tokens for _, row in rows], 0), position, layout)
    read = [(n, place, token) for n, (_, row) in enumerate(rows) for place, token, _ in row.read]
    # The first tokens of all continuations of a prompt are read at one place, whose logits are computed once.
    places = sorted({(n, place) for n, place, _ in read})
    index = {where: m for m, where in enumerate(places)}
    states = hidden[torch.tensor(places, device=model.device).unbind(1)]
    place = torch.tensor([index[n, place] for n, place, _ in read], device=model.device)
    token = torch.tensor([token for _, _, token in read], device=model.device)
    logprob = torch.empty(len(read), dtype=torch.promote_types(model.dtype, torch.float32), device=model.device)
    best = torch.ones(len(read), dtype=torch.bool, device=model.device)
    size = max(1, MAX_LOGITS // model.get_output_embeddings().weight.shape[0])
    for start in range(0, len(places), size):
        logprobs = all_logprobs(head_logits(model, states[start : start + size]))
        here = ((start <= place) & (place < start + size)).nonzero().squeeze(1)
        logprob[here] = logprobs[place[here] - start, token[here]]
        if greedy:
            best[here] = logprob[here] == logprobs.amax(-1)[place[here] - start]
    owners = [(i, c) for i, row in rows for _, _, c in row.read]
    found = zip(owners, logprob.tolist(), best.tolist(), strict=True)
    return [(i, c, x, likeliest) for (i, c), x, likeliest in found]


def _run(model: PreTrainedModel, tokens: torch.Tensor, position: torch.Tensor, layout: Layout) -> torch.Tensor:
    tokens, position = tokens.to(model.device), position.to(model.device)
    trunk = model.get_decoder()
    return trunk(input_ids=tokens, position_ids=position, use_cache=False, layout=layout).last_hidden_state


def _check(model: PreTrainedModel, prompts: Sequence[list[int]], continuations: Sequence[Sequence[list[int]]]) -> None:
    context, vocabulary = context_length(model), model.get_output_embeddings().weight.shape[0]
    for i, (prompt, asked) in enumerate(zip(prompts, continuations, strict=True)):
        if not prompt or not all(asked):
            raise InputError(f"prompt {i} or a continuation of it is empty; give at least one token")
        ids = [*prompt, *(id for continuation in asked for id in continuation)]
        if min(ids) < 0 or max(ids) >= vocabulary:
            raise InputError(f"prompt {i}: a token outside the model's vocabulary of {vocabulary}")
        longest = len(prompt) + max(map(len, asked), default=0)
        if longest > context:
            raise InputError(
                f"prompt {i}: {longest} tokens with its longest continuation exceed the model's context of {context}; "
                "shorten the prompt"
            )
