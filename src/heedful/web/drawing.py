"""Small charts as inline SVG, in the page's own colour, without script or style."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, ROW, NAME, FOOT = 400, 24, 118, 26
LONGEST = 14  # letters of a name


class Interval(NamedTuple):
    """A row of the chart; without an interval, low and high are None."""

    name: str
    value: float
    low: float | None
    high: float | None


def intervals(
    title: str, rows: Sequence[Interval], low: float, high: float, unit: str, mark: float | None = None
) -> Markup:
    """A point with its interval for each row, on one scale; `mark` is a dashed line across all of them."""
    height = ROW * len(rows) + FOOT

    def x(value: float) -> float:
        return round(NAME + (min(max(value, low), high) - low) / (high - low) * (WIDTH - NAME - 20), 1)

    parts = []
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(_line(x(value), 0, x(value), height - FOOT, 0.15))
        parts.append(_text(x(value), height - 8, "middle", f"{value:g}{unit}"))
    if mark is not None:
        parts.append(_line(x(mark), 0, x(mark), height - FOOT, 0.7, "4 4"))
    for number, row in enumerate(rows):
        y = ROW * number + ROW / 2
        name = row.name if len(row.name) <= LONGEST else row.name[: LONGEST - 1] + "…"
        parts.append(_text(NAME - 10, y + 5, "end", name))
        if row.low is not None and row.high is not None:
            parts.append(_line(x(row.low), y, x(row.high), y, 1, width=3))
        said = f"{row.name}: {row.value:.3g}{unit}"
        point = Markup('<circle cx="{}" cy="{}" r="5" fill="currentColor"><title>{}</title></circle>')
        parts.append(point.format(x(row.value), y, said))
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}" fill="currentColor">')
    return head.format(WIDTH, height, title) + Markup("").join(parts) + Markup("</svg>")


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float, dash: str = "", width: int = 1) -> Markup:
    form = '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="currentColor" stroke-opacity="{}" stroke-width="{}"{}/>'
    dashed = Markup(' stroke-dasharray="{}"').format(dash) if dash else Markup("")
    return Markup(form).format(x1, y1, x2, y2, opacity, width, dashed)


def _text(x: float, y: float, anchor: str, said: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}" font-size="13">{}</text>').format(x, y, anchor, said)
