"""Models' responses compared by people's rankings or by another judge: `heedful judge compare`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from heedful.cli.common import console, existing_store, say
from heedful.cli.data import counted
from heedful.cli.results import with_interval
from heedful.steps import number


def compare(
    place: Annotated[
        str, typer.Argument(help="A finished run's folder, a snapshot's, or a store.", show_default=False)
    ],
    baseline: Annotated[str, typer.Option(help="The policy or model that others are compared with.")],
    folder: Annotated[Path, typer.Option("--dir", help="Where the tables go.", show_default=False)],
    by: Annotated[
        str,
        typer.Option(
            help="Who judges: people (the rankings there), gold (a run's exact scores), a reward model's folder, or "
            "module:function of a prompt and a text."
        ),
    ] = "people",
    purpose: Annotated[
        Literal["train", "evaluation"], typer.Option(help="Rankings of a store made for it.")
    ] = "evaluation",
    style: Annotated[bool, typer.Option("--style", help="Control for Markdown as well as for length.")] = False,
) -> None:
    """Write the tables of preference for models' responses: win rates, differences, Elo, at equal length.

    In a store or snapshot the responses' own model names say whose they are; one response of each to a prompt.
    """
    from heedful.pipeline import compared

    own = any((Path(place) / name).exists() for name in ("snapshot.json", "evaluation/judgements/done.json"))
    found = compared.compare(place if own else existing_store(place), baseline, by, purpose, style)
    compared.write(found, folder)
    console.print(win_table(compared.headline_rows(found), found.judge, baseline))
    if found.unscored:
        say(f"without a verdict, or left out: {counted(found.unscored)}")
    say(f"every table is in {folder / 'tables'}")


def win_table(rows: Sequence[Mapping[str, Any]], judge: str, baseline: str) -> Table:
    """One line for each model."""
    table = Table(
        title=f"win rate against {baseline}, by {judge}", title_justify="left", box=None, padding=(0, 2, 0, 0)
    )
    for column in ("", "win rate (interval)", "won", "tied", "lost", "prompts", "p (Holm)"):
        table.add_column(column, justify="left" if column in ("", "win rate (interval)") else "right")
    for row in rows:
        counts = [f"{row[key]:,}" for key in ("wins", "ties", "losses", "num_prompts")]
        table.add_row(row["policy"], with_interval(row), *counts, number(row["p_adjusted"]))
    return table
