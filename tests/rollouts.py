"""What tests of the stages that sample share: five prompts, a planted reward, and the plainest view of a rollout."""

from typing import Any

import torch

from heedful.engine.sample import Generate, Sampled, Sampler, responses_by
from heedful.text.collate import Encoded
from heedful.types import Prompt
from toys import BEGIN, FIRST, TOKENIZER, WORDS

PROMPTS = [Prompt(id=word, text=word, user=word) for word in WORDS[:5]]
PROMPT_IDS = [[BEGIN, FIRST + n] for n in range(len(PROMPTS))]


def count_w1(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
    """The planted reward: how often w1 is said."""
    return torch.tensor([float(tokens.count(FIRST + 1)) for tokens in sampled.tokens])


def sampler(decoder: Any, config: Any, seed: int = 3) -> Generate:
    """Responses to the prompts, as a stage's settings ask for them."""
    sample = Sampler(decoder, TOKENIZER, config.max_new_tokens, config.temperature)
    return responses_by(sample, PROMPT_IDS, config.responses_per_prompt, seed)


def rows_of(sampled: Sampled) -> list[Encoded]:
    """Every prompt and response without padding."""
    return [Encoded(r[:p].tolist(), r[p:n].tolist()) for r, p, n in zip(*sampled.rows[:3], strict=True)]


def plain_sgd(parameters: Any, lr: float, weight_decay: float = 0.0) -> torch.optim.SGD:
    """Plain gradient descent in the place of a stage's Adam: its steps can be written out."""
    return torch.optim.SGD(parameters, lr)


def descend(loss: torch.Tensor, *models: torch.nn.Module) -> None:
    """A step of `plain_sgd` written out, at learning rate 1."""
    loss.backward()
    with torch.no_grad():
        for p in (p for model in models for p in model.parameters()):
            p -= 0 if p.grad is None else p.grad
