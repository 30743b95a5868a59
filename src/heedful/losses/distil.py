"""Distillation: how far one distribution over the vocabulary is from another."""

import torch


def kl_of_distributions(logprobs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """KL(p ‖ q) = Σᵥ p(v)·(log p(v) − log q(v)) in nats, exact, between distributions over a vocabulary.

    log p and log q are `all_logprobs` (..., V), the result is (...). A token that p never says adds nothing; one that q
    never says and p may makes it infinite. Summed over the tokens of a response y ~ p, its mean is KL(p ‖ q) of whole
    responses: the divergence that context distillation minimises (Askell et al. 2021, arXiv 2112.00861).

    >>> p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.25, 0.25, 0.5]])
    >>> kl_of_distributions(p.log(), q.log())
    tensor([0.6931])
    """
    said = logprobs > -float("inf")
    return (logprobs.exp() * (logprobs - other).masked_fill(~said, 0)).sum(-1)
