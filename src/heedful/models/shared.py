"""Responses behind one prompt as one sequence, so that the prompt is computed once for all of them.

    prompt | response 1 | response 2 | …

Each response counts its positions on from the prompt's end. Everything that works token by token sees K responses of r
tokens behind p as p + K r positions instead of K (p + r). Attention sees the prompts once, and responses as queries:
each looks at its prompt and at itself, so every hidden state is that of the response standing alone.

Shapes: N rows of T tokens, R of them responses; G prompts of at most P tokens; W positions of the longest sequence.
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
        source = first_of.masked_fill(first_of == num * longest, 0)  # (G · W) into N · T; padding takes any
        self.tokens = rows.tokens.flatten()[source].view(self._shape)  # (G, W) int64
        self.position = (source % longest).view(self._shape)  # (G, W) int64

        # attention's two parts: prompts (G, P), and responses (N, R) looking at rows (N, T)
        self.num_prompt = int(rows.prompt_length.max())
        self._response = rows.mask.shape
        step = torch.arange(self._response[1], device=column.device)[None]
        self._at = (rows.prompt_length[:, None] + step).clamp(max=longest - 1)  # (N, R) columns of the queries
        row, at = source // longest, source % longest
        inside = at - rows.prompt_length[row]
        of_prompt = sequence[row] * self.num_prompt + at
        of_response = self._shape[0] * self.num_prompt + row * self._response[1] + inside
        self._result = torch.where(inside < 0, of_prompt, of_response)  # (G · W) into G · P + N · R
        self._masks: dict[tuple[int | None, torch.dtype], torch.Tensor] = {}

    def index(self, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """Places in the flattened (G · W) of positions (M,) of rows (M,), as they would count alone."""
        return self._place[row, position]

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Keys or values (G, H, W, D) as those of the rows alone (N, H, T, D)."""
        return self._take(x, self._place)

    def queries(self, x: torch.Tensor) -> torch.Tensor:
        """Queries (G, H, W, D) of the response tokens alone (N, H, R, D); those of padding mean nothing."""
        return self._take(x, self._place.gather(1, self._at))

    def mask(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """Additive (N, 1, R, T): each query sees its row up to itself, and no further back than the window."""
        key = window, dtype
        if key not in self._masks:
            column = torch.arange(self._place.shape[1], device=self._at.device)
            seen = column <= self._at[..., None]
            if window is not None:
                seen &= column > self._at[..., None] - window
            zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            self._masks[key] = zeros.masked_fill(~seen, float("-inf")).unsqueeze(1)
        return self._masks[key]

    def join(self, prompts: torch.Tensor, responses: torch.Tensor) -> torch.Tensor:
        """Outputs for prompts (G, P, H, D) and responses (N, R, H, D) as those of the sequences (G, W, H, D)."""
        both = torch.cat([prompts.flatten(0, 1), responses.flatten(0, 1)])
        return both.index_select(0, self._result).unflatten(0, self._shape)

    def _take(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        found = x.transpose(1, 2).flatten(0, 1).index_select(0, place.flatten())
        return found.unflatten(0, place.shape).transpose(1, 2)
