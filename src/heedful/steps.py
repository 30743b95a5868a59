"""Where each step of a run stands, from its files and its store: what `heedful status` prints and the web app shows.

A run may be at work while it is read: every file is whole or absent, but for logs, which `tail` reads.
"""

import fcntl
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from heedful.config import InputError

if TYPE_CHECKING:  # the store takes a while to load, and every command knows of this file
    from heedful.store.database import Store
    from heedful.store.progress import Work

State = Literal["done", "running", "waiting", "stopped", "not begun"]
# Stages that make a policy better by what is preferred, as recipes name them.
OPTIMISERS = ("ppo", "nlpo", "reinforce", "rloo", "grpo", "best_of_n", "dpo")
DEEPEST = 4  # folders between a run's own and a step's, counted with the step's
MOST_ENTRIES = 50_000  # files and folders that are looked at in search of steps
MOST_BYTES = 2**22  # of a log that are read, from its end
END_BYTES = 2**15  # where its newest rows are enough


@dataclass(frozen=True)
class Step:
    """One step of a run. `counts` is what it dropped, cut or skipped: reason → number."""

    name: str
    state: State
    seconds: float | None = None
    result: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)


def existing_run(folder: Path) -> dict[str, Any]:
    """The resolved recipe of the run in the folder, as plain values.

    Raises:
        InputError: there is no run, or its recipe.json is broken.
    """
    path = folder / "recipe.json"
    if (folder / "sweep.json").exists():
        cells = folder / "cells"
        raise InputError("%(folder)s holds a sweep; name one of the runs in %(cells)s", folder=folder, cells=cells)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            "%(folder)s holds no run: there is no recipe.json; name the --dir of a heedful run", folder=folder
        ) from None
    except (ValueError, OSError):
        raise InputError(
            "%(path)s cannot be read; copy it back from a backup, or run into a new folder", path=path
        ) from None
    if not isinstance(found, dict):
        raise InputError("%(path)s is not a recipe; copy it back from a backup, or run into a new folder", path=path)
    return found


