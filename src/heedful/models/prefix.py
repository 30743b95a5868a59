"""Attention to keys that all rows share and to each row's own, without a copy of the shared ones before every row.

A softmax over both is the two apart, each weighed by its share of the sum of exponentials, as FlashAttention merges
blocks (arXiv 2205.14135, section 3.1); lse is the logarithm of that sum:

    out = w · out_shared + (1 − w) · out_own        w = σ(lse_shared − lse_own)

Shapes: query (N, H, T, D); shared keys and values (1, Hkv, P, D), own ones (N, Hkv, S, D).
"""

import torch
import torch.nn.functional as F

# torch's fused attention for CPUs, asked by the name under which it also tells lse; the public one keeps that to itself
_FUSED = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)

Keys = tuple[torch.Tensor, torch.Tensor]


def merges(query: torch.Tensor, shared: Keys) -> bool:
    """Whether the two may be computed apart: on a CPU without gradients, in one precision."""
    alike = query.dtype == shared[0].dtype == shared[1].dtype and query.shape[-1] == shared[1].shape[-1]
    free = not torch.is_grad_enabled() and not torch.is_autocast_enabled(query.device.type)
    return _FUSED is not None and query.device.type == "cpu" and alike and free


def merged(
    query: torch.Tensor, shared: Keys, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """(N, T, H, D) of queries that see all that is shared, and by an additive mask (N, 1, T, S) of their rows' own."""
    assert _FUSED is not None
    rows = len(query)
    before, lse_before = _FUSED(query, *(x.expand(rows, -1, -1, -1) for x in shared), scale=scaling)
    own, lse_own = _FUSED(query, key, value, attn_mask=mask, scale=scaling)
    weight = torch.sigmoid(lse_before - lse_own).unsqueeze(-1).to(own.dtype)
    return torch.lerp(own, before, weight).transpose(1, 2)


def joined(
    shared: Keys, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys and values (N, Hkv, P + S, D) and the mask for them, where they are computed together."""
    key, value = (torch.cat([x.expand(len(y), -1, -1, -1), y], 2) for x, y in zip(shared, (key, value), strict=True))
    return key, value, F.pad(mask, (shared[0].shape[2], 0))
