"""Log-probabilities of given continuations: what a judge thinks of "1" and "2" behind many prompts.

    shared by all | shared by a group | rest of prompt 1 | continuation a | continuation b | …
                                      | rest of prompt 2 | continuation a | …
                  | rest of prompt 3, which is alone | continuation a | …

What all prompts begin with is computed once, what a group of them goes on with (`prefixes.groups`) once for the group,
and what is left of each prompt once for all of its continuations, which count their positions on from its end and do
not see each other. A continuation's last token is only read, so continuations of one token cost nothing.

Shapes: N rows, T tokens behind their prefixes, G prefixes of at most P tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from heedful.config import InputError
from heedful.engine.engine import evaluating
from heedful.engine.prefixes import groups, shared_length
from heedful.losses.logprob import all_logprobs
from heedful.models.attention import Layout
from heedful.models.heads import MAX_LOGITS
from heedful.models.load import context_length, head_logits
from heedful.models.optimizer import Precision, autocast
from heedful.models.prefix import Keys
from heedful.models.read import read_of_rows
from heedful.models.threads import in_order
from heedful.text.parts import by_width

MAX_TOKENS = {"cpu": 1024, "cuda": 32768}  # padded tokens of one pass; a CPU is a tenth faster than with twice as many


class _Prefixes:
    """Keys and values (G, Hkv, P, D) by layer of prefixes of `length` tokens (G,), which begin at position `start`."""

    def __init__(self, start: int, length: torch.Tensor) -> None:
        self.length = length
        self.position = start + torch.arange(int(length.max()), device=length.device)
        self.key: dict[int, torch.Tensor] = {}
        self.value: dict[int, torch.Tensor] = {}


class _Before(NamedTuple):
    """What stands before N rows: the prefixes, and which of them each row has, (N,)."""

    prefixes: _Prefixes
    of_row: torch.Tensor

    def behind(self, kept: torch.Tensor) -> torch.Tensor:
        """The rows' (N, Hkv, P, D) of kept keys or values (G, Hkv, P, D)."""
        return kept.expand(len(self.of_row), -1, -1, -1) if len(kept) == 1 else kept[self.of_row]

    def real(self) -> torch.Tensor:
        """Which columns hold a token, (N, P) bool."""
        column = torch.arange(len(self.prefixes.position), device=self.of_row.device)
        return column < self.prefixes.length[self.of_row][:, None]


class _Branches(Layout):
    """Layout of rows behind prefixes: position (N, T); part (N, T), 0 the prompt, 1 … its continuations.

    `keep` is given their keys and values, for rows that are prefixes themselves.
    """

    def __init__(
        self, before: Sequence[_Before], position: torch.Tensor, part: torch.Tensor, keep: _Prefixes | None = None
    ) -> None:
        self._before, self._position, self._part, self._keep = before, position, part, keep
        self._causal = not before and not bool((part > 0).any())
        self._last = int(position.max())
        self._masks: dict[int | None, torch.Tensor] = {}

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        if self._keep is not None:
            self._keep.key[layer], self._keep.value[layer] = key, value
        if self._causal:
            return key, value, None
        if window not in self._masks:
            seen = self._seen(window)
            self._masks[window] = torch.zeros_like(seen, dtype=key.dtype).masked_fill(~seen, float("-inf"))
        if before := self._before[self._apart(window) :]:
            key = torch.cat([*(b.behind(b.prefixes.key[layer]) for b in before), key], 2)
            value = torch.cat([*(b.behind(b.prefixes.value[layer]) for b in before), value], 2)
        return key, value, self._masks[window]

    def shared(self, layer: int, window: int | None) -> Keys | None:
        """Those of the prefix of all rows, which `update` leaves out."""
        every = self._before[0].prefixes if self._apart(window) else None
        return None if every is None else (every.key[layer], every.value[layer])

    def _apart(self, window: int | None) -> bool:
        """Whether all rows begin with one prefix, of which no window hides a part."""
        one = bool(self._before) and len(self._before[0].prefixes.length) == 1
        return one and (window is None or self._last < window)

    def _seen(self, window: int | None) -> torch.Tensor:
        """Which keys each query sees, (N, 1, T, S) bool over prefixes and the row itself."""
        before = self._before[self._apart(window) :]
        part, position = self._part, self._position
        rows, tokens = part.shape
        own = (part[:, None] == 0) | (part[:, None] == part[:, :, None])
        own &= torch.ones(tokens, tokens, dtype=torch.bool, device=part.device).tril()
        seen = torch.cat([*(b.real()[:, None].expand(-1, tokens, -1) for b in before), own], 2)
        if window is not None:
            at = torch.cat([*(b.prefixes.position.expand(rows, -1) for b in before), position], 1)
            seen = seen & (position[:, :, None] - at[:, None] < window)
        return seen[:, None]


class Scored(NamedTuple):
    """What a model gives a continuation: log-probability in nats, and whether each of its tokens is the likeliest."""

    logprob: float
    greedy: bool


Told = tuple[int, int, float, bool]  # prompt, continuation, log-probability of one token, whether it is the likeliest


class _Row(NamedTuple):
    """One prompt behind its prefixes, with its continuations."""

    tokens: list[int]
    position: list[int]
    part: list[int]
    read: list[tuple[int, int, int]]  # (place whose hidden state predicts it, token, continuation)


