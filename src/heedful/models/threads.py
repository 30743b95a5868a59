"""Parts of a batch side by side on a CPU's threads: gradients and values that do not depend on how many there are.

A small model's products are too small to be shared between threads; whole micro-batches are not. Each takes one thread,
and gradients are added in the parts' order, so the sum is to the bit that of one part after the other.

On a GPU, for a large model, with low-rank adapters, or where dropout draws random numbers in the order of the work,
parts follow one another.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch

Part = TypeVar("Part")
Told = TypeVar("Told")

SMALL = 32_000_000  # parameters; the products of larger models fill the threads themselves
_available: int | None = None


def use_threads(number: int) -> None:
    """How many threads this process's work may take."""
    global _available
    _available = number
    torch.set_num_threads(number)


def in_order(model: torch.nn.Module, work: Callable[[Part], Told], parts: Sequence[Part]) -> list[Told]:
    """`work` of every part, in their order; without gradients."""

    def without_gradients(part: Part) -> Told:
        with torch.no_grad():  # a thread's grad mode is its own
            return work(part)

    num = hands(model, len(parts))
    return list(map(without_gradients, parts)) if num == 1 else list(_pool(num).map(without_gradients, parts))


def accumulate(
    model: torch.nn.Module, loss: Callable[[Part], tuple[torch.Tensor, Told]], parts: Sequence[Part]
) -> list[Told]:
    """Add the gradients of the sum of the parts' losses to the model's; `loss` also tells something of each part.

    The parts' order decides the order of the additions, whoever is ready first.
    """
    num = hands(model, len(parts))
    if num == 1:
        return [_backward(*loss(part)) for part in parts]
    trained = [p for p in model.parameters() if p.requires_grad]

    def gradients(part: Part) -> tuple[tuple[torch.Tensor | None, ...], Told]:
        value, told = loss(part)
        return torch.autograd.grad(value, trained, allow_unused=True), told

    found: list[Told] = []
    waiting: deque[Future[tuple[tuple[torch.Tensor | None, ...], Told]]] = deque()

    def add_first() -> None:
        each, told = waiting.popleft().result()
        for p, gradient in zip(trained, each, strict=True):
            if gradient is not None:
                p.grad = gradient.contiguous() if p.grad is None else p.grad.add_(gradient)
        found.append(told)

    for part in parts:
        waiting.append(_pool(num).submit(gradients, part))
        if len(waiting) > num:  # no more gradients at a time than threads, and one that is being added
            add_first()
    while waiting:
        add_first()
    return found


def hands(model: torch.nn.Module, num_parts: int) -> int:
    """How many parts of the model's work go side by side; a small model's products are never shared between threads,
    and a large model's always are, whichever model worked before.

    That holds from the first call on, whatever the number of parts: a run that goes on in another process would
    otherwise take up its work with other threads, and other last bits. It is left so: what a program of one's own does
    behind a small model's work is on one thread until `use_threads` says otherwise.
    """
    if next(model.parameters()).device.type != "cpu":
        return 1
    if sum(p.numel() for p in model.parameters()) > SMALL:
        torch.set_num_threads(_available or torch.get_num_threads())
        return 1
    use_one_for_the_rest()
    if any(_draws(module) or _adapts(module) for module in model.modules()):
        return 1
    return max(1, min(num_parts, _available or 1))


def use_one_for_the_rest() -> None:
    """Optimiser steps and additions as small as these wake a second thread for less than that costs."""
    global _available
    _available = _available or torch.get_num_threads()
    torch.set_num_threads(1)


def _draws(module: torch.nn.Module) -> bool:
    return module.training and getattr(module, "residual_dropout", getattr(module, "p", 0.0)) > 0


def _adapts(module: torch.nn.Module) -> bool:
    return hasattr(module, "lora_A")  # whose owner may turn adapters off, for every thread at once


def _backward(value: torch.Tensor, told: Told) -> Told:
    value.backward()
    return told


@cache
def _pool(num: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num, "heedful", initializer=torch.set_num_threads, initargs=(1,))
