"""PPO and PPO-ptx (InstructGPT, arXiv 2203.02155, equation 2, appendix C.4; after Ziegler et al., arXiv 1909.08593).

    maximise  E_{x, y ~ π}[ r(x, y) − kl_coef · log(π(y|x) / π_ref(y|x)) ] + ptx_coef · E_{x ~ pretraining}[ log π(x) ]

The penalty is spread over tokens, the score stands on the last one, advantages are GAE without discount. `ptx_coef` 0
is plain PPO. Policy and reference start as one SFT model (with pretraining data mixed in), value as the reward model.

We differ in that both losses are means over tokens (the paper does not say), and in gae_lambda, which the paper does
not give. Log-probabilities of sampling and reference are computed in the trainer's own batch layout, so that before
the first update KL is 0 and every ratio is 1, exactly; this is checked.

Symbols: N episodes, R response tokens; score (N,); logprob, old_logprob, ref_logprob, value, reward, advantage,
returns, mask (N, R). A micro-batch is the part of a minibatch that one forward pass takes.
Command: heedful ppo RECIPE --dir DIR
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator

from heedful.batch import Rows, Texts, pad_to
from heedful.config import Config, InputError
from heedful.engine.follow import Score, Scorer, by_reward_model, by_token, scored, start_of, write_trace
from heedful.engine.sample import Generate, Sampled, Sampler, prompt_order, responses_by
from heedful.losses.kl import kl_k1, kl_k3, next_kl_coef
from heedful.losses.masked import explained_variance, masked_mean, masked_whiten
from heedful.losses.ppo import gae, kl_penalized_reward, policy_loss, value_loss
from heedful.models.checkpoint import load_policy, load_reward_model, load_value_model, save_policy
from heedful.models.ema import Ema, mostly_start
from heedful.models.heads import Policy, ValueModel
from heedful.models.lora import BasePolicy, LoraAlpha, LoraRank, Reference, prepare, value_over
from heedful.models.optimizer import Precision, adam, autocast, linear_warmup, set_lr
from heedful.models.quantized import BasePrecision
from heedful.models.threads import accumulate, in_order
from heedful.run import Inexact, Run, console
from heedful.snapshot import read_snapshot
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.text.mixed import mixed_in
from heedful.text.parts import by_length, minibatches
from heedful.types import Prompt

LOGGED = ("policy_loss", "entropy", "clip_fraction", "ratio")  # sums over a minibatch's micro-batches
MAX_CLIPPED_AT_START = 0.01  # share of tokens that the engine's log-probabilities may put outside the clip range


class PPOConfig(Config):
    iterations: int = Field(default=500, ge=1)  # InstructGPT: 256,000 episodes in rollouts of 512
    batch_size: int = Field(default=512, ge=1)  # episodes per iteration
    responses_per_prompt: int = Field(default=1, ge=1)  # InstructGPT: 1; with more, their prompt is computed once
    minibatch_size: int = Field(default=64, ge=1)  # episodes per update
    inner_epochs: int = Field(default=1, ge=1)
    lr: float = Field(default=5e-6, gt=0)  # InstructGPT: swept 2.55e-6 … 2.55e-5; without ptx, above 8.05e-6 diverged
    value_lr: float = Field(default=9e-6, gt=0)  # InstructGPT: 9e-6, 5e-6 for the 175B policy
    warmup_iterations: int = Field(default=10, ge=0)  # linear from warmup_start, then constant; 0: none
    warmup_start: float = Field(default=0.1, ge=0, le=1)
    kl_coef: float = Field(default=0.02, ge=0)  # per token; InstructGPT: 0.02
    kl_target: float | None = Field(default=None, gt=0)  # nats per response; set: the coefficient adapts towards it
    clamp_kl: bool = False  # a token that the reference finds likelier counts as KL 0; SALMON's code: true
    kl_horizon: int = Field(default=10_000, ge=1)  # episodes; Ziegler et al.: 10,000
    discount: float = Field(default=1.0, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)  # not given in the paper
    clip_range: float = Field(default=0.2, gt=0)
    value_clip_range: float | None = Field(default=0.2, gt=0)
    whiten_reward: bool = False  # variance only, the mean stays
    whiten_advantage: bool = True
    ema_decay: float = Field(default=0.992, ge=0, lt=1)  # per update; 0 keeps the last weights instead
    ptx_coef: float = Field(default=27.8, ge=0)  # InstructGPT: 27.8; 0 is PPO without pretraining data
    ptx_examples: float = Field(default=8.0, gt=0)  # pretraining rows per episode; InstructGPT: 8
    window: int = Field(default=256, ge=2)  # most tokens in a pretraining row
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, ge=1)
    no_eos_penalty: float = Field(default=0.0, ge=0)  # taken off the score of a response the length limit cut
    reward: str = "reward_model"  # or one of further_reward_models, principle_rewards or ai_labelers (direct RLAIF)
    normalize_score: bool = False  # scale the reward model to mean 0, sd 1 on the starting policy (Ziegler et al.)
    logprobs: Literal["trainer", "engine"] = "trainer"  # engine: taken from sampling; saves a pass, mismatch logged
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora_rank: LoraRank = 0  # low-rank adapters on every linear module; 0: all weights train
    lora_alpha: LoraAlpha = None  # null: 2 · lora_rank
    base_precision: BasePrecision = "full"  # of the weights under adapters: full, fp32; nf4, 4 bits (QLoRA)
    one_base: bool = False  # with lora_rank: the reward model too as adapters over the policy's one copy of the weights
    activation_checkpointing: bool = False  # recompute layers in the backward pass: less memory, a third more time
    max_tokens: int = Field(default=16384, ge=1)  # per forward pass; more memory, same result
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.kl_target is not None and self.batch_size >= 5 * self.kl_horizon:
            raise ValueError("kl_horizon must exceed a fifth of batch_size, or a low KL turns kl_coef to 0 or below")
        if self.batch_size % self.responses_per_prompt:
            raise ValueError("responses_per_prompt must divide batch_size")
        if self.one_base and (self.normalize_score or not self.lora_rank):
            raise ValueError("one_base needs lora_rank, and the reward model as it is: no normalize_score")
        if self.normalize_score and self.batch_size == 1:
            raise ValueError("normalize_score divides by the spread of batch_size scores; give at least 2")
        if self.kl_target is not None and self.kl_coef == 0:
            raise ValueError("kl_target scales kl_coef, which is 0 and would stay so; start from a positive one")
        return self


class Rollout(NamedTuple):
    """Episodes in the trainer's layout; `parts[m]` lists the micro-batches of minibatch m as (start, end) rows."""

    parts: list[list[tuple[int, int]]]
    micro: list[Rows]  # one per micro-batch, in order
    order: torch.Tensor  # (N,) each row's place among the sampled episodes
    old_logprob: torch.Tensor  # (N, R)
    engine_logprob: torch.Tensor  # (N, R) as sampled; equal to old_logprob up to rounding
    ref_logprob: torch.Tensor  # (N, R)
    value: torch.Tensor  # (N, R)
    mask: torch.Tensor  # (N, R)
    score: torch.Tensor  # (N,)


