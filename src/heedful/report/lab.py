"""The over-optimisation lab: exact utility and proxy score against √KL, with the fitted laws."""

import re
from math import sqrt
from typing import Any, NamedTuple

from heedful.report.charts import MUTED, POLICIES, Series, legend, line_chart
from heedful.report.evaluation import Panel
from heedful.report.folder import RunFolder
from heedful.report.lab_shapes import shapes
from heedful.report.numbers import Show
from heedful.report.preference import Table, table
from heedful.report.shapes import Shape

Json = dict[str, Any]
FORMS = {"best_of_n": "Best of n", "rl": "PPO"}
# What Gao et al. 2022 found (section 3), beside each.
PAPER = {
    ("best_of_n", "alpha"): "The paper: changes smoothly with the logarithm of the proxy's size.",
    ("best_of_n", "beta"): "The paper: falls smoothly with the logarithm of the proxy's size.",
    ("rl", "alpha"): "The paper: the same for all sizes of proxies.",
    ("rl", "beta"): "The paper: falls smoothly with the logarithm of the proxy's size.",
}


class Section(NamedTuple):
    panels: list[Panel]
    tables: list[Table]
    claims: list[Shape]


def section(run: RunFolder, show: Show) -> Section | None:
    """Figures and the laws' table; None without a lab."""
    if not run.at("/lab"):
        return None
    tables = [table(run, show, "Laws and peaks", "lab", "laws")]
    if run.at("/lab/proxies"):
        tables.append(table(run, show, "What the proxies learned", "lab", "proxies"))
    if run.at("/lab/comparisons"):
        tables.append(table(run, show, "Off the last proxy's own curve at the same KL", "lab", "comparisons"))
    return Section([*panels(run), *coefficients(run)], tables, shapes(run.at("/lab")))


def panels(run: RunFolder) -> list[Panel]:
    """For each way to optimise: gold with its laws, and the proxies' own scores; nothing without a lab."""
    found: Json | None = run.at("/lab")
    if not found:
        return []
    made = []
    for form, how in FORMS.items():
        names = list(dict.fromkeys(row["proxy"] for row in found["curves"] if row["form"] == form))
        colour = {name: POLICIES[n % len(POLICIES)] for n, name in enumerate(names)}
        for key, what in (("gold", "exact utility gained"), ("score", "the proxy's own score gained")):
            series = []
            for name in names:
                own = [row for row in found["curves"] if (row["form"], row["proxy"]) == (form, name)]
                x = [sqrt(max(row["kl"], 0.0)) for row in own]
                if key == "gold" and own[0]["law"] is not None:
                    along = sorted(zip(x, (row["law"] for row in own), strict=True))
                    series.append(Series("", [at for at, _ in along], [law for _, law in along], MUTED, "line"))
                series.append(Series(name, x, [row[key] for row in own], colour[name], "points"))
            title = f"{how}: {what}"
            text = "Points are measured, lines the fitted laws." if key == "gold" else "What was maximised."
            chart = line_chart(series, title, "√KL, √nats per response")
            made.append(Panel(title, chart + legend([(name, colour[name]) for name in names]), text))
    return made


def coefficients(run: RunFolder) -> list[Panel]:
    """α and β against the number of rankings, a line for each size of proxy; nothing of fewer than two numbers."""
    found: list[tuple[Json, str, int]] = []
    for row in run.at("/lab/laws"):
        name = re.fullmatch(r"(\w+)-(\d+)", row["proxy"])
        if name and row["alpha"] is not None:
            found.append((row, name[1], int(name[2])))
    numbers, sizes = sorted({number for _, _, number in found}), list(dict.fromkeys(size for _, size, _ in found))
    if len(numbers) < 2:
        return []
    made = []
    colours = [(size, POLICIES[n % len(POLICIES)]) for n, size in enumerate(sizes)]
    for form, how in FORMS.items():
        for key, letter in (("alpha", "α"), ("beta", "β")):
            series = []
            for size, colour in colours:
                own = sorted((numbers.index(n), row[key]) for row, of, n in found if (row["form"], of) == (form, size))
                series.append(Series(size, [float(at) for at, _ in own], [v for _, v in own], colour, "both"))
            title, names = f"{how}: {letter} by rankings", [(float(i), f"{n:,}") for i, n in enumerate(numbers)]
            chart = line_chart(series, title, "rankings that the proxy learned from", x_names=names)
            made.append(Panel(title, chart + legend(colours), PAPER[form, key]))
    return made
