"""Sweeps: a recipe run once for every cell of a matrix of settings, and a table that ranks the cells.

    matrix:
      sft.lr: {geometric: [1.0e-4, 1.0e-2, 5]}    five values, each the same multiple of the one before
      sft.epochs: [2, 4]
    matrix_until: sft
    matrix_by: sft.valid_loss

Every cell is a run of its own, D/cells/NAME, that goes on where it stopped; steps that come out the same in several
cells are made once. With `seed` in the matrix the other settings are ranked by their mean over seeds.

    matrix: {size: [small, large]}
    matrix_presets: {size: {small: {pretrain: {shape: {hidden_size: 64}}}, large: {…}}}

A preset is a block laid over the recipe under a name of its own, for settings that only change together.
Command: heedful run RECIPE --dir D
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from heedful.config import Config, InputError, as_number, nearest, parse, set_value
from heedful.evaluate.statistics import clustered_mean
from heedful.pipeline.figures import FinishedCell, write_figures
from heedful.pipeline.loop import Loop
from heedful.pipeline.over_seeds import Finished, write_over_seeds
from heedful.pipeline.recipe import Recipe, build
from heedful.pipeline.results import write_results
from heedful.pipeline.start import at_work, locked
from heedful.report import write_report, write_sweep_report
from heedful.run import Diverged, read_done, read_jsonl, write_atomic
from heedful.steps import OPTIMISERS

Json = dict[str, Any]
Until = Literal["pretrain", "sft", "reward", "ppo", "evaluate"]
Opened = Callable[[Recipe, Path, int | None], AbstractContextManager[Loop]]
LOWER_IS_BETTER = re.compile(r"loss|error|kl|unfinished|rise|seconds|total")
LONGEST_NAME = 120


class SweepConfig(Config):
    """What a recipe holds beside one run's settings to become a sweep."""

    matrix: Mapping[str, list[Any]]  # each setting's values: a list, or {geometric: [first, last, number]}
    matrix_until: Until = "evaluate"  # the last step of each cell, by its command's name; evaluate: the whole loop
    matrix_by: str | None = None  # the result that ranks cells, such as sft.valid_loss; none: the last step's own
    matrix_presets: Mapping[str, Mapping[str, dict[str, Any]]] = {}  # name → value → block laid over the recipe
    matrix_figures: bool = False  # then InstructGPT's figures over all cells (docs/paper_figures.md)

    @field_validator("matrix", mode="before")
    @classmethod
    def _spread(cls, matrix: Any) -> dict[str, list[Any]]:
        found = dict(spread(matrix))
        if not found:
            raise ValueError("name at least one setting with its values")
        return found

    @model_validator(mode="after")
    def _known_presets(self) -> Self:
        for key, values in self.matrix.items():
            known = self.matrix_presets.get(key, {})
            for value in values if known else ():
                if str(value) not in known:
                    raise ValueError(
                        f"matrix.{key}: no preset {value}{nearest(str(value), known)}; known here: {', '.join(known)}"
                    )
        missing = {"size", "seed"} - self.matrix.keys()
        if self.matrix_figures and (missing or self.matrix_until != "evaluate"):
            raise ValueError("matrix_figures: figures need a matrix over size and seed, and matrix_until: evaluate")
        return self


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: `settings` are the values it has of the matrix."""

    name: str
    settings: Json
    recipe: Recipe


@dataclass(frozen=True)
class Sweep:
    config: SweepConfig
    cells: list[Cell]
    base: Mapping[str, Any]  # the raw recipe that the cells' settings are laid over


def spread(block: Any, key: str = "") -> list[tuple[str, list[Any]]]:
    """The settings of a matrix with their values in full; nested blocks become dotted keys."""
    if isinstance(block, list) and key:
        if not block:
            raise ValueError(f"{key}: give at least one value")
        return [(key, as_number(block))]
    if not isinstance(block, dict):
        raise ValueError(f"{key or 'matrix'}: give a list of values or geometric: [first, last, number], not {block!r}")
    if set(block) == {"geometric"}:
        return [(key, geometric(key, block["geometric"]))]
    return [item for name, inner in block.items() for item in spread(inner, f"{key}.{name}".lstrip("."))]


def geometric(key: str, found: Any) -> list[float]:
    """Values from first to last, each the same multiple of the one before, to six digits."""
    numbers = as_number(found) if isinstance(found, list) else []
    if len(numbers) != 3 or not all(isinstance(number, int | float) and number > 0 for number in numbers):
        raise ValueError(f"{key}: geometric takes [first, last, number], all above 0, found {found!r}")
    first, last, number = numbers
    if number != int(number) or number < 2:
        raise ValueError(f"{key}: geometric takes a whole number of values, 2 or more, found {number!r}")
    values = [float(f"{first * (last / first) ** (n / (number - 1)):.6g}") for n in range(int(number))]
    return [int(value) if float(value).is_integer() and value >= 1 else value for value in values]


def read_sweep(raw: Mapping[str, Any]) -> Sweep:
    """The sweep of a raw recipe that holds a matrix, every cell's recipe validated.

    Raises:
        InputError: an unknown key or impossible value, named; two cells that are one and the same recipe.
    """
    keys = [key for key in raw if key.startswith("matrix")]
    config = parse(SweepConfig, {key: raw[key] for key in keys}, "")
    base = {key: value for key, value in raw.items() if key not in keys}
    check_variants(base, config.matrix)
    cells: list[Cell] = []
    for settings in product(config.matrix):
        name = cell_name(settings)
        cell = copy.deepcopy(base)
        for key, value in settings.items():
            if key in config.matrix_presets:
                lay_over(cell, config.matrix_presets[key][str(value)])
            else:
                set_value(cell, key, value, f"matrix.{key}")
        try:
            recipe = build(cell)
        except InputError as error:
            raise InputError(f"matrix, cell {name}: {error}") from None
        cells.append(Cell(name, settings, recipe))
    check_different(cells)
    last = cells[0].recipe
    if config.matrix_until not in ("pretrain", "sft") and last.labelers.judge == "people":
        raise InputError(
            "matrix: every cell would wait for rankings of its own responses by people; set matrix_until=sft, or "
            "run the cells one by one"
        )
    return Sweep(config, cells, base)


def lay_over(recipe: dict[str, Any], preset: Mapping[str, Any]) -> None:
    """Put the preset's values into the raw recipe, block by block; what it does not name stays."""
    for key, value in preset.items():
        if isinstance(value, dict) and isinstance(recipe.get(key), dict):
            lay_over(recipe[key], value)
        else:
            recipe[key] = copy.deepcopy(value)


