"""The last layer computed no further than it is read.

Whoever calls a trunk reads the last hidden states of some tokens: a judge of one behind each prompt, a reward model of
each response's last, a policy of those that predict its response. Of the others the last layer needs keys and values
alone: neither what attention makes of them nor the MLP, three quarters of a Llama layer's products.

The layer's own forward does both, so that no architecture is named: once on the tokens nobody reads, stopped inside our
attention function when their keys and values are there, and once on those that are read, whose queries look at the keys
and values of both. Called with `read=`, a trunk gives hidden states that mean nothing where they are not read.

Shapes: N rows of at most T tokens, which stand at places in a sequence of M; R of these are read, at most Q in a row.
"""

from contextlib import suppress
from functools import cache
from typing import Any

import torch
from transformers import PreTrainedModel

from heedful.models.places import Gather, Spread

MOST = 0.8  # share of tokens that are read from which dividing the last layer gains too little
# Numbers of a mask (N, Q, T) for each token left out, from which the mask costs more than leaving out saves: queries of
# some tokens need one, where attention to all is causal and needs none.
MOST_MASK = 2048


class Read:
    """Which tokens of a sequence are read."""

    def __init__(self, place: torch.Tensor, total: int, row: torch.Tensor, position: torch.Tensor) -> None:
        """Those at `position` of `row`; `place` (N, T) says where in the sequence of `total` tokens each row's stand.

        Rows may stand on the same places (a prompt they share), and a place may be named more than once.
        """
        rows, width = place.shape
        device = place.device
        cell = torch.full((total,), rows * width, device=device)  # the first cell of (N, T) to read each place
        cell = cell.scatter_reduce(0, place[row, position], row * width + position, "amin")
        read = cell < rows * width
        self.places = read.nonzero().squeeze(1)  # (R,)
        self.unread = (~read).nonzero().squeeze(1)  # (M − R,)
        self._order = torch.cat([self.unread, self.places])
        self._back = torch.empty_like(self._order).index_copy_(0, self._order, torch.arange(total, device=device))
        self.num, self._width = len(self.places), width
        # each row's queries side by side
        cell = cell[self.places]
        by_row = cell.argsort()
        of_row, column = cell // width, cell % width
        count = of_row.bincount(minlength=rows)
        before = torch.cumsum(count, 0) - count
        step = torch.empty_like(by_row).index_copy_(0, by_row, torch.arange(self.num, device=device)) - before[of_row]
        self._shape = rows, int(count.max()) if self.num else 0
        self._cell = of_row * self._shape[1] + step  # (R,) into N · Q
        empty = cell.new_zeros(rows * self._shape[1])
        self._source = empty.index_copy(0, self._cell, torch.arange(self.num, device=device))  # (N · Q) into R
        self._column = empty.index_copy(0, self._cell, column).unflatten(0, self._shape)  # (N, Q)

    @property
    def mask_size(self) -> int:
        """How many numbers a mask (N, Q, T) has."""
        return self._shape[0] * self._shape[1] * self._width

    def divided(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Hidden states (…, H) of the sequence as (1, M − R, H) that are not read and (1, R, H) that are."""
        ordered: torch.Tensor = Spread.apply(x.flatten(0, 1), self._order, self._back)
        return ordered[None].split([len(self.unread), self.num], 1)

    def whole(self, others: torch.Tensor, mine: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Keys (or values) (1, H, M − R, D) and (1, H, R, D) as those of the sequence (A, H, B, D), A · B = M."""
        both = torch.cat([others.transpose(1, 2), mine.transpose(1, 2)], 1).squeeze(0)
        found: torch.Tensor = Spread.apply(both, self._back, self._order)
        return found.unflatten(0, shape).transpose(1, 2)

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """Those of each row (N, H, Q, D), from (1, H, R, D); those of padding mean nothing."""
        found: torch.Tensor = Spread.apply(x.squeeze(0).transpose(0, 1), self._source, self._cell)
        return found.unflatten(0, self._shape).transpose(1, 2)

    def mask(self, mask: torch.Tensor | None, like: torch.Tensor, keys: int, window: int | None) -> torch.Tensor:
        """The queries' part (N, 1, Q, S) of a mask (N, 1, T, S); of the causal one where there is none."""
        if mask is not None:
            row = torch.arange(len(self._column), device=mask.device)[:, None]
            return mask[row % len(mask), 0, self._column].unsqueeze(1)
        column = torch.arange(keys, device=like.device)
        seen = column <= self._column[..., None]
        if window is not None:
            seen &= column > self._column[..., None] - window
        return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill_(~seen, float("-inf"))[:, None]

    def join(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs (N, Q, H, D) for the rows' queries as those of the tokens read (1, R, H, D)."""
        found: torch.Tensor = Gather.apply(x.flatten(0, 1), self._cell)
        return found.unsqueeze(0)


def read_of(place: torch.Tensor, total: int, row: torch.Tensor, position: torch.Tensor) -> Read | None:
    """What `Read` says, or None where dividing the tokens gains nothing: hardly any are left out, or rows are so long
    that the mask outweighs them, or of one token."""
    if place.shape[1] == 1:
        return None
    read = Read(place, total, row, position)
    gains = 0 < read.num < MOST * total and read.mask_size <= MOST_MASK * len(read.unread)
    return read if gains else None


def read_of_rows(tokens: torch.Tensor, row: torch.Tensor, position: torch.Tensor) -> Read | None:
    """The same over padded tokens (N, T) that a trunk is given as they are."""
    place = torch.arange(tokens.numel(), device=tokens.device).view_as(tokens)
    return read_of(place, tokens.numel(), row, position)


class Halves:
    """The keys and values of one pass through the last layer, which sees the tokens in two calls."""

    def __init__(self, read: Read, shape: torch.Size) -> None:
        """`shape` (A, B) of the tokens that the trunk was given."""
        self.read = read
        self._shape = shape
        self._kept: tuple[torch.Tensor, torch.Tensor] | None = None

    def whole(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values (A, H, B, D) of all tokens, from those (1, H, R, D) of the second call.

        The first call ends here.
        """
        if self._kept is None:
            self._kept = key, value
            raise _KeysAreThere
        others = self._kept
        return self.read.whole(others[0], key, self._shape), self.read.whole(others[1], value, self._shape)


class _KeysAreThere(Exception):
    """Ends a layer's forward once the keys and values of tokens that are not read are known."""


class _LastLayer(torch.nn.Module):
    """What the last layer of a trunk does first: it looks which tokens are read."""

    def forward(self, hidden_states: torch.Tensor, *args: Any, read: Read | None = None, **others: Any) -> torch.Tensor:
        if read is None:
            return super().forward(hidden_states, *args, **others)
        shape = hidden_states.shape[:2]
        halves = Halves(read, shape)
        unread, mine = read.divided(hidden_states)
        with suppress(_KeysAreThere):
            beside, named = _at(read.unread, shape, (args, others))
            super().forward(unread, *beside, halves=halves, **named)
        beside, named = _at(read.places, shape, (args, others))
        found: torch.Tensor = super().forward(mine, *beside, halves=halves, **named)
        zeros = found.new_zeros(shape.numel(), found.shape[-1])
        return zeros.index_copy(0, read.places, found[0]).unflatten(0, shape)

    def __reduce_ex__(self, protocol: Any) -> Any:
        kind = type(self).__mro__[2]  # what is not known by a name of this module is told by the class it extends
        return _empty, (kind,), self.__getstate__()


def _at(place: torch.Tensor, shape: torch.Size, x: Any) -> Any:
    """What a layer is given beside hidden states (A, B, H): of every tensor (A or 1, …1, B, …) its entries at the
    places, as if they had been given for one row."""
    if isinstance(x, tuple | list):
        return type(x)(_at(place, shape, each) for each in x)
    if isinstance(x, dict):
        return {name: _at(place, shape, each) for name, each in x.items()}
    if not isinstance(x, torch.Tensor) or x.dim() < 2 or x.shape[0] not in (1, shape[0]):
        return x
    between = next((n for n, size in enumerate(x.shape[1:]) if size != 1 or shape[1] == 1), x.dim())
    if x.shape[1 + between : 2 + between] != shape[1:]:
        return x
    token_first = x.movedim(1 + between, 1)
    chosen = token_first.expand(*shape, *token_first.shape[2:]).flatten(0, 1).index_select(0, place)
    return chosen[None].movedim(1, 1 + between)


def _empty(kind: type) -> _LastLayer:
    """An instance for a copy, or for one read back from disk, to be filled."""
    made: _LastLayer = object.__new__(_dividing(kind))
    return made


@cache
def _dividing(kind: type) -> type:
    # a subclass, so that checkpointing, which transformers wraps around a class's own forward, holds both calls
    return type(kind.__name__, (_LastLayer, kind), {})


def read_in_part(trunk: PreTrainedModel) -> None:
    """From now on the trunk's last layer minds `read=`."""
    number = trunk.config.get_text_config().num_hidden_layers
    layers = [m for m in trunk.children() if isinstance(m, torch.nn.ModuleList) and len(m) == number]
    if layers:
        last = layers[0][-1]
        kind: type = type(last)
        last.__class__ = _dividing(kind)
