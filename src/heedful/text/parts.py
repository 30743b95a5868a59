"""Batches cut into the parts that one pass through a model takes."""

import torch


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
