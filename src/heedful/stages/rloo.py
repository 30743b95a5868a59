"""RLOO: REINFORCE whose baseline is the other responses to the prompt (Ahmadian et al. 2024, arXiv 2402.14740).

    maximise  E_{x, y ~ π}[ r(x, y) − kl_coef · log(π(y|x) / π_ref(y|x)) ]

A response is one action: its reward is the score less the penalty of all its tokens, its advantage that reward less the
mean reward of the K − 1 others. No value model, no clip, one update for each rollout.

Symbols: N episodes in B groups of K to one prompt, R response tokens; score, reward, advantage (N,); logprob,
ref_logprob, mask (N, R). A micro-batch is what one forward pass takes.
Command: heedful run RECIPE, for a recipe with a block `rloo`
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from pydantic import Field, model_validator

from heedful.batch import Rows, pad_to
from heedful.config import Config, InputError
from heedful.engine.follow import Score, Scorer, by_reward_model_in, by_token, scored
from heedful.engine.sample import Generate, Sampled, Sampler, prompt_order, responses_by
from heedful.losses.kl import kl_k1, kl_k3
from heedful.losses.masked import masked_mean, masked_sum
from heedful.losses.reinforce import leave_one_out, reinforce_loss
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.heads import Policy
from heedful.models.lora import BasePolicy, LoraAlpha, LoraRank, Reference, prepare
from heedful.models.optimizer import Precision, adam, autocast, linear_warmup, set_lr
from heedful.models.quantized import BasePrecision
from heedful.models.threads import accumulate, in_order
from heedful.run import Run
from heedful.snapshot import read_snapshot
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.text.parts import minibatches
from heedful.types import Prompt


class RLOOConfig(Config):
    iterations: int = Field(default=500, ge=1)  # rollouts, and updates
    batch_size: int = Field(default=512, ge=1)  # episodes per iteration, and per update; the paper: 512
    responses_per_prompt: int = Field(default=4, ge=2)  # the paper: 2 and 4
    lr: float = Field(default=1e-6, gt=0)  # the paper: 1e-6
    warmup_iterations: int = Field(default=10, ge=0)  # linear from warmup_start, then constant; 0: none
    warmup_start: float = Field(default=0.1, ge=0, le=1)  # share of the peak at which the warm-up begins
    kl_coef: float = Field(default=0.03, ge=0)  # the paper: 0.03 for TL;DR, 0.1 for HH
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, ge=1)
    no_eos_penalty: float = Field(default=0.0, ge=0)  # taken off the score of a response the length limit cut
    reward: str = "reward_model"  # or one of further_reward_models, principle_rewards or ai_labelers (direct RLAIF)
    normalize_score: bool = False  # scale the reward model to mean 0, sd 1 on the starting policy
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora_rank: LoraRank = 0  # low-rank adapters on every linear module; 0: all weights train
    lora_alpha: LoraAlpha = None  # null: 2 · lora_rank
    base_precision: BasePrecision = "full"  # of the weights under adapters: full, fp32; nf4, 4 bits (QLoRA)
    activation_checkpointing: bool = False  # recompute layers in the backward pass: less memory, a third more time
    max_tokens: int = Field(default=16384, ge=1)  # per forward pass; more memory, same result
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size % self.responses_per_prompt:
            raise ValueError("responses_per_prompt must divide batch_size")
        return self


class Rollout(NamedTuple):
    """Episodes in the order of their micro-batches, which are rows `spans[m]`."""

    spans: list[slice]
    micro: list[Rows]
    order: torch.Tensor  # (N,) each row's place among the sampled episodes
    logprob: torch.Tensor  # (N, R) as sampled
    ref_logprob: torch.Tensor  # (N, R)
    mask: torch.Tensor  # (N, R)
    score: torch.Tensor  # (N,)
    reward: torch.Tensor  # (N,)
    advantage: torch.Tensor  # (N,)


@torch.no_grad()
def collect(
    policy: Policy, ref_policy: Reference, sampled: Sampled, score: torch.Tensor, config: RLOOConfig, seed: int
) -> Rollout:
    """Reference log-probabilities, rewards and advantages of the sampled episodes, K in a row to each prompt."""
    order, (parts,) = minibatches(sampled.rows, len(sampled.text), config.max_tokens, seed)
    micro = [sampled.rows.select(order[start:end]) for start, end in parts]
    width = sampled.logprob.shape[1]

    def read(rows: Rows) -> torch.Tensor:
        with autocast(score.device, config.precision):
            return pad_to(ref_policy.logprob(rows, config.temperature), width)

    ref_logprob = torch.cat(in_order(policy, read, micro))
    logprob, mask = sampled.logprob[order], sampled.rows.mask[order]
    score = score[order] - config.no_eos_penalty * (~sampled.finished[order])
    reward = score - config.kl_coef * masked_sum(kl_k1(logprob, ref_logprob), mask)
    as_sampled = torch.empty_like(reward).index_copy_(0, order.to(reward.device), reward)
    advantage = leave_one_out(as_sampled.view(-1, config.responses_per_prompt)).flatten()[order]
    spans = [slice(*span) for span in parts]
    return Rollout(spans, micro, order, logprob, ref_logprob, mask, score, reward, advantage)


def update(policy: Policy, rollout: Rollout, config: RLOOConfig) -> dict[str, float]:
    """Accumulate the gradient of the mean loss over responses; returns its statistics."""
    num_episodes, num_tokens = len(rollout.score), rollout.mask.sum()

    def mean_loss(part: tuple[Rows, slice]) -> tuple[torch.Tensor, torch.Tensor]:
        rows, span = part
        with autocast(num_tokens.device, config.precision):
            logprob, entropy = policy.logprob_and_entropy(rows, config.temperature)
        mask, width = rows.mask, rows.mask.shape[1]
        loss = reinforce_loss(masked_sum(logprob, mask), rollout.advantage[span]).sum() / num_episodes
        off = ((logprob.detach() - rollout.logprob[span, :width]).abs() * mask).max()
        return loss, torch.stack([loss.detach(), masked_mean(entropy.detach(), mask, num_tokens), off])

    found = torch.stack(accumulate(policy, mean_loss, list(zip(rollout.micro, rollout.spans, strict=True))))
    loss, entropy = found[:, :2].sum(0).tolist()
    return {"policy_loss": loss, "entropy": entropy, "engine_mismatch": float(found[:, 2].max())}


def rollout_stats(rollout: Rollout, sampled: Sampled) -> dict[str, float]:
    """What is logged of a rollout before its update; KL in nats per response."""
    num = len(rollout.score)
    return {
        "score": float(rollout.score.mean()),
        "score_sd": float(rollout.score.std(unbiased=False)),
        "advantage_sd": float(rollout.advantage.std(unbiased=False)),
        "kl_k1": float((kl_k1(rollout.logprob, rollout.ref_logprob) * rollout.mask).sum() / num),
        "kl_k3": float((kl_k3(rollout.logprob, rollout.ref_logprob) * rollout.mask).sum() / num),
        "length": float(rollout.mask.sum() / num),
        "unfinished": float((~sampled.finished).float().mean()),
        "close_draws": sampled.close_draws,
    }


def first_episode(rollout: Rollout, sampled: Sampled) -> dict[str, Any]:
    """The first sampled episode, its log-probabilities token by token (the end token included)."""
    row = int((rollout.order == 0).nonzero())
    columns = {"logprob": rollout.logprob, "ref_logprob": rollout.ref_logprob}
    found: dict[str, Any] = {"text": sampled.text[0], "tokens": sampled.tokens[0]}
    found |= {name: float(getattr(rollout, name)[row]) for name in ("score", "reward", "advantage")}
    return found | by_token(columns, row, int(rollout.mask[row].sum()))


def train(
    config: RLOOConfig,
    policy: Policy,
    ref_policy: Reference,
    prompts: Sequence[Prompt],
    generate: Generate,
    score: Score,
    run: Run,
) -> None:
    """Improve the policy in place."""
    optimizer = adam(policy.parameters(), config.lr)
    done, _ = run.restore(policy=policy, optimizer=optimizer)
    for iteration in run.track(range(done, config.iterations), config.iterations, run.folder.name):
        began, seed = time.monotonic(), run.seed * 100_003 + iteration
        lr = config.lr * linear_warmup(iteration, config.warmup_iterations, config.warmup_start)
        set_lr(optimizer, lr)
        # 1. sample K responses to each prompt with the current policy
        first = iteration * config.batch_size
        index = prompt_order(len(prompts), first, config.batch_size, run.seed, config.responses_per_prompt)
        sampled = generate(index, first)
        # 2. score them; reward less penalty, each against the mean of the others
        scores = scored(score, [prompts[i] for i in index], sampled, policy.device)
        rollout = collect(policy, ref_policy, sampled, scores, config, seed)
        stats = rollout_stats(rollout, sampled) | {"lr": lr, "kl_coef": config.kl_coef}
        # 3. one update
        stats |= update(policy, rollout, config)
        stats["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm))
        run.check_finite(iteration, **stats)
        optimizer.step()
        optimizer.zero_grad()
        # 4. log (an episode of every hundredth part and of the end), save
        seconds, tokens = time.monotonic() - began, int(sampled.rows.length.sum())
        if iteration % -(-config.iterations // 100) == 0 or iteration == config.iterations - 1:
            run.sample(iteration=iteration, prompt_id=prompts[index[0]].id, **first_episode(rollout, sampled))
        run.log(iteration, **stats, seconds=seconds, tokens_per_second=tokens / seconds)
        run.save_if_due(iteration + 1, policy=policy, optimizer=optimizer)


def main(
    config: RLOOConfig,
    run: Run,
    policy_folder: Path,
    prompts: Path,
    format: PromptFormat,
    reward_model_folder: Path | None = None,
    score: Score | None = None,
    scorer: Scorer | None = None,
) -> None:
    """Read the models and the snapshot, train, write `model/`.

    What is maximised is the reward model's score, or `score`: (N prompts, `Sampled`) → tensor (N,) of finite numbers.
    `scorer` makes it of the reward model.

    Raises:
        InputError: no training prompt fits, neither a reward model nor a `score`, or normalize_score with a `score`.
    """
    if score is None and reward_model_folder is None:
        raise InputError("rloo: nothing to maximise; give a reward model or a score")
    if config.normalize_score and score is not None:
        raise InputError("rloo.normalize_score scales the reward model, not a score of your own; turn it off")
    policy, tokenizer = load_policy(policy_folder, config.base_precision)
    encoder = Encoder(tokenizer, format)
    kept, tokens = encoder.prompts(read_snapshot(prompts).prompts_of("train"))
    if not kept:
        raise InputError(f"{prompts}: no training prompt within format.max_prompt_tokens ({format.max_prompt_tokens})")
    sampler = Sampler(policy.decoder, tokenizer, config.max_new_tokens, config.temperature, precision=config.precision)
    generate = responses_by(sampler, tokens, config.responses_per_prompt, run.seed)
    if score is None:
        assert reward_model_folder is not None
        score = by_reward_model_in(reward_model_folder, config, generate, kept, run.seed, scorer)
    prepare(policy.decoder, config, run.seed)
    ref_policy: Reference = BasePolicy(policy) if config.lora_rank else load_policy(policy_folder)[0]
    train(config, policy, ref_policy, kept, generate, score, run)
    save_policy(run.folder / "model", policy, tokenizer, run.manifest["parents"])
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    run.finish(num_prompts=len(kept), episodes=config.iterations * config.batch_size)
