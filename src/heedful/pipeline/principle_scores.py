"""Pairs of responses scored by written principles (SALMON, arXiv 2310.05910): the part that asks a language model.

    items/         a snapshot: prompts, responses, the principles as they were worded
    scores.jsonl   a `principles.PrincipleScore` for each pair and principle
    unscored.jsonl those that there are none of, each with the reason
    done.json      what they look like by principle, and how many there are none of, by reason

Pairs are all those of the sets that `heedful judge label` would judge. `pipeline.principle_labels` makes labels of the
scores, as often as wished; nothing is asked again for that. Begun again, a folder asks for what is left, and for what
a failing server lost.

Command: heedful judge principles PLACE --dir DIR --labeler MODEL
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from pydantic import Field

from heedful.config import Config, InputError
from heedful.feedback.ai.labeler import AILabeler
from heedful.feedback.ai.ledger import Estimate, Prices
from heedful.feedback.ai.local import Estimate as LocalEstimate
from heedful.feedback.ai.local import LocalAsk
from heedful.feedback.ai.report import failures
from heedful.feedback.ai.server import ServedModel
from heedful.feedback.principles.aggregate import variances
from heedful.feedback.principles.book import read_principles
from heedful.feedback.principles.collect import (
    Pair,
    Scored,
    Unscored,
    pairs_of,
    questions,
    read_form,
    score_pairs,
)
from heedful.pipeline.ai_labels import Choice, Who, chosen, items_of
from heedful.pipeline.ai_served import money
from heedful.principles import Principle, PrincipleScore
from heedful.run import Run, read_done, write_atomic
from heedful.snapshot import Snapshot, read_records, read_snapshot, write_snapshot
from heedful.store.database import Store
from heedful.types import Labeler

SCORES, UNSCORED = "scores.jsonl", "unscored.jsonl"
CHUNK = 32  # pairs scored between two looks at the clock
SERVED_CHUNK = 128  # the same of a server, which runs empty at the end of each
Json = dict[str, Any]


class ScoreConfig(Config):
    """What decides scores, beside the model."""

    principles: str = "preference"
    template: str = "principle.en"
    style: Literal["auto", "plain", "chat"] = "auto"
    min_characters: int = Field(default=0, ge=0)  # of a response, else its pairs are left out; SALMON: 16
    name: str = ""


class Plan(NamedTuple):
    """Who would score what. Nothing is written yet."""

    labeler: AILabeler
    config: ScoreConfig
    choice: Choice
    who: Who
    snapshot: Snapshot

    @property
    def pairs(self) -> list[Pair]:
        """Those of the snapshot that can be compared."""
        return [pair for pair in pairs_of(items_of(self.snapshot)) if not self.why_not(pair)]

    def why_not(self, pair: Pair) -> str:
        texts = [response.text for response in (pair.first, pair.second)]
        if texts[0] == texts[1]:
            return "equal"
        return "short" if min(map(len, texts)) < self.config.min_characters else ""

    @property
    def left_out(self) -> Counter[str]:
        """Pairs that are not asked about, by reason."""
        reasons = Counter(self.why_not(pair) for pair in pairs_of(items_of(self.snapshot)))
        return Counter({reason: number for reason, number in reasons.items() if reason})

    @property
    def served(self) -> ServedModel | None:
        """Who answers, where that is a server."""
        return self.who.ask if isinstance(self.who.ask, ServedModel) else None


class Job(NamedTuple):
    """A plan, and the run that carries it out."""

    plan: Plan
    run: Run


def scorer_name(config: ScoreConfig, model: str) -> str:
    """What the labeler is called: its model and template."""
    place = Path(model.rstrip("/"))
    return config.name or f"{place.parent.name if place.name == 'model' else place.name} {Path(config.template).name}"


def plan_job(config: ScoreConfig, choice: Choice, who: Who, store: Store, folder: Path) -> Plan:
    """What would be scored: in a folder that was begun, what it began with. Nothing is written.

    Raises:
        InputError: nothing to score, principles or a template that will not do, a server that gives no probabilities,
            or a folder begun with other settings.
    """
    name = scorer_name(config, who.model)
    template = read_form(config.template)
    principles = read_principles(config.principles, template.language)
    if isinstance(who.ask, ServedModel) and who.ask.able.way in ("forced", "votes"):
        raise InputError(
            f"{who.ask.caller.address} gives no log-probabilities, of which scores by principles are differences; "
            "choose a server that does, or a model of your own"
        )
    begun = (folder / "manifest.json").exists()
    snapshot = read_snapshot(folder / "items") if begun else chosen(store, choice, name)
    if begun and snapshot.principles != principles:
        raise InputError(f"{folder} was begun with other texts of {config.principles}; use another --dir for these")
    judge = AILabeler(who.ask, template, Labeler(id=name, kind="ai"))
    plan = Plan(judge, config, choice, who, snapshot if begun else replace(snapshot, principles=principles))
    if begun:
        _open_run(plan, folder)
    return plan


def begin_job(plan: Plan, folder: Path) -> Job:
    """Begin the folder, or go on with it.

    Raises:
        InputError: a folder begun with other settings.
    """
    if not (folder / "manifest.json").exists():
        shutil.rmtree(folder / "items", ignore_errors=True)  # of a beginning that was killed
        plan = plan._replace(snapshot=write_snapshot(folder / "items", plan.snapshot))
    return Job(plan, _open_run(plan, folder))


def _open_run(plan: Plan, folder: Path) -> Run:
    identity = {
        "labeler": plan.labeler.labeler.id,
        **plan.config.model_dump(),
        "template": plan.labeler.template.model_dump(mode="json"),
        **plan.choice._asdict(),
        **plan.who.settings,
    }
    parents = {"model": plan.who.known_by, "items": plan.snapshot.hash}
    return Run.open(folder, "judge_principles", identity, plan.choice.seed, parents)


def score_items(job: Job) -> Json:
    """Score what is not scored yet, write scores.jsonl and the figures; returns what done.json holds of it.

    Of a finished folder only what a failing server lost is asked about again.
    """
    if not job.run.done:
        _finish(job, _scored(job))
    elif read_done(job.run.folder)["counts"].get("api"):
        _finish(job, _scored_anew(job))
    return job.run.results


def _scored(job: Job) -> Scored:
    """All scores; goes on where it was stopped, and asks again for what the server lost before that."""
    plan = job.plan
    done, kept = job.run.restore()
    lines: list[str] = kept.get("scores", [])
    lost: list[str] = kept.get("unscored", [])
    plan.labeler.counts.update(kept.get("asked", {}))
    before = [Unscored.model_validate_json(line) for line in lost]
    pairs, chunk = plan.pairs, SERVED_CHUNK if plan.served else CHUNK
    steps = -(-len(pairs) // chunk)
    for step in job.run.track(range(done, steps), steps, f"{plan.labeler.labeler.id} scores"):
        found = _ask(job, plan.snapshot.principles, pairs[step * chunk : (step + 1) * chunk])
        lines += [score.model_dump_json() for score in found.scores]
        lost += [one.model_dump_json() for one in found.lost]
        job.run.save_if_due(step + 1, scores=lines, unscored=lost, asked=dict(plan.labeler.counts))
    scores = [PrincipleScore.model_validate_json(line) for line in lines]
    return _ask_again(job, Scored(scores, [Unscored.model_validate_json(line) for line in lost]), before)


def _scored_anew(job: Job) -> Scored:
    """Of a finished folder, which is unfinished once the server has answered."""
    plan, lost = job.plan, read_records(job.run.folder / UNSCORED, Unscored)
    plan.labeler.counts.update(job.run.results["asked"])
    found = _ask_again(job, Scored(read_scores(job.run.folder), lost), lost)
    steps = -(-len(plan.pairs) // (SERVED_CHUNK if plan.served else CHUNK))
    scores, unscored = ([one.model_dump_json() for one in rows] for rows in found)
    job.run.reopen(steps, scores=scores, unscored=unscored, asked=dict(plan.labeler.counts))
    return found


def _ask_again(job: Job, scored: Scored, lost: Iterable[Unscored]) -> Scored:
    """With those of `lost` asked about again that the server failed on. What it answered of them is in the ledger."""
    again: dict[str, set[tuple[str, ...]]] = defaultdict(set)  # principle → prompt and responses
    for one in lost:
        if one.reason == "api":
            again[one.principle].add((one.prompt_id, *one.responses))
    if not again:
        return scored
    scores = scored.scores
    unscored = [one for one in scored.lost if (one.prompt_id, *one.responses) not in again[one.principle]]
    principles, pairs = job.plan.snapshot.principles, job.plan.pairs
    for principle in principles:
        found = _ask(job, [principle], [pair for pair in pairs if _key(pair) in again[principle.id]])
        scores, unscored = scores + found.scores, unscored + found.lost
    by = {principle.id: n for n, principle in enumerate(principles)}
    place = {_key(pair): n for n, pair in enumerate(pairs)}
    scores.sort(key=lambda score: (place[score.prompt_id, *score.responses], by[score.principle]))
    return Scored(scores, unscored)


def _key(pair: Pair) -> tuple[str, ...]:
    return pair.prompt.id, pair.first.id, pair.second.id


def _ask(job: Job, principles: Sequence[Principle], pairs: Sequence[Pair]) -> Scored:
    """Raises InputError where the server is gone: going on would only count what was not asked."""
    found = score_pairs(job.plan.labeler, principles, pairs)
    if job.plan.served:
        job.plan.served.check()
    return found


def _finish(job: Job, scored: Scored) -> None:
    plan, folder = job.plan, job.run.folder
    for name, rows in ((SCORES, scored.scores), (UNSCORED, scored.lost)):
        write_atomic(folder / name, "".join(one.model_dump_json() + "\n" for one in rows))
    for reason, number in (*scored.unscored.items(), *plan.left_out.items(), *plan.snapshot.dropped.items()):
        job.run.count(reason, number)
    told = {"labeler": plan.labeler.labeler.id, "num_pairs": len(plan.pairs), "num_scores": len(scored.scores)}
    told |= {"how": plan.served.told} if plan.served else {}
    why = failures((one.reason, one.message) for one in scored.lost)
    asked = dict(+plan.labeler.counts)
    job.run.finish(**told, asked=asked, failures=why, principles=figures(scored.scores))


def read_scores(folder: Path) -> list[PrincipleScore]:
    """The scores of a finished folder.

    Raises:
        InputError: it holds none, or a broken line.
    """
    if not (folder / SCORES).exists():
        raise InputError(f"{folder} holds no scores; heedful judge principles makes them, and writes them at its end")
    return read_records(folder / SCORES, PrincipleScore)


def figures(scores: list[PrincipleScore]) -> dict[str, Json]:
    """Of each principle: how many scores, the share of which both orders have one sign, the mean size of the gap and
    the variance of s12 and s21 together, in nats and nats²."""
    variance = variances(scores)
    own = {id: [score for score in scores if score.principle == id] for id in variance}
    return {
        id: {
            "num": len(found),
            "orders_agree": fmean(score.orders[0] * score.orders[1] > 0 for score in found),
            "gap": fmean(abs(score.gap) for score in found),
            "variance": variance[id],
        }
        for id, found in own.items()
    }


def cost(plan: Plan, prices: Prices | None = None) -> str:
    """What scoring will take, in one line; equal questions are seen as one where their pairs stand near each other."""
    labels, pairs, principles = plan.labeler.template.labels, plan.pairs, plan.snapshot.principles
    number, here, there = 0, LocalEstimate(0, 0), Estimate(0, 0, 0.0, 0)
    for start in range(0, len(pairs), CHUNK):  # all questions at once would hold every pair's text 22 times
        some = pairs[start : start + CHUNK]
        every = (text for pair in some for both in questions(plan.labeler.template, principles, pair) for text in both)
        texts = list(dict.fromkeys(every))
        number += len(texts)
        if plan.served:
            there = there.plus(plan.served.estimate_choose(texts, labels))
        else:
            assert isinstance(plan.labeler.ask, LocalAsk)
            found = plan.labeler.ask.estimate(texts, labels)
            here = LocalEstimate(here.tokens + found.tokens, here.too_long + found.too_long)
    said = f"{len(pairs):,} pairs by {len(principles)} principles, {number:,} questions"
    if plan.served:
        said += f": {there.calls:,} calls, about {there.prompt_tokens:,.0f} tokens read"
        said += f", {money(prices, there.prompt_tokens, there.new_tokens)}" if prices else ""
        return said + (f"; {there.kept:,} more were answered before" if there.kept else "")
    said += f", {here.tokens:,} tokens if each were read whole"
    return said + (f"; {here.too_long:,} questions exceed the model's context" if here.too_long else "")
