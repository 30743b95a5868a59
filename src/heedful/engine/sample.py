"""Responses, scores and language losses in bulk: what stages ask of models without training them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.batch import Rows, Texts
from heedful.engine.engine import Engine, evaluating
from heedful.engine.requests import Completion, Request
from heedful.engine.spelling import Spelling
from heedful.models.heads import Policy, RewardModel
from heedful.models.optimizer import Precision, autocast
from heedful.models.threads import hands, in_order
from heedful.text.collate import Encoded, to_rows
from heedful.text.parts import by_length, by_prompt
from heedful.text.tokenizer import end_id, pad_id

FEWEST = 32  # responses that make a thread of their own worth while
MOST_ROWS = 256  # generated side by side by one engine
LEAST_ROWS = 8
CPU_BYTES = 640 * 2**20  # of keys and values kept; more rows than that gain nothing where memory is what is waited for
GPU_SHARE = 0.5  # of the free memory


class Sampled(NamedTuple):
    """What came back for N requests, in their order; tensors are on the model's device."""

    rows: Rows
    tokens: list[list[int]]  # responses without the end token, and without the stop text
    text: list[str]
    finished: torch.Tensor  # (N,) bool: False where the length limit cut the response
    logprob: torch.Tensor  # (N, R) of the sampled tokens at the sampling temperature
    close_draws: int = 0  # tokens that fp32 rounding, which depends on the batch, could have made others
    seed: tuple[int, ...] = ()  # of the request that each response answers; () where nobody sampled them


