"""results.json: what a finished run showed, from its folders alone; what cannot be computed is null with a reason.

The folder tables/ beside it holds the tables of preference, classic tasks and the qualitative suite, each as JSON and
as CSV.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heedful.evaluate.best_of_n import best_of_n, chance, choices
from heedful.evaluate.judges import by_score
from heedful.evaluate.preference import Judged, mean_mark, tables
from heedful.evaluate.reward_model import (
    Bin,
    accuracy,
    accuracy_by_group,
    accuracy_by_length,
    accuracy_by_margin,
    calibration,
    comparisons,
    cross_validation,
    scorer_comparisons,
)
from heedful.evaluate.statistics import Estimate, clustered_proportion
from heedful.evaluate.tables import write_tables
from heedful.evaluate.tax import alignment_tax
from heedful.evaluate.win_rate import WinRate, compare_scores, win_rate
from heedful.pipeline.ai_results import ai_labelers, followed, of_people, reward_models
from heedful.pipeline.clock import seconds_worked
from heedful.pipeline.costs import costs
from heedful.pipeline.lab_laws import read_lab
from heedful.pipeline.policy_principles import principles_kept
from heedful.pipeline.recipe import Recipe
from heedful.run import read_done, read_jsonl, write_atomic
from heedful.snapshot import Snapshot, read_snapshot
from heedful.store.agreement import agreement_by_group
from heedful.types import Labeler, Ranking, Rating

Json = dict[str, Any]

RESAMPLES = 500  # of prompts, behind the intervals of Bradley-Terry and length control
SCORER = Labeler(id="scorer", group="heldout", kind="metric")

WHY_NULL = {
    "likert": "nobody rated these responses",
    "gold": "no exact rater knows these prompts",
    "score": "there is no reward model",
    "kl": "behind a prefix, or as the best of several, a response is no sample of the policy alone",
    "lm_loss": "there is no held-out pretraining text",
    "calibration_error": "no comparison on a held-out prompt was scored",
    "demonstration_score_mean": "there are no demonstrations to centre the scores on",
    "cross_validation": "reward_model_folds is 0: none was asked for",
    "alignment_tax": "there is no PPO policy",
    "reward_models": "there are no further_reward_models",
    "ai_labelers": "no AI labeler ranked",
    "principles_followed": "the recipe has no principles block",
    "lab": "the recipe has no lab block",
    "principles_kept": "no reward is under principles, or nobody knows the prompts' truth",
    "optimised": "no policy is optimised",
    "classic": "evaluate.classic is 0: none was asked for",
    "qualitative": "evaluate.qualitative is 0: none was asked for",
}


def write_results(recipe: Recipe, folder: Path) -> Json:
    """Gather the results and write them into the run's folder."""
    results = gather(recipe, folder)
    suites = {name: results[name] for name in ("classic", "qualitative") if results[name] is not None}
    write_tables(folder / "tables", results["preference"] | suites)
    write_atomic(folder / "results.json", json.dumps(results, indent=2) + "\n")
    return results


def gather(recipe: Recipe, folder: Path) -> Json:
    last = folder / f"round-{recipe.rounds}"
    judged = folder / "evaluation" / "judgements"
    judgements = read_snapshot(judged / "snapshot")
    given: dict[str, dict[str, str]] = defaultdict(dict)
    gold: dict[str, dict[str, float]] = defaultdict(dict)
    for row in read_jsonl(judged / "samples.jsonl"):
        given[row["policy"]][row["prompt_id"]] = row["response_id"]
        if row["gold"] is not None:
            gold[row["policy"]][row["prompt_id"]] = row["gold"]
    baseline = recipe.evaluate.baseline
    decided = by_scorer(judgements, given, gold) if recipe.labelers.judge == "sentiment" else judgements
    preference = Judged.of(decided, given, baseline)
    headline = preference.rankings_of(preference.headline)
    rated = [rating for rating in judgements.ratings if preference.group[rating.labeler] == preference.headline]

    def wins(name: str, other: str) -> WinRate:
        if recipe.labelers.judge == "sentiment":  # the scorer itself decides
            return compare_scores(gold[name], gold[other])
        return win_rate(headline, given, name, other)

    policies = {}
    for name in given:
        against = wins(name, baseline)
        if name == baseline:  # ½ by definition: there is nothing to be unsure of
            against = against._replace(estimate=against.estimate._replace(stderr=0.0, low=0.5, high=0.5))
        policies[name] = policy(folder / "evaluation" / name, against, rated, given[name], gold[name])
    ranked = of_people(read_snapshot(last / "rankings" / "snapshot"))
    found = {
        "seed": recipe.seed,
        "recipe": recipe.name,
        "commit": json.loads((judged / "manifest.json").read_text(encoding="utf-8"))["environment"]["commit"],
        "seconds": stage_seconds(folder) | {"total": seconds_worked(folder / "clock")},
        "baseline": baseline,
        "agreement": agreement(last),
        "reward_model": reward_model(last),
        "reward_models": reward_models(last, ranked, heldout_rankings(ranked)),
        "ai_labelers": ai_labelers(last),
        "principles_followed": followed(last),
        "lab": read_lab(folder / "lab"),
        "principles_kept": principles_kept(recipe, folder, list(given)),
        "optimised": costs(recipe, folder),
        "policies": policies,
        "pairwise": {
            name: {other: interval(wins(name, other).estimate) for other in given if other != name} for name in given
        },
        "preference": tables(preference, two_way=True, num_resamples=RESAMPLES),
        "alignment_tax": tax(recipe, policies),
        "classic": suite(folder / "classic", list(given), ("task", "shots")),
        "qualitative": suite(folder / "qualitative", list(given), ("kind", "measure")),
    }
    return with_reasons(found)


