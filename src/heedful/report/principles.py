"""What written principles came to: the reward models that follow them, and how far policies keep to each."""

from collections.abc import Iterator
from typing import NamedTuple

from heedful.report.charts import ACCENT, Dot, interval_chart
from heedful.report.evaluation import Panel
from heedful.report.folder import Json, RunFolder, pointer
from heedful.report.numbers import Show
from heedful.report.preference import Table, table
from heedful.steps import optimised_in

FOLLOWED = {  # figure → what stands above and below its picture
    "accuracy": ("agrees with held-out labels", "A label says which of two responses is better under its principles."),
    "flips": (
        "chooses the other once the deciding principle is negated",
        "100 % is a model that reads its principles; near 0 it has one taste, whatever they say.",
    ),
    "exact": (
        "right, by the exact fulfilment",
        "Of pairs that the principle tells apart, which is known exactly here.",
    ),
}
TITLES = {
    "principles_followed": "Reward models that follow principles, and who scored: every figure",
    "principles_kept": "How far policies keep to each principle: every figure",
}
BOASTS = "boasts"


class Reward(NamedTuple):
    """What some policies maximised: a model's score under these principles."""

    policies: str
    model: str
    principles: str


class Section(NamedTuple):
    """What the page shows of principles."""

    rewards: list[Reward]
    followed: list[Panel]
    kept: list[Panel]
    tables: list[Table]


def section(run: RunFolder, show: Show) -> Section | None:
    """None where nothing of the run was measured by principles."""
    tables = [table(run, show, title, name) for name, title in TITLES.items() if run.at(pointer(name))]
    if not tables:
        return None
    return Section(list(rewards(run)), list(followed(run, show)), list(kept(run, show)), tables)


def rewards(run: RunFolder) -> Iterator[Reward]:
    """Each reward under principles that a policy maximised."""
    optimised = optimised_in(run.recipe)
    for name, config in (run.recipe.get("principle_rewards") or {}).items():
        policies = [policy for policy, stage in optimised.items() if stage.get("reward") == name]
        how = "each by itself" if config.get("apart") else f"{config.get('number')} drawn for each prompt"
        chosen = f"{config.get('principles')}, {how}"
        if config.get("always"):
            chosen += f"; always {config['always']}"
        if policies:
            yield Reward(", ".join(policies), config.get("reward_model", ""), chosen)


def followed(run: RunFolder, show: Show) -> Iterator[Panel]:
    """A picture for each figure of each model, a row for each principle that decided."""
    rows: list[Json] = run.at("/principles_followed") or []
    for model in dict.fromkeys(row["model"] for row in rows):
        for figure, (title, caption) in FOLLOWED.items():
            own = [n for n, row in enumerate(rows) if (row["model"], row["figure"]) == (model, figure)]
            dots = [dot(run, show, rows[n]["principle"], pointer("principles_followed", n), ACCENT) for n in own]
            known = [one for one in dots if one.mean is not None]
            if known:
                title_here = f"{model}: {title}, percent"
                rule = None if figure == "flips" else 0.5
                yield Panel(title_here, interval_chart(known, title_here, 0, 1, rule=rule, unit=100), caption)


def kept(run: RunFolder, show: Show) -> Iterator[Panel]:
    """A picture for each principle by which policies differ, a row for each policy."""
    rows: list[Json] = run.at("/principles_kept") or []
    for figure in dict.fromkeys(row["figure"] for row in rows):
        own = [n for n, row in enumerate(rows) if row["figure"] == figure]
        if len({rows[n]["mean"] for n in own}) == 1:
            continue
        percent = figure == BOASTS
        dots = []
        for n in own:
            name = rows[n]["policy"]
            dots.append(dot(run, show, name, pointer("principles_kept", n), run.colour(name), percent))
        if percent:
            title, chart = "praises itself, percent of responses", interval_chart(dots, figure, 0, 1, unit=100)
        else:
            ends = [value for one in dots for value in (one.low, one.mean, one.high) if value is not None]
            title, chart = f"{figure}, nats per response", interval_chart(dots, figure, min(ends), max(ends))
        yield Panel(title, chart, "")


def dot(run: RunFolder, show: Show, name: str, place: str, colour: int, percent: bool = True) -> Dot:
    row: Json = run.at(place)
    text = show(f"{place}/mean", 1 if percent else 2, percent=percent, tag="tspan")
    return Dot(name, row["mean"], row["low"], row["high"], colour, text)
