"""The report's charts as pictures that stand alone on a page: SVG with its own style, by daylight."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from heedful import report
from heedful.report.evaluation import Panel

REPORT = Path(report.__file__).parent
STYLE = """
svg { background: #fff; font: 11px system-ui, sans-serif; } text { fill: #5b636d; } .mark { fill: #1d2126; }
.left { text-anchor: end; } .tick, .axis { text-anchor: middle; } .grid { stroke: #eceef0; }
circle { fill: var(--c); r: 3px; }
.rule { stroke: #5b636d; stroke-dasharray: 3 3; } .whisker { stroke: var(--c); stroke-width: 2; opacity: .55; }
polyline { fill: none; stroke: var(--c); stroke-width: 1.8; }
"""


def picture(panels: Sequence[Panel]) -> str:
    """The panels below each other; the names beside their colours stand below the last that has the same ones."""
    parts, top = [], 0
    named = [re.findall(r'<i class="(c\d+)"></i>([^<]*)<', str(panel.chart)) for panel in panels]
    for panel, names, following in zip_longest(panels, named, named[1:]):
        chart = re.search(r'viewBox="0 0 \d+ (\d+)".*?</svg>', str(panel.chart), re.DOTALL)
        assert chart is not None
        inside = chart[0].partition(">")[2].removesuffix("</svg>")
        parts.append(f'<text class="mark" x="8" y="{top + 14}">{panel.title}</text>')
        parts.append(f'<g transform="translate(0 {top + 20})">{inside}</g>')
        top += 24 + int(chart[1])
        if names != following:
            columns = 2 if max(len(name) for _, name in names) > 16 else 3
            parts += legend(names, top, columns)
            top += 20 + 16 * -(-len(names) // columns)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 360 {top}" width="540">'
    return f"{head}<style>{STYLE}{colours()}</style>{''.join(parts)}</svg>\n"


def legend(names: Sequence[tuple[str, str]], top: int, columns: int) -> list[str]:
    parts = []
    for n, (colour, name) in enumerate(names):
        x, y = 40 + 330 // columns * (n % columns), top + 14 + 16 * (n // columns)
        parts.append(f'<circle class="{colour}" cx="{x}" cy="{y - 4}" r="4"/><text x="{x + 8}" y="{y}">{name}</text>')
    return parts


def colours() -> str:
    """The report's own."""
    found = dict(reversed(re.findall(r"--(c\d+): *(#\w+)", (REPORT / "report.css").read_text(encoding="utf-8"))))
    return "".join(f".{name} {{ --c: {colour}; }}" for name, colour in sorted(found.items()))