class _Family(NamedTuple):
    """A group's prompts by number, and the tokens that they share behind those of all; none of a prompt alone."""

    prefix: list[int]
    rows: list[tuple[int, _Row]]


def score_continuations(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    continuations: Sequence[Sequence[list[int]]],
    precision: Precision = "fp32",
) -> list[list[float]]:
    """log π(continuation | prompt) in nats, the sum over its tokens, of each continuation of each prompt.

    `continuations[i]` are those of `prompts[i]`, token ids all. What prompts begin with in common is found here.

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
    asked = [prompts[i] for i in asking]
    length = shared_length(asked)
    families = [
        _Family(
            asked[group.members[0]][length : group.length],
            [(asking[n], _row(asked[n], group.length, continuations[asking[n]])) for n in sorted(group.members)],
        )
        for group in sorted(groups(asked, length), key=lambda group: min(group.members))
    ]
    device = model.device
    with evaluating(model), torch.inference_mode(), autocast(device, precision):
        every = _prefixes(model, [asked[0][:length]], 0, None) if length else None

    def of_part(part: list[_Family]) -> list[Told]:
        with torch.inference_mode(), autocast(device, precision):  # a thread's modes are its own
            return _score_part(model, part, every, length, greedy)

    with evaluating(model):
        for found in in_order(model, of_part, _parts(families, MAX_TOKENS[device.type])):
            for i, continuation, logprob, best in found:
                scores[i][continuation] += logprob
                likeliest[i][continuation] &= best
    return [[Scored(*pair) for pair in zip(*row, strict=True)] for row in zip(scores, likeliest, strict=True)]


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


def _parts(families: Sequence[_Family], max_tokens: int) -> list[list[_Family]]:
    """What threads take one after the other: groups, then prompts that are alone, each kind by size."""
    parts = []
    for kind in ([one for one in families if one.prefix], [one for one in families if not one.prefix]):
        size = [len(one.prefix) + sum(len(row.tokens) for _, row in one.rows) for one in kind]
        parts += [[kind[n] for n in part] for part in by_width(torch.tensor(size), max_tokens)]
    return parts


def _score_part(
    model: PreTrainedModel, part: list[_Family], every: _Prefixes | None, length: int, greedy: bool
) -> list[Told]:
    """The groups' prefixes, then their rows in as many passes as they need."""
    own = _prefixes(model, [one.prefix for one in part], length, every) if part[0].prefix else None
    rows = [(n, i, row) for n, one in enumerate(part) for i, row in one.rows]
    found = []
    for index in by_width(torch.tensor([len(row.tokens) for _, _, row in rows]), MAX_TOKENS[model.device.type]):
        some = [rows[k] for k in index]
        family = torch.tensor([n for n, _, _ in some], device=model.device)
        before = [_Before(every, torch.zeros_like(family))] if every else []
        before += [_Before(own, family)] if own else []
        found += _score_pass(model, [(i, row) for _, i, row in some], before, greedy)
    return found


def _prefixes(model: PreTrainedModel, tokens: list[list[int]], start: int, every: _Prefixes | None) -> _Prefixes:
    """Keys and values of G prefixes, which begin at position `start`, behind what all share.

    Raises:
        InputError: the architecture's layers share keys, so they are not each layer's own to keep.
    """
    kept = _Prefixes(start, torch.tensor([len(ids) for ids in tokens], device=model.device))
    position = kept.position.expand(len(tokens), -1)
    before = [_Before(every, torch.zeros_like(kept.length))] if every else []
    layout = _Branches(before, position, torch.zeros_like(position), kept)
    last = torch.arange(len(tokens), device=model.device), kept.length - 1  # of these too only the keys are wanted
    _run(model, _padded(tokens, 0, model.device), position, layout, last)
    if len(kept.key) != model.config.get_text_config().num_hidden_layers:
        raise InputError(f"architecture {model.config.model_type!r} shares keys between layers")
    return kept


def _score_pass(
    model: PreTrainedModel, rows: list[tuple[int, _Row]], before: Sequence[_Before], greedy: bool
) -> list[Told]:
    """Every token read behind the rows' prefixes."""
    device = model.device
    position = _padded([row.position for _, row in rows], 0, device)
    layout = _Branches(before, position, _padded([row.part for _, row in rows], -1, device))
    read = [(n, place, token) for n, (_, row) in enumerate(rows) for place, token, _ in row.read]
    # The first tokens of all continuations of a prompt are read at one place, whose logits are computed once.
    places = sorted({(n, place) for n, place, _ in read})
    index = {where: m for m, where in enumerate(places)}
    row, at = torch.tensor(places, device=device).unbind(1)
    states = _run(model, _padded([row.tokens for _, row in rows], 0, device), position, layout, (row, at))
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


def _padded(values: Sequence[list[int]], filler: int, device: torch.device) -> torch.Tensor:
    width = max(map(len, values))
    return torch.tensor([[*x, *[filler] * (width - len(x))] for x in values], device=device)


def _run(
    model: PreTrainedModel,
    tokens: torch.Tensor,
    position: torch.Tensor,
    layout: Layout,
    where: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Last hidden states (M, D) at `where`: rows (M,) and places in them (M,)."""
    how = {"layout": layout, "read": read_of_rows(tokens, *where)}
    return model.get_decoder()(input_ids=tokens, position_ids=position, use_cache=False, **how).last_hidden_state[where]


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
