"""What a sweep's finished runs came to over their seeds: over_seeds.json and .csv, a row for each number of each table.

Intervals are over seeds, so they speak of another seed; one seed alone keeps its own, which speaks of other prompts.
What has bounds keeps to them.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from heedful.evaluate.statistics import Estimate
from heedful.pipeline.figure_rows import LIKERT, RATE, Bounds, across
from heedful.run import write_atomic

Json = dict[str, Any]

COLUMNS = ("table", "name", "measure", "mean", "low", "high", "num_seeds", "seeds", "reason")
OF_POLICIES: dict[str, Bounds] = {"gold": None, "likert": LIKERT, "score": None, "kl": None, "length": None}
OF_POLICIES |= {"distinct_2": RATE, "lm_loss": None, "sampled_per_answer": None}


class Number(NamedTuple):
    """One run's number, its place in the tables, and what bounds it."""

    place: tuple[str, str, str]  # table, name, measure
    estimate: Estimate
    bounds: Bounds


class Finished(NamedTuple):
    """A run of the sweep: its settings without the seed, the seed, its results.json."""

    settings: Mapping[str, Any]
    seed: int
    results: Json


def write_over_seeds(runs: Sequence[Finished], folder: Path) -> None:
    """Write both files into the sweep's folder."""
    found = over_seeds(runs)
    write_atomic(folder / "over_seeds.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    out = io.StringIO()
    settings = list(dict.fromkeys(key for group in found["groups"] for key in group["settings"]))
    table = csv.writer(out, lineterminator="\n")
    table.writerow([*settings, *COLUMNS])
    for group in found["groups"]:
        for row in group["rows"]:
            values = [row[key] if key != "seeds" else json.dumps(row[key]) for key in COLUMNS]
            table.writerow([*(group["settings"].get(key) for key in settings), *values])
    write_atomic(folder / "over_seeds.csv", out.getvalue())


def over_seeds(runs: Sequence[Finished]) -> Json:
    """{groups: [{settings, seeds, seconds, commits, recipe, baseline, start, rows}]}, a group for each but the seed."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    return {
        "groups": [
            {
                "settings": dict(group[0].settings),
                "seeds": [run.seed for run in group],
                "seconds": [run.results["seconds"]["total"] for run in group],
                "commits": sorted({str(run.results["commit"]) for run in group}),
                "recipe": group[0].results["recipe"],
                "baseline": group[0].results["baseline"],
                "start": (group[0].results["alignment_tax"] or {}).get("start"),
                "rows": rows([run.results for run in group]),
            }
            for group in groups.values()
        ]
    }


def rows(results: Sequence[Json]) -> list[Json]:
    """Every number that all tables have, in the order of the first run's."""
    by_place: dict[tuple[str, str, str], list[Number]] = {}
    for found in results:
        for number in numbers(found):
            by_place.setdefault(number.place, []).append(number)
    made = []
    for (table, name, measure), own in by_place.items():
        known = [number.estimate for number in own if number.estimate.mean is not None]
        over, missing = across(known, own[0].bounds), len(results) - len(known)
        reason = f"{missing} of {len(results)} seeds have no value" if missing else over.reason
        row = {"table": table, "name": name, "measure": measure, "mean": over.mean, "low": over.low, "high": over.high}
        made.append(row | {"num_seeds": len(known), "seeds": [one.mean for one in known], "reason": reason})
    return made


def numbers(results: Json) -> Iterator[Number]:
    for name, found in results["policies"].items():
        yield Number(("policies", name, "win_rate"), estimate(found["win_rate"]), RATE)
        for measure, bounds in OF_POLICIES.items():
            yield Number(("policies", name, measure), alone(found.get(measure)), bounds)
        for flag, share in found["metadata_interval"].items():
            yield Number(("policies", name, flag), estimate(share), RATE)
    for row in results["preference"]["length_controlled"]:
        yield Number(("policies", row["policy"], "win_rate_at_equal_length"), estimate(row), RATE)
    for name, others in results["pairwise"].items():
        for other, found in others.items():
            yield Number(("pairwise", name, other), estimate(found), RATE)
    for row in results.get("reward_models") or []:
        yield Number(("reward_models", row["reward_model"], f"accuracy_{row['labelers']}"), estimate(row), RATE)
        if row["labelers"] == "heldout":
            error = alone(row["calibration_error"])
            yield Number(("reward_models", row["reward_model"], "calibration_error"), error, RATE)
    for row in results.get("ai_labelers") or []:
        yield Number(("ai_labelers", row["labeler"], row["figure"]), estimate(row), RATE)
    for row in results.get("principles_followed") or []:
        place = ("principles_followed", f"{row['model']}/{row['principle']}", row["figure"])
        yield Number(place, estimate(row), RATE)
    for row in results.get("principles_kept") or []:
        bounds = RATE if row["figure"] == "boasts" else None
        yield Number(("principles_kept", row["policy"], row["figure"]), estimate(row), bounds)
    yield from over_start(results)
    for name, cost in (results.get("optimised") or {}).items():
        steps = re.compile(rf"round-\d+/{re.escape(name)}")
        seconds = sum(spent for step, spent in results["seconds"].items() if steps.fullmatch(step))
        yield Number(("optimised", name, "seconds"), alone(seconds), None)
        for measure in ("episodes", "sampled_tokens"):
            yield Number(("optimised", name, measure), alone(cost[measure]), None)
    yield from of_lab(results["lab"]) if results.get("lab") else ()


def over_start(results: Json) -> Iterator[Number]:
    """What was made of the policy that is optimised, beside it: by training, or by choosing the best of n.

    Exact utility gained, win rate over it, and √KL from it, √nats; of the best of n the bound's.
    """
    tax, policies = results.get("alignment_tax"), results["policies"]
    if tax is None:
        return
    chosen = [name for name, found in policies.items() if found.get("kl_bound") is not None]
    for name in [*chosen, *tax["policies"]]:
        own, begun = policies[name], policies[tax["start"]]
        known = own["gold"] is not None and begun["gold"] is not None
        yield Number(("over_start", name, "gold"), alone(own["gold"] - begun["gold"] if known else None), None)
        yield Number(("over_start", name, "win_rate"), estimate(results["pairwise"][name][tax["start"]]), RATE)
        kl = own["kl"] if name not in chosen else own["kl_bound"]
        root = None if kl is None else max(kl, 0.0) ** 0.5
        yield Number(("over_start", name, "sqrt_kl"), alone(root), None)


def of_lab(lab: Json) -> Iterator[Number]:
    """The over-optimisation lab's laws and peaks."""
    for row in lab["laws"]:
        for key in ("alpha", "beta", "observed_kl", "observed_gold", "predicted_kl", "off"):
            yield Number(("lab", row["proxy"], f"{row['form']}_{key}"), alone(row[key]), None)
    for row in lab["comparisons"]:
        yield Number(("lab", row["proxy"], f"{row['form']}_gold_off_law"), alone(row["gold"]), None)
        if "iterated" in row:
            yield Number(("lab", row["proxy"], f"{row['form']}_gold_off_iterated_law"), alone(row["iterated"]), None)


def estimate(found: Json) -> Estimate:
    """A mean with its interval as results.json holds them."""
    return Estimate(found["mean"], None, found["low"], found["high"], 0, 0, found.get("reason", ""))


def alone(value: float | None) -> Estimate:
    """A number without an interval of its own."""
    return Estimate(value, None, None, None, 0, 0, "" if value is None else "one seed gives this no interval")
