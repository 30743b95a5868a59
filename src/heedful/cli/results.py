"""The results table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from heedful.cli.common import console, say
from heedful.steps import number


def show_results(results: Mapping[str, Any], folder: Path) -> None:
    """What a finished run showed."""
    console.print(results_table(results))
    accuracy = results["reward_model"]["accuracy"]
    agreement = results["agreement"]
    say(
        f"reward model accuracy: {with_interval(accuracy['train_labelers'])} on training labelers, "
        f"{with_interval(accuracy['heldout_labelers'])} on held-out labelers"
    )
    if (folds := results["reward_model"]["cross_validation"]) is not None:
        say(
            f"cross-validated over {len(folds['folds'])} groups of labelers: {with_interval(folds['within_group'])} on "
            f"labelers a model learned from, {with_interval(folds['out_of_group'])} on those it did not"
        )
    say(
        f"labeler agreement: {number(agreement['train']['mean'])} in the training group, "
        f"{number(agreement['heldout']['mean'])} in the held-out group"
    )
    if results["alignment_tax"] is not None:
        if (line := over_start(results, results["alignment_tax"]["start"])) is not None:
            say(line)
        say(tax_line(results["alignment_tax"]))
    say(f"{results['seconds']['total']:.0f} s by the clock; everything is in {folder}")


def over_start(results: Mapping[str, Any], start: str) -> str | None:
    """What each optimised policy wins against the model it began from, where that is not the baseline of the table."""
    names = [name for name in results["alignment_tax"]["policies"] if start in results["pairwise"].get(name, {})]
    if start == results["baseline"] or not names:
        return None
    said = [f"{name} {with_interval(results['pairwise'][name][start])}" for name in names]
    return f"win rate against {start}, where they began: {', '.join(said)}"


def tax_line(tax: Mapping[str, Any]) -> str:
    """What each optimised policy cost in language loss, and how much of that the pretraining mix undid."""
    begun = tax["start_lm_loss"]
    if begun is None:
        return f"alignment tax: not measured, {tax['reason']['start_lm_loss']}"
    parts = []
    for name, found in tax["policies"].items():
        verb = "raises" if found["rise"] > 0 else "lowers"
        part = f"{name} {verb} held-out LM loss by {abs(found['rise']):.3f}"
        if found.get("share_undone") is not None:
            part += f", undoing {100 * found['share_undone']:.0f} % of what {found['relative_to']} lost"
        parts.append(part)
    return f"alignment tax over {tax['start']} ({begun:.3f}): {'; '.join(parts)}"


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


def show_sweep(found: Mapping[str, Any], folder: Path) -> None:
    """The cells of a sweep, the best first; those without a value last, with the reason."""
    console.print(sweep_table(found))
    for key in found["at_edge"]:
        say(f"the best {key} lies at the end of what was tried; a better one may lie beyond")
    for cell in found["cells"]:
        if cell["value"] is None:
            say(f"{cell['name']}: {cell['reason']}")
    say(f"everything is in {folder}: sweep.json, report.html and a run for each cell")


def sweep_table(found: Mapping[str, Any]) -> Table:
    title = f"{len(found['cells'])} cells by {found['by']}, {found['better']} is better"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    keys = [key for key in found["matrix"] if key != "seed"]
    seeds = "seed" in found["matrix"]
    for column in ("rank", *keys, found["by"].rpartition(".")[2], "interval", *(["seeds"] if seeds else [])):
        table.add_column(column, justify="right")
    for place, row in enumerate(found["ranking"], start=1):
        interval = "–" if row["low"] is None else f"{row['low']:.4f}…{row['high']:.4f}"
        values = [format(v, "g") if isinstance(v, float) else str(v) for v in (row["settings"][key] for key in keys)]
        over = [f"{row['num_values']} of {len(row['cells'])}"] if seeds else []
        rank = "–" if row["mean"] is None else str(place)
        table.add_row(rank, *values, number(row["mean"], 4), interval, *over)
    return table
