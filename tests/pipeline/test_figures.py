"""InstructGPT's figures over a tiny sweep: what is judged, what the rows say, killed and gone on with, drawn."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from heedful.config import InputError, read_recipe
from heedful.evaluate.statistics import Estimate
from heedful.evaluate.win_rate import win_rate
from heedful.pipeline.classic import told
from heedful.pipeline.figure_rows import COLUMNS, LIKERT, RATE, Found, Measured, exact, gain, on_the_line, over_seeds
from heedful.pipeline.figures import parameters
from heedful.pipeline.sweep import read_sweep, run_sweep
from heedful.report import write_sweep_report
from heedful.run import read_jsonl
from heedful.snapshot import read_snapshot
from heedful.world import sent_to
from report.page import Page
from tiny import succeed

RECIPE = Path(__file__).parent.parent / "tiny_figures.yaml"
SMALL, LARGE = "seed=0,size=small", "seed=0,size=large"


def sweep_of(*overrides: str) -> Any:
    return read_sweep(read_recipe(str(RECIPE), overrides))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures") / "D"
    run_sweep(sweep_of(), folder, cores=1)
    return folder


@pytest.fixture(scope="module")
def figures(drawn: Path) -> Any:
    return read(drawn / "paper_figures.json")


def rows(figures: Any, figure: str, **place: Any) -> list[Any]:
    return [r for r in figures["rows"] if r["figure"] == figure and all(r[k] == v for k, v in place.items())]


# Presets.


def test_a_preset_is_laid_over_the_recipe() -> None:
    small, large = sweep_of().cells
    assert (small.name, large.name) == (SMALL, LARGE)
    assert (small.recipe.pretrain.shape["hidden_size"], large.recipe.pretrain.shape["hidden_size"]) == (32, 48)
    assert large.recipe.pretrain.shape["num_hidden_layers"] == 1
    assert list(small.recipe.ppo) == ["ppo", "ppo_ptx", "ptx_more", "kl_none"] and list(large.recipe.ppo) == [
        "ppo",
        "ppo_ptx",
    ]
    assert small.recipe.ppo["ptx_more"].iterations == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("matrix.size=[smal]", r"matrix.size: no preset smal, did you mean small\?; known here: small, large"),
        ("matrix_until=sft", "figures need a matrix over size and seed"),
        ("matrix={size: [small]}", "figures need a matrix over size and seed"),
        ("matrix_presets.size.large.pretrain.shap=1", "cell seed=0,size=large: pretrain.shap: unknown key"),
        ("multitask.templates=faln", "multitask.templates"),
        ("world.classic_share=0", "multitask needs prompts: world with its classic tasks; set world.classic_share"),
        ("multitask.variants={sft: {}}", "two policies have one name"),
    ],
)
def test_bad_figures_are_refused_before_anything_runs(override: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sweep_of(override)


# The numbers.


def test_every_policy_of_every_size_is_judged_side_by_side(drawn: Path, figures: Any) -> None:
    [place] = (drawn / "judgements").iterdir()
    snapshot = read_snapshot(place / "snapshot")
    given: dict[tuple[str, str], dict[str, str]] = {}
    for row in read_jsonl(place / "samples.jsonl"):
        given.setdefault((row["size"], row["policy"]), {})[row["prompt_id"]] = row["response_id"]
    names = ["gpt", "gpt_prompted", "sft", "flan", "t0", "ppo_init", "ppo", "ppo_ptx"]
    assert {size: sorted(n for s, n in given if s == size) for size in ("small", "large")} == dict.fromkeys(
        ("small", "large"), sorted(names)
    )
    texts = snapshot.response_by_id()
    for (size, name), own in given.items():
        measured = read_snapshot(drawn / "cells" / f"seed=0,size={size}" / "evaluation" / name / "responses")
        assert {r.prompt_id: r.text for r in measured.responses} == {p: texts[id].text for p, id in own.items()}
    group = {labeler.id: labeler.group for labeler in snapshot.labelers}
    asked = {p.id for p in snapshot.prompts if sent_to(p) == "instruct"}
    assert 0 < len(asked) < len(snapshot.prompts)
    rankings = [r for r in snapshot.rankings if group[r.labeler] == "heldout" and r.prompt_id in asked]
    by_name = {f"{s} {n}": {p: id for p, id in own.items() if p in asked} for (s, n), own in given.items()}
    for row in rows(figures, "1"):
        wanted = win_rate(rankings, by_name, f"{row['size']} {row['policy']}", "large sft").estimate
        assert row["mean"] == pytest.approx(wanted.mean) and row["seeds"] == [row["mean"]]
        if (row["size"], row["policy"]) != ("large", "sft"):
            assert (row["low"], row["high"]) == pytest.approx((wanted.low, wanted.high))
    assert figures["baseline"] == "large sft" and len(rows(figures, "1")) == 16


def test_figure_3_has_four_cells_and_holds_figure_1(figures: Any) -> None:
    cells = {(row["prompts"], row["labelers"]) for row in rows(figures, "3")}
    assert cells == {(p, g) for p in ("base", "instruct") for g in ("heldout", "train")}
    for row in rows(figures, "1"):
        [same] = rows(figures, "3", size=row["size"], policy=row["policy"], prompts="instruct", labelers="heldout")
        assert same["mean"] == row["mean"]


def test_what_each_cell_measured_is_told(drawn: Path, figures: Any) -> None:
    for size in ("small", "large"):
        cell = drawn / "cells" / f"seed=0,size={size}"
        for name in ("gpt", "sft", "flan", "ppo_ptx"):
            classic = read(cell / "classic" / name / "done.json")["results"]
            for task, found in classic.items():
                for shots, value in found.items():
                    [row] = rows(figures, "14", size=size, policy=name, measure=f"{task} {shots}")
                    assert {key: row[key] for key in value} == value
            [loss] = rows(figures, "14", size=size, policy=name, measure="lm_loss")
            assert loss["mean"] == read(cell / "results.json")["policies"][name]["lm_loss"]
            suite = read(cell / "qualitative" / name / "done.json")["results"]
            assert set(suite) == {"language", "code", "false_premise", "hedging", "constraints"}
        assert figures["sizes"][size] == parameters(cell)
    assert figures["sizes"]["small"] < figures["sizes"]["large"]


def test_coefficients_are_those_of_variants_that_differ_in_nothing_else(drawn: Path, figures: Any) -> None:
    found = {f: {(r["policy"], r["coefficient"]) for r in rows(figures, f)} for f in ("33", "34")}
    assert found["33"] == {("ppo", 0.0), ("ppo_ptx", 1.0), ("ptx_more", 2.0)}
    assert found["34"] == {("kl_none", 0.0), ("ppo", 0.02)}
    # The other size has the ends of figure 33's line alone: its numbers are another line's.
    assert {row["size"] for f in ("33", "34") for row in rows(figures, f)} == {"small"}
    results = read(drawn / "cells" / SMALL / "results.json")["policies"]
    [score] = rows(figures, "33", policy="ptx_more", measure="score")
    assert score["mean"] == pytest.approx(results["ptx_more"]["score"] - results["ppo_init"]["score"])
    assert not [r for r in figures["rows"] if r["figure"] == "1" and r["policy"] == "ptx_more"]


def test_on_the_line() -> None:
    settings = {"a": {"kl": 1, "ptx": 0}, "b": {"kl": 1, "ptx": 2}, "c": {"kl": 3, "ptx": 0}, "d": {"kl": 0, "ptx": 0}}
    assert on_the_line(settings, "kl", "a") == ["d", "a", "c"] and on_the_line(settings, "ptx", "a") == ["a", "b"]


def test_every_number_says_what_it_rests_on(figures: Any) -> None:
    """A win rate has its ties; where there is no value or no interval, the reason stands in the row."""
    for row in figures["rows"]:
        assert (row["mean"] is not None and row["low"] is not None) or row["reason"], row
        assert row["num"] is None or row["num"] >= (row["num_clusters"] or 0)
    for row in (*rows(figures, "1"), *rows(figures, "3")):
        if (row["size"], row["policy"]) != ("large", "sft"):
            assert row["num"] > 1 and row["num_clusters"] > 1 and row["ties"] >= 0 and row["unscored"] >= 0
    for row in (*rows(figures, "4"), *rows(figures, "5")):
        assert row["num"] > 1 and row["unscored"] is not None
    for row in rows(figures, "14") + rows(figures, "qualitative"):
        assert row["measure"] == "lm_loss" or row["num"] + row["unscored"] > 1
    for score in rows(figures, "33", measure="score") + rows(figures, "34", measure="score"):  # prompt by prompt
        assert score["num"] == score["num_clusters"] > 1
        assert score["low"] is None or score["low"] < score["mean"] < score["high"]


def test_a_gain_is_measured_prompt_by_prompt() -> None:
    scores = {
        "start": {"a": 1.0, "b": 5.0, "c": 9.0},
        "ppo": {"a": 2.0, "b": 6.5, "c": 10.5},
        "same": {"a": 2.0, "b": 6.0},
    }
    own = {name: {"score": 1.0} for name in scores}
    cell = Measured(0, "small", "start", {}, own, scores, {}, {})
    found = gain(cell, "ppo").estimate
    half = 4.302653 * (1 / 36) ** 0.5  # gains of 1, 1.5 and 1.5: a standard error of 1/6
    assert (found.mean, found.low, found.high) == pytest.approx((4 / 3, 4 / 3 - half, 4 / 3 + half), rel=1e-5)
    same = gain(cell, "same").estimate
    assert (same.mean, same.low, same.num) == (1, None, 2) and "same on every prompt" in same.reason


def test_a_run_tells_its_classic_tasks_and_its_suite(drawn: Path) -> None:
    cell = drawn / "cells" / SMALL
    results = read(cell / "results.json")
    page = Page((cell / "report.html").read_text(encoding="utf-8"))
    assert "Classic tasks (table 14)" in page.section("results") and "Qualitative suite" in page.section("results")
    fixed = [table for table in page.all("table") if "results" in str(table.attributes.get("class")).split()]
    columns = [len(table.children[0].children[0].children) for table in fixed]
    assert columns and max(columns) <= 6  # of a fixed width of 760 px: more lie on top of each other
    for suite, keys in (("classic", ("task", "shots")), ("qualitative", ("kind", "measure"))):
        assert {row["policy"] for row in results[suite]} == set(results["policies"]) - {"gpt_prompted"}
        for row in results[suite]:
            done = read(cell / suite / row["policy"] / "done.json")["results"]
            assert {k: v for k, v in row.items() if k not in ("policy", *keys)} == done[row[keys[0]]][row[keys[1]]]
        with (cell / "tables" / f"{suite}.csv").open(encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == len(results[suite])


def some(value: float | None, low: float | None = None, high: float | None = None, **more: Any) -> Found:
    return Found(Estimate(value, None, low, high, 10, 5, "" if low is not None else "no interval"), **more)


def test_over_seeds() -> None:
    one = over_seeds([some(0.6, 0.4, 0.8, ties=3, unscored=1)], RATE, figure="1")
    assert (one["mean"], one["low"], one["high"], one["num"], one["num_clusters"]) == (0.6, 0.4, 0.8, 10, 5)
    assert (one["ties"], one["unscored"], one["reason"]) == (3, 1, "")
    three = over_seeds([some(1.0), some(2.0), some(3.0)], figure="1")
    half = 4.302653 / 3**0.5  # Student's quantile at two degrees of freedom, times the standard error
    assert (three["mean"], three["low"], three["high"]) == pytest.approx((2, 2 - half, 2 + half), rel=1e-5)
    assert (three["num"], three["ties"], three["reason"]) == (30, None, "")
    gap = over_seeds([some(1.0), Found(exact(None, "nobody asked"))], figure="1")
    assert gap["mean"] == 1.0 and gap["seeds"] == [1.0, None]
    assert gap["reason"] == "1 of 2 seeds have no value: nobody asked; no interval"
    assert over_seeds([Found(exact(None, "nobody asked"))], figure="1")["reason"] == "nobody asked"
    uncounted = over_seeds([Found(exact(1.5, "one number"))], figure="14")
    assert (uncounted["mean"], uncounted["num"], uncounted["reason"]) == (1.5, None, "one number")


def test_intervals_over_seeds_stay_in_range_and_do_not_close_on_a_point() -> None:
    rate = over_seeds([some(0.0, 0.0, 0.02), some(0.01, 0.0, 0.04), some(0.04, 0.01, 0.09)], RATE)
    assert 0 <= rate["low"] < rate["mean"] < rate["high"] < 0.3
    none = over_seeds([some(0.0, 0.0, 0.02), some(0.0, 0.0, 0.05), some(0.0, 0.0, 0.03)], RATE)
    assert (none["mean"], none["low"], none["high"]) == (0, 0, 0.05) and "the same value" in none["reason"]
    blank = over_seeds([some(1.0), some(1.0)], RATE)
    assert (blank["mean"], blank["low"]) == (1, None) and "none has an interval" in blank["reason"]
    high = over_seeds([some(6.9, 6.5, 7.0), some(7.0, 6.7, 7.0), some(6.8, 6.3, 7.0)], LIKERT)
    assert high["mean"] == pytest.approx(6.9) and 1 <= high["low"] < 6.9 < high["high"] <= 7
    half = over_seeds([some(0.5, 0.5, 0.5)] * 3, RATE)  # the baseline against itself
    assert (half["low"], half["high"]) == (0.5, 0.5) and "widest" not in half["reason"]


def test_a_task_that_hardly_fits_is_none_with_a_reason() -> None:
    found = told(Estimate(0.5, 0.1, 0.2, 0.8, 4, 4), 4, 9)
    assert found["mean"] is None and found["low"] is None and found["unscored"] == 5
    assert found["reason"] == "only 4 of 9 items fit the model's context"
    half = told(Estimate(0.5, 0.1, 0.2, 0.8, 5, 5), 5, 9)
    assert (half["mean"], half["unscored"], half["reason"]) == (0.5, 4, "")


def test_the_csv_holds_every_row(drawn: Path, figures: Any) -> None:
    with (drawn / "paper_figures.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(figures["rows"]) and tuple(table[0]) == COLUMNS
    for line, row in zip(table, figures["rows"], strict=True):
        assert line["measure"] == row["measure"] and (float(line["mean"]) if line["mean"] else None) == row["mean"]


# Going on, and the page.


def test_the_same_command_goes_on_and_runs_no_cell_again(drawn: Path, figures: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "D", symlinks=True))
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("done.json")}
    for name in ("paper_figures.json", "paper_figures.csv", "report.html"):
        (folder / name).unlink()
    [place] = (folder / "judgements").iterdir()
    (place / "done.json").unlink()  # killed before the judges were done
    (folder / "cells" / LARGE / "results.json").unlink()  # and before that
    run_sweep(sweep_of(), folder, cores=1)
    after = {p: p.stat().st_mtime_ns for p in folder.rglob("done.json")}
    assert after.keys() == before.keys()
    assert {p for p in after if after[p] != before[p]} == {place / "done.json"}
    again = read(folder / "paper_figures.json")
    assert again["rows"] == figures["rows"]
    assert (folder / "paper_figures.csv").read_bytes() == (drawn / "paper_figures.csv").read_bytes()


def test_a_seed_without_all_its_sizes_is_missing_not_wrong(drawn: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(drawn, tmp_path / "D", symlinks=True))
    from heedful.pipeline.figures import write_figures
    from heedful.pipeline.sweep import finished_cells, own_variants

    sweep = sweep_of("matrix.seed=[0, 1]")
    (folder / "cells" / LARGE / "results.json").unlink()
    write_figures(finished_cells(sweep, folder), sweep.config.matrix, own_variants(sweep), folder)
    found = read(folder / "paper_figures.json")
    assert found["rows"] == [] and found["missing"] == [0, 1] and found["baseline"] is None
    assert "Figure 1" not in write_sweep_report(folder).read_text(encoding="utf-8")


def test_the_page_draws_every_figure(drawn: Path, figures: Any) -> None:
    page = Page((drawn / "report.html").read_text(encoding="utf-8"))
    ids = {part.attributes.get("id") for part in page.all("section")}
    assert {"figure-1", "figure-3", "figure-4", "figure-5", "table-14", "figure-33", "figure-34", "qualitative"} <= ids
    assert "large sft" in page.section("figure-1") and len(page.all("svg")) >= 1 + 4 + 4 + 1 + 4 + 4
    # "results" is a fixed width of 760 px: numbers of many columns lie on top of each other there
    assert not [table for table in page.all("table") if "results" in str(table.attributes.get("class")).split()]
    text = page.section("table-14")
    assert all(row["measure"] in text for row in rows(figures, "14"))
    for number, part in (("1", "figure-1"), ("3", "figure-3"), ("4", "figure-4"), ("33", "figure-33")):
        rest = page.section(part)
        assert "Every number, and what it rests on" in rest and "clusters" in rest and "unscored" in rest
        assert all(row["reason"] in rest for row in rows(figures, number))


def test_a_dry_run_tells_the_time_of_every_cell() -> None:
    out = succeed("run", RECIPE, "--dry-run", "--dir", "nowhere")
    assert f"{SMALL}: about" in out and f"{LARGE}: about" in out and "all 2 cells: about" in out
    for step in ("examples/flan", "round-1/choose_t0", "classic/ppo_ptx", "qualitative/gpt", "round-1/kl_none"):
        assert step in out
    assert not Path("nowhere").exists()
