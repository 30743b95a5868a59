"""The plain policy gradient, and advantages that several responses to one prompt give each other."""

import torch


def reinforce_loss(logprob: torch.Tensor, advantage: torch.Tensor) -> torch.Tensor:
    """−Â·log π(y) of each token, or of each response: its gradient is −Â·∇log π(y).

    Both are of one shape, (N, R) or (N,), and advantage is data. Summed over a response and averaged over responses
    sampled from π, the gradient is that of the expected reward, negated, whatever baseline was taken off the reward,
    so long as the baseline knew nothing of the token.

    Williams 1992, "Simple statistical gradient-following algorithms", theorem 1.

    >>> reinforce_loss(torch.tensor([[-0.5, -2.0]]), torch.tensor([[2.0, -1.0]]))
    tensor([[ 1., -2.]])
    """
    return -advantage * logprob


def leave_one_out(reward: torch.Tensor) -> torch.Tensor:
    """Of K responses to one prompt each against the mean of the others: Âᵢ = Rᵢ − Σⱼ≠ᵢ Rⱼ / (K − 1).

    reward and the result are (B, K), K at least 2. The baseline knows nothing of response i, so the gradient stays
    that of the expected reward. Â sums to 0 over a prompt.

    RLOO: Ahmadian et al. 2024 (arXiv 2402.14740), equation 6; Kool et al. 2019.

    >>> leave_one_out(torch.tensor([[1.0, 2.0, 6.0]]))
    tensor([[-3.0000, -1.5000,  4.5000]])
    """
    others = reward.shape[1] - 1
    return reward - (reward.sum(1, keepdim=True) - reward) / others


def group_normalized(reward: torch.Tensor) -> torch.Tensor:
    """Of K responses to one prompt each against all: Âᵢ = (Rᵢ − mean) / sd, and 0 where all rewards are equal.

    reward and the result are (B, K), K at least 2; sd is that of the sample (K − 1). The baseline knows response i and
    the scale differs by prompt, so this is not the gradient of the expected reward: prompts on which responses hardly
    differ weigh as much as any.

    GRPO: Shao et al. 2024 (arXiv 2402.03300), section 4.1.2.

    >>> group_normalized(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    tensor([[-1.,  0.,  1.],
            [ 0.,  0.,  0.]])
    """
    sd = reward.std(1, keepdim=True)
    return ((reward - reward.mean(1, keepdim=True)) / sd.masked_fill(sd == 0, 1)).masked_fill(sd == 0, 0)
