"""DPO on K-way rankings: the ranking loss with the policy itself as reward model (Rafailov et al., arXiv 2305.18290).

A response's implied reward is dpo_beta · log π(y|x)/π_ref(y|x). Every untied pair of a ranking is a comparison, and all
of them are one batch element, as in the reward model: one forward pass per response whatever the number of pairs, and
the mean over a ranking's pairs, then over rankings. With `soft` the labels are probabilities (of several labelers, or
an AI labeler's own) and ties count as ½. The reference never changes, so its log-probabilities are computed once.

No sampling and no reward model: it learns from the responses that were ranked, whoever wrote them.

Symbols: B rankings of up to Kmax responses; logprob and ref_logprob of whole responses, share, (B, Kmax); P pairs.
Command: heedful run RECIPE, for a recipe with a block `dpo`
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from heedful.batch import RankedRows, pad_to
from heedful.config import Config
from heedful.feedback.objectives import Weight, compared, ordered
from heedful.losses.dpo import conservative_dpo_loss, dpo_loss, ipo_loss
from heedful.losses.masked import masked_sum
from heedful.losses.ranking import best_of, ranking_accuracy, untied_pairs
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.heads import Policy
from heedful.models.load import context_length
from heedful.models.lora import LoraAlpha, LoraRank, prepare
from heedful.models.optimizer import Precision, adam, autocast, linear_warmup, set_lr
from heedful.models.quantized import BasePrecision
from heedful.models.threads import accumulate, in_order
from heedful.run import Run
from heedful.snapshot import read_snapshot
from heedful.text.collate import EncodedRanking, Encoder, to_ranked_rows
from heedful.text.format import PromptFormat
from heedful.text.parts import by_length
from heedful.text.tokenizer import pad_id

Logprobs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]  # chosen, rejected, their references: (P,)
Reference = Mapping[str, torch.Tensor]  # a ranking's id → log π_ref of its responses (K,)


class DPOConfig(Config):
    objective: Literal["dpo", "conservative", "ipo"] = "dpo"  # a loss of heedful.losses.dpo
    dpo_beta: float = Field(default=0.1, gt=0)  # the paper: 0.1; 0.5 for TL;DR
    flipped: float = Field(default=0.1, ge=0, lt=0.5)  # share of labels that `conservative` takes to be wrong
    soft: bool = False  # labels are probabilities, ties ½; else ties teach nothing
    labeler_weights: dict[str, Weight] = Field(default_factory=dict)  # by name, kind or "others", as {ai: 0.5}; else 1
    epochs: int = Field(default=1, ge=1)  # passes over the rankings
    batch_size: int = Field(default=64, ge=1)  # rankings per step; the paper: 64 pairs
    lr: float = Field(default=1e-6, gt=0)  # the paper: 1e-6
    warmup_steps: int = Field(default=150, ge=0)  # the paper: 150, then constant
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora_rank: LoraRank = 0  # low-rank adapters on every linear module; 0: all weights train
    lora_alpha: LoraAlpha = None  # null: 2 · lora_rank
    base_precision: BasePrecision = "full"  # of the weights under adapters: full, fp32; nf4, 4 bits (QLoRA)
    activation_checkpointing: bool = False  # recompute layers in the backward pass: less memory, a third more time
    max_tokens: int = Field(default=16384, ge=1)  # per forward pass; a ranking is never split
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _knows_probabilities(self) -> Self:
        if self.soft and self.objective != "dpo":
            raise ValueError(f"soft labels are for objective dpo; {self.objective} takes one of two as the better")
        return self


def pair_losses(given: Logprobs, probability: torch.Tensor, config: DPOConfig) -> torch.Tensor:
    """One loss per pair (P,); `probability` (P,) is how likely the chosen one is the better, 1 without soft labels."""
    if config.soft:
        return conservative_dpo_loss(*given, config.dpo_beta, 1 - probability)
    if config.objective == "conservative":
        return conservative_dpo_loss(*given, config.dpo_beta, config.flipped)
    losses: dict[str, Callable[..., torch.Tensor]] = {"dpo": dpo_loss, "ipo": ipo_loss}
    return losses[config.objective](*given, config.dpo_beta)


def ranking_losses(
    logprob: torch.Tensor, ref_logprob: torch.Tensor, batch: RankedRows, config: DPOConfig
) -> torch.Tensor:
    """The mean over each ranking's pairs, (B,); logprob and ref_logprob (B, Kmax)."""
    pairs = untied_pairs(batch.rank, batch.valid)
    if config.soft:
        pairs = (batch.valid.unsqueeze(2) & batch.valid.unsqueeze(1)).triu(1)
    row, chosen, rejected = pairs.nonzero(as_tuple=True)
    probability = torch.ones(len(row), device=row.device)
    if config.soft:
        assert batch.share is not None
        probability = batch.share[row, chosen, rejected]
    given = (logprob[row, chosen], logprob[row, rejected], ref_logprob[row, chosen], ref_logprob[row, rejected])
    each = pair_losses(given, probability, config) / pairs.sum((1, 2))[row]
    if batch.weight is not None:
        each = each * batch.weight[row, chosen, rejected]
    return logprob.new_zeros(len(logprob)).index_add(0, row, each)


