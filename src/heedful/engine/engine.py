"""The rollout engine: continuous batching over the live model, without a copy of its weights.

Prompts are prefilled in right-padded batches, samples of one prompt share its prefill, rows leave at the end token and
queued prompts take their place. `slots` holds the state of what is being generated, `cache` its keys and values.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from heedful.config import InputError
from heedful.engine.slots import Completion, Request, Slots, Unit
from heedful.models.load import context_length
from heedful.models.optimizer import Precision, autocast


class Engine:
    """Generates from a live model: each call uses the weights as they are.

    `counts` gathers, over the engine's life, `steps`, `prefill_tokens` (with padding), `decode_rows` and `close_draws`.
    """

    def __init__(
        self, model: PreTrainedModel, eos_ids: Sequence[int], max_rows: int = 256, precision: Precision = "fp32"
    ) -> None:
        """`max_rows` responses are generated side by side; with empty `eos_ids` only length ends a response."""
        self.model = model
        self.max_rows = max_rows
        self.precision = precision
        self.counts: Counter[str] = Counter()
        self._ends = torch.zeros(model.get_output_embeddings().weight.shape[0], dtype=torch.bool, device=model.device)
        self._ends[list(eos_ids)] = True

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Each request's completions, in the order of requests and samples.

        Raises:
            InputError: a request that cannot be answered, named by its index.
        """
        results: list[list[Completion | None]] = [[None] * request.num_samples for request in requests]
        for index, sample, completion in self.stream(requests):
            results[index][sample] = completion
        return [[completion for completion in row if completion is not None] for row in results]

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, int, Completion]]:
        """(request index, sample index, completion) as each is finished; the model is in eval mode meanwhile.

        Raises:
            InputError: a request that cannot be answered, named by its index.
        """
        self._check(requests)
        # Longest prompts first: those prefilled together are of like length, and later ones always find room.
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt))
        queue = [unit for i in order for unit in self._units(i, requests[i])]
        with self._computing():
            size = min(self.max_rows, sum(unit.number for unit in queue))
            longest = max((len(r.prompt) + r.max_new_tokens for r in requests), default=0)
            slots = Slots(self.model, self._ends, size, longest + 1, self.counts)
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            while queue or slots.alive:
                with self._computing():
                    if slots.wants(queue):
                        slots.admit(queue)
                    else:
                        slots.step()
                    finished = slots.collect()
                yield from finished
        finally:
            for module in training:
                module.training = True

    def _units(self, index: int, request: Request) -> Iterator[Unit]:
        for first in range(0, request.num_samples, self.max_rows):
            yield Unit(index, request, first, min(self.max_rows, request.num_samples - first))

    @contextmanager
    def _computing(self) -> Iterator[None]:
        with torch.inference_mode(), autocast(self.model.device, self.precision):
            yield

    def _check(self, requests: Sequence[Request]) -> None:
        context, vocabulary = context_length(self.model), len(self._ends)
        for i, request in enumerate(requests):
            length = len(request.prompt)
            if not length:
                raise InputError(f"prompt {i} is empty; give at least a begin token")
            if min(request.prompt) < 0 or max(request.prompt) >= vocabulary:
                raise InputError(f"prompt {i} holds a token outside the model's vocabulary of {vocabulary}")
            if request.num_samples < 1 or request.max_new_tokens < 1:
                raise InputError(f"prompt {i}: num_samples and max_new_tokens must be at least 1")
            if request.temperature < 0 or request.top_k < 0 or not 0 < request.top_p <= 1:
                raise InputError(f"prompt {i}: temperature and top_k must be at least 0, top_p in (0, 1]")
            if length + request.max_new_tokens > context:
                raise InputError(
                    f"prompt {i}: {length} tokens and {request.max_new_tokens} new ones exceed the model's context of "
                    f"{context}; shorten the prompt or lower max_new_tokens"
                )
