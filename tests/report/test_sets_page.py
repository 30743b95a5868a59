"""Pages of public sets: bars lie where their values say, every number is there, the released page shows the figures."""

import json
from pathlib import Path

import pytest

from heedful.config import InputError
from heedful.evaluate.sets.released import MODELS, PAPER, Cell
from heedful.evaluate.statistics import Estimate
from heedful.report.bars import Group, GroupedBar, bar_chart
from heedful.report.sets import write_released_report, write_sets_report
from heedful.report.svg import BOTTOM, HEIGHT, TOP
from report.page import Page


def test_a_bar_stands_from_zero_to_its_value() -> None:
    bars = [GroupedBar("a", 0.5, 0.25, 0.75, 1), GroupedBar("b", 0.2, None, None, 2, behind=1.0)]
    page = Page(bar_chart([Group("left", bars), Group("right", bars[:1])], "t", "x", 1.0))
    first, pale, second, third = page.all("rect")
    height = HEIGHT - TOP - BOTTOM
    for bar, value in ((first, 0.5), (pale, 1.0), (second, 0.2), (third, 0.5)):
        assert float(str(bar.attributes["height"])) == pytest.approx(value * height, abs=0.1)
        assert float(str(bar.attributes["y"])) + float(str(bar.attributes["height"])) == pytest.approx(HEIGHT - BOTTOM)
    lefts = [float(str(bar.attributes["x"])) for bar in (first, second, third)]
    assert lefts == sorted(lefts) and pale.attributes["x"] == second.attributes["x"]
    whiskers = [line for line in page.all("line") if line.attributes["class"] == "error"]
    assert len(whiskers) == 2
    assert float(str(whiskers[0].attributes["y1"])) - float(str(whiskers[0].attributes["y2"])) == pytest.approx(
        0.5 * height, abs=0.2
    )
    assert "nothing to draw" in bar_chart([], "t", "x")


def estimate(mean: float | None, reason: str = "") -> dict[str, object]:
    low, high = (None, None) if mean is None else (mean - 0.1, mean + 0.1)
    return Estimate(mean, None, low, high, 7, 5, reason)._asdict()


def test_the_page_of_sets_tells_every_number(tmp_path: Path) -> None:
    def result(mean: float | None, reason: str = "") -> dict[str, object]:
        return {
            "metrics": {"accuracy": estimate(mean, reason), "majority": estimate(0.515)},
            "num_items": 9,
            "num_scored": 7,
            "unscored": {"too_long": 2},
            "left_out": {"people_disagree": 3},
            "fewer_examples": 1,
            "source": "/home/somebody/data/dev.tsv",
            "asked": {"shots": 2, "limit": 9, "seed": 0, "precision": "fp32"},
            "judges": {},
        }

    found = {
        "models": {"one": "a", "<two>": "b"},
        "main": {"sst": "accuracy", "rte": "accuracy"},
        "sets": {
            "sst": {"one": result(0.625), "<two>": result(None, "only 2 of 9 items fit")},
            "rte": {"one": result(0.5)},
        },
        "not_asked": {"drop": "drop.json is not there"},
    }
    with pytest.raises(InputError, match=r"sets\.json is not there"):
        write_sets_report(tmp_path)
    (tmp_path / "sets.json").write_text(json.dumps(found), encoding="utf-8")
    html = write_sets_report(tmp_path).read_text(encoding="utf-8")
    page = Page(html)
    text = page.section("sst")
    for part in (
        "0.625",
        "0.525 to 0.725",
        "0.515",
        "only 2 of 9 items fit",
        "2 too long",
        "3 left out",
        "1 with fewer worked examples",
        "at most 9 drawn by seed 0, 2 worked examples",
        "dev.tsv",
        "<two>",
    ):
        assert part in text
    assert "somebody" not in text and len(page.all("svg")) == 2
    assert "drop (drop.json is not there)" in page.section("overview") and "2 models on 2 sets;" in html
    (tmp_path / "sets.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="is broken"):
        write_sets_report(tmp_path)


def test_the_released_page_draws_the_figures(tmp_path: Path) -> None:
    cells = [
        Cell(metric, prompt, model, Estimate(0.1 + n / 20, 0.01, 0.05, 0.9, 100, 90), paper)
        for (metric, prompt), numbers in PAPER.items()
        for n, (model, paper) in enumerate(zip(MODELS, numbers, strict=True))
    ]
    rows = [cell._asdict() | {"estimate": cell.estimate._asdict()} for cell in cells]
    (tmp_path / "released.json").write_text(json.dumps({"cells": rows}), encoding="utf-8")
    page = Page(write_released_report(tmp_path).read_text(encoding="utf-8"))
    assert len(page.all("svg")) == 3 + 3 + 2
    assert len(page.all("rect")) == 3 * 12 * 2 + 3 * 12 + 2 * 12
    assert len(page.all("tr")) == 4 * (1 + 12) and len(PAPER) == 3 * 3 + 2
    text = page.section("table")
    assert "0.944" in text and "100 (90)" in text and "0.050 to 0.900" in text and "1.3B" in page.section("truthful")


def test_panels_of_one_figure_have_one_axis(tmp_path: Path) -> None:
    cells = [
        Cell(metric, prompt, model, Estimate(0.2, 0.01, 0.1, 0.8 if model == "ppo-ptx-6b" else 0.3, 100, 90), 0.2)
        for metric, prompt in PAPER
        for model in MODELS
    ]
    rows = [cell._asdict() | {"estimate": cell.estimate._asdict()} for cell in cells]
    (tmp_path / "released.json").write_text(json.dumps({"cells": rows}), encoding="utf-8")
    page = Page(write_released_report(tmp_path).read_text(encoding="utf-8"))
    heights = {
        bar.attributes["height"]
        for chart in page.all("svg")
        if "Toxicity" in str(chart.attributes["aria-label"])
        for bar in chart.children
        if bar.tag == "rect"
    }
    assert len(heights) == 1
