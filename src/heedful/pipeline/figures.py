"""InstructGPT's figures over the cells of a sweep: every size's policies judged side by side, then drawn.

The paper's win rates are against one model, its 175B SFT policy. Ours are against the largest size's SFT policy of the
same seed: its town, users and test prompts are the same for every size, so labelers rank what all sizes' policies gave
to one prompt at once. That needs no model, only the responses that each cell's evaluation left behind.

    judgements/seed-0-…/snapshot     prompts, responses of all sizes, rankings and ratings by both labeler groups
    judgements/seed-0-…/samples.jsonl  which response each size's policy gave to each prompt
    paper_figures.json, paper_figures.csv  every number of the figures, a row each
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from heedful.config import Config
from heedful.pipeline.figure_rows import COLUMNS, Judged, Measured, PolicyOf, figure_rows
from heedful.pipeline.labelling import by_prompt, judged_by_groups
from heedful.pipeline.recipe import Recipe
from heedful.pipeline.world import WorldSource
from heedful.run import Run, read_done, read_jsonl, write_atomic
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.types import Prompt, Response

Json = dict[str, Any]


class FinishedCell(NamedTuple):
    """One size and seed: a whole run in its folder."""

    size: str
    recipe: Recipe
    folder: Path


class JudgeConfig(Config):
    """Who judges all sizes' responses to the test prompts."""

    labelers_per_prompt: int = Field(ge=1)  # of each group


def write_figures(
    cells: Sequence[FinishedCell], matrix: Mapping[str, Sequence[Any]], own_variants: set[str], folder: Path
) -> None:
    """Judge the seeds whose cells are all there, and write the figures' numbers over them.

    `own_variants`: PPO variants that stand for a point along a coefficient (figures 33 and 34); nobody judges them.
    """
    sizes = [str(size) for size in matrix["size"]]
    found: list[Judged] = []
    for seed in matrix["seed"]:
        here = {cell.size: cell for cell in cells if cell.recipe.seed == seed}
        if set(sizes) <= here.keys():
            found.append(judged_seed([here[size] for size in sizes], own_variants, folder))
    done = [measured(cell) for cell in cells if cell.recipe.seed in {one.seed for one in found}]
    figures: Json = {
        "sizes": {cell.size: parameters(cell.folder) for size in sizes for cell in cells if cell.size == size},
        "seeds": [one.seed for one in found],
        "baseline": " ".join(found[0].baseline) if found else None,
        "missing": [seed for seed in matrix["seed"] if seed not in {one.seed for one in found}],
        "seconds": {cell.folder.name: results(cell.folder)["seconds"]["total"] for cell in cells},
        "commits": sorted({str(results(cell.folder)["commit"]) for cell in cells}),
        "num_prompts": len(found[0].prompts) if found else 0,
        "rows": figure_rows(found, done, sizes),
    }
    write_atomic(folder / "paper_figures.json", json.dumps(figures, indent=2) + "\n")
    write_atomic(folder / "paper_figures.csv", as_csv(figures["rows"]))


def judged_seed(cells: Sequence[FinishedCell], own_variants: set[str], folder: Path) -> Judged:
    """The seed's judgements, made now unless they stand already; the last cell holds the baseline."""
    places = {
        (cell.size, name): cell.folder / "evaluation" / name / "responses"
        for cell in cells
        for name in evaluated(cell.folder)
        if name not in own_variants
    }
    parents = {"/".join(policy): hash_of(place) for policy, place in places.items()}
    largest = cells[-1]
    ranked = largest.folder / f"round-{largest.recipe.rounds}" / "responses" / "responses"
    parents["labelers"] = hash_of(ranked)
    digest = hashlib.sha256(json.dumps(parents, sort_keys=True).encode()).hexdigest()[:8]
    config = JudgeConfig(labelers_per_prompt=largest.recipe.evaluate.labelers_per_prompt)
    place = folder / "judgements" / f"seed-{largest.recipe.seed}-{digest}"
    run = Run.open(place, "judge_sizes", config.model_dump(mode="json"), largest.recipe.seed, parents)
    if not run.done:
        judge(run, config, largest.recipe, {policy: read_snapshot(at) for policy, at in places.items()}, ranked)
    given: dict[PolicyOf, dict[str, str]] = {}
    for row in read_jsonl(place / "samples.jsonl"):
        given.setdefault((row["size"], row["policy"]), {})[row["prompt_id"]] = row["response_id"]
    snapshot = read_snapshot(place / "snapshot")
    baseline = (largest.size, largest.recipe.evaluate.baseline)
    group = {labeler.id: labeler.group for labeler in snapshot.labelers}
    return Judged(run.seed, baseline, snapshot.prompts, snapshot.rankings, snapshot.ratings, group, given)


