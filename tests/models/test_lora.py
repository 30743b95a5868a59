"""Adapters: nothing changes at first, only they train, the base stays as the reference, and export holds their sum."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from heedful.batch import Rows
from heedful.config import InputError
from heedful.engine.engine import Engine
from heedful.engine.slots import Request
from heedful.models.checkpoint import (
    load_reward_model,
    save_policy,
    save_reward_model,
    weights_hash,
)
from heedful.models.heads import Policy, RewardModel
from heedful.models.lora import attach_lora, base_weights, over_one_base, parameters_per_rank, value_over
from heedful.text.tokenizer import word_tokenizer
from small_models import FAMILIES, small_model

IDS = torch.arange(3, 20)[None]
ROWS = Rows(IDS, torch.tensor([4]), torch.tensor([17]))


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_train_over_a_base_that_stays(family: str, tmp_path: Path) -> None:
    model = small_model(family)
    start = logits(model)
    attach_lora(model, rank=4)
    torch.testing.assert_close(logits(model), start)
    trained = [p for p in model.parameters() if p.requires_grad]
    frozen = [p.clone() for p in model.parameters() if not p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    for _ in range(2):
        (-Policy(model).logprob(ROWS).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(
        torch.equal(a, b) for a, b in zip(frozen, [p for p in model.parameters() if not p.requires_grad], strict=True)
    )
    now = logits(model)
    assert (now - start).abs().max() > 0.1
    with base_weights(model):
        torch.testing.assert_close(logits(model), start)
    assert torch.equal(logits(model), now)
    assert [p.requires_grad for p in trained] == [True] * len(trained)

    save_policy(tmp_path / "p", Policy(model), word_tokenizer(["boat"]), {})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "p")
    scale = float(now.abs().max())
    torch.testing.assert_close(logits(plain), now, atol=1e-5 * scale, rtol=1e-4)
    assert torch.equal(logits(model), now)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parameters_of_adapters_are_counted_without_making_them(family: str) -> None:
    for model in (small_model(family), small_model(family).get_decoder()):
        per_rank = parameters_per_rank(model)
        attach_lora(model, rank=3)
        assert 3 * per_rank == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_rank_above_the_width_is_refused() -> None:
    model = small_model("llama")
    with pytest.raises(InputError, match="lora_rank 500 exceeds the model's width"):
        attach_lora(model, rank=500)


def test_the_engine_samples_from_the_adapted_model() -> None:
    model = small_model("llama")
    attach_lora(model, rank=2)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(0))
    [[completion]] = Engine(model, []).generate([Request([1, 5], 1, 6, temperature=0.0)])
    tokens = [1, 5]
    with torch.no_grad():
        for _ in range(6):
            tokens.append(int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    assert completion.tokens == tokens[2:]


def test_unknown_modules_are_named() -> None:
    with pytest.raises(InputError, match="nowhere"):
        attach_lora(small_model("llama"), 2, modules=["nowhere"])


def adapted(model: torch.nn.Module, trunk: PreTrainedModel, rank: int, seed: int) -> None:
    """Adapters that say something, as after some training."""
    attach_lora(trunk, rank, seed=seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_policy_reward_and_value_stand_over_one_base_as_if_each_stood_alone(family: str) -> None:
    decoder = small_model(family)
    base = {p.data_ptr(): p.numel() for p in decoder.parameters()}
    reward = RewardModel.from_decoder(over_one_base(decoder), seed=1)
    adapted(reward, reward.trunk, 3, seed=1)
    value = value_over(reward)  # with adapters of its own
    policy, reference = Policy(over_one_base(decoder)), Policy(decoder)
    adapted(policy, policy.decoder, 2, seed=2)
    models: list[torch.nn.Module] = [policy, reward, value]
    alone = copy.deepcopy(models)

    held = {p.data_ptr(): p.numel() for model in (*models, reference) for p in model.parameters()}
    trained = [{n: p for n, p in m.named_parameters() if p.requires_grad} for m in models]
    assert sum(held.values()) == sum(base.values()) + sum(p.numel() for own in trained for p in own.values())
    assert all("lora_" in name or name.startswith("head.") for own in trained for name in own)
    assert {p.data_ptr() for p in trained[1].values()}.isdisjoint(p.data_ptr() for p in trained[2].values())

    for together, single in zip(models, alone, strict=True):
        for model in (together, single):
            found = model.logprob(ROWS) if isinstance(model, Policy) else model(ROWS)
            found.sum().backward()
        same = dict(single.named_parameters())
        for name, p in together.named_parameters():
            assert p.requires_grad == (p.grad is not None) or name.startswith("head"), name
            if p.grad is not None:
                assert torch.equal(p.grad, same[name].grad) and p.grad.abs().max() > 0, name

    with torch.no_grad():
        before = [reference.logprob(ROWS), reward(ROWS), value(ROWS)]
        for p in trained[0].values():
            p.sub_(p.grad)
        after = [reference.logprob(ROWS), reward(ROWS), value(ROWS)]
        assert all(map(torch.equal, before, after))
        assert not torch.equal(policy.logprob(ROWS), alone[0].logprob(ROWS))


def test_a_saved_reward_model_stands_over_the_policy_it_was_trained_from(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["boat"])
    start, other = Policy(small_model("llama")), Policy(small_model("llama", seed=1))
    save_policy(tmp_path / "start", start, tokenizer, {})
    save_policy(tmp_path / "other", other, tokenizer, {})
    reward = RewardModel.from_decoder(small_model("llama"), seed=1)
    adapted(reward, reward.trunk, 3, seed=1)
    parents = {"model": weights_hash(tmp_path / "start")}
    save_reward_model(tmp_path / "rm", reward, tokenizer, parents)
    merged = load_reward_model(tmp_path / "rm")[0]
    over = load_reward_model(tmp_path / "rm", over=(start, tmp_path / "start"))[0]
    with torch.no_grad():
        assert torch.equal(over(ROWS), reward(ROWS))
        torch.testing.assert_close(over(ROWS), merged(ROWS), atol=1e-4, rtol=1e-4)
    assert {p.data_ptr() for n, p in over.trunk.named_parameters() if "lora_" not in n} <= {
        p.data_ptr() for p in start.parameters()
    }
    with pytest.raises(InputError, match="its adapters stand over another model"):
        load_reward_model(tmp_path / "rm", over=(other, tmp_path / "other"))
    save_reward_model(tmp_path / "whole", RewardModel.from_decoder(small_model("llama")), tokenizer, parents)
    with pytest.raises(InputError, match="trained without adapters"):
        load_reward_model(tmp_path / "whole", over=(start, tmp_path / "start"))


def test_models_without_adapters_do_not_import_peft() -> None:
    """It takes a second and more, and brings bitsandbytes along where that is installed."""
    code = "import sys, heedful.pipeline.loop, heedful.export.model; print({'peft', 'bitsandbytes'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