MicroBatch = tuple[Rows, tuple[slice, slice]]  # rows, and their places in the rollout's (N, R)


@torch.no_grad()
def collect(
    policy: Policy,
    ref_policy: Reference,
    value_model: ValueModel,
    sampled: Sampled,
    score: torch.Tensor,
    config: PPOConfig,
    seed: int,
) -> Rollout:
    """Log-probabilities, reference log-probabilities and values of the sampled episodes, in the trainer's layout."""
    order, parts = minibatches(sampled.rows, config.minibatch_size, config.max_tokens, seed)
    micro = [sampled.rows.select(order[start:end]) for part in parts for start, end in part]
    width = sampled.logprob.shape[1]

    def read(rows: Rows) -> tuple[torch.Tensor, ...]:
        with autocast(score.device, config.precision):
            found = [ref_policy.logprob(rows, config.temperature), value_model(rows)]
            if config.logprobs == "trainer":
                found.append(policy.logprob(rows, config.temperature))
        return tuple(pad_to(x, width) for x in found)

    ref_logprob, value, *logprob = (torch.cat(columns) for columns in zip(*in_order(policy, read, micro), strict=True))
    engine_logprob = sampled.logprob[order]
    old_logprob = logprob[0] if logprob else engine_logprob
    score = score[order] - config.no_eos_penalty * (~sampled.finished[order])
    mask = sampled.rows.mask[order]
    return Rollout(parts, micro, order, old_logprob, engine_logprob, ref_logprob, value, mask, score)


