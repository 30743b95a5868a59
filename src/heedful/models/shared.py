"""Responses behind one prompt as one sequence, so that the prompt is computed once for all of them.

    prompt | response 1 | response 2 | …

Each response counts its positions on from the prompt's end. Everything that works token by token sees K responses of r
tokens behind p as p + K r positions instead of K (p + r). Attention sees the prompts once, and responses as queries:
each looks at its prompt and at itself, so every hidden state is that of the response standing alone.

Nothing is padded but attention's own view. Shapes: N rows of T tokens, R of them responses; G prompts of at most P
tokens; M positions in all.
"""

import torch

from heedful.batch import Rows
from heedful.models.attention import Laid, Part
from heedful.models.read import Read, read_of


class SharedPrompts(Laid):
    """Rows laid out with each prompt once; `rows.group` says whose prompts are the same."""

    def __init__(self, rows: Rows) -> None:
        assert rows.group is not None, "rows without groups share nothing"
        num, longest = rows.tokens.shape
        column = torch.arange(longest, device=rows.tokens.device)[None]
        _, group = torch.unique(rows.group, return_inverse=True)  # (N,) numbers from 0 to G
        order = torch.argsort(group, stable=True)
        first = order[torch.cumsum(group.bincount(), 0) - group.bincount()]  # (G,) a row with each prompt

        # prompts and responses end to end: every prompt, then its responses
        length, before = rows.response_length[order], rows.prompt_length[first]
        behind = torch.cumsum(length, 0) - length + torch.cumsum(before, 0)[group[order]]  # (N,) in that order
        start = torch.empty_like(behind).index_copy(0, order, behind)  # (N,) where each row's response begins
        begin = start[first] - before  # (G,) where each prompt does
        inside = column - rows.prompt_length[:, None]
        place = torch.where(inside < 0, begin[group][:, None] + column, start[:, None] + inside)
        real = column < rows.length[:, None]
        self._place = place.masked_fill(~real, 0)  # (N, T) into M
        total = int(before.sum() + length.sum())
        source = self._place.new_empty(total)
        source[self._place[real]] = torch.arange(num * longest, device=column.device)[real.flatten()]
        self.tokens = rows.tokens.flatten()[source][None]  # (1, M) int64
        self.position = (source % longest)[None]  # (1, M) int64

        # attention's two parts: prompts (G, P), and responses (N, R) looking at rows (N, T)
        self._prompt = self._place[first][:, : int(before.max())]  # those of rows, so what stands behind is never seen
        self._response = rows.mask.shape
        step = torch.arange(self._response[1], device=column.device)[None]
        self._at = (rows.prompt_length[:, None] + step).clamp(max=longest - 1)  # (N, R) columns of the queries
        row, at = source // longest, source % longest
        inside = at - rows.prompt_length[row]
        of_prompt = group[row] * self._prompt.shape[1] + at
        of_response = self._prompt.numel() + row * self._response[1] + inside
        self._result = torch.where(inside < 0, of_prompt, of_response)  # (M,) into G · P + N · R
        self._masks: dict[tuple[int | None, torch.dtype], torch.Tensor] = {}

    def index(self, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Places in the sequence of positions (…) of rows (…), as they would count alone."""
        return self._place[row, position]

    def parts(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> list[Part]:
        """The prompts alone, each causal (G, H, P, D), and the response tokens (N, H, R, D), each of which sees its
        row (N, H, T, D) up to itself and no further back than the window. Those of padding mean nothing."""
        q, k, v = (_take(x, self._prompt) for x in (query, key, value))
        prompts = q, k, v, None
        k, v, _ = self.update(layer, key, value, window)
        return [prompts, (_take(query, self._place.gather(1, self._at)), k, v, self._mask(window, query.dtype))]

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Keys and values of the rows (N, H, T, D), each with its prompt."""
        return _take(key, self._place), _take(value, self._place), None

    def read(self, row: torch.Tensor, position: torch.Tensor) -> Read | None:
        """For a trunk of which only these positions (…) of rows (…) are read."""
        return read_of(self._place, self.tokens.numel(), row, position)

    def _mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """Additive (N, 1, R, T)."""
        key = window, dtype
        if key not in self._masks:
            column = torch.arange(self._place.shape[1], device=self._at.device)
            seen = column <= self._at[..., None]
            if window is not None:
                seen &= column > self._at[..., None] - window
            zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._masks[key] = zeros.masked_fill(~seen, float("-inf")).unsqueeze(1)
        return self._masks[key]

    def join(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        """Outputs for prompts (G, P, H, D) and responses (N, R, H, D) as those of the sequence (1, M, H, D)."""
        return torch.cat([x.flatten(0, 1) for x in outputs]).index_select(0, self._result).unsqueeze(0)


def _take(x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Entries of x (1, H, M, D) at places (A, B): (A, H, B, D)."""
    return x.squeeze(0).transpose(0, 1).index_select(0, place.flatten()).unflatten(0, place.shape).transpose(1, 2)
