"""The section of written principles: pictures where something was measured, none where nothing differs."""

import json
from pathlib import Path
from typing import Any

from heedful.report.page import write_report
from report.page import Page

Json = dict[str, Any]


def page_of(folder: Path, recipe: Json, results: Json) -> Page:
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "results.json").write_text(json.dumps(results))
    return Page(write_report(folder).read_text(encoding="utf-8"))


def estimate(mean: float | None) -> Json:
    return {"mean": mean, "low": None if mean is None else mean - 0.01, "high": None if mean is None else mean + 0.01}


FOLLOWED = [
    {"model": model, "principle": principle, "figure": figure, "num": 9, "reason": "planted"} | estimate(mean)
    for model, figure, mean in (("salmon", "flips", 0.93), ("salmon", "exact", None), ("judge", "exact", 0.71))
    for principle in ("all", "brief")
]
KEPT = [
    {"policy": policy, "figure": figure, "num": 9} | estimate(mean)
    for figure, both in {"brief": (-3.25, -1.5), "boasts": (0.89, 0.02), "harmless": (0.0, 0.0)}.items()
    for policy, mean in zip(("plain", "mended"), both, strict=True)
]
REWARDS = {
    "a": {"reward_model": "salmon", "principles": "rl", "number": 3, "always": None, "apart": False},
    "b": {"reward_model": "salmon", "principles": "rl", "number": 3, "always": "against_praise", "apart": True},
    "unused": {"reward_model": "salmon", "principles": "rl", "number": 3, "always": None, "apart": False},
}
RECIPE = {"principle_rewards": REWARDS, "ppo": {"plain": {"reward": "a"}, "mended": {"reward": "b"}}}


def test_what_follows_and_what_keeps_to_principles_is_drawn(tmp_path: Path) -> None:
    page = page_of(tmp_path, RECIPE, {"principles_followed": FOLLOWED, "principles_kept": KEPT})
    assert any(link.attributes["href"] == "#principles" for link in page.all("a"))
    told = page.section("principles")
    for number in ("93.0 %", "71.0 %", "−3.25", "−1.50", "89.0 %", "2.0 %"):
        assert number in told
    titles = [one.text for one in page.all("h4")]
    assert "salmon: chooses the other once the deciding principle is negated, percent" in titles
    assert "judge: right, by the exact fulfilment, percent" in titles and "brief, nats per response" in titles
    assert not [title for title in titles if title.startswith(("salmon: right", "judge: chooses", "harmless"))]
    drawn = [e.attributes["class"] for e in page.elements if e.tag == "circle" or e.attributes.get("class") == "rule"]
    assert drawn == ["c9", "c9", "rule", "c9", "c9", "c0", "c1", "c0", "c1"]  # by chance half are right; none flips
    rows = [[cell.text for cell in row.children] for row in page.all("tr")]
    assert ["plain", "salmon", "rl, 3 drawn for each prompt"] in rows
    assert ["mended", "salmon", "rl, each by itself; always against_praise"] in rows
    assert len([row for row in rows if "salmon" in row[1:2]]) == 2  # what nobody maximised is not told of


def test_a_run_without_principles_has_no_section(tmp_path: Path) -> None:
    page = page_of(tmp_path, {}, {"principles_followed": None, "principles_kept": None})
    assert not [one for one in page.all("section") if one.attributes.get("id") == "principles"]
    assert not [link for link in page.all("a") if link.attributes["href"] == "#principles"]
