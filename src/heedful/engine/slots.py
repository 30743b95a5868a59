"""The rows being generated: admitting prompts, one step for all, collecting what is finished.

Everything a row owns (keys, values, tokens, log-probabilities, uniform numbers, mask) is stored by column, aligned in
time as `cache` explains: a step touches one column of each and does no work in Python per row. Time only grows; the
token of time t stands in column t − base, and base moves when storage is shifted or grown.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from heedful.config import InputError
from heedful.engine.cache import Cache, Decode, Prefill, moved
from heedful.engine.draw import Bias, Draw, Sampling, biased, draw, sampling, stream_key, uniforms
from heedful.engine.odds import Odds, odds, odds_after
from heedful.engine.requests import Completion, NewToken, Request, Unit, first_units
from heedful.engine.spelling import Spelling, Writer
from heedful.models.attention import Layout
from heedful.models.masked import next_logits
from heedful.models.read import Read, read_of_rows

BLOCK = 64  # columns by which storage grows
PREFILL_TOKENS = {"cpu": 1024, "cuda": 16384}  # padded tokens of one prefill pass: what a CPU's cache holds
BY_ROW = (  # the tensors of Slots whose first dimension is rows
    *("_tokens", "_logprob", "_uniform", "_mask", "_start", "_response", "_last"),
    *("_position", "_key", "_live", "_failed", "_close", "_temperature", "_top_k", "_top_p"),
)
REFILL = 8  # free slots are refilled, and holes closed, once they are one in REFILL: fewer, larger passes


class _Owner(NamedTuple):
    """Whose response a slot holds, and the times of its first prompt token and its first response token."""

    order: int
    sample: int
    start: int
    response: int
    request: Request
    odds: list[Odds]
    prompt_odds: list[Odds]
    writer: Writer | None  # where there are stop texts to look for


class _Kept(NamedTuple):
    """A prompt that was read, for those of its samples that found no free row yet."""

    order: int
    columns: list[torch.Tensor]  # of the cache
    logits: torch.Tensor  # (V,) behind it
    odds: list[Odds]


class Slots:
    """Up to `size` rows. Slots 0 to n are computed; those without an owner in vain, until refilled or closed.

    Every row's newest token is that of the present time, and not in the cache yet.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        ends: torch.Tensor,
        spelling: Spelling | None,
        size: int,
        rows: int,
        expected: int,
        counts: Counter[str],
    ) -> None:
        """`ends` (V,) bool: the tokens that end a response. `rows` and `expected` columns to start with; more rows, up
        to `size`, and more columns come as needed."""
        self._model, self._trunk, self._ends, self._counts = model, model.get_decoder(), ends, counts
        self._size, self._rows, self._expected, self._device = size, rows, expected, ends.device
        self._spelling = spelling
        self._owner: list[_Owner | None] = [None] * size
        self._fresh: Sequence[int] = ()  # the slots that got the newest tokens
        self.alive = self._n = 0
        self._time = self._low = self._base = 0
        autocast = torch.is_autocast_enabled(self._device.type)
        self._cache = Cache(rows, 0, torch.get_autocast_dtype(self._device.type) if autocast else None)
        number = torch.promote_types(model.dtype, torch.float32)
        self._tokens, self._logprob = self._new(torch.int64, 0), self._new(number, 0)  # (size, columns)
        self._uniform, self._mask = self._new(torch.float64, 0), self._new(number, 0)  # (size, columns)
        self._start, self._response, self._last = (self._new(torch.int64) for _ in range(3))  # times, (size,)
        self._position, self._key, self._live = self._new(torch.int64), self._new(torch.int64), self._new(torch.bool)
        self._failed, self._close = self._new(torch.bool), self._new(torch.int64)
        self._temperature, self._top_k, self._top_p = self._new(number), self._new(torch.int64), self._new(number)
        self._kept: _Kept | None = None  # of the queue's first, when some of its samples are admitted
        self._sampling: Sampling
        self._asking: list[tuple[int, _Owner]] = []
        self._bias: Bias | None = None

    def wants(self, queue: Sequence[Unit], at_once: bool = False) -> bool:
        """Whether it is time to admit those at the queue's end: as soon as there is room, when `at_once`."""
        free = self._size - self.alive
        full = free * REFILL < self._size and self.alive > 0 and not at_once
        return bool(queue) and free > 0 and not full

    def admit(self, queue: list[Unit]) -> None:
        """Take samples off the queue's end while there are free rows, each prompt in one pass for all of its samples,
        and draw their first tokens."""
        free = [slot for slot in range(self._size) if self._owner[slot] is None]
        units = first_units(queue, len(free))
        rest = queue[-1].order if queue and queue[-1].first else None  # whose other samples will come later
        self._fresh = free[: sum(unit.number for unit in units)]
        self._hold(self._fresh[-1] + 1)
        earliest = self._time - max(len(unit.request.prompt) for unit in units)
        self._fit(min(self._low, earliest) if self.alive else earliest, self._time + 2)
        kept, self._kept = self._kept, None
        if kept is not None and kept.order == units[0].order:
            unit = units.pop(0)
            self._cache.write(self._tensor(free[: unit.number]), kept.columns, self._time - self._base)
            self._begin([unit], free[: unit.number], kept.logits[None], [kept.odds])
            free = free[unit.number :]
            self._kept = kept if kept.order == rest else None
        units.sort(key=lambda unit: -len(unit.request.prompt))
        for part in _passes(units, PREFILL_TOKENS[self._device.type]):
            number = sum(unit.number for unit in part)
            self._prefill(part, free[:number], rest)
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
        hidden = self._run(self._tokens[:n, column : column + 1], self._position[:n, None], layout=layout)
        self._position[:n] += 1
        self._time += 1
        self._counts["steps"] += 1
        self._counts["decode_rows"] += n
        logits = next_logits(self._model, hidden[:, 0])
        drawn = draw(biased(logits, self._bias), self._sampling, self._uniform[:n, column + 1])
        self._note(self._asking, logits, drawn)
        self._fresh = range(n)
        self._write(slice(0, n), column + 1, drawn)

    def collect(self) -> list[tuple[int, int, Completion]]:
        """(request index, sample, completion) of the rows whose newest token is their last; their slots are free."""
        n, column = self._n, self._time - self._base
        newest, failed = self._tokens[:n, column], self._failed[:n]
        ended = self._ends[newest] & ~failed
        over = ended | failed | (self._last[:n] <= self._time)
        over[[slot for slot, owner in self._asking if owner.writer is not None and owner.writer.finished]] = True
        done = (self._live[:n] & over).nonzero().squeeze(1)
        if not len(done):
            return []
        self._live[done] = False
        self._position[done] = 0  # an empty row's position must not run past the model's context
        finished, broken, close = ended[done].tolist(), failed[done].tolist(), self._close[done].tolist()
        self._counts["close_draws"] += sum(close)
        low = self._low - self._base
        tokens = self._tokens[done, low : column + 1].tolist()
        logprobs = self._logprob[done, low : column + 1].tolist()
        results = []
        for i, slot in enumerate(done.tolist()):
            owner = self._owner[slot]
            assert owner is not None
            void = broken[i] or not owner.request.max_new_tokens  # the newest token was not drawn, or not asked for
            made = slice(owner.response - self._low, -1 if void else None)
            response, logprob = tokens[i][made], logprobs[i][made]
            piece = None if owner.writer is None else owner.writer.take()
            found = owner.odds[: len(response)], owner.prompt_odds, broken[i], close[i], piece
            whole = (finished[i] and not void) or (piece is not None and piece.finish == "stop")
            completion = Completion(response, logprob, whole, *found)
            results.append((owner.order, owner.sample, completion))
            self._owner[slot] = None
        self.alive -= len(results)
        self._settle()
        return results

    def newest(self) -> list[NewToken]:
        """The tokens that the last admission or step gave; to be read before `collect`."""
        slots = [slot for slot in self._fresh if self._owner[slot] is not None]
        newest, failed = self._tokens[self._tensor(slots), self._time - self._base], self._failed[self._tensor(slots)]
        found = []
        columns = (newest.tolist(), (self._ends[newest] & ~failed).tolist(), failed.tolist())
        for slot, token, ends, broken in zip(slots, *columns, strict=True):
            owner = self._owner[slot]
            assert owner is not None
            last = ends or broken or self._is_last(owner) or (owner.writer is not None and owner.writer.finished)
            latest = owner.odds[-1] if owner.odds else None
            found.append(NewToken(owner.order, owner.sample, token, ends, last, latest, owner.prompt_odds, broken))
        return found

    def release(self, order: int, sample: int | None = None) -> None:
        """Free the rows of a request, or one sample's, whose tokens nobody wants any more."""
        gone = [
            slot
            for slot, owner in enumerate(self._owner)
            if owner is not None and owner.order == order and sample in (None, owner.sample)
        ]
        self._live[gone] = False
        self._position[gone] = 0
        for slot in gone:
            self._owner[slot] = None
        self.alive -= len(gone)
        if sample is None and self._kept is not None and self._kept.order == order:
            self._kept = None
        self._settle()

    def _prefill(self, units: list[Unit], slots: list[int], rest: int | None) -> None:
        """Read the units' prompts; that of order `rest` is kept."""
        lengths = [len(unit.request.prompt) for unit in units]
        padded = [[*unit.request.prompt, *[0] * (max(lengths) - len(unit.request.prompt))] for unit in units]
        tokens, length = self._tensor(padded), self._tensor(lengths)
        prompt = [p for p, unit in enumerate(units) for _ in range(unit.number)]
        column = self._time - self._base
        layout = Prefill(self._cache, self._tensor(slots), self._tensor(prompt), length, max(lengths), column)
        last = torch.arange(len(units), device=self._device), length - 1
        whole = [unit.request.prompt_logprobs is not None for unit in units]
        read_at = [(p, t) for p, n in enumerate(lengths) for t in range(0 if whole[p] else n - 1, n)]
        read = read_of_rows(tokens, *self._tensor(read_at).unbind(1))
        hidden = self._run(tokens, torch.arange(max(lengths), device=self._device)[None], layout=layout, read=read)
        if len(self._cache.key) != self._model.config.get_text_config().num_hidden_layers:
            raise InputError(f"architecture {self._model.config.model_type!r} shares keys between layers")
        self._counts["prefill_tokens"] += tokens.numel()
        prompt_odds = [self._prompt_odds(unit, h) for unit, h in zip(units, hidden, strict=True)]
        logits = next_logits(self._model, hidden[last])
        for p, unit in enumerate(units):
            if unit.order == rest:
                columns = self._cache.read(slots[prompt.index(p)], column - lengths[p], column)
                self._kept = _Kept(unit.order, columns, logits[p], prompt_odds[p])
        self._begin(units, slots, logits, prompt_odds)

    def _begin(
        self, units: list[Unit], slots: list[int], logits: torch.Tensor, prompt_odds: Sequence[list[Odds]]
    ) -> None:
        """The first token of each of the units' samples, by logits (units, V) behind their prompts."""
        samples = [(p, unit, unit.first + k) for p, unit in enumerate(units) for k in range(unit.number)]
        self._n = max(self._n, *(s + 1 for s in slots))
        self._take(slots, samples, prompt_odds)
        logits, slot = logits[self._tensor([p for p, _, _ in samples])], self._tensor(slots)
        column = self._time - self._base
        how = sampling(self._temperature[slot], self._top_k[slot], self._top_p[slot])
        owners = [self._owner[s] for s in slots]
        drawn = draw(biased(logits, self._bias_of(owners)), how, self._uniform[slot, column])
        self._note(_asking(owners), logits, drawn)
        self._write(slot, column, drawn)

    def _write(self, rows: slice | torch.Tensor, column: int, drawn: Draw) -> None:
        """The rows' newest tokens. What a failed row left in the cache would reach whoever comes after it there."""
        self._tokens[rows, column], self._logprob[rows, column] = drawn.token, drawn.logprob
        self._failed[rows] = drawn.failed
        self._close[rows] += drawn.close
        if bool(drawn.failed.any()):
            self._cache.clear_rows(torch.arange(self._n, device=self._device)[rows][drawn.failed])

    def _prompt_odds(self, unit: Unit, hidden: torch.Tensor) -> list[Odds]:
        prompt, number = unit.request.prompt, unit.request.prompt_logprobs
        if number is None:
            return []
        return odds_after(self._model, hidden[: len(prompt) - 1], self._tensor(prompt[1:]), number)

    def _take(self, slots: list[int], samples: list[tuple[int, Unit, int]], prompt_odds: Sequence[list[Odds]]) -> None:
        """Write down whose response each slot holds from now on."""
        for taken, (prompt, unit, sample) in zip(slots, samples, strict=True):
            start = self._time - len(unit.request.prompt)
            writer = None
            if unit.request.stop and unit.request.max_new_tokens and self._spelling is not None:
                writer = Writer(self._spelling, unit.request.stop)
            owner = _Owner(unit.order, sample, start, self._time, unit.request, [], prompt_odds[prompt], writer)
            self._owner[taken] = owner
        requests = [unit.request for _, unit, _ in samples]
        slot = self._tensor(slots)
        length = self._tensor([len(r.prompt) for r in requests])
        self._start[slot], self._response[slot], self._position[slot] = self._time - length, self._time, length
        self._last[slot] = self._time + self._tensor([r.max_new_tokens for r in requests]) - 1
        self._key[slot] = self._tensor([stream_key(unit.request.seed, sample) for _, unit, sample in samples])
        self._live[slot], self._close[slot] = True, 0
        self._temperature[slot] = self._tensor([r.temperature for r in requests], self._temperature.dtype)
        self._top_k[slot] = self._tensor([min(r.top_k, len(self._ends)) for r in requests])
        self._top_p[slot] = self._tensor([r.top_p for r in requests], self._top_p.dtype)
        self.alive += len(slots)
        self._refresh(slot)

    def _is_last(self, owner: _Owner) -> bool:
        return owner.response + owner.request.max_new_tokens - 1 <= self._time

    def _note(self, asking: list[tuple[int, _Owner]], logits: torch.Tensor, drawn: Draw) -> None:
        """Odds and texts of the new tokens, by logits (n, V), for the rows that ask for them."""
        telling = [(i, owner) for i, owner in asking if owner.request.logprobs is not None]
        if telling:
            row = self._tensor([i for i, _ in telling])
            number = max(owner.request.logprobs or 0 for _, owner in telling)
            for (_, owner), found in zip(telling, odds(logits[row], drawn.token[row], number), strict=True):
                owner.odds.append(found._replace(likeliest=found.likeliest[: owner.request.logprobs]))
        writing = [(i, owner.writer, self._is_last(owner)) for i, owner in asking if owner.writer is not None]
        if writing:
            row = self._tensor([i for i, _, _ in writing])
            token, failed = drawn.token[row], drawn.failed[row].tolist()
            columns = (token.tolist(), self._ends[token].tolist(), failed)
            for (_, writer, last), id, ends, broken in zip(writing, *columns, strict=True):
                if not broken:
                    writer.add(id, ends, ends or last)

    def _run(self, tokens: torch.Tensor, position: torch.Tensor, **how: Layout | Read | None) -> torch.Tensor:
        return self._trunk(input_ids=tokens, position_ids=position, use_cache=False, **how).last_hidden_state

    def _settle(self) -> None:
        """After rows came or went: empty slots at the end are not computed, and columns before every row not read."""
        while self._n and self._owner[self._n - 1] is None:
            self._n -= 1
        n = self._n
        self._low = min((owner.start for owner in self._owner[:n] if owner is not None), default=self._time)
        self._sampling = sampling(self._temperature[:n], self._top_k[:n], self._top_p[:n])
        self._asking, self._bias = _asking(self._owner[:n]), self._bias_of(self._owner[:n])

    def _bias_of(self, owners: Sequence[_Owner | None]) -> Bias | None:
        """The biases of rows in this order."""
        entries = [(i, *entry) for i, owner in enumerate(owners) if owner is not None for entry in owner.request.bias]
        if not entries:
            return None
        row, token, number = zip(*entries, strict=True)
        return Bias(self._tensor(row), self._tensor(token), self._tensor(number, self._temperature.dtype))

    def _close_holes(self) -> None:
        """Move the last rows into the empty slots before them."""
        holes = [slot for slot in range(self.alive) if self._owner[slot] is None]
        tail = [slot for slot in range(self.alive, self._n) if self._owner[slot] is not None]
        if holes:
            source, target = self._tensor(tail), self._tensor(holes)
            self._cache.copy_rows(source, target, self._low - self._base, self._time - self._base)
            for x in (getattr(self, name) for name in BY_ROW):
                x[target] = x[source]
            for old, new in zip(tail, holes, strict=True):
                self._owner[new], self._owner[old] = self._owner[old], None
        self._settle()

    def _hold(self, rows: int) -> None:
        """Make storage hold so many rows."""
        if rows > self._rows:
            self._rows = min(self._size, max(rows, 2 * self._rows))
            self._cache.add_rows(self._rows)
            for name in BY_ROW:
                setattr(self, name, moved(getattr(self, name), 0, 0, self._n, 0, self._rows))

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
        return torch.zeros(self._rows, *shape, dtype=dtype, device=self._device)

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


def _asking(owners: Sequence[_Owner | None]) -> list[tuple[int, _Owner]]:
    """The rows, in this order, whose requests ask for odds or stop texts."""
    there = [(i, owner) for i, owner in enumerate(owners) if owner is not None]
    return [(i, owner) for i, owner in there if owner.request.logprobs is not None or owner.writer is not None]