def micro_batches(items: Sequence[EncodedRanking], max_tokens: int) -> list[list[EncodedRanking]]:
    """Whole rankings in parts of similar length within max_tokens; a prompt counts once."""
    length = [len(item.rows[0].prompt) + sum(len(row.response) for row in item.rows) for item in items]
    return [[items[i] for i in part.tolist()] for part in by_length(torch.tensor(length), max_tokens)]


def response_logprobs(policy: Policy, batch: RankedRows, config: DPOConfig) -> torch.Tensor:
    """log π of whole responses, (B, Kmax)."""
    with autocast(policy.device, config.precision):
        each = policy.logprob(batch.rows)
    return batch.grid(masked_sum(each, batch.rows.mask))


def of_reference(policy: Policy, items: Sequence[EncodedRanking], pad: int, config: DPOConfig) -> Reference:
    """What the policy as it is now gives the rankings' responses."""

    def read(part: list[EncodedRanking]) -> torch.Tensor:
        return response_logprobs(policy, to_ranked_rows(part, pad).to(policy.device), config)

    parts = micro_batches(items, config.max_tokens) if items else []
    found = zip(parts, in_order(policy, read, parts), strict=True)
    return {item.id: row[: len(item.rank)] for part, rows in found for item, row in zip(part, rows, strict=True)}


