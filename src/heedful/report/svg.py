"""What charts are drawn from: shapes as inline SVG, coloured by the page's style sheet, and the arithmetic of axes.

Coordinates are pixels of a 360-wide drawing, about a phone's width, so that text keeps its size there.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 38


class Frame:
    """Where a value lies in the drawing."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self.x_low, self.x_high, self.y_low, self.y_high = x_low, x_high, y_low, y_high

    def x(self, value: float) -> float:
        return round(LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)


def drawing(title: str, parts: Sequence[Markup], height: int = HEIGHT, place: Frame | None = None) -> Markup:
    """The whole picture, with its name for those who do not see it; `place` lets the page read values off it."""
    scale = Markup("")
    if place is not None:
        low_high = (place.x_low, place.x_high, place.y_low, place.y_high)
        scale = Markup(' data-scale="{}"').format(" ".join(f"{v:.9g}" for v in low_high))
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}"{}>')
    return head.format(WIDTH, height, title, scale) + Markup("").join(parts) + Markup("</svg>")


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def words(kind: str, x: float, y: float, text: str | Markup) -> Markup:
    return Markup('<text class="{}" x="{:g}" y="{:g}">{}</text>').format(kind, x, y, text)


def circle(kind: str, x: float, y: float, radius: float) -> Markup:
    return Markup('<circle class="{}" cx="{}" cy="{}" r="{:g}"/>').format(kind, x, y, radius)


def rectangle(kind: str, x: float, y: float, width: float, height: float, title: str) -> Markup:
    form = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>')
    return form.format(kind, x, y, width, height, title)


def axes(
    place: Frame, x_label: str, x_names: Sequence[tuple[float, str]] = (), whole: bool = False, y_label: str = ""
) -> list[Markup]:
    """Grid lines, numbers beside and below, and what lies along the bottom and the left.

    `x_names` replace the numbers below; with `whole` only whole numbers stand there: nothing has a step 0.2.
    """
    parts = []
    for tick in ticks(place.y_low, place.y_high, 5):
        y = place.y(tick)
        parts.append(line("grid", LEFT, y, WIDTH - RIGHT, y))
        parts.append(words("left", LEFT - 6, y + 4, tick_text(tick, place.y_high - place.y_low)))
    size = place.x_high - place.x_low
    numbers = [v for v in ticks(place.x_low, place.x_high, 5, (1, 2, 5, 10)) if not whole or v == int(v)]
    for value, name in x_names or [(v, tick_text(v, size)) for v in numbers]:
        parts.append(words("tick", place.x(value), HEIGHT - BOTTOM + 16, name))
    if y_label:
        turned = Markup('<text class="axis" transform="translate(10 {:g}) rotate(-90)">{}</text>')
        parts.append(turned.format((TOP + HEIGHT - BOTTOM) / 2, y_label))
    return [*parts, words("axis", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label)]


def span(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest, a little apart where they are equal; below 0 only where a value is."""
    low, high = min(values), max(values)
    room = 0 if high > low else abs(high) * 0.1 or 0.5
    return lower(low, room), high + room


def padded(low: float, high: float, share: float = 0.07) -> tuple[float, float]:
    """Some room above and below, a share of the whole; an axis without a value below 0 does not go there."""
    room = share * (high - low)
    return lower(low, room), high + room


def lower(low: float, room: float) -> float:
    return low - room if low < 0 else max(low - room, 0.0)


def ticks(low: float, high: float, about: int, steps: Sequence[float] = (1, 2, 2.5, 5, 10)) -> list[float]:
    """Round numbers from low to high, about so many, a power of ten times one of `steps` apart."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in steps if power * m >= raw * 0.75)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def tick_text(value: float, size: float) -> str:
    """A tick's number, as exact as an axis of this size asks for."""
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if size >= 5 * unit and value:
            return f"{value / unit:g}{name}".replace("-", "−")
    digits = max(0, 2 - math.floor(math.log10(size)))
    if digits > 5 and value:
        power = math.floor(math.log10(abs(value)))
        return f"{value / 10**power:.3g}e{power}".replace("-", "−")
    text = f"{value:.{digits}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")
