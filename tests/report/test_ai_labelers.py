"""AI labelers' section of a run's report: a row for each, names in plain words, and a reason for every dash."""

import json
from pathlib import Path
from typing import Any

import pytest

from heedful.report.ai_labelers import FIGURES
from heedful.report.page import write_report
from report.page import Page

Json = dict[str, Any]


def estimate(mean: float | None) -> Json:
    if mean is None:
        return {"mean": None, "low": None, "high": None, "num": 7, "reason": "planted"}
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "num": 1234}


def page_of(folder: Path, results: Json) -> Page:
    (folder / "recipe.json").write_text("{}")
    (folder / "results.json").write_text(json.dumps(results))
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture
def page(tmp_path: Path) -> Page:
    labelers = [
        {"labeler": name, "figure": figure.key}
        | estimate(None if figure.key == "calibration_error" else 0.3 + n / 10 + i / 100)
        for n, name in enumerate(("same_size", "large"))
        for i, figure in enumerate(FIGURES)
    ]
    return page_of(tmp_path, {"ai_labelers": labelers, "agreement": {"train": {"mean": 0.731, "stderr": 0.01}}})


def test_a_row_for_each_labeler_in_words_and_percent(page: Page) -> None:
    assert any(link.attributes["href"] == "#ai-labelers" for link in page.all("a"))
    [table, counts] = [one for one in page.all("table") if "dense" in str(one.attributes["class"])]
    [head, body] = table.children
    assert [cell.text for cell in head.children[0].children] == ["labeler", *(figure.name for figure in FIGURES)]
    rows = {row.children[0].text: [cell.text for cell in row.children[1:]] for row in body.children}
    assert list(rows) == ["same size", "large"] and rows["large"][0] == "40.0 %39.0 %…41.0 %"
    assert rows["same size"][6] == "–" and "_" not in page.section("ai-labelers")
    assert any(element.attributes.get("title") == "planted" for element in page.elements)
    assert "1\u2009234" in counts.text
    assert "73.1 %" in page.section("ai-labelers")  # people beside them in the picture


def test_names_leave_room_for_four_labelers() -> None:
    assert max(len(figure.name) for figure in FIGURES) <= 24


def test_a_run_without_ai_labelers_has_no_section(tmp_path: Path) -> None:
    page = page_of(tmp_path, {"ai_labelers": None})
    assert not [one for one in page.all("section") if one.attributes.get("id") == "ai-labelers"]
    assert not [link for link in page.all("a") if link.attributes["href"] == "#ai-labelers"]
