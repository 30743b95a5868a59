"""Log-probabilities of tokens and entropy of their distributions, always in fp32 or better."""

import torch


def _log_softmax(logits: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)


def token_logprob(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probability of each token: log πₜ(yₜ) = zₜ[yₜ] − log Σᵥ exp zₜ[v].

    logits z are (..., V), tokens y (...) int64; the result is (...), fp32 (float64 for float64 logits). Adding a
    constant to all logits changes nothing, however large. A token whose logit is −∞ has log-probability −∞. A sampling
    temperature belongs in the logits: pass logits / temperature wherever the probabilities are compared.

    Raises:
        RuntimeError, IndexError: a token outside 0..V−1 (there is no "ignore" index: masks say what counts).

    >>> token_logprob(torch.tensor([[0.0, 0.0], [1000.0, 0.0]]), torch.tensor([1, 0]))
    tensor([-0.6931,  0.0000])
    """
    return _log_softmax(logits).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of each distribution in nats: H = −Σᵥ π(v)·log π(v), between 0 and log V.

    logits are (..., V), the result is (...), fp32 (float64 for float64 logits). A logit of −∞ adds nothing, to the
    result or to the gradient.

    >>> entropy(torch.tensor([[0.0, 0.0], [0.0, -float("inf")]]))
    tensor([0.6931, 0.0000])
    """
    logprob = _log_softmax(logits)
    return (logprob.exp() * -logprob.masked_fill(logprob == -torch.inf, 0)).sum(-1)
