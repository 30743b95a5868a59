"""Pretraining: a language model from scratch, for worlds that bring their own text.

Next-token prediction over documents joined into one stream and cut into windows. Used where a recipe has no
pretrained model to start from; any Hugging Face decoder takes its place otherwise.

Symbols: windows (n, T) tokens; one step trains on `batch_size` windows.
Command: heedful pretrain RECIPE --dir DIR
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from heedful.config import Config, InputError
from heedful.engine.sample import mean_language_loss
from heedful.models.checkpoint import save_policy
from heedful.models.heads import Policy
from heedful.models.load import from_scratch
from heedful.models.optimizer import Precision, adam, autocast, cosine, set_lr
from heedful.run import Run
from heedful.snapshot import read_snapshot
from heedful.text.collate import windows


class PretrainConfig(Config):
    shape: dict[str, Any]  # a Hugging Face model configuration: model_type, hidden_size, num_hidden_layers, …
    window: int = Field(default=256, ge=2)  # tokens
    batch_size: int = Field(default=16, ge=1)  # windows per step
    epochs: int = Field(default=1, ge=1)  # passes over the training documents
    lr: float = Field(default=4e-3, gt=0)
    warmup_steps: int = Field(default=20, ge=0)
    weight_decay: float = Field(default=0.1, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Precision = "auto"


def language_loss(policy: Policy, tokens: torch.Tensor, precision: Precision) -> torch.Tensor:
    """Mean negative log-likelihood in nats per token over whole windows (n, T): each token after the first counts."""
    length = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
    with autocast(tokens.device, precision):
        loss, mask = policy.language_loss(tokens, length)
    return loss.sum() / mask.sum()


def train(config: PretrainConfig, policy: Policy, data: torch.Tensor, valid: torch.Tensor, run: Run) -> None:
    """Train on data (n, T); the order of each epoch follows from the run's seed."""
    optimizer = adam(policy.parameters(), config.lr, config.weight_decay)
    steps_per_epoch = len(data) // config.batch_size
    num_steps = steps_per_epoch * config.epochs
    done, _ = run.restore(policy=policy, optimizer=optimizer)
    policy.train()
    order = torch.empty(0)
    for step in run.track(range(done, num_steps), num_steps, "pretraining"):
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0 or len(order) == 0:
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(run.seed * 1000 + epoch))
        batch = data[order[place * config.batch_size : (place + 1) * config.batch_size]]
        lr = config.lr * cosine(step, num_steps, floor=0.05, warmup=config.warmup_steps)
        set_lr(optimizer, lr)
        loss = language_loss(policy, batch, config.precision)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        run.check_finite(step, loss=loss, gradient_norm=norm)
        optimizer.step()
        optimizer.zero_grad()
        metrics = {"loss": loss, "lr": lr, "gradient_norm": norm, "tokens": (step + 1) * batch.numel()}
        if step == num_steps - 1 or step % 100 == 99:
            policy.eval()
            metrics["valid_loss"] = mean_language_loss(policy, valid, config.batch_size, config.precision)
            policy.train()
        run.log(step, **metrics)
        run.save_if_due(step + 1, policy=policy, optimizer=optimizer)
    policy.eval()


def main(config: PretrainConfig, run: Run, tokenizer: PreTrainedTokenizerBase, documents: Path) -> None:
    """Read the documents' snapshot, train, write `model/` in the run's folder.

    Raises:
        InputError: fewer documents than one batch of windows.
    """
    snapshot = read_snapshot(documents)
    data = windows(snapshot.documents_of("train"), tokenizer, config.window)
    valid = windows(snapshot.documents_of("valid"), tokenizer, config.window)
    if len(data) < config.batch_size or not len(valid):
        raise InputError(f"{documents}: {len(data)} training and {len(valid)} validation windows; more text is needed")
    policy = Policy(from_scratch(config.shape | {"vocab_size": len(tokenizer)}, run.seed))
    train(config, policy, data, valid, run)
    save_policy(run.folder / "model", policy, tokenizer, parents=run.manifest["parents"])
    run.finish(valid_loss=mean_language_loss(policy, valid, config.batch_size, config.precision), tokens=data.numel())
