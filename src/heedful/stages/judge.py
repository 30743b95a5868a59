"""Teaching a language model to judge: pages, each with questions behind it, whose answers alone are learned.

    page                            what all its questions are about, such as a pair of responses
    question 1  label               each question stands behind the page by itself, as it will be asked
    question 2  label

    loss = mean over the batch's questions of −log π(label | page, question), in nats

The judges of RLAIF (arXiv 2309.00267) and SALMON (arXiv 2310.05910) are instruction-tuned models of billions of
parameters, and are taught nothing more; a small one has to be. Two things differ from `stages.sft`: a question's own
words are not learned, which outnumber its label eightfold; and a page is computed once for all its questions.

A snapshot holds them: pages are prompts, each demonstration of one is a question that ends in its label, one token.

Symbols: rows (N, T) pages + questions, those of one page with one `group`; a row's label is its last token.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from pydantic import Field

from heedful.config import Config, InputError
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.heads import Policy
from heedful.models.load import context_length
from heedful.models.optimizer import Precision, adam, autocast, cosine, set_lr
from heedful.models.threads import accumulate, in_order
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot
from heedful.text.collate import Encoded, Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.text.parts import by_prompt
from heedful.text.tokenizer import pad_id
from heedful.types import Response, Split

Page = list[Encoded]  # its questions, each with its label


class TeachConfig(Config):
    epochs: int = Field(default=1, ge=1)  # over the pages
    batch_size: int = Field(default=64, ge=1)  # pages per step
    lr: float = Field(default=1.5e-3, gt=0)
    final_lr: float = Field(default=0.1, ge=0, le=1)  # cosine down to this share, no warm-up
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_tokens: int = Field(default=4096, ge=1)  # per forward pass; more memory, same result
    precision: Precision = "auto"


def label_loss(policy: Policy, items: Sequence[Encoded], pad: int, precision: Precision) -> torch.Tensor:
    """Sum over the questions of −log π(label), in nats."""
    rows = to_rows(items, pad).to(policy.device)
    with autocast(rows.tokens.device, precision):
        logprob = policy.logprob(rows)
    return -logprob.gather(1, rows.response_length[:, None] - 1).sum()


def parts_of(pages: Sequence[Page], pad: int, max_tokens: int) -> list[Page]:
    """The pages' questions in parts that one pass takes, those of one page together."""
    items = [question for page in pages for question in page]
    return [[items[i] for i in part.tolist()] for part in by_prompt(to_rows(items, pad), max_tokens)]


def backward(policy: Policy, pages: Sequence[Page], pad: int, config: TeachConfig) -> torch.Tensor:
    """Accumulate the gradient of the mean loss over the pages' questions; returns that mean."""
    total = sum(map(len, pages))

    def share(part: Page) -> tuple[torch.Tensor, torch.Tensor]:
        loss = label_loss(policy, part, pad, config.precision) / total
        return loss, loss.detach()

    return torch.stack(accumulate(policy, share, parts_of(pages, pad, config.max_tokens))).sum()


def mean_loss(policy: Policy, pages: Sequence[Page], pad: int, config: TeachConfig) -> float:
    """Mean loss in nats per question."""
    policy.eval()
    parts = parts_of(pages, pad, config.max_tokens)
    losses = in_order(policy, lambda part: float(label_loss(policy, part, pad, config.precision)), parts)
    policy.train()
    return sum(losses) / sum(map(len, pages))


def train(
    config: TeachConfig, policy: Policy, pages: Sequence[Page], valid: Sequence[Page], pad: int, run: Run
) -> list[float]:
    """Teach; returns each epoch's validation loss."""
    optimizer = adam(policy.parameters(), config.lr, config.weight_decay)
    steps_per_epoch = -(-len(pages) // config.batch_size)
    num_steps = steps_per_epoch * config.epochs
    done, plain = run.restore(policy=policy, optimizer=optimizer)
    valid_loss: list[float] = plain.get("valid_loss", [])
    policy.train()
    order: list[int] = []
    for step in run.track(range(done, num_steps), num_steps, "teaching a judge"):
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0 or not order:
            generator = torch.Generator().manual_seed(run.seed * 1000 + epoch)
            order = torch.randperm(len(pages), generator=generator).tolist()
        set_lr(optimizer, config.lr * cosine(step, num_steps, config.final_lr))
        chosen = order[place * config.batch_size : (place + 1) * config.batch_size]
        loss = backward(policy, [pages[i] for i in chosen], pad, config)
        norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm)
        run.check_finite(step, loss=loss, gradient_norm=norm)
        optimizer.step()
        optimizer.zero_grad()
        metrics = {"loss": loss, "lr": optimizer.param_groups[0]["lr"], "gradient_norm": norm, "epoch": epoch + 1}
        if place == steps_per_epoch - 1:
            valid_loss.append(mean_loss(policy, valid, pad, config))
            metrics["valid_loss"] = valid_loss[-1]
        run.log(step, **metrics)
        run.save_if_due(step + 1, policy=policy, optimizer=optimizer, valid_loss=valid_loss)
    policy.eval()
    return valid_loss


def read_pages(snapshot: Snapshot, split: Split, encoder: Encoder) -> list[Page]:
    """The split's pages, without those that do not fit; a question stands beside the others of its page."""
    found: list[Page] = []
    for _, asked in groupby(snapshot.demonstrations_of(split), key=lambda one: one[0].id):
        both = list(asked)
        questions = [Response(id=d.id, prompt_id=d.prompt_id, text=d.text, finished=False) for _, d in both]
        found.append([row for _, row in encoder.responses(both[0][0], questions) or []])
    return [page for page in found if page]


def main(config: TeachConfig, run: Run, model: Path | str, pages: Path, format: PromptFormat) -> None:
    """Read the pages, teach the model, keep it in `model/`.

    Raises:
        InputError: no page to learn from, or none to measure on.
    """
    policy, tokenizer = load_policy(model)
    encoder = Encoder(tokenizer, format, context_length(policy.decoder))
    snapshot = read_snapshot(pages)
    data, valid = read_pages(snapshot, "train", encoder), read_pages(snapshot, "valid", encoder)
    if not data or not valid:
        raise InputError(f"{pages}: {len(data)} training and {len(valid)} validation pages; both needed")
    valid_loss = train(config, policy, data, valid, pad_id(tokenizer), run)
    save_policy(run.folder / "model", policy, tokenizer, run.manifest["parents"])
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    run.finish(valid_loss=valid_loss, num_pages=len(data), num_questions=sum(map(len, data)))
