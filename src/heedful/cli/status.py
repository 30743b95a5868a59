"""Where each step of a run stands, from its files alone."""

import fcntl
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from heedful.cli.common import RunFolder, console, existing_run, number, say
from heedful.config import InputError
from heedful.run import read_jsonl

State = Literal["done", "running", "waiting", "stopped", "not begun"]
COLOUR: dict[State, str] = {
    "done": "green",
    "running": "cyan",
    "waiting": "yellow",
    "stopped": "yellow",
    "not begun": "dim",
}


@dataclass(frozen=True)
class Step:
    """One step of a run. `counts` is what it dropped, cut or skipped: reason → number."""

    name: str
    state: State
    seconds: float | None = None
    result: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


def status(folder: RunFolder) -> None:
    """Show where each step of a run stands: done, running, waiting for people, stopped or not begun."""
    recipe = existing_run(folder)
    steps = read_steps(folder, recipe)
    console.print(status_table(steps, f"{folder}: {recipe.get('name') or 'a recipe'}, seed {recipe.get('seed')}"))
    done = sum(step.state == "done" for step in steps)
    seconds = sum(step.seconds or 0.0 for step in steps)
    say(f"{done} of {len(steps)} steps done, {seconds:.0f} s of work")
    if (folder / "results.json").exists():
        say(f"results: heedful evaluate {folder}")
    elif not at_work(folder):
        say("go on with the command that started it; finished steps are passed over")


def status_table(steps: list[Step], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("seconds", justify="right")
    table.add_column("result, and what was dropped or counted")
    for step in steps:
        counts = "".join(f"; {reason} {count}" for reason, count in step.counts.items())
        state = Text(step.state, COLOUR[step.state])
        table.add_row(
            step.name, state, number(step.seconds, 1) if step.seconds is not None else "", step.result + counts
        )
    return table


def planned_steps(recipe: Mapping[str, Any]) -> list[str]:
    """The folders of a recipe's steps, in the order in which they are begun."""
    sft, ppo = list(recipe["sft"]), list(recipe["ppo"])
    start, wanted = recipe["start_name"], recipe["evaluate"]
    steps = ["data"]
    steps += ["pretrain"] if recipe["pretrain"] else []
    steps += ["demonstrations", *sft] if sft else []
    for n in range(1, recipe["rounds"] + 1):
        names, last = [*(["prompts"] if n > 1 else []), "responses", "rankings"], n == recipe["rounds"]
        if recipe["reward_model"]:
            names.append("reward_model")
            names += ["../evaluation/choose_prefix"] if wanted["prompted"] and last else []
            names += ["choose_epoch"] if recipe["rankings"]["policy"] in sft else []
            names.append("scores")
            folds = range(1, 1 + recipe["reward_model_folds"] * last)
            names += ["folds"] if folds else []
            names += [*(f"folds/model-{fold}" for fold in folds), *(f"folds/scores-{fold}" for fold in folds)]
        steps += [f"round-{n}/{name}" if name[0] != "." else name[3:] for name in [*names, *ppo]]
    steps += [f"evaluation/best_of_{wanted['best_of']}"] if wanted["best_of"] else []
    steps.append(f"evaluation/{start}")
    steps += [f"evaluation/{start}_prompted"] if wanted["prompted"] else []
    begun = ["ppo_start"] if ppo and recipe["ppo_start"] == wanted["baseline"] != start else []
    return [*steps, *(f"evaluation/{name}" for name in [*sft, *begun, *ppo]), "evaluation/judgements"]


def read_steps(folder: Path, recipe: Mapping[str, Any]) -> list[Step]:
    """Every planned step, then whatever else was run in the folder."""
    planned = planned_steps(recipe)
    found = {str(path.parent.relative_to(folder)) for path in folder.rglob("manifest.json")}
    busy = at_work(folder)
    return [read_step(folder, name, recipe, busy) for name in [*planned, *sorted(found - set(planned))]]


def read_step(folder: Path, name: str, recipe: Mapping[str, Any], busy: bool) -> Step:
    """One step; `busy` says that somebody is at work in the run's folder."""
    own = folder / name
    if not (own / "manifest.json").exists():
        return Step(name, "not begun")
    if (own / "done.json").exists():
        done = read_json(own / "done.json")
        return Step(name, "done", done["seconds"], headline(own, done["results"]), done["counts"])
    if busy:
        told = read_json(own / "progress.json") if (own / "progress.json").exists() else None
        return Step(name, "running", result="" if told is None else f"{told['step']} of {told['total']}")
    if recipe["labelers"]["judge"] == "people" and name.endswith(("demonstrations", "rankings")):
        return Step(name, "waiting", result=judged_so_far(folder / "store.db", name, recipe["labelers"]))
    if name.endswith("/prompts") or (recipe["labelers"]["judge"] == "people" and name.endswith("judgements")):
        return Step(name, "waiting")
    return Step(name, "stopped")


def judged_so_far(place: Path, name: str, labelers: Mapping[str, Any]) -> str:
    """How many of the wanted judgements people have made for the step: "412 of 500 rankings"."""
    from heedful.store.database import connect
    from heedful.store.progress import Work, progress, ranking_work

    works = [Work("demonstration", pool="sft")]
    if name.endswith("rankings"):
        round = int(name.split("/")[0].removeprefix("round-"))
        works = ranking_work(round, labelers["train"], labelers["heldout"], labelers["overlap"])
    store = connect(place)
    try:
        return ", ".join(str(progress(store, work)) for work in works)
    finally:
        store.close()


def headline(folder: Path, results: Mapping[str, Any]) -> str:
    """The one result a person looks for first, by the step's stage."""
    stage = read_json(folder / "manifest.json")["stage"]
    if stage == "data":
        return "prompts: " + ", ".join(f"{pool} {size}" for pool, size in results.items())
    if stage == "pretrain":
        return f"held-out loss {number(results['valid_loss'])}"
    if stage == "sft":
        losses, epoch = results["valid_loss"], results["lowest_loss_epoch"]
        return f"held-out loss {number(losses[epoch - 1])}, lowest after epoch {epoch} of {len(losses)}"
    if stage == "sample":
        return f"{results['num_responses']} responses to {results['num_prompts']} prompts"
    if stage == "reward_model":
        return f"validation accuracy {number(results['valid_accuracy'])}"
    if stage == "choose":
        epochs = results["scores"]
        if folder.name == "choose_epoch":
            return f"epoch {results['best_policy'] + 1} of {len(epochs)}, by score"
        return f"prefix {results['best_prefix'] + 1} of {len(epochs[0])}, by score"
    if stage == "ppo":
        last = read_jsonl(folder / "metrics.jsonl")[-1]
        return f"score {number(last['score'])}, KL {number(last['kl_k1'])}"
    if stage == "measure":
        keys = {"score": "score", "kl": "KL", "distinct_2": "distinct-2"}
        return ", ".join(f"{word} {number(results[key])}" for key, word in keys.items() if results[key] is not None)
    words = {key.removeprefix("num_"): value for key, value in results.items() if key.startswith("num_")}
    return ", ".join(f"{value} {word}" for word, value in words.items())


def at_work(folder: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with (folder / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def read_json(path: Path) -> Any:
    """Raises InputError where the file is broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(
            f"{path} is broken; copy it back from a backup, or remove {path.parent} and run again"
        ) from None
