"""Drawings: values lie where the axes say, nothing is lost in thinning, ticks are round."""

import re
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from heedful.report.charts import (
    Bar,
    Dot,
    Mark,
    Series,
    histogram,
    interval_chart,
    line_chart,
    spread,
    stack_chart,
    thin,
)
from heedful.report.numbers import duration, plain
from heedful.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Frame, tick_text, ticks
from report.page import Page


def test_the_frame_s_corners() -> None:
    place = Frame(-1, 3, 10, 20)
    assert (place.x(-1), place.x(3)) == (LEFT, WIDTH - RIGHT)
    assert (place.y(10), place.y(20)) == (HEIGHT - BOTTOM, TOP)
    assert place.x(1) == (LEFT + WIDTH - RIGHT) / 2


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_even_and_inside(low: float, size: float) -> None:
    high = low + size
    assume(size > 1e-6 * abs(low))
    found = ticks(low, high, 5)
    assert 1 <= len(found) <= 11
    assert all(low - 1e-6 * size <= tick <= high + 1e-6 * size for tick in found)
    steps = {round((b - a) / size, 5) for a, b in pairwise(found)}
    assert max(steps, default=0) - min(steps, default=0) < 1e-4


@pytest.mark.parametrize(
    ("value", "size", "text"),
    [
        (0.5, 1, "0.5"),
        (-2, 4, "−2"),
        (2_000_000, 8e6, "2M"),
        (5000, 20_000, "5k"),
        (8e-6, 1e-5, "8e−6"),
        (0, 1e-9, "0"),
    ],
)
def test_tick_texts(value: float, size: float, text: str) -> None:
    assert tick_text(value, size) == text


def test_a_line_lies_where_its_values_say() -> None:
    page = Page(line_chart([Series("a", [0, 1, 2], [0, 5, 10], 3)], "t", "x", y_range=(0, 10)))
    line = page.all("polyline")[0]
    assert line.attributes["data-name"] == "a" and line.attributes["class"] == "c3"
    points = [tuple(map(float, point.split(","))) for point in str(line.attributes["points"]).split()]
    assert points[0] == (LEFT, HEIGHT - BOTTOM) and points[2] == (WIDTH - RIGHT, TOP)
    assert points[1] == ((points[0][0] + points[2][0]) / 2, (points[0][1] + points[2][1]) / 2)
    assert page.all("svg")[0].attributes["data-scale"] == "0 2 0 10"


def test_not_a_number_is_left_out_and_counted() -> None:
    html = line_chart([Series("a", [0, 1, 2], [1, float("nan"), 2], 0), Series("b", [0], [float("inf")], 1)], "t", "x")
    assert "2 points are not finite" in html and "nan" not in html
    assert "nothing to draw" in line_chart([], "t", "x") and "nothing to draw" in histogram([], "t", "x")
    assert "nothing to draw" in interval_chart([], "t", 0, 1) and "nothing to draw" in stack_chart([], "t")


