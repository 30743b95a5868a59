"""What the studies share: the prepared quickstart folder, one plain training loop, intervals over seeds, pictures."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from markupsafe import Markup

from heedful.config import read_recipe
from heedful.evaluate.statistics import Estimate, clustered_mean
from heedful.models.checkpoint import load_policy
from heedful.models.heads import RewardModel
from heedful.models.load import reinitialized
from heedful.models.optimizer import adam, cosine, set_lr
from heedful.pipeline.recipe import Recipe, build
from heedful.snapshot import Snapshot, read_snapshot
from heedful.stages.reward_model import RewardModelConfig, backward, objective, validate
from heedful.text.collate import EncodedRanking, Encoder
from heedful.text.tokenizer import pad_id

ROOT = Path(__file__).parent.parent
RUNS_VARIABLE = "HEEDFUL_RUNS"  # a folder that holds runs from one call to the next; without it they are made anew
SEEDS = (0, 1, 2)
CHECKS = 8  # measurements in one pass over the data


# Runs.


def code_of(commit: str = "HEAD") -> str:
    """The last commit up to this one that changed the package; other commits leave every run as it was."""
    git = ["git", "-C", str(ROOT), "log", "-1", "--format=%h", "--abbrev=12", commit, "--", "src"]
    return subprocess.run(git, capture_output=True, text=True).stdout.strip()


def changed() -> str:
    """A plus sign where the package differs from its commit, else nothing."""
    git = ["git", "-C", str(ROOT), "status", "--porcelain", "--", "src"]
    return "+" if subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip() else ""


def kept_runs() -> Path | None:
    name = os.environ.get(RUNS_VARIABLE)
    return Path(name) if name else None


def recipe_of(name: str, seed: int, settings: Sequence[str] = ()) -> Recipe:
    return build(read_recipe(name, [f"seed={seed}", *settings]))


def finished_run(recipe: Recipe, runs: Path) -> Path | None:
    """A finished run of just this recipe by just this code, if `runs` holds one."""
    for path in sorted(runs.glob("*/results.json")):
        commit = json.loads(path.read_text(encoding="utf-8"))["commit"]
        same_code = not changed() and not commit.endswith("+changes") and code_of(commit) == code_of()
        kept = json.loads((path.parent / "recipe.json").read_text(encoding="utf-8"))
        if same_code and kept == recipe.model_dump(mode="json"):
            return path.parent
    return None


def new_folder(recipe: Recipe, runs: Path) -> Path:
    """Where a run of this recipe by this code is kept."""
    return runs / f"{recipe.name}-{recipe.seed}-{code_of()}{changed()}"


class Prepared:
    """A quickstart folder whose reward model is trained, and what the studies read from it."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        assert recipe.reward_model is not None
        self.recipe = recipe
        self.folder = folder
        self.config: RewardModelConfig = recipe.reward_model
        self.start = folder / "pretrain" / "model"
        _, self.tokenizer = load_policy(self.start)
        self.pad = pad_id(self.tokenizer)

    @cached_property
    def snapshot(self) -> Snapshot:
        return read_snapshot(self.folder / "round-1" / "rankings" / "snapshot")

    def rankings(self, split: str, group: str) -> list[EncodedRanking]:
        """The group's rankings of the split's prompts; those of a prompt stand side by side."""
        return Encoder(self.tokenizer, self.recipe.format).rankings(self.snapshot.rankings_of(split, group))

    def labelers(self) -> dict[str, str]:
        """Ranking id → labeler."""
        return {ranking.id: ranking.labeler for ranking in self.snapshot.rankings}

    def prompts(self) -> dict[str, str]:
        """Ranking id → prompt."""
        return {ranking.id: ranking.prompt_id for ranking in self.snapshot.rankings}


# Reward models.


def new_reward_model(start: Path, seed: int, random: bool = False) -> RewardModel:
    """A fresh head on the policy's trunk, or on a trunk of its shape with random weights."""
    decoder = load_policy(start)[0].decoder
    return RewardModel.from_decoder(reinitialized(decoder, seed) if random else decoder, seed)


def training(
    model: RewardModel, data: Sequence[EncodedRanking], config: RewardModelConfig, pad: int, seed: int
) -> Iterator[tuple[float, float]]:
    """Train as the recipe's stage does, pausing CHECKS times a pass: (passes done, mean training loss since).

    The mean is over batches before each was learned from.
    """
    optimizer, loss_of = adam(model.parameters(), config.lr), objective(config)
    steps_per_pass = -(-len(data) // config.batch_size)
    num_steps = steps_per_pass * config.epochs
    pauses = {round(steps_per_pass * i / CHECKS) for i in range(1, CHECKS * config.epochs + 1)}
    losses: list[float] = []
    for step in range(num_steps):
        epoch, place = divmod(step, steps_per_pass)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1000 * seed + epoch)).tolist()
        batch = [data[i] for i in order[place * config.batch_size : (place + 1) * config.batch_size]]
        loss, _ = backward(model, batch, pad, loss_of, config)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        set_lr(optimizer, config.lr * cosine(step, num_steps, config.final_lr, config.warmup_steps))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        if step + 1 in pauses:
            yield (step + 1) / steps_per_pass, sum(losses) / len(losses)
            losses.clear()


def accuracies(model: RewardModel, items: Sequence[EncodedRanking], pad: int, config: RewardModelConfig) -> list[float]:
    """Each ranking's share of comparisons that the model orders as the labeler did."""
    return [validate(model, [item], pad, objective(config), config)[1] for item in items]


# Numbers.


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean and 95 % t-interval, one value per seed."""
    return clustered_mean(values, range(len(values)))


def shown(found: Estimate, digits: int = 3) -> str:
    return f"{found.mean:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def each(values: Sequence[float], digits: int = 3) -> str:
    """One number per seed."""
    return "/".join(f"{value:.{digits}f}" for value in values)


# Pictures: the report's charts, standing alone.

STYLE = """
svg { background: #fff; font: 11px system-ui, sans-serif; }
text { fill: #5b636d; } .left, .name, .end { text-anchor: end; } .tick, .axis { text-anchor: middle; }
.name, .value, .mark { fill: #1d2126; } .grid { stroke: #eceef0; } .rule { stroke: #5b636d; stroke-dasharray: 3 3; }
polyline { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; } circle { fill: var(--c); }
polyline.dashed { stroke-dasharray: 4 4; stroke-width: 1.2; } .ring { fill: none; stroke: var(--c); }
.whisker { stroke: var(--c); stroke-width: 2.4; opacity: .55; }
.c1 { --c: #c77b0a; } .c2 { --c: #2f6fb7; } .c3 { --c: #c8452d; } .c4 { --c: #12866f; } .c5 { --c: #7d4fb3; }
.c8 { --c: #a4abb3; }
"""


def standalone(chart: Markup, room: int = 0, title: str = "") -> str:
    """The chart as a file of its own, with so many pixels more at its right and its title above."""
    head, body = str(chart).split(">", 1)
    width, height = head.split('viewBox="0 0 ')[1].split('"')[0].split()
    box = f'viewBox="0 -22 {int(width) + room} {int(height) + 22}" width="{int(width) + room}"'
    name = Markup('<text class="value" x="8" y="-7">{}</text>').format(title)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}><style>{STYLE}</style>{name}{body}\n'
