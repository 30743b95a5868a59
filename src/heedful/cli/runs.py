"""Running a recipe: the whole loop, or up to one stage."""

import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from heedful import run as run_folders
from heedful.cli.common import INTERRUPTED, Into, Overrides, Recipe, console, errors, fail, say
from heedful.cli.results import show_results, show_sweep
from heedful.cli.status import status_table
from heedful.config import InputError, read_recipe
from heedful.interrupt import remembered
from heedful.run import Waiting
from heedful.steps import existing_run, planned_steps, read_json, read_step, read_steps

if TYPE_CHECKING:  # these wait for torch
    from heedful.pipeline import recipe as recipes
    from heedful.pipeline.loop import Loop

LOOK_SECONDS = 0.5
WAIT_SECONDS = 3.0  # between two looks at what people have judged
BLOCK_OF = {"pretrain": "pretrain", "sft": "sft", "reward": "reward_model", "ppo": "ppo"}
Dry = Annotated[bool, typer.Option("--dry-run", help="Only show the steps, their tokens, memory and time.")]
Cores = Annotated[
    int | None,
    typer.Option(help="Use only so many cores; the last bits of results depend on it.", min=1, show_default="all"),
]
Wait = Annotated[bool, typer.Option("--wait", help="Where people have to judge, stay until they have, then go on.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the folder's run; an error when it holds none.")]


def run(
    recipe: Recipe,
    folder: Into = Path("runs/run"),
    overrides: Overrides = None,
    dry_run: Dry = False,
    resume: Resume = False,
    cores: Cores = None,
    wait: Wait = False,
) -> None:
    """Run a recipe's whole loop, or every cell of its matrix; an unfinished run in the folder goes on."""
    raw = read_recipe(recipe, overrides or [])
    if resume and not ("matrix" in raw and (folder / "sweep.json").exists()):
        existing_run(folder)
    if "matrix" in raw:
        if wait:
            raise InputError("--wait is for one run; a recipe with a matrix says what each cell waits for")
        run_cells(raw, folder, dry_run, cores)
        return
    settings = built(raw)
    if dry_run:
        from heedful.cli.show_plan import show_plan

        show_plan(settings)
        return
    with working(settings, folder, cores) as loop:
        from heedful.pipeline.results import write_results
        from heedful.report import write_report

        run_or_wait(loop, wait)
        results = write_results(settings, folder)
        write_report(folder)
    show_results(results, folder)


def run_or_wait(loop: "Loop", wait: bool) -> None:
    """The whole loop. With `wait`, where people have to judge it says so and looks again and again until they have.

    Raises:
        Waiting: they have not, and `wait` is off.
    """
    while True:
        try:
            loop.run()
            return
        except Waiting as waiting:
            if not wait:
                raise
            errors.print(str(waiting), markup=False, highlight=False, soft_wrap=True)
            before = ""
            while now := waiting.missing():
                if now != before:
                    errors.print(f"waiting: {now}", markup=False, highlight=False, soft_wrap=True)
                before = now
                time.sleep(WAIT_SECONDS)


def quickstart(folder: Into = Path("runs/quickstart"), overrides: Overrides = None, cores: Cores = None) -> None:
    """The whole loop on the embedded world, offline: pretraining to PPO-ptx in minutes."""
    run("quickstart", folder, overrides, cores=cores)


def pretrain(recipe: Recipe, folder: Into = Path("runs/run"), overrides: Overrides = None, cores: Cores = None) -> None:
    """Make the data and pretrain a language model from scratch, where the recipe does."""
    run_until("pretrain", recipe, folder, overrides, cores)


def sft(recipe: Recipe, folder: Into = Path("runs/run"), overrides: Overrides = None, cores: Cores = None) -> None:
    """Run up to and including supervised fine-tuning on demonstrations."""
    run_until("sft", recipe, folder, overrides, cores)


def reward(recipe: Recipe, folder: Into = Path("runs/run"), overrides: Overrides = None, cores: Cores = None) -> None:
    """Run up to and including the reward model (of the last round)."""
    run_until("reward", recipe, folder, overrides, cores)


def ppo(recipe: Recipe, folder: Into = Path("runs/run"), overrides: Overrides = None, cores: Cores = None) -> None:
    """Run up to and including PPO, and whatever else optimises (of the last round), without the evaluation."""
    run_until("ppo", recipe, folder, overrides, cores)


