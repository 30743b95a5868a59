"""A sweep as one HTML file: the cells ranked, a curve for every setting, a heat map where two were swept."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from heedful.config import InputError
from heedful.report.charts import ACCENT, Series, legend, line_chart
from heedful.report.evaluation import Panel
from heedful.report.figures import read_figures, sections
from heedful.report.folder import Json
from heedful.report.layout import laid_out
from heedful.report.numbers import plain
from heedful.report.over_seeds import Group, read_groups
from heedful.report.svg import drawing, rectangle, words
from heedful.run import write_atomic

COLOURS = 8  # of lines that can be told apart
LEFT, CELL_HEIGHT, FOOT = 96, 30, 40
WIDTH = 360


def write_sweep_report(folder: Path) -> Path:
    """Write `folder`/report.html from its sweep.json, and from what else stands beside it.

    Raises:
        InputError: there is no sweep, or its file is broken.
    """
    try:
        sweep = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} holds no sweep: sweep.json is not there") from None
    except ValueError:
        raise InputError(f"{folder / 'sweep.json'} is broken; run the sweep's command again to write it anew") from None
    path = folder / "report.html"
    figures = read_figures(folder)
    groups = read_groups(folder, sweep["recipe"]) if "seed" in sweep["matrix"] and not figures else []
    write_atomic(path, render_sweep(sweep, figures, groups))
    return path


def render_sweep(sweep: Json, figures: Json | None = None, groups: Sequence[Group] = ()) -> str:
    swept = [key for key in sweep["matrix"] if key != "seed"]
    panels = [curve(sweep, key) for key in swept]
    left = [cell for cell in sweep["cells"] if cell["value"] is None]
    return laid_out(
        "sweep.html",
        shown=shown,
        sweep=sweep,
        swept=swept,
        seeds="seed" in sweep["matrix"],
        panels=panels,
        heat=heat_map(sweep, *swept) if len(swept) == 2 else None,
        missing=left,
        figures=sections(figures) if figures else None,
        groups=groups,
    )


def shown(value: Any) -> str:
    """A setting's value as it stands in a table."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def values_of(sweep: Json, key: str) -> dict[str, float]:
    """The setting's values as written, each with its place along an axis."""
    return {shown(value): float(n) for n, value in enumerate(sweep["matrix"][key])}


def curve(sweep: Json, key: str) -> Panel:
    """The result along one setting: a line for each combination of the others, or their mean where those are many."""
    place = values_of(sweep, key)
    lines: dict[str, dict[float, list[float]]] = {}
    for row in sweep["ranking"]:
        if row["mean"] is not None:
            others = ", ".join(f"{k} {shown(v)}" for k, v in row["settings"].items() if k != key)
            lines.setdefault(others, {}).setdefault(place[shown(row["settings"][key])], []).append(row["mean"])
    caption = ""
    if len(lines) > COLOURS:
        joined: dict[float, list[float]] = {}
        for points in lines.values():
            for x, found in points.items():
                joined.setdefault(x, []).extend(found)
        lines, caption = {"": joined}, f"The mean over {len(lines)} combinations of the other settings."
    order = sorted(lines)
    colours = [ACCENT] if len(order) == 1 else list(range(len(order)))
    series = [line(name, lines[name], colour) for name, colour in zip(order, colours, strict=True)]
    ends = (0.0, len(place) - 1.0) if len(place) > 1 else None  # of every setting, those without a value too
    names_at = [(x, name) for name, x in place.items()]
    chart = line_chart(series, f"{sweep['by']} by {key}", key, x_names=names_at, x_range=ends)
    names = legend([(name, colour) for name, colour in zip(order, colours, strict=True) if name])
    return Panel(key, chart + names, caption)


def line(name: str, points: dict[float, list[float]], colour: int) -> Series:
    x = sorted(points)
    return Series(name, x, [sum(points[at]) / len(points[at]) for at in x], colour, "both")


def heat_map(sweep: Json, across: str, down: str) -> Panel:
    """The result in the plane of two settings, the better the stronger the colour; a dash where there is none."""
    columns, rows = values_of(sweep, across), values_of(sweep, down)
    found = {
        (shown(row["settings"][across]), shown(row["settings"][down])): row["mean"]
        for row in sweep["ranking"]
        if row["mean"] is not None
    }
    width = (WIDTH - LEFT) / len(columns)
    parts = []
    for down_name, y in rows.items():
        top = y * CELL_HEIGHT
        parts.append(words("left", LEFT - 8, top + CELL_HEIGHT / 2 + 4, down_name))
        for across_name, x in columns.items():
            value, left = found.get((across_name, down_name)), LEFT + x * width
            strength = goodness(value, list(found.values()), sweep["better"] == "lower")
            title = f"{across} {across_name}, {down} {down_name}: {plain(value, 4)}"
            cell = rectangle(f"c{ACCENT}", left + 1, top + 1, width - 2, CELL_HEIGHT - 2, title)
            parts.append(Markup('<g opacity="{:.2f}">{}</g>').format(0.08 + 0.62 * strength, cell))
            parts.append(words("mark axis", left + width / 2, top + CELL_HEIGHT / 2 + 4, plain(value, 3)))
    floor = len(rows) * CELL_HEIGHT
    parts += [words("tick", LEFT + (x + 0.5) * width, floor + 15, name) for name, x in columns.items()]
    parts.append(words("axis", LEFT + (WIDTH - LEFT) / 2, floor + 33, f"{across} (across), {down} (down)"))
    title = f"{sweep['by']} by {across} and {down}"
    return Panel(title, drawing(title, parts, floor + FOOT), f"The stronger the colour, the {sweep['better']}.")


def goodness(value: float | None, all_values: Sequence[float], lower: bool) -> float:
    """0 the worst, 1 the best of all values; 0 for none."""
    if value is None or max(all_values) == min(all_values):
        return 0.0
    share = (value - min(all_values)) / (max(all_values) - min(all_values))
    return 1 - share if lower else share
