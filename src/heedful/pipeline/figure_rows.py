"""The numbers of InstructGPT's figures, a row each: by figure, measure, size, policy, prompts, labelers, coefficient.

With several seeds a row's interval is over the seeds' values, so that it speaks of another seed; with one it is that
seed's own, clustered by prompt, and speaks of other prompts alone. What has bounds (rates, marks) keeps to them. Where
there is no value or no interval, `reason` says why.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from heedful.evaluate.statistics import Estimate, clustered_mean, clustered_proportion, paired_difference
from heedful.evaluate.win_rate import win_rate
from heedful.pipeline.results import WHY_NULL
from heedful.types import Prompt, Ranking, Rating
from heedful.world import sent_to

Json = dict[str, Any]
PolicyOf = tuple[str, str]  # size, policy

COLUMNS = (
    "figure", "measure", "size", "policy", "prompts", "labelers", "coefficient", "mean", "low", "high", "num",
    "num_clusters", "ties", "unscored", "reason", "seeds",
)  # fmt: skip
FIGURE_4 = ("fails_instruction", "satisfies_constraint", "hallucination", "inappropriate_assistant")
SHOTS = ("zero_shot", "few_shot")
RATE, LIKERT = (0.0, 1.0), (1.0, 7.0)  # what values lie within
Bounds = tuple[float, float] | None
COEFFICIENTS = {"33": ("ptx_coef", "ppo_ptx"), "34": ("kl_coef", "ppo")}  # the key swept, and the variant it starts at


class Found(NamedTuple):
    """One seed's number, its tied judgements and what was asked but has no value; None where there can be none."""

    estimate: Estimate
    ties: int | None = None
    unscored: int | None = None


class Judged(NamedTuple):
    """One seed's judgements of all sizes' policies; `given`: each policy's response to each prompt, by ids."""

    seed: int
    baseline: PolicyOf
    prompts: Sequence[Prompt]
    rankings: Sequence[Ranking]
    ratings: Sequence[Rating]
    group: Mapping[str, str]  # labeler → group
    given: Mapping[PolicyOf, Mapping[str, str]]


class Measured(NamedTuple):
    """One cell's measurements by policy; `settings` are its PPO variants', `start` is the model PPO begins from."""

    seed: int
    size: str
    start: str
    settings: Mapping[str, Json]
    policies: Mapping[str, Json]
    scores: Mapping[str, Mapping[str, float]]  # the reward model's, by policy and prompt
    classic: Mapping[str, Json]
    qualitative: Mapping[str, Json]


def figure_rows(judged: Sequence[Judged], measured: Sequence[Measured], sizes: Sequence[str]) -> list[Json]:
    """Every number of the figures, over the seeds that stand."""
    if not judged:
        return []
    return [
        *figure_1(judged),
        *figure_3(judged),
        *figure_4(judged),
        *figure_5(judged),
        *table_14(measured, sizes),
        *(row for figure in COEFFICIENTS for row in along(figure, measured, sizes)),
        *qualitative(measured, sizes),
    ]


def over_seeds(found: Sequence[Found], bounds: Bounds = None, **place: Any) -> Json:
    """A row from one number per seed; `bounds` hold its values and its interval."""
    known = [one.estimate for one in found if one.estimate.mean is not None]
    num, clusters = (sum(getattr(one.estimate, key) for one in found) for key in ("num", "num_clusters"))
    uncounted = not num and bool(known)
    over = across(known, bounds)
    return (
        dict.fromkeys(COLUMNS)
        | place
        | {
            "mean": over.mean,
            "low": over.low,
            "high": over.high,
            "num": None if uncounted else num,
            "num_clusters": None if uncounted else clusters,
            "ties": added([one.ties for one in found]),
            "unscored": added([one.unscored for one in found]),
            "reason": "; ".join(filter(None, [lacking([one.estimate for one in found]), over.reason])),
            "seeds": [one.estimate.mean for one in found],
        }
    )


