"""The rows being generated: admitting prompts, one step for all, collecting what is finished.

Everything a row owns (keys, values, tokens, log-probabilities, uniform numbers, mask) is stored by column, aligned in
time as `cache` explains: a step touches one column of each and does no work in Python per row. Time only grows; the
token of time t stands in column t − base, and base moves when storage is shifted or grown.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from heedful.config import InputError
from heedful.engine.cache import Cache, Decode, Prefill, moved
from heedful.engine.draw import Sampling, draw, sampling, stream_key, uniforms
from heedful.models.attention import Layout
from heedful.models.load import head_logits

BLOCK = 64  # columns by which storage grows
PREFILL_TOKENS = {"cpu": 1024, "cuda": 16384}  # padded tokens of one prefill pass: what a CPU's cache holds
REFILL = 8  # free slots are refilled, and holes closed, once they are one in REFILL: fewer, larger passes


@dataclass(frozen=True)
class Request:
    """One prompt to be answered `num_samples` times; temperature 0 is greedy, top_k 0 and top_p 1 keep every token."""

    prompt: list[int]
    num_samples: int = 1
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


class Completion(NamedTuple):
    """One response. `logprob` is each token's at the sampling temperature (at 1 when greedy), over all tokens."""

    tokens: list[int]  # with the end token when one was produced
    logprob: list[float]
    finished: bool  # False where max_new_tokens cut it


class Unit(NamedTuple):
    """Samples of one request that are admitted together, so that they share one prefill."""

    order: int  # the request's index
    request: Request
    first: int  # sample
    number: int


class _Owner(NamedTuple):
    """Whose response a slot holds, and the times of its first prompt token and its first response token."""

    order: int
    sample: int
    start: int
    response: int


