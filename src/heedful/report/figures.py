"""InstructGPT's figures from paper_figures.json: win rates by size, boxes, classic tasks, coefficients, the suite."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from heedful.report.charts import ACCENT, Dot, interval_chart, legend, nothing
from heedful.report.evaluation import FLAG_NAMES, Panel
from heedful.report.numbers import plain
from heedful.report.shapes import shapes
from heedful.report.svg import Frame, axes, circle, drawing, line, padded, span

Json = dict[str, Any]
Row = dict[str, Any]

MAIN = ("gpt", "gpt_prompted", "sft", "ppo_init", "ppo", "ppo_ptx", "flan", "t0")
CELLS = {"base": "prompts sent to a base model", "instruct": "prompts sent to an instruct model"}
GROUPS = {"heldout": "held-out labelers", "train": "training labelers"}
MEASURES = {
    "score": "reward-model score, gain over PPO's start",
    "kl": "KL from PPO's start, nats",
    "lm_loss": "held-out LM loss, nats per token",
    "classic": "classic tasks, mean score",
}
COEFFICIENT = {"33": "pretraining loss coefficient", "34": "KL coefficient"}


class TableRow(NamedTuple):
    """One measure of one size: a number for each policy, None where it has none; what they rest on together."""

    measure: str
    size: str
    cells: list[Row | None]
    num: str
    unscored: str


class Table(NamedTuple):
    """A column for each policy, a row for each measure and size; `reasons` say why numbers or intervals are missing."""

    policies: list[str]
    rows: list[TableRow]
    reasons: list[str]


class Line(NamedTuple):
    """A line through points (x, mean, low, high)."""

    name: str
    colour: int
    points: list[tuple[float, float, float | None, float | None]]


def read_figures(folder: Path) -> Json | None:
    """The sweep's paper_figures.json, where it has one that holds numbers."""
    path = folder / "paper_figures.json"
    figures: Json = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return figures if figures.get("rows") else None


def sections(figures: Json) -> Json:
    """Everything that the page shows of the figures."""
    return {
        "about": figures,
        "shapes": shapes(figures),
        "figure_1": wins(figures, "1", {}),
        "figure_3": [
            Panel(f"{CELLS[prompts]}, {GROUPS[group]}", wins(figures, "3", {"prompts": prompts, "labelers": group}))
            for prompts in CELLS
            for group in GROUPS
            if rows_of(figures, "3", prompts=prompts, labelers=group)
        ],
        "figure_4": boxes(figures),
        "figure_5": over_sizes(figures, rows_of(figures, "5"), "Likert mark by size", "Likert, 1 to 7"),
        "table_14": table_14(figures),
        "coefficients": {figure: coefficients(figures, figure) for figure in COEFFICIENT},
        "qualitative": qualitative(figures),
        "numbers": {figure: numbers(figures, figure) for figure in dict.fromkeys(r["figure"] for r in figures["rows"])},
        "legend": legend([(name, colour(name)) for name in policies(figures)]),
        "seconds": sum(figures["seconds"].values()),
    }


def rows_of(figures: Json, figure: str, **place: Any) -> list[Row]:
    return [
        row
        for row in figures["rows"]
        if row["figure"] == figure and all(row[key] == value for key, value in place.items())
    ]


def policies(figures: Json) -> list[str]:
    found = {row["policy"] for row in figures["rows"] if row["figure"] == "1"}
    return [name for name in MAIN if name in found] + sorted(found - set(MAIN))


def colour(policy: str) -> int:
    return MAIN.index(policy) if policy in MAIN else ACCENT


def wins(figures: Json, figure: str, place: Json) -> Markup:
    """Win rate against the largest SFT policy over sizes, a line for each policy."""
    title = f"Win rate against {figures['baseline']}"
    return over_sizes(figures, rows_of(figures, figure, **place), title, "win rate", rule=0.5)


def over_sizes(figures: Json, rows: Sequence[Row], title: str, y_label: str, rule: float | None = None) -> Markup:
    """The rows' values over the sizes' parameters, on a logarithmic axis."""
    at = {size: math.log10(number) for size, number in figures["sizes"].items()}
    lines = []
    for name in dict.fromkeys(row["policy"] for row in rows):
        points = [
            (at[row["size"]], row["mean"], row["low"], row["high"])
            for row in rows
            if row["policy"] == name and row["mean"] is not None
        ]
        lines.append(Line(name, colour(name), sorted(points)))
    names = [(at[size], f"{millions(number)}") for size, number in figures["sizes"].items()]
    return chart(lines, title, "parameters", names, rule, y_label)


def millions(number: int) -> str:
    return f"{number / 1e6:.2f} M"


