"""Weights in 4 bits under adapters: near the full ones, never changed, and what is saved is made of the full ones."""

import copy
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from heedful.batch import Rows
from heedful.config import InputError
from heedful.models.checkpoint import load_policy, load_reward_model, save_policy, save_reward_model, weights_hash
from heedful.models.heads import Policy, RewardModel
from heedful.models.lora import attach_lora, base_weights, merged, over_one_base, value_over
from heedful.models.quantized import NF4Linear, adapted_linears, functional, matrix, quantize
from heedful.text.tokenizer import word_tokenizer
from small_models import FAMILIES, VOCAB, small_model
from toys import base_stays

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
CPU = torch.device("cpu")
IDS = torch.arange(3, 20)[None]
ROWS = Rows(IDS, torch.tensor([4]), torch.tensor([17]))
# QLoRA, appendix E.
CODE = torch.tensor(
    [
        *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
    ]
)


def speaking(model: torch.nn.Module, seed: int = 0) -> None:
    """Adapters that say something, as after some training."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))


def rounded(model: PreTrainedModel, by: PreTrainedModel) -> PreTrainedModel:
    """A copy of the full model whose weights are what the quantised one keeps of them."""
    plain, kept = copy.deepcopy(model), dict(by.named_modules())
    for name, module in adapted_linears(plain):
        weight = kept[name].unpacked(torch.float32)
        module.weight.data.copy_(weight.T if isinstance(module, Conv1D) else weight)
    return plain


@needs_bitsandbytes
@pytest.mark.parametrize("shape", [(64, 64), (300, 256), (33, 100), (48, 32), (96, 50)])
def test_a_matrix_is_kept_as_the_paper_says(shape: tuple[int, int]) -> None:
    """Blocks of 64 in row order, each the nearest of 16 values times its largest magnitude; the latter in 8 bits."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02
    found = NF4Linear(weight, None).unpacked(torch.float32)
    flat = weight.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % 64)).view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = CODE[(blocks / scale - CODE[:, None, None]).abs().argmin(0)]
    off = (found - (nearest * scale).flatten()[: len(flat)].view(shape)).abs()
    assert found.shape == shape and off.max() <= 0.01 * scale.max()


@needs_bitsandbytes
def test_a_parameter_takes_the_bytes_that_a_plan_counts() -> None:
    from heedful.cli.work import NF4

    linear = NF4Linear(torch.randn(512, 1024), None)
    tensors = [x for name, x in linear.state_dict().items() if name not in ("code", "scale_code")]  # tables, 1 KB
    assert sum(x.numel() * x.element_size() for x in tensors) / (512 * 1024) == pytest.approx(NF4, rel=1e-4)


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_quantised_model_computes_and_learns_as_the_full_one_with_its_weights(family: str) -> None:
    full = small_model(family)
    with torch.no_grad():
        for name, p in full.named_parameters():
            if name.endswith("bias"):  # zero as they come
                p.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
    model = copy.deepcopy(full)
    quantize(model, "nowhere", CPU)
    plain = rounded(full, model)
    for (_, a), (_, b) in zip(adapted_linears(full), adapted_linears(plain), strict=True):
        assert 0.07 < float((matrix(a) - matrix(b)).norm() / matrix(a).norm()) < 0.11  # 0.092 of a normal distribution
    assert model.get_output_embeddings().weight.dtype == torch.float32
    for each in (model, plain):
        attach_lora(each, 3, seed=1)
        speaking(each)
        each.eval()
    with torch.no_grad():  # eval mode first: what it leaves behind must not change training
        assert torch.equal(model(input_ids=IDS).logits, plain(input_ids=IDS).logits)
    for precision in (torch.float32, torch.bfloat16):
        with base_stays(model), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            for each in (model, plain):
                each.train()
                each.zero_grad()
                Policy(each).logprob(ROWS).sum().backward()
        theirs = dict(plain.named_parameters())
        for name, p in model.named_parameters():
            assert p.requires_grad == ("lora_" in name) == (p.grad is not None), name
            if p.grad is not None:
                assert p.dtype == torch.float32 and p.grad.abs().max() > 0
                scale = float(theirs[name].grad.abs().max())
                tolerance = 1e-5 if precision == torch.float32 else 0.05  # gpt2 adds its bias before rounding
                torch.testing.assert_close(p.grad, theirs[name].grad, rtol=0, atol=tolerance * scale)