def update(
    policy: Policy,
    value_model: ValueModel,
    rollout: Rollout,
    minibatch: int,
    advantage: torch.Tensor,
    returns: torch.Tensor,
    config: PPOConfig,
) -> dict[str, float]:
    """Accumulate the gradients of policy and value loss over one minibatch; returns its statistics."""
    first = sum(len(part) for part in rollout.parts[:minibatch])
    spans = [slice(*span) for span in rollout.parts[minibatch]]
    total = rollout.mask[spans[0].start : spans[-1].stop].sum()
    rows_of = rollout.micro[first : first + len(spans)]
    micro = [(rows, (span, slice(rows.mask.shape[1]))) for rows, span in zip(rows_of, spans, strict=True)]

    def mean_policy_loss(part: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        rows, at = part
        mask, old_logprob = rollout.mask[at], rollout.old_logprob[at]
        with autocast(mask.device, config.precision):
            logprob, entropy = policy.logprob_and_entropy(rows, config.temperature)
        loss = masked_mean(policy_loss(logprob, old_logprob, advantage[at], config.clip_range), mask, total)
        ratio = torch.exp(logprob.detach() - old_logprob)
        off = (ratio - 1).abs()
        logged = (entropy.detach(), (off > config.clip_range).float(), ratio)
        means = [masked_mean(x, mask, total) for x in logged]
        return loss, torch.stack([loss.detach(), *means, (off * mask).max()])

    def mean_value_loss(part: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        rows, at = part
        with autocast(total.device, config.precision):
            value = value_model(rows)
        each = value_loss(value, rollout.value[at], returns[at], config.value_clip_range)
        loss = masked_mean(each, rollout.mask[at], total)
        return loss, loss.detach()

    of_policy = torch.stack(accumulate(policy, mean_policy_loss, micro))
    of_value = torch.stack(accumulate(value_model, mean_value_loss, micro))
    sums = dict(zip(LOGGED, of_policy[:, :-1].sum(0).tolist(), strict=True))
    return sums | {"value_loss": float(of_value.sum()), "ratio_off_one": float(of_policy[:, -1].max())}


def pretraining_update(policy: Policy, texts: Texts, config: PPOConfig) -> float:
    """Accumulate the gradient of ptx_coef times the mean loss per pretraining token; returns that mean."""
    count = int((texts.length - 1).sum())

    def weighted_loss(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(policy.device, config.precision):
            loss, _ = policy.language_loss(*texts.select(index).to(policy.device))
        mean = loss.sum() / count
        return config.ptx_coef * mean, mean.detach()

    return float(sum(accumulate(policy, weighted_loss, by_length(texts.length, config.max_tokens))))


def ptx_batches(pretraining: Texts, config: PPOConfig, seed: int) -> Iterator[Texts]:
    """Pretraining rows for each update of one iteration, drawn anew."""
    number = max(1, round(config.ptx_examples * config.minibatch_size))
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield pretraining.select(torch.randint(len(pretraining.length), (number,), generator=generator))


def rollout_stats(rollout: Rollout, sampled: Sampled, returns: torch.Tensor) -> dict[str, float]:
    """What is logged of a rollout before its updates; KL in nats per response."""
    num = len(rollout.score)
    k1 = (kl_k1(rollout.old_logprob, rollout.ref_logprob) * rollout.mask).sum() / num
    k3 = (kl_k3(rollout.old_logprob, rollout.ref_logprob) * rollout.mask).sum() / num
    return {
        "score": float(rollout.score.mean()),
        "score_sd": float(rollout.score.std(unbiased=False)),
        "kl_k1": float(k1),
        "kl_k3": float(k3),
        "length": float(rollout.mask.sum() / num),
        "unfinished": float((~sampled.finished).float().mean()),
        "engine_mismatch": float(((rollout.engine_logprob - rollout.old_logprob).abs() * rollout.mask).max()),
        "explained_variance": float(explained_variance(rollout.value, returns, rollout.mask)),
    }


def first_episode(
    rollout: Rollout, sampled: Sampled, reward: torch.Tensor, advantage: torch.Tensor, returns: torch.Tensor
) -> dict[str, Any]:
    """The first sampled episode, token by token (the end token included), for whoever wants to follow one through."""
    row = int((rollout.order == 0).nonzero())
    columns = {"logprob": rollout.old_logprob, "ref_logprob": rollout.ref_logprob, "value": rollout.value}
    columns |= {"reward": reward, "advantage": advantage, "returns": returns}
    num = int(rollout.mask[row].sum())
    found = {"text": sampled.text[0], "tokens": sampled.tokens[0], "score": float(rollout.score[row])}
    return found | by_token(columns, row, num)


def train(
    config: PPOConfig,
    policy: Policy,
    ref_policy: Reference,
    value_model: ValueModel,
    prompts: Sequence[Prompt],
    generate: Generate,
    score: Score,
    pretraining: Texts | None,
    run: Run,
) -> None:
    """Improve the policy in place; at the end it holds the averaged weights where ema_decay is set."""
    optimizer = adam(policy.parameters(), config.lr)
    value_optimizer = adam(value_model.parameters(), config.value_lr)
    ema = Ema(policy, config.ema_decay)
    parts: dict[str, Any] = {"policy": policy, "value": value_model, "ema": ema}
    parts |= {"optimizer": optimizer, "value_optimizer": value_optimizer}
    done, plain = run.restore(**parts)
    kl_coef = plain.get("kl_coef", config.kl_coef)
    for iteration in run.track(range(done, config.iterations), config.iterations, run.folder.name):
        began, seed = time.monotonic(), run.seed * 100_003 + iteration
        warm = linear_warmup(iteration, config.warmup_iterations, config.warmup_start)
        rates = {"lr": config.lr * warm, "value_lr": config.value_lr * warm}
        set_lr(optimizer, rates["lr"])
        set_lr(value_optimizer, rates["value_lr"])
        # 1. sample prompts and respond with the current policy
        first = iteration * config.batch_size
        index = prompt_order(len(prompts), first, config.batch_size, run.seed, config.responses_per_prompt)
        sampled = generate(index, first)
        # 2. score the responses; log-probabilities and values in the trainer's layout
        scores = scored(score, [prompts[i] for i in index], sampled, policy.device)
        rollout = collect(policy, ref_policy, value_model, sampled, scores, config, seed)
        # 3. per-token reward and advantage
        old, ref = rollout.old_logprob, rollout.ref_logprob
        reward = kl_penalized_reward(rollout.score, old, ref, rollout.mask, kl_coef, config.clamp_kl)
        if config.whiten_reward:
            reward = masked_whiten(reward, rollout.mask, shift_mean=False)
        advantage, returns = gae(reward, rollout.value, rollout.mask, config.discount, config.gae_lambda)
        if config.whiten_advantage:
            advantage = masked_whiten(advantage, rollout.mask)
        stats = rollout_stats(rollout, sampled, returns) | rates
        episode = first_episode(rollout, sampled, reward, advantage, returns)
        # 4. minibatches of policy and value loss, the pretraining loss accumulated into the same update
        updates: list[dict[str, float]] = []
        ptx = ptx_batches(pretraining, config, seed) if pretraining else None
        for epoch in range(config.inner_epochs):
            for minibatch in range(len(rollout.parts)):
                update_stats = update(policy, value_model, rollout, minibatch, advantage, returns, config)
                if ptx is not None:
                    update_stats["ptx_loss"] = pretraining_update(policy, next(ptx), config)
                norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
                value_norm = torch.nn.utils.clip_grad_norm_(value_model.parameters(), config.max_grad_norm)
                update_stats |= {"gradient_norm": float(norm), "value_gradient_norm": float(value_norm)}
                run.check_finite(iteration, **update_stats)
                if epoch == minibatch == 0:
                    check_start(iteration, stats, update_stats, config)
                for each in (optimizer, value_optimizer):
                    each.step()
                    each.zero_grad()
                ema.update()
                updates.append(update_stats)
        # 5. log (an episode of every hundredth part and of the end), adapt the KL coefficient, save
        seconds = time.monotonic() - began
        mean = {key: sum(u[key] for u in updates) / len(updates) for key in updates[0]}
        tokens = int(sampled.rows.length.sum())
        if iteration % -(-config.iterations // 100) == 0 or iteration == config.iterations - 1:
            run.sample(iteration=iteration, prompt_id=prompts[index[0]].id, **episode)
        counted = {"kl_coef": kl_coef, "close_draws": sampled.close_draws}
        run.log(iteration, **stats, **mean, **counted, seconds=seconds, tokens_per_second=tokens / seconds)
        if config.kl_target is not None:
            kl_coef = next_kl_coef(kl_coef, stats["kl_k1"], config.kl_target, config.batch_size, config.kl_horizon)
        run.save_if_due(iteration + 1, **parts, kl_coef=kl_coef)
    if config.ema_decay:
        ema.copy_to(policy)


def check_start(iteration: int, stats: dict[str, float], first: dict[str, float], config: PPOConfig) -> None:
    """Before the first update sampling, reference and training agree: to the bit, where one layout serves all three.

    Raises:
        Inexact, InputError: they do not; the engine's log-probabilities, where used, would clip tokens from the start.
    """
    if config.logprobs == "trainer":
        off, kl = first["ratio_off_one"], 0.0 if iteration else stats["kl_k3"]
        if off != 0.0 or kl != 0.0:
            raise Inexact(f"ratio is off 1 by {off}, KL is {kl} before the first update")
        return
    stats["engine_mismatch"] = first["ratio_off_one"]
    if first["clip_fraction"] > MAX_CLIPPED_AT_START:
        raise InputError(
            f"ppo.logprobs: sampling and training disagree: {first['clip_fraction']:.1%} of tokens are clipped before "
            f"the first update (a ratio is {first['ratio_off_one']:.2g} off 1); use logprobs: trainer"
        )


def main(
    config: PPOConfig,
    run: Run,
    policy_folder: Path,
    reward_model_folder: Path,
    prompts: Path,
    format: PromptFormat,
    documents: Path | None,
    score: Score | None = None,
    scorer: Scorer | None = None,
    followed: Path | None = None,
) -> None:
    """Read the models and snapshots, train, write `model/`.

    `score` replaces the reward model as what is maximised: (N prompts, `Sampled`) → tensor (N,) of finite numbers.
    `scorer` makes it of the reward model, which the value model begins as, over the same weights with `one_base`.
    `followed` is a snapshot of one ranking, whose responses are taken through the trained models into trace.json.

    Raises:
        InputError: no training prompt fits, ptx_coef without documents, normalize_score with a `score`, or a wrong one.
    """
    if config.normalize_score and score is not None:
        raise InputError("ppo.normalize_score scales the reward model, not a score of your own; turn it off")
    if config.one_base and score is not None:
        raise InputError("ppo.one_base is for the reward model's score, not for one of your own; turn it off")
    if warning := mostly_start(config):
        console.print(warning, markup=False, highlight=False, soft_wrap=True)
    policy, tokenizer = load_policy(policy_folder, config.base_precision)
    encoder = Encoder(tokenizer, format)
    kept, tokens = encoder.prompts(read_snapshot(prompts).prompts_of("train"))
    if not kept:
        raise InputError(f"{prompts}: no training prompt within format.max_prompt_tokens ({format.max_prompt_tokens})")
    pretraining = mixed_in(documents, encoder, config.window, "ppo", "ptx_coef") if config.ptx_coef else None
    sampler = Sampler(policy.decoder, tokenizer, config.max_new_tokens, config.temperature, precision=config.precision)
    generate = responses_by(sampler, tokens, config.responses_per_prompt, run.seed)
    if score is None:
        over = (policy, policy_folder) if config.one_base else None
        guideline = scorer.guideline if scorer else None
        reward_model, _ = load_reward_model(reward_model_folder, guideline, over, config.base_precision)
        start = start_of(config, generate, kept, run.seed)
        score = (scorer or by_reward_model)(reward_model, config.max_tokens, config.precision, start)
        value_model = value_over(reward_model) if config.lora_rank else ValueModel.from_reward_model(reward_model)
    else:
        value_model = load_value_model(reward_model_folder, config.base_precision)
    for each in (policy.decoder, value_model.trunk):
        prepare(each, config, run.seed)
    ref_policy: Reference = BasePolicy(policy) if config.lora_rank else load_policy(policy_folder)[0]
    train(config, policy, ref_policy, value_model, kept, generate, score, pretraining, run)
    if followed is not None:
        write_trace(run, followed, Encoder(tokenizer, format), policy, ref_policy, value_model, score, config)
    save_policy(run.folder / "model", policy, tokenizer, run.manifest["parents"])
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    run.finish(num_prompts=len(kept), episodes=config.iterations * config.batch_size)
