"""Batches cut into the parts that one pass through a model takes."""

import torch

from heedful.batch import Rows


def by_prompt(rows: Rows, max_tokens: int) -> list[torch.Tensor]:
    """Row indices in parts as `by_length` makes them, but rows of one prompt stay together and count it once.

    Only what exceeds max_tokens by itself is divided.
    """
    if rows.group is None:
        return by_length(rows.length, max_tokens)
    group, prompt, response = rows.group.cpu(), rows.prompt_length.cpu(), rows.response_length.cpu()
    order = torch.argsort(group, stable=True)
    members = order.split(torch.unique(group, return_counts=True)[1].tolist())
    pieces: list[torch.Tensor] = []
    for rows_of_one in members:
        room = max(1, max_tokens - int(prompt[rows_of_one[0]]))
        pieces += rows_of_one.split(_sizes(response[rows_of_one].tolist(), room))
    length = torch.stack([prompt[piece[0]] + response[piece].sum() for piece in pieces])
    return [torch.cat([pieces[i] for i in part.tolist()]) for part in by_length(length, max_tokens)]


def shuffled(rows: Rows, seed: int) -> torch.Tensor:
    """A random order (N,) of the rows, on the CPU, in which those of one prompt stand side by side."""
    order = torch.randperm(len(rows.length), generator=torch.Generator().manual_seed(seed))
    if rows.group is None:
        return order
    _, group = torch.unique(rows.group.cpu(), return_inverse=True)
    place = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order)))
    first = torch.full_like(order, len(order)).scatter_reduce(0, group, place, "amin")  # of each group
    return torch.argsort(first[group] * len(order) + place)


def minibatches(rows: Rows, size: int, max_tokens: int, seed: int) -> tuple[torch.Tensor, list[list[tuple[int, int]]]]:
    """A shuffle into minibatches, each in parts as `by_prompt` makes them: the order (N,) and the parts' row ranges."""
    order: list[torch.Tensor] = []
    parts: list[list[tuple[int, int]]] = []
    start = 0
    for minibatch in shuffled(rows, seed).split(size):
        parts.append([])
        for index in by_prompt(rows.select(minibatch), max_tokens):
            order.append(minibatch[index])
            parts[-1].append((start, start + len(index)))
            start += len(index)
    return torch.cat(order), parts


def by_length(length: torch.Tensor, max_tokens: int) -> list[torch.Tensor]:
    """Row indices in parts of similar lengths, at most max_tokens real tokens in each.

    More than one part are parts of nearly one size, an even number where that is possible, so that threads that share
    them end together. A row longer than max_tokens stands alone. The indices are on the CPU, wherever the rows are.
    """
    length = length.cpu()
    order = torch.argsort(length, descending=True, stable=True)
    ordered = length[order].tolist()
    number = len(_sizes(ordered, max_tokens))
    if number > 1:
        max_tokens = _least(ordered, max_tokens, number + number % 2)
    return list(order.split(_sizes(ordered, max_tokens)))


def by_width(length: torch.Tensor, max_tokens: int) -> list[torch.Tensor]:
    """Row indices in parts of similar lengths, where padding counts: rows × longest stays within max_tokens.

    A row longer than max_tokens stands alone. The indices are on the CPU, wherever the rows are.
    """
    length = length.cpu()
    groups: list[torch.Tensor] = []
    order = torch.argsort(length, descending=True, stable=True)
    start = 0
    while start < len(order):
        size = max(1, max_tokens // int(length[order[start]]))
        groups.append(order[start : start + size])
        start += size
    return groups


def _sizes(ordered: list[int], most: int) -> list[int]:
    """How many of the lengths, one after the other, go into each part of at most `most` tokens."""
    sizes, tokens = [], most
    for length in ordered:
        if tokens + length > most:
            sizes.append(0)
            tokens = 0
        sizes[-1] += 1
        tokens += length
    return sizes


def _least(ordered: list[int], most: int, number: int) -> int:
    """The smallest capacity under which there are no more than `number` parts; at most `most`."""
    low, high = max(1, sum(ordered) // number), most
    while low < high:
        middle = (low + high) // 2
        if len(_sizes(ordered, middle)) <= number:
            high = middle
        else:
            low = middle + 1
    return high