def run_until(stage: str, recipe: str, folder: Path, overrides: list[str] | None, cores: int | None) -> None:
    """The recipe's steps up to and including the stage's; finished ones are passed over.

    Raises:
        InputError: the recipe does not have the stage.
    """
    settings = built(read_recipe(recipe, overrides or []))
    block = BLOCK_OF[stage]
    given = {other: getattr(settings, key) for other, key in BLOCK_OF.items()} | {"ppo": settings.optimised()}
    if not given[stage]:
        has = [other for other, blocks in given.items() if blocks]
        raise InputError(f"recipe {recipe} has no {block} block; add one, or run one of: {', '.join(has)}")
    with working(settings, folder, cores) as loop:
        loop.run(until=stage)
    console.print(status_table(read_steps(folder, settings.model_dump(mode="json")), str(folder)))


def run_cells(raw: Mapping[str, Any], folder: Path, dry_run: bool, cores: int | None) -> None:
    """Every cell of the recipe's matrix, then the table that ranks them."""
    from heedful.pipeline.sweep import read_sweep, run_sweep

    sweep = read_sweep(raw)
    if dry_run:
        from heedful.cli.show_plan import show_cells

        number = len(sweep.cells)
        say(f"{number} cell{'s' if number > 1 else ''}: {' · '.join(cell.name for cell in sweep.cells)}")
        say(f"each up to {sweep.config.matrix_until}; the whole loop of the first:")
        show_cells([(cell.name, cell.recipe) for cell in sweep.cells], sweep.config.matrix_until)
        return

    def announced(settings: "recipes.Recipe", cell: Path, cores: int | None) -> AbstractContextManager["Loop"]:
        errors.print(f"cell {cell.name}", markup=False, highlight=False, soft_wrap=True)
        return working(settings, cell, cores)

    with removed_if_vain(folder):
        found = run_sweep(sweep, folder, cores, announced)
    show_sweep(found, folder)


def built(raw: Mapping[str, Any]) -> "recipes.Recipe":
    from heedful.pipeline.recipe import build

    return build(raw)


@contextmanager
def working(settings: "recipes.Recipe", folder: Path, cores: int | None) -> Iterator["Loop"]:
    """The loop at work in its folder, its progress shown, and the way to go on when it is interrupted."""
    from heedful.pipeline.start import at_work

    try:
        with remembered(), removed_if_vain(folder), at_work(settings, folder, cores) as loop:
            try:
                with watched(folder, settings.model_dump(mode="json")):
                    yield loop
            finally:
                if loop.source.warning:
                    errors.print(loop.source.warning, markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        command = shlex.join(["heedful", *sys.argv[1:]])
        fail(f"by Ctrl-C; what is done is kept, go on with: {command}", INTERRUPTED, "stopped")


@contextmanager
def removed_if_vain(folder: Path) -> Iterator[None]:
    """Bad input found before the first step of work leaves no folder behind, which would refuse the mended command."""
    fresh = not folder.exists()
    try:
        yield
    except InputError:
        if fresh and all(path.parent.name == "data" for path in folder.rglob("done.json")):
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def watched(folder: Path, recipe: Mapping[str, Any]) -> Iterator[None]:
    """While the loop works: a line for every step that gets done, on a terminal a bar for every step at work."""
    ended = threading.Event()
    watcher = threading.Thread(target=watch, args=(folder, recipe, ended), daemon=True)
    drawn, run_folders.draw_bars = run_folders.draw_bars, False
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        run_folders.draw_bars = drawn


def watch(folder: Path, recipe: Mapping[str, Any], ended: threading.Event) -> None:
    """Look at the folder again and again until `ended`, and once more then."""
    steps = planned_steps(recipe)
    passed = {name for name in steps if (folder / name / "done.json").exists()}
    if passed:
        errors.print(f"{len(passed)} of {len(steps)} steps are done already", highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=errors, disable=not errors.is_terminal, transient=True) as bars:
        tasks: dict[str, TaskID] = {}
        last = False
        while not last:
            last = ended.wait(LOOK_SECONDS)
            for name in [name for name in steps if name not in passed]:
                if (folder / name / "done.json").exists():
                    passed.add(name)
                    step = read_step(folder, name, recipe, busy=True)
                    errors.print(f"{name}: {step.result} ({step.seconds:.1f} s)", markup=False, highlight=False)
                    if name in tasks:
                        bars.remove_task(tasks.pop(name))
                elif (folder / name / "manifest.json").exists():
                    draw(bars, tasks, name, folder)


def draw(bars: Progress, tasks: dict[str, TaskID], name: str, folder: Path) -> None:
    """The step's bar; one without end while the step says nothing of how far it is."""
    if name not in tasks:
        tasks[name] = bars.add_task(name, total=None)
    try:
        told = read_json(folder / name / "progress.json")
    except FileNotFoundError:
        return
    bars.update(tasks[name], completed=told["step"], total=told["total"])
