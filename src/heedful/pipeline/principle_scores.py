"""Pairs of responses scored by written principles (SALMON, arXiv 2310.05910): the part that asks a language model.

    items/         a snapshot: prompts, responses, the principles as they were worded
    scores.jsonl   a `principles.PrincipleScore` for each pair and principle
    done.json      what they look like by principle, and how many there are none of, by reason

Pairs are all those of the sets that `heedful judge label` would judge. `pipeline.principle_labels` makes labels of the
scores, as often as wished; nothing is asked again for that.

Command: heedful judge principles PLACE --dir DIR --labeler MODEL
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, NamedTuple

from pydantic import Field

from heedful.config import Config, InputError
from heedful.feedback.ai.labeler import AILabeler, Ask
from heedful.feedback.ai.ledger import Estimate, Prices
from heedful.feedback.ai.local import Estimate as LocalEstimate
from heedful.feedback.ai.local import LocalAsk
from heedful.feedback.ai.server import ServedModel
from heedful.feedback.principles.aggregate import variances
from heedful.feedback.principles.book import read_principles
from heedful.feedback.principles.collect import Pair, pairs_of, questions, read_form, score_pairs
from heedful.pipeline.ai_labels import Choice, items_of, to_judge
from heedful.pipeline.ai_served import money
from heedful.principles import PrincipleScore
from heedful.run import Run, write_atomic
from heedful.snapshot import Snapshot, read_records, read_snapshot, write_snapshot
from heedful.store.database import Store
from heedful.store.export import export_snapshot
from heedful.types import Labeler

SCORES = "scores.jsonl"
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


class Job(NamedTuple):
    """Who scores what, and where it is written."""

    labeler: AILabeler
    snapshot: Snapshot
    run: Run

    @property
    def pairs(self) -> list[Pair]:
        """Those of the snapshot that can be compared."""
        return [pair for pair in pairs_of(items_of(self.snapshot)) if not self.why_not(pair)]

    def why_not(self, pair: Pair) -> str:
        texts = [response.text for response in (pair.first, pair.second)]
        if texts[0] == texts[1]:
            return "equal"
        return "short" if min(map(len, texts)) < self.run.manifest["config"]["min_characters"] else ""

    @property
    def left_out(self) -> Counter[str]:
        """Pairs that are not asked about, by reason."""
        reasons = Counter(self.why_not(pair) for pair in pairs_of(items_of(self.snapshot)))
        return Counter({reason: number for reason, number in reasons.items() if reason})

    @property
    def served(self) -> ServedModel | None:
        """Who answers, where that is a server."""
        return self.labeler.ask if isinstance(self.labeler.ask, ServedModel) else None


def scorer_name(config: ScoreConfig, model: str) -> str:
    """What the labeler is called: its model and template."""
    place = Path(model.rstrip("/"))
    return config.name or f"{place.parent.name if place.name == 'model' else place.name} {Path(config.template).name}"


def open_job(config: ScoreConfig, choice: Choice, who: tuple[str, Ask], parent: str, store: Store, folder: Path) -> Job:
    """Begin the folder, or go on with it: then the pairs are those that it began with.

    `who` is the labeler's name and who answers, `parent` what identifies the model.

    Raises:
        InputError: nothing to score, principles or a template that will not do, a server that gives no probabilities,
            or a folder begun with other settings.
    """
    name, asked = who
    template = read_form(config.template)
    principles = read_principles(config.principles, template.language)
    if isinstance(asked, ServedModel) and asked.able.way in ("forced", "votes"):
        raise InputError(
            f"{asked.caller.address} gives no log-probabilities, of which scores by principles are differences; "
            "choose a server that does, or a model of your own"
        )
    if not (folder / "items").exists():
        pools = None if choice.pool is None else [choice.pool]
        rounds = None if choice.round is None else [choice.round]
        found = to_judge(
            export_snapshot(store, pools=pools, rounds=rounds, purpose=None, heldout="include"), choice, name
        )
        write_snapshot(folder / "items", replace(found, principles=principles))
    snapshot = read_snapshot(folder / "items")
    identity = {"labeler": name, **config.model_dump(), "template": template.model_dump(mode="json")}
    if snapshot.principles != principles:
        raise InputError(f"{folder} was begun with other texts of {config.principles}; use another --dir for these")
    run = Run.open(
        folder, "judge_principles", identity | choice._asdict(), choice.seed, {"model": parent, "items": snapshot.hash}
    )
    return Job(AILabeler(asked, template, Labeler(id=name, kind="ai")), snapshot, run)


def score_items(job: Job) -> Json:
    """Score what is not scored yet, write scores.jsonl and the figures; returns what done.json holds of it."""
    if not job.run.done:
        lines, unscored = _scored(job)
        write_atomic(job.run.folder / SCORES, "".join(line + "\n" for line in lines))
        for reason, number in (*unscored.items(), *job.left_out.items(), *job.snapshot.dropped.items()):
            job.run.count(reason, number)
        told = {"labeler": job.labeler.labeler.id, "num_pairs": len(job.pairs), "num_scores": len(lines)}
        told |= {"how": job.served.told} if job.served else {}
        job.run.finish(**told, asked=dict(+job.labeler.counts), principles=figures(read_scores(job.run.folder)))
    return job.run.results


def _scored(job: Job) -> tuple[list[str], Counter[str]]:
    """All scores as lines, and how many there are none of, by reason; goes on where it was stopped."""
    done, kept = job.run.restore()
    lines: list[str] = kept.get("scores", [])
    unscored = Counter(kept.get("unscored", {}))
    job.labeler.counts.update(kept.get("asked", {}))
    pairs, chunk = job.pairs, SERVED_CHUNK if job.served else CHUNK
    steps = -(-len(pairs) // chunk)
    for step in job.run.track(range(done, steps), steps, f"{job.labeler.labeler.id} scores"):
        found = score_pairs(job.labeler, job.snapshot.principles, pairs[step * chunk : (step + 1) * chunk])
        if job.served:
            job.served.check()
        lines += [score.model_dump_json() for score in found.scores]
        unscored += found.unscored
        job.run.save_if_due(step + 1, scores=lines, unscored=dict(unscored), asked=dict(job.labeler.counts))
    return lines, unscored


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


def cost(job: Job, prices: Prices | None = None) -> str:
    """What scoring will take, in one line; equal questions are seen as one where their pairs stand near each other."""
    labels, pairs, principles = job.labeler.template.labels, job.pairs, job.snapshot.principles
    number, here, there = 0, LocalEstimate(0, 0), Estimate(0, 0, 0.0, 0)
    for start in range(0, len(pairs), CHUNK):  # all questions at once would hold every pair's text 22 times
        some = pairs[start : start + CHUNK]
        every = (text for pair in some for both in questions(job.labeler.template, principles, pair) for text in both)
        texts = list(dict.fromkeys(every))
        number += len(texts)
        if job.served:
            there = there.plus(job.served.estimate_choose(texts, labels))
        else:
            assert isinstance(job.labeler.ask, LocalAsk)
            found = job.labeler.ask.estimate(texts, labels)
            here = LocalEstimate(here.tokens + found.tokens, here.too_long + found.too_long)
    said = f"{len(pairs):,} pairs by {len(principles)} principles, {number:,} questions"
    if job.served:
        said += f": {there.calls:,} calls, about {there.prompt_tokens:,.0f} tokens read"
        said += f", {money(prices, there.prompt_tokens, there.new_tokens)}" if prices else ""
        return said + (f"; {there.kept:,} more were answered before" if there.kept else "")
    said += f", {here.tokens:,} tokens if each were read whole"
    return said + (f"; {here.too_long:,} questions exceed the model's context" if here.too_long else "")
