"""The command line. Bad input is one clear line and exit code 2; waiting for people exits 3; success 0."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from heedful.config import InputError
from heedful.run import Diverged

app = typer.Typer(
    help="From people's judgements of a model's answers to a better model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
console = Console()
errors = Console(stderr=True)

DIR = Annotated[Path, typer.Option("--dir", help="The run's folder.")]
SET = Annotated[list[str] | None, typer.Option("--set", help="Change one setting, such as ppo.kl_coef=0.05.")]


@contextmanager
def friendly() -> Iterator[None]:
    """Turn what people can mend into one line and its exit code."""
    from heedful.pipeline.labelling import Waiting

    try:
        yield
    except InputError as error:
        errors.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from None
    except Diverged as error:
        errors.print(f"[red]stopped:[/red] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except Waiting as error:
        console.print(str(error), highlight=False, soft_wrap=True)
        raise typer.Exit(3) from None


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a path to a YAML file.")],
    dir: DIR = Path("runs/run"),
    set: SET = None,
) -> None:
    """Run a recipe's whole loop; an unfinished run in the folder goes on."""
    with friendly():
        from heedful.pipeline.start import run_recipe

        show(run_recipe(recipe, dir, set or []), dir)


@app.command()
def quickstart(dir: DIR = Path("runs/quickstart"), set: SET = None) -> None:
    """The whole loop on the embedded world: pretraining to PPO-ptx in minutes, offline."""
    run("quickstart", dir, set)


def show(results: dict[str, Any], folder: Path) -> None:
    """The results table."""
    table = Table(title=f"win rate against {results['baseline']} (95 % interval, clustered by prompt)")
    for column in ("policy", "win rate", "interval", "likert", "gold", "KL", "distinct-2", "LM loss"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    for name, policy in results["policies"].items():
        wins = policy["win_rate"]
        table.add_row(
            name,
            number(wins["mean"]),
            "–" if wins["low"] is None or name == results["baseline"] else f"{wins['low']:.3f} … {wins['high']:.3f}",
            *(number(policy[key]) for key in ("likert", "gold", "kl", "distinct_2", "lm_loss")),
        )
    console.print(table)
    accuracy = results["reward_model"]["accuracy"]
    console.print(
        f"reward model: {number(accuracy['train_labelers']['mean'])} on training labelers, "
        f"{number(accuracy['heldout_labelers']['mean'])} on held-out labelers; labeler agreement "
        f"{number(results['agreement']['train']['mean'])} / {number(results['agreement']['heldout']['mean'])}"
    )
    console.print(f"{results['seconds']['total']:.0f} s of work; everything is in {folder}")


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(app())
