"""The reward model, trained on K-way rankings (InstructGPT, arXiv 2203.02155, equation 1 and appendix C.2).

All C(K,2) comparisons of one ranking are one batch element: one forward pass per response, K instead of 2·C(K,2), two
for each pair, and no response takes K − 1 gradient steps, which is what made shuffled pairs overfit within an epoch.
Tied pairs are left out.
A bias then makes the demonstrations score 0 on average.
That is objective `ranking`; the others, in `feedback.objectives`, are losses of the same scores.

With a `guideline` the model follows written principles (SALMON, arXiv 2310.05910, section 3.3): it learns from
rankings under principles, whose texts stand behind the response, and nothing else changes. Its scores are not centred,
since nobody writes a demonstration under principles. With `fixed_principles` too, it learns from plain rankings under
these texts: preference pretraining, from whose model the next one begins, head and all.

The paper does not say how the head starts: here as in Stiennon et al. (arXiv 2009.01325), at scores of order one, so
that the first loss lies somewhat above ln 2.

Symbols: B rankings of up to Kmax responses; score, rank, valid (B, Kmax).
Command: heedful reward RECIPE --dir DIR
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from heedful.batch import RankedRows
from heedful.engine.sample import score_rows
from heedful.feedback.objectives import OBJECTIVES, LearnedConfig, learned_from, ordered
from heedful.losses.ranking import ranking_accuracy
from heedful.models.checkpoint import begin_reward_model, save_reward_model
from heedful.models.heads import RewardModel
from heedful.models.load import context_length
from heedful.models.lora import LoraAlpha, LoraRank, prepare
from heedful.models.optimizer import Precision, adam, autocast, cosine, set_lr
from heedful.models.quantized import BasePrecision
from heedful.models.threads import accumulate, in_order
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.text.collate import Encoded, EncodedRanking, Encoder, to_ranked_rows, to_rows
from heedful.text.format import PromptFormat
from heedful.text.parts import by_length
from heedful.text.tokenizer import pad_id

Loss = Callable[[torch.Tensor, RankedRows], torch.Tensor]  # score (B, Kmax) and its batch → (B,)


class RewardModelConfig(LearnedConfig):
    init: Literal["sft", "pretrained", "random"] = "sft"  # InstructGPT: similar results from SFT and from pretrained
    epochs: int = Field(default=1, ge=1)  # InstructGPT: 1; more overfit
    batch_size: int = Field(default=64, ge=1)  # rankings per step; InstructGPT: 64, up to 2,304 comparisons
    lr: float = Field(default=9e-6, gt=0)  # InstructGPT: 9e-6
    final_lr: float = Field(default=0.1, ge=0, le=1)  # cosine down to this share
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    margin: float = Field(default=1.0, ge=0)  # of the hinge objective
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora_rank: LoraRank = 0  # low-rank adapters on every linear module; 0: all weights train
    lora_alpha: LoraAlpha = None  # null: 2 · lora_rank
    base_precision: BasePrecision = "full"  # of the weights under adapters: full, fp32; nf4, 4 bits (QLoRA)
    activation_checkpointing: bool = False  # recompute layers in the backward pass: less memory, a third more time
    max_tokens: int = Field(default=16384, ge=1)  # per forward pass; a ranking is never split
    precision: Precision = "auto"


def objective(config: RewardModelConfig) -> Loss:
    """The objective that the configuration names."""
    return lambda score, batch: OBJECTIVES[config.objective](score, batch, config.margin)


def micro_batches(items: Sequence[EncodedRanking], max_tokens: int) -> list[list[EncodedRanking]]:
    """Whole rankings in parts of similar length within max_tokens; a prompt counts once."""
    length = [len(item.rows[0].prompt) + sum(len(row.response) for row in item.rows) for item in items]
    parts = by_length(torch.tensor(length), max_tokens)
    return [[items[i] for i in part.tolist()] for part in parts]


def backward(
    model: RewardModel, items: Sequence[EncodedRanking], pad: int, loss: Loss, config: RewardModelConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Accumulate the gradient of the mean loss over the rankings; returns that mean and the mean accuracy."""
    num_ordered = len(ordered(items))

    def mean_loss(part: list[EncodedRanking]) -> tuple[torch.Tensor, torch.Tensor]:
        total, right = sum_loss(model, part, pad, loss, config)
        mean = total / len(items)
        return mean, torch.stack([mean.detach(), right / max(1, num_ordered)])

    mean = torch.stack(accumulate(model, mean_loss, micro_batches(items, config.max_tokens))).sum(0)
    return mean[0], mean[1]


def validate(
    model: RewardModel, items: Sequence[EncodedRanking], pad: int, loss: Loss, config: RewardModelConfig
) -> tuple[float, float]:
    """Mean loss and mean accuracy over the rankings."""
    parts = micro_batches(items, config.max_tokens)
    sums = in_order(model, lambda part: torch.stack(sum_loss(model, part, pad, loss, config)), parts)
    total = torch.stack(sums).double().sum(0)
    return float(total[0] / len(items)), float(total[1] / max(1, len(ordered(items))))


