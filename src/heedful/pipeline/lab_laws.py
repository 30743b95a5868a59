"""What the lab's runs show: curves of gold against √KL, fitted laws (`evaluate.overoptimization`), where each peaks.

A peak is predicted from the near half of the curve, in √KL, and held against the whole of it: a law that is fitted to
all points would only describe them. Gold is gain over the start policy, in units of the exact utility; KL in nats.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heedful.evaluate.overoptimization import Form, Law, Peak, best_of_n_value, fit, observed_peak
from heedful.evaluate.statistics import Estimate, cluster_bootstrap
from heedful.losses.best_of_n import best_of_n_kl
from heedful.pipeline.lab_settings import SMOOTH
from heedful.run import read_done, read_jsonl

Json = dict[str, Any]
Numbers = NDArray[np.float64]

RESAMPLES = 200  # of prompts or of points, behind the intervals of α and β
NEAR = 0.5  # share of the way, in √KL, that a peak is predicted from


def read_lab(folder: Path) -> Json | None:
    """{proxies, curves, laws, comparisons}: lists of rows; None where the lab has not sampled yet."""
    if not (folder / "samples" / "done.json").exists():
        return None
    curves: dict[tuple[str, Form], list[Json]] = {}
    laws: list[Json] = []
    start: dict[str, float] = {}  # on PPO's prompts, of each policy that one begins from; "": the start policy's
    for own in ["", *sorted(place.parent.parent.name for place in folder.glob("policies/*/samples/done.json"))]:
        place = (folder / "policies" / own if own else folder) / "samples"
        rows = read_jsonl(place / "samples.jsonl")
        gold = np.array([row["gold"] for row in rows])
        start[own] = read_done(place)["results"]["ppo_gold"]
        for proxy in rows[0]["scores"]:
            scores, name = np.array([row["scores"][proxy] for row in rows]), by_policy(proxy, own)
            curves[name, "best_of_n"] = best_of_n_curve(scores, gold)
            laws.append({"proxy": name} | law_row("best_of_n", curves[name, "best_of_n"]) | intervals(scores, gold))
    last = next(proxy for proxy, _ in reversed(curves) if "-by-" not in proxy)
    for name, steps, own in runs(folder, last):
        curves[name, "rl"] = rl_curve(steps, start[own])
        laws.append({"proxy": name} | law_row("rl", curves[name, "rl"]) | rl_intervals(curves[name, "rl"]))
    drawn = [point for row in laws for point in with_law(row, curves[row["proxy"], row["form"]])]
    rounds = len(list(folder.glob("rounds/*/ppo/done.json")))
    told = [learned(folder / "proxies" / name) for name, form in curves if form == "best_of_n" and "-by-" not in name]
    return {"proxies": told, "curves": drawn, "laws": laws, "comparisons": comparisons(last, laws, curves, rounds)}


def learned(place: Path) -> Json:
    """How many comparisons a proxy learned from, and how it judges gold's of validation prompts."""
    told = read_done(place)["results"]
    return {"proxy": place.name} | {key: told[key] for key in ("num_comparisons", "valid_loss", "valid_accuracy")}


def by_policy(proxy: str, name: str) -> str:
    """What a proxy is called that a policy of another size maximises."""
    return f"{proxy}-by-{name}" if name else proxy


def runs(folder: Path, last: str) -> Iterator[tuple[str, list[Path], str]]:
    """Every finished optimisation: its name, its steps in order, and the policy size that it begins from."""
    for done in sorted(folder.glob("ppo/*/done.json")):
        yield done.parent.name, [done.parent], ""
    for done in sorted(folder.glob("policies/*/ppo/done.json")):
        own = done.parent.parent.name
        yield by_policy(last, own), [done.parent], own
    steps = sorted((done.parent for done in folder.glob("rounds/*/ppo/done.json")), key=lambda p: int(p.parent.name))
    if len(steps) > 1:
        yield f"{last}-rounds-{len(steps)}", steps, ""