def across(known: Sequence[Estimate], bounds: Bounds) -> Estimate:
    """The mean over seeds that have a value, and its interval.

    Seeds that all gave one value show nothing of how far seeds differ: then no narrower than any seed's own interval.
    """
    means = [estimate.mean for estimate in known if estimate.mean is not None]
    if not means:
        return Estimate(None, None, None, None, 0, 0)
    if len(means) == 1:
        return known[0]
    if max(means) - min(means) > 1e-12:
        return clustered_mean(means, range(len(means))) if bounds is None else inside(bounds, means, range(len(means)))
    lows = [estimate.low for estimate in known if estimate.low is not None]
    highs = [estimate.high for estimate in known if estimate.high is not None]
    if len(lows) < len(means):
        return exact(means[0], "every seed gave the same value, and none has an interval of its own")
    why = "" if min(lows) == max(highs) else "every seed gave the same value: the interval is the widest of one seed's"
    return Estimate(means[0], None, min(lows), max(highs), 0, 0, why or known[0].reason)


def inside(bounds: tuple[float, float], values: Sequence[float], cluster: Iterable[Any]) -> Estimate:
    """Mean of values between two bounds, its interval between them too: as a share of the way from one to the other."""
    low, size = bounds[0], bounds[1] - bounds[0]
    found = clustered_proportion([(value - low) / size for value in values], list(cluster))
    mean, least, most = (None if v is None else low + size * v for v in (found.mean, found.low, found.high))
    return found._replace(mean=mean, low=least, high=most, stderr=None)


def lacking(found: Sequence[Estimate]) -> str:
    """Which seeds have no value, and why."""
    without = [estimate for estimate in found if estimate.mean is None]
    if not without:
        return ""
    why = "; ".join(dict.fromkeys(estimate.reason for estimate in without if estimate.reason)) or "no values"
    if len(found) == 1:
        return why
    return f"{len(without)} of {len(found)} seeds have no value: {why}"


