"""Where one repeat's time goes, and what the machine's products reach at most."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity

SHOWN = 8
FAMILIES = {  # operations whose self time is added up under one name
    "matrix products": (
        "aten::mm",
        "aten::addmm",
        "aten::bmm",
        "aten::baddbmm",
        "mkldnn",
        "aten::linear",
        "aten::matmul",
    ),
    "fused attention": ("scaled_dot_product", "flash_attention"),
    "gather, scatter and index": (
        "index",
        "gather",
        "scatter",
        "embedding",
        "select",
        "where",
        "nonzero",
        "masked_fill",
    ),
    "copies and layout": (
        "copy_",
        "aten::cat",
        "contiguous",
        "clone",
        "aten::to",
        "fill_",
        "zero_",
        "empty",
        "aten::pad",
    ),
    "elementwise": (
        *("aten::mul", "aten::add", "aten::sub", "aten::div", "aten::neg", "aten::pow", "aten::rsqrt", "aten::silu"),
        *("aten::exp", "aten::log", "aten::sqrt", "aten::sigmoid", "aten::tanh", "aten::entr", "aten::minimum"),
    ),
    "softmax": ("softmax", "logsumexp"),
    "sums and scans": ("aten::sum", "aten::mean", "cumsum", "aten::max", "aten::min", "norm", "searchsorted", "sort"),
    "optimizer": ("adam", "foreach"),
}


def profile(work: Callable[[], Any]) -> dict[str, Any]:
    """Shares of one repeat's wall-clock time on this thread: by kind of operation, by operation, and outside of any.

    The profiler itself costs time per operation, so what is small and frequent looks somewhat larger than it is.
    """
    work()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as found:
        done = work()
    events = {event.key: (event.self_cpu_time_total / 1e6, event.count) for event in found.key_averages()}
    timed = {key: value for key, value in events.items() if not key.startswith("ProfilerStep")}
    inside = sum(seconds for seconds, _ in timed.values())
    wall = max(done.seconds, inside)
    kinds: dict[str, float] = {}
    for key, (seconds, _) in timed.items():
        kind = kind_of(key)
        kinds[kind] = kinds.get(kind, 0.0) + seconds / wall
    kinds["Python and dispatch outside operations"] = 1 - inside / wall
    largest = sorted(timed.items(), key=lambda item: -item[1][0])[:SHOWN]
    return {
        "seconds": wall,
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "operations": {key: {"share": seconds / wall, "calls": count} for key, (seconds, count) in largest},
    }


def kind_of(operation: str) -> str:
    """The name under which an operation's time is added up."""
    name = operation.lower()
    for kind, parts in FAMILIES.items():
        if any(part in name for part in parts):
            return kind
    return "other operations"


def matmul_peak(threads: int, dtype: torch.dtype = torch.float32) -> float:
    """The most FLOP/s that a product of two square matrices reaches, over several sizes and repeats."""
    torch.set_num_threads(threads)
    best = 0.0
    for size in (1024, 2048, 4096):
        a, b = torch.randn(size, size, dtype=dtype), torch.randn(size, size, dtype=dtype)
        out = torch.empty(size, size, dtype=dtype)
        for _ in range(5):
            began = perf_counter()
            torch.mm(a, b, out=out)
            best = max(best, 2 * size**3 / (perf_counter() - began))
    return best
