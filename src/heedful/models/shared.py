"""Responses behind one prompt as one sequence, so that the prompt is computed once for all of them.

    prompt | response 1 | response 2 | …

Each response counts its positions on from the prompt's end. Everything that works token by token sees K responses of r
tokens behind p as p + K r positions instead of K (p + r); attention sees each response behind its own prompt, a row
like any other, so every hidden state is that of the response standing alone.

Shapes: N rows of T tokens, G prompts, W positions of the longest sequence.
"""

import torch

from heedful.batch import Rows


class SharedPrompts:
    """Rows laid out with one sequence per prompt; `rows.group` says whose prompts are the same."""

    def __init__(self, rows: Rows) -> None:
        assert rows.group is not None, "rows without groups share nothing"
        num, longest = rows.tokens.shape
        order = torch.argsort(rows.group, stable=True)
        _, sequence, count = torch.unique_consecutive(rows.group[order], return_inverse=True, return_counts=True)
        first = torch.cumsum(count, 0) - count  # (G,) the first of each prompt's rows in that order
        # where each row's response begins: behind the prompt and the responses before it
        length = rows.response_length[order]
        before = torch.cumsum(length, 0) - length
        start = rows.prompt_length[order] + before - before[first][sequence]
        back = torch.empty_like(order).index_copy(0, order, torch.arange(num, device=order.device))
        sequence, start = sequence[back], start[back]  # (N,) in the rows' order
        self._shape = len(first), int((start + rows.response_length).max())

        # the place of every token of every row, and for every place the first row that has it
        column = torch.arange(longest, device=rows.tokens.device)[None]
        inside = column - rows.prompt_length[:, None]
        place = sequence[:, None] * self._shape[1] + torch.where(inside < 0, column, start[:, None] + inside)
        self._place = place.masked_fill(column >= rows.length[:, None], 0)  # (N, T)
        real = (column < rows.length[:, None]).flatten()
        size = self._shape[0] * self._shape[1]
        every = torch.arange(num * longest, device=column.device)
        first_of = every.new_full((size,), num * longest).scatter_reduce(
            0, self._place.flatten()[real], every[real], "amin"
        )
        self._source = first_of.masked_fill(first_of == num * longest, 0)  # (G · W) into N · T; padding takes any
        self.tokens = rows.tokens.flatten()[self._source].view(self._shape)  # (G, W) int64
        self.position = (self._source % longest).view(self._shape)  # (G, W) int64

    def index(self, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Places in the flattened (G · W) of positions (M,) of rows (M,), as they would count alone."""
        return self._place[row, position]

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys or values (G, H, W, D) as those of the rows alone (N, H, T, D)."""
        found = x.transpose(1, 2).flatten(0, 1).index_select(0, self._place.flatten())
        return found.unflatten(0, self._place.shape).transpose(1, 2)

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Attention's output for the rows (N, T, H, D) as that of the sequences (G, W, H, D)."""
        return x.flatten(0, 1).index_select(0, self._source).unflatten(0, self._shape)