class Slots:
    """Up to `size` rows. Slots 0 to n are computed; those without an owner in vain, until refilled or closed.

    Every row's newest token is that of the present time, and not in the cache yet.
    """

    def __init__(
        self, model: PreTrainedModel, ends: torch.Tensor, size: int, expected: int, counts: Counter[str]
    ) -> None:
        """`ends` (V,) bool: the tokens that end a response. `expected`: columns to start with; more come as needed."""
        self._model, self._trunk, self._ends, self._counts = model, model.get_decoder(), ends, counts
        self._size, self._expected, self._device = size, expected, ends.device
        self._owner: list[_Owner | None] = [None] * size
        self.alive = self._n = 0
        self._time = self._low = self._base = 0
        autocast = torch.is_autocast_enabled(self._device.type)
        self._cache = Cache(size, 0, torch.get_autocast_dtype(self._device.type) if autocast else None)
        number = torch.promote_types(model.dtype, torch.float32)
        self._tokens, self._logprob = self._new(torch.int64, 0), self._new(number, 0)  # (size, columns)
        self._uniform, self._mask = self._new(torch.float64, 0), self._new(number, 0)  # (size, columns)
        self._start, self._response, self._last = (self._new(torch.int64) for _ in range(3))  # times, (size,)
        self._position, self._key, self._live = self._new(torch.int64), self._new(torch.int64), self._new(torch.bool)
        self._temperature, self._top_k, self._top_p = self._new(number), self._new(torch.int64), self._new(number)
        self._sampling: Sampling

    def wants(self, queue: Sequence[Unit]) -> bool:
        """Whether it is time to admit the unit at the queue's end."""
        free = self._size - self.alive
        return bool(queue) and queue[-1].number <= free and (free * REFILL >= self._size or not self.alive)

    def admit(self, queue: list[Unit]) -> None:
        """Take units off the queue's end while they fit, prefill their prompts and draw their first tokens."""
        free = [slot for slot in range(self._size) if self._owner[slot] is None]
        units: list[Unit] = []
        while queue and queue[-1].number <= len(free) - sum(unit.number for unit in units):
            units.append(queue.pop())
        longest = max(len(unit.request.prompt) for unit in units)
        earliest = self._time - longest
        self._fit(min(self._low, earliest) if self.alive else earliest, self._time + 2)
        for part in _passes(units, PREFILL_TOKENS[self._device.type]):
            number = sum(unit.number for unit in part)
            self._prefill(part, free[:number])
            free = free[number:]
        self._settle()

    def step(self) -> None:
        """One token for every row."""
        if (self._n - self.alive) * REFILL >= self._n:
            self._close_holes()
        self._fit(self._low, self._time + 2)
        n, column, low = self._n, self._time - self._base, self._low - self._base
        mask = self._mask[:n, low : column + 1][:, None, None]
        layout = Decode(self._cache, n, low, column + 1, mask)
        hidden = self._run(self._tokens[:n, column : column + 1], self._position[:n, None], layout)
        self._position[:n] += 1
        self._time += 1
        self._counts["steps"] += 1
        self._counts["decode_rows"] += n
        token, logprob, close = draw(
            head_logits(self._model, hidden[:, 0]), self._sampling, self._uniform[:n, column + 1]
        )
        self._tokens[:n, column + 1] = token
        self._logprob[:n, column + 1] = logprob
        self._counts["close_draws"] += int(close)

    def collect(self) -> list[tuple[int, int, Completion]]:
        """(request index, sample, completion) of the rows whose newest token is their last; their slots are free."""
        n, column = self._n, self._time - self._base
        newest = self._tokens[:n, column]
        ended = self._ends[newest]
        done = (self._live[:n] & (ended | (self._last[:n] <= self._time))).nonzero().squeeze(1)
        if not len(done):
            return []
        self._live[done] = False
        self._position[done] = 0  # an empty row's position must not run past the model's context
        finished, low = ended[done].tolist(), self._low - self._base
        tokens = self._tokens[done, low : column + 1].tolist()
        logprobs = self._logprob[done, low : column + 1].tolist()
        results = []
        for i, slot in enumerate(done.tolist()):
            owner = self._owner[slot]
            assert owner is not None
            first = owner.response - self._low
            completion = Completion(tokens[i][first:], logprobs[i][first:], finished[i])
            results.append((owner.order, owner.sample, completion))
            self._owner[slot] = None
        self.alive -= len(results)
        self._settle()
        return results

    def _prefill(self, units: list[Unit], slots: list[int]) -> None:
        lengths = [len(unit.request.prompt) for unit in units]
        padded = [[*unit.request.prompt, *[0] * (max(lengths) - len(unit.request.prompt))] for unit in units]
        tokens, length = self._tensor(padded), self._tensor(lengths)
        samples = [(p, unit, unit.first + k) for p, unit in enumerate(units) for k in range(unit.number)]
        prompt, slot = self._tensor([p for p, _, _ in samples]), self._tensor(slots)
        layout = Prefill(self._cache, slot, prompt, length, max(lengths), self._time - self._base)
        hidden = self._run(tokens, torch.arange(max(lengths), device=self._device)[None], layout)
        if len(self._cache.key) != self._model.config.get_text_config().num_hidden_layers:
            raise InputError(f"architecture {self._model.config.model_type!r} shares keys between layers")
        self._counts["prefill_tokens"] += tokens.numel()
        self._n = max(self._n, *(s + 1 for s in slots))
        self._take(slots, samples)
        logits = head_logits(self._model, hidden[torch.arange(len(units), device=self._device), length - 1])[prompt]
        column = self._time - self._base
        how = sampling(self._temperature[slot], self._top_k[slot], self._top_p[slot])
        token, logprob, close = draw(logits, how, self._uniform[slot, column])
        self._tokens[slot, column] = token
        self._logprob[slot, column] = logprob
        self._counts["close_draws"] += int(close)

    def _take(self, slots: list[int], samples: list[tuple[int, Unit, int]]) -> None:
        """Write down whose response each slot holds from now on."""
        for taken, (_, unit, sample) in zip(slots, samples, strict=True):
            self._owner[taken] = _Owner(unit.order, sample, self._time - len(unit.request.prompt), self._time)
        requests = [unit.request for _, unit, _ in samples]
        slot = self._tensor(slots)
        length = self._tensor([len(r.prompt) for r in requests])
        self._start[slot], self._response[slot], self._position[slot] = self._time - length, self._time, length
        self._last[slot] = self._time + self._tensor([r.max_new_tokens for r in requests]) - 1
        self._key[slot] = self._tensor([stream_key(unit.request.seed, sample) for _, unit, sample in samples])
        self._live[slot] = True
        self._temperature[slot] = self._tensor([r.temperature for r in requests], self._temperature.dtype)
        self._top_k[slot] = self._tensor([r.top_k for r in requests])
        self._top_p[slot] = self._tensor([r.top_p for r in requests], self._top_p.dtype)
        self.alive += len(slots)
        self._refresh(slot)

    def _run(self, tokens: torch.Tensor, position: torch.Tensor, layout: Layout) -> torch.Tensor:
        output = self._trunk(input_ids=tokens, position_ids=position, use_cache=False, layout=layout)
        return output.last_hidden_state

    def _settle(self) -> None:
        """After rows came or went: empty slots at the end are not computed, and columns before every row not read."""
        while self._n and self._owner[self._n - 1] is None:
            self._n -= 1
        n = self._n
        self._low = min((owner.start for owner in self._owner[:n] if owner is not None), default=self._time)
        self._sampling = sampling(self._temperature[:n], self._top_k[:n], self._top_p[:n])

    def _close_holes(self) -> None:
        """Move the last rows into the empty slots before them."""
        holes = [slot for slot in range(self.alive) if self._owner[slot] is None]
        tail = [slot for slot in range(self.alive, self._n) if self._owner[slot] is not None]
        if holes:
            source, target = self._tensor(tail), self._tensor(holes)
            self._cache.copy_rows(source, target, self._low - self._base, self._time - self._base)
            for x in self._by_row():
                x[target] = x[source]
            for old, new in zip(tail, holes, strict=True):
                self._owner[new], self._owner[old] = self._owner[old], None
        self._settle()

    def _by_row(self) -> tuple[torch.Tensor, ...]:
        grids = (self._tokens, self._logprob, self._uniform, self._mask)
        times = (self._start, self._response, self._last, self._position, self._key, self._live)
        return (*grids, *times, self._temperature, self._top_k, self._top_p)

    def _fit(self, low: int, high: int) -> None:
        """Make storage hold times low to high, keeping what rows own."""
        columns = self._tokens.shape[1]
        if self._base <= low and high <= self._base + columns:
            return
        if (high - low) * 3 > columns * 2:  # too full for shifting to help for long
            columns = -(-max((high - low) * 3 // 2, self._expected) // BLOCK) * BLOCK
        first, now, shift = self._low - self._base, self._time - self._base, self._base - low
        if not self.alive:
            first, now, shift = 0, -1, 0
        self._cache.move_columns(first, max(now, 0), shift, columns)
        self._tokens = moved(self._tokens, 1, first, now + 1, shift, columns)
        self._logprob = moved(self._logprob, 1, first, now + 1, shift, columns)
        self._base = low
        if columns != self._uniform.shape[1]:
            self._uniform = self._new(self._uniform.dtype, columns)
            self._mask = self._new(self._mask.dtype, columns)
        self._refresh(torch.arange(self._n, device=self._device))

    def _refresh(self, slot: torch.Tensor) -> None:
        """Mask and uniform numbers of these slots, for every column there is."""
        time = torch.arange(self._tokens.shape[1], device=self._device)[None] + self._base
        before = time < self._start[slot, None]
        self._mask[slot] = torch.zeros_like(before, dtype=self._mask.dtype).masked_fill(before, float("-inf"))
        self._uniform[slot] = uniforms(self._key[slot, None], time - self._response[slot, None])

    def _new(self, dtype: torch.dtype, *shape: int) -> torch.Tensor:
        return torch.zeros(self._size, *shape, dtype=dtype, device=self._device)

    def _tensor(self, values: Sequence[object], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=self._device)


def _passes(units: list[Unit], max_tokens: int) -> list[list[Unit]]:
    """Units, longest prompt first, in groups whose padded prompts hold at most max_tokens, or in one of its own."""
    groups: list[list[Unit]] = []
    for unit in units:
        if groups and len(groups[-1][0].request.prompt) * (len(groups[-1]) + 1) <= max_tokens:
            groups[-1].append(unit)
        else:
            groups.append([unit])
    return groups
