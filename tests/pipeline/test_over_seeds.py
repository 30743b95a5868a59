"""What a sweep came to over its seeds: means and intervals of results.json's numbers, on the page and as files."""

import copy
import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import t

from heedful.pipeline.over_seeds import Finished, over_seeds, write_over_seeds
from heedful.report.over_seeds import read_groups
from heedful.report.rlaif_shapes import shapes
from heedful.report.sweep import render_sweep
from report.page import Page

Json = dict[str, Any]
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def runs(tiny_run: Path) -> list[Finished]:
    """Three seeds whose numbers are known: the tiny run's results with the scores and win rates of ppo set."""
    found: Json = json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))
    made = []
    for seed, (score, win) in enumerate([(1.0, 0.9), (2.0, 0.95), (6.0, 1.0)]):
        own = copy.deepcopy(found)
        own["policies"]["ppo"]["score"] = score
        own["policies"]["ppo"]["win_rate"]["mean"] = win
        own["ai_labelers"] = [
            {"labeler": "large", "figure": "alignment", "mean": 0.7, "low": 0.6, "high": 0.8, "num": 9}
        ]
        own["principles_followed"] = [
            {"model": "salmon", "principle": "all", "figure": "flips", "mean": win, "low": 0.8, "high": 1.0, "num": 9}
        ]
        own["principles_kept"] = [
            {"policy": "ppo", "figure": figure, "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "num": 9}
            for figure, mean in (("humble", -score), ("boasts", 0.5))
        ]
        made.append(Finished({}, seed, own))
    made[2].results["policies"]["sft"]["likert"] = None
    return made


def row(found: Json, *place: str) -> Json:
    [own] = [r for r in found["groups"][0]["rows"] if (r["table"], r["name"], r["measure"]) == place]
    return own


def test_an_unbounded_number_has_student_s_interval_over_seeds(runs: list[Finished]) -> None:
    own = row(over_seeds(runs), "policies", "ppo", "score")
    assert own["mean"] == 3.0 and own["seeds"] == [1.0, 2.0, 6.0] and own["num_seeds"] == 3
    half = t.ppf(0.975, 2) * 7**0.5 / 3**0.5  # the sample variance of 1, 2 and 6 is 7
    assert (own["low"], own["high"]) == pytest.approx((3 - half, 3 + half))


def test_a_rate_keeps_to_its_bounds(runs: list[Finished]) -> None:
    own = row(over_seeds(runs), "policies", "ppo", "win_rate")
    assert own["mean"] == pytest.approx(0.95) and 0 < own["low"] < 0.95 < own["high"] <= 1


def test_where_all_seeds_agree_the_interval_is_one_seed_s_own(runs: list[Finished]) -> None:
    own = row(over_seeds(runs), "ai_labelers", "large", "alignment")
    assert (own["mean"], own["low"], own["high"]) == (0.7, 0.6, 0.8)


def test_principles_are_in_nats_and_self_praise_is_a_share(runs: list[Finished]) -> None:
    assert row(over_seeds(runs), "principles_kept", "ppo", "humble")["low"] < -3.0
    assert row(over_seeds(runs), "principles_kept", "ppo", "boasts")["high"] == 0.6
    assert row(over_seeds(runs), "principles_followed", "salmon/all", "flips")["seeds"] == [0.9, 0.95, 1.0]


def test_one_seed_keeps_its_own_interval_and_a_missing_value_is_told(runs: list[Finished]) -> None:
    alone = row(over_seeds(runs[:1]), "policies", "ppo", "score")
    assert (alone["mean"], alone["low"]) == (1.0, None) and alone["reason"]
    own = row(over_seeds(runs), "policies", "sft", "likert")
    assert own["num_seeds"] == 2 and own["reason"] == "1 of 3 seeds have no value"


def test_other_settings_make_groups_of_their_own(runs: list[Finished]) -> None:
    two = [
        runs[0]._replace(settings={"lr": 1}),
        runs[1]._replace(settings={"lr": 2}),
        runs[2]._replace(settings={"lr": 1}),
    ]
    groups = over_seeds(two)["groups"]
    assert [(group["settings"], group["seeds"]) for group in groups] == [({"lr": 1}, [0, 2]), ({"lr": 2}, [1])]


def test_the_files_hold_every_number_and_the_page_shows_them(runs: list[Finished], tmp_path: Path) -> None:
    write_over_seeds(runs, tmp_path)
    found = json.loads((tmp_path / "over_seeds.json").read_text(encoding="utf-8"))
    with (tmp_path / "over_seeds.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(found["groups"][0]["rows"]) > 50
    by_place = {(line["table"], line["name"], line["measure"]): line for line in lines}
    assert float(by_place["policies", "ppo", "score"]["mean"]) == 3.0
    about = {"recipe": "rlaif", "until": "evaluate", "by": "policies.ppo.win_rate", "better": "higher"}
    about |= {"matrix": {"seed": [0, 1, 2]}, "cells": [], "ranking": [], "at_edge": []}
    groups = read_groups(tmp_path, "rlaif")
    text = render_sweep(about, groups=groups)
    assert len(Page(text).all("section")) == 3
    assert "Over seeds" in text and "95.0" in text and "AI labelers, beside" in text
    assert len(groups[0].claims) == len(shapes([])) and not read_groups(tmp_path, "quickstart")[0].claims


def rows(**means: float) -> list[Json]:
    """Rows of over_seeds.json: `table__name__measure=mean`, an interval of ±0.02, two seeds."""
    made = []
    for place, mean in means.items():
        table, name, measure = place.split("__")
        own = {"table": table, "name": name, "measure": measure, "mean": mean, "low": mean - 0.02, "high": mean + 0.02}
        own["seeds"] = [mean - 0.001, mean + 0.001]
        made.append(own)
    return made


PAPER = {
    "ai_labelers__small__alignment": 0.627, "ai_labelers__same_size__alignment": 0.738,
    "ai_labelers__large__alignment": 0.78,
    "ai_labelers__small__same_position": 0.56, "ai_labelers__same_size__same_position": 0.21,
    "ai_labelers__large__same_position": 0.18,
    "ai_labelers__small__alignment_one_order": 0.58, "ai_labelers__same_size__alignment_one_order": 0.72,
    "ai_labelers__large__alignment_one_order": 0.77,
    "reward_models__reward_model__accuracy_heldout": 0.793,
    "reward_models__large_soft__accuracy_heldout": 0.742, "reward_models__large_hard__accuracy_heldout": 0.73,
    "reward_models__same_size_soft__accuracy_heldout": 0.72, "reward_models__same_size_hard__accuracy_heldout": 0.71,
    "reward_models__small_soft__accuracy_heldout": 0.664, "reward_models__small_hard__accuracy_heldout": 0.66,
    "reward_models__large_soft__calibration_error": 0.02, "reward_models__large_hard__calibration_error": 0.15,
    "reward_models__same_size_soft__calibration_error": 0.02, "reward_models__same_size_hard__calibration_error": 0.15,
    "reward_models__small_soft__calibration_error": 0.05, "reward_models__small_hard__calibration_error": 0.15,
    "policies__rlaif__win_rate": 0.71, "policies__rlhf__win_rate": 0.73, "policies__same_size__win_rate": 0.68,
    "policies__direct__win_rate": 0.74,
    "pairwise__rlaif__rlhf": 0.5, "pairwise__direct__same_size": 0.6, "pairwise__mixed__rlhf": 0.5,
}  # fmt: skip


def test_the_paper_s_own_numbers_make_every_claim_hold() -> None:
    found = shapes(rows(**PAPER))
    assert [shape.claim for shape in found if not shape.holds] == []
    assert all(shape.holds is None for shape in shapes([]))


@pytest.mark.parametrize("place", sorted(PAPER))
def test_every_number_can_break_a_claim(place: str) -> None:
    """Set to what it ought not to be, each number breaks one at least; missing, it leaves one open."""
    others = {key: value for key, value in PAPER.items() if key != place}
    broken = [shape for wrong in (0.0, 1.0) for shape in shapes(rows(**PAPER | {place: wrong})) if shape.holds is False]
    assert broken
    assert any(shape.holds is None for shape in shapes(rows(**others)))


def test_equal_numbers_show_nothing() -> None:
    """Labelers without a difference, soft labels that gain nothing: no claim of more or less holds."""
    same = {place: 0.5 for place in PAPER}
    found = [shape for shape in shapes(rows(**same)) if shape.holds]
    assert {shape.claim.partition(":")[0] for shape in found} == {
        "RLAIF and RLHF are alike",
        "people's and the machine's labels mixed gain nothing over people's",
    }


@pytest.mark.parametrize(
    ("mean", "width", "verdict"), [(0.5, 0.04, True), (0.5, 0.2, None), (0.42, 0.1, None), (0.3, 0.1, False)]
)
def test_alike_is_more_than_a_wide_interval(mean: float, width: float, verdict: bool | None) -> None:
    found = rows(**PAPER | {"pairwise__rlaif__rlhf": mean})
    for row in found:
        if (row["name"], row["measure"]) == ("rlaif", "rlhf"):
            row |= {"low": mean - width, "high": mean + width}
    [shape] = [shape for shape in shapes(found) if "alike" in shape.claim]
    assert shape.holds is verdict


def test_what_most_seeds_do_not_show_is_open() -> None:
    found = rows(**PAPER)
    for row in found:
        if (row["name"], row["measure"]) == ("direct", "win_rate"):
            row["seeds"] = [0.49, 0.48, 0.6]
    [shape] = [shape for shape in shapes(found) if shape.claim.startswith("direct RLAIF by")]
    assert shape.holds is None and shape.ours == "52.3 %, 1 of 3 seeds"


@pytest.mark.parametrize(("low", "high", "verdict"), [(0.47, 0.54, True), (0.48, 0.56, None), (0.51, 0.54, False)])
def test_a_gain_that_might_be_there_is_not_none(low: float, high: float, verdict: bool | None) -> None:
    found = rows(**PAPER)
    for row in found:
        if (row["name"], row["measure"]) == ("mixed", "rlhf"):
            row |= {"low": low, "high": high}
    [shape] = [shape for shape in shapes(found) if "gain nothing" in shape.claim]
    assert shape.holds is verdict


def test_the_page_of_rlaif_is_filled_from_the_file(runs: list[Finished]) -> None:
    page = (DOCS / "rlaif.md").read_text(encoding="utf-8")
    spec = importlib.util.spec_from_file_location("fill_rlaif", DOCS / "fill_rlaif.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.filled(page, over_seeds(runs))
    assert "Not measured yet" not in written and written.count("<!-- /rlaif -->") == page.count("<!-- /rlaif -->") == 6
    assert "| large | 70.0 (60.0…80.0) |" in written and "| ppo | 95.0 (" in written
    assert module.filled(written, over_seeds(runs)) == written
