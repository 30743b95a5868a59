"""Rejection-sampling fine-tuning: the best of n of one's own responses, imitated, again and again.

Dong et al. 2023 (RAFT, arXiv 2304.06767, algorithm 1), Touvron et al. 2023 (arXiv 2307.09288, section 3.2.3); with a
threshold instead of a rank, Gulcehre et al. 2023 (ReST, arXiv 2308.08998). Expert iteration whose expert is the policy
with n tries (Anthony et al. 2017, arXiv 1705.08439).

    per iteration:  y₁ … yₙ ~ π(·|x);   keep the `keep` of highest r(x, y), above `threshold`;   minimise −log π(kept)

No penalty holds the policy near its start, and none is needed at first: the best of n is at most ln n − (n − 1)/n nats
from the policy that it is chosen from. Imitated exactly, t iterations would be the best of nᵗ, which is `kl_bound`.

Symbols: N episodes in B groups of n to one prompt, M of them kept, R response tokens; score, kept (N,); logprob,
ref_logprob, mask (N, R). A micro-batch is what one forward pass takes.
Command: heedful run RECIPE, for a recipe with a block `best_of_n`
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, model_validator

from heedful.batch import Rows, pad_to
from heedful.config import Config, InputError
from heedful.engine.follow import Score, Scorer, by_reward_model_in, by_token, scored
from heedful.engine.sample import Generate, Sampled, Sampler, prompt_order, responses_by
from heedful.losses.best_of_n import best_of_n_kl
from heedful.losses.kl import kl_k1, kl_k3
from heedful.losses.masked import masked_mean
from heedful.losses.sft import sft_loss
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
from heedful.text.parts import by_prompt, minibatches
from heedful.types import Prompt


class BestOfNConfig(Config):
    iterations: int = Field(default=10, ge=1)  # turns of sampling and imitating
    batch_size: int = Field(default=2048, ge=1)  # episodes per iteration, kept or not
    responses_per_prompt: int = Field(default=8, ge=2)  # n: tries at each prompt
    keep: int = Field(default=1, ge=1)  # of them that are imitated at most, the best; RAFT: 1
    threshold: float | None = None  # only responses that score above it; null: whatever the best scores
    minibatch_size: int = Field(default=64, ge=1)  # kept responses per update
    inner_epochs: int = Field(default=1, ge=1)  # passes over what an iteration kept
    lr: float = Field(default=1e-5, gt=0)
    warmup_iterations: int = Field(default=0, ge=0)  # linear from warmup_start, then constant; 0: none
    warmup_start: float = Field(default=0.1, ge=0, le=1)  # share of the peak at which the warm-up begins
    weight_decay: float = Field(default=0.0, ge=0)
    temperature: float = Field(default=1.0, gt=0)  # of sampling; imitation is at 1
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
        if self.keep >= self.responses_per_prompt and self.threshold is None:
            raise ValueError("keep must be below responses_per_prompt, or nothing is chosen; or give a threshold")
        return self


def chosen(score: torch.Tensor, each: int, keep: int, threshold: float | None) -> torch.Tensor:
    """Which episodes (N,), `each` in a row to a prompt, are imitated, bool: the `keep` of highest score of each prompt,
    the earlier of equal ones, where they score above the threshold.

    >>> chosen(torch.tensor([0.1, 0.5, 0.5, 0.2, -1.0, -2.0]), each=3, keep=1, threshold=0.0)
    tensor([False,  True, False,  True, False, False])
    """
    best = score.view(-1, each).argsort(dim=1, descending=True, stable=True)[:, :keep]
    found = torch.zeros_like(score.view(-1, each), dtype=torch.bool).scatter(1, best, True).flatten()
    return found if threshold is None else found & (score > threshold)


@torch.no_grad()
def of_reference(policy: Policy, ref_policy: Reference, sampled: Sampled, config: BestOfNConfig) -> torch.Tensor:
    """Log-probabilities of the reference at the sampling temperature, (N, R)."""
    rows, found = sampled.rows, torch.zeros_like(sampled.logprob)
    parts = by_prompt(rows, config.max_tokens)

    def read(index: torch.Tensor) -> torch.Tensor:
        with autocast(policy.device, config.precision):
            return pad_to(ref_policy.logprob(rows.select(index), config.temperature), found.shape[1])

    for index, ref_logprob in zip(parts, in_order(policy, read, parts), strict=True):
        found[index] = ref_logprob
    return found


def update(policy: Policy, micro: Sequence[Rows], config: BestOfNConfig) -> dict[str, float]:
    """Accumulate the gradient of the mean loss over the response tokens of the micro-batches; returns that mean."""
    total = sum(rows.response_length.sum() for rows in micro)

    def mean_loss(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(rows.tokens.device, config.precision):
            logprob = policy.logprob(rows)
        loss = masked_mean(sft_loss(logprob), rows.mask, total)
        return loss, loss.detach()

    return {"loss": float(torch.stack(accumulate(policy, mean_loss, micro)).sum())}


def rollout_stats(
    score: torch.Tensor, kept: torch.Tensor, ref_logprob: torch.Tensor, sampled: Sampled, config: BestOfNConfig
) -> dict[str, float]:
    """What is logged of a rollout before its updates; KL in nats per response."""
    num, mask = len(score), sampled.rows.mask
    of_prompts = kept.view(-1, config.responses_per_prompt).any(1)
    best = {"kept_score": float(score[kept].mean())} if bool(kept.any()) else {}
    return best | {
        "score": float(score.mean()),
        "score_sd": float(score.std(unbiased=False)),
        "kept": int(kept.sum()),
        "without_kept": float((~of_prompts).float().mean()),
        "kl_k1": float((kl_k1(sampled.logprob, ref_logprob) * mask).sum() / num),
        "kl_k3": float((kl_k3(sampled.logprob, ref_logprob) * mask).sum() / num),
        "length": float(mask.sum() / num),
        "unfinished": float((~sampled.finished).float().mean()),
        "close_draws": sampled.close_draws,
    }


def first_episode(
    sampled: Sampled, score: torch.Tensor, kept: torch.Tensor, ref_logprob: torch.Tensor
) -> dict[str, Any]:
    """The first sampled episode, its log-probabilities token by token (the end token included)."""
    columns = {"logprob": sampled.logprob, "ref_logprob": ref_logprob}
    found: dict[str, Any] = {"text": sampled.text[0], "tokens": sampled.tokens[0]}
    found |= {"score": float(score[0]), "kept": bool(kept[0])}
    return found | by_token(columns, 0, int(sampled.rows.response_length[0]))


def train(
    config: BestOfNConfig,
    policy: Policy,
    ref_policy: Reference,
    prompts: Sequence[Prompt],
    generate: Generate,
    score: Score,
    run: Run,
) -> None:
    """Improve the policy in place."""
    optimizer = adam(policy.parameters(), config.lr, config.weight_decay)
    done, _ = run.restore(policy=policy, optimizer=optimizer)
    n, ranked = config.responses_per_prompt, config.keep == 1 and config.threshold is None
    for iteration in run.track(range(done, config.iterations), config.iterations, run.folder.name):
        began, seed = time.monotonic(), run.seed * 100_003 + iteration
        lr = config.lr * linear_warmup(iteration, config.warmup_iterations, config.warmup_start)
        set_lr(optimizer, lr)
        # 1. sample n responses to each prompt with the current policy
        first = iteration * config.batch_size
        index = prompt_order(len(prompts), first, config.batch_size, run.seed, n)
        sampled = generate(index, first)
        # 2. score them; keep each prompt's best
        scores = scored(score, [prompts[i] for i in index], sampled, policy.device)
        scores = scores - config.no_eos_penalty * (~sampled.finished)
        kept = chosen(scores, n, config.keep, config.threshold)
        ref_logprob = of_reference(policy, ref_policy, sampled, config)
        stats = rollout_stats(scores, kept, ref_logprob, sampled, config) | {"lr": lr}
        if ranked:
            stats["kl_bound"] = float(best_of_n_kl(n, rounds=iteration))
        # 3. minibatches of the supervised loss on what was kept
        updates: list[dict[str, float]] = []
        if bool(kept.any()):
            rows = sampled.rows.select(kept.nonzero().squeeze(1))
            order, parts = minibatches(rows, config.minibatch_size, config.max_tokens, seed)
            for part in parts * config.inner_epochs:
                found = update(policy, [rows.select(order[start:end]) for start, end in part], config)
                norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
                updates.append(found | {"gradient_norm": float(norm)})
                run.check_finite(iteration, **updates[-1])
                optimizer.step()
                optimizer.zero_grad()
        mean = {key: sum(each[key] for each in updates) / len(updates) for key in updates[0]} if updates else {}
        # 4. log (an episode of every hundredth part and of the end), save
        seconds, tokens = time.monotonic() - began, int(sampled.rows.length.sum())
        if iteration % -(-config.iterations // 100) == 0 or iteration == config.iterations - 1:
            episode = first_episode(sampled, scores, kept, ref_logprob)
            run.sample(iteration=iteration, prompt_id=prompts[index[0]].id, **episode)
        run.log(iteration, **stats, **mean, seconds=seconds, tokens_per_second=tokens / seconds)
        run.save_if_due(iteration + 1, policy=policy, optimizer=optimizer)


def main(
    config: BestOfNConfig,
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
        raise InputError("best_of_n: nothing to maximise; give a reward model or a score")
    if config.normalize_score and score is not None:
        raise InputError("best_of_n.normalize_score scales the reward model, not a score of your own; turn it off")
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
