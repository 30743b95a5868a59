"""A sweep's page: no setting's name lies outside its chart, and no table of many columns has a fixed width."""

import re
from typing import Any

from heedful.report.svg import LEFT, RIGHT, WIDTH
from heedful.report.sweep import curve, render_sweep
from report.page import Page


def sweep(means: dict[str, float | None]) -> dict[str, Any]:
    ranking = [
        {"settings": {"size": size}, "mean": mean, "low": None, "high": None, "num_values": 1, "cells": [size]}
        for size, mean in means.items()
    ]
    cells = [{"name": size, "value": mean, "reason": "not run yet"} for size, mean in means.items()]
    about = {"recipe": "r", "until": "evaluate", "by": "policies.ppo_ptx.win_rate.mean", "better": "higher"}
    return about | {"matrix": {"size": list(means)}, "cells": cells, "ranking": ranking, "at_edge": []}


def test_a_setting_without_a_value_keeps_its_place_in_the_chart() -> None:
    chart = str(curve(sweep({"small": 0.5, "medium": 0.6, "large": None}), "size").chart)
    places = {name: float(x) for x, name in re.findall(r'class="tick" x="([-\d.]+)"[^>]*>(\w+)<', chart)}
    assert list(places) == ["small", "medium", "large"]
    assert (places["small"], places["large"]) == (LEFT, WIDTH - RIGHT)
    assert places["medium"] == (LEFT + WIDTH - RIGHT) / 2


def test_the_ranking_has_room_for_its_columns() -> None:
    page = Page(render_sweep(sweep({"small": 0.5, "large": 0.6})))
    assert [table.attributes["class"] for table in page.all("table")] == ["pairs"]
