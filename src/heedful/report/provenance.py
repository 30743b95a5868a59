"""Everything dropped and why, where the time went, the configuration, and what was made from what."""

from typing import Any, NamedTuple

from heedful.report.folder import RunFolder
from heedful.report.numbers import plain
from heedful.steps import optimised_in


class Count(NamedTuple):
    place: str
    reason: str
    number: int


class Parent(NamedTuple):
    role: str
    hash: str
    name: str  # what in this run has that hash, or ""


class Step(NamedTuple):
    place: str
    stage: str
    seed: int
    commit: str
    finished: bool
    parents: list[Parent]


def counts(run: RunFolder) -> tuple[list[Count], list[str]]:
    """Every count of a step's done.json and of a snapshot's `dropped`, and the places where nothing was dropped."""
    found: list[Count] = []
    clean: list[str] = []
    for path in sorted([*run.path.rglob("done.json"), *run.path.rglob("snapshot.json")]):
        file = str(path.relative_to(run.path))
        place = str(path.parent.relative_to(run.path))
        content = run.json(file) or {}
        if path.name == "done.json":
            own = content.get("counts") or {}
        else:
            # A step that writes a snapshot may hand its own counts on to it; they are shown once.
            parent = path.parent.parent / "done.json"
            counted = (run.json(str(parent.relative_to(run.path))) or {}).get("counts", {}) if parent.exists() else {}
            own = {reason: n for reason, n in (content.get("dropped") or {}).items() if counted.get(reason) != n}
        here = [Count(place, reason, n) for reason, n in own.items()]
        found += here
        if not here:
            clean.append(place)
    return found, clean


def seconds(run: RunFolder) -> list[tuple[str, float]]:
    """Working seconds by step, as results.json holds them, without the total."""
    return [(place, value) for place, value in run.results.get("seconds", {}).items() if place != "total"]


def known_hashes(run: RunFolder) -> dict[str, str]:
    """What in this folder has which hash: snapshots by their own, models as what evaluation measured them as."""
    names = {}
    for path in sorted(run.path.rglob("snapshot.json")):
        content = run.json(str(path.relative_to(run.path))) or {}
        names[content.get("hash", "")] = str(path.parent.relative_to(run.path))
    for place in run.steps:
        if place.startswith("evaluation/"):
            parents = (run.json(f"{place}/manifest.json") or {}).get("parents", {})
            names.setdefault(parents.get("policy", ""), place.removeprefix("evaluation/"))
            names.setdefault(parents.get("reference", ""), f"PPO's start ({run.recipe.get('ppo_start', 'unknown')})")
            names.setdefault(parents.get("reward_model", ""), f"{run.last_round}/reward_model")
    names.pop("", None)
    return names


def steps(run: RunFolder) -> list[Step]:
    """Every step with the hashes of what it read; settings among the parents are part of the configuration."""
    names = known_hashes(run)
    found = []
    for place in run.steps:
        manifest = run.json(f"{place}/manifest.json")
        if manifest is None:
            continue
        hashes = {role: value for role, value in manifest.get("parents", {}).items() if not value.startswith("{")}
        parents = [Parent(role, value, names.get(value, "")) for role, value in hashes.items()]
        commit = manifest.get("environment", {}).get("commit") or "unknown"
        finished = run.has(f"{place}/done.json")
        found.append(Step(place, manifest.get("stage", ""), manifest.get("seed", 0), commit, finished, parents))
    return found


def sizes(run: RunFolder) -> list[str]:
    """What was run, in numbers, from what the steps say of themselves."""
    found = []

    def results(place: str) -> dict[str, Any]:
        return ((run.done(place) or {}).get("results") or {}) if run.has(f"{place}/done.json") else {}

    def add(number: int | None, what: str) -> None:
        if number:
            found.append(f"{plain(number)} {what}")

    add(results("pretrain").get("tokens"), "pretraining tokens")
    add(results("demonstrations").get("num_demonstrations"), "demonstrations")
    add(sum(results(f"round-{round}/responses").get("num_responses", 0) for round in run.rounds), "responses to rank")
    add(results(f"{run.last_round}/rankings").get("num_rankings"), "rankings")
    for name in optimised_in(run.recipe):
        add(sum(results(f"round-{round}/{name}").get("episodes", 0) for round in run.rounds), f"episodes of {name}")
    return found
