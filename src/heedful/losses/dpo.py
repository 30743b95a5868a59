"""Direct preference optimization: the ranking loss with the policy itself as reward model."""

import torch
from torch.nn.functional import logsigmoid


def dpo_loss(
    chosen_logprob: torch.Tensor,
    rejected_logprob: torch.Tensor,
    chosen_ref_logprob: torch.Tensor,
    rejected_ref_logprob: torch.Tensor,
    dpo_beta: float,
) -> torch.Tensor:
    """−log σ(β·[log π(y_c)/π_ref(y_c) − log π(y_r)/π_ref(y_r)]), β = dpo_beta, one value per pair (P,).

    All are (P,): log-probabilities of whole responses, summed over their tokens (`masked.masked_sum`), of the chosen
    y_c and the rejected y_r under the policy and its reference. Where policy and reference agree the loss is log 2.

    Rafailov et al. 2023 (arXiv 2305.18290), equation 7.

    >>> chosen, rejected = torch.tensor([-4.0]), torch.tensor([-6.0])
    >>> dpo_loss(chosen, rejected, torch.tensor([-5.0]), torch.tensor([-5.0]), dpo_beta=0.5)
    tensor([0.3133])
    """
    chosen_reward = dpo_beta * (chosen_logprob - chosen_ref_logprob)
    rejected_reward = dpo_beta * (rejected_logprob - rejected_ref_logprob)
    return -logsigmoid(chosen_reward - rejected_reward)