def optimised_in(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The policies that a recipe optimises: each one's name and settings, in the order of `OPTIMISERS`."""
    return {name: config for stage in OPTIMISERS for name, config in recipe.get(stage, {}).items()}


def best_rows(best_of: int | Sequence[int] | None) -> dict[str, int]:
    """What `evaluate.best_of` asks for: the rows' names, each with its n.

    >>> best_rows([4, 16])
    {'best_of_4': 4, 'best_of_16': 16}
    """
    numbers = [best_of] if isinstance(best_of, int) else best_of or []
    return {f"best_of_{n}": n for n in numbers}


def planned_steps(recipe: Mapping[str, Any]) -> list[str]:
    """The folders of a recipe's steps, in the order in which they are begun."""
    sft, multitask, optimised = list(recipe["sft"]), list(recipe.get("multitask", {})), list(optimised_in(recipe))
    start, wanted, distilled = recipe["start_name"], recipe["evaluate"], list(recipe.get("distil", {}))
    taught = recipe.get("judges", {})  # runs begun before there were any lack it
    further = recipe.get("further_reward_models", {})
    ranking = [name for name, labeler in recipe.get("ai_labelers", {}).items() if labeler["rankings"]]
    steps = ["data"]
    steps += ["pretrain"] if recipe["pretrain"] else []
    steps += [f"judges/{name}/pretrain" for name, judge in taught.items() if judge["pretrain"] is not None]
    steps += ["demonstrations", *sft] if sft else []
    steps += distilled
    steps += [*(f"examples/{name}" for name in multitask), *multitask]
    steps += [*(f"judges/{name}/pages" for name in taught), *(f"judges/{name}/taught" for name in taught)]
    principles = recipe.get("principles") or {}
    steps += ["principles/pages", "principles/taught"] if principles.get("judge") else []
    if before := principles.get("preference"):
        steps += [] if before.get("comparisons") else ["principles/comparisons"]
        steps.append("principles/preference")
    for n in range(1, recipe["rounds"] + 1):
        names, last = [*(["prompts"] if n > 1 else []), "responses"], n == recipe["rounds"]
        names += [*(f"labels/{name}" for name in ranking), "rankings"]
        if recipe["reward_model"]:
            names += ["principles/scores", "principles/labels"] if principles else []
            names += ["reward_model", *(f"further/{name}" for name in further)]
            names += ["principles/pairs", "principles/decoded"] if principles.get("decoded") else []
            names += ["../evaluation/choose_prefix"] if wanted["prompted"] and last else []
            names += ["choose_epoch"] if recipe["rankings"]["policy"] in sft else []
            names += ["scores", *(f"scores-{name}" for name in further if not further[name].get("guideline"))]
            names += ["principles/measured"] if principles else []
            names += [f"choose_{name}" for name in multitask] if last else []
            folds = range(1, 1 + recipe["reward_model_folds"] * last)
            names += ["folds"] if folds else []
            names += [*(f"folds/model-{fold}" for fold in folds), *(f"folds/scores-{fold}" for fold in folds)]
        steps += [f"round-{n}/{name}" if name[0] != "." else name[3:] for name in [*names, *optimised]]
    steps += lab_steps(recipe["lab"]) if recipe.get("lab") else []
    steps += [f"evaluation/{name}" for name in best_rows(wanted["best_of"])]
    steps.append(f"evaluation/{start}")
    steps += [f"evaluation/{start}_prompted"] if wanted["prompted"] else []
    begun = ["ppo_start"] if optimised and recipe["ppo_start"] == wanted["baseline"] in sft else []
    tuned = [*sft, *distilled, *multitask, *begun, *optimised]
    steps += [f"evaluation/{name}" for name in tuned]
    for name in [start, *tuned]:
        steps += [f"{suite}/{name}" for suite in ("classic", "qualitative") if wanted.get(suite)]
    return [*steps, "evaluation/judgements"]


def lab_steps(lab: Mapping[str, Any]) -> list[str]:
    """The over-optimisation lab's."""
    proxies = [f"{size}-{number}" for size in lab["sizes"] for number in lab["rankings"]]
    penalised = [f"{proxies[-1]}-kl-{coef:g}" for coef in lab["kl_coefs"]]
    names = ["gold", *(f"{size}/pretrain" for size, laid_over in lab["sizes"].items() if laid_over)]
    policies, rounds = lab.get("policies", {}), lab.get("rounds", 1)  # runs begun before there were any lack them
    names += [f"policies/{name}/pretrain" for name in policies]
    names += [*(f"proxies/{proxy}" for proxy in proxies), *(f"policies/{name}/sft" for name in policies), "samples"]
    names += [f"ppo/{policy}" for policy in (*proxies, *penalised)]
    names += [f"policies/{name}/{step}" for name in policies for step in ("samples", "ppo")]
    names += ["rounds/1/ppo"] if rounds > 1 else []
    names += [f"rounds/{n}/{s}" for n in range(2, rounds + 1) for s in ("responses", "gold", "proxy", "ppo")]
    return [f"lab/{name}" for name in names]


def read_steps(folder: Path, recipe: Mapping[str, Any], store: "Store | None" = None) -> list[Step]:
    """Every planned step, then whatever else was run in the folder. `store` is the run's, where it is open already."""
    names, busy = step_names(folder, recipe), at_work(folder)
    return [read_step(folder, name, recipe, busy, store) for name in names]


def step_names(folder: Path, recipe: Mapping[str, Any]) -> list[str]:
    planned = planned_steps(recipe)
    return [*planned, *sorted(set(begun_steps(folder)) - set(planned))]


def begun_steps(folder: Path) -> list[str]:
    """The places in the folder that hold a step's manifest; links are not followed.

    Raises:
        InputError: there are too many files to look through.
    """
    found, left = [], MOST_ENTRIES
    open_folders = [(folder, 0)]
    while open_folders:
        place, depth = open_folders.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    told = {"folder": folder, "most": f"{MOST_ENTRIES:,}"}
                    raise InputError(
                        "%(folder)s holds more than %(most)s files; it is no run's folder any more", **told
                    )
                if entry.name == "manifest.json" and depth:
                    found.append(str(place.relative_to(folder)))
                elif depth < DEEPEST and entry.is_dir(follow_symlinks=False):
                    open_folders.append((place / entry.name, depth + 1))
    return found


def read_step(folder: Path, name: str, recipe: Mapping[str, Any], busy: bool, store: "Store | None" = None) -> Step:
    """One step; `busy` says that somebody is at work in the run's folder."""
    own = folder / name
    if not (own / "manifest.json").exists():
        return Step(name, "not begun")
    if (own / "done.json").exists():
        done = read_json(own / "done.json")
        return Step(name, "done", done["seconds"], headline(own, done["results"]), done["counts"])
    judged = ""
    if works := people_work(name, recipe):
        judged, missing = judged_so_far(store or folder / "store.db", works)
        if missing or not busy:
            return Step(name, "waiting", result=judged)
    if busy:
        told = read_json(own / "progress.json") if (own / "progress.json").exists() else None
        return Step(name, "running", result=judged if told is None else f"{told['step']} of {told['total']}")
    return Step(name, "waiting" if name.endswith("/prompts") else "stopped")


def people_work(name: str, recipe: Mapping[str, Any]) -> "list[Work]":
    """What people do for the step, where people are the recipe's labelers."""
    from heedful.store.progress import Work, evaluation_work, marking_work, ranking_work

    asked, wanted = recipe["labelers"], recipe["evaluate"]
    if asked["judge"] != "people":
        return []
    if name == "demonstrations":
        return [Work("demonstration", pool="sft")]
    if name == "evaluation/judgements":
        both = wanted.get("training_labelers", False)  # runs begun before there was the setting lack it
        return evaluation_work(asked["train"], asked["heldout"], wanted["labelers_per_prompt"], both)
    if name.startswith("round-") and name.endswith("/rankings"):
        round = int(name.split("/")[0].removeprefix("round-"))
        works = ranking_work(round, asked["train"], asked["heldout"], asked["overlap"])
        return [*works, *marking_work(round, asked["ratings"], asked["references"])]
    return []


def judged_so_far(store: "Store | Path", works: "Sequence[Work]") -> tuple[str, bool]:
    """How many of the wanted judgements people have made ("412 of 500 rankings"), and whether some are missing."""
    from heedful.store.database import open_store
    from heedful.store.progress import progress

    if isinstance(store, Path) and not store.exists():
        raise InputError("%(path)s is gone; put it back (heedful store restore brings a backup)", path=store)
    opened = open_store(store) if isinstance(store, Path) else store
    try:
        states = [progress(opened, work) for work in works]
    finally:
        if opened is not store:
            opened.close()
    return ", ".join(map(str, states)), any(state.done < state.total for state in states)


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
    if stage == "distil":
        return f"KL from the prompted model {number(results['valid_kl'])}"
    if stage == "sample":
        return f"{results['num_responses']} responses to {results['num_prompts']} prompts"
    if stage == "reward_model":
        return f"validation accuracy {number(results['valid_accuracy'])}"
    if stage == "choose":
        epochs = results["scores"]
        if folder.name != "choose_prefix":
            return f"epoch {results['best_policy'] + 1} of {len(epochs)}, by score"
        return f"prefix {results['best_prefix'] + 1} of {len(epochs[0])}, by score"
    if stage in OPTIMISERS:
        rows, _ = tail(folder / "metrics.jsonl", END_BYTES)
        words = {"score": "score", "kl_k1": "KL", "accuracy": "accuracy"}
        return ", ".join(f"{word} {number(rows[-1][key])}" for key, word in words.items() if rows and key in rows[-1])
    if stage == "measure":
        keys = {"score": "score", "kl": "KL", "distinct_2": "distinct-2"}
        return ", ".join(f"{word} {number(results[key])}" for key, word in keys.items() if results[key] is not None)
    words = {key.removeprefix("num_"): value for key, value in results.items() if key.startswith("num_")}
    return ", ".join(f"{value} {word}" for word, value in words.items())


def tail(path: Path, most: int = MOST_BYTES) -> tuple[list[dict[str, Any]], bool]:
    """The last rows of a log that may be growing, and whether they are all of it.

    At most `most` bytes are read. What stands behind the last line's end is being written and left for the next time;
    a line that is no row (a crash tore it, or reading began amid it) is passed over.
    """
    try:
        with path.open("rb") as file:
            begin = max(0, file.seek(0, os.SEEK_END) - most)
            file.seek(begin)
            lines = file.read(most).split(b"\n")
    except FileNotFoundError:
        return [], True
    rows = []
    for line in lines[:-1]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows, not begin


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
            "%(path)s is broken; copy it back from a backup, or remove %(folder)s and run again",
            path=path,
            folder=path.parent,
        ) from None


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash for one that cannot be computed."""
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no minus before a zero
