"""Responses behind one prompt as one sequence, so that the prompt is computed once for all of them.

    prompt | response 1 | response 2 | …

Each response counts its positions on from the prompt's end, and its tokens see the prompt and themselves alone, so
every hidden state is that of the response standing alone behind its prompt. K responses of r tokens behind p cost
p + K r positions instead of K (p + r).

Shapes: N rows of G prompts, W positions of the longest sequence.
"""

import torch

from heedful.batch import Rows


class SharedPrompts:
    """Rows laid out with one sequence per prompt; `rows.group` says whose prompts are the same."""

    def __init__(self, rows: Rows) -> None:
        assert rows.group is not None, "rows without groups share nothing"
        self._prompt_length = rows.prompt_length
        order = torch.argsort(rows.group, stable=True)
        _, sequence, count = torch.unique_consecutive(rows.group[order], return_inverse=True, return_counts=True)
        self._sequence = torch.empty_like(sequence).index_copy(0, order, sequence)  # (N,) 0 … G − 1
        first = order[torch.cumsum(count, 0) - count]  # (G,) a row of each prompt
        # where each row's response begins: behind the prompt and the responses before it
        length = rows.response_length[order]
        before = torch.cumsum(length, 0) - length
        before = before - before[torch.cumsum(count, 0) - count][sequence]
        self._start = torch.empty_like(before).index_copy(0, order, rows.prompt_length[order] + before)  # (N,)
        self._width = int((self._start + rows.response_length).max())

        shape = (len(first), self._width)
        self.tokens = rows.tokens.new_zeros(shape)  # (G, W) int64
        self.position = rows.tokens.new_zeros(shape)  # (G, W) int64
        self._part = rows.tokens.new_full(shape, -1)  # (G, W) 0: prompt, 1 + row: its response, −1: padding
        columns = torch.arange(self._width, device=rows.tokens.device)
        g, p = (columns < rows.prompt_length[first, None]).nonzero(as_tuple=True)
        self._fill(g, p, rows.tokens[first[g], p], p, torch.zeros_like(p))
        row, step = rows.mask.nonzero(as_tuple=True)
        position = rows.prompt_length[row] + step
        self._fill(self._sequence[row], self._start[row] + step, rows.tokens[row, position], position, row + 1)
        self._masks: dict[tuple[int | None, torch.dtype], torch.Tensor] = {}

    def _fill(
        self, g: torch.Tensor, column: torch.Tensor, token: torch.Tensor, position: torch.Tensor, part: torch.Tensor
    ) -> None:
        self.tokens[g, column] = token
        self.position[g, column] = position
        self._part[g, column] = part

    def index(self, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Places in the flattened (G · W) of positions (M,) of rows (M,), as they would count alone."""
        inside = position - self._prompt_length[row]
        column = torch.where(inside < 0, position, self._start[row] + inside)
        return self._sequence[row] * self._width + column

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys and values as they are, and the additive mask (G, 1, W, W)."""
        kind = (window, key.dtype)
        if kind not in self._masks:
            seen = self._seen(window)
            self._masks[kind] = torch.zeros_like(seen, dtype=key.dtype).masked_fill(~seen, float("-inf"))[:, None]
        return key, value, self._masks[kind]

    def _seen(self, window: int | None) -> torch.Tensor:
        """(G, W, W) which key each query sees; padding sees itself, so that no row of the softmax is empty."""
        query, key = self._part[:, :, None], self._part[:, None, :]
        causal = torch.ones(self._width, self._width, dtype=torch.bool, device=query.device).tril()
        seen = causal & ((key == 0) | (key == query))
        if window is not None:
            seen &= self.position[:, :, None] - self.position[:, None, :] < window
        return seen
