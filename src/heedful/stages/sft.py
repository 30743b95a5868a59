"""Supervised fine-tuning on labelers' demonstrations (InstructGPT, arXiv 2203.02155, section 3.5 and appendix C.1).

The loss is over response tokens only. Validation loss overfits long before people's preference does, so every epoch is
kept: the first rankings come from the epoch of lowest loss, and once a reward model stands the epoch is chosen again by
its score. With `pretraining_mix` the same loop makes the policy's starting point (appendix C.3: two epochs, 10 %).

We differ in that the loss is a mean over the batch's response tokens, whatever the micro-batches.

Symbols: rows (N, T) prompts + responses; logprob, mask (N, R).
Command: heedful sft RECIPE --dir DIR
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from heedful.batch import Rows, Texts
from heedful.config import Config, InputError
from heedful.losses.sft import sft_loss
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.heads import Policy
from heedful.models.load import context_length, set_residual_dropout
from heedful.models.lora import LoraAlpha, LoraRank, prepare
from heedful.models.optimizer import Precision, adam, autocast, cosine, set_lr
from heedful.models.quantized import BasePrecision
from heedful.models.threads import accumulate, in_order
from heedful.run import Run
from heedful.snapshot import read_snapshot
from heedful.text.collate import Encoded, Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.text.mixed import mixed_in
from heedful.text.parts import by_length
from heedful.text.tokenizer import pad_id


class SFTConfig(Config):
    epochs: int = Field(default=16, ge=1)  # InstructGPT: 16; 2 for the policy's starting point
    batch_size: int = Field(default=32, ge=1)  # demonstrations per step; InstructGPT: 32 (8 for 175B)
    lr: float = Field(default=9.65e-6, gt=0)  # InstructGPT: 9.65e-6 (1.3B, 6B), 5.03e-6 (175B)
    final_lr: float = Field(default=0.1, ge=0, le=1)  # cosine down to this share, no warm-up
    residual_dropout: float = Field(default=0.2, ge=0, lt=1)
    pretraining_mix: float = Field(default=0.0, ge=0, lt=1)  # share of pretraining rows among examples; 0.1 in C.3
    window: int = Field(default=256, ge=2)  # most tokens in a pretraining row
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora_rank: LoraRank = 0  # low-rank adapters on every linear module; 0: all weights train
    lora_alpha: LoraAlpha = None  # null: 2 · lora_rank
    base_precision: BasePrecision = "full"  # of the weights under adapters: full, fp32; nf4, 4 bits (QLoRA)
    activation_checkpointing: bool = False  # recompute layers in the backward pass: less memory, a third more time
    max_tokens: int = Field(default=16384, ge=1)  # per forward pass; more memory, same result
    precision: Precision = "auto"


def response_loss(policy: Policy, rows: Rows, precision: Precision) -> torch.Tensor:
    """Sum over the rows' response tokens of −log π(token), in nats."""
    with autocast(rows.tokens.device, precision):
        logprob = policy.logprob(rows)
    return (sft_loss(logprob) * rows.mask).sum()