@given(st.integers(1, 2000))
def test_thinning_draws_means_of_neighbours(number: int) -> None:
    thinned = thin(Series("a", list(range(number)), [2.0 * n for n in range(number)], 0))
    size = -(-number // 240)
    assert len(thinned.x) == -(-number // size) <= 240
    assert thinned.y == [2 * x for x in thinned.x]
    assert thinned.x[0] == (size - 1) / 2 and thinned.x[-1] <= number - 1


def test_intervals_lie_where_their_values_say() -> None:
    dots = [Dot("a", 0.25, 0.0, 0.5, 0, "25"), Dot("b", 0.75, None, None, 1, "75"), Dot("c", None, None, None, 2, "–")]
    page = Page(interval_chart(dots, "t", 0, 1, rule=0.5))
    low, high = (float(str(page.all("circle")[n].attributes["cx"])) for n in (0, 1))
    rule = next(e for e in page.all("line") if e.attributes["class"] == "rule")
    assert float(str(rule.attributes["x1"])) == pytest.approx((low + high) / 2, abs=0.1)
    whiskers = [e for e in page.all("line") if str(e.attributes["class"]).startswith("whisker")]
    assert len(whiskers) == 1 and len(page.all("circle")) == 2
    assert float(str(whiskers[0].attributes["x2"])) == float(str(rule.attributes["x1"]))


tenths = st.integers(-30, 30).map(lambda n: n / 10)


@settings(deadline=None)
@given(st.lists(tenths, min_size=3, max_size=3).map(sorted), st.none() | tenths)
def test_no_interval_is_cut(values: list[float], rule: float | None) -> None:
    """Whatever the usual range, a value, its interval and the rule lie between name and number, to scale."""
    low, mean, high = values
    page = Page(interval_chart([Dot("a", mean, low, high, 0, "25"), Dot("b", 0.0, None, None, 0, "")], "t", 0, 1, rule))
    at = [float(str(e.attributes["cx"])) for e in page.all("circle")]
    lines = {str(e.attributes["class"]).split()[0]: e.attributes for e in page.all("line")}
    ends = [float(str(lines["whisker"][key])) for key in ("x1", "x2")]
    ruled = [float(str(lines["rule"]["x1"]))] if rule is not None else []
    texts = {str(e.attributes["class"]): float(str(e.attributes["x"])) for e in page.all("text")}
    assert all(texts["name"] + 9.9 <= x <= texts["value"] - 7.9 for x in [*at, *ends, *ruled])
    assert (ends[1] - at[0]) * (mean - low) == pytest.approx((at[0] - ends[0]) * (high - mean), abs=1.3)


def test_an_interval_inside_the_usual_range_leaves_it_alone() -> None:
    page = Page(interval_chart([Dot("a", 0.0, 0.0, 1.0, 0, "25")], "t", 0, 1, rule=0.5))
    rule = next(e for e in page.all("line") if e.attributes["class"] == "rule")
    whisker = next(e for e in page.all("line") if str(e.attributes["class"]).startswith("whisker"))
    ends = [float(str(whisker.attributes[key])) for key in ("x1", "x2")]
    assert float(str(rule.attributes["x1"])) == pytest.approx(sum(ends) / 2, abs=0.1)
    name = next(e for e in page.all("text") if e.text == "a")
    assert ends[0] == pytest.approx(float(str(name.attributes["x"])) + 10, abs=0.1)


@settings(deadline=None)
@given(st.lists(st.tuples(tenths, tenths), min_size=1, max_size=5))
@example([(0.0, 0.0)])
def test_an_axis_goes_below_zero_only_where_a_value_does(points: list[tuple[float, float]]) -> None:
    series = Series("a", [x for x, _ in points], [y for _, y in points], 0)
    scale = str(Page(line_chart([series], "t", "x")).all("svg")[0].attributes["data-scale"])
    x_low, x_high, y_low, y_high = map(float, scale.split())
    assert x_low < x_high and y_low < y_high
    assert (x_low < 0) == (min(series.x) < 0) and (y_low < 0) == (min(series.y) < 0)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 50))
def test_iterations_are_counted_in_whole_numbers(first: int, number: int) -> None:
    x = list(range(first, first + number))
    html = line_chart([Series("a", x, [0.5] * number, 0)], "t", "iteration")
    shown = [e.text for e in Page(html).all("text") if e.attributes["class"] == "tick"]
    assert shown and len(set(shown)) == len(shown)
    assert not any("." in text for text in shown)


def test_what_is_no_count_has_fractions_along_its_axis() -> None:
    page = Page(line_chart([Series("a", [0.0, 1.0], [0.5, 0.5], 0)], "t", "x"))
    assert "0.2" in [e.text for e in page.all("text") if e.attributes["class"] == "tick"]


@settings(deadline=None)
@given(st.lists(st.text("abcdefgh_", min_size=1, max_size=40), min_size=1, max_size=4))
def test_no_name_and_no_number_is_cut(names: list[str]) -> None:
    """A name ends at its row's beginning, a number begins behind the row's end."""
    dots = [Dot(name, 0.5, 0.4, 0.6, 0, f"{n:.1f} %") for n, name in enumerate(names)]
    for page in (
        Page(interval_chart(dots, "t", 0, 1)),
        Page(stack_chart([(name, 0, [1, 1], []) for name in names], "t")),
    ):
        for text in page.all("text"):
            x, wide = float(str(text.attributes["x"])), 6.4 * len(text.text)
            if text.attributes["class"] == "name":
                assert x - wide >= 0 and len(text.text) <= 24
                assert any(name == text.text or name.startswith(text.text.removesuffix("…")) for name in names)
            if text.attributes["class"] == "value":
                assert x + 1.1 * wide <= WIDTH


