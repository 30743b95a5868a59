"""Takes away from heedful what makes it fast, in every process that has this folder on its PYTHONPATH.

What is left is what one would write first: batches padded to their longest row, in the rows' order; a forward pass for
every response, whatever prompts they share; one batch after the other on the threads that PLAIN_THREADS allows, which
wait as torch's do by default; responses from transformers' generate, whose rows stay until the longest of them ends.
Results differ in draws and rounding only.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

ROWS = 256  # of one call of generate; the fastest in the benchmark of sampling


def without_waiting(heedful: ModuleType) -> None:
    os.environ.pop("OMP_WAIT_POLICY", None)


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
    import torch

    most = int(os.environ["PLAIN_THREADS"])
    threads.use_threads = lambda number: torch.set_num_threads(min(number, most))
    threads.hands = lambda model, num_parts: 1
    torch.set_num_threads(min(torch.get_num_threads(), most))


def without_engine(sample: ModuleType) -> None:
    sample.Sampler.generate = generate


@contextmanager
def by_transformers(model: Any) -> Iterator[Any]:
    """The model with transformers' own attention and cache, in place."""
    from heedful.engine.engine import evaluating

    hooks, own = model.get_decoder()._forward_pre_hooks, model.config._attn_implementation
    kept = dict(hooks)
    hooks.clear()
    model.set_attn_implementation("sdpa")
    try:
        with evaluating(model):
            yield model
    finally:
        model.set_attn_implementation(own)
        hooks.update(kept)


def generate(self: Any, requests: Sequence[Any]) -> list[list[Any]]:
    """What `Sampler.generate` does, by transformers: prompts padded on the left."""
    if self.stop:  # here a token that begins with a stop text ends a response
        self.ends |= {id for id in range(len(self.tokenizer)) if self.tokenizer.decode([id]).startswith(self.stop)}
    with by_transformers(self.model) as model:
        return in_batches(model, requests, sorted(self.ends))


def in_batches(model: Any, requests: Sequence[Any], ends: list[int]) -> list[list[Any]]:
    found: list[list[Any]] = [[] for _ in requests]
    for number in {request.num_samples for request in requests}:
        some = [i for i, request in enumerate(requests) if request.num_samples == number]
        size = max(1, ROWS // number)
        for start in range(0, len(some), size):
            part = some[start : start + size]
            for i, group in zip(part, respond(model, [requests[i] for i in part], ends), strict=True):
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
    "heedful": without_waiting,
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