class Sampler:
    """Samples from a live model; equal seeds give equal responses, whatever else is in the batch."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_new_tokens: int,
        temperature: float = 1.0,
        stop: Sequence[str] = (),
        precision: Precision = "fp32",
    ) -> None:
        """`stop`: texts such as a line break; a response ends before the first one that appears in it."""
        self.precision: Precision = precision
        self.ends = {end_id(tokenizer)}
        self.stop = tuple(stop)
        self.spelling = Spelling(tokenizer) if stop else None
        self.model = model
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature

    def __call__(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], num_samples: Sequence[int] | None = None
    ) -> Sampled:
        """`num_samples[i]` responses (one, when None) to prompt i (token ids), those of one prompt side by side."""
        number = num_samples or [1] * len(prompts)
        requests = [
            Request(prompt, k, self.max_new_tokens, temperature=self.temperature, seed=seed, stop=self.stop)
            for prompt, k, seed in zip(prompts, number, seeds, strict=True)
        ]
        groups = self.generate(requests)
        completions = [completion for group in groups for completion in group]
        asked = [request.prompt for request in requests for _ in range(request.num_samples)]
        rows = to_rows([Encoded(p, c.tokens) for p, c in zip(asked, completions, strict=True)], pad_id(self.tokenizer))
        logprob = torch.zeros(len(completions), rows.mask.shape[1])
        for n, completion in enumerate(completions):
            logprob[n, : len(completion.logprob)] = torch.tensor(completion.logprob)
        finished, device = torch.tensor([c.finished for c in completions]), self.model.device
        tokens = [self.response(completion) for completion in completions]
        text = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        close = sum(completion.close_draws for completion in completions)
        of_request = tuple(seed for seed, k in zip(seeds, number, strict=True) for _ in range(k))
        return Sampled(rows.to(device), tokens, text, finished.to(device), logprob.to(device), close, of_request)

    def response(self, completion: Completion) -> list[int]:
        """The tokens of a response without what ended it. Where a stop text begins within a token, what stands before
        it is encoded anew, blanks at the end apart."""
        if completion.piece is None or self.spelling is None:
            return [id for id in completion.tokens if id not in self.ends]
        text, tokens = completion.piece.text, [told.id for told in completion.piece.tokens]
        if not text.startswith(self.spelling.text(tokens)):
            tokens.pop()
            rest = text[len(self.spelling.text(tokens)) :]
            tokens += self.tokenizer(rest, add_special_tokens=False)["input_ids"]
        if self.spelling.text(tokens).rstrip() == text.rstrip():
            return tokens
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Each request's completions; a small model's on several threads, each with a share of the prompts."""
        found: list[list[Completion]] = [[] for _ in requests]
        order = sorted(range(len(requests)), key=lambda i: len(requests[i].prompt))

        number = hands(self.model, max(1, sum(request.num_samples for request in requests) // FEWEST))
        longest = max((len(request.prompt) + request.max_new_tokens for request in requests), default=1)
        rows = rows_that_fit(self.model, longest, number)

        def of_part(part: list[int]) -> list[list[Completion]]:
            engine = Engine(self.model, sorted(self.ends), rows, self.precision, self.spelling)
            return engine.generate([requests[i] for i in part])

        with evaluating(self.model):
            parts = [order[n::number] for n in range(number)]
            for part, groups in zip(parts, in_order(self.model, of_part, parts), strict=True):
                for i, group in zip(part, groups, strict=True):
                    found[i] = group
        return found


def rows_that_fit(model: PreTrainedModel, tokens: int, engines: int) -> int:
    """How many rows of so many tokens each of the engines may keep; where rows are long there are fewer of them.

    Storage may have half as many columns again as the longest row, so that rows are shifted seldom (`Slots._fit`).
    """
    config, device = model.config.get_text_config(), model.device
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    row = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize * tokens
    free = GPU_SHARE * torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else CPU_BYTES
    return max(LEAST_ROWS, min(MOST_ROWS, int(free / engines / row)))


def prompt_order(num_prompts: int, first: int, number: int, seed: int, each: int = 1) -> list[int]:
    """Indices of episodes first … first + number − 1: every pass over the prompts is a fresh shuffle.

    `each` (a divisor of first and number) episodes in a row have the same prompt.
    """
    first, number = first // each, number // each
    order: list[int] = []
    while len(order) < number:
        round, place = divmod(first + len(order), num_prompts)
        shuffled = torch.randperm(num_prompts, generator=torch.Generator().manual_seed(seed * 1000 + round)).tolist()
        order += shuffled[place : place + number - len(order)]
    return [index for index in order for _ in range(each)]


Generate = Callable[[Sequence[int], int], Sampled]  # prompt indices, number of the first episode


def responses_by(sampler: Sampler, tokens: Sequence[list[int]], each: int, seed: int) -> Generate:
    """Samples `each` responses to every prompt (token ids) side by side; an episode's number decides its draws."""

    def generate(index: Sequence[int], first: int) -> Sampled:
        seeds = [(seed << 32) + first + n for n in range(0, len(index), each)]
        return sampler([tokens[i] for i in index[::each]], seeds, [each] * len(seeds))

    return generate


def score_rows(model: RewardModel, rows: Rows, max_tokens: int, precision: Precision) -> torch.Tensor:
    """score (N,) in the rows' order, on the model's device, in passes of at most max_tokens."""

    def of_part(index: torch.Tensor) -> torch.Tensor:
        with autocast(model.device, precision):
            return model(rows.select(index).to(model.device))

    score = torch.zeros(len(rows.length), device=model.device)
    parts = by_prompt(rows, max_tokens)
    for index, found in zip(parts, in_order(model, of_part, parts), strict=True):
        score[index] = found
    return score


def mean_language_loss(policy: Policy, texts: Texts, max_tokens: int, precision: Precision) -> float:
    """Mean loss in nats per token over pretraining text, in passes of at most max_tokens."""

    def of_part(index: torch.Tensor) -> tuple[float, int]:
        with autocast(policy.device, precision):
            loss, mask = policy.language_loss(*texts.select(index).to(policy.device))
        return float(loss.sum()), int(mask.sum())

    found = in_order(policy, of_part, by_length(texts.length, max_tokens))
    return sum(loss for loss, _ in found) / sum(count for _, count in found)
