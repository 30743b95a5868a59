"""Takes away from heedful what makes it fast, in every process that has this folder on its PYTHONPATH.

What is left is what one would write first: batches padded to their longest row, in the rows' order; a forward pass for
every response, whatever prompts they share; one batch after the other on all threads; responses from transformers'
generate, whose rows stay until the longest of them ends. Results differ in draws and rounding only.
"""

import copy
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ROWS = 64  # of one call of generate


def without_sharing(batch: ModuleType) -> None:
    batch.repeated = lambda group: None


def without_packing(packed: ModuleType) -> None:
    packed.pays = lambda length, width: False


def without_lengths(parts: ModuleType) -> None:
    import torch

    def as_they_come(length: torch.Tensor, max_tokens: int) -> list[torch.Tensor]:
        size = max(1, max_tokens // max(1, int(length.max()))) if len(length) else 1
        return list(torch.arange(len(length)).split(size))

    parts.by_length = as_they_come
    parts.by_prompt = lambda rows, max_tokens: as_they_come(rows.length, max_tokens)


def without_threads(threads: ModuleType) -> None:
    threads.hands = lambda model, num_parts: 1
    threads.use_one_for_the_rest = lambda: None


def without_engine(sample: ModuleType) -> None:
    sample.Sampler.generate = generate


def generate(self: Any, requests: Sequence[Any]) -> list[list[Any]]:
    """What `Sampler.generate` does, by transformers: a copy of the weights, prompts padded on the left."""
    model = copy.deepcopy(self.model).eval()
    model.get_decoder()._forward_pre_hooks.clear()
    model.set_attn_implementation("sdpa")
    found: list[list[Any]] = [[] for _ in requests]
    for number in {request.num_samples for request in requests}:
        some = [i for i, request in enumerate(requests) if request.num_samples == number]
        size = max(1, ROWS // number)
        for start in range(0, len(some), size):
            part = some[start : start + size]
            for i, group in zip(part, respond(model, [requests[i] for i in part], sorted(self.ends)), strict=True):
                found[i] = group
    return found


def respond(model: Any, requests: Sequence[Any], ends: list[int]) -> list[list[Any]]:
    import torch

    from heedful.engine.slots import Completion

    first = requests[0]
    torch.manual_seed(first.seed & 0xFFFFFFFF)
    longest = max(len(request.prompt) for request in requests)
    pad = ends[0]
    tokens = torch.tensor([[pad] * (longest - len(r.prompt)) + r.prompt for r in requests])
    mask = torch.tensor([[0] * (longest - len(r.prompt)) + [1] * len(r.prompt) for r in requests])
    how: dict[str, Any] = {"max_new_tokens": first.max_new_tokens, "eos_token_id": ends, "pad_token_id": pad}
    if first.temperature:
        how |= {"do_sample": True, "temperature": first.temperature, "top_k": 0, "top_p": 1.0}
    with torch.inference_mode():
        made = model.generate(tokens, attention_mask=mask, num_return_sequences=first.num_samples, **how)
    completions = []
    for row in made[:, longest:].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), None)
        kept = row if end is None else row[: end + 1]
        completions.append(Completion(kept, [0.0] * len(kept), end is not None, [], []))
    number = first.num_samples
    return [completions[i * number : (i + 1) * number] for i in range(len(requests))]


CHANGES: dict[str, Callable[[ModuleType], None]] = {
    "heedful.batch": without_sharing,
    "heedful.models.packed": without_packing,
    "heedful.text.parts": without_lengths,
    "heedful.models.threads": without_threads,
    "heedful.engine.sample": without_engine,
}


class Changing(MetaPathFinder):
    """Finds the modules of CHANGES as usual, and changes each once it has run."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name not in CHANGES:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def run_and_change(module: ModuleType) -> None:
            run(module)
            CHANGES[name](module)

        spec.loader.exec_module = run_and_change  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, Changing())