def check_variants(base: Mapping[str, Any], matrix: Mapping[str, Any]) -> None:
    """A misspelt variant would be a new one."""
    for key in matrix:
        stage, _, rest = key.partition(".variants.")
        block = base.get(stage)
        known = list(block.get("variants", {stage: {}})) if isinstance(block, dict) else []
        if rest and (name := rest.split(".")[0]) not in known:
            raise InputError(f"matrix.{key}: no variant {name}{nearest(name, known)}; known here: {', '.join(known)}")


def check_different(cells: list[Cell]) -> None:
    seen: dict[str, str] = {}
    for cell in cells:
        recipe = cell.recipe.model_dump_json()
        if recipe in seen:
            raise InputError(
                f"matrix: cells {seen[recipe]} and {cell.name} are the same recipe: a value stands twice, or every "
                "variant sets the key itself (sweep sft.variants.NAME.key then)"
            )
        seen[recipe] = cell.name
    if len({cell.name for cell in cells}) < len(cells):
        raise InputError("matrix: two values look alike as names of folders; give values that differ in six digits")


def product(matrix: Mapping[str, list[Any]]) -> list[Json]:
    """Every combination of values, the last setting changing fastest."""
    found: list[Json] = [{}]
    for key, values in matrix.items():
        found = [settings | {key: value} for settings in found for value in values]
    return found


def cell_name(settings: Mapping[str, Any]) -> str:
    """sft.lr=0.001,sft.epochs=4: a folder's name."""
    whole = ",".join(f"{key}={shown(value)}" for key, value in settings.items())
    name = re.sub(r"[^\w.,=+-]+", "_", whole)
    if name == whole and len(name) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"


def shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def run_sweep(sweep: Sweep, folder: Path, cores: int | None = None, opened: Opened = at_work) -> Json:
    """Run every cell, going on where one stopped; sweep.json and report.html stand after each. Returns sweep.json.

    `opened` puts a cell to work, as `pipeline.start.at_work` does. A cell whose training diverges is shown as such.

    Raises:
        InputError: the folder holds a single run, or `matrix_by` names no result.
        Waiting: people have not judged enough yet.
    """
    if (folder / "recipe.json").exists():
        raise InputError(f"{folder} holds a single run; use another --dir for the sweep")
    folders = {cell.name: folder / "cells" / cell.name for cell in sweep.cells}
    diverged: dict[str, str] = {}
    with locked(folder):
        for cell in sweep.cells:
            prepare(cell, folder, folders[cell.name])
            try:
                with opened(cell.recipe, folders[cell.name], cores) as loop:
                    loop.siblings = [path for path in folders.values() if path != loop.folder]
                    loop.run(sweep.config.matrix_until)
                    if sweep.config.matrix_until == "evaluate":
                        write_results(cell.recipe, loop.folder)
                        write_report(loop.folder)
            except Diverged as error:
                diverged[cell.name] = str(error)
            found = summarise(sweep, folder, diverged)
            write_atomic(folder / "sweep.json", json.dumps(found, indent=2) + "\n")
            if sweep.config.matrix_until == "evaluate":
                write_over_seeds(finished_runs(sweep, folder), folder)
            if sweep.config.matrix_figures:
                write_figures(finished_cells(sweep, folder), sweep.config.matrix, own_variants(sweep), folder)
            write_sweep_report(folder)
    return found


def finished_runs(sweep: Sweep, folder: Path) -> list[Finished]:
    """The results of the cells that stand whole."""
    places = [(cell, folder / "cells" / cell.name / "results.json") for cell in sweep.cells]
    return [
        Finished(without_seed(cell.settings), cell.recipe.seed, json.loads(own.read_text(encoding="utf-8")))
        for cell, own in places
        if own.exists()
    ]


def finished_cells(sweep: Sweep, folder: Path) -> list[FinishedCell]:
    """The cells of the sweep that stand whole."""
    places = [(cell, folder / "cells" / cell.name) for cell in sweep.cells]
    return [
        FinishedCell(str(cell.settings["size"]), cell.recipe, own)
        for cell, own in places
        if (own / "results.json").exists()
    ]


def own_variants(sweep: Sweep) -> set[str]:
    """Optimised policies that only a preset brings in: the points of a sweep along a coefficient."""
    blocks = {stage: sweep.base[stage] for stage in OPTIMISERS if stage in sweep.base}
    common = {name for stage, block in blocks.items() for name in block.get("variants", {stage: {}})}
    return {name for cell in sweep.cells for name in cell.recipe.optimised()} - common


def prepare(cell: Cell, folder: Path, own: Path) -> None:
    """People label for all cells at once: until fine-tuning is done, every cell asks them the same."""
    if cell.recipe.labelers.judge == "people" and not (own / "store.db").is_symlink():
        own.mkdir(parents=True, exist_ok=True)
        (own / "store.db").symlink_to(Path("..") / ".." / "store.db")


def summarise(sweep: Sweep, folder: Path, diverged: Mapping[str, str]) -> Json:
    """The cells' values so far and their ranking, as sweep.json holds them."""
    by = sweep.config.matrix_by or default_by(sweep.cells[0].recipe, sweep.config.matrix_until)
    lower = bool(LOWER_IS_BETTER.search(by.rpartition(".")[2]))
    cells = []
    for cell in sweep.cells:
        own = folder / "cells" / cell.name
        row: Json = {"name": cell.name, "settings": cell.settings}
        if cell.name in diverged:
            row |= {"value": None, "low": None, "high": None, "reason": diverged[cell.name]}
        elif is_done(own, sweep.config.matrix_until, cell.recipe):
            row |= value_of(own, by, lower)
        else:
            row |= {"value": None, "low": None, "high": None, "reason": "not run yet"}
        cells.append(row)
    ranked = ranking(cells, lower)
    return {
        "recipe": sweep.cells[0].recipe.name,
        "until": sweep.config.matrix_until,
        "by": by,
        "better": "lower" if lower else "higher",
        "matrix": dict(sweep.config.matrix),
        "cells": cells,
        "ranking": ranked,
        "at_edge": at_edge(sweep.config.matrix, ranked),
    }


def at_edge(matrix: Mapping[str, Any], ranked: list[Json]) -> list[str]:
    """The settings whose best value is the smallest or largest that was tried: better ones may lie beyond."""
    best = ranked[0]["settings"] if ranked and ranked[0]["mean"] is not None else {}
    tried = {key: [v for v in matrix[key] if isinstance(v, int | float) and not isinstance(v, bool)] for key in best}
    return [key for key, v in tried.items() if len(v) > 2 and best[key] in (min(v), max(v))]


