"""Working with a finished run and its models: results, report, export, chat."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from heedful.cli.common import RunFolder, say
from heedful.cli.results import show_results
from heedful.config import InputError, parse
from heedful.steps import existing_run

Model = Annotated[str, typer.Argument(help="A model's folder, or a hub name.", show_default=False)]


def evaluate(folder: RunFolder) -> None:
    """Compute results.json of a finished run anew from its folders, and show the table."""
    recipe = existing_run(folder)
    if not (folder / "evaluation" / "judgements" / "done.json").exists():
        raise InputError(
            f"{folder} is not finished: its evaluation has not been judged yet; go on with the command that started it "
            f"(heedful status {folder} shows where it stands)"
        )
    from heedful.pipeline.recipe import Recipe
    from heedful.pipeline.results import write_results

    show_results(write_results(parse(Recipe, recipe, ""), folder), folder)


def report(folder: RunFolder) -> None:
    """Write the report of a run, or of a sweep: one HTML file that holds everything it shows."""
    from heedful.report import write_report, write_sweep_report

    if (folder / "sweep.json").exists():
        say(str(write_sweep_report(folder)))
        return
    existing_run(folder)
    say(str(write_report(folder)))


def export(
    model: Annotated[Path, typer.Argument(help="A policy's folder in a run, or an adapter's.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The folder to write, which must be new.", show_default=False)],
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="The numbers the weights are written in.")
    ] = "float32",
) -> None:
    """Write a model any Hugging Face tool loads: weights (LoRA merged), tokenizer, chat template, model card."""
    from heedful.export.model import export_model

    export_model(model, out, dtype)
    say(f"{out}: load it with AutoModelForCausalLM and AutoTokenizer; README.md tells what it was made from")


def chat(
    model: Model,
    prompt: Annotated[
        str | None, typer.Option(help="Answer this one and end, instead of a conversation.", show_default=False)
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.", min=0)] = 1.0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens of this much probability.", max=1)] = 1.0,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="The longest answer, in tokens; without it 256, or what the context leaves.", min=1),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 0,
) -> None:
    """Talk with a model in the terminal; the words appear as they are made."""
    from heedful.cli.talk import Talker, converse

    talker = Talker.load(model, temperature, top_p, max_new_tokens, seed)
    if prompt is not None:
        talker.answer(prompt)
    else:
        converse(talker)
