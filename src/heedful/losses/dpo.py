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


def conservative_dpo_loss(
    chosen_logprob: torch.Tensor,
    rejected_logprob: torch.Tensor,
    chosen_ref_logprob: torch.Tensor,
    rejected_ref_logprob: torch.Tensor,
    dpo_beta: float,
    flipped: float | torch.Tensor,
) -> torch.Tensor:
    """DPO where a share `flipped` of the labels is taken to be wrong: (1 − ε)·L(c, r) + ε·L(r, c), one per pair (P,).

    Arguments as in `dpo_loss`. Finite margins are best: the loss is lowest at β·(…) = log((1 − ε)/ε). A probability in
    place of 1 − ε is a soft label, and ½ a tie.

    Mitchell 2023, "A note on DPO with noisy preferences".

    >>> chosen, rejected = torch.tensor([-4.0]), torch.tensor([-6.0])
    >>> conservative_dpo_loss(chosen, rejected, torch.tensor([-5.0]), torch.tensor([-5.0]), dpo_beta=0.5, flipped=0.1)
    tensor([0.4133])
    """
    given = chosen_logprob, rejected_logprob, chosen_ref_logprob, rejected_ref_logprob
    other = rejected_logprob, chosen_logprob, rejected_ref_logprob, chosen_ref_logprob
    return (1 - flipped) * dpo_loss(*given, dpo_beta) + flipped * dpo_loss(*other, dpo_beta)


def ipo_loss(
    chosen_logprob: torch.Tensor,
    rejected_logprob: torch.Tensor,
    chosen_ref_logprob: torch.Tensor,
    rejected_ref_logprob: torch.Tensor,
    dpo_beta: float,
) -> torch.Tensor:
    """(h − 1/(2β))² with h = log π(y_c)/π_ref(y_c) − log π(y_r)/π_ref(y_r), one value per pair (P,).

    Arguments as in `dpo_loss`. Where labels are certain DPO's margin grows without end; here its aim is 1/(2β) nats.

    Azar et al. 2023 (arXiv 2310.12036), equation 17.

    >>> chosen, rejected = torch.tensor([-4.0]), torch.tensor([-6.0])
    >>> ipo_loss(chosen, rejected, torch.tensor([-5.0]), torch.tensor([-5.0]), dpo_beta=0.5)
    tensor([1.])
    """
    margin = (chosen_logprob - chosen_ref_logprob) - (rejected_logprob - rejected_ref_logprob)
    return (margin - 1 / (2 * dpo_beta)) ** 2
