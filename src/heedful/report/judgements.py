"""The reward model against labelers, and labelers against each other."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median, quantiles
from typing import NamedTuple

from markupsafe import Markup

from heedful.ranks import untied_pairs
from heedful.report.charts import ACCENT, MUTED, Bar, Dot, Series, histogram, interval_chart, line_chart
from heedful.report.evaluation import Panel
from heedful.report.folder import RunFolder, pointer
from heedful.report.numbers import Show, plain
from heedful.snapshot import Snapshot
from heedful.types import Ranking

GROUPS = {"train": "training labelers", "heldout": "held-out labelers"}
# InstructGPT: agreement from section 3.4, reward model accuracy from section 4.1; ± as printed there.
PAPER_AGREEMENT = {"train": (0.726, 0.015), "heldout": (0.773, 0.013)}
PAPER_ACCURACY = {"train_labelers": (0.724, 0.004), "heldout_labelers": (0.696, 0.009)}


class LabelerRow(NamedTuple):
    """What one group of labelers did."""

    group: str
    labelers: int
    kinds: str
    rankings: int
    comparisons: int
    ties: float | None  # share of comparisons
    seconds: float | None  # median per ranking


def agreement_chart(run: RunFolder, show: Show) -> Markup:
    """Agreement by group ± one standard error, the paper's beside it."""
    dots = []
    for group, name in GROUPS.items():
        found = run.at(pointer("agreement", group)) or {}
        mean, stderr = found.get("mean"), found.get("stderr")
        low, high = (mean - stderr, mean + stderr) if mean is not None and stderr is not None else (None, None)
        text = show(pointer("agreement", group, "mean"), 1, percent=True, tag="tspan")
        dots.append(Dot(name.removesuffix(" labelers"), mean, low, high, ACCENT, text))
        dots.append(paper_dot(*PAPER_AGREEMENT[group]))
    return interval_chart(dots, "Labeler agreement", 0.5, 1, unit=100)


def accuracy_chart(run: RunFolder, show: Show) -> Markup | None:
    """Accuracy on held-out comparisons by labeler group with intervals; None without a reward model."""
    accuracy = run.at("/reward_model/accuracy")
    if not accuracy:
        return None
    dots = []
    for group, found in accuracy.items():
        text = show(pointer("reward_model", "accuracy", group, "mean"), 1, percent=True, tag="tspan")
        label = {"train_labelers": "training", "heldout_labelers": "held-out"}.get(group, group.replace("_", " "))
        dots.append(Dot(label, found.get("mean"), found.get("low"), found.get("high"), ACCENT, text))
        if group in PAPER_ACCURACY:
            dots.append(paper_dot(*PAPER_ACCURACY[group]))
    return interval_chart(dots, "Reward model accuracy", 0.4, 1, rule=0.5, unit=100)


def paper_dot(mean: float, error: float) -> Dot:
    return Dot("paper", mean, mean - error, mean + error, MUTED, f"{100 * mean:.1f} %")


def calibration_chart(run: RunFolder) -> Markup | None:
    """Predicted against observed agreement; None where results.json holds no bins."""
    bins = run.at("/reward_model/calibration")
    if not bins:
        return None
    observed = Series("observed", [b["predicted"] for b in bins], [b["observed"] for b in bins], ACCENT, "both")
    exact = Series("perfect", [0.5, 1], [0.5, 1], MUTED, "dashed")
    low = min(0.5, *(b["observed"] for b in bins))
    title = "Calibration"
    return line_chart([exact, observed], title, "predicted probability", x_range=(0.5, 1), y_range=(low, 1))


def rankings_of(run: RunFolder) -> Snapshot | None:
    """Every ranking the last reward model could learn from or was tested on."""
    place = f"{run.last_round}/rankings/snapshot"
    return run.snapshot(place) if run.has(place) else None


def margins(run: RunFolder, snapshot: Snapshot) -> list[float]:
    """score(chosen) − score(rejected) of every untied comparison of held-out prompts whose responses were scored.

    As in results.json these are test prompts; validation prompts where no test prompt was ranked, as in people's runs.
    """
    score = {row["response_id"]: row["score"] for row in run.rows(f"{run.last_round}/scores/samples.jsonl")}
    found = []
    for _, _, ranking in snapshot.rankings_of("test") or snapshot.rankings_of("valid"):
        ids = ranking.responses
        pairs = [(ids[i], ids[j]) for i, j in untied_pairs(ranking.rank)]
        found += [score[a] - score[b] for a, b in pairs if a in score and b in score]
    return found


