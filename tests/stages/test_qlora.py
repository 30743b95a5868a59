"""Stages over a base in 4 bits: a reward model, then PPO with all its models over one, ended and resumed alike."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from heedful.models.checkpoint import load_policy, save_policy, weights_hash
from heedful.models.heads import Policy
from heedful.run import Run
from heedful.snapshot import Snapshot, write_snapshot
from heedful.stages import best_of_n, distil, dpo, grpo, ppo, reinforce, reward_model, rloo, sft
from heedful.stages.ppo import PPOConfig
from heedful.stages.reward_model import RewardModelConfig
from heedful.text.format import PromptFormat
from heedful.types import Labeler, Ranking, Response
from rollouts import PROMPTS
from toys import TOKENIZER, assert_resumes, killed_at, make_policy, open_run, read_log

IN_4_BITS = {"lora_rank": 2, "base_precision": "nf4", "precision": "fp32"}
REWARD = RewardModelConfig(epochs=2, batch_size=2, lr=1e-2, **IN_4_BITS)
CONFIG = PPOConfig(
    **IN_4_BITS,
    **{"one_base": True, "iterations": 2, "batch_size": 10, "minibatch_size": 5, "warmup_iterations": 1},
    **{"lr": 1e-2, "value_lr": 1e-2, "ema_decay": 0.0, "ptx_coef": 0.0, "max_new_tokens": 5},
)
FORMAT = PromptFormat(template="{prompt} \n")


def write_data(folder: Path) -> Path:
    said = ("w1 w1", "w2", "w3 w4")
    write_snapshot(
        folder,
        Snapshot(
            prompts=tuple(PROMPTS),
            responses=tuple(
                Response(id=f"{p.id}-{k}", prompt_id=p.id, text=text) for p in PROMPTS for k, text in enumerate(said)
            ),
            labelers=(Labeler(id="in"),),
            rankings=tuple(
                Ranking(
                    id=f"r{p.id}",
                    prompt_id=p.id,
                    labeler="in",
                    responses=tuple(f"{p.id}-{k}" for k in range(3)),
                    rank=(1, 2, 3),
                )
                for p in PROMPTS
            ),
        ),
    )
    return folder


def num_packed(run: Run, part: str) -> int:
    """How many of the weights in the newest state are in 4 bits."""
    state = torch.load(max(run.folder.glob("state-*.pt")), weights_only=True)["parts"][part]
    return sum(name.endswith("base_layer.weight") and x.dtype == torch.uint8 for name, x in state.items())


def test_a_reward_model_then_ppo_over_one_base_in_4_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    start, data = tmp_path / "start", write_data(tmp_path / "data")
    save_policy(start, make_policy(), TOKENIZER, {})
    run = Run.open(tmp_path / "rm", "reward_model", REWARD.model_dump(), 0, {"model": weights_hash(start)})
    reward_model.main(REWARD, run, start, data, None, FORMAT)
    seen = Run.open(tmp_path / "seen", "reward_model", REWARD.model_dump(), 0, checkpoint_seconds=0.0)
    with killed_at(seen, 2):
        reward_model.main(REWARD, seen, start, data, None, FORMAT)
    assert num_packed(seen, "model") == 7
    assert json.loads((tmp_path / "rm" / "model" / "heedful.json").read_text())["adapters"]["rank"] == 2
    log = read_log(tmp_path / "rm")
    assert log[-1]["loss"] < log[0]["loss"]

    def optimise(run: Run) -> Policy:
        ppo.main(CONFIG, run, start, tmp_path / "rm" / "model", data, FORMAT, None)
        return load_policy(run.folder / "model")[0]

    assert_resumes(optimise, tmp_path, kills=(1,))
    seen = open_run(tmp_path / "seen_ppo", 0.0)
    with killed_at(seen, 1):
        optimise(seen)
    assert num_packed(seen, "policy") == num_packed(seen, "value") == 7
    assert read_log(tmp_path / "whole")[0]["kl_k1"] == pytest.approx(0, abs=1e-6)  # from its base in 4 bits
    before, after = (load_policy(folder)[0].state_dict() for folder in (start, tmp_path / "whole" / "model"))
    changed = {name for name, x in before.items() if not torch.equal(x, after[name])}
    assert changed == {name for name in before if name.endswith("_proj.weight")}


def test_weights_in_4_bits_need_adapters_and_a_folder() -> None:
    stages = {
        best_of_n.BestOfNConfig,
        distil.DistilConfig,
        dpo.DPOConfig,
        grpo.GRPOConfig,
        ppo.PPOConfig,
        reinforce.ReinforceConfig,
        reward_model.RewardModelConfig,
        rloo.RLOOConfig,
        sft.SFTConfig,
    }
    for config in stages:
        with pytest.raises(ValidationError, match="weights in 4 bits do not train, and lora_rank is 0"):
            config(base_precision="nf4")
    with pytest.raises(ValidationError, match="init is random: none; set full"):
        RewardModelConfig(init="random", lora_rank=2, base_precision="nf4")
