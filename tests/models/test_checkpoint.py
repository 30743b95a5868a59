"""What is saved comes back bit for bit; an interrupted or failed save costs nothing."""

import json
import os
from pathlib import Path

import pytest
import torch

from heedful.config import Config, InputError
from heedful.models import checkpoint
from heedful.models.checkpoint import (
    guideline_of,
    load_policy,
    load_reward_model,
    save_policy,
    save_reward_model,
    weights_hash,
)
from heedful.models.ema import Ema
from heedful.models.heads import Policy, RewardModel
from heedful.models.load import load_decoder
from heedful.text.tokenizer import fingerprint, word_tokenizer
from small_models import FAMILIES, small_model

TOKENIZER = word_tokenizer(["red", "boat"])


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    one, two = a.state_dict(), b.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trips_are_bit_exact(family: str, tmp_path: Path) -> None:
    policy = Policy(small_model(family))
    reward = RewardModel.from_decoder(small_model(family, 1))
    save_policy(tmp_path / "policy", policy, TOKENIZER, {"data": "abc"})
    save_reward_model(tmp_path / "reward", reward, TOKENIZER, {})
    loaded, tokenizer = load_policy(tmp_path / "policy")
    assert same(policy, loaded)
    assert fingerprint(tokenizer) == fingerprint(TOKENIZER)
    assert same(reward, load_reward_model(tmp_path / "reward")[0])
    about = json.loads((tmp_path / "policy" / "heedful.json").read_text())
    assert about == {"kind": "policy", "format": 1, "parents": {"data": "abc"}}


def test_hash_follows_the_weights(tmp_path: Path) -> None:
    reward = RewardModel.from_decoder(small_model("llama"))
    save_reward_model(tmp_path / "a", reward, TOKENIZER, {})
    save_reward_model(tmp_path / "b", reward, TOKENIZER, {"other": "parents"})
    assert weights_hash(tmp_path / "a") == weights_hash(tmp_path / "b")
    with torch.no_grad():
        reward.bias.add_(1e-3)
    save_reward_model(tmp_path / "b", reward, TOKENIZER, {})
    assert weights_hash(tmp_path / "a") != weights_hash(tmp_path / "b")
    with pytest.raises(InputError, match=r"no \.safetensors"):
        weights_hash(tmp_path)


class Guideline(Config):
    template: str = "{principles} {prompt}"


def test_a_model_that_follows_principles_scores_with_its_own_guideline_alone(tmp_path: Path) -> None:
    reward = RewardModel.from_decoder(small_model("llama"))
    save_reward_model(tmp_path / "led", reward, TOKENIZER, {}, Guideline())
    save_reward_model(tmp_path / "plain", reward, TOKENIZER, {})
    assert same(reward, load_reward_model(tmp_path / "led", Guideline())[0])
    assert guideline_of(tmp_path / "led") == {"template": "{principles} {prompt}"}
    assert guideline_of(tmp_path / "plain") is None
    with pytest.raises(InputError, match="follows principles, and without them its scores mean nothing"):
        load_reward_model(tmp_path / "led")
    with pytest.raises(InputError, match="reads no principles"):
        load_reward_model(tmp_path / "plain", Guideline())
    with pytest.raises(InputError, match=r"another guideline; score with .*principles"):
        load_reward_model(tmp_path / "led", Guideline(template="{prompt}"))


def test_another_kind_is_refused(tmp_path: Path) -> None:
    reward = RewardModel.from_decoder(small_model("llama"))
    save_reward_model(tmp_path / "reward", reward, TOKENIZER, {})
    save_policy(tmp_path / "policy", Policy(small_model("llama")), TOKENIZER, {})
    for load in (load_policy, load_decoder):
        with pytest.raises(InputError, match="holds a reward model, not a policy"):
            load(tmp_path / "reward")
    with pytest.raises(InputError, match="holds a policy, not a reward model"):
        load_reward_model(tmp_path / "policy")
    (tmp_path / "policy" / "heedful.json").unlink()
    with pytest.raises(InputError, match=r"no heedful\.json"):
        load_reward_model(tmp_path / "policy")


def test_a_broken_head_is_named(tmp_path: Path) -> None:
    save_reward_model(tmp_path / "r", RewardModel.from_decoder(small_model("llama")), TOKENIZER, {})
    (tmp_path / "r" / "head.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"head\.safetensors is missing or broken"):
        load_reward_model(tmp_path / "r")


def full_disk(path: Path) -> None:
    raise OSError(28, "No space left on device")


def test_a_failed_save_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Policy(small_model("llama", 1)), Policy(small_model("llama", 2))
    save_policy(tmp_path / "p", old, TOKENIZER, {})

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_flush", full_disk)
        with pytest.raises(OSError, match="No space"):
            save_policy(tmp_path / "p", new, TOKENIZER, {})
    assert same(load_policy(tmp_path / "p")[0], old)
    assert os.listdir(tmp_path) == ["p"]


def test_a_kill_between_the_two_renames_is_recovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Policy(small_model("llama", 1)), Policy(small_model("llama", 2))
    save_policy(tmp_path / "p", old, TOKENIZER, {})
    rename = os.replace

    def killed(source: Path, target: Path) -> None:
        if source.name == "p.partial":
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_policy(tmp_path / "p", new, TOKENIZER, {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_flush", full_disk)
        with pytest.raises(OSError, match="No space"):
            save_policy(tmp_path / "p", new, TOKENIZER, {})
    assert same(load_policy(tmp_path / "p")[0], old)
    save_policy(tmp_path / "p", new, TOKENIZER, {})
    assert same(load_policy(tmp_path / "p")[0], new)
    assert os.listdir(tmp_path) == ["p"]


def test_ema_is_the_weighted_sum_of_all_past_weights() -> None:
    model = torch.nn.Linear(1, 1, bias=False).double()
    values = [1.0, 2.0, 5.0]
    with torch.no_grad():
        model.weight.fill_(values[0])
        ema = Ema(model, 0.9)
        for value in values[1:]:
            model.weight.fill_(value)
            ema.update()
    expected = 0.81 * 1.0 + 0.09 * 2.0 + 0.1 * 5.0
    other = Ema(torch.nn.Linear(1, 1, bias=False).double(), 0.5)
    other.load_state_dict(ema.state_dict())
    target = torch.nn.Linear(1, 1, bias=False).double()
    other.copy_to(target)
    assert abs(target.weight.item() - expected) < 1e-12
    assert model.weight.item() == 5.0
    assert other.decay == 0.9
