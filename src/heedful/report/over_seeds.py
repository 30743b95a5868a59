"""A sweep's results over its seeds, from over_seeds.json: win rates drawn, every table, and a recipe's own claims."""

import json
import re
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from heedful.report import rlaif_shapes
from heedful.report.ai_labelers import FIGURES
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


POLICY_MEASURES = ("win_rate", "win_rate_at_equal_length", "gold", "likert", "kl", "length", "distinct_2", "lm_loss")
BEST = re.compile(r"best_of_\d+")  # a policy that only chooses; best_of_n is one that was trained
IN_UNITS = ("gold", "likert", "score", "kl", "length", "distinct_2", "lm_loss", "sampled_per_answer")  # no shares
SHARES = ("pairwise", "reward_models", "ai_labelers")  # tables of nothing else
NAMES = {
    "win_rate": "win rate",
    "kl": "KL, nats",
    "length": "tokens",
    "lm_loss": "LM loss",
    "accuracy_heldout": "accuracy on held-out labelers",
    "accuracy_train": "accuracy on training labelers",
} | {figure.key: figure.name for figure in FIGURES}


class Column(NamedTuple):
    """A measure's name, and whether its numbers are shares, shown in percent."""

    name: str
    percent: bool

    def shown(self, value: float | None) -> str:
        return plain(None if value is None else 100 * value, 1) if self.percent else plain(value, 3)


class Table(NamedTuple):
    """Names down, measures across; a cell is a row of over_seeds.json, None where there is none."""

    title: str
    columns: list[Column]
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
    tables = [one for name in TITLES if of(rows, name) for one in tables_of(name, rows)]
    return Group(group, chart, frontier(rows, group.get("start")), claims, tables)


def frontier(rows: Sequence[Json], start: str | None) -> list[Panel]:
    """What every policy gained over the one it begins from, against how far it went; nothing of fewer than two."""
    found = {(row["name"], row["measure"]): row for row in of(rows, "over_start") if row["mean"] is not None}
    names = list(dict.fromkeys(name for name, measure in found if measure == "sqrt_kl"))
    panels = []
    for measure, what, rule in (("gold", "Gold gained over", 0.0), ("win_rate", "Win rate over", 0.5)):
        crosses = [
            Cross(name, extent(found[name, "sqrt_kl"]), extent(row), colour, joined=bool(BEST.fullmatch(name)))
            for name, colour in zip(names, cycle(POLICIES), strict=False)
            if (row := found.get((name, measure)))
        ]
        if len(crosses) > 1:
            title = f"{what} {start} against √KL"
            panels.append(Panel(title, cross_chart(crosses, title, "√KL, √nats per response", [rule]), ""))
    return panels


def extent(row: Json) -> Extent:
    return Extent(row["mean"], row["low"], row["high"])


def of(rows: Sequence[Json], name: str) -> list[Json]:
    return [row for row in rows if row["table"] == name]


def tables_of(name: str, rows: Sequence[Json]) -> list[Table]:
    """A table of all measures; of policies, who have many, the chief ones and then the others."""
    own = of(rows, name)
    found = dict.fromkeys(row["measure"] for row in own)
    order = {
        "policies": POLICY_MEASURES,
        "pairwise": dict.fromkeys(row["name"] for row in own),
        "ai_labelers": [figure.key for figure in FIGURES],
        "reward_models": ("accuracy_heldout", "accuracy_train"),
    }.get(name, ())
    chief = [measure for measure in order if measure in found]
    others = [measure for measure in found if measure not in chief]
    if name == "policies" and chief and others:
        title = "Policies: every other number, and how often labelers ticked each box"
        return [table(TITLES[name], name, own, chief), table(title, name, own, others)]
    return [table(TITLES[name], name, own, [*chief, *others])]


def table(title: str, name: str, own: Sequence[Json], measures: Sequence[str]) -> Table:
    cells = {(row["name"], row["measure"]): row for row in own}
    names = list(dict.fromkeys(row["name"] for row in own))
    if name in SHARES:
        columns = [Column(measure if name == "pairwise" else named(measure), True) for measure in measures]
        title = f"{title}, in %"
    else:
        shares = [measure not in IN_UNITS if name == "policies" else measure == "win_rate" for measure in measures]
        columns = [
            Column(f"{named(measure)}, %" if share else named(measure), share)
            for measure, share in zip(measures, shares, strict=True)
        ]
    return Table(title, columns, [(each, [cells.get((each, m)) for m in measures]) for each in names])


def named(measure: str) -> str:
    return NAMES.get(measure, measure.replace("_", " "))
