"""Supervised fine-tuning: likelihood of the demonstration given its prompt."""

import torch


def sft_loss(logprob: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each response token: −log π(yₜ | x, y₍<ₜ₎).

    logprob is (N, R), from `logprob.token_logprob`, and so is the result; reduce it with `masked_mean` over the
    response tokens, so that prompts and padding are not trained on. Over pretraining text it is the second term of
    InstructGPT's PPO-ptx objective (arXiv 2203.02155, equation 2), there over every token.

    >>> sft_loss(torch.tensor([[-0.5, -2.0]]))
    tensor([[0.5000, 2.0000]])
    """
    return -logprob