def chart(
    lines: Sequence[Line],
    title: str,
    x_label: str,
    x_names: Sequence[tuple[float, str]],
    rule: float | None = None,
    y_label: str = "",
) -> Markup:
    """Lines with whiskers; points of different lines at one place stand a little apart."""
    lines = [one for one in lines if one.points]
    if not lines:
        return nothing(title)
    values = [v for one in lines for point in one.points for v in point[1:] if v is not None]
    low, high = padded(*span([*values, *([rule] if rule is not None else [])]))
    x_low, x_high = span([x for x, _ in x_names])
    room = 0.12 * (x_high - x_low)
    place = Frame(x_low - room, x_high + room, low, high)
    parts = axes(place, x_label, x_names, y_label=y_label)
    if rule is not None:
        parts.append(line("rule", place.x(x_low - room), place.y(rule), place.x(x_high + room), place.y(rule)))
    for n, one in enumerate(lines):
        shift = 3.0 * (n - (len(lines) - 1) / 2)
        spots = [(place.x(x) + shift, place.y(mean)) for x, mean, _, _ in one.points]
        text = " ".join(f"{x:g},{y:g}" for x, y in spots)
        parts.append(Markup('<polyline class="c{}" points="{}" data-name="{}"/>').format(one.colour, text, one.name))
        for (x, y), (_, _, least, most) in zip(spots, one.points, strict=True):
            if least is not None and most is not None:
                parts.append(line(f"lead c{one.colour}", x, place.y(least), x, place.y(most)))
            parts.append(circle(f"c{one.colour}", x, y, 3))
    return drawing(title, parts, place=place)


def boxes(figures: Json) -> list[Panel]:
    """Figure 4: a panel for each box, a row for each policy."""
    rows = rows_of(figures, "4")
    panels = []
    for flag in dict.fromkeys(row["measure"] for row in rows):
        own = {row["policy"]: row for row in rows if row["measure"] == flag}
        dots = [
            Dot(name, row["mean"], row["low"], row["high"], colour(name), plain(row["mean"], 1, percent=True))
            for name in policies(figures)
            if (row := own.get(name)) is not None
        ]
        title = FLAG_NAMES.get(flag, flag)
        caption = "Only prompts that give a text." if flag == "hallucination" else ""
        panels.append(Panel(title, interval_chart(dots, title, 0, 0.1, unit=100), caption))
    return panels


def table_14(figures: Json) -> Table:
    """A row for each task, number of shots and size, a column for each policy."""
    return table(figures, rows_of(figures, "14"), [name for name in policies(figures) if name != "gpt_prompted"])


def table(figures: Json, rows: Sequence[Row], names: Sequence[str]) -> Table:
    found = {(row["measure"], row["size"], row["policy"]): row for row in rows}
    columns = [name for name in names if any(row["policy"] == name for row in rows)]
    lines = []
    for measure in dict.fromkeys(row["measure"] for row in rows):
        for size in figures["sizes"]:
            cells = [found.get((measure, size, name)) for name in columns]
            there = [cell for cell in cells if cell is not None]
            if there:
                lines.append(TableRow(measure, size, cells, spread(there, "num"), spread(there, "unscored")))
    return Table(columns, lines, reasons(rows))


def spread(rows: Sequence[Row], key: str) -> str:
    """The count of several numbers: one where all agree, else from the least to the most."""
    known = [row[key] for row in rows if row.get(key) is not None]
    if not known:
        return "–"
    least, most = plain(min(known)), plain(max(known))
    return least if least == most else f"{least} to {most}"


def reasons(rows: Sequence[Row]) -> list[str]:
    """Why numbers or intervals are missing, each reason once, with where it holds."""
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.get("reason") and (row["mean"] is None or row["low"] is None):
            found.setdefault(row["reason"], []).append(f"{row['measure']} of {row['size']} {row['policy']}")
    return [f"{reason}: {', '.join(places)}" for reason, places in found.items()]


def numbers(figures: Json, figure: str) -> list[Row]:
    """Every number of a figure with what it rests on; a file of before those were kept has none of that."""
    rests = dict.fromkeys(("num", "num_clusters", "ties", "unscored")) | {"reason": ""}
    return [rests | row for row in rows_of(figures, figure)]


def coefficients(figures: Json, figure: str) -> list[Panel]:
    """Score, KL, language loss and classic tasks along a coefficient, its values at even distances."""
    rows = rows_of(figures, figure)
    values = sorted({row["coefficient"] for row in rows})
    at = {value: float(n) for n, value in enumerate(values)}
    names = [(x, f"{value:g}") for value, x in at.items()]
    panels = []
    for measure, title in MEASURES.items():
        points = [
            (at[row["coefficient"]], row["mean"], row["low"], row["high"])
            for row in rows
            if row["measure"] == measure and row["mean"] is not None
        ]
        if points:
            panels.append(Panel(title, chart([Line(title, ACCENT, sorted(points))], title, COEFFICIENT[figure], names)))
    return panels


def qualitative(figures: Json) -> Table:
    """How often each kind's plain mistake was made."""
    rows = [row for row in rows_of(figures, "qualitative") if row["measure"].endswith(" mistake")]
    return table(figures, rows, [name for name in policies(figures) if name != "gpt_prompted"])
