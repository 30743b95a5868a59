"""The commands, one function each, by what they work on.

Commands import what they need when they run: only those that train, measure or serve a model wait for torch.
"""

from typing import Annotated

import typer

from heedful.cli import compare, data, judge, models, people, principles, project, runs, serve, sets, sheet, status
from heedful.cli.common import Commands, say

app = typer.Typer(
    cls=Commands,
    help="From people's judgements of a model's answers to a better model.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"heedful {version('heedful')}")
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """From people's judgements of a model's answers to a better model."""


LOOP, STAGES, DATA, MODELS, PROJECT = "The loop", "One stage", "Prompts and labels", "Models and results", "Project"

app.command("run", rich_help_panel=LOOP)(runs.run)
app.command("quickstart", rich_help_panel=LOOP)(runs.quickstart)
app.command("status", rich_help_panel=LOOP)(status.status)
app.command("pretrain", rich_help_panel=STAGES)(runs.pretrain)
app.command("sft", rich_help_panel=STAGES)(runs.sft)
app.command("reward", rich_help_panel=STAGES)(runs.reward)
app.command("ppo", rich_help_panel=STAGES)(runs.ppo)
app.add_typer(data.prompts, name="prompts", rich_help_panel=DATA)
app.add_typer(people.label, name="label", rich_help_panel=DATA)
judge.judge.command("compare")(compare.compare)
judge.judge.command("principles")(principles.score_by_principles)
judge.judge.command("aggregate")(principles.aggregate_scores)
app.add_typer(judge.judge, name="judge", rich_help_panel=DATA)
app.add_typer(data.store, name="store", rich_help_panel=DATA)
app.command("snapshot", rich_help_panel=DATA)(data.snapshot)
app.command("evaluate", rich_help_panel=MODELS)(models.evaluate)
app.command("truth-judge", rich_help_panel=MODELS)(sets.truth_judge)
app.command("released", rich_help_panel=MODELS)(sets.released)
app.command("harness", rich_help_panel=MODELS)(sets.harness)
app.command("report", rich_help_panel=MODELS)(models.report)
app.command("export", rich_help_panel=MODELS)(models.export)
app.command("chat", rich_help_panel=MODELS)(models.chat)
app.command("serve", rich_help_panel=MODELS)(serve.serve)
app.command("sheet", rich_help_panel=MODELS)(sheet.sheet)
app.command("init", rich_help_panel=PROJECT)(project.init)
app.command("doctor", rich_help_panel=PROJECT)(project.doctor)
app.command("recipes", rich_help_panel=PROJECT)(project.recipes)