def sum_loss(
    model: RewardModel, items: Sequence[EncodedRanking], pad: int, loss: Loss, config: RewardModelConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sums over the rankings of their losses and of their accuracies, one forward per response."""
    batch = to_ranked_rows(items, pad).to(model.device)
    with autocast(batch.rank.device, config.precision):
        score = batch.grid(model(batch.rows))
    accuracy = ranking_accuracy(score.detach(), batch.rank, batch.valid).sum()
    return loss(score, batch).sum(), accuracy


def train(
    config: RewardModelConfig,
    model: RewardModel,
    data: Sequence[EncodedRanking],
    valid: Sequence[EncodedRanking],
    pad: int,
    run: Run,
) -> None:
    """Train on rankings; validation every quarter epoch, since a second pass already overfits."""
    optimizer = adam(model.parameters(), config.lr, config.weight_decay)
    loss_of = objective(config)
    steps_per_epoch = -(-len(data) // config.batch_size)
    num_steps = steps_per_epoch * config.epochs
    check_every = max(1, steps_per_epoch // 4)
    done, _ = run.restore(model=model, optimizer=optimizer)
    model.train()
    order: list[int] = []
    for step in run.track(range(done, num_steps), num_steps, "reward model"):
        epoch, place = divmod(step, steps_per_epoch)
        if place == 0 or not order:
            shuffle = torch.Generator().manual_seed(run.seed * 1000 + epoch)
            order = torch.randperm(len(data), generator=shuffle).tolist()
        # 1. one batch: every comparison of batch_size rankings
        items = [data[i] for i in order[place * config.batch_size : (place + 1) * config.batch_size]]
        # 2. one forward per response, the mean over each ranking's comparisons, then over rankings
        loss, accuracy = backward(model, items, pad, loss_of, config)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        run.check_finite(step, loss=loss, gradient_norm=norm)
        # 3. update
        set_lr(optimizer, config.lr * cosine(step, num_steps, config.final_lr, config.warmup_steps))
        optimizer.step()
        optimizer.zero_grad()
        metrics = {"loss": loss, "accuracy": accuracy, "gradient_norm": norm, "epoch": epoch + 1}
        if valid and (step % check_every == check_every - 1 or step == num_steps - 1):
            model.eval()
            metrics["valid_loss"], metrics["valid_accuracy"] = validate(model, valid, pad, loss_of, config)
            model.train()
        run.log(step, **metrics)
        run.save_if_due(step + 1, model=model, optimizer=optimizer)
    model.eval()


def center(model: RewardModel, demonstrations: Sequence[Encoded], pad: int, config: RewardModelConfig) -> float:
    """Shift the bias so that the demonstrations' mean score is 0; returns the mean that is left."""
    rows = to_rows(demonstrations, pad).to(model.device)
    mean = score_rows(model, rows, config.max_tokens, config.precision).double().mean()
    with torch.no_grad():
        model.bias.sub_(mean)
    return float(score_rows(model, rows, config.max_tokens, config.precision).double().mean())


def scores(model: RewardModel, item: EncodedRanking, pad: int, config: RewardModelConfig) -> list[float]:
    """The score of each response of one ranking, in its order."""
    return score_rows(model, to_rows(item.rows, pad).to(model.device), config.max_tokens, config.precision).tolist()


def main(
    config: RewardModelConfig,
    run: Run,
    model: Path,
    rankings: Path,
    demonstrations: Path | None,
    format: PromptFormat,
) -> None:
    """Read snapshots, train, centre on the demonstrations, write `model/`.

    Training takes the training labelers' judgements of training prompts; validation theirs of validation prompts.
    `model` is a policy, or the reward model that preference pretraining made.

    Raises:
        InputError: no ranking with an untied pair; for regression, no mark, or all of them equal.
    """
    reward_model, tokenizer = begin_reward_model(
        model, run.seed, config.init == "random", config.guideline, config.base_precision
    )
    encoder = Encoder(tokenizer, format, context_length(reward_model.trunk))
    snapshot = read_snapshot(rankings)
    written = Snapshot() if demonstrations is None or config.guideline else read_snapshot(demonstrations)
    learned = learned_from(config, encoder, snapshot, written, rankings)
    data, valid = learned.train, learned.valid
    shown = encoder.demonstrations(written.demonstrations_of("train"))
    prepare(reward_model.trunk, config, run.seed)
    followed = max(data, key=lambda item: len(set(item.rank)))  # the first of those with the most ranks
    before = scores(reward_model, followed, pad_id(tokenizer), config)
    train(config, reward_model, data, valid, pad_id(tokenizer), run)
    left = center(reward_model, shown, pad_id(tokenizer), config) if shown else None
    after = scores(reward_model, followed, pad_id(tokenizer), config)
    run.sample(ranking_id=followed.id, rank=followed.rank, before=before, after=after)
    if config.objective != "regression":
        write_snapshot(run.folder / "followed", snapshot.alone(followed.id))
    save_reward_model(run.folder / "model", reward_model, tokenizer, run.manifest["parents"], config.guideline)
    for reason, number in (*encoder.dropped.items(), *learned.dropped.items()):
        run.count(reason, number)
    asked = [item._replace(weight=()) for item in ordered(valid)]  # of every objective the same: equation 1
    loss, accuracy = None, None
    if asked:
        loss, accuracy = validate(reward_model, asked, pad_id(tokenizer), objective(RewardModelConfig()), config)
    run.finish(valid_loss=loss, valid_accuracy=accuracy, **learned.told, demonstration_score_mean=left)
