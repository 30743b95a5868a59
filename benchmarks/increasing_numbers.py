"""RL4LMs' toy task, "increasing numbers", PPO against NLPO through the real stages, with a plain function as reward.

    python benchmarks/increasing_numbers.py --out increasing_numbers.json
    python docs/fill_nlpo.py increasing_numbers.json

A small model learns text in which numbers wander up and down between words, and is then optimised to count upwards
(Ramamurthy et al. 2022, arXiv 2210.01241). Both start from one model, one value model and the same seeds.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from heedful.engine.sample import Sampled, Sampler
from heedful.evaluate.policy import response_kl
from heedful.models.checkpoint import load_policy, save_reward_model
from heedful.models.heads import RewardModel
from heedful.run import Run, read_jsonl
from heedful.snapshot import Snapshot, write_snapshot
from heedful.stages import nlpo, ppo, pretrain
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.text.tokenizer import word_tokenizer
from heedful.types import Document, Prompt

NUMBERS, WORDS, LENGTH = 100, 200, 20  # numbers 0 … 99; tokens of a response
WORD_SHARE, STEP = 0.2, 5  # of the text's tokens; the furthest that a number lies from the one before it
FORMAT = PromptFormat(template="{prompt} ", pack_documents=False)
SHAPE = {"model_type": "llama", "hidden_size": 48, "intermediate_size": 128, "num_hidden_layers": 2}
SHAPE |= {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.14}
SHAPE |= {"tie_word_embeddings": True}
# RL4LMs: KL coefficient 0.02, 5 epochs over each rollout; its learning rate, 1e-5, is for GPT-2.
SETTINGS: dict[str, Any] = {"batch_size": 64, "minibatch_size": 64, "inner_epochs": 5, "warmup_iterations": 1}
SETTINGS |= {"lr": 2e-3, "value_lr": 2e-3, "kl_coef": 0.02, "max_new_tokens": LENGTH}
NLPO = {"top_p": 0.9, "min_tokens": 5, "target_update": 20}
SAMPLES = 500  # of the trained policy, without masks


def increasing(text: str) -> float:
    """How many of the text's numbers rise one after another from the first on, over its words, half of `LENGTH` at
    least; 0 … 1. Words between them do not break the row.

    >>> increasing("3 cat 5 9 4 11"), increasing("cat"), increasing("1 2 3 4 5")
    (0.3, 0.0, 0.5)
    """
    words = text.split()
    found = [int(word) for word in words if word.isdigit()]
    row = next((n for n in range(1, len(found)) if found[n] <= found[n - 1]), len(found))
    return row / max(len(words), LENGTH // 2)


def reward(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
    return torch.tensor([increasing(text) for text in sampled.text])


def wandering(draw: random.Random) -> str:
    """A text: numbers each near the one before, words between them."""
    at, tokens = draw.randrange(NUMBERS), []
    for _ in range(LENGTH + 1):
        if draw.random() < WORD_SHARE and tokens:
            tokens.append(f"w{draw.randrange(WORDS)}")
        else:
            tokens.append(str(at))
            at = min(NUMBERS - 1, max(0, at + draw.randint(-STEP, STEP)))
    return " ".join(tokens)


def start(folder: Path, seed: int, documents: int) -> None:
    """The model both begin from, `start/model`; the value model's first weights, `value`; and the prompts."""
    draw = random.Random(seed)
    split = {0: "valid"}
    texts = [Document(text=wandering(draw), split=split.get(n % 50, "train")) for n in range(documents)]
    write_snapshot(folder / "documents", Snapshot(documents=tuple(texts)))
    prompts = [Prompt(id=str(n), text=str(n), user=str(n), split="train") for n in range(NUMBERS // 2)]
    write_snapshot(folder / "prompts", Snapshot(prompts=tuple(prompts)))
    tokenizer = word_tokenizer([*map(str, range(NUMBERS)), *(f"w{n}" for n in range(WORDS))])
    config = pretrain.PretrainConfig(shape=SHAPE, window=LENGTH + 3, batch_tokens=1024)
    run = Run.open(folder / "start", "pretrain", config.model_dump(mode="json"), seed)
    pretrain.main(config, run, tokenizer=tokenizer, documents=folder / "documents", format=FORMAT)
    policy, _ = load_policy(folder / "start" / "model")
    save_reward_model(folder / "value", RewardModel.from_decoder(policy.decoder, seed), tokenizer, {})


def optimise(folder: Path, name: str, seed: int, iterations: int) -> dict[str, Any]:
    """One method's curve, what its policy is worth without masks, and the seconds it took."""
    began = time.monotonic()
    place = {"policy_folder": folder / "start" / "model", "prompts": folder / "prompts", "format": FORMAT}
    if name == "ppo":
        config: Any = ppo.PPOConfig(iterations=iterations, ptx_coef=0, ema_decay=0, **SETTINGS)
        run = Run.open(folder / name, name, config.model_dump(mode="json"), seed)
        ppo.main(config, run, reward_model_folder=folder / "value", documents=None, score=reward, **place)
    else:
        config = nlpo.NLPOConfig(iterations=iterations, **SETTINGS, **NLPO)
        run = Run.open(folder / name, name, config.model_dump(mode="json"), seed)
        nlpo.main(config, run, score=reward, **place)
    logged = read_jsonl(folder / name / "metrics.jsonl")
    found = {"seconds": time.monotonic() - began, "curve": [row["score"] for row in logged]}
    found["allowed"] = mean(row.get("allowed", NUMBERS + WORDS + 4) for row in logged)
    return found | worth(folder, name)


@torch.no_grad()
def worth(folder: Path, name: str) -> dict[str, float]:
    """Mean reward and KL, nats per response, of the policy's own samples; `name` start: of the one it began from."""
    policy, tokenizer = load_policy(folder / name / "model")
    ref_policy, _ = load_policy(folder / "start" / "model")
    prompts = [Prompt(id=str(n), text=str(n % (NUMBERS // 2)), user="x") for n in range(SAMPLES)]
    kept, tokens = Encoder(tokenizer, FORMAT).prompts(prompts)
    sampled = Sampler(policy.decoder, tokenizer, LENGTH, 1.0)(tokens, range(SAMPLES), [1] * SAMPLES)
    kl = response_kl(policy, ref_policy, sampled.rows, 1.0, 8192, "fp32")
    return {"reward": float(reward(kept, sampled).mean()), "kl": float(kl.mean())}


def measure(seeds: Sequence[int], iterations: int, documents: int) -> dict[str, Any]:
    """{settings, start, ppo, nlpo}: of each a row for each seed."""
    found: dict[str, Any] = {"iterations": iterations, "seeds": list(seeds), **NLPO, "start": [], "ppo": [], "nlpo": []}
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="heedful-numbers-") as name:
            folder = Path(name)
            start(folder, seed, documents)
            found["start"].append(worth(folder, "start"))
            tell(seed, "start", found["start"][-1])
            for method in ("ppo", "nlpo"):
                found[method].append(optimise(folder, method, seed, iterations))
                tell(seed, method, found[method][-1])
    return found


def tell(seed: int, name: str, row: dict[str, Any]) -> None:
    print(f"seed {seed}, {name}: reward {row['reward']:.3f}, KL {row['kl']:.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--documents", type=int, default=6000)
    asked = parser.parse_args()
    measured = measure(asked.seeds, asked.iterations, asked.documents)
    asked.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