def by_scorer(
    judgements: Snapshot, given: Mapping[str, Mapping[str, str]], gold: Mapping[str, Mapping[str, float]]
) -> Snapshot:
    """The judgements as a scorer makes them: each prompt's responses ranked by their exact scores."""
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for name, found in gold.items():
        for prompt_id, score in found.items():
            scores[prompt_id][given[name][prompt_id]] = score
    rankings = [
        Ranking(
            id=f"{SCORER.id}/{prompt_id}",
            prompt_id=prompt_id,
            labeler=SCORER.id,
            responses=tuple(found),
            rank=by_score(found.values()).rank or (),
            purpose="evaluation",
        )
        for prompt_id, found in scores.items()
        if len(found) > 1
    ]
    return replace(judgements, rankings=tuple(rankings), labelers=(*judgements.labelers, SCORER))


def tax(recipe: Recipe, policies: Mapping[str, Json]) -> Json | None:
    if not recipe.optimised():
        return None
    loss = {name: found["lm_loss"] for name, found in policies.items()}
    return alignment_tax(recipe.start_row(), loss, list(recipe.optimised()), recipe.plain_of())


def stage_seconds(folder: Path) -> dict[str, float]:
    """Working seconds of every finished step, by its place in the folder."""
    found = {}
    for path in sorted(folder.rglob("done.json")):
        found[str(path.parent.relative_to(folder))] = read_done(path.parent)["seconds"]
    return found


def suite(place: Path, policies: Sequence[str], names: tuple[str, str]) -> list[Json] | None:
    """What a suite found of every policy, a row for each number, in the policies' order; None where it never ran."""
    done = {name: place / name for name in policies if (place / name / "done.json").exists()}
    rows = [
        {"policy": policy, names[0]: outer, names[1]: inner} | found
        for policy, step in done.items()
        for outer, parts in read_done(step)["results"].items()
        for inner, found in parts.items()
    ]
    return rows or None


def agreement(round_folder: Path) -> Json:
    """Inter-labeler agreement by group, on prompts judged by two; AI labelers' rankings do not count."""
    snapshot = of_people(read_snapshot(round_folder / "rankings" / "snapshot"))
    found = agreement_by_group(snapshot.rankings, snapshot.labelers)
    return {group: _agreement(found.get(group)) for group in ("train", "heldout")}


def _agreement(found: Any) -> Json:
    if found is None or found.mean is None:
        return {"mean": None, "stderr": None, "reason": "no item was judged by two labelers of this group"}
    counts = {"num_comparisons": found.num_comparisons, "num_prompts": found.num_prompts}
    return {"mean": found.mean, "stderr": found.stderr} | counts


def reward_model(round_folder: Path) -> Json:
    """Accuracy on comparisons of held-out users' prompts, by labeler group; calibration; where the scale stands.

    They are of test prompts; of validation prompts where the ranked pool has no test prompts, as with people's, which
    are all kept for the final evaluation.
    """
    snapshot = of_people(read_snapshot(round_folder / "rankings" / "snapshot"))
    score = scores(round_folder / "scores")
    asked = heldout_rankings(snapshot)
    items = comparisons(asked, score, {response.id: len(response.text) for response in snapshot.responses})
    by_group = accuracy_by_group(items, snapshot.labeler_by_id())
    known = [r for r in read_jsonl(round_folder / "rankings" / "samples.jsonl") if r["utility"] is not None]
    utility = {row["response_id"]: row["utility"] for row in known}
    exact = scorer_comparisons(utility, {row["response_id"]: row["prompt_id"] for row in known}, score)
    bins, error = calibration(items)
    chosen, without = choices(asked, score)
    done = round_folder / "reward_model" / "done.json"
    trained = read_done(done.parent)["results"] if done.exists() else {}
    found = {
        "accuracy": {
            "train_labelers": interval(by_group["train"], "no training labeler's comparison was scored"),
            "heldout_labelers": interval(by_group["heldout"], "no held-out labeler's comparison was scored"),
            "scorer": interval(accuracy(exact)),
        },
        "num_comparisons": len(items),
        "calibration_error": error if items else None,
        "calibration": [bin._asdict() for bin in bins],
        "by_margin": binned(accuracy_by_margin(items)),
        "by_length": binned(accuracy_by_length(items)),
        "best_of_n": interval(best_of_n(chosen), "no held-out ranking was scored")
        | {"chance": chance(chosen), "num_rankings": len(chosen), "unscored": without},
        "demonstration_score_mean": trained.get("demonstration_score_mean"),
        "cross_validation": cross_validated(round_folder / "folds", asked),
    }
    return with_reasons(found)


