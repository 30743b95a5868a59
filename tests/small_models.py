"""Small random models of the six architectures that are tested throughout."""

from typing import Any

import torch
from transformers import PreTrainedModel

from heedful.models.load import from_scratch

torch.set_num_threads(1)  # models this small only lose by threads

VOCAB = 61
WINDOW = 7  # sliding windows are short, so that ordinary tests run past them

_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.2,  # wide, so that attention and logits are far from uniform
}
_GATED: dict[str, Any] = {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _COMMON | _GATED | {"model_type": "llama"},
    "qwen3": _COMMON | _GATED | {"model_type": "qwen3"},
    "mistral": _COMMON | _GATED | {"model_type": "mistral", "sliding_window": WINDOW},
    "gpt_neox": _COMMON | {"model_type": "gpt_neox", "intermediate_size": 48},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCAB,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 64,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gemma3_text": _COMMON
    | _GATED
    | {
        "model_type": "gemma3_text",
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
}


def small_model(family: str, seed: int = 0) -> PreTrainedModel:
    return from_scratch(FAMILIES[family], seed)
