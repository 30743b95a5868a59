"""Written principles on the command line: a model scores pairs by them, and labels are made of the scores."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from heedful.cli.common import console, say
from heedful.cli.data import counted
from heedful.cli.judge import (
    Into,
    Limit,
    Model,
    OfPool,
    OfRound,
    Only,
    Place,
    Server,
    Style,
    answering,
    read_store,
    say_why,
)

if TYPE_CHECKING:
    from heedful.pipeline.principle_scores import Job

Principles = Annotated[
    str, typer.Option(help="A shipped collection, a YAML file, or file.yaml:collection.", show_default=True)
]
Template = Annotated[str, typer.Option(help="A shipped template, principle.en or principle.zh, or a YAML file.")]
Name = Annotated[str, typer.Option(help="What the labeler is called.", show_default="model, template")]
Seed = Annotated[int, typer.Option(help="Draws the sets of --limit.")]
MinCharacters = Annotated[int, typer.Option(help="Leave out pairs with a shorter response.", min=0)]


def score_by_principles(
    place: Place,
    labeler: Model,
    folder: Into,
    principles: Principles = "preference",
    template: Template = "principle.en",
    style: Style = "auto",
    min_characters: MinCharacters = 0,
    name: Name = "",
    pool: OfPool = None,
    round: OfRound = None,
    limit: Limit = None,
    seed: Seed = 0,
    estimate: Only = False,
    server: Server = None,
) -> None:
    """Let a model say, by each of several principles, which of two responses keeps to it better, in both orders.

    The scores go into scores.jsonl in --dir; heedful judge aggregate makes labels of them. The same command goes on
    where it was stopped.
    """
    from heedful.feedback.principles.book import read_principles
    from heedful.feedback.principles.collect import read_form
    from heedful.pipeline import ai_labels, ai_served, principle_scores

    config = principle_scores.ScoreConfig(
        principles=principles, template=template, style=style, min_characters=min_characters, name=name
    )
    read_principles(principles, read_form(template).language)  # before a model is loaded or a store made
    settings = ai_served.read_settings(server or [])
    choice = ai_labels.Choice(pool, round, limit, seed)
    with answering(labeler, style, settings, folder) as who, read_store(place, folder, estimate) as store:
        plan = principle_scores.plan_job(config, choice, who, store, folder)
        if not (folder / "done.json").exists():
            say(principle_scores.cost(plan, settings.prices))
        if not estimate:
            job = principle_scores.begin_job(plan, folder)
            show(principle_scores.score_items(job), job)
        for line in ai_served.said_after(plan.served, settings.prices) if plan.served else ():
            say(line)


def show(results: Mapping[str, Any], job: "Job") -> None:
    """What became of the pairs, and the scores by principle."""
    from heedful.run import read_done

    asked = results["num_pairs"] * len(job.plan.snapshot.principles)
    say(f"{results['labeler']}: {results['num_scores']:,} of {asked:,} scores of {results['num_pairs']:,} pairs")
    if missing := read_done(job.run.folder)["counts"]:
        say(f"without a score, or left out: {counted(missing)}")
    say_why(results)
    say(f"asked: {counted(results['asked'])}")
    title = {one.id: one.title for one in job.plan.snapshot.principles}
    table = Table(title="scores by principle, in nats", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for column in ("scores", "both orders agree", "mean size of gap", "variance"):
        table.add_column(column, justify="right")
    for id, found in results["principles"].items():
        shown = [f"{found[key]:.3g}" for key in ("orders_agree", "gap", "variance")]
        table.add_row(title[id], f"{found['num']:,}", *shown)
    console.print(table)
    say(f"everything is in {job.run.folder}; heedful judge aggregate makes labels of it")


def aggregate_scores(
    scored: Annotated[Path, typer.Argument(help="A folder of judge principles.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where the snapshot goes.", show_default=False)],
    way: Annotated[
        Literal["paper", "released", "sets"],
        typer.Option(
            "--as", help="The paper's way, that of the code released with it, or ours: whole sets by each principle."
        ),
    ] = "paper",
    number: Annotated[int, typer.Option("--number", help="Principles drawn for each label, as paper.", min=1)] = 3,
    passes: Annotated[
        int | None,
        typer.Option(
            help="Labels of each pair, as paper or released.", min=1, show_default="1 as paper, 4 as released"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws principles, negations and noise.")] = 0,
    least_gap: Annotated[
        float, typer.Option("--least-gap", help="Closer responses share a rank, as sets; nats.", min=0)
    ] = 0.0,
    negated: Annotated[
        float, typer.Option(help="Share of rankings that stand turned round too, as sets.", min=0, max=1)
    ] = 1.0,
) -> None:
    """Make labels of scores by principles: rankings under some principles, of which each may be negated.

    The snapshot holds them with the principles' texts, for a reward model that reads principles.
    """
    from heedful.config import parse
    from heedful.pipeline.principle_labels import AggregateConfig, aggregate

    each = passes or (4 if way == "released" else 1)
    values = {
        "way": way,
        "principles": number,
        "passes": each,
        "least_gap": least_gap,
        "negated": negated,
        "seed": seed,
    }
    config = parse(AggregateConfig, values, "")
    found = aggregate(scored, folder, config)
    rankings = found.principle_rankings
    say(f"{len(rankings):,} rankings under principles of {len(found.prompts):,} prompts in {folder}")
    say(f"decided by: {counted(dict(Counter(ranking.decided_by for ranking in rankings).most_common()))}")
    if flipped := sum(ranking.flipped for ranking in rankings):
        say(f"turned round as noise: {flipped:,}")
    if found.dropped:
        say(f"without a label: {counted(found.dropped)}")