@needs_bitsandbytes
def test_a_product_takes_autocasts_precision_and_keeps_no_weights_for_the_backward_pass() -> None:
    kept: list[torch.Size] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.shape)
        return x

    linear = NF4Linear(torch.randn(96, 128), None)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.randn(2, 128)).dtype == torch.bfloat16  # as any product's there
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        linear(torch.randn(2, 128, requires_grad=True)).sum().backward()
    assert torch.Size((96, 128)) not in kept and torch.Size((128, 96)) not in kept


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_saved_are_the_full_weights_with_adapters_added(family: str, tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["boat"])
    save_policy(tmp_path / "start", Policy(small_model(family)), tokenizer, {})
    policy, full = load_policy(tmp_path / "start", "nf4")[0], load_policy(tmp_path / "start")[0]
    for each in (policy, full):
        attach_lora(each.decoder, 3, seed=1)
        speaking(each)
    save_policy(tmp_path / "trained", policy, tokenizer, {})
    saved, expected = load_policy(tmp_path / "trained")[0].decoder, merged(full.decoder)
    theirs = dict(expected.named_parameters())
    for name, p in saved.named_parameters():
        torch.testing.assert_close(p, theirs[name], rtol=1e-6, atol=1e-6)
    with torch.no_grad(), base_weights(policy.decoder):  # and the model in hand is as it was
        assert torch.equal(policy.logprob(ROWS), load_policy(tmp_path / "start", "nf4")[0].logprob(ROWS))

    save_policy(tmp_path / "start", Policy(small_model(family, seed=1)), tokenizer, {})
    with pytest.raises(InputError, match="start: no longer the weights that adapters were trained over"):
        save_policy(tmp_path / "again", policy, tokenizer, {})
    assert not (tmp_path / "again").exists()


@needs_bitsandbytes
def test_policy_reward_and_value_stand_over_one_base_in_4_bits(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["boat"])
    save_policy(tmp_path / "start", Policy(small_model("llama")), tokenizer, {})
    reward = RewardModel.from_decoder(load_policy(tmp_path / "start", "nf4")[0].decoder, seed=1)
    attach_lora(reward.trunk, 3, seed=1)
    speaking(reward)
    save_reward_model(tmp_path / "rm", reward, tokenizer, {"model": weights_hash(tmp_path / "start")})

    policy = load_policy(tmp_path / "start", "nf4")[0]
    over = load_reward_model(tmp_path / "rm", over=(policy, tmp_path / "start"))[0]
    value = value_over(over)
    apart = load_reward_model(tmp_path / "rm", base_precision="nf4")[0]
    with torch.no_grad():
        assert torch.equal(over(ROWS), reward(ROWS))
        tokens = torch.randint(3, VOCAB, (64, 12), generator=torch.Generator().manual_seed(0))
        many = Rows(tokens, torch.full((64,), 4), torch.full((64,), 12))
        full = load_reward_model(tmp_path / "rm")[0](many)
        for model in (reward, apart):  # of random weights, which are harder to round than learned ones
            assert float(torch.corrcoef(torch.stack([full, model(many)]))[0, 1]) > 0.8
    base = {x.data_ptr() for x in policy.state_dict().values()}
    for model in (over, value, Policy(over_one_base(policy.decoder))):
        own = {name for name, x in model.state_dict().items() if x.data_ptr() not in base}
        assert all("lora_" in name or name.startswith("head.") for name in own)


def test_without_bitsandbytes_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    functional.cache_clear()
    with pytest.raises(InputError, match=r"nf4 needs bitsandbytes; pip install 'heedful\[qlora\]'"):
        quantize(small_model("llama"), "nowhere", CPU)


@needs_bitsandbytes
def test_a_device_that_bitsandbytes_has_nothing_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object, **settings: object) -> None:
        raise NotImplementedError("no kernel")

    monkeypatch.setattr(functional(), "quantize_4bit", nothing)
    with pytest.raises(InputError, match=r"bitsandbytes cannot do it on cpu \(no kernel\); set full"):
        quantize(small_model("llama"), "nowhere", CPU)
