"""Adapters: nothing changes at first, only they train, the base stays as the reference, and export holds their sum."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from heedful.batch import Rows
from heedful.config import InputError
from heedful.engine.engine import Engine
from heedful.engine.slots import Request
from heedful.models.checkpoint import save_policy
from heedful.models.heads import Policy
from heedful.models.lora import attach_lora, base_weights, parameters_per_rank
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
