"""Copying entries from places to places, with backward passes that copy too where torch's own would add."""

from typing import Any

import torch


class Spread(torch.autograd.Function):
    """x[source], where entry place[m] of the result is x[m] and no gradient comes from the others (padding)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, source: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(place)
        return x.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (place,) = ctx.saved_tensors
        return gradient.index_select(0, place), None, None


class Gather(torch.autograd.Function):
    """x[place], no entry of x more than once."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(place)
        ctx.shape = x.shape
        return x.index_select(0, place)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (place,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, place, gradient), None
