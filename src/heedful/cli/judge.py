"""AI labelers on the command line: what they judge, and how they did."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from heedful.cli.common import console, existing_store, say
from heedful.cli.data import PoolName, counted
from heedful.config import InputError, parse
from heedful.report.ai_labelers import FIGURES

if TYPE_CHECKING:
    from heedful.pipeline.ai_labels import Job, Who
    from heedful.pipeline.ai_served import ServerConfig
    from heedful.store.database import Store

SIDE_BY_SIDE = 4  # labelers in one table

Place = Annotated[
    str,
    typer.Argument(
        help="What to judge: a run's folder, a store, or a file of comparisons (see heedful label import).",
        show_default=False,
    ),
]
Model = Annotated[
    str, typer.Option(help="The model that judges: a folder, a hub name, or a server's address.", show_default=False)
]
TemplateName = Annotated[
    str, typer.Option(help="A shipped template, such as helpful.base.en, or a YAML file.", show_default=False)
]
Into = Annotated[Path, typer.Option("--dir", help="Where it goes: made, or gone on with.", show_default=False)]
Shots = Annotated[int, typer.Option(help="Exemplars of the template before each question.", min=0)]
Think = Annotated[bool, typer.Option("--think", help="Let it write a rationale before the label.")]
Rationales = Annotated[int, typer.Option(help="Rationales for each order, averaged.", min=1)]
Temperature = Annotated[float, typer.Option(help="Of rationales; 0 takes the likeliest tokens.", min=0)]
RationaleTokens = Annotated[int, typer.Option(help="The longest rationale.", min=1)]
By = Annotated[Literal["pairs", "scores"], typer.Option(help="Ask about all pairs, or for a mark from 1 to 10 each.")]
Style = Annotated[
    Literal["auto", "plain", "chat"], typer.Option(help="auto: chat where the tokenizer has a chat template.")
]
Name = Annotated[str, typer.Option(help="What the labeler is called.", show_default="model, template, settings")]
Purpose = Annotated[Literal["train", "evaluation"], typer.Option(help="What the rankings are for.")]
Heldout = Annotated[bool, typer.Option("--heldout", help="The labeler is of the held-out group.")]
OfPool = Annotated[PoolName | None, typer.Option(help="Prompts of this pool.", show_default="any")]
OfRound = Annotated[int | None, typer.Option(help="The turn of the loop.", min=0, show_default="any")]
Limit = Annotated[int | None, typer.Option(help="Most sets, drawn by the seed.", min=1, show_default="all")]
Seed = Annotated[int, typer.Option(help="Draws sets and rationales.")]
Only = Annotated[bool, typer.Option("--estimate", help="Say what it would take, and end.")]
Server = Annotated[
    list[str] | None,
    typer.Option(
        "--server",
        help="How a server is asked, such as key_from=MY_KEY, price=0.15/0.60, in_flight=8; may be given again.",
        metavar="KEY=VALUE",
    ),
]

judge = typer.Typer(help="Let a language model judge responses, and see how it did.", no_args_is_help=True)


@judge.command("label")
def label_with_model(
    place: Place,
    labeler: Model,
    template: TemplateName,
    folder: Into,
    shots: Shots = 0,
    think: Think = False,
    rationales: Rationales = 1,
    temperature: Temperature = 0.0,
    rationale_tokens: RationaleTokens = 512,
    by: By = "pairs",
    style: Style = "auto",
    name: Name = "",
    purpose: Purpose = "train",
    heldout: Heldout = False,
    pool: OfPool = None,
    round: OfRound = None,
    limit: Limit = None,
    seed: Seed = 0,
    estimate: Only = False,
    server: Server = None,
) -> None:
    """Let a model rank responses as a labeler: probabilities of both orders of each pair, kept as soft labels.

    A set of responses that somebody ranked is judged once; of a prompt that nobody ranked, all responses are. The
    rankings go into the store (for a file, a store in --dir) beside people's, and the table shows how far they agree.
    The same command goes on where it was stopped.
    """
    from heedful.pipeline import ai_labels, ai_served

    values = {
        "template": template,
        "shots": shots,
        "think": think,
        "rationales": rationales,
        "temperature": temperature,
        "rationale_tokens": rationale_tokens,
        "by": by,
        "style": style,
        "purpose": purpose,
        "group": "heldout" if heldout else "train",
        "name": name,
        "seed": seed,
    }
    config = parse(ai_labels.LabelConfig, values, "")
    choice = ai_labels.Choice(pool, round, limit, seed)
    ai_labels.read_template(template, shots, think)  # before a model is loaded or a store made
    settings = ai_served.read_settings(server or [])
    with answering(labeler, style, settings, folder) as who, read_store(place, folder, estimate) as store:
        plan = ai_labels.plan_job(config, choice, who, store, folder)
        if not (folder / "done.json").exists():
            say(ai_labels.cost(plan, settings.prices))
        elif estimate:
            say(f"{folder} is finished; what a server failed on would be asked again, and nothing else")
        if not estimate:
            job = ai_labels.begin_job(plan, store, folder)
            show(ai_labels.judge_items(job, store), job, store)
        for line in ai_served.said_after(plan.served, settings.prices) if plan.served else ():
            say(line)


@contextmanager
def answering(
    labeler: str, style: Literal["auto", "plain", "chat"], settings: "ServerConfig", folder: Path
) -> Iterator["Who"]:
    """Who answers.

    Raises:
        InputError: there is no such model or server, or settings of a server for a model that is here.
    """
    from heedful.pipeline import ai_labels, ai_served

    if ai_served.is_address(labeler):
        with ai_served.served_ask(labeler, style, settings, folder) as served:
            yield ai_labels.Who(served, served.model, served.model, served.settings)
    elif settings != ai_served.ServerConfig():
        raise InputError(f"--server is for a labeler behind a server, and {labeler} is no http:// address")
    else:
        yield ai_labels.Who(ai_labels.local_ask(labeler, style), labeler, ai_labels.identity_of(labeler))


@contextmanager
def read_store(place: str, folder: Path, estimate: bool) -> Iterator["Store"]:
    """The store of the place; for a file one in the folder, which it is read into, or aside for an estimate.

    Raises:
        InputError: there is nothing, or the file is of no known shape.
    """
    from heedful.store.database import open_store

    path = Path(place)
    with TemporaryDirectory() as aside:
        is_store = not path.is_file() or _is_sqlite(path)
        found = existing_store(place) if is_store else store_with(path, Path(aside) if estimate else folder)
        with open_store(found) as store:
            yield store


def store_with(path: Path, folder: Path) -> str:
    """A store in the folder, with what stands in the file.

    Raises:
        InputError: the file is of no known shape.
    """
    from heedful.store.database import open_store
    from heedful.store.formats.reading import Source, shape_of
    from heedful.store.formats.take_in import import_file

    shape = shape_of(path, None)
    folder.mkdir(parents=True, exist_ok=True)
    with open_store(folder / "store.db") as store:
        for line in import_file(store, Source(path, shape)).lines():
            say(line)
    return str(folder / "store.db")


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"SQLite"


def show(results: Mapping[str, Any], job: "Job", store: "Store") -> None:
    """What became of the sets, and the figures."""
    from heedful.run import read_done

    say(f"{results['labeler']}: {results['num_judged']:,} of {results['num_sets']:,} sets judged")
    if missing := read_done(job.run.folder)["counts"]:
        say(f"without a verdict, or left out: {counted(missing)}")
    say_why(results)
    if imitating := results.get("num_imitating"):
        say(f"{imitating:,} responses hold the template's own marks and may pass for the page itself (docs/rlaif.md)")
    if control := results.get("num_control"):
        say(f"{control:,} responses spell a control token of the model, which was read as text")
    say(f"asked: {counted(results['asked'])}")
    show_figures({results["labeler"]: results["figures"]})
    say(f"everything is in {job.run.folder}; the rankings are in {store.engine.url.database}")


def say_why(results: Mapping[str, Any]) -> None:
    """The most frequent messages of what has no verdict or score."""
    for row in results.get("failures", ()):
        alike = ", and the like" if row.get("num_messages", 1) > 1 else ""
        say(f"  {row['reason']}, {row['num']:,}: {row['message']}{alike}")
    if any(row["reason"] == "api" for row in results.get("failures", ())):
        say("  the same command asks again for what the server failed on")


def show_figures(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Labelers side by side, at most four in a table: their figures, then what each rests on, then what is missing."""
    names = list(found)
    for start in range(0, len(names), SIDE_BY_SIDE):
        some = {name: found[name] for name in names[start : start + SIDE_BY_SIDE]}
        console.print(figures_table("in %, 95 % interval", some, in_percent))
        console.print(figures_table("rests on so many comparisons or pairs", some, lambda one: f"{one['num']:,}"))
    reasons = {
        (figure.name.removeprefix("… "), own[figure.key]["reason"]) for own in found.values() for figure in FIGURES
    }
    for name, reason in sorted(reasons):
        if reason:
            say(f"{name}: {reason}")


