"""NLPO: PPO among the tokens that an older policy finds likely (Ramamurthy et al. 2022, arXiv 2210.01241, algorithm 1).

    maximise  E_{x, y ~ π̃}[ r(x, y) − kl_coef · log(π(y|x) / π_ref(y|x)) ],   π̃(v) ∝ π(v) · [v in the nucleus of π_ψ]

The mask policy π_ψ is a copy of the policy, renewed every `target_update` iterations. The masked policy π̃ samples, and
the clipped surrogate is of its ratio: with the masks of the rollout, so every sampled token is allowed and every ratio
begins at 1. The penalty is that of the policy itself, without masks. With top_p 1 this is PPO without pretraining data.

As in PPO, log-probabilities and masks are computed in the trainer's own batch layout. What is saved is the policy π.

Symbols: N episodes, R response tokens; score (N,); logprob, old_logprob of π̃, unmasked of π, ref_logprob, value,
reward, advantage, returns, mask (N, R). A micro-batch is the part of a minibatch that one forward pass takes.
Command: heedful run RECIPE, for a recipe with a block `nlpo`
"""

import copy
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
from heedful.losses.kl import kl_k1, kl_k3, next_kl_coef
from heedful.losses.masked import explained_variance, masked_mean, masked_whiten
from heedful.losses.ppo import gae, kl_penalized_reward, policy_loss, value_loss
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.heads import Policy, ValueModel
from heedful.models.lora import BasePolicy, LoraAlpha, LoraRank, Reference, attach_lora
from heedful.models.masked import Masks, Nucleus, Twin, masked_logprob, masks_of
from heedful.models.optimizer import Precision, adam, autocast, linear_warmup, set_lr
from heedful.models.recompute import checkpoint_activations
from heedful.models.threads import accumulate, in_order
from heedful.run import Inexact, Run
from heedful.snapshot import read_snapshot
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.text.parts import minibatches
from heedful.types import Prompt

LOGGED = ("policy_loss", "entropy", "clip_fraction", "ratio")  # sums over a minibatch's micro-batches


class NLPOConfig(Config):
    iterations: int = Field(default=500, ge=1)  # rollouts
    batch_size: int = Field(default=128, ge=1)  # episodes per iteration
    responses_per_prompt: int = Field(default=1, ge=1)  # with more, their prompt is computed once
    minibatch_size: int = Field(default=64, ge=1)  # episodes per update
    inner_epochs: int = Field(default=5, ge=1)  # passes over each rollout; RL4LMs: 5
    top_p: float = Field(default=0.9, gt=0, le=1)  # the nucleus that is allowed; RL4LMs: 0.9, 0.5 for IWSLT; 1: PPO
    min_tokens: int = Field(default=100, ge=1)  # allowed however unlikely, the likeliest first; RL4LMs: 100
    target_update: int = Field(default=20, ge=1)  # iterations between two renewals of the mask policy; RL4LMs: 5 to 100
    lr: float = Field(default=1e-6, gt=0)  # RL4LMs: 1e-6, 2e-6
    value_lr: float = Field(default=1e-6, gt=0)  # RL4LMs: that of the policy
    warmup_iterations: int = Field(default=10, ge=0)  # linear from warmup_start, then constant; 0: none
    warmup_start: float = Field(default=0.1, ge=0, le=1)  # share of the peak at which the warm-up begins
    kl_coef: float = Field(default=0.1, ge=0)  # per token; RL4LMs: 0.001 to 0.2, 0.1 for IMDB
    kl_target: float | None = Field(default=None, gt=0)  # nats per response; set: the coefficient adapts towards it
    kl_horizon: int = Field(default=10_000, ge=1)  # episodes; ten times batch_size adapts as RL4LMs does
    discount: float = Field(default=1.0, gt=0, le=1)  # of later rewards; RL4LMs: 0.99, and 0.95 read more naturally
    gae_lambda: float = Field(default=0.95, ge=0, le=1)  # RL4LMs: 0.95
    clip_range: float = Field(default=0.2, gt=0)  # ratios beyond 1 ± this get no gradient; RL4LMs: 0.2
    value_clip_range: float | None = Field(default=0.2, gt=0)  # null: values are not clipped, as in RL4LMs
    whiten_reward: bool = False  # variance only, the mean stays
    whiten_advantage: bool = True  # advantages scaled to mean 0, sd 1 over the rollout
    temperature: float = Field(default=1.0, gt=0)  # of sampling, of every log-probability and of the nucleus
    max_new_tokens: int = Field(default=256, ge=1)
    no_eos_penalty: float = Field(default=0.0, ge=0)  # taken off the score of a response the length limit cut
    reward: str = "reward_model"  # or one of further_reward_models, principle_rewards or ai_labelers (direct RLAIF)
    normalize_score: bool = False  # scale the reward model to mean 0, sd 1 on the starting policy
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora_rank: LoraRank = 0  # low-rank adapters on every linear module; 0: all weights train
    lora_alpha: LoraAlpha = None  # null: 2 · lora_rank
    activation_checkpointing: bool = False  # recompute layers in the backward pass: less memory, a third more time
    max_tokens: int = Field(default=16384, ge=1)  # per forward pass; more memory, same result
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kl_target is not None and self.batch_size >= 5 * self.kl_horizon:
            raise ValueError("kl_horizon must exceed a fifth of batch_size, or a low KL turns kl_coef to 0 or below")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target scales kl_coef, which is 0 and would stay so; start from a positive one")
        if self.batch_size % self.responses_per_prompt:
            raise ValueError("responses_per_prompt must divide batch_size")
        if self.normalize_score and self.batch_size == 1:
            raise ValueError("normalize_score divides by the spread of batch_size scores; give at least 2")
        return self