def sums(
    policy: Policy, items: Sequence[EncodedRanking], ref_logprob: Reference, pad: int, config: DPOConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Over the rankings, the sums of their losses, of their accuracies by implied reward, and of log π/π_ref of what
    is ranked first, in nats; one forward pass per response."""
    batch = to_ranked_rows(items, pad).to(policy.device)
    width = batch.valid.shape[1]
    ref = torch.stack([pad_to(ref_logprob[item.id][None], width)[0] for item in items])
    logprob = response_logprobs(policy, batch, config)
    reward = (logprob.detach() - ref).masked_fill(~batch.valid, 0)
    accuracy = ranking_accuracy(reward, batch.rank, batch.valid)
    best = best_of(batch.rank, batch.valid)
    moved = (reward * best).sum(1) / best.sum(1)
    return ranking_losses(logprob, ref, batch, config).sum(), accuracy.sum(), moved.sum()


def backward(
    policy: Policy, items: Sequence[EncodedRanking], ref_logprob: Reference, pad: int, config: DPOConfig
) -> dict[str, float]:
    """Accumulate the gradient of the mean loss over the rankings; returns that mean and what is logged with it."""

    def mean_loss(part: list[EncodedRanking]) -> tuple[torch.Tensor, torch.Tensor]:
        loss, *others = sums(policy, part, ref_logprob, pad, config)
        mean = loss / len(items)
        return mean, torch.stack([mean.detach(), *others])

    found = torch.stack(accumulate(policy, mean_loss, micro_batches(items, config.max_tokens))).sum(0).tolist()
    return {
        "loss": found[0],
        "accuracy": found[1] / max(1, len(ordered(items))),
        "best_logratio": found[2] / len(items),
    }


def validate(
    policy: Policy, items: Sequence[EncodedRanking], ref_logprob: Reference, pad: int, config: DPOConfig
) -> dict[str, float]:
    """Mean loss and mean accuracy over the rankings."""
    parts = micro_batches(items, config.max_tokens)
    found = in_order(policy, lambda part: torch.stack(sums(policy, part, ref_logprob, pad, config)), parts)
    total = torch.stack(found).double().sum(0).tolist()
    return {"valid_loss": total[0] / len(items), "valid_accuracy": total[1] / max(1, len(ordered(items)))}


def train(
    config: DPOConfig,
    policy: Policy,
    data: Sequence[EncodedRanking],
    valid: Sequence[EncodedRanking],
    ref_logprob: Reference,
    pad: int,
    run: Run,
) -> None:
    """Improve the policy in place; validation every quarter epoch."""
    optimizer = adam(policy.parameters(), config.lr, config.weight_decay)
    steps_per_epoch = -(-len(data) // config.batch_size)
    num_steps = steps_per_epoch * config.epochs
    check_every = max(1, steps_per_epoch // 4)
    done, _ = run.restore(policy=policy, optimizer=optimizer)
    order: list[int] = []
    for step in run.track(range(done, num_steps), num_steps, run.folder.name):
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0 or not order:
            shuffle = torch.Generator().manual_seed(run.seed * 1000 + epoch)
            order = torch.randperm(len(data), generator=shuffle).tolist()
        # 1. one batch: every comparison of batch_size rankings
        items = [data[i] for i in order[place * config.batch_size : (place + 1) * config.batch_size]]
        # 2. one forward per response; the mean over each ranking's comparisons, then over rankings
        metrics = backward(policy, items, ref_logprob, pad, config)
        metrics["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm))
        run.check_finite(step, **metrics)
        # 3. update
        metrics["lr"] = config.lr * linear_warmup(step, config.warmup_steps, 0.0)
        set_lr(optimizer, metrics["lr"])
        optimizer.step()
        optimizer.zero_grad()
        if valid and (step % check_every == check_every - 1 or step == num_steps - 1):
            metrics |= validate(policy, valid, ref_logprob, pad, config)
        run.log(step, **metrics, epoch=epoch + 1)
        run.save_if_due(step + 1, policy=policy, optimizer=optimizer)


def main(config: DPOConfig, run: Run, policy_folder: Path, rankings: Path, format: PromptFormat) -> None:
    """Read the policy and the rankings, train, write `model/`.

    Training takes the training labelers' judgements of training prompts; validation theirs of validation prompts.

    Raises:
        InputError: no training ranking has an untied pair.
    """
    policy, tokenizer = load_policy(policy_folder, config.base_precision)
    encoder, pad = Encoder(tokenizer, format, context_length(policy.decoder)), pad_id(tokenizer)
    learned = compared(
        encoder, read_snapshot(rankings), rankings, config.soft, per_pair=False, weights=config.labeler_weights
    )
    ref_logprob = of_reference(policy, [*learned.train, *learned.valid], pad, config)
    prepare(policy.decoder, config, run.seed)
    train(config, policy, learned.train, learned.valid, ref_logprob, pad, run)
    save_policy(run.folder / "model", policy, tokenizer, run.manifest["parents"])
    for reason, number in (*encoder.dropped.items(), *learned.dropped.items()):
        run.count(reason, number)
    run.finish(**learned.told)
