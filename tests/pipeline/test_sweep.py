"""Sweeps: which cells a matrix has, what they share, how they are ranked, and what is refused before anything runs."""

import itertools
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.config import InputError, read_recipe
from heedful.pipeline.jobs import Job
from heedful.pipeline.recipe import build
from heedful.pipeline.reuse import take_over
from heedful.pipeline.start import at_work
from heedful.pipeline.sweep import at_edge, cell_name, ranking, read_sweep, run_sweep, spread, value_of
from heedful.report import write_sweep_report
from heedful.report.sweep import goodness
from heedful.run import Run
from heedful.stages.sft import SFTConfig
from report.page import Page
from same_run import content, differences, files
from tiny import TINY, refuse, succeed

SMALL = ["world.document_tokens=6000", "evaluate.prompted=false", "matrix_until=sft"]
LR = "sft.variants.sft.lr"


def raw(**matrix: Any) -> dict[str, Any]:
    return read_recipe(str(TINY), SMALL) | {"matrix": {key.replace("__", "."): value for key, value in matrix.items()}}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two learning rates on two seeds, up to fine-tuning."""
    folder = tmp_path_factory.mktemp("sweep") / "D"
    run_sweep(read_sweep(raw(sft={"variants": {"sft": {"lr": [1e-4, 1e-2]}}}, seed=[0, 1])), folder, cores=1)
    return folder


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# Which cells there are.


@given(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3), st.integers(2, 9))
def test_a_geometric_range_has_its_ends_and_one_ratio(first: float, last: float, number: int) -> None:
    [(key, values)] = spread({"a.b": {"geometric": [first, last, number]}})
    assert key == "a.b" and len(values) == number
    assert (values[0], values[-1]) == (pytest.approx(first, rel=1e-5), pytest.approx(last, rel=1e-5))
    for one, two in itertools.pairwise(values):
        assert math.log(two / one) == pytest.approx(math.log(last / first) / (number - 1), abs=1e-4)


def test_the_cells_are_every_combination_of_the_values() -> None:
    matrix = {"sft.lr": {"geometric": ["1e-4", "1e-2", 3]}, "sft.variants.sft.epochs": [2, 4]}
    cells = read_sweep(raw() | {"matrix": matrix}).cells
    assert [cell.settings for cell in cells] == [
        {"sft.lr": lr, "sft.variants.sft.epochs": epochs} for lr in (1e-4, 1e-3, 1e-2) for epochs in (2, 4)
    ]
    for cell in cells:
        sft = cell.recipe.sft["sft"]
        assert (sft.lr, sft.epochs) == tuple(cell.settings.values()) and cell.recipe.sft["ppo_init"].epochs == 1
    assert cells[0].name == "sft.lr=0.0001,sft.variants.sft.epochs=2"


def test_blocks_within_a_matrix_are_dotted_keys_and_whole_numbers_stay_whole() -> None:
    assert spread({"sft": {"lr": [1], "variants": {"x": {"epochs": {"geometric": [1, 16, 5]}}}}, "seed": [3]}) == [
        ("sft.lr", [1]),
        ("sft.variants.x.epochs", [1, 2, 4, 8, 16]),
        ("seed", [3]),
    ]
    assert (
        read_sweep(read_recipe(str(TINY), [*SMALL, "matrix.sft.lr=[1e-4, 0.1]"])).cells[0].recipe.sft["sft"].lr == 1e-4
    )


@given(st.lists(st.text(max_size=200) | st.integers() | st.none(), min_size=2, max_size=2, unique_by=str))
def test_names_of_cells_are_names_of_folders_and_differ(values: list[Any]) -> None:
    one, other = (cell_name({"model": value}) for value in values)
    assert one != other and "/" not in one and len(one.encode()) < 255 * 2 and one not in (".", "..")


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        ({"sft.lrr": [1]}, "sft.lrr: unknown key, did you mean lr"),
        ({"stf.lr": [1]}, "stf: unknown key, did you mean sft"),
        ({"sft.variants.stf.lr": [1, 2]}, "matrix.sft.variants.stf.lr: no variant stf, did you mean sft?; known here"),
        ({"sft.lr": [1e-3, -1]}, "cell sft.lr=-1: sft.lr: must be greater than 0 (found -1)"),
        ({"name.x.y": [1]}, "matrix.name.x.y: name is a value, not a block"),
        ({"sft.lr": []}, "sft.lr: give at least one value"),
        ({"sft.lr": 3}, "sft.lr: give a list of values or geometric: [first, last, number], not 3"),
        ({"sft.lr": {"geometric": [0, 1, 3]}}, "sft.lr: geometric takes [first, last, number], all above 0"),
        ({"sft.lr": {"geometric": [1, 2]}}, "sft.lr: geometric takes [first, last, number], all above 0"),
        ({"sft.lr": {"geometric": [1, 2, 1]}}, "sft.lr: geometric takes a whole number of values, 2 or more"),
        ({}, "matrix: name at least one setting with its values"),
        ([1], "give a list of values"),
        ({"sft.epochs": [2, 3]}, "are the same recipe: a value stands twice, or every variant sets the key itself"),
        ({"seed": [1, 1]}, "cells seed=1 and seed=1 are the same recipe"),
        ({"sft.variants.sft.lr": [0.1234561, 0.1234562]}, "two values look alike as names of folders"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused_in_one_line(matrix: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_sweep(raw() | {"matrix": matrix})
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "near"), [({"matrix_unitl": "sft"}, "matrix_until"), ({"matrix_by_": "x"}, "matrix_by")]
)
def test_a_misspelt_key_of_the_sweep_is_named(more: dict[str, Any], near: str) -> None:
    with pytest.raises(InputError, match=f"unknown key, did you mean {near}"):
        read_sweep(raw(seed=[1]) | more)


def test_people_rank_no_cells() -> None:
    people = raw(seed=[1, 2]) | {"labelers": {"judge": "people"}}
    read_sweep(people)
    with pytest.raises(InputError, match=r"every cell would wait for rankings .* set matrix_until=sft"):
        read_sweep(people | {"matrix_until": "ppo"})


# What a cell is.


def test_a_cell_is_the_run_of_its_recipe(swept: Path, tmp_path: Path) -> None:
    recipe = build(read_recipe(str(TINY), [*SMALL[:2], f"{LR}=1e-2", "seed=1"]))
    with at_work(recipe, tmp_path / "run", cores=1) as loop:
        loop.run("sft")
    assert list(differences(swept / "cells" / f"{LR}=0.01,seed=1", tmp_path / "run")) == []


def test_steps_that_come_out_the_same_are_made_once(swept: Path) -> None:
    weights = {
        (lr, seed, step): (swept / "cells" / f"{LR}={lr},seed={seed}" / step / "model.safetensors").stat()
        for lr in ("0.0001", "0.01")
        for seed in (0, 1)
        for step in ("pretrain/model", "ppo_init/epoch-01", "sft/epoch-02")
    }
    for seed in (0, 1):
        for step in ("pretrain/model", "ppo_init/epoch-01"):  # a sweep of sft.lr alone leaves these as they are
            one, other = (weights[lr, seed, step].st_ino for lr in ("0.0001", "0.01"))
            assert one == other, step
        assert weights["0.0001", seed, "sft/epoch-02"].st_ino != weights["0.01", seed, "sft/epoch-02"].st_ino
    assert weights["0.01", 0, "pretrain/model"].st_ino != weights["0.01", 1, "pretrain/model"].st_ino


def job(folder: Path, **changes: Any) -> Job:
    given = {"stage": "sft", "seed": 0, "parents": {"model": "m"}} | changes
    return Job(folder, body=lambda *_: None, config=given.pop("config", SFTConfig()), **given)


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({}, True),
        ({"seed": 1}, False),
        ({"stage": "ppo"}, False),
        ({"parents": {"model": "other"}}, False),
        ({"config": SFTConfig(lr=1.0)}, False),
    ],
)
def test_a_step_is_taken_over_only_where_all_it_was_made_from_is_equal(
    changes: dict[str, Any], taken: bool, tmp_path: Path
) -> None:
    made = job(tmp_path / "one").open()
    take_over(job(tmp_path / "other"), [tmp_path / "one"])
    assert not (tmp_path / "other").exists()  # not finished yet
    made.log(0, loss=1.0)
    made.finish(valid_loss=[1.0])
    (tmp_path / "one" / "within").mkdir()
    (tmp_path / "one" / "within" / "manifest.json").touch()  # a step of its own
    other = job(tmp_path / "new" / "other", **changes)
    (tmp_path / "new").mkdir()
    take_over(other, [tmp_path / "none", tmp_path / "one"])
    assert other.folder.exists() == taken
    if taken:
        assert {name: content(path) for name, path in files(other.folder).items()} == {
            name: content(path) for name, path in files(tmp_path / "one").items() if "within" not in name
        }
        assert os.path.samefile(other.folder / "done.json", tmp_path / "one" / "done.json")
        before = (other.folder / "done.json").stat().st_mtime_ns
        take_over(other, [tmp_path / "one"])  # what is there stays
        assert (other.folder / "done.json").stat().st_mtime_ns == before and Run(other.folder, {}, 0).done


# How cells are ranked.


def test_cells_are_ranked_by_their_mean_over_seeds(swept: Path) -> None:
    found = read(swept / "sweep.json")
    assert (found["by"], found["better"], found["until"]) == ("sft.valid_loss", "lower", "sft")
    assert found["matrix"] == {LR: [1e-4, 1e-2], "seed": [0, 1]} and len(found["cells"]) == 4
    losses = {
        cell["name"]: min(read(swept / "cells" / cell["name"] / "sft" / "done.json")["results"]["valid_loss"])
        for cell in found["cells"]
    }
    assert {cell["name"]: cell["value"] for cell in found["cells"]} == losses
    means = []
    for row in found["ranking"]:
        one, two = (losses[name] for name in row["cells"])
        assert row["mean"] == pytest.approx((one + two) / 2) and row["num_values"] == 2
        half = 12.7062 * abs(one - two) / 2  # Student's quantile at one degree of freedom, times the standard error
        assert (row["low"], row["high"]) == pytest.approx((row["mean"] - half, row["mean"] + half), rel=1e-3)
        assert all(row["settings"] == {LR: float(name.split("=")[1].split(",")[0])} for name in row["cells"])
        means.append(row["mean"])
    assert means == sorted(means) and len(means) == 2


def cell(value: float | None, **settings: Any) -> dict[str, Any]:
    return {"name": str(settings), "settings": settings, "value": value, "low": 0.1, "high": 0.9}


def test_ranking_by_hand() -> None:
    cells = [cell(0.2, lr=1), cell(None, lr=2), cell(0.4, lr=3)]
    assert [row["settings"]["lr"] for row in ranking(cells, lower=False)] == [3, 1, 2]
    assert [row["settings"]["lr"] for row in ranking(cells, lower=True)] == [1, 3, 2]
    assert (ranking(cells, lower=True)[0]["low"], ranking(cells, lower=True)[0]["high"]) == (0.1, 0.9)  # the cell's own
    seeds = [cell(0.2, lr=1, seed=0), cell(None, lr=1, seed=1), cell(0.3, lr=2, seed=0), cell(0.1, lr=2, seed=1)]
    best, other = ranking(seeds, lower=True)
    assert best["settings"] == other["settings"] | {"lr": best["settings"]["lr"]}
    one = next(row for row in (best, other) if row["settings"] == {"lr": 1})
    assert (one["mean"], one["low"], one["num_values"], len(one["cells"])) == (0.2, None, 1, 2)


def test_a_value_is_found_by_its_name(tiny_run: Path) -> None:
    results = read(tiny_run / "results.json")
    wins = results["policies"]["ppo"]["win_rate"]
    found = value_of(tiny_run, "policies.ppo.win_rate", lower=False)
    assert found == {"value": wins["mean"], "low": wins["low"], "high": wins["high"]}
    losses = read(tiny_run / "sft" / "done.json")["results"]["valid_loss"]
    assert value_of(tiny_run, "sft.valid_loss", lower=True)["value"] == min(losses)
    assert value_of(tiny_run, "sft.valid_loss", lower=False)["value"] == max(losses)
    logged = (tiny_run / "round-1" / "ppo" / "metrics.jsonl").read_text().splitlines()
    assert value_of(tiny_run, "round-1/ppo.score", lower=False)["value"] == json.loads(logged[-1])["score"]
    assert value_of(tiny_run, "policies.gpt_prompted.kl", lower=True)["reason"]
    for name, near in (("sft.valid_lss", "valid_loss"), ("polices.ppo", "policies"), ("policies.ppo_px.kl", "ppo_ptx")):
        with pytest.raises(InputError, match=rf"matrix_by: no result {name}: .*did you mean {near}\?"):
            value_of(tiny_run, name, lower=True)
    with pytest.raises(InputError, match="is no number"):
        value_of(tiny_run, "policies.ppo", lower=True)


def test_a_cell_that_diverges_is_shown_and_stops_nothing(tmp_path: Path) -> None:
    found = run_sweep(read_sweep(raw(sft={"variants": {"sft": {"lr": [1e30, 1e-3]}}})), tmp_path / "D", cores=1)
    wild, tame = found["cells"]
    assert wild["value"] is None and "sft" in wild["reason"] and "at step" in wild["reason"]
    assert tame["value"] is not None and [row["mean"] for row in found["ranking"]] == [tame["value"], None]
    assert "at step" in Page((tmp_path / "D" / "report.html").read_text()).section("missing")


# The report, and the command line.


def test_the_report_shows_every_cell(swept: Path) -> None:
    page = Page((swept / "report.html").read_text(encoding="utf-8"))
    found = read(swept / "sweep.json")
    text = page.section("ranking")
    rows = [[part.text for part in row.children] for row in page.all("tr")][1:]
    for place, (shown, row) in enumerate(zip(rows, found["ranking"], strict=True), start=1):
        interval = f"{row['low']:.4f} to {row['high']:.4f}".replace("-", "−")
        assert shown[:4] == [str(place), f"{row['settings'][LR]:g}", f"{row['mean']:.4f}", interval]
        assert all(name in shown[5] for name in row["cells"])
    assert "2 of 2" in text and page.all("svg") and "https" not in "".join(e.text for e in page.all("style"))
    before = (swept / "report.html").read_bytes()
    assert write_sweep_report(swept).read_bytes() == before


@pytest.mark.parametrize("number", [1, 2, 3])
def test_reports_of_one_to_three_settings(number: int, tmp_path: Path) -> None:
    """Two settings give a heat map; many combinations of the others are averaged."""
    keys = ["a.lr", "b<i>.epochs", "c.name"][:number]
    values: dict[str, list[Any]] = {key: [1e-4, 2, "x&y"] for key in keys}
    settings = [dict(zip(keys, combination, strict=True)) for combination in itertools.product(*values.values())]
    cells = [cell(None if n == 1 else n / 10, **found) for n, found in enumerate(settings)]
    for one in cells:
        one["reason"] = "not run yet"
    sweep = {"recipe": "r", "by": "x.y", "better": "higher", "until": "sft", "matrix": values, "cells": cells}
    sweep["at_edge"] = []
    tmp_path.joinpath("sweep.json").write_text(json.dumps(sweep | {"ranking": ranking(cells, lower=False)}))
    page = Page(write_sweep_report(tmp_path).read_text(encoding="utf-8"))
    charts = [str(element.attributes["aria-label"]) for element in page.all("svg")]
    assert [name for name in charts if " and " in name] == (["x.y by a.lr and b<i>.epochs"] if number == 2 else [])
    assert len(charts) == number + (number == 2)
    if number == 2:
        assert len(page.all("rect")) == 9 and "0.800" in page.section("pictures") and "–" in page.section("pictures")
    lines = [element for element in page.all("polyline")]
    assert len(lines) == {1: 1, 2: 6, 3: 3}[number]
    assert ("The mean over 9 combinations" in page.section("pictures")) == (number == 3)


def test_a_best_value_at_the_end_of_what_was_tried_is_named() -> None:
    matrix = {"lr": [1e-4, 1e-3, 1e-2], "batch": [4, 8, 16], "name": ["a", "b", "c"], "two": [1, 2], "seed": [0, 1, 2]}
    best = {"lr": 1e-2, "batch": 8, "name": "a", "two": 2}
    ranked = [{"settings": best, "mean": 0.7}, {"settings": best | {"lr": 1e-3}, "mean": 0.6}]
    assert at_edge(matrix, ranked) == ["lr"]
    assert at_edge(matrix, [ranked[0] | {"mean": None}]) == at_edge(matrix, []) == []


def test_the_better_the_stronger() -> None:
    values = [1.0, 2.0, 3.0]
    assert [goodness(value, values, lower=False) for value in values] == [0, 0.5, 1]
    assert [goodness(value, values, lower=True) for value in values] == [1, 0.5, 0]
    assert goodness(None, values, lower=True) == goodness(1.0, [1.0], lower=True) == 0


def test_a_folder_without_a_sweep_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no sweep: sweep\.json is not there"):
        write_sweep_report(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="is broken"):
        write_sweep_report(tmp_path)


def test_the_command_sweeps_goes_on_and_takes_more_values(swept: Path, tmp_path: Path) -> None:
    folder, command = tmp_path / "D", ["run", TINY, "--dir", tmp_path / "D", "--cores", 1]
    command += [part for setting in SMALL for part in ("--set", setting)]
    one = ["--set", f"matrix={{{LR}: [1e-3]}}"]
    assert "1 cell: sft.variants.sft.lr=0.001" in succeed(*command, *one, "--dry-run") and not folder.exists()
    refuse(*command, *one, "--resume")
    shown = succeed(*command, *one)
    assert "1 cells by sft.valid_loss, lower is better" in shown and (folder / "report.html").exists()
    before = {name: path.stat().st_mtime_ns for name, path in files(folder / "cells").items()}
    assert succeed(*command, *one, "--resume") == shown
    assert {name: path.stat().st_mtime_ns for name, path in files(folder / "cells").items()} == before
    assert "2 cells" in succeed(*command, "--set", f"matrix={{{LR}: [1e-3, 1e-2]}}")
    after = {name: path.stat().st_mtime_ns for name, path in files(folder / "cells").items()}
    assert before.items() <= after.items() and len(read(folder / "sweep.json")["ranking"]) == 2
    assert str(folder / "report.html") in succeed("report", folder)
    assert f"{folder} holds a sweep; name one of the runs in" in refuse("status", folder)
    assert "holds a sweep; use another --dir" in refuse("run", TINY, "--dir", folder)
    assert "holds a single run; use another --dir" in refuse(
        *command[:2], "--dir", folder / "cells" / f"{LR}=0.01", *one
    )
    assert "matrix: heedful run RECIPE sweeps" in refuse("sft", TINY, *command[2:], *one)
    assert "no result sft.accuracy" in refuse(*command, *one, "--set", "matrix_by=sft.accuracy")
    assert f"{LR}r: " not in refuse(*command, "--set", "matrix={sft.lrr: [1]}")