def comparisons(
    last: str, laws: Sequence[Json], curves: Mapping[tuple[str, Form], Sequence[Json]], rounds: int
) -> list[Json]:
    """How far the curves that maximise the last proxy otherwise lie from its own at the same KL: mean gold and mean of
    the proxy's own score over the points within its reach, above it if above 0.

    The own curve between its points is a straight line in √KL: what was measured, not its law, whose misfit would be
    taken for a difference. Of the iterated one the last round counts, which stands beside the own curve + β√KL ln k
    as well (`iterated`); its `score` is null, as it is another proxy's.
    """
    known = {row["form"]: row for row in laws if row["proxy"] == last and row["alpha"] is not None}
    found = []
    for (name, form), points in curves.items():
        if form not in known or name == last or not name.startswith(f"{last}-"):
            continue
        own, again = sorted(curves[last, form], key=lambda point: point["kl"]), name.startswith(f"{last}-rounds-")
        counted = points[len(points) * (rounds - 1) // rounds :] if again else points
        inside = [point for point in counted if max(0.0, own[0]["kl"]) <= point["kl"] <= own[-1]["kl"]]
        d, along = (np.sqrt(np.maximum([point["kl"] for point in part], 0.0)) for part in (inside, own))
        off = {
            key: np.array([point[key] for point in inside]) - np.interp(d, along, [point[key] for point in own])
            for key in ("gold", "score")
        }
        row: Json = {"proxy": name, "form": form, "beside": last, "points": len(inside)}
        row |= {key: float(values.mean()) if inside else None for key, values in off.items()}
        if again:
            raised = known[form]["beta"] * d * np.log(rounds)
            row |= {"score": None, "iterated": float((off["gold"] - raised).mean()) if inside else None}
        found.append(row)
    return found


def best_of_n_curve(scores: Numbers, gold: Numbers) -> list[Json]:
    """A point for every n from 1 to the number of samples; scores and gold (P, N)."""
    points = []
    for n in range(1, gold.shape[1] + 1):
        proxy, exact = best_of_n_value(scores, scores, n), best_of_n_value(scores, gold, n)
        gain = {"gold": float(exact.mean() - gold.mean()), "score": float(proxy.mean() - scores.mean())}
        points.append({"n": n, "kl": float(best_of_n_kl(n))} | gain)
    return points


def rl_curve(steps: Sequence[Path], start: float) -> list[Json]:
    """Points of a policy while it is optimised: means over `SMOOTH` iterations; `start` is the start policy's gold
    on the same prompts.

    In the second and later steps the KL is from where the first began; the proxy's own score is another's.
    """
    logged = [row for step in steps for row in read_jsonl(step / "metrics.jsonl")]
    kl = [row.get("kl_begun", row["kl_k1"]) for row in logged]
    gold = [row["gold"] - start for row in logged]
    score = [row["score"] - logged[0]["score"] for row in logged]
    points = []
    for begin in range(0, len(kl) - SMOOTH + 1, SMOOTH):
        part = slice(begin, begin + SMOOTH)
        means = {"kl": np.mean(kl[part]), "gold": np.mean(gold[part]), "score": np.mean(score[part])}
        points.append({key: float(value) for key, value in means.items()} | {"iteration": begin + SMOOTH})
    return points


def law_row(form: Form, points: Sequence[Json]) -> Json:
    """α and β of the whole curve, the observed peak, and the one predicted from its near half, in nats and gold."""
    d = np.sqrt(np.maximum([point["kl"] for point in points], 0.0))
    gold = np.array([point["gold"] for point in points])
    seen = observed_peak(d.tolist(), (smoothed(gold) if form == "rl" else gold).tolist())
    law = fit(form, d, gold)
    near = d <= NEAR * d.max()
    predicted = within(fit(form, d[near], gold[near]), float(d.max()))
    return {
        "form": form,
        "alpha": law.alpha if law else None,
        "beta": law.beta if law else None,
        "kl_reached": float(d.max() ** 2),
        "observed_kl": seen.d**2,
        "observed_gold": seen.gold,
        "predicted_kl": predicted.d**2 if predicted else None,
        "predicted_gold": predicted.gold if predicted else None,
        "off": abs(predicted.d**2 - seen.d**2) if predicted else None,
    }


def within(law: Law | None, reached: float) -> Peak | None:
    """Where the law is highest between 0 and `reached`, √nats; None without a law."""
    if law is None:
        return None
    d = np.linspace(0.0, reached, 2001)
    return observed_peak(d.tolist(), law.at(d).tolist())


def smoothed(gold: Numbers) -> Numbers:
    """Each point's mean with its neighbours, of an RL curve whose points are other rollouts each: the highest of noisy
    points would be the luckiest. The ends have one neighbour, so a curve that still rises peaks at its end."""
    return np.array([gold[max(0, i - 1) : i + 2].mean() for i in range(len(gold))])


def intervals(scores: Numbers, gold: Numbers) -> Json:
    """95 % intervals of the best-of-n law's α and β, by resampling prompts."""
    numbers = range(1, gold.shape[1] + 1)
    gains = np.stack([best_of_n_value(scores, gold, n) - gold.mean(1) for n in numbers], 1)  # (P, points)
    d = np.sqrt(best_of_n_kl(np.array(numbers)))
    return over_draws(lambda index: fit("best_of_n", d, gains[index].mean(0)), len(gains))


def rl_intervals(points: Sequence[Json]) -> Json:
    """95 % intervals of the RL law's α and β, by resampling points: they tell of the rollouts, not of another seed."""
    d, gold = (np.array([point[key] for point in points]) for key in ("kl", "gold"))
    d = np.sqrt(np.maximum(d, 0.0))
    return over_draws(lambda index: fit("rl", d[index], gold[index]), len(d))


def over_draws(law: Callable[[NDArray[np.intp]], Law | None], number: int) -> Json:
    """Low and high ends of α and β over laws fitted to drawn prompts, or points."""

    def coefficient(name: str) -> Estimate:
        def of(index: NDArray[np.intp]) -> float:
            found = law(index)
            return float("nan") if found is None else getattr(found, name)

        return cluster_bootstrap(of, list(range(number)), num_resamples=RESAMPLES)

    found = {name: coefficient(name) for name in ("alpha", "beta")}
    return {f"{name}_{end}": getattr(one, end) for name, one in found.items() for end in ("low", "high")}


def with_law(row: Mapping[str, Any], points: Sequence[Json]) -> list[Json]:
    """The curve's rows: each point beside what the fitted law says there."""
    about = {"proxy": row["proxy"], "form": row["form"]}
    if row["alpha"] is None:
        return [about | point | {"law": None} for point in points]
    law = Law(row["form"], row["alpha"], row["beta"])
    return [about | point | {"law": float(law.at(max(point["kl"], 0.0) ** 0.5))} for point in points]