def margin_chart(values: Sequence[float]) -> Markup | None:
    """A histogram of margins in 24 bins around 0; what lies beyond the 1st and 99th percentile is in the outer bars."""
    if len(values) < 2:
        return None
    edge = sorted(abs(v) for v in values)[int(0.99 * (len(values) - 1))] or 1.0
    width = edge / 12
    counts = [0] * 24
    for value in values:
        counts[min(max(int((value + edge) / width), 0), 23)] += 1
    bars = [
        Bar(i * width - edge, (i + 1) * width - edge, n, ACCENT if i >= 12 else MUTED) for i, n in enumerate(counts)
    ]
    return histogram(bars, "Margins of held-out comparisons", "score(chosen) − score(rejected)", rules=[0])


def labeler_table(snapshot: Snapshot) -> list[LabelerRow]:
    """Counts, ties and time by group."""
    labelers = snapshot.labeler_by_id()
    rows = []
    for group, name in GROUPS.items():
        rankings = [r for r in snapshot.rankings if labelers[r.labeler].group == group]
        who = {r.labeler for r in rankings}
        pairs = sum(len(r.rank) * (len(r.rank) - 1) // 2 for r in rankings)
        untied = sum(len(untied_pairs(r.rank)) for r in rankings)
        seconds = [r.seconds for r in rankings if r.seconds is not None]
        kinds = ", ".join(sorted({labelers[id].kind for id in who}))
        share, time = (1 - untied / pairs if pairs else None), (median(seconds) if seconds else None)
        rows.append(LabelerRow(name, len(who), kinds, len(rankings), pairs, share, time))
    return rows


def seconds_chart(rankings: Sequence[Ranking]) -> Markup | None:
    """Median seconds per ranking with quartiles, by number of responses; None where nobody was timed."""
    by_k: dict[int, list[float]] = defaultdict(list)
    for ranking in rankings:
        if ranking.seconds is not None:
            by_k[len(ranking.rank)].append(ranking.seconds)
    dots = []
    for k, seconds in sorted(by_k.items()):
        low, middle, high = quantiles(seconds, n=4) if len(seconds) > 1 else (None, seconds[0], None)
        dots.append(Dot(f"K = {k}", middle, low, high, ACCENT, f"{middle:.0f} s"))
    highest = max((dot.high or dot.mean or 0 for dot in dots), default=0)
    return interval_chart(dots, "Seconds per ranking", 0, highest * 1.05 or 1) if dots else None


def position_chart(rankings: Sequence[Ranking]) -> tuple[Markup, int] | None:
    """Share of untied comparisons won by where a response stood on the form, and how many comparisons there were."""
    won: dict[int, int] = defaultdict(int)
    seen: dict[int, int] = defaultdict(int)
    for ranking in rankings:
        if not ranking.order:
            continue
        place = {id: n for n, id in enumerate(ranking.order, start=1)}
        for i, j in untied_pairs(ranking.rank):
            chosen, rejected = place[ranking.responses[i]], place[ranking.responses[j]]
            won[chosen] += 1
            seen[chosen] += 1
            seen[rejected] += 1
    if not seen:
        return None
    places = sorted(seen)
    series = Series("won", places, [won[p] / seen[p] for p in places], ACCENT, "both")
    names = [(p, str(p)) for p in places]
    share = [0.4, 0.6, *series.y]  # nothing but a habit worth a look fills the height
    y_range = min(share), max(share)
    chart = line_chart(
        [series], "Share of comparisons won", "position on the form", rules=[0.5], y_range=y_range, x_names=names
    )
    return chart, sum(seen.values()) // 2


def judgement_panels(run: RunFolder, snapshot: Snapshot, show: Show) -> list[Panel]:
    """Labelers: agreement, time, position."""
    text = "Share of comparisons on which two labelers of a group prefer the same response, ± one standard error."
    panels = [Panel("Agreement", agreement_chart(run, show), text)]
    if chart := seconds_chart(snapshot.rankings):
        text = "Median seconds a ranking took, with quartiles, by the number of responses K."
        panels.append(Panel("Time", chart, text))
    if position := position_chart(snapshot.rankings):
        number = plain(position[1])
        text = f"How often a response won by its place on the form, {number} untied comparisons; no habit is 0.5."
        panels.append(Panel("Position", position[0], text))
    return panels
