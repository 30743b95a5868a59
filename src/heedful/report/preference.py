"""The preference tables: figure 3's cells and Elo with intervals, and every table in full."""

from typing import NamedTuple

from markupsafe import Markup

from heedful.report.charts import Dot, interval_chart
from heedful.report.evaluation import Panel
from heedful.report.folder import Json, RunFolder, pointer
from heedful.report.numbers import Show

TITLES = {
    "win_rates": "Win rates by labeler group and kind of prompt",
    "differences": "Paired differences of win rates",
    "bradley_terry": "Bradley-Terry strengths and Elo",
    "length_controlled": "Win rates at equal length",
    "likert": "Likert",
    "metadata": "Metadata",
}
REWARD_TITLES = {"by_margin": "Accuracy by size of the margin", "by_length": "Accuracy by how much longer is preferred"}
SUITE_TITLES = {"classic": "Classic tasks (table 14)", "qualitative": "Qualitative suite: marks and plain mistakes"}
GROUP_NAMES = {"train": "training labelers", "heldout": "held-out labelers"}
KIND_NAMES = {"all": "all prompts", "base": "prompts for a base model", "instruct": "instructions"}


class Table(NamedTuple):
    """Rows of cells under a line of names."""

    title: str
    columns: list[str]
    rows: list[list[Markup | str]]


def tables(run: RunFolder, show: Show) -> list[Table]:
    """Every preference table of results.json; those without a row are left out."""
    found = run.at("/preference") or {}
    return [table(run, show, TITLES.get(name, name), "preference", name) for name, rows in found.items() if rows]


def suite_tables(run: RunFolder, show: Show) -> list[Table]:
    """Classic tasks and the qualitative suite; those that were not asked for are left out."""
    return [table(run, show, title, name) for name, title in SUITE_TITLES.items() if run.at(pointer(name))]


def reward_tables(run: RunFolder, show: Show) -> list[Table]:
    """The reward model's accuracy in bins."""
    return [
        table(run, show, title, "reward_model", name)
        for name, title in REWARD_TITLES.items()
        if run.at(pointer("reward_model", name))
    ]


def table(run: RunFolder, show: Show, title: str, *place: str) -> Table:
    """A list of rows in full: numbers with their place in the file, words as they are, nested values spread out."""
    rows: list[Json] = run.at(pointer(*place))
    columns = list(dict.fromkeys(path for row in rows for path in paths(row)))
    cells = [[cell(run, show, pointer(*place, i, *path)) for path in columns] for i in range(len(rows))]
    return Table(title, [" ".join(path).replace("_", " ") for path in columns], cells)


def paths(row: Json) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in row.items():
        found += [(key, *rest) for rest in paths(value)] if isinstance(value, dict) else [(key,)]
    return found


def cell(run: RunFolder, show: Show, place: str) -> Markup | str:
    value = run.at(place)
    return value if isinstance(value, str) else show(place)


def panels(run: RunFolder, show: Show) -> list[Panel]:
    """Figure 3: a panel for each cell; then Elo."""
    rows: list[Json] = run.at("/preference/win_rates") or []
    cells = list(dict.fromkeys((row["group"], row["distribution"]) for row in rows))
    found = []
    for group, kind in cells if len(cells) > 1 else []:
        dots = [
            dot(run, show, row, pointer("preference", "win_rates", i, "mean"), percent=True)
            for i, row in enumerate(rows)
            if (row["group"], row["distribution"]) == (group, kind)
        ]
        title = f"{GROUP_NAMES[group]}, {KIND_NAMES.get(kind, kind)}"
        found.append(Panel(title, interval_chart(dots, title, 0, 1, rule=0.5, unit=100)))
    if strengths := run.at("/preference/bradley_terry"):
        dots = [
            dot(
                run,
                show,
                row["elo"] | {"policy": row["policy"]},
                pointer("preference", "bradley_terry", i, "elo", "mean"),
            )
            for i, row in enumerate(strengths)
        ]
        values = [v for each in dots for v in (each.mean, each.low, each.high) if v is not None]
        low, high = min(values), max(values)
        room = 0.05 * (high - low) or 50
        chart = interval_chart(dots, "Elo", low - room, high + room, rule=1000)
        found.append(Panel("Elo, the baseline's 1000", chart, "Bradley-Terry with ties over all judgements."))
    return found


def dot(run: RunFolder, show: Show, row: Json, place: str, percent: bool = False) -> Dot:
    name = row["policy"]
    text = show(place, 1 if percent else 0, percent=percent, tag="tspan")
    return Dot(name, row["mean"], row["low"], row["high"], run.colour(name), text)
