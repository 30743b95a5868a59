"""One attention function for every decoder that goes through transformers' attention interface.

Without a layout it is plain causal attention over right-padded rows: no real token ever sees padding, so there is no
mask to build. With a layout (an object given to the model as `layout=`) the layout decides what each query sees: cached
decoding runs through the model's own forward that way, so sampling and training share one definition. With `laid=` the
model computes one sequence of rows laid end to end, and attention the rows they stand for. With `read=` the last layer
is computed for the tokens that are read (`models.read`).

Sliding windows, soft caps (Gemma 2, arXiv 2408.00118) and attention sinks (gpt-oss) are honoured; what cannot be is
refused by name. Shapes: query (N, H, T, D), key and value (N, Hkv, S, D); H is a multiple of Hkv.
"""

from contextlib import nullcontext
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

from heedful.config import InputError
from heedful.models.prefix import Keys, joined, merged, merges
from heedful.models.read import Halves, read_in_part

NAME = "heedful"
HONOURED_LAYERS = {"full_attention", "sliding_attention"}
REFUSED_ARGUMENTS = ("position_bias", "indices", "block_indices", "cache")


class Layout(Protocol):
    """Where keys and values of this call go, and which of them each query sees."""

    def update(
        self, layer: int, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Keys and values of the rows (N, Hkv, S, D), and an additive mask that broadcasts to (N, 1, T, S); no mask
        means causal, T = S."""
        ...

    def shared(self, layer: int, window: int | None) -> Keys | None:
        """Keys and values (1, Hkv, P, D) that stand before those of every row, and that every query sees; `update`
        gives no part of them, and a mask then. None: there are none."""
        return None


Part = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]


class Laid(Layout, Protocol):
    """Rows laid end to end in one sequence of M tokens, of which attention looks at parts (N, T) that stand alone."""

    def parts(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None
    ) -> list[Part]:
        """Queries, keys and values (1, H, M, D) as those of each part: queries (N, H, T, D), keys and values
        (N, H, S, D), and an additive mask that broadcasts to (N, 1, T, S); no mask means causal, T = S."""
        ...

    def join(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        """Outputs for the parts (N, T, H, D) as those of the sequence (1, M, H, D)."""
        ...


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    layout: Layout | None = None,
    laid: Laid | None = None,
    halves: Halves | None = None,
    **others: Any,  # transformers hands every attention function whatever its model was called with
) -> tuple[torch.Tensor, None]:
    """Attention output (N, T, H, D), and None where other implementations return weights.

    Raises:
        InputError: the model asks for something that is not honoured.
    """
    if layout is None and halves is None:
        _refuse_unknown(module, query, key, attention_mask, sliding_window, others)
    how = (query.shape[-1] ** -0.5 if scaling is None else scaling, dropout, softcap, s_aux)
    layer: int = module.layer_idx  # type: ignore[assignment]
    if laid is not None and halves is None:
        parts = laid.parts(layer, query, key, value, sliding_window)
        return laid.join([_attention(*part, sliding_window, *how) for part in parts]), None
    mask: torch.Tensor | None = None
    shared: Keys | None = None
    if halves is not None:
        key, value = halves.whole(key, value)
    if (rows := laid or layout) is not None:
        key, value, mask = rows.update(layer, key, value, sliding_window)
        shared = rows.shared(layer, sliding_window)
    if halves is not None:
        query, mask = halves.read.queries(query), halves.read.mask(mask, query, key.shape[2], sliding_window)
    out = _behind(shared, query, key, value, mask, sliding_window, *how)
    return out.contiguous() if halves is None else halves.read.join(out), None


def _behind(
    shared: Keys | None,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    window: int | None,
    scaling: float,
    dropout: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """(N, T, H, D), also of what all rows share."""
    if shared is not None:
        assert mask is not None
        if not dropout and softcap is None and sinks is None and merges(query, shared):
            return merged(query, shared, key, value, mask, scaling)
        key, value, mask = joined(shared, key, value, mask)
    return _attention(query, key, value, mask, window, scaling, dropout, softcap, sinks)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    window: int | None,
    scaling: float,
    dropout: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """(N, T, H, D); no mask means causal, within the window."""
    if mask is None:
        mask = _window_mask(query, window)
    one_token = query.shape[2] == 1 and mask is not None
    if one_token or softcap is not None or sinks is not None:
        return _explicit(query, key, value, mask, scaling, dropout, softcap, sinks)
    if rounded := _in_bf16_on_cpu(query):
        query, key, value = query.float(), key.float(), value.float()
        mask = None if mask is None else mask.float()
    with torch.autocast("cpu", enabled=False) if rounded else nullcontext():
        out = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    return (out.bfloat16() if rounded else out).transpose(1, 2)


def _in_bf16_on_cpu(query: torch.Tensor) -> bool:
    """Whether the fused kernel would compute in bf16 on a CPU, where its backward pass takes two to five times as long
    as in fp32, and as long at some 250 tokens."""
    if query.device.type != "cpu":
        return False
    of_autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return query.dtype == torch.bfloat16 or (of_autocast and query.dtype == torch.float32)


def _explicit(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    dropout: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention step by step; query heads that share a key head are extra queries of it, so no key is repeated.

    For one query token a row this is also faster than the fused kernel.
    """
    rows, heads, tokens, width = query.shape
    groups = heads // key.shape[1]
    grouped = query.reshape(rows, key.shape[1], groups * tokens, width)
    weight = torch.matmul(grouped, key.transpose(2, 3)).mul_(scaling).view(rows, key.shape[1], groups, tokens, -1)
    if softcap is not None:
        weight = torch.tanh(weight / softcap) * softcap
    if mask is None:
        seen = torch.ones(tokens, key.shape[2], dtype=torch.bool, device=query.device).tril()
        mask = torch.zeros_like(seen, dtype=weight.dtype).masked_fill(~seen, float("-inf"))
    weight = weight + (mask if mask.dim() == 2 else mask.unsqueeze(1))
    if sinks is not None:
        sink = sinks.view(1, key.shape[1], groups, 1, 1).expand(rows, -1, -1, tokens, 1)
        weight = torch.cat([weight, sink.to(weight.dtype)], -1).softmax(-1, dtype=_at_least_fp32(weight))[..., :-1]
    else:
        weight = weight.softmax(-1, dtype=_at_least_fp32(weight))
    weight = F.dropout(weight.to(value.dtype), dropout, training=dropout > 0)
    out = torch.matmul(weight.view(rows, key.shape[1], groups * tokens, -1), value)
    return out.view(rows, heads, tokens, -1).transpose(1, 2).contiguous()


def _window_mask(query: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Additive (T, T) mask of a sliding window: each token sees itself and the window − 1 tokens before it."""
    tokens = query.shape[2]
    if window is None or tokens <= window:
        return None
    seen = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    return torch.zeros_like(seen, dtype=query.dtype).masked_fill(~seen, float("-inf"))


def _at_least_fp32(x: torch.Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _refuse_unknown(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    attention_mask: torch.Tensor | None,
    sliding_window: int | None,
    others: dict[str, Any],
) -> None:
    name = type(module).__name__
    asked = [key for key in REFUSED_ARGUMENTS if others.get(key) is not None]
    if asked:
        raise InputError(
            f"{name} asks for attention with {asked[0]}, which heedful does not compute; choose another model"
        )
    if attention_mask is not None:
        raise InputError(f"{name} was given an attention mask; heedful pads rows on the right and takes none")
    if not getattr(module, "is_causal", True) or others.get("is_causal") is False:
        raise InputError(f"{name} is not causal; heedful trains decoders only")
    if query.shape[2] != key.shape[2]:
        raise InputError(f"{name} was given a transformers cache; generate with heedful's engine instead")
    kinds = getattr(module.config, "layer_types", None)
    if kinds and kinds[module.layer_idx] == "sliding_attention" and sliding_window is None:
        raise InputError(f"{name} hides its sliding window from the attention interface; choose another model")


def use_attention(model: PreTrainedModel) -> None:
    """Make the model compute attention by `attend`.

    Raises:
        InputError: an architecture whose attention is its own, or with layers that are not attention.
    """
    name = model.config.model_type
    if model.config._attn_implementation == NAME:
        return
    if not model._supports_attention_backend:
        raise InputError(
            f"architecture {name!r} computes its own attention; choose one that uses transformers' interface"
        )
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ()) - HONOURED_LAYERS
    if kinds:
        raise InputError(
            f"architecture {name!r} has layers of kind {sorted(kinds)[0]!r}; full and sliding attention work"
        )
    model.set_attn_implementation(NAME)
    read_in_part(model.get_decoder())
    model.get_decoder().register_forward_pre_hook(_refuse_padding_mask, with_kwargs=True)


def _refuse_padding_mask(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
    # transformers drops a padding mask before an attention function without a mask interface could see it
    if kwargs.get("attention_mask") is not None:
        raise InputError("heedful's models take no attention_mask: pad rows on the right and read real positions only")


AttentionInterface.register(NAME, attend)
