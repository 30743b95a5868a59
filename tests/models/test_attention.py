"""Our attention equals transformers' own, past sliding windows too; what cannot be honoured is refused by name."""

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, PreTrainedModel

from heedful.config import InputError
from heedful.models.attention import _attention, _explicit, _window_mask
from heedful.models.load import from_scratch
from small_models import FAMILIES, VOCAB, WINDOW, small_model

OTHERS: dict[str, dict[str, Any]] = {
    "gemma2": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8},
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "cohere2": {"logit_scale": 0.3},
    "granite": {"logits_scaling": 3.0},
    "olmo2": {},
}


def other_model(model_type: str, seed: int = 0, **changes: Any) -> PreTrainedModel:
    default = AutoConfig.for_model(model_type)
    shape = FAMILIES["llama"] | {"sliding_window": WINDOW} | OTHERS.get(model_type, {}) | changes
    known = {key: value for key, value in shape.items() if hasattr(default, key)}
    return from_scratch(known | {"model_type": model_type}, seed)


def with_attention(model: PreTrainedModel, implementation: str) -> PreTrainedModel:
    other = type(model)(copy.deepcopy(model.config)).to(next(model.parameters()).dtype)
    other.load_state_dict(model.state_dict())
    other.set_attn_implementation(implementation)
    return other.eval()


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [WINDOW - 1, WINDOW, WINDOW + 1, 25])
def test_logits_equal_transformers_own(family: str, length: int) -> None:
    model = small_model(family)
    ids = tokens(3, length)
    with torch.no_grad():
        ours = model(input_ids=ids, use_cache=False).logits
        for implementation in ("sdpa", "eager"):
            theirs = with_attention(model, implementation)(input_ids=ids, use_cache=False).logits
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_type", OTHERS)
def test_softcaps_sinks_and_scales_are_honoured(model_type: str) -> None:
    model = other_model(model_type)
    ids = tokens(2, 25)
    with torch.no_grad():
        ours = model(input_ids=ids, use_cache=False).logits
        theirs = with_attention(model, "eager")(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_right_changes_nothing(family: str) -> None:
    model = small_model(family)
    ids = tokens(2, 20)
    short = ids[:1, :12]
    with torch.no_grad():
        padded = model(input_ids=torch.cat([short, torch.zeros(1, 8, dtype=torch.long)], 1), use_cache=False).logits
        alone = model(input_ids=short, use_cache=False).logits
    torch.testing.assert_close(padded[:, :12], alone, atol=1e-5, rtol=1e-5)


def test_attention_dropout_acts_in_training_only() -> None:
    model = small_model("llama")
    for layer in model.get_decoder().layers:
        layer.self_attn.attention_dropout = 0.5
    ids = tokens(2, 12)
    with torch.no_grad():
        kept = model(input_ids=ids, use_cache=False).logits
        model.train()
        dropped = model(input_ids=ids, use_cache=False).logits
        model.eval()
        again = model(input_ids=ids, use_cache=False).logits
    assert torch.equal(kept, again)
    assert not torch.allclose(kept, dropped, atol=1e-3)


@pytest.mark.parametrize(
    ("model_type", "says"),
    [("bloom", "own attention"), ("llama4_text", "chunked_attention"), ("bert", "not causal")],
)
def test_what_cannot_be_honoured_is_refused_by_name(model_type: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        other_model(model_type)


@pytest.mark.parametrize("model_type", ["nemotron", "diffllama"])
def test_an_architecture_that_cannot_be_told_of_rows_is_refused(model_type: str) -> None:
    """One whose layers keep from attention what the model was called with; one that asks attention twice a layer."""
    with pytest.raises(InputError, match=f"{model_type}.*does not know"):
        other_model(model_type)


def test_masks_and_foreign_caches_are_refused() -> None:
    model = small_model("llama")
    ids = tokens(1, 6)
    with pytest.raises(InputError, match="attention_mask"):
        model(input_ids=ids, attention_mask=torch.tensor([[0, 1, 1, 1, 1, 1]]), use_cache=False)
    cache = model(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(InputError, match="engine"):
        model(input_ids=ids[:, :1], past_key_values=cache)


def test_a_window_hidden_from_the_interface_is_refused() -> None:
    model = small_model("gemma3_text")
    model.get_decoder().layers[0].self_attn.sliding_window = None
    with pytest.raises(InputError, match="sliding window"):
        model(input_ids=tokens(1, 6), use_cache=False)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bf16_on_a_cpu_is_attention_of_rounded_inputs_in_fp32(window: int | None, dtype: torch.dtype) -> None:
    """Under autocast and of bf16 tensors alike, values and gradients are fp32's of the same inputs, rounded last."""
    drawn = torch.Generator().manual_seed(0)
    inputs = [torch.randn(3, heads, 20, 8, generator=drawn).to(dtype) for heads in (4, 2, 2)]
    exact = [x.float().clone().requires_grad_() for x in inputs]
    rounded = [x.clone().requires_grad_() for x in inputs]
    how = (window, 8**-0.5, 0.0, None, None)
    expected = _explicit(*exact, _window_mask(exact[0], window), *how[1:])
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        found = _attention(*rounded, None, *how)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), atol=0, rtol=2**-7)
    weight = torch.randn(found.shape, generator=drawn).bfloat16()
    (found * weight).sum().backward()
    (expected * weight.float()).sum().backward()
    for x, y in zip(rounded, exact, strict=True):
        assert x.grad is not None and y.grad is not None
        torch.testing.assert_close(x.grad.float(), y.grad, atol=1e-6, rtol=1e-5 if dtype == torch.float32 else 2**-7)


def test_other_types_keep_the_fused_kernel() -> None:
    """fp32 outside autocast, and float64 within it, are computed and given back as they are."""
    x = torch.randn(1, 2, 6, 4, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert _attention(x, x, x, None, None, 0.5, 0.0, None, None).dtype == torch.float64
    x = x.float()
    assert _attention(x, x, x, None, None, 0.5, 0.0, None, None).dtype == torch.float32