def backward(policy: Policy, items: Sequence[Encoded], pad: int, config: SFTConfig) -> torch.Tensor:
    """Accumulate the gradient of the mean loss over the items' response tokens; returns that mean."""
    rows = to_rows(items, pad).to(policy.device)
    total = rows.response_length.sum()

    def share(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss = response_loss(policy, rows.select(index), config.precision) / total
        return loss, loss.detach()

    return torch.stack(accumulate(policy, share, by_length(rows.length, config.max_tokens))).sum()


def mean_loss(policy: Policy, items: Sequence[Encoded], pad: int, config: SFTConfig) -> float:
    """Mean loss in nats per response token, dropout off."""
    policy.eval()
    rows = to_rows(items, pad).to(policy.device)
    parts = by_length(rows.length, config.max_tokens)
    losses = in_order(policy, lambda index: float(response_loss(policy, rows.select(index), config.precision)), parts)
    policy.train()
    return sum(losses) / int(rows.response_length.sum())


def epoch_items(
    demonstrations: Sequence[Encoded], pretraining: Texts | None, config: SFTConfig, seed: int
) -> list[Encoded]:
    """One epoch's examples in their order: all demonstrations, and fresh pretraining rows at the mix's share."""
    generator = torch.Generator().manual_seed(seed)
    items = list(demonstrations)
    if pretraining is not None:
        number = round(len(items) * config.pretraining_mix / (1 - config.pretraining_mix))
        chosen = torch.randint(len(pretraining.length), (number,), generator=generator).tolist()
        rows = [pretraining.tokens[i, : pretraining.length[i]].tolist() for i in chosen]
        items += [Encoded(row[:1], row[1:]) for row in rows]
    return [items[i] for i in torch.randperm(len(items), generator=generator).tolist()]


def train(
    config: SFTConfig,
    policy: Policy,
    demonstrations: Sequence[Encoded],
    valid: Sequence[Encoded],
    pretraining: Texts | None,
    pad: int,
    run: Run,
    keep: "KeepEpoch",
) -> list[float]:
    """Fine-tune; `keep(policy, epoch)` is called after each epoch. Returns each epoch's validation loss."""
    optimizer = adam(policy.parameters(), config.lr, config.weight_decay)
    set_residual_dropout(policy.decoder, config.residual_dropout)
    epoch_length = len(epoch_items(demonstrations, pretraining, config, 0))
    steps_per_epoch = -(-epoch_length // config.batch_size)
    num_steps = steps_per_epoch * config.epochs
    done, plain = run.restore(policy=policy, optimizer=optimizer)
    valid_loss: list[float] = plain.get("valid_loss", [])
    policy.train()
    items: list[Encoded] = []
    for step in run.track(range(done, num_steps), num_steps, "supervised fine-tuning"):
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0 or not items:
            items = epoch_items(demonstrations, pretraining, config, run.seed * 1000 + epoch)
        set_lr(optimizer, config.lr * cosine(step, num_steps, config.final_lr))
        loss = backward(policy, items[place * config.batch_size : (place + 1) * config.batch_size], pad, config)
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        run.check_finite(step, loss=loss, gradient_norm=norm)
        optimizer.step()
        optimizer.zero_grad()
        metrics = {"loss": loss, "lr": optimizer.param_groups[0]["lr"], "gradient_norm": norm, "epoch": epoch + 1}
        if place == steps_per_epoch - 1:
            valid_loss.append(mean_loss(policy, valid, pad, config))
            metrics["valid_loss"] = valid_loss[-1]
            keep(policy, epoch + 1)
        run.log(step, **metrics)
        run.save_if_due(step + 1, policy=policy, optimizer=optimizer, valid_loss=valid_loss)
    set_residual_dropout(policy.decoder, 0.0)
    policy.eval()
    return valid_loss


class KeepEpoch:
    """Writes each epoch's policy to `epoch-NN/` in the run's folder."""

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerBase) -> None:
        self.run = run
        self.tokenizer = tokenizer

    def __call__(self, policy: Policy, epoch: int) -> None:
        save_policy(epoch_folder(self.run.folder, epoch), policy, self.tokenizer, self.run.manifest["parents"])


def epoch_folder(folder: Path, epoch: int) -> Path:
    """Where an SFT run keeps the policy after `epoch` epochs (from 1)."""
    return folder / f"epoch-{epoch:02d}"


def main(
    config: SFTConfig, run: Run, model: Path | str, demonstrations: Path, format: PromptFormat, documents: Path | None
) -> None:
    """Read snapshots, fine-tune the model, keep every epoch; the results name the one of lowest validation loss.

    Raises:
        InputError: no training or validation demonstration, or a pretraining mix without text.
    """
    policy, tokenizer = load_policy(model, config.base_precision)
    encoder = Encoder(tokenizer, format, context_length(policy.decoder))
    snapshot = read_snapshot(demonstrations)
    data = encoder.demonstrations(snapshot.demonstrations_of("train"))
    valid = encoder.demonstrations(snapshot.demonstrations_of("valid"))
    if not data or not valid:
        raise InputError(
            f"{demonstrations}: {len(data)} training and {len(valid)} validation demonstrations; both needed"
        )
    mix = config.pretraining_mix
    pretraining = mixed_in(documents, encoder, config.window, "sft", "pretraining_mix") if mix else None
    prepare(policy.decoder, config, run.seed)
    valid_loss = train(config, policy, data, valid, pretraining, pad_id(tokenizer), run, KeepEpoch(run, tokenizer))
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    lowest = valid_loss.index(min(valid_loss)) + 1
    run.finish(valid_loss=valid_loss, lowest_loss_epoch=lowest, num_demonstrations=len(data))