@settings(deadline=None)
@given(st.lists(st.floats(0, 200), max_size=12).map(sorted), st.floats(1, 20))
def test_names_make_room_and_keep_their_order(wanted: list[float], gap: float) -> None:
    found = spread(wanted, gap)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(found))
    if all(b - a >= gap for a, b in pairwise(wanted)):
        assert found == pytest.approx(wanted)


def test_the_words_at_rings_do_not_lie_on_each_other() -> None:
    series = Series("a", [0, 1, 2, 3], [0, 1, 1, 0.5], 0, "both")
    marks = [Mark(2, 1, "β 0.2", 0), Mark(2.05, 0.98, "β 0.1", 0), Mark(2.1, 1, "γ 0.1", 1), Mark(3, 0.5, "γ 0.5", 1)]
    boxes = []
    for text in Page(line_chart([series], "t", "x", marks=marks)).all("text"):
        kind, x, y = (str(text.attributes[key]) for key in ("class", "x", "y"))
        if kind.startswith("mark"):
            wide = 6.4 * len(text.text)
            boxes.append((float(x) - wide * kind.endswith("end"), float(y), wide))
    assert len(boxes) == 4
    for n, (left, below, wide) in enumerate(boxes):
        assert 0 <= left and left + wide <= WIDTH
        for other_left, other_below, other_wide in boxes[:n]:
            apart = left >= other_left + other_wide or other_left >= left + wide or abs(below - other_below) >= 11
            assert apart


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.1, 10))
def test_the_word_at_a_turn_does_not_lie_on_the_line(falls: int, rises: int, steep: float) -> None:
    """A loss that falls and rises again, and the same upside down: the mark is on its turn."""
    lengths = [steep * n for n in range(falls, 0, -1)] + [0.0] + [n / steep for n in range(1, rises + 1)]
    for sign in (1, -1):
        y = [500 + sign * v for v in lengths]
        mark = Mark(falls, 500, "lowest loss", 0)
        page = Page(line_chart([Series("a", list(range(len(y))), y, 0, "both")], "t", "x", marks=[mark]))
        word = next(e for e in page.all("text") if str(e.attributes["class"]).startswith("mark"))
        x, below, wide = float(str(word.attributes["x"])), float(str(word.attributes["y"])), 6.4 * len(word.text)
        left = x - wide * str(word.attributes["class"]).endswith("end")
        points = str(page.all("polyline")[0].attributes["points"]).split()
        places = [tuple(map(float, point.split(","))) for point in points]
        for (x0, y0), (x1, y1) in pairwise(places):
            for part in range(101):
                at_x, at_y = x0 + (x1 - x0) * part / 100, y0 + (y1 - y0) * part / 100
                assert not (left < at_x < left + wide and below - 11 < at_y < below)
        assert 0 <= left and left + wide <= WIDTH and below <= HEIGHT - BOTTOM


def test_bars_share_their_row() -> None:
    page = Page(stack_chart([("a", 0, [3, 1, 0], [])], "t"))
    widths = [float(str(e.attributes["width"])) for e in page.all("rect")]
    assert widths[2] == 0 and (widths[0] + 1) / (widths[1] + 1) == pytest.approx(3, rel=0.01)


def test_a_histogram_s_bars_are_as_high_as_their_numbers() -> None:
    page = Page(histogram([Bar(-1, 0, 2, 8), Bar(0, 1, 4, 9)], "t", "x"))
    heights = [float(str(e.attributes["height"])) for e in page.all("rect")]
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)


def test_rings_and_names_are_escaped() -> None:
    series = Series("<a>", [0, 1], [0, 1], 0)
    html = line_chart([series], "<t>", "<x>", marks=[Mark(0, 0, "<m>", 0)], x_names=[(0, "<n>")], named=True)
    assert not re.search(r"<(a|t|x|m|n)>", html)


@pytest.mark.parametrize(
    ("value", "options", "text"),
    [
        (None, {}, "–"),
        (0.61994, {}, "0.620"),
        (-0.5, {"digits": 1}, "−0.5"),
        (0.625, {"digits": 1, "percent": True}, "62.5 %"),
        (12345, {}, "12\u2009345"),
        (-0.0001, {"digits": 2}, "0.00"),
        (1, {"digits": 0, "percent": True}, "100 %"),
    ],
)
def test_plain_numbers(value: float | None, options: dict[str, int], text: str) -> None:
    assert plain(value, **options) == text


def test_durations() -> None:
    assert [duration(s) for s in (2.34, 59.96, 252, 7260)] == ["2.3 s", "1 min 0 s", "4 min 12 s", "2 h 1 min"]
