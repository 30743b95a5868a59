"""What is measured of one policy without anyone's judgement: its KL from the reference."""

import torch

from heedful.batch import Rows
from heedful.losses.kl import kl_k1
from heedful.models.heads import Policy
from heedful.models.optimizer import Precision, autocast
from heedful.text.collate import by_length


@torch.no_grad()
def response_kl(policy: Policy, ref_policy: Policy, rows: Rows, max_tokens: int, precision: Precision) -> torch.Tensor:
    """log π(y|x) − log π_ref(y|x) of each response, (N,) in nats; its mean over the policy's own samples is the KL."""
    kl = torch.zeros(len(rows.length), device=rows.tokens.device)
    with autocast(rows.tokens.device, precision):
        for index in by_length(rows.length, max_tokens):
            part = rows.select(index)
            kl[index] = (kl_k1(policy.logprob(part)[0], ref_policy.logprob(part)[0]) * part.mask).sum(1)
    return kl
