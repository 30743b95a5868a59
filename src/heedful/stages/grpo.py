"""GRPO: PPO whose baseline is the group of responses to the prompt (Shao et al. 2024, arXiv 2402.03300, section 4.1).

    maximise  E[ 1/K Σᵢ 1/|yᵢ| Σₜ min(ρ·Âᵢ, clip(ρ, 1 − ε, 1 + ε)·Âᵢ) − kl_coef · k₃(π, π_ref) ],  ρ = π(yᵢₜ)/π_old(yᵢₜ)

A response's advantage, the same on all its tokens, is its score less the group's mean over the group's standard
deviation. The penalty is in the loss, not in the reward, by the estimator that is never negative. No value model. Each
response weighs the same, so a long one's tokens weigh less.

Symbols: N episodes in B groups of K to one prompt, R response tokens; score, advantage (N,); logprob, old_logprob,
ref_logprob, mask (N, R). A micro-batch is the part of a minibatch that one forward pass takes.
Command: heedful run RECIPE, for a recipe with a block `grpo`
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from pydantic import Field, model_validator

from heedful.batch import Rows, pad_to
from heedful.config import Config, InputError
from heedful.engine.follow import Score, Scorer, by_reward_model, by_token, scored
from heedful.engine.sample import Generate, Sampled, Sampler, prompt_order, responses_by
from heedful.losses.kl import kl_k1, kl_k3
from heedful.losses.masked import masked_mean, masked_sum
from heedful.losses.ppo import policy_loss
from heedful.losses.reinforce import group_normalized
from heedful.models.checkpoint import load_policy, load_reward_model, save_policy
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

LOGGED = ("policy_loss", "kl_loss", "entropy", "clip_fraction", "ratio")  # sums over a minibatch's micro-batches


class GRPOConfig(Config):
    iterations: int = Field(default=500, ge=1)  # rollouts
    batch_size: int = Field(default=1024, ge=1)  # episodes per iteration; the paper: 1,024
    responses_per_prompt: int = Field(default=64, ge=2)  # the paper: 64
    minibatch_size: int = Field(default=1024, ge=1)  # episodes per update; the paper: one update for each rollout
    inner_epochs: int = Field(default=1, ge=1)  # the paper: 1
    lr: float = Field(default=1e-6, gt=0)  # the paper: 1e-6
    warmup_iterations: int = Field(default=10, ge=0)  # linear from warmup_start, then constant; 0: none
    warmup_start: float = Field(default=0.1, ge=0, le=1)  # share of the peak at which the warm-up begins
    kl_coef: float = Field(default=0.04, ge=0)  # the paper: 0.04
    clip_range: float = Field(default=0.2, gt=0)  # ratios beyond 1 ± this get no gradient; as in PPO
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, ge=1)  # the paper: 1,024
    reward: str = "reward_model"  # or one of further_reward_models, principle_rewards or ai_labelers (direct RLAIF)
    no_eos_penalty: float = Field(default=0.0, ge=0)  # taken off the score of a response the length limit cut
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
    """Episodes in the trainer's layout; `parts[m]` lists the micro-batches of minibatch m as (start, end) rows."""

    parts: list[list[tuple[int, int]]]
    micro: list[Rows]  # one per micro-batch, in order
    order: torch.Tensor  # (N,) each row's place among the sampled episodes
    old_logprob: torch.Tensor  # (N, R) as sampled
    ref_logprob: torch.Tensor  # (N, R)
    mask: torch.Tensor  # (N, R)
    score: torch.Tensor  # (N,)
    advantage: torch.Tensor  # (N,)


@torch.no_grad()
def collect(
    policy: Policy, ref_policy: Reference, sampled: Sampled, score: torch.Tensor, config: GRPOConfig, seed: int
) -> Rollout:
    """Reference log-probabilities and advantages of the sampled episodes, K in a row to each prompt."""
    order, parts = minibatches(sampled.rows, config.minibatch_size, config.max_tokens, seed)
    micro = [sampled.rows.select(order[start:end]) for part in parts for start, end in part]
    width = sampled.logprob.shape[1]

    def read(rows: Rows) -> torch.Tensor:
        with autocast(score.device, config.precision):
            return pad_to(ref_policy.logprob(rows, config.temperature), width)

    ref_logprob = torch.cat(in_order(policy, read, micro))
    score = score - config.no_eos_penalty * (~sampled.finished)
    advantage = group_normalized(score.view(-1, config.responses_per_prompt)).flatten()
    mask = sampled.rows.mask[order]
    return Rollout(parts, micro, order, sampled.logprob[order], ref_logprob, mask, score[order], advantage[order])


