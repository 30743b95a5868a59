"""Lines, intervals and histograms as inline SVG."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

from heedful.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Frame,
    axes,
    circle,
    drawing,
    line,
    padded,
    rectangle,
    span,
    tick_text,
    ticks,
    words,
)

MAX_POINTS = 240
POLICIES = (0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15)  # colours of policies
MUTED = 8  # the colour of what is there for comparison only
ACCENT = 9  # the colour of what is no policy's
LINE = 11  # the height of a line of text
BOLD = 1.12  # how much wider bold text is
LONGEST = 24  # letters of a name beside its row

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


class Series(NamedTuple):
    """y over x; `colour` is one of POLICIES, MUTED or ACCENT; `style` is "line", "dashed", "points" or "both"."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    style: str = "line"


class Mark(NamedTuple):
    """A ring around a point that matters, with a word beside it."""

    x: float
    y: float
    label: str
    colour: int


class Dot(NamedTuple):
    """A row of an interval chart: a value, its interval where there is one, and what is written at its right."""

    label: str
    mean: float | None
    low: float | None
    high: float | None
    colour: int
    text: Markup | str
    note: Markup | str = ""


class Extent(NamedTuple):
    """A value with its interval where there is one."""

    mean: float
    low: float | None
    high: float | None


class Cross(NamedTuple):
    """A point whose two coordinates have intervals; a line joins those that are one method at several settings."""

    label: str
    x: Extent
    y: Extent
    colour: int
    joined: bool = False


class Bar(NamedTuple):
    """One bar of a histogram, from x0 to x1."""

    x0: float
    x1: float
    number: int
    colour: int


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str,
    rules: Sequence[float] = (),
    marks: Sequence[Mark] = (),
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    x_names: Sequence[tuple[float, str]] = (),
    named: bool = False,
) -> Markup:
    """Lines and points in one frame; `rules` are horizontal dashed lines, `x_names` replace the numbers below.

    `named` writes each line's name at its end.

    Long series are thinned to 240 points, each the mean of its neighbours; what is not a finite number is left out
    and counted below the drawing.
    """
    kept = [finite(one) for one in series]
    left_out = sum(len(one.x) for one in series) - sum(len(one.x) for one in kept)
    whole = all(isinstance(x, int) for one in kept for x in one.x)
    kept = [thin(one) for one in kept if one.x]
    if not kept:
        return nothing(title)
    x_low, x_high = x_range or span([v for one in kept for v in one.x])
    share = 0.14 if marks else 0.07  # a word fits below the lowest ring
    y_low, y_high = y_range or padded(*span([*(v for one in kept for v in one.y), *rules]), share)
    place = Frame(x_low, x_high, y_low, y_high)
    right = WIDTH - 10
    parts = axes(place, x_label, x_names, whole)
    parts += [line("rule", place.x(x_low), place.y(v), right, place.y(v)) for v in rules]
    parts += [part for one in kept for part in draw(one, place)]
    parts += end_names(kept, place) if named else []
    parts += rings(marks, place, [pixels(one, place) for one in kept])
    note = Markup('<p class="note">{} points are not finite numbers and left out.</p>').format(left_out)
    return drawing(title, parts, HEIGHT, place) + (note if left_out else "")


def draw(one: Series, place: Frame) -> list[Markup]:
    """A series as a line, as points, or as both."""
    points = pixels(one, place)
    parts = []
    if one.style != "points" and len(points) > 1:
        text = " ".join(f"{x:g},{y:g}" for x, y in points)
        kind = f"c{one.colour}{' dashed' if one.style == 'dashed' else ''}"
        parts.append(Markup('<polyline class="{}" points="{}" data-name="{}"/>').format(kind, text, one.name))
    if one.style in ("points", "both") or len(points) == 1:
        radius = 5 if one.style == "points" else 3
        parts += [circle(f"c{one.colour}", x, y, radius) for x, y in points]
    return parts


def pixels(one: Series, place: Frame) -> list[Point]:
    return [(place.x(x), place.y(y)) for x, y in zip(one.x, one.y, strict=True)]