def figures_table(
    title: str, found: Mapping[str, Mapping[str, Any]], shown: Callable[[Mapping[str, Any]], str]
) -> Table:
    """A line for each figure, a column for each labeler."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    for name in found:
        table.add_column(name, overflow="fold", justify="right")
    for figure in FIGURES:
        table.add_row(figure.name, *(shown(own[figure.key]) for own in found.values()))
    return table


def in_percent(estimate: Mapping[str, Any]) -> str:
    """A dash for what cannot be computed."""
    if estimate["mean"] is None:
        return "–"
    mean, low, high = (
        None if estimate[key] is None else f"{100 * estimate[key]:.1f}" for key in ("mean", "low", "high")
    )
    return f"{mean}" if low is None else f"{mean} ({low}…{high})"


@judge.command("report")
def report_on_judges(
    place: Annotated[
        str, typer.Argument(help="A folder of judge label, a run's folder, or a store.", show_default=False)
    ],
) -> None:
    """Show how far AI labelers agree with people, side by side, and their habits: order, length, certainty."""
    from heedful.pipeline.ai_figures import report_of
    from heedful.run import read_done
    from heedful.snapshot import read_snapshot
    from heedful.store.database import open_store
    from heedful.store.export import export_snapshot

    if (Path(place) / "items").is_dir():
        if not (Path(place) / "done.json").exists():
            raise InputError(f"{place} is not finished; go on with the command that began it")
        found = read_snapshot(Path(place) / "snapshot")
        say_why(read_done(Path(place))["results"])
    else:
        with open_store(existing_store(place)) as store:
            found = export_snapshot(store, purpose=None, heldout="include")
    figures = report_of(found)
    if not figures:
        raise InputError(f"{place} holds no rankings by an AI labeler; heedful judge label makes some")
    show_figures({who: {name: one._asdict() for name, one in own.items()} for who, own in figures.items()})
