"""Keys and values of the rows being generated, and the two layouts through which the model's forward reaches them.

Rows are aligned in time: whatever its prompt's length, every row's newest token stands in the same column, so a step
writes one column and reads one slice, and rows may leave and join between steps. A row's tokens stand in consecutive
columns; those before its first one belong to nobody and are masked. Positions are the model's business: keys carry
them already.
"""

from collections.abc import Callable

import torch

from heedful.models.attention import Layout


class Cache:
    """Per layer, keys and values (rows, kv_heads, columns, head_dim); layers may differ in heads and widths."""

    def __init__(self, rows: int, columns: int, dtype: torch.dtype | None = None) -> None:
        """`dtype` None keeps what the model computes."""
        self.rows = rows
        self.columns = columns
        self._dtype = dtype
        self.key: dict[int, torch.Tensor] = {}
        self.value: dict[int, torch.Tensor] = {}

    def make(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Room for a layer whose keys and values look like these (…, heads, …, width)."""
        if layer not in self.key:
            for store, like in ((self.key, key), (self.value, value)):
                shape = (self.rows, like.shape[1], self.columns, like.shape[3])
                store[layer] = torch.zeros(shape, dtype=self._dtype or like.dtype, device=like.device)

    def copy_rows(self, source: torch.Tensor, target: torch.Tensor, low: int, high: int) -> None:
        """Columns low to high of the source rows over those of the target rows."""
        for x in (*self.key.values(), *self.value.values()):
            x[target, :, low:high] = x[source, :, low:high]

    def read(self, row: int, low: int, high: int) -> list[torch.Tensor]:
        """Copies of columns low to high of a row, of every layer's keys and then values."""
        return [x[row, :, low:high].clone() for x in (*self.key.values(), *self.value.values())]

    def write(self, rows: torch.Tensor, columns: list[torch.Tensor], end: int) -> None:
        """What `read` gave into each of the rows, so that it ends before column `end`."""
        for x, kept in zip((*self.key.values(), *self.value.values()), columns, strict=True):
            x[rows, :, end - kept.shape[1] : end] = kept

    def clear_rows(self, rows: torch.Tensor) -> None:
        """Zeros in every column of the rows: a mask hides numbers, but not NaN."""
        for x in (*self.key.values(), *self.value.values()):
            x[rows] = 0

    def move_columns(self, low: int, high: int, shift: int, columns: int) -> None:
        """Columns low to high go `shift` to the right (left when negative); there are `columns` columns afterwards."""
        self._each(lambda x: moved(x, 2, low, high, shift, columns))
        self.columns = columns

    def add_rows(self, rows: int) -> None:
        """Room for so many rows."""
        self._each(lambda x: moved(x, 0, 0, self.rows, 0, rows))
        self.rows = rows

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        for store in (self.key, self.value):
            for layer, x in store.items():
                store[layer] = change(x)


def moved(x: torch.Tensor, dim: int, low: int, high: int, shift: int, columns: int) -> torch.Tensor:
    """x with entries low to high of `dim` shifted, in place where its size stays; the others mean nothing."""
    kept = x.narrow(dim, low, high - low)
    if columns == x.shape[dim]:
        x.narrow(dim, low + shift, high - low).copy_(kept.clone())
        return x
    shape = list(x.shape)
    shape[dim] = columns
    new = x.new_zeros(shape)
    new.narrow(dim, low + shift, high - low).copy_(kept)
    return new


class Prefill(Layout):
    """Layout of P right-padded prompts whose keys and values go to M slots, right-aligned to end before `end`.

    slot (M,); prompt (M,) says which of the P prompts each slot copies, so samples of one share its pass; length (P,).
    """

    def __init__(
        self, cache: Cache, slot: torch.Tensor, prompt: torch.Tensor, length: torch.Tensor, tokens: int, end: int
    ) -> None:
        self._cache = cache
        self._slot = slot
        self._columns = slice(end - tokens, end)
        place = torch.arange(tokens, device=slot.device)[None] - (tokens - length[:, None])
        self._as_it_is = len(prompt) == len(length) and bool((length == tokens).all())  # nothing to copy or to align
        self._prompt = prompt[:, None]
        self._place = place.clamp(min=0)[prompt]  # (M, tokens): the token that goes to each column

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        self._cache.make(layer, key, value)
        for store, x in ((self._cache.key, key), (self._cache.value, value)):
            aligned = x if self._as_it_is else x.transpose(1, 2)[self._prompt, self._place].transpose(1, 2)
            store[layer][self._slot, :, self._columns] = aligned.to(store[layer].dtype)
        return key, value, None


class Decode(Layout):
    """Layout of one new token for each of the first n rows, written to column `end − 1`; reads columns low to end.

    mask (n, 1, 1, end − low), additive.
    """

    def __init__(self, cache: Cache, n: int, low: int, end: int, mask: torch.Tensor) -> None:
        self._cache, self._n, self._low, self._end, self._mask = cache, n, low, end, mask

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        low, end, mask = self._low, self._end, self._mask
        all_keys, all_values = self._cache.key[layer][: self._n], self._cache.value[layer][: self._n]
        all_keys[:, :, end - 1 : end] = key
        all_values[:, :, end - 1 : end] = value
        if window is not None and end - low > window:
            low, mask = end - window, mask[..., -window:]
        return all_keys[:, :, low:end], all_values[:, :, low:end], mask