def update(policy: Policy, rollout: Rollout, minibatch: int, config: GRPOConfig) -> dict[str, float]:
    """Accumulate the gradient of the loss over one minibatch; returns its statistics."""
    first = sum(len(part) for part in rollout.parts[:minibatch])
    spans = [slice(*span) for span in rollout.parts[minibatch]]
    own = slice(spans[0].start, spans[-1].stop)
    num_episodes, num_tokens = own.stop - own.start, rollout.mask[own].sum()

    def mean_loss(part: tuple[Rows, slice]) -> tuple[torch.Tensor, torch.Tensor]:
        rows, span = part
        mask, at = rows.mask, (span, slice(rows.mask.shape[1]))
        with autocast(num_tokens.device, config.precision):
            logprob, entropy = policy.logprob_and_entropy(rows, config.temperature)
        old_logprob, ref_logprob = rollout.old_logprob[at], rollout.ref_logprob[at]
        gain = policy_loss(logprob, old_logprob, rollout.advantage[span, None].expand_as(logprob), config.clip_range)
        penalty = config.kl_coef * kl_k3(logprob, ref_logprob)
        means = [(masked_sum(x, mask) / mask.sum(1)).sum() / num_episodes for x in (gain, penalty)]
        ratio = torch.exp(logprob.detach() - old_logprob)
        clipped = ((ratio - 1).abs() > config.clip_range).float()
        logged = [masked_mean(x, mask, num_tokens) for x in (entropy.detach(), clipped, ratio)]
        off = ((ratio - 1).abs() * mask).max()
        return means[0] + means[1], torch.stack([*(x.detach() for x in means), *logged, off])

    micro = list(zip(rollout.micro[first : first + len(spans)], spans, strict=True))
    found = torch.stack(accumulate(policy, mean_loss, micro))
    sums = dict(zip(LOGGED, found[:, :-1].sum(0).tolist(), strict=True))
    return sums | {"ratio_off_one": float(found[:, -1].max())}


def rollout_stats(rollout: Rollout, sampled: Sampled) -> dict[str, float]:
    """What is logged of a rollout before its update; KL in nats per response."""
    num = len(rollout.score)
    return {
        "score": float(rollout.score.mean()),
        "score_sd": float(rollout.score.std(unbiased=False)),
        "without_spread": float((rollout.advantage == 0).float().mean()),
        "kl_k1": float((kl_k1(rollout.old_logprob, rollout.ref_logprob) * rollout.mask).sum() / num),
        "kl_k3": float((kl_k3(rollout.old_logprob, rollout.ref_logprob) * rollout.mask).sum() / num),
        "length": float(rollout.mask.sum() / num),
        "unfinished": float((~sampled.finished).float().mean()),
        "close_draws": sampled.close_draws,
    }


def first_episode(rollout: Rollout, sampled: Sampled) -> dict[str, Any]:
    """The first sampled episode, its log-probabilities token by token (the end token included)."""
    row = int((rollout.order == 0).nonzero())
    columns = {"logprob": rollout.old_logprob, "ref_logprob": rollout.ref_logprob}
    found: dict[str, Any] = {"text": sampled.text[0], "tokens": sampled.tokens[0]}
    found |= {name: float(getattr(rollout, name)[row]) for name in ("score", "advantage")}
    return found | by_token(columns, row, int(rollout.mask[row].sum()))


def train(
    config: GRPOConfig,
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
        # 2. score them; each against its group
        scores = scored(score, [prompts[i] for i in index], sampled, policy.device)
        rollout = collect(policy, ref_policy, sampled, scores, config, seed)
        stats = rollout_stats(rollout, sampled) | {"lr": lr, "kl_coef": config.kl_coef}
        # 3. minibatches of the clipped surrogate with the penalty
        updates: list[dict[str, float]] = []
        for _ in range(config.inner_epochs):
            for minibatch in range(len(rollout.parts)):
                found = update(policy, rollout, minibatch, config)
                norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
                updates.append(found | {"gradient_norm": float(norm)})
                run.check_finite(iteration, **updates[-1])
                optimizer.step()
                optimizer.zero_grad()
        mean = {key: sum(each[key] for each in updates) / len(updates) for key in updates[0]}
        # 4. log (an episode of every hundredth part and of the end), save
        seconds, tokens = time.monotonic() - began, int(sampled.rows.length.sum())
        if iteration % -(-config.iterations // 100) == 0 or iteration == config.iterations - 1:
            run.sample(iteration=iteration, prompt_id=prompts[index[0]].id, **first_episode(rollout, sampled))
        run.log(iteration, **stats, **mean, seconds=seconds, tokens_per_second=tokens / seconds)
        run.save_if_due(iteration + 1, policy=policy, optimizer=optimizer)


def main(
    config: GRPOConfig,
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
        InputError: no training prompt fits, or neither a reward model nor a `score`.
    """
    if score is None and reward_model_folder is None:
        raise InputError("grpo: nothing to maximise; give a reward model or a score")
    policy, tokenizer = load_policy(policy_folder, config.base_precision)
    encoder = Encoder(tokenizer, format)
    kept, tokens = encoder.prompts(read_snapshot(prompts).prompts_of("train"))
    if not kept:
        raise InputError(f"{prompts}: no training prompt within format.max_prompt_tokens ({format.max_prompt_tokens})")
    sampler = Sampler(policy.decoder, tokenizer, config.max_new_tokens, config.temperature, precision=config.precision)
    generate = responses_by(sampler, tokens, config.responses_per_prompt, run.seed)
    if score is None:
        assert reward_model_folder is not None
        reward_model, _ = load_reward_model(reward_model_folder, scorer.guideline if scorer else None)
        score = (scorer or by_reward_model)(reward_model, config.max_tokens, config.precision)
    prepare(policy.decoder, config, run.seed)
    ref_policy: Reference = BasePolicy(policy) if config.lora_rank else load_policy(policy_folder)[0]
    train(config, policy, ref_policy, kept, generate, score, run)
    save_policy(run.folder / "model", policy, tokenizer, run.manifest["parents"])
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    run.finish(num_prompts=len(kept), episodes=config.iterations * config.batch_size)
