"""REINFORCE with a learned baseline, as RLAIF optimises (Lee et al. 2023, arXiv 2309.00267; Williams 1992).

    maximise  E_{x, y ~ π}[ (1 − kl_coef) · r(x, y) − kl_coef · log(π(y|x) / π_ref(y|x)) ]

The score weighs 1 − kl_coef, not 1 as in PPO. It stands on the last token, the penalty on every one; a token's
advantage is all reward from there on, less the value before it. One update for each rollout, nothing is clipped: the
policy that is updated is the one that sampled. Policy, reference and value start from one SFT model.

The paper picks one of four checkpoints by their rewards and by hand; here the last one stands. Its modification of
REINFORCE beyond the baseline it does not tell.

Symbols: N episodes, R response tokens; score (N,); logprob, ref_logprob, value, reward, advantage, returns, mask
(N, R). A micro-batch is what one forward pass takes.
Command: heedful run RECIPE, for a recipe with a block `reinforce`
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
from heedful.losses.masked import explained_variance, masked_mean
from heedful.losses.ppo import gae, kl_penalized_reward, value_loss
from heedful.losses.reinforce import reinforce_loss
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.heads import Policy, ValueModel
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


class ReinforceConfig(Config):
    iterations: int = Field(default=500, ge=1)  # RLAIF: 8 epochs over the prompts
    batch_size: int = Field(default=128, ge=1)  # episodes per iteration, and per update; RLAIF: 128
    responses_per_prompt: int = Field(default=1, ge=1)  # each with its own advantage; they share a prompt's passes
    lr: float = Field(default=1e-5, gt=0)  # RLAIF: 1e-5
    value_lr: float = Field(default=1e-5, gt=0)  # RLAIF: 1e-5
    warmup_iterations: int = Field(default=10, ge=0)  # linear from warmup_start, then constant; 0: none
    warmup_start: float = Field(default=0.1, ge=0, le=1)  # share of the peak at which the warm-up begins
    value_first: int = Field(default=0, ge=0)  # iterations in which the value alone learns; RLAIF names none
    kl_coef: float = Field(default=0.05, ge=0, lt=1)  # RLAIF: 0.05
    temperature: float = Field(default=0.9, gt=0)  # RLAIF: 0.9
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
        if self.normalize_score and self.batch_size == 1:
            raise ValueError("normalize_score divides by the spread of batch_size scores; give at least 2")
        return self


class Rollout(NamedTuple):
    """Episodes in the order of their micro-batches, which are rows `spans[m]`."""

    spans: list[slice]
    micro: list[Rows]
    order: torch.Tensor  # (N,) each row's place among the sampled episodes
    logprob: torch.Tensor  # (N, R) as sampled
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
    config: ReinforceConfig,
    seed: int,
) -> Rollout:
    """Reference log-probabilities and values of the sampled episodes."""
    order, (parts,) = minibatches(sampled.rows, len(sampled.text), config.max_tokens, seed)
    micro = [sampled.rows.select(order[start:end]) for start, end in parts]
    width = sampled.logprob.shape[1]

    def read(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(score.device, config.precision):
            found = ref_policy.logprob(rows, config.temperature), value_model(rows)
        return pad_to(found[0], width), pad_to(found[1], width)

    ref_logprob, value = (torch.cat(columns) for columns in zip(*in_order(policy, read, micro), strict=True))
    score = score[order] - config.no_eos_penalty * (~sampled.finished[order])
    spans = [slice(*span) for span in parts]
    return Rollout(spans, micro, order, sampled.logprob[order], ref_logprob, value, sampled.rows.mask[order], score)


def update(
    policy: Policy,
    value_model: ValueModel,
    rollout: Rollout,
    advantage: torch.Tensor,
    returns: torch.Tensor,
    config: ReinforceConfig,
) -> dict[str, float]:
    """Accumulate the gradients of both losses over the rollout; returns its statistics.

    The policy's loss is the sum over a response's tokens, the mean over responses: the gradient of the expected reward.
    The value's is the mean over tokens.
    """
    num_episodes, num_tokens = len(rollout.score), rollout.mask.sum()
    micro = [(rows, (span, slice(rows.mask.shape[1]))) for rows, span in zip(rollout.micro, rollout.spans, strict=True)]

    def mean_policy_loss(part: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        rows, at = part
        with autocast(num_tokens.device, config.precision):
            logprob, entropy = policy.logprob_and_entropy(rows, config.temperature)
        mask = rollout.mask[at]
        loss = masked_mean(reinforce_loss(logprob, advantage[at]), mask, num_episodes)
        off = ((logprob.detach() - rollout.logprob[at]).abs() * mask).max()
        return loss, torch.stack([loss.detach(), masked_mean(entropy.detach(), mask, num_tokens), off])

    def mean_value_loss(part: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        rows, at = part
        with autocast(num_tokens.device, config.precision):
            value = value_model(rows)
        each = value_loss(value, rollout.value[at], returns[at], None)
        loss = masked_mean(each, rollout.mask[at], num_tokens)
        return loss, loss.detach()

    of_policy = torch.stack(accumulate(policy, mean_policy_loss, micro))
    of_value = torch.stack(accumulate(value_model, mean_value_loss, micro))
    loss, entropy = of_policy[:, :2].sum(0).tolist()
    found = {"policy_loss": loss, "entropy": entropy, "value_loss": float(of_value.sum())}
    return found | {"engine_mismatch": float(of_policy[:, 2].max())}


def rollout_stats(rollout: Rollout, sampled: Sampled, returns: torch.Tensor) -> dict[str, float]:
    """What is logged of a rollout before its update; KL in nats per response."""
    num = len(rollout.score)
    return {
        "score": float(rollout.score.mean()),
        "score_sd": float(rollout.score.std(unbiased=False)),
        "kl_k1": float((kl_k1(rollout.logprob, rollout.ref_logprob) * rollout.mask).sum() / num),
        "kl_k3": float((kl_k3(rollout.logprob, rollout.ref_logprob) * rollout.mask).sum() / num),
        "length": float(rollout.mask.sum() / num),
        "unfinished": float((~sampled.finished).float().mean()),
        "explained_variance": float(explained_variance(rollout.value, returns, rollout.mask)),
        "close_draws": sampled.close_draws,
    }


def first_episode(
    rollout: Rollout, sampled: Sampled, reward: torch.Tensor, advantage: torch.Tensor, returns: torch.Tensor
) -> dict[str, Any]:
    """The first sampled episode, token by token (the end token included)."""
    row = int((rollout.order == 0).nonzero())
    columns = {"logprob": rollout.logprob, "ref_logprob": rollout.ref_logprob, "value": rollout.value}
    columns |= {"reward": reward, "advantage": advantage, "returns": returns}
    found = {"text": sampled.text[0], "tokens": sampled.tokens[0], "score": float(rollout.score[row])}
    return found | by_token(columns, row, int(rollout.mask[row].sum()))


def train(
    config: ReinforceConfig,
    policy: Policy,
    ref_policy: Reference,
    value_model: ValueModel,
    prompts: Sequence[Prompt],
    generate: Generate,
    score: Score,
    run: Run,
) -> None:
    """Improve the policy in place."""
    optimizer, value_optimizer = adam(policy.parameters(), config.lr), adam(value_model.parameters(), config.value_lr)
    parts: dict[str, Any] = {"policy": policy, "value": value_model}
    parts |= {"optimizer": optimizer, "value_optimizer": value_optimizer}
    done, _ = run.restore(**parts)
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
        # 2. score the responses
        scores = scored(score, [prompts[i] for i in index], sampled, policy.device)
        rollout = collect(policy, ref_policy, value_model, sampled, scores, config, seed)
        # 3. per-token reward (1 − β)·r − β·KL; all of it that is to come, less the value: GAE with λ = 1
        weighed = (1 - config.kl_coef) * rollout.score
        reward = kl_penalized_reward(weighed, rollout.logprob, rollout.ref_logprob, rollout.mask, config.kl_coef)
        advantage, returns = gae(reward, rollout.value, rollout.mask, discount=1.0, gae_lambda=1.0)
        stats = rollout_stats(rollout, sampled, returns) | rates
        episode = first_episode(rollout, sampled, reward, advantage, returns)
        # 4. one update of the value, and of the policy once the value has had its first iterations alone
        stats |= update(policy, value_model, rollout, advantage, returns, config)
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        value_norm = torch.nn.utils.clip_grad_norm_(value_model.parameters(), config.max_grad_norm)
        stats |= {"gradient_norm": float(norm), "value_gradient_norm": float(value_norm), "kl_coef": config.kl_coef}
        run.check_finite(iteration, **stats)
        value_optimizer.step()
        if iteration >= config.value_first:
            optimizer.step()
        for each in (optimizer, value_optimizer):
            each.zero_grad()
        # 5. log (an episode of every hundredth part and of the end), save
        seconds, tokens = time.monotonic() - began, int(sampled.rows.length.sum())
        if iteration % -(-config.iterations // 100) == 0 or iteration == config.iterations - 1:
            run.sample(iteration=iteration, prompt_id=prompts[index[0]].id, **episode)
        run.log(iteration, **stats, seconds=seconds, tokens_per_second=tokens / seconds)
        run.save_if_due(iteration + 1, **parts)


def main(
    config: ReinforceConfig,
    run: Run,
    policy_folder: Path,
    prompts: Path,
    format: PromptFormat,
    reward_model_folder: Path | None = None,
    score: Score | None = None,
    scorer: Scorer | None = None,
) -> None:
    """Read the models and the snapshot, train, write `model/`.

    What is maximised is the reward model's score, or `score`: (N prompts, `Sampled`) → tensor (N,) of finite numbers,
    such as an AI labeler's own (direct RLAIF).
    `scorer` makes it of the reward model.

    Raises:
        InputError: no training prompt fits, neither a reward model nor a `score`, or normalize_score with a `score`.
    """
    if score is None and reward_model_folder is None:
        raise InputError("reinforce: nothing to maximise; give a reward model or a score")
    if config.normalize_score and score is not None:
        raise InputError("reinforce.normalize_score scales the reward model, not a score of your own; turn it off")
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
    value_model = ValueModel.from_decoder(load_policy(policy_folder, config.base_precision)[0].decoder, run.seed)
    for each in (policy.decoder, value_model.trunk):
        prepare(each, config, run.seed)
    ref_policy: Reference = BasePolicy(policy) if config.lora_rank else load_policy(policy_folder)[0]
    train(config, policy, ref_policy, value_model, kept, generate, score, run)
    save_policy(run.folder / "model", policy, tokenizer, run.manifest["parents"])
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    run.finish(num_prompts=len(kept), episodes=config.iterations * config.batch_size)
