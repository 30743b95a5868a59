"""Pretraining: a language model from scratch, for worlds that bring their own text.

Next-token prediction over documents. Used where a recipe has no pretrained model to start from; any Hugging Face
decoder takes its place otherwise.

Symbols: texts (n, T) tokens with their lengths; one step trains on rows of about `batch_tokens` tokens.
Command: heedful pretrain RECIPE --dir DIR
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from heedful.batch import Texts
from heedful.config import Config, InputError
from heedful.engine.sample import mean_language_loss
from heedful.models.checkpoint import save_policy
from heedful.models.heads import Policy
from heedful.models.load import compute_device, from_scratch
from heedful.models.optimizer import Precision, adam, autocast, cosine, set_lr
from heedful.models.threads import accumulate
from heedful.run import Run
from heedful.snapshot import read_snapshot
from heedful.text.collate import Encoder, texts
from heedful.text.format import PromptFormat
from heedful.text.parts import by_length, by_width


class PretrainConfig(Config):
    shape: dict[str, Any]  # a Hugging Face model configuration: model_type, hidden_size, num_hidden_layers, …
    window: int = Field(default=256, ge=2)  # most tokens in a row
    batch_tokens: int = Field(default=4096, ge=2)  # per step, padding counted
    epochs: int = Field(default=1, ge=1)  # passes over the training documents
    lr: float = Field(default=4e-3, gt=0)
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.1, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=16384, ge=1)  # per forward pass; more memory, same result
    precision: Precision = "auto"


def backward(policy: Policy, texts: Texts, config: PretrainConfig) -> torch.Tensor:
    """Accumulate the gradient of the mean loss in nats per token after each row's first; returns that mean."""
    total = int((texts.length - 1).sum())

    def loss(index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(policy.device, config.precision):
            loss, _ = policy.language_loss(*texts.select(index).to(policy.device))
        part = loss.sum() / total
        return part, part.detach()

    return torch.stack(accumulate(policy, loss, by_length(texts.length, config.max_tokens))).sum()


def epoch_batches(length: torch.Tensor, batch_tokens: int, seed: int) -> list[torch.Tensor]:
    """One epoch's batches of row indices: rows of like length together, which ones and in which order drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(length), generator=generator)
    batches = [shuffled[index] for index in by_width(length[shuffled], batch_tokens)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def train(config: PretrainConfig, policy: Policy, data: Texts, valid: Texts, run: Run) -> None:
    """Train on the text; the order of each epoch follows from the run's seed."""
    optimizer = adam(policy.parameters(), config.lr, config.weight_decay)
    steps_per_epoch = len(epoch_batches(data.length, config.batch_tokens, 0))
    num_steps = steps_per_epoch * config.epochs
    done, _ = run.restore(policy=policy, optimizer=optimizer)
    policy.train()
    batches: list[torch.Tensor] = []
    for step in run.track(range(done, num_steps), num_steps, "pretraining"):
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0 or not batches:
            batches = epoch_batches(data.length, config.batch_tokens, run.seed * 1000 + epoch)
        batch = data.select(batches[place])
        lr = config.lr * cosine(step, num_steps, floor=0.05, warmup=config.warmup_steps)
        set_lr(optimizer, lr)
        loss = backward(policy, batch, config)
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        run.check_finite(step, loss=loss, gradient_norm=norm)
        optimizer.step()
        optimizer.zero_grad()
        metrics = {"loss": loss, "lr": lr, "gradient_norm": norm, "tokens": int(batch.length.sum())}
        if step == num_steps - 1 or step % 200 == 199:
            policy.eval()
            metrics["valid_loss"] = mean_language_loss(policy, valid, config.max_tokens, config.precision)
            policy.train()
        run.log(step, **metrics)
        run.save_if_due(step + 1, policy=policy, optimizer=optimizer)
    policy.eval()


def main(
    config: PretrainConfig, run: Run, tokenizer: PreTrainedTokenizerBase, documents: Path, format: PromptFormat
) -> None:
    """Read the documents' snapshot, train, write `model/` in the run's folder.

    Raises:
        InputError: no text to train or to validate on.
    """
    snapshot = read_snapshot(documents)
    encoder = Encoder(tokenizer, format)
    data = texts(snapshot.documents_of("train"), encoder, config.window)
    valid = texts(snapshot.documents_of("valid"), encoder, config.window)
    if not len(data.length) or not len(valid.length):
        raise InputError(f"{documents}: {len(data.length)} training and {len(valid.length)} validation rows; add text")
    policy = Policy(from_scratch(config.shape | {"vocab_size": len(tokenizer)}, run.seed)).to(compute_device())
    train(config, policy, data, valid, run)
    save_policy(run.folder / "model", policy, tokenizer, parents=run.manifest["parents"])
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    run.finish(
        valid_loss=mean_language_loss(policy, valid, config.max_tokens, config.precision),
        tokens=int(data.length.sum()),
    )
