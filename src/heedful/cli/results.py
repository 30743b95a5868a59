"""The results table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from heedful.cli.common import console, number, say


def show_results(results: Mapping[str, Any], folder: Path) -> None:
    """What a finished run showed."""
    console.print(results_table(results))
    accuracy = results["reward_model"]["accuracy"]
    agreement = results["agreement"]
    say(
        f"reward model accuracy: {with_interval(accuracy['train_labelers'])} on training labelers, "
        f"{with_interval(accuracy['heldout_labelers'])} on held-out labelers"
    )
    say(
        f"labeler agreement: {number(agreement['train']['mean'])} in the training group, "
        f"{number(agreement['heldout']['mean'])} in the held-out group"
    )
    say(f"{results['seconds']['total']:.0f} s by the clock; everything is in {folder}")


def results_table(results: Mapping[str, Any]) -> Table:
    """One line per policy; a dash for what cannot be computed."""
    baseline = results["baseline"]
    table = Table(
        title=f"Win rate against {baseline}, 95 % interval clustered by prompt",
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    table.add_column("policy", no_wrap=True)
    for column in ("win rate", "interval", "likert", "gold", "KL", "distinct 2", "LM loss"):
        table.add_column(column, justify="right", min_width=11 if column == "interval" else None)
    for name, policy in results["policies"].items():
        wins = policy["win_rate"]
        table.add_row(
            name,
            number(wins["mean"]),
            "–" if wins["low"] is None or name == baseline else f"{wins['low']:.3f}…{wins['high']:.3f}",
            *(number(policy[key]) for key in ("likert", "gold", "kl", "distinct_2", "lm_loss")),
        )
    return table


def with_interval(found: Mapping[str, Any]) -> str:
    """0.714 (0.680…0.748)."""
    if found["mean"] is None or found["low"] is None:
        return number(found["mean"])
    return f"{found['mean']:.3f} ({found['low']:.3f}…{found['high']:.3f})"