class Rollout(NamedTuple):
    """Episodes in the trainer's layout; `parts[m]` lists the micro-batches of minibatch m as (start, end) rows."""

    parts: list[list[tuple[int, int]]]
    micro: list[Rows]  # one per micro-batch, in order
    masks: list[Masks]  # of each micro-batch
    order: torch.Tensor  # (N,) each row's place among the sampled episodes
    old_logprob: torch.Tensor  # (N, R) of the masked policy
    engine_logprob: torch.Tensor  # (N, R) as sampled; equal to old_logprob up to rounding
    unmasked: torch.Tensor  # (N, R) of the policy without masks
    ref_logprob: torch.Tensor  # (N, R)
    value: torch.Tensor  # (N, R)
    mask: torch.Tensor  # (N, R)
    score: torch.Tensor  # (N,)


MicroBatch = tuple[Rows, torch.Tensor, tuple[slice, slice]]  # rows, what is allowed, and their places in (N, R)


@torch.no_grad()
def collect(
    policy: Policy,
    mask_policy: Policy,
    ref_policy: Reference,
    value_model: ValueModel,
    sampled: Sampled,
    score: torch.Tensor,
    config: NLPOConfig,
    nucleus: Nucleus,
    seed: int,
) -> Rollout:
    """Masks, log-probabilities with and without them, reference log-probabilities and values of the sampled episodes,
    in the trainer's layout."""
    order, parts = minibatches(sampled.rows, config.minibatch_size, config.max_tokens, seed)
    micro = [sampled.rows.select(order[start:end]) for part in parts for start, end in part]
    width = sampled.logprob.shape[1]

    def read(rows: Rows) -> tuple[Masks, list[torch.Tensor]]:
        with autocast(score.device, config.precision):
            masks = masks_of(mask_policy, rows, nucleus)
            found = masked_logprob(policy, rows, masks.packed, config.temperature)
            found += [ref_policy.logprob(rows, config.temperature), value_model(rows)]
        return masks, [pad_to(x, width) for x in found]

    masks, columns = zip(*in_order(policy, read, micro), strict=True)
    old_logprob, unmasked, ref_logprob, value = (torch.cat(column) for column in zip(*columns, strict=True))
    score = score[order] - config.no_eos_penalty * (~sampled.finished[order])
    found = (old_logprob, sampled.logprob[order], unmasked, ref_logprob, value, sampled.rows.mask[order], score)
    return Rollout(parts, micro, list(masks), order, *found)


