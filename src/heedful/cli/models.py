"""Working with a finished run and its models: results, report, export, chat."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from heedful.cli.common import RunFolder, say
from heedful.cli.results import show_results
from heedful.config import InputError, parse
from heedful.steps import existing_run

Model = Annotated[str, typer.Argument(help="A model's folder, or a hub name.", show_default=False)]


def evaluate(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="A run's folder; with --sets also a model's, or a hub name.", show_default=False
        ),
    ],
    sets: Annotated[
        str | None, typer.Option(help="Public sets instead, by name and parted by commas, or all.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The folder of the sets' files; without it, the hub.", show_default=False)
    ] = None,
    into: Annotated[
        Path | None, typer.Option("--dir", help="Where the sets' results go, or are gone on with.", show_default=False)
    ] = None,
    shots: Annotated[int, typer.Option(help="Worked examples before each item.", min=0)] = 0,
    limit: Annotated[int | None, typer.Option(help="Most items of a set.", min=1, show_default="all")] = None,
    seed: Annotated[int, typer.Option(help="Draws items, examples and samples.")] = 0,
    truth_judge: Annotated[
        Path | None, typer.Option(help="A judge of truthfulness: heedful truth-judge.", show_default=False)
    ] = None,
    info_judge: Annotated[Path | None, typer.Option(help="One of informativeness.", show_default=False)] = None,
    toxicity: Annotated[
        str | None,
        typer.Option(help="A scorer of toxicity: module:function, texts to numbers 0 to 1.", show_default=False),
    ] = None,
) -> None:
    """Compute results.json of a finished run anew, or put models through public sets with --sets."""
    if sets is None and (data or into):
        raise InputError("--data and --dir belong to --sets; name the sets too")
    if sets is None:
        renew_results(Path(folder))
        return
    if into is None:
        raise InputError("--sets needs --dir, the folder for their results")
    from heedful.cli.sets import through_sets

    asked = {"shots": shots, "limit": limit, "seed": seed}
    through_sets(folder, sets, data, into, asked, (truth_judge, info_judge, toxicity))


def renew_results(folder: Path) -> None:
    """results.json of a finished run anew from its folders, and its table."""
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
    best_of: Annotated[
        int | None,
        typer.Option(help="Sample so many answers, show the one that a reward model likes best.", min=2),
    ] = None,
    reward_model: Annotated[
        Path | None, typer.Option(help="That reward model; without it, of the model's run.", show_default=False)
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="With --best-of: all answers with their scores.")] = False,
) -> None:
    """Talk with a model in the terminal; the words appear as they are made, the best of several once it is found."""
    if best_of is None and (reward_model is not None or verbose):
        raise InputError(f"{'--verbose' if verbose else '--reward-model'} is for --best-of; give that too")
    if best_of is not None and temperature == 0:
        raise InputError("at --temperature 0 all answers are the same and --best-of has no choice; raise it")
    from heedful.cli.best import Chooser
    from heedful.cli.talk import Talker, converse

    talker = Talker.load(model, temperature, top_p, max_new_tokens, seed)
    if best_of is not None:
        talker.chooser = Chooser.load(best_of, model, reward_model, verbose)
    if prompt is not None:
        talker.answer(prompt)
    else:
        converse(talker)