def is_done(folder: Path, until: Until, recipe: Recipe) -> bool:
    """Whether the cell's last step is finished."""
    last = {
        "pretrain": ["pretrain"],
        "sft": [*recipe.sft, *recipe.distil],
        "reward": [f"round-{recipe.rounds}/scores"],
        "ppo": [f"round-{recipe.rounds}/{name}" for name in recipe.optimised()],
        "evaluate": ["evaluation/judgements"],
    }[until]
    written = until != "evaluate" or (folder / "results.json").exists()  # a kill can come between the two
    return written and all((folder / name / "done.json").exists() for name in last)


def default_by(recipe: Recipe, until: Until) -> str:
    """The result one looks at first after the step."""
    last = f"round-{recipe.rounds}"
    fine_tuned = recipe.rankings.policy if recipe.rankings.policy in recipe.sft else next(iter(recipe.sft), "sft")
    best = next(reversed(recipe.optimised()), fine_tuned)
    return {
        "pretrain": "pretrain.valid_loss",
        "sft": f"{fine_tuned}.valid_loss",
        "reward": f"{last}/reward_model.valid_accuracy",
        "ppo": f"{last}/{best}.{'valid_accuracy' if best in recipe.dpo else 'score'}",
        "evaluate": f"policies.{best}.win_rate",
    }[until]


def value_of(folder: Path, by: str, lower: bool) -> Json:
    """The named result of a finished cell, {value, low, high}; of a list (one per epoch) the best.

    The name is a place in results.json, or a step's folder with a key of its results or of its last logged line.

    Raises:
        InputError: there is no such result, or it is no number.
    """
    results = folder / "results.json"
    known = steps_of(folder) | (json.loads(results.read_text(encoding="utf-8")) if results.exists() else {})
    found: Any = known
    for part in by.split("."):
        if not isinstance(found, dict) or part not in found:
            names = list(found) if isinstance(found, dict) else []
            raise InputError(f"matrix_by: no result {by}: {part} is none of {', '.join(names)}{nearest(part, names)}")
        found = found[part]
    if isinstance(found, dict) and "mean" in found:
        return {"value": found["mean"], "low": found["low"], "high": found["high"]}
    numbers = [number for number in (found if isinstance(found, list) else [found]) if number is not None]
    if not all(isinstance(number, int | float) for number in numbers):
        raise InputError(f"matrix_by: {by} is no number; name one of its parts: {', '.join(found)}")
    best = (min if lower else max)(numbers, default=None)
    reason = {} if numbers else {"reason": "this cell has no such value; see its results.json"}
    return {"value": best, "low": None, "high": None} | reason


def steps_of(folder: Path) -> Json:
    """Each finished step's results, by its folder, with what its last line of metrics logged."""
    found = {}
    for path in sorted(folder.rglob("done.json")):
        logged = read_jsonl(path.with_name("metrics.jsonl"))[-1:]
        results = read_done(path.parent)["results"]
        found[str(path.parent.relative_to(folder))] = dict(*logged) | results
    return found


def ranking(cells: list[Json], lower: bool) -> list[Json]:
    """Settings without their seeds, the best first: mean over seeds with its 95 % interval, or the cell's own."""
    groups: dict[str, list[Json]] = {}
    for cell in cells:
        groups.setdefault(json.dumps(without_seed(cell["settings"])), []).append(cell)
    rows = []
    for group in groups.values():
        values = [cell["value"] for cell in group if cell["value"] is not None]
        row: Json = {"settings": without_seed(group[0]["settings"]), "num_values": len(values)}
        row["cells"] = [cell["name"] for cell in group]
        if "seed" in group[0]["settings"]:
            over = clustered_mean(values, range(len(values)))
            row |= {"mean": over.mean, "low": over.low, "high": over.high}
        else:
            row |= {"mean": group[0]["value"], "low": group[0]["low"], "high": group[0]["high"]}
        rows.append(row)
    sign = 1 if lower else -1
    return sorted(rows, key=lambda row: (row["mean"] is None, sign * (row["mean"] or 0.0)))


def without_seed(settings: Mapping[str, Any]) -> Json:
    return {key: value for key, value in settings.items() if key != "seed"}