def binned(bins: Sequence[Bin]) -> list[Json]:
    """Each bin's accuracy between its ends."""
    return [{"from": bin.low, "to": bin.high, "num": bin.accuracy.num} | interval(bin.accuracy) for bin in bins]


def heldout_rankings(snapshot: Snapshot) -> list[Ranking]:
    split = {prompt.id: prompt.split for prompt in snapshot.prompts}
    by_split = {name: [r for r in snapshot.rankings if split[r.prompt_id] == name] for name in ("test", "valid")}
    return by_split["test"] or by_split["valid"]


def scores(folder: Path) -> dict[str, float]:
    """A scoring step's scores by response id; none where there was no such step."""
    return {row["response_id"]: row["score"] for row in read_jsonl(folder / "samples.jsonl")}


def cross_validated(folder: Path, rankings: list[Ranking]) -> Json | None:
    """Accuracy on groups of labelers that a reward model learned from, and on the group it did not; None: not asked."""
    if not (folder / "done.json").exists():
        return None
    dealt = read_done(folder)["results"]["folds"]
    fold_of = {labeler: fold for fold, labelers in enumerate(dealt) for labeler in labelers}
    by_fold = [scores(folder / f"scores-{n}") for n in range(1, len(dealt) + 1)]
    found = cross_validation(rankings, fold_of, by_fold)
    return {
        "within_group": interval(found.within_group),
        "out_of_group": interval(found.out_of_group),
        "difference": interval(found.difference),
        "num_comparisons": found.out_of_group.num,
        "folds": [
            {"labelers": labelers, "accuracy": interval(estimate), "num_comparisons": estimate.num}
            for labelers, estimate in zip(dealt, found.by_fold, strict=True)
        ],
    }


def policy(
    folder: Path, wins: WinRate, rated: Sequence[Rating], given: Mapping[str, str], gold: Mapping[str, float]
) -> Json:
    """What was measured of a policy in its folder, and judged of its responses; given, gold: by prompt id."""
    measured = read_done(folder)["results"]
    ratings = [r for r in rated if given.get(r.prompt_id) == r.response_id]
    flags = {flag: [r for r in ratings if flag in r.flags] for flag in sorted({f for r in ratings for f in r.flags})}
    found = {
        "win_rate": win_rate_json(wins),
        "likert": mean_or_null([float(r.overall) for r in ratings]),
        "gold": mean_or_null(list(gold.values())),
        **measured,
        "likert_interval": interval(mean_mark(ratings)),
        "metadata": {flag: mean_or_null([float(r.flags[flag]) for r in marked]) for flag, marked in flags.items()},
        "metadata_interval": {
            flag: interval(clustered_proportion([r.flags[flag] for r in marked], prompts_of(marked)))
            | {"num_ratings": len(marked)}
            for flag, marked in flags.items()
        },
    }
    return with_reasons(found)


def with_reasons(found: Json) -> Json:
    """Beside values that are null, `reason` says why, by their names."""
    reason = {key: why for key, why in WHY_NULL.items() if key in found and found[key] is None}
    return found | ({"reason": reason} if reason else {})


def prompts_of(ratings: list[Rating]) -> list[str]:
    return [rating.prompt_id for rating in ratings]


def win_rate_json(wins: WinRate) -> Json:
    counts = {"wins": wins.wins, "ties": wins.ties, "losses": wins.losses}
    return interval(wins.estimate) | {"num_prompts": wins.estimate.num_clusters} | counts


def interval(estimate: Estimate, none: str = "there is nothing to estimate from") -> Json:
    """Mean and 95 % interval; null with a reason where there were too few clusters, `none` where there was no value."""
    found: Json = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
    if estimate.mean is None or estimate.low is None:
        found["reason"] = "fewer than two prompts to estimate from" if estimate.num else none
    return found


def mean_or_null(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
