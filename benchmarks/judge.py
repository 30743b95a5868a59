"""Labels by likelihood: the log-probabilities of "1" and "2" behind prompts that share much of what they begin with.

judge: a long preamble, behind which every pair stands in both orders. principles: a short one, and every pair, in both
orders, is asked about by each of sixteen principles, which stand behind it.
"""

from typing import NamedTuple

import torch
from common import FIRST, Done, Work, clock, count_tokens, decoder, flops, random_tokens

LABELS = (FIRST, FIRST + 1)


class Shape(NamedTuple):
    """How many pairs, the tokens of preamble and pair, and how many principles of how many tokens, if any."""

    pairs: int
    preamble: int
    pair: int
    principles: int = 1
    principle: int = 0

    @property
    def prompts(self) -> int:
        return 2 * self.pairs * self.principles


SHAPES = {"judge": Shape(200, 400, 100), "principles": Shape(8, 60, 400, 16, 40)}
TRIAL = 80  # prompts by which a layout is chosen


def prompts(shape: Shape, seed: int) -> torch.Tensor:
    """(prompts, 500): each pair in both orders, its two halves exchanged, before each principle."""
    preamble = random_tokens((1, shape.preamble), 3 * seed).expand(shape.prompts, -1)
    pair = random_tokens((shape.pairs, shape.pair), 3 * seed + 1)
    half = shape.pair // 2
    orders = torch.stack([pair, torch.cat([pair[:, half:], pair[:, :half]], 1)], 1).flatten(0, 1)
    principles = random_tokens((shape.principles, shape.principle), 3 * seed + 2)
    behind = principles.repeat(2 * shape.pairs, 1)
    return torch.cat([preamble, orders.repeat_interleave(shape.principles, 0), behind], 1)


def summary(logprob: torch.Tensor) -> dict[str, float]:
    """Of (prompts, 2): what both sides must agree on."""
    return {"logprob_mean": float(logprob.mean()), "preference_mean": float(logprob.softmax(1)[:, 0].mean())}


def ours(name: str) -> Work:
    from ours import of_scratch

    from heedful.engine.score import score_continuations

    model, tell, shape = of_scratch(), count_tokens(), SHAPES[name]
    asked = [[[label] for label in LABELS]] * shape.prompts

    def score(seed: int) -> tuple[float, torch.Tensor]:
        tokens = prompts(shape, seed).tolist()
        began = clock()
        scores = score_continuations(model, tokens, asked)
        return clock() - began, torch.tensor(scores)

    def run(layout: None, seed: int, trial: bool) -> Done:
        tell()
        seconds, _ = score(seed)
        counted = tell()
        return Done(seconds, shape.prompts, counted.tokens, flops(counted, shape.prompts))

    return Work((None,), run, lambda: summary(score(0)[1]))


def peer(name: str) -> Work:
    model, tell, shape = decoder(), count_tokens(), SHAPES[name]

    @torch.inference_mode()
    def score(tokens: torch.Tensor, batch: int) -> tuple[float, torch.Tensor]:
        found = []
        began = clock()
        for part in tokens.split(batch):
            mask = torch.ones_like(part)
            logits = model(input_ids=part, attention_mask=mask, use_cache=False, logits_to_keep=1).logits[:, -1]
            found.append(logits.log_softmax(-1)[:, list(LABELS)])
        return clock() - began, torch.cat(found)

    def run(layout: int, seed: int, trial: bool) -> Done:
        tokens = prompts(shape, seed)
        tokens = tokens[:TRIAL] if trial else tokens
        tell()
        seconds, _ = score(tokens, layout)
        counted = tell()
        return Done(seconds, len(tokens), counted.tokens, flops(counted, len(tokens)))

    return Work((2, 4, 8, 16, 40), run, lambda: summary(score(prompts(shape, 0), 8)[1]))