def added(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def exact(value: float | None, reason: str, num: int = 0) -> Estimate:
    """A number that a run gives without an interval of its own; the reason says why, or why there is no number."""
    return Estimate(value, None, None, None, num, num, reason)


def read(found: Json) -> Found:
    """A number as a step's done.json holds it."""
    names = ("mean", "low", "high", "num", "num_clusters", "reason")
    mean, low, high, num, num_clusters, reason = (found[name] for name in names)
    return Found(Estimate(mean, None, low, high, num, num_clusters, reason), None, found["unscored"])


def policies_of(judged: Sequence[Judged]) -> list[PolicyOf]:
    """Those that every seed has."""
    return [policy for policy in judged[0].given if all(policy in one.given for one in judged)]


def wins(one: Judged, policy: PolicyOf, prompts: str, labelers: str) -> Found:
    """Against the baseline, on prompts sent to the one kind of model, by one group of labelers."""
    if policy == one.baseline:
        return Found(Estimate(0.5, 0.0, 0.5, 0.5, 0, 0, "the baseline itself, one half by definition"))
    asked = {prompt.id for prompt in one.prompts if sent_to(prompt) == prompts}
    rankings = [r for r in one.rankings if r.prompt_id in asked and one.group[r.labeler] == labelers]
    names = {"policy": policy, "baseline": one.baseline}
    given = {name: {p: id for p, id in one.given[who].items() if p in asked} for name, who in names.items()}
    found = win_rate(rankings, given, "policy", "baseline")
    return Found(found.estimate, found.ties, len(asked) - found.estimate.num_clusters)


def figure_1(judged: Sequence[Judged]) -> Iterable[Json]:
    """Win rate against the largest SFT policy by size: prompts sent to instruct models, held-out labelers."""
    for size, policy in policies_of(judged):
        found = [wins(one, (size, policy), "instruct", "heldout") for one in judged]
        place = {"figure": "1", "measure": "win_rate", "size": size, "policy": policy}
        yield over_seeds(found, RATE, **place, prompts="instruct", labelers="heldout")


def figure_3(judged: Sequence[Judged]) -> Iterable[Json]:
    """The same in four cells: prompts sent to base and to instruct models, training and held-out labelers."""
    kinds = sorted({sent_to(prompt) for prompt in judged[0].prompts})
    for prompts in kinds:
        for labelers in ("heldout", "train"):
            for size, policy in policies_of(judged):
                found = [wins(one, (size, policy), prompts, labelers) for one in judged]
                place = {"figure": "3", "measure": "win_rate", "size": size, "policy": policy}
                yield over_seeds(found, RATE, **place, prompts=prompts, labelers=labelers)


def figure_4(judged: Sequence[Judged]) -> Iterable[Json]:
    """Rates of boxes, over all sizes, on prompts sent to instruct models; hallucination where a text was given."""
    for policy in dict.fromkeys(policy for _, policy in policies_of(judged)):
        for flag in FIGURE_4:
            found = [flag_rate(one, policy, flag) for one in judged]
            place = {"figure": "4", "measure": flag, "policy": policy}
            yield over_seeds(found, RATE, **place, prompts="instruct", labelers="heldout")


def flag_rate(one: Judged, policy: str, flag: str) -> Found:
    asked = {
        prompt.id
        for prompt in one.prompts
        if sent_to(prompt) == "instruct" and (flag != "hallucination" or "context" in prompt.task)
    }
    values, prompts, unanswered = ticked(one, policy, flag, asked)
    return Found(clustered_proportion(values, prompts), None, unanswered)


def ticked(one: Judged, policy: str, flag: str, asked: set[str]) -> tuple[list[bool], list[str], int]:
    """The box of every size's response to the prompts, with the prompt; how many leave it open."""
    by_response = {rating.response_id: rating for rating in one.ratings}
    values, prompts, unanswered = [], [], 0
    for (_, name), given in one.given.items():
        for prompt, response in given.items() if name == policy else ():
            if prompt not in asked:
                continue
            rating = by_response.get(response)
            if rating is None or flag not in rating.flags:
                unanswered += 1
                continue
            values.append(rating.flags[flag])
            prompts.append(prompt)
    return values, prompts, unanswered


def figure_5(judged: Sequence[Judged]) -> Iterable[Json]:
    """Mean Likert mark of each size's policies on prompts sent to instruct models."""
    for size, policy in policies_of(judged):
        found = [marks(one, (size, policy)) for one in judged]
        place = {"figure": "5", "measure": "likert", "size": size, "policy": policy}
        yield over_seeds(found, LIKERT, **place, prompts="instruct", labelers="heldout")


def marks(one: Judged, policy: PolicyOf) -> Found:
    asked = {prompt.id for prompt in one.prompts if sent_to(prompt) == "instruct"}
    overall = {rating.response_id: rating.overall for rating in one.ratings}
    given = [(response, prompt) for prompt, response in one.given[policy].items() if prompt in asked]
    pairs = [(overall[response], prompt) for response, prompt in given if response in overall]
    estimate = inside(LIKERT, [mark for mark, _ in pairs], [prompt for _, prompt in pairs])
    return Found(estimate, None, len(given) - len(pairs))


def table_14(measured: Sequence[Measured], sizes: Sequence[str]) -> Iterable[Json]:
    """Classic tasks, zero- and few-shot, and held-out language loss, by policy and size."""
    for size in sizes:
        cells = [cell for cell in measured if cell.size == size]
        for policy in common(cell.policies for cell in cells):
            loss = [language_loss(cell, policy) for cell in cells]
            yield over_seeds(loss, figure="14", measure="lm_loss", size=size, policy=policy)
        for policy in common(cell.classic for cell in cells):
            for task in cells[0].classic[policy]:
                for shots in SHOTS:
                    found = [read(cell.classic[policy][task][shots]) for cell in cells]
                    yield over_seeds(found, RATE, figure="14", measure=f"{task} {shots}", size=size, policy=policy)


def language_loss(cell: Measured, policy: str) -> Found:
    loss = cell.policies[policy]["lm_loss"]
    why = WHY_NULL["lm_loss"] if loss is None else "a run keeps its loss over all held-out text, and no part's"
    return Found(exact(loss, why))


def along(figure: str, measured: Sequence[Measured], sizes: Sequence[str]) -> Iterable[Json]:
    """Score, KL, language loss and classic tasks of the PPO variants that differ from one in a coefficient alone.

    Of the size that tries most coefficients, the first of those: where one size alone sweeps, the others have the
    sweep's ends at most, and lines of several sizes are no line.
    """
    key, base = COEFFICIENTS[figure]
    by_size = {size: [cell for cell in measured if cell.size == size and base in cell.settings] for size in sizes}
    lines = {size: on_the_line(cells[0].settings, key, base) for size, cells in by_size.items() if cells}
    most = max(map(len, lines.values()), default=0)
    for size in [size for size, names in lines.items() if len(names) == most > 1][:1]:
        cells = by_size[size]
        for name in lines[size]:
            place = {"figure": figure, "size": size, "policy": name, "coefficient": cells[0].settings[name][key]}
            kept = [cell for cell in cells if name in cell.policies]
            yield over_seeds([gain(cell, name) for cell in kept], measure="score", **place)
            yield over_seeds([distance(cell, name) for cell in kept], measure="kl", **place)
            yield over_seeds([language_loss(cell, name) for cell in kept], measure="lm_loss", **place)
            yield over_seeds([classic_mean(cell, name) for cell in kept], RATE, measure="classic", **place)


def gain(cell: Measured, name: str) -> Found:
    """The reward model's score over that of PPO's start, prompt by prompt."""
    own, start = cell.scores[name], cell.scores[cell.start]
    if cell.policies[name]["score"] is None:
        return Found(exact(None, WHY_NULL["score"]))
    prompts = sorted(own.keys() & start.keys())
    estimate = paired_difference([own[p] for p in prompts], [start[p] for p in prompts], prompts)
    if estimate.low is not None and estimate.low == estimate.high:
        estimate = estimate._replace(low=None, high=None, reason="the gain is the same on every prompt")
    return Found(estimate, None, len(own) - len(prompts))


def distance(cell: Measured, name: str) -> Found:
    value, num = cell.policies[name]["kl"], len(cell.scores[name])
    why = WHY_NULL["kl"] if value is None else "a run keeps its mean KL, and no response's"
    return Found(exact(value, why, 0 if value is None else num))


def classic_mean(cell: Measured, name: str) -> Found:
    """The mean of all classic scores, zero- and few-shot; none where one of them is missing."""
    found = [read(task[shots]) for task in cell.classic.get(name, {}).values() for shots in SHOTS]
    means = [one.estimate.mean for one in found if one.estimate.mean is not None]
    if not found:
        return Found(exact(None, WHY_NULL["classic"]))
    unscored = added([one.unscored for one in found])
    if len(means) < len(found):
        return Found(
            exact(None, f"{len(found) - len(means)} of {len(found)} classic scores are missing"), None, unscored
        )
    why = "a mean over tasks and shots has no interval within one seed"
    return Found(exact(sum(means) / len(means), why, sum(one.estimate.num for one in found)), None, unscored)


def on_the_line(settings: Mapping[str, Json], key: str, base: str) -> list[str]:
    """The variants equal to `base` but for the key, by its value."""
    same = {name for name, own in settings.items() if own | {key: None} == settings[base] | {key: None}}
    return sorted(same, key=lambda name: settings[name][key])


def qualitative(measured: Sequence[Measured], sizes: Sequence[str]) -> Iterable[Json]:
    """The gold rater's marks and the share of plain mistakes, by kind of prompt, policy and size."""
    for size in sizes:
        cells = [cell for cell in measured if cell.size == size]
        for policy in common(cell.qualitative for cell in cells):
            for kind, found in cells[0].qualitative[policy].items():
                for measure in found:
                    values = [read(cell.qualitative[policy][kind][measure]) for cell in cells]
                    place = {"figure": "qualitative", "measure": f"{kind} {measure}", "size": size, "policy": policy}
                    yield over_seeds(values, RATE, **place)


def common(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names that all hold, in the first one's order."""
    maps = list(found)
    return [name for name in maps[0] if all(name in other for other in maps)] if maps else []
