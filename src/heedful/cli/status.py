"""Where each step of a run stands, as a table."""

from rich.table import Table
from rich.text import Text

from heedful.cli.common import RunFolder, console, say
from heedful.steps import State, Step, at_work, existing_run, number, read_steps

COLOUR: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "waiting": "yellow",
    "stopped": "yellow",
    "not begun": "dim",
}


def status(folder: RunFolder) -> None:
    """Show where each step of a run stands: done, running, waiting for people, stopped or not begun."""
    recipe = existing_run(folder)
    steps = read_steps(folder, recipe)
    console.print(status_table(steps, f"{folder}: {recipe.get('name') or 'a recipe'}, seed {recipe.get('seed')}"))
    done = sum(step.state == "done" for step in steps)
    seconds = sum(step.seconds or 0.0 for step in steps)
    say(f"{done} of {len(steps)} steps done, {seconds:.0f} s of work")
    if (folder / "results.json").exists():
        say(f"results: heedful evaluate {folder}")
    elif not at_work(folder):
        say("go on with the command that started it; finished steps are passed over")


def status_table(steps: list[Step], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("seconds", justify="right")
    table.add_column("result, and what was dropped or counted")
    for step in steps:
        counts = "".join(f"; {reason} {count}" for reason, count in step.counts.items())
        state = Text(step.state, COLOUR[step.state])
        table.add_row(
            step.name, state, number(step.seconds, 1) if step.seconds is not None else "", step.result + counts
        )
    return table