def judge(run: Run, config: JudgeConfig, recipe: Recipe, given: Mapping[PolicyOf, Snapshot], ranked: Path) -> None:
    """Both groups of simulated labelers rank all policies' different responses to each prompt; held-out ones rate them.

    The labelers' noise is the one of the largest size's run, set on the responses it ranked.
    """
    source = WorldSource(recipe)
    source.calibrate(by_prompt(read_snapshot(ranked)))
    items = side_by_side(run, given)
    judged = judged_by_groups(items, source, config.labelers_per_prompt, run.seed, also_training=True)
    everything = Snapshot(
        prompts=tuple(prompt for prompt, _ in items),
        responses=tuple(response for _, responses in items for response in responses),
        labelers=judged.labelers,
        rankings=judged.rankings,
        ratings=judged.ratings,
    )
    write_snapshot(run.folder / "snapshot", everything)
    run.finish(num_rankings=len(judged.rankings), num_ratings=len(judged.ratings))


def side_by_side(run: Run, given: Mapping[PolicyOf, Snapshot]) -> list[tuple[Prompt, list[Response]]]:
    """Each prompt with the different responses to it; the log says which one each policy gave."""
    first = next(iter(given.values()))
    asked: dict[str, dict[str, Response]] = {prompt.id: {} for prompt in first.prompts}
    for (size, policy), snapshot in given.items():
        for response in snapshot.responses:
            own = response.model_copy(update={"id": f"{size}/{response.id}", "model": f"{size} {policy}"})
            kept = asked[response.prompt_id].setdefault(response.text, own)
            run.sample(size=size, policy=policy, prompt_id=response.prompt_id, response_id=kept.id)
    return [(prompt, list(asked[prompt.id].values())) for prompt in first.prompts]


def measured(cell: FinishedCell) -> Measured:
    """What needs no judge: each policy's own measurements, and where each PPO variant stands along its settings."""
    settings = {name: config.model_dump(mode="json") for name, config in cell.recipe.ppo.items()}
    found = {name: results_of(cell.folder / "evaluation" / name) for name in evaluated(cell.folder)}
    classic = {path.name: results_of(path) for path in finished_in(cell.folder / "classic")}
    qualitative = {path.name: results_of(path) for path in finished_in(cell.folder / "qualitative")}
    scores = {name: scores_of(cell.folder / "evaluation" / name) for name in found}
    return Measured(cell.recipe.seed, cell.size, cell.recipe.start_row(), settings, found, scores, classic, qualitative)


def scores_of(step: Path) -> dict[str, float]:
    """The reward model's score of the policy's response to each prompt."""
    return {row["prompt_id"]: row["score"] for row in read_jsonl(step / "samples.jsonl") if row["score"] is not None}


def evaluated(folder: Path) -> list[str]:
    """The policies of a finished run, in the order of its results."""
    return list(results(folder)["policies"])


def finished_in(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/done.json"))


def results(folder: Path) -> Json:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def results_of(step: Path) -> Json:
    return read_done(step)["results"]


def hash_of(snapshot: Path) -> str:
    return json.loads((snapshot / "snapshot.json").read_text(encoding="utf-8"))["hash"]


def parameters(folder: Path) -> int:
    """The weights of the run's pretrained model, counted from its file's header."""
    with (folder / "pretrain" / "model" / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            number = 1
            for size in tensor["shape"]:
                number *= size
            total += number
    return total


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = [row[column] for column in COLUMNS[:-1]]
        writer.writerow([*values, " ".join("" if value is None else f"{value:.6g}" for value in row["seeds"])])
    return text.getvalue()
