"""How far the policy has moved from its reference, and the coefficient that holds it near.

Both estimators take log-probabilities of tokens sampled from the policy, and both have the mean
KL(π ‖ π_ref) = E_π[log π − log π_ref] (J. Schulman, "Approximating KL divergence", 2020).
"""

import torch

MAX_ERROR = 0.2


def kl_k1(logprob: torch.Tensor, ref_logprob: torch.Tensor) -> torch.Tensor:
    """k₁ = log π(y) − log π_ref(y): unbiased, may be negative; the one in the reward.

    logprob, ref_logprob and the result are (N, R), or any one shape; summed over a response, k₁ is that response's
    KL in nats.

    >>> kl_k1(torch.tensor([-1.0]), torch.tensor([-1.5]))
    tensor([0.5000])
    """
    return logprob - ref_logprob


def kl_k3(logprob: torch.Tensor, ref_logprob: torch.Tensor) -> torch.Tensor:
    """k₃ = exp(−k₁) − 1 + k₁: unbiased, never negative (up to rounding), steadier than k₁ near the reference.

    The ratio is π_ref/π, so the expectation is over the policy's own samples. Shapes as in `kl_k1`. In fp32 it is
    infinite where a token is e⁸⁸ times as likely under the reference: a number to log, and to notice.

    >>> kl_k3(torch.tensor([-1.0, -1.0]), torch.tensor([-1.5, -1.0]))
    tensor([0.1065, 0.0000])
    """
    k1 = kl_k1(logprob, ref_logprob)
    return torch.expm1(-k1) + k1


def next_kl_coef(kl_coef: float, kl: float, target: float, num_episodes: int, horizon: float) -> float:
    """The adaptive coefficient after one more iteration: β·(1 + e·n/h), e = clip(KL/target − 1, −0.2, 0.2).

    kl and target are in nats per response; n = num_episodes went into this iteration, and over h = horizon episodes β
    changes by at most about a fifth (keep n < 5·h, or a low KL would turn β negative). A NaN kl gives NaN.

    Ziegler et al. 2019 (arXiv 1909.08593), section 2.2.

    >>> round(next_kl_coef(0.1, kl=12.0, target=6.0, num_episodes=512, horizon=10_000), 6)
    0.101024
    """
    error = min(max(kl / target - 1, -MAX_ERROR), MAX_ERROR)
    return kl_coef * (1 + error * num_episodes / horizon)