def end_names(series: Sequence[Series], place: Frame) -> list[Markup]:
    """Each line's name behind its last point; names that would lie on each other make room, tied to their points."""
    ordered = sorted(series, key=lambda one: place.y(one.y[-1]))
    wanted = [place.y(one.y[-1]) for one in ordered]
    parts = []
    for one, y, at in zip(ordered, wanted, spread(wanted, LINE), strict=True):
        x = place.x(one.x[-1])
        moved = abs(at - y) > 3
        if moved:
            parts.append(line(f"lead c{one.colour}", x + 4, y, x + 15, at))
        parts.append(words("mark", x + (18 if moved else 8), at + 4, one.name))
    return parts


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending places moved as far apart as `gap` asks: half of what is missing upwards, half downwards."""
    down, up = list(wanted), list(wanted)
    for i in range(1, len(wanted)):
        down[i] = max(down[i], down[i - 1] + gap)
        up[-1 - i] = min(up[-1 - i], up[-i] - gap)
    return [(a + b) / 2 for a, b in zip(down, up, strict=True)]


def rings(marks: Sequence[Mark], place: Frame, lines: Sequence[Sequence[Point]]) -> list[Markup]:
    """A ring and a word for each mark, the word in the first place round the ring that is free.

    Free of words, rings and the drawn lines; where there is no such place, of words and rings.
    """
    parts, taken = [], [box(place.x(mark.x) - 6, place.y(mark.y) + 6, 12) for mark in marks]
    for mark in marks:
        x, y, wide = place.x(mark.x), place.y(mark.y), text_width(mark.label)
        sides = [(x - 9, True), (x + 9, False)] if x > WIDTH * 0.6 else [(x + 9, False), (x - 9, True)]
        tries = [(at, y + dy, end) for dy in (-9, 18, -21, 30) for at, end in sides]
        boxes = [box(at - wide * end, below, wide) for at, below, end in tries]
        free = [not any(cross(b, other) for other in taken) and inside(b) for b in boxes]
        clear = [ok and not any(meets(b, line) for line in lines) for b, ok in zip(boxes, free, strict=True)]
        chosen = clear.index(True) if True in clear else free.index(True) if True in free else 0
        taken.append(boxes[chosen])
        at, below, end = tries[chosen]
        parts += [circle(f"ring c{mark.colour}", x, y, 6), words("mark end" if end else "mark", at, below, mark.label)]
    return parts


def box(left: float, below: float, wide: float) -> Box:
    return left, below - LINE, left + wide, below


def cross(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def meets(a: Box, points: Sequence[Point]) -> bool:
    """Whether the line through the points passes through the box."""
    return any(passes(a, start, end) for start, end in pairwise(points))


def passes(a: Box, start: Point, end: Point) -> bool:
    """Whether part of the way from start to end lies in the box: in both of its extents at one time."""
    began, ended = 0.0, 1.0
    for axis in (0, 1):
        low, high, way = a[axis] - start[axis], a[axis + 2] - start[axis], end[axis] - start[axis]
        if way == 0 and not low <= 0 <= high:
            return False
        if way:
            began, ended = max(began, min(low / way, high / way)), min(ended, max(low / way, high / way))
    return began <= ended


def inside(a: Box) -> bool:
    return a[0] >= 0 and a[1] >= 0 and a[2] <= WIDTH and a[3] <= HEIGHT - BOTTOM


def cross_chart(crosses: Sequence[Cross], title: str, x_label: str, rules: Sequence[float] = ()) -> Markup:
    """A point for each cross with its intervals along both axes; `rules` are horizontal dashed lines.

    Points lie above every interval, and the line through those that are joined below.
    """
    known = [c for c in crosses if is_number(c.x.mean) and is_number(c.y.mean)]
    if not known:
        return nothing(title)
    ends = [[v for c in known for v in getattr(c, axis) if is_number(v)] for axis in ("x", "y")]
    (x_low, x_high), (y_low, y_high) = span([0.0, *ends[0]]), padded(*span([*ends[1], *rules]))
    place = Frame(*padded(x_low, x_high), y_low, y_high)
    parts = axes(place, x_label)
    parts += [line("rule", LEFT, place.y(v), WIDTH - RIGHT, place.y(v)) for v in rules]
    one = sorted((c.x.mean, c.y.mean) for c in known if c.joined)
    through = Series("", [x for x, _ in one], [y for _, y in one], MUTED)
    parts += draw(through, place) if len(one) > 1 else []
    for c in known:
        kind = f"whisker c{c.colour}"
        x, y = place.x(c.x.mean), place.y(c.y.mean)
        if c.x.low is not None and c.x.high is not None:
            parts.append(line(kind, place.x(c.x.low), y, place.x(c.x.high), y))
        if c.y.low is not None and c.y.high is not None:
            parts.append(line(kind, x, place.y(c.y.low), x, place.y(c.y.high)))
    parts += [circle(f"c{c.colour}", place.x(c.x.mean), place.y(c.y.mean), 4) for c in known]
    return drawing(title, parts, HEIGHT, place) + legend([(c.label, c.colour) for c in known])


def histogram(bars: Sequence[Bar], title: str, x_label: str, rules: Sequence[float] = ()) -> Markup:
    """Bars side by side; `rules` are vertical lines."""
    if not bars:
        return nothing(title)
    place = Frame(bars[0].x0, bars[-1].x1, 0, max(bar.number for bar in bars) * 1.06)
    floor = HEIGHT - BOTTOM
    parts = axes(place, x_label)
    for bar in bars:
        left, top = place.x(bar.x0) + 0.5, place.y(bar.number)
        name = f"{bar.number} from {bar.x0:.2f} to {bar.x1:.2f}"
        parts.append(rectangle(f"c{bar.colour}", left, top, place.x(bar.x1) - left - 0.5, floor - top, name))
    parts += [line("rule", place.x(v), TOP, place.x(v), floor) for v in rules]
    return drawing(title, parts)


def interval_chart(
    dots: Sequence[Dot], title: str, low: float, high: float, rule: float | None = None, unit: float = 1
) -> Markup:
    """One row per dot: name, value with interval, number at the right, a note below.

    The axis goes from low to high, and further where a value, an interval or the rule does: nothing is cut.
    `unit` is what the numbers along the bottom are multiplied by (100 for percent).
    """
    if not dots:
        return nothing(title)
    low, high = widened(low, high, [v for dot in dots for v in (dot.mean, dot.low, dot.high, rule)])
    step = 44 if any(dot.note for dot in dots) else 26
    floor = TOP + step * len(dots)
    left = name_width([dot.label for dot in dots])
    right = WIDTH - 16 - max(text_width(dot.text) for dot in dots) * BOLD

    def x(value: float) -> float:
        return round(left + (value - low) / (high - low) * (right - left), 1)

    parts: list[Markup] = []
    for tick in ticks(low * unit, high * unit, 4):
        parts.append(line("grid", x(tick / unit), TOP, x(tick / unit), floor))
        parts.append(words("tick", x(tick / unit), floor + 15, tick_text(tick, (high - low) * unit)))
    if rule is not None:
        parts.append(line("rule", x(rule), TOP, x(rule), floor))
    for n, dot in enumerate(dots):
        y = TOP + step * n + 13
        parts.append(words("name", left - 10, y + 4, fitted(dot.label)))
        if dot.low is not None and dot.high is not None:
            parts.append(line(f"whisker c{dot.colour}", x(dot.low), y, x(dot.high), y))
        if dot.mean is not None:
            parts.append(circle(f"c{dot.colour}", x(dot.mean), y, 4.5))
        parts.append(words("value", right + 8, y + 4, dot.text))
        if dot.note:
            parts.append(words("below", left, y + 21, dot.note))
    return drawing(title, parts, floor + 22)


def widened(low: float, high: float, values: Sequence[float | None]) -> tuple[float, float]:
    """The axis with a little room beyond the values that lie outside it."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    least, most, room = min(known, default=low), max(known, default=high), 0.03 * (high - low)
    return low if least >= low else least - room, high if most <= high else most + room


