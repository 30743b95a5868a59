"""Rows of unequal length as one sequence without padding: nothing is computed for tokens that are not there.

Everything that works token by token sees M real tokens; attention alone sees the rows (N, T) they belong to, padded on
the right, so every hidden state is that of its row standing alone.
"""

import torch

from heedful.models.attention import Laid, Part
from heedful.models.places import Gather, Spread
from heedful.models.read import Read, read_of

PADDING = 0.1  # share of padding from which laying rows end to end costs less than computing it


class Packed(Laid):
    """The places of N rows of at most T tokens in one sequence of M tokens."""

    def __init__(self, length: torch.Tensor, width: int) -> None:
        """`length` (N,) int64, each at least 1; `width` T."""
        column = torch.arange(width, device=length.device)[None]
        real = column < length[:, None]
        self._shape = real.shape
        self._place = real.flatten().nonzero().squeeze(1)  # (M,) into N · T
        self._start = torch.cumsum(length, 0) - length  # (N,) where each row begins
        self._source = (self._start[:, None] + torch.where(real, column, 0)).flatten()  # (N · T) into M
        self.position = self._place % width  # (M,) int64

    def index(self, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Places in the sequence of positions (…) of rows (…)."""
        return self._start[row] + position

    def take(self, tokens: torch.Tensor) -> torch.Tensor:
        """Entries (M,) of (N, T)."""
        return tokens.flatten()[self._place]

    def parts(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> list[Part]:
        """The rows (N, H, T, D) from (1, H, M, D); those of padding mean nothing."""
        return [(self._rows(query), *self.update(layer, key, value, window))]

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Keys and values of the rows (N, H, T, D)."""
        return self._rows(key), self._rows(value), None

    def read(self, row: torch.Tensor, position: torch.Tensor) -> Read | None:
        """For a trunk of which only these positions (…) of rows (…) are read."""
        return read_of(self._source.view(self._shape), len(self._place), row, position)

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = Spread.apply(x.squeeze(0).transpose(0, 1), self._source, self._place)
        return found.unflatten(0, self._shape).transpose(1, 2)

    def join(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        """Outputs for the rows (N, T, H, D) as those of the sequence (1, M, H, D)."""
        [x] = outputs
        found: torch.Tensor = Gather.apply(x.flatten(0, 1), self._place)
        return found.unsqueeze(0)


def pays(length: torch.Tensor, width: int) -> bool:
    """Whether rows of these lengths, padded to `width`, are worth packing."""
    return float(length.sum()) < (1 - PADDING) * len(length) * width
