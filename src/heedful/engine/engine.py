"""The rollout engine: continuous batching over the live model, without a copy of its weights.

Prompts are prefilled in right-padded batches, samples of one prompt share its prefill even if they are admitted one by
one, rows leave at the end token and queued samples take their place. `slots` holds the state of what is being
generated, `cache` its keys and values.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from heedful.config import InputError
from heedful.engine.requests import Completion, NewToken, Request, Unit
from heedful.engine.slots import Slots
from heedful.engine.spelling import Spelling
from heedful.models.load import context_length
from heedful.models.optimizer import Precision, autocast

FAILED = "the model's logits are not finite; it has diverged, its weights are damaged, or every token is forbidden"
FIRST_ROWS = 4  # rows of storage that an open session begins with


class Session:
    """Requests that come and go over one set of slots, one step at a time, in the order they were added.

    A request is known by its `order`, any integer the caller has not in use.
    """

    def __init__(self, engine: "Engine", slots: Slots, at_once: bool) -> None:
        """`at_once`: prompts join as soon as there is a free row, not once so many are free that a pass pays."""
        self._engine, self._slots, self._at_once = engine, slots, at_once
        self._queue: list[Unit] = []  # the next one last
        self._admitted = False

    @property
    def busy(self) -> bool:
        """Whether anything is being generated or waits."""
        return bool(self._queue or self._slots.alive)

    @property
    def alive(self) -> int:
        """The rows being generated."""
        return self._slots.alive

    def add(self, order: int, request: Request) -> None:
        """Put a request, which `Engine.check` has passed, behind those that wait."""
        self._queue.insert(0, Unit(order, request, 0, request.num_samples))

    def step(self) -> None:
        """Admit waiting prompts, which gives each its first token, or give every row its next one."""
        with self._engine.computing():
            # Not twice on end: prompts that come in without end must not keep those before them from going on.
            wants = self._slots.wants(self._queue, self._at_once)
            self._admitted = wants and not (self._admitted and self._slots.alive)
            if self._admitted:
                self._slots.admit(self._queue)
            else:
                self._slots.step()

    def newest(self) -> list[NewToken]:
        """What the last step gave each row that is still there; to be read before `collect`."""
        with self._engine.computing():
            return self._slots.newest()

    def collect(self) -> list[tuple[int, int, Completion]]:
        """(order, sample index, completion) of what is finished; its rows are free."""
        with self._engine.computing():
            return self._slots.collect()

    def cancel(self, order: int, sample: int | None = None) -> None:
        """Free the rows of a request, or of one sample of it, at once; a whole request also stops waiting."""
        if sample is None:
            self._queue = [unit for unit in self._queue if unit.order != order]
        with self._engine.computing():
            self._slots.release(order, sample)


class Engine:
    """Generates from a live model: each call uses the weights as they are.

    `counts` gathers, over the engine's life, `steps`, `prefill_tokens` (with padding), `decode_rows`, and the
    `close_draws` of finished responses.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        eos_ids: Sequence[int],
        max_rows: int = 256,
        precision: Precision = "fp32",
        spelling: Spelling | None = None,
    ) -> None:
        """`max_rows` responses are generated side by side; with empty `eos_ids` only length ends a response, or a stop
        text, for which the tokens' `spelling` must be known."""
        self.model = model
        self.spelling = spelling
        self.max_rows = max_rows
        self.precision = precision
        self.counts: Counter[str] = Counter()
        self._ends = torch.zeros(model.get_output_embeddings().weight.shape[0], dtype=torch.bool, device=model.device)
        self._ends[list(eos_ids)] = True

    @property
    def vocabulary(self) -> int:
        """Tokens that have a logit."""
        return len(self._ends)

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Each request's completions, in the order of requests and samples.

        Raises:
            InputError: a request that cannot be answered, or whose logits are no distribution, named by its index.
        """
        results: list[list[Completion | None]] = [[None] * request.num_samples for request in requests]
        for index, sample, completion in self.stream(requests):
            if completion.failed:
                raise InputError(f"prompt {index}: {FAILED}")
            results[index][sample] = completion
        return [[completion for completion in row if completion is not None] for row in results]

    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, int, Completion]]:
        """(request index, sample index, completion) as each is finished; the model is in eval mode meanwhile.

        A response whose logits are no distribution ends there, `failed`; all others go on.

        Raises:
            InputError: a request that cannot be answered, named by its index.
        """
        for i, request in enumerate(requests):
            self.check(request, f"prompt {i}")
        size = min(self.max_rows, sum(request.num_samples for request in requests))
        longest = max((len(r.prompt) + r.max_new_tokens for r in requests), default=0)
        with evaluating(self.model):
            session = self._session(size, size, longest + 1, at_once=False)
            # Longest prompts first: those prefilled together are of like length, and later ones always find room.
            for i in reversed(sorted(range(len(requests)), key=lambda i: len(requests[i].prompt))):
                session.add(i, requests[i])
            while session.busy:
                session.step()
                yield from session.collect()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """An empty session, for requests that come one by one and want their tokens at once; the model is in eval
        mode meanwhile. Storage grows with the rows and columns in use, and is given back at the end."""
        with evaluating(self.model):
            yield self._session(self.max_rows, min(FIRST_ROWS, self.max_rows), 0, at_once=True)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The mode and precision in which the engine computes."""
        with torch.inference_mode(), autocast(self.model.device, self.precision):
            yield

    def _session(self, size: int, rows: int, expected: int, at_once: bool) -> Session:
        with self.computing():
            slots = Slots(self.model, self._ends, self.spelling, size, rows, expected, self.counts)
            return Session(self, slots, at_once)

    def check(self, request: Request, name: str) -> None:
        """Raises InputError, with the name, for a request that cannot be answered."""
        context, vocabulary = context_length(self.model), self.vocabulary
        length, fewest = len(request.prompt), int(request.prompt_logprobs is None)
        finite = 0 <= request.temperature < math.inf
        if not length:
            raise InputError(f"{name} is empty; give at least a begin token")
        if min(request.prompt) < 0 or max(request.prompt) >= vocabulary:
            raise InputError(f"{name} holds a token outside the model's vocabulary of {vocabulary}")
        if request.num_samples < 1 or request.max_new_tokens < fewest:
            raise InputError(f"{name}: num_samples and max_new_tokens must be at least 1")
        if not finite or request.top_k < 0 or not 0 < request.top_p <= 1:
            raise InputError(f"{name}: temperature (finite) and top_k must be at least 0, top_p in (0, 1]")
        if min(request.logprobs or 0, request.prompt_logprobs or 0) < 0:
            raise InputError(f"{name}: logprobs and prompt_logprobs must be at least 0")
        if any(not 0 <= token < vocabulary for token, _ in request.bias):
            raise InputError(f"{name}: a bias is for a token outside the model's vocabulary of {vocabulary}")
        if not all(number < math.inf for _, number in request.bias):
            raise InputError(f"{name}: a bias must be a finite number, or -inf to forbid a token")
        if request.stop and (self.spelling is None or not all(request.stop)):
            raise InputError(f"{name}: a stop text must not be empty, and the engine must know its tokens' spelling")
        if length + request.max_new_tokens > context:
            raise InputError(
                f"{name}: {length} tokens and {request.max_new_tokens} new ones exceed the model's context of "
                f"{context}; shorten the prompt or lower max_new_tokens"
            )


@contextmanager
def evaluating(model: PreTrainedModel) -> Iterator[None]:
    """The model in eval mode; each module as it was afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
