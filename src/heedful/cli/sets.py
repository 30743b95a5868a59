"""Models on public sets: `evaluate --sets`, judges of truthfulness, released outputs, lm-evaluation-harness."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from heedful.cli.common import console, say
from heedful.cli.results import with_interval
from heedful.config import InputError, parse
from heedful.steps import number


def through_sets(
    model: str,
    sets: str,
    data: Path | None,
    folder: Path,
    asked: Mapping[str, int | None],
    judges: tuple[Path | None, Path | None, str | None],
) -> None:
    """A model, or every policy of a run's folder, through the named sets; shows the table."""
    from heedful.evaluate.sets.catalogue import Options, named_sets
    from heedful.pipeline.public_sets import Judges, evaluate_sets, policies_of

    names = named_sets([name.strip() for name in sets.split(",") if name.strip()])
    if data is not None and not data.is_dir():
        raise InputError(f"--data {data}: no such folder; name the folder of the sets' files")
    options = Options(data, asked["shots"] or 0, asked["limit"], asked["seed"] or 0)
    place = Path(model)
    models: Mapping[str, str | Path] = {label(place): model}
    if (place / "recipe.json").exists():
        models = policies_of(place)
    found = evaluate_sets(models, names, options, Judges(*judges), folder)
    console.print(sets_table(found))
    for line in undefined(found):
        say(line)
    for name, reason in found["not_asked"].items():
        say(f"{name} was not asked: {reason}")
    say(f"everything is in {folder}: sets.json, sets.csv, sets.html")


def label(place: Path) -> str:
    """What a model is called: its folder's name, in a run that of the step that made it."""
    name = place.resolve().name
    return place.resolve().parent.name if name == "model" else name


def sets_table(found: Mapping[str, Any]) -> Table:
    """The main number of each set by model."""
    table = Table(title="Public sets, 95 % interval", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("set", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for column in ("model", "mean (interval)"):
        table.add_column(column)
    for column in ("scored", "of"):
        table.add_column(column, justify="right")
    for name, results in found["sets"].items():
        for model, result in results.items():
            main = found["main"][name]
            estimate = result["metrics"][main]
            shown = with_interval(estimate) if estimate["mean"] is not None else "–"
            table.add_row(name, main, model, shown, str(result["num_scored"]), str(result["num_items"]))
    return table


def undefined(found: Mapping[str, Any]) -> Iterator[str]:
    """Why a main number is missing, a line for each."""
    for name, results in found["sets"].items():
        for model, result in results.items():
            estimate = result["metrics"][found["main"][name]]
            if estimate["mean"] is None:
                yield f"{name}, {model}: {estimate['reason']}"


def truth_judge(
    model: Annotated[str, typer.Argument(help="The model to begin from: a folder or a hub name.", show_default=False)],
    data: Annotated[
        Path,
        typer.Option("--data", help="The folder of finetune_truth.jsonl, finetune_info.jsonl.", show_default=False),
    ],
    folder: Annotated[
        Path, typer.Option("--dir", help="The judge's folder: made, or gone on with.", show_default=False)
    ],
    about: Annotated[Literal["truth", "info"], typer.Option(help="Truthfulness, or informativeness.")] = "truth",
    epochs: Annotated[int, typer.Option(help="Passes over the answers.", min=1)] = 5,
    lr: Annotated[float, typer.Option(help="Peak learning rate, above 0.")] = 1e-5,
    limit: Annotated[int | None, typer.Option(help="Read so many rows only.", min=20, show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Fixes the order of training.")] = 0,
) -> None:
    """Train a judge of TruthfulQA's answers from the released judge data, and measure it on held-out questions."""
    from heedful.pipeline.truth_judge import JudgeConfig, train_judge

    config = parse(JudgeConfig, {"about": about, "epochs": epochs, "lr": lr, "limit": limit}, "")
    found = train_judge(config, data, model, folder, seed)
    say(
        f"{folder}: right on {with_interval(found['accuracy'])} of {found['num_rows']} answers to "
        f"{found['num_questions']} held-out questions; the commoner answer alone on {number(found['majority'])}"
    )
    if found["too_long"]:
        say(f"{found['too_long']} held-out answers do not fit the model's context and are not counted")


def released(
    data: Annotated[Path, typer.Argument(help="The folder of the released CSV files.", show_default=False)],
    folder: Annotated[Path, typer.Option("--dir", help="Where released.json, .csv and .html go.", show_default=False)],
) -> None:
    """Score OpenAI's released outputs of InstructGPT's models, and draw the paper's figures 6 and 7 from them."""
    from heedful.evaluate.sets.released import released as scored
    from heedful.evaluate.tables import to_csv
    from heedful.report.sets import write_released_report
    from heedful.run import write_atomic

    cells = [cell._asdict() | {"estimate": cell.estimate._asdict()} for cell in scored(data)]
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "released.json", json.dumps({"cells": cells}, indent=2) + "\n")
    write_atomic(folder / "released.csv", to_csv(cells))
    say(str(write_released_report(folder)))


def harness(
    model: Annotated[str, typer.Argument(help="A model's folder, or a hub name.", show_default=False)],
    tasks: Annotated[str, typer.Option(help="Names of the harness's tasks, parted by commas.", show_default=False)],
    folder: Annotated[Path, typer.Option("--dir", help="Where harness.json goes.", show_default=False)],
    include: Annotated[Path | None, typer.Option(help="A folder of further tasks in YAML.", show_default=False)] = None,
    shots: Annotated[int | None, typer.Option(help="Worked examples.", min=0, show_default="the task's own")] = None,
    limit: Annotated[int | None, typer.Option(help="Most items of a task.", min=1, show_default="all")] = None,
) -> None:
    """Run tasks of lm-evaluation-harness on our engine (pip install 'heedful\\[harness])."""
    from heedful.cli.harness import run_tasks

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    for line in run_tasks(model, names, folder, include, shots, limit):
        say(line)