def update(
    policy: Policy,
    value_model: ValueModel,
    rollout: Rollout,
    minibatch: int,
    advantage: torch.Tensor,
    returns: torch.Tensor,
    config: NLPOConfig,
) -> dict[str, float]:
    """Accumulate the gradients of policy and value loss over one minibatch; returns its statistics."""
    first = sum(len(part) for part in rollout.parts[:minibatch])
    spans = [slice(*span) for span in rollout.parts[minibatch]]
    total = rollout.mask[spans[0].start : spans[-1].stop].sum()
    own = slice(first, first + len(spans))
    columns = zip(rollout.micro[own], rollout.masks[own], spans, strict=True)
    micro = [(rows, masks.packed, (span, slice(rows.mask.shape[1]))) for rows, masks, span in columns]

    def mean_policy_loss(part: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        rows, packed, at = part
        mask, old_logprob = rollout.mask[at], rollout.old_logprob[at]
        with autocast(mask.device, config.precision):
            logprob, entropy = masked_logprob(policy, rows, packed, config.temperature, with_entropy=True)
        loss = masked_mean(policy_loss(logprob, old_logprob, advantage[at], config.clip_range), mask, total)
        ratio = torch.exp(logprob.detach() - old_logprob)
        off = (ratio - 1).abs()
        logged = (entropy.detach(), (off > config.clip_range).float(), ratio)
        means = [masked_mean(x, mask, total) for x in logged]
        return loss, torch.stack([loss.detach(), *means, (off * mask).max()])

    def mean_value_loss(part: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        rows, _, at = part
        with autocast(total.device, config.precision):
            value = value_model(rows)
        each = value_loss(value, rollout.value[at], returns[at], config.value_clip_range)
        loss = masked_mean(each, rollout.mask[at], total)
        return loss, loss.detach()

    of_policy = torch.stack(accumulate(policy, mean_policy_loss, micro))
    of_value = torch.stack(accumulate(value_model, mean_value_loss, micro))
    sums = dict(zip(LOGGED, of_policy[:, :-1].sum(0).tolist(), strict=True))
    return sums | {"value_loss": float(of_value.sum()), "ratio_off_one": float(of_policy[:, -1].max())}


def rollout_stats(rollout: Rollout, sampled: Sampled, returns: torch.Tensor) -> dict[str, float]:
    """What is logged of a rollout before its updates; KL in nats per response.

    `kl_k1` and `kl_k3` are of the policy without masks, on what the masked one said; `kl_masked` is that one's.
    """
    num = len(rollout.score)
    log_ratios = {"kl_k1": kl_k1(rollout.unmasked, rollout.ref_logprob)}
    log_ratios |= {"kl_k3": kl_k3(rollout.unmasked, rollout.ref_logprob)}
    log_ratios |= {"kl_masked": kl_k1(rollout.old_logprob, rollout.ref_logprob)}
    return {
        "score": float(rollout.score.mean()),
        "score_sd": float(rollout.score.std(unbiased=False)),
        **{key: float((each * rollout.mask).sum() / num) for key, each in log_ratios.items()},
        "allowed": float(torch.cat([masks.number for masks in rollout.masks]).float().mean()),
        "mask_misses": sum(int(masks.missed.sum()) for masks in rollout.masks),
        "length": float(rollout.mask.sum() / num),
        "unfinished": float((~sampled.finished).float().mean()),
        "engine_mismatch": float(((rollout.engine_logprob - rollout.old_logprob).abs() * rollout.mask).max()),
        "explained_variance": float(explained_variance(rollout.value, returns, rollout.mask)),
        "close_draws": sampled.close_draws,
    }


def first_episode(
    rollout: Rollout, sampled: Sampled, reward: torch.Tensor, advantage: torch.Tensor, returns: torch.Tensor
) -> dict[str, Any]:
    """The first sampled episode, token by token (the end token included); `logprob` is the masked policy's."""
    row = int((rollout.order == 0).nonzero())
    columns = {"logprob": rollout.old_logprob, "unmasked": rollout.unmasked, "ref_logprob": rollout.ref_logprob}
    columns |= {"value": rollout.value, "reward": reward, "advantage": advantage, "returns": returns}
    found = {"text": sampled.text[0], "tokens": sampled.tokens[0], "score": float(rollout.score[row])}
    return found | by_token(columns, row, int(rollout.mask[row].sum()))


def train(
    config: NLPOConfig,
    policy: Policy,
    mask_policy: Policy,
    ref_policy: Reference,
    value_model: ValueModel,
    nucleus: Nucleus,
    prompts: Sequence[Prompt],
    generate: Generate,
    score: Score,
    run: Run,
) -> None:
    """Improve the policy in place; `generate` samples from the `Twin` of policy and mask policy."""
    optimizer, value_optimizer = adam(policy.parameters(), config.lr), adam(value_model.parameters(), config.value_lr)
    parts: dict[str, Any] = {"policy": policy, "mask_policy": mask_policy, "value": value_model}
    parts |= {"optimizer": optimizer, "value_optimizer": value_optimizer}
    done, plain = run.restore(**parts)
    kl_coef = plain.get("kl_coef", config.kl_coef)
    for iteration in run.track(range(done, config.iterations), config.iterations, run.folder.name):
        began, seed = time.monotonic(), run.seed * 100_003 + iteration
        warm = linear_warmup(iteration, config.warmup_iterations, config.warmup_start)
        rates = {"lr": config.lr * warm, "value_lr": config.value_lr * warm}
        set_lr(optimizer, rates["lr"])
        set_lr(value_optimizer, rates["value_lr"])
        # 1. sample prompts and respond with the masked policy
        first = iteration * config.batch_size
        index = prompt_order(len(prompts), first, config.batch_size, run.seed, config.responses_per_prompt)
        sampled = generate(index, first)
        # 2. score the responses; masks, log-probabilities and values in the trainer's layout
        scores = scored(score, [prompts[i] for i in index], sampled, policy.device)
        rollout = collect(policy, mask_policy, ref_policy, value_model, sampled, scores, config, nucleus, seed)
        # 3. per-token reward, its penalty that of the policy without masks, and advantage
        reward = kl_penalized_reward(rollout.score, rollout.unmasked, rollout.ref_logprob, rollout.mask, kl_coef)
        if config.whiten_reward:
            reward = masked_whiten(reward, rollout.mask, shift_mean=False)
        advantage, returns = gae(reward, rollout.value, rollout.mask, config.discount, config.gae_lambda)
        if config.whiten_advantage:
            advantage = masked_whiten(advantage, rollout.mask)
        stats = rollout_stats(rollout, sampled, returns) | rates
        episode = first_episode(rollout, sampled, reward, advantage, returns)
        # 4. minibatches of policy and value loss, under the rollout's own masks
        updates: list[dict[str, float]] = []
        for epoch in range(config.inner_epochs):
            for minibatch in range(len(rollout.parts)):
                found = update(policy, value_model, rollout, minibatch, advantage, returns, config)
                norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
                value_norm = torch.nn.utils.clip_grad_norm_(value_model.parameters(), config.max_grad_norm)
                found |= {"gradient_norm": float(norm), "value_gradient_norm": float(value_norm)}
                run.check_finite(iteration, **found)
                if epoch == minibatch == 0:
                    check_start(iteration, stats, found)
                for each in (optimizer, value_optimizer):
                    each.step()
                    each.zero_grad()
                updates.append(found)
        # 5. renew the mask policy
        if (iteration + 1) % config.target_update == 0:
            mask_policy.load_state_dict(policy.state_dict())
        # 6. log (an episode of every hundredth part and of the end), adapt the KL coefficient, save
        seconds, tokens = time.monotonic() - began, int(sampled.rows.length.sum())
        mean = {key: sum(u[key] for u in updates) / len(updates) for key in updates[0]} | {"kl_coef": kl_coef}
        if iteration % -(-config.iterations // 100) == 0 or iteration == config.iterations - 1:
            run.sample(iteration=iteration, prompt_id=prompts[index[0]].id, **episode)
        run.log(iteration, **stats, **mean, seconds=seconds, tokens_per_second=tokens / seconds)
        if config.kl_target is not None:
            kl_coef = next_kl_coef(kl_coef, stats["kl_k1"], config.kl_target, config.batch_size, config.kl_horizon)
        run.save_if_due(iteration + 1, **parts, kl_coef=kl_coef)


def check_start(iteration: int, stats: dict[str, float], first: dict[str, float]) -> None:
    """Before the first update rollout and training agree to the bit.

    Raises:
        Inexact: they do not.
    """
    off, kl = first["ratio_off_one"], 0.0 if iteration else stats["kl_k3"]
    if off != 0.0 or kl != 0.0:
        raise Inexact(f"ratio is off 1 by {off}, KL is {kl} before the first update")


def main(
    config: NLPOConfig,
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
        raise InputError("nlpo: nothing to maximise; give a reward model or a score")
    if config.normalize_score and score is not None:
        raise InputError("nlpo.normalize_score scales the reward model, not a score of your own; turn it off")
    policy, tokenizer = load_policy(policy_folder)
    encoder = Encoder(tokenizer, format)
    kept, tokens = encoder.prompts(read_snapshot(prompts).prompts_of("train"))
    if not kept:
        raise InputError(f"{prompts}: no training prompt within format.max_prompt_tokens ({format.max_prompt_tokens})")
    value_model = ValueModel.from_decoder(load_policy(policy_folder)[0].decoder, run.seed)
    for each in (policy.decoder, value_model.trunk):
        if config.lora_rank:
            attach_lora(each, config.lora_rank, config.lora_alpha, seed=run.seed)
    mask_policy = copy.deepcopy(policy).requires_grad_(False)
    nucleus = Nucleus(config.top_p, config.temperature, config.min_tokens, tuple(tokenizer.all_special_ids))
    twin = Twin(policy.decoder, mask_policy.decoder, nucleus)
    sampler = Sampler(twin, tokenizer, config.max_new_tokens, config.temperature, precision=config.precision)
    generate = responses_by(sampler, tokens, config.responses_per_prompt, run.seed)
    if score is None:
        assert reward_model_folder is not None
        score = by_reward_model_in(reward_model_folder, config, generate, kept, run.seed, scorer)
    if config.activation_checkpointing:
        checkpoint_activations(policy.decoder)
        checkpoint_activations(value_model.trunk)
    ref_policy: Reference = BasePolicy(policy) if config.lora_rank else load_policy(policy_folder)[0]
    train(config, policy, mask_policy, ref_policy, value_model, nucleus, kept, generate, score, run)
    save_policy(run.folder / "model", policy, tokenizer, run.manifest["parents"])
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    run.finish(num_prompts=len(kept), episodes=config.iterations * config.batch_size)
