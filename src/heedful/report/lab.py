"""The over-optimisation lab: exact utility and proxy score against √KL, with the fitted laws."""

from math import sqrt
from typing import Any, NamedTuple

from heedful.report.charts import MUTED, POLICIES, Series, legend, line_chart
from heedful.report.evaluation import Panel
from heedful.report.folder import RunFolder
from heedful.report.numbers import Show
from heedful.report.preference import Table, table

Json = dict[str, Any]
FORMS = {"best_of_n": "Best of n", "rl": "PPO"}


class Section(NamedTuple):
    panels: list[Panel]
    tables: list[Table]


def section(run: RunFolder, show: Show) -> Section | None:
    """Figures and the laws' table; None without a lab."""
    if not run.at("/lab"):
        return None
    return Section(panels(run), [table(run, show, "Laws and peaks", "lab", "laws")])


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
