"""Proximal policy optimization over tokens: the reward with its KL penalty, advantages, policy and value losses.

All tensors are (N, R), N responses of up to R tokens; mask is True on the tokens that count. Rewards, advantages and
returns are data: compute them from log-probabilities and values of the rollout, without gradient.
"""

import torch

from heedful.losses.kl import kl_k1


def kl_penalized_reward(
    score: torch.Tensor,
    logprob: torch.Tensor,
    ref_logprob: torch.Tensor,
    mask: torch.Tensor,
    kl_coef: float,
    clamp_kl: bool = False,
) -> torch.Tensor:
    """Reward of each token: rₜ = −β·(log π(yₜ) − log π_ref(yₜ)), plus the response's score on its last counted token.

    score is (N,), one number per response; β = kl_coef. A row sums to score − β·KL. Uncounted tokens get 0; a row
    that counts no token gets nothing, its score included, so count such rows. With `clamp_kl` a token's difference
    counts as 0 where it is negative: a biased penalty, which pays nothing for tokens that the reference finds likelier.

    InstructGPT (arXiv 2203.02155), equation 2; Ziegler et al. 2019 (arXiv 1909.08593), equation 2. Clamped: the code
    released with SALMON (arXiv 2310.05910).

    >>> logprob, ref_logprob = torch.tensor([[-1.0, -1.0, -1.0]]), torch.tensor([[-1.2, -1.4, -0.9]])
    >>> kl_penalized_reward(torch.tensor([0.9]), logprob, ref_logprob, torch.tensor([[True, True, True]]), 0.02)
    tensor([[-0.0040, -0.0080,  0.9020]])
    """
    still_to_come = mask.flip(1).cumsum(1).flip(1)
    last = mask & (still_to_come == 1)
    kl = kl_k1(logprob, ref_logprob).masked_fill(~mask, 0)
    penalty = -kl_coef * (kl.clamp_min(0) if clamp_kl else kl)
    return torch.where(last, penalty + score.unsqueeze(1), penalty)


def gae(
    reward: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, discount: float, gae_lambda: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalized advantage estimates and the returns they imply: (advantage, returns), each (N, R).

    δₜ = rₜ + γ·Vₜ₊₁ − Vₜ,  Âₜ = δₜ + γ·λ·Âₜ₊₁,  R̂ₜ = Âₜ + Vₜ, with γ = discount and λ = gae_lambda.

    t + 1 is the next token that counts; behind the last one V and Â are 0 (the episode ends there). Uncounted tokens
    get 0, and whatever stands on them, rewards included, has no effect. λ = 1 gives the reward to go minus the value,
    λ = 0 the one-step error δ.

    Schulman et al. 2015 (arXiv 1506.02438), in the recursive form of PPO (arXiv 1707.06347), equations 11 and 12.

    >>> reward, value = torch.tensor([[-0.004, -0.008, 0.902]]), torch.tensor([[0.4, 0.5, 0.7]])
    >>> advantage, returns = gae(reward, value, torch.tensor([[True, True, True]]), discount=1.0, gae_lambda=0.95)
    >>> advantage
    tensor([[0.4607, 0.3839, 0.2020]])
    >>> returns
    tensor([[0.8607, 0.8839, 0.9020]])
    """
    next_value = next_advantage = torch.zeros_like(value[:, 0])
    backwards = []
    for r, v, m in zip(*(x.flip(1).unbind(1) for x in (reward, value, mask)), strict=True):
        delta = r + discount * next_value - v
        a = delta + discount * gae_lambda * next_advantage
        next_value, next_advantage = torch.where(m, v, next_value), torch.where(m, a, next_advantage)
        backwards.append(a)
    advantage = torch.stack(backwards, dim=1).flip(1)
    return advantage.masked_fill(~mask, 0), (advantage + value).masked_fill(~mask, 0)


def policy_loss(
    logprob: torch.Tensor, old_logprob: torch.Tensor, advantage: torch.Tensor, clip_range: float
) -> torch.Tensor:
    """Clipped surrogate of each token: max(−Â·ρ, −Â·clip(ρ, 1 − ε, 1 + ε)), ρ = π(yₜ)/π_old(yₜ), ε = clip_range.

    All are (N, R). Where ρ = 1 the gradient is REINFORCE's, −Â·∇log π. It vanishes once ρ has gone past 1 + ε with
    Â > 0, or below 1 − ε with Â < 0; a step back is never clipped. Where Â = 0 both are 0, whatever ρ: elsewhere ρ
    overflows in fp32 from log ρ > 88.

    PPO (arXiv 1707.06347), equation 7, negated.

    >>> logprob, old_logprob = torch.tensor([[-0.5, -0.5]]), torch.tensor([[-1.0, -1.0]])
    >>> policy_loss(logprob, old_logprob, torch.tensor([[1.0, -1.0]]), clip_range=0.2)
    tensor([[-1.2000,  1.6487]])
    """
    ratio = torch.exp((logprob - old_logprob).masked_fill(advantage == 0, 0))
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_range, 1 + clip_range))


def value_loss(
    value: torch.Tensor, old_value: torch.Tensor, returns: torch.Tensor, clip_range: float | None
) -> torch.Tensor:
    """Squared error of each token's value: ½·max((V − R̂)², (clip(V, V_old − ε, V_old + ε) − R̂)²), ε = clip_range.

    All are (N, R). Clipping stops the gradient once V has moved more than ε towards the return; clip_range None (or
    infinite) gives the plain ½·(V − R̂)².

    As in the code of PPO and of Ziegler et al. 2019 (see Engstrom et al. 2020, arXiv 2005.12729, section 3).

    >>> value_loss(torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]]), clip_range=0.2)
    tensor([[0.3200]])
    >>> value_loss(torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]]), clip_range=None)
    tensor([[0.]])
    """
    error = (value - returns) ** 2
    if clip_range is None:
        return 0.5 * error
    clipped = value.clamp(old_value - clip_range, old_value + clip_range)
    return 0.5 * torch.maximum(error, (clipped - returns) ** 2)
