"""A sweep's results over its seeds, from over_seeds.json: win rates drawn, every table, and a recipe's own claims."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from heedful.report import rlaif_shapes
from heedful.report.charts import ACCENT, POLICIES, Cross, Dot, Extent, cross_chart, interval_chart
from heedful.report.evaluation import Panel
from heedful.report.numbers import plain
from heedful.report.shapes import Shape

Json = dict[str, Any]

CLAIMS: dict[str, Callable[[Sequence[Json]], list[Shape]]] = {"rlaif": rlaif_shapes.shapes}  # by recipe
TITLES = {
    "policies": "Policies",
    "pairwise": "Each policy against each other: the row's share of wins",
    "reward_models": "Reward models, on people's comparisons of held-out prompts",
    "ai_labelers": "AI labelers, beside people's rankings of the same responses",
    "principles_kept": "How far policies keep to the world's principles, in nats, and the share that praises itself",
    "over_start": "Optimised policies beside the one they begin from",
    "optimised": "What optimising cost",
    "lab": "Over-optimisation: laws and peaks of each proxy",
}


class Table(NamedTuple):
    """Names down, measures across; a cell is a row of over_seeds.json, None where there is none."""

    title: str
    measures: list[str]
    rows: list[tuple[str, list[Json | None]]]


class Group(NamedTuple):
    """One setting's runs."""

    about: Json
    chart: Markup
    frontier: list[Panel]
    claims: list[Shape]
    tables: list[Table]


def read_groups(folder: Path, recipe: str) -> list[Group]:
    """What the sweep's report shows; nothing where no run is finished."""
    path = folder / "over_seeds.json"
    found = json.loads(path.read_text(encoding="utf-8"))["groups"] if path.exists() else []
    return [group_of(group, recipe) for group in found]


def group_of(group: Json, recipe: str) -> Group:
    rows: list[Json] = group["rows"]
    wins = [row for row in rows if row["table"] == "policies" and row["measure"] == "win_rate"]
    dots = [
        Dot(row["name"], row["mean"], row["low"], row["high"], ACCENT, f"{plain(100 * row['mean'], 1)} %")
        for row in wins
        if row["mean"] is not None
    ]
    chart = interval_chart(dots, f"Win rate against {group['baseline']}", 0, 1, rule=0.5, unit=100)
    claims = CLAIMS[recipe](rows) if recipe in CLAIMS else []
    tables = [table(name, rows) for name in TITLES if of(rows, name)]
    return Group(group, chart, frontier(rows, group.get("start")), claims, tables)


def frontier(rows: Sequence[Json], start: str | None) -> list[Panel]:
    """What every policy gained over the one it begins from, against how far it went; nothing of fewer than two."""
    found = {(row["name"], row["measure"]): row for row in of(rows, "over_start") if row["mean"] is not None}
    names = list(dict.fromkeys(name for name, measure in found if measure == "sqrt_kl"))
    panels = []
    for measure, what, rule in (("gold", "Exact utility gained over", 0.0), ("win_rate", "Win rate over", 0.5)):
        crosses = [
            Cross(name, extent(found[name, "sqrt_kl"]), extent(found[name, measure]), POLICIES[n % len(POLICIES)])
            for n, name in enumerate(names)
            if (name, measure) in found
        ]
        if len(crosses) > 1:
            title = f"{what} {start} against √KL"
            panels.append(Panel(title, cross_chart(crosses, title, "√KL, √nats per response", [rule]), ""))
    return panels


def extent(row: Json) -> Extent:
    return Extent(row["mean"], row["low"], row["high"])


def of(rows: Sequence[Json], name: str) -> list[Json]:
    return [row for row in rows if row["table"] == name]


def table(name: str, rows: Sequence[Json]) -> Table:
    own = of(rows, name)
    measures = list(dict.fromkeys(row["measure"] for row in own))
    cells = {(row["name"], row["measure"]): row for row in own}
    names = list(dict.fromkeys(row["name"] for row in own))
    measures = [measure for measure in names if measure in measures] if name == "pairwise" else measures
    return Table(TITLES[name], measures, [(each, [cells.get((each, m)) for m in measures]) for each in names])