def stack_chart(rows: Sequence[tuple[str, int, Sequence[int], Sequence[Markup]]], title: str) -> Markup:
    """Rows of (name, colour, numbers, texts): the numbers side by side as shares of their sum, the texts below."""
    if not rows:
        return nothing(title)
    left, right, step = name_width([row[0] for row in rows]), WIDTH - 10, 44
    parts: list[Markup] = []
    for n, (name, colour, numbers, texts) in enumerate(rows):
        y, x = TOP + step * n, float(left)
        total = sum(numbers) or 1
        parts.append(words("name", left - 10, y + 15, fitted(name)))
        for i, number in enumerate(numbers):
            width = number / total * (right - left)
            parts.append(rectangle(f"c{colour} part{i}", x, y + 4, max(width - 1, 0), 14, str(number)))
            x += width
        parts.append(words("below", left, y + 32, Markup(" · ").join(texts)))
    return drawing(title, parts, TOP + step * len(rows))


def text_width(text: Markup | str) -> float:
    """About how wide a text of 11 px is, in a wide font: rather some room too much than a letter cut."""
    return 6.4 * len(escape(text).striptags())


def name_width(names: Sequence[str]) -> float:
    """The room that names need at the left of their rows."""
    return 18 + max(text_width(fitted(name)) for name in names)


def fitted(name: str) -> Markup:
    """A name of at most 24 letters; a longer one is shortened (tables name it whole)."""
    if len(name) <= LONGEST:
        return escape(name)
    return Markup("{}…").format(name[: LONGEST - 1])


def legend(entries: Sequence[tuple[str, int]]) -> Markup:
    """Names beside their colours."""
    chips = [Markup('<span><i class="c{}"></i>{}</span>').format(colour, name) for name, colour in entries]
    return Markup('<p class="legend">{}</p>').format(Markup(" ").join(chips))


def nothing(title: str) -> Markup:
    return Markup('<p class="missing">{}: nothing to draw.</p>').format(title)


def finite(one: Series) -> Series:
    """Without the points that are no finite numbers."""
    pairs = [(x, y) for x, y in zip(one.x, one.y, strict=True) if is_number(x) and is_number(y)]
    return one._replace(x=[x for x, _ in pairs], y=[y for _, y in pairs])


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def thin(one: Series) -> Series:
    """At most 240 points, each the mean of as many neighbours."""
    size = -(-len(one.x) // MAX_POINTS)
    groups = [slice(i, i + size) for i in range(0, len(one.x), size)]
    return one._replace(x=[mean(one.x[g]) for g in groups], y=[mean(one.y[g]) for g in groups])


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
