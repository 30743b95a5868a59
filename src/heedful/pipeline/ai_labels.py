"""An AI labeler at work on a store: sets of responses in, its rankings beside people's out.

    items/        a snapshot: what is to be judged, with what others said of it
    snapshot/     the same with the AI labeler's rankings
    done.json     its figures, and how many sets have no verdict, by reason
    store.db      where the sets came from a file: they and all rankings, to train on

A set is what somebody ranked, or all responses to a prompt that nobody ranked.

Command: heedful judge label PLACE --dir DIR --labeler MODEL --template NAME
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heedful.config import InputError
from heedful.evaluate.judges import ask
from heedful.evaluate.statistics import Estimate, cluster_bootstrap, clustered_mean, clustered_proportion
from heedful.feedback.ai.labeler import AILabeler, Ask
from heedful.feedback.ai.ledger import Prices
from heedful.feedback.ai.local import AS_IT_IS, CHAT, LocalAsk
from heedful.feedback.ai.report import calibration_error, compared, judged_pairs, of_longer, same_position
from heedful.feedback.ai.server import ServedModel
from heedful.feedback.ai.template import marks_of, read_template
from heedful.feedback.verdict import Item
from heedful.models.checkpoint import load_policy, weights_hash
from heedful.pipeline.ai_served import said_before
from heedful.pipeline.ai_settings import AskingConfig
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.store.database import Store
from heedful.store.export import export_snapshot
from heedful.store.labels import add_labeler, add_ranking
from heedful.store.pools import Pool
from heedful.types import Labeler, LabelerGroup, Ranking, Response

CHUNK = 64  # sets judged between two looks at the clock
SERVED_CHUNK = 1024  # the same of a server, which runs empty at the end of each
PEOPLE = ("person", "simulated")  # whose preferences an AI labeler's are held against
Json = dict[str, Any]
Key = tuple[str, frozenset[str]]  # of a set: its prompt and its responses


class LabelConfig(AskingConfig):
    """What decides an AI labeler's verdicts, beside its model; and whose name they bear."""

    purpose: Literal["train", "evaluation"] = "train"
    group: LabelerGroup = "train"
    name: str = ""
    seed: int = 0


class Choice(NamedTuple):
    """Which sets are judged: of this pool and round, at most so many, drawn by the seed."""

    pool: Pool | None = None
    round: int | None = None
    limit: int | None = None
    seed: int = 0


class Job(NamedTuple):
    """Who judges what, and where it is written."""

    labeler: AILabeler
    config: LabelConfig
    snapshot: Snapshot
    run: Run

    @property
    def items(self) -> list[Item]:
        return items_of(self.snapshot)

    @property
    def served(self) -> ServedModel | None:
        """Who answers, where that is a server."""
        return self.labeler.ask if isinstance(self.labeler.ask, ServedModel) else None


def local_ask(model: str, style: Literal["auto", "plain", "chat"] = "auto") -> LocalAsk:
    """The model in the folder or of the hub's name; auto: chat where its tokenizer has a chat template.

    Raises:
        InputError: no such model, or chat asked for without a template.
    """
    policy, tokenizer = load_policy(model)
    if style == "chat" and not tokenizer.chat_template:
        raise InputError(f"{model}: its tokenizer has no chat template; leave --style chat out")
    chat = style == "chat" or (style == "auto" and bool(tokenizer.chat_template))
    return LocalAsk(policy.decoder, tokenizer, CHAT if chat else AS_IT_IS)


def labeler_name(config: LabelConfig, model: str) -> str:
    """What the AI labeler is called in the store: its model and template, and what else its verdicts depend on."""
    place = Path(model.rstrip("/"))
    said = [place.parent.name if place.name == "model" else place.name, Path(config.template).name]
    said += [f"{config.shots}-shot"] if config.shots else []
    said += [f"{config.rationales}×thinking at {config.temperature:g}"] if config.think else []
    said += ["by scores"] if config.by == "scores" else []
    return config.name or " ".join(said)


def open_job(config: LabelConfig, choice: Choice, who: tuple[str, Ask], parent: str, store: Store, folder: Path) -> Job:
    """Begin the folder, or go on with it: then the sets are those that it began with.

    `who` is the labeler's name and who answers, `parent` what identifies the model.

    Raises:
        InputError: nothing to judge, a template that will not do, a labeler who is somebody else in the store, or a
            folder begun with other settings.
    """
    template = read_template(config.template, config.shots, config.think)
    if config.by == "scores" and template.score is None:
        raise InputError(f"{config.template}: no score block; write one, or judge by pairs")
    name, asked = who
    labeler = Labeler(id=name, group=config.group, kind="ai")
    add_labeler(store, labeler)
    if not (folder / "items").exists():
        pools = None if choice.pool is None else [choice.pool]
        rounds = None if choice.round is None else [choice.round]
        found = export_snapshot(store, pools=pools, rounds=rounds, purpose=None, heldout="include")
        write_snapshot(folder / "items", to_judge(found, choice, name))
    snapshot = read_snapshot(folder / "items")
    identity = {
        "labeler": name,
        **config.model_dump(),
        "template": template.model_dump(mode="json"),
        **choice._asdict(),
    }
    run = Run.open(folder, "judge_label", identity, config.seed, {"model": parent, "items": snapshot.hash})
    judge = AILabeler(
        asked,
        template,
        labeler,
        rationales=config.rationales,
        temperature=config.temperature,
        max_tokens=config.rationale_tokens,
        seed=config.seed,
        by=config.by,
    )
    return Job(judge, config, snapshot, run)


def items_of(snapshot: Snapshot) -> list[Item]:
    """The sets: each that somebody ranked, once, and all responses to each prompt that nobody ranked."""
    prompts, responses = snapshot.prompt_by_id(), snapshot.response_by_id()
    sets: dict[str, dict[frozenset[str], tuple[str, ...]]] = defaultdict(dict)
    for ranking in snapshot.rankings:
        sets[ranking.prompt_id].setdefault(frozenset(ranking.responses), ranking.responses)
    whole: dict[str, list[Response]] = defaultdict(list)
    for response in snapshot.responses:
        whole[response.prompt_id].append(response)
    items: list[Item] = []
    for id, prompt in prompts.items():
        items += [(prompt, [responses[one] for one in ids]) for ids in sets[id].values()]
        items += [(prompt, whole[id])] if not sets[id] and len(whole[id]) > 1 else []
    return items


def to_judge(snapshot: Snapshot, choice: Choice, labeler: str) -> Snapshot:
    """The snapshot with the chosen sets alone and what others said of them; what is left out is counted.

    Raises:
        InputError: there is no set to judge.
    """
    before = {key_of(ranking) for ranking in snapshot.rankings if ranking.labeler == labeler}
    others = tuple(ranking for ranking in snapshot.rankings if ranking.labeler != labeler)
    every = items_of(replace(snapshot, rankings=others))
    items = [item for item in every if set_key(item) not in before]
    if not items:
        was = f"of {len(every)} sets of two or more responses it judged {len(before)} before"
        raise InputError(f"{labeler} has nothing to judge: {was}")
    drawn = items if choice.limit is None else random.Random(choice.seed).sample(items, min(choice.limit, len(items)))
    keys = {set_key(item) for item in drawn}
    left_out = Counter({"judged_before": len(every) - len(items), "beyond_limit": len(items) - len(drawn)})
    rankings = tuple(ranking for ranking in others if key_of(ranking) in keys)
    asked, shown = {id for id, _ in keys}, {id for _, ids in keys for id in ids}
    who = {ranking.labeler for ranking in rankings}
    return Snapshot(
        prompts=tuple(prompt for prompt in snapshot.prompts if prompt.id in asked),
        responses=tuple(response for response in snapshot.responses if response.id in shown),
        labelers=tuple(one for one in snapshot.labelers if one.id in who),
        rankings=rankings,
        dropped=dict(+left_out),
    )


def key_of(ranking: Ranking) -> Key:
    return ranking.prompt_id, frozenset(ranking.responses)


def set_key(item: Item) -> Key:
    prompt, responses = item
    return prompt.id, frozenset(response.id for response in responses)


def judge_items(job: Job, store: Store) -> Json:
    """Judge what is not judged yet, write `snapshot/` and the figures, put the rankings into the store.

    Returns what done.json holds of it. Finished before, it only sees to it that the store has the rankings.
    """
    if not job.run.done:
        rankings, unscored = _judged(job)
        labelers = (*job.snapshot.labelers, job.labeler.labeler)
        found = replace(job.snapshot, labelers=labelers, rankings=(*job.snapshot.rankings, *rankings))
        written = write_snapshot(job.run.folder / "snapshot", found)
        for reason, number in (*unscored.items(), *job.snapshot.dropped.items()):
            job.run.count(reason, number)
        told = {"labeler": job.labeler.labeler.id, "num_sets": len(job.items), "num_judged": len(rankings)}
        told |= {"how": job.served.told} if job.served else {}
        estimates = {name: found._asdict() for name, found in figures(written, job.labeler.labeler.id).items()}
        job.run.finish(**told, asked=dict(+job.labeler.counts), figures=estimates)
    own = [r for r in read_snapshot(job.run.folder / "snapshot").rankings if r.labeler == job.labeler.labeler.id]
    add_ranking(store, *own)
    return job.run.results


def _judged(job: Job) -> tuple[list[Ranking], Counter[str]]:
    """All rankings, and how many sets have none, by reason; goes on where it was stopped."""
    done, kept = job.run.restore()
    lines: list[str] = kept.get("rankings", [])
    unscored = Counter(kept.get("unscored", {}))
    job.labeler.counts.update(kept.get("asked", {}))
    items = job.items
    chunk = SERVED_CHUNK if job.served else CHUNK
    steps = -(-len(items) // chunk)
    for step in job.run.track(range(done, steps), steps, f"{job.labeler.labeler.id} judges"):
        found = ask(job.labeler, items[step * chunk : (step + 1) * chunk], job.config.purpose)
        if job.served:
            job.served.check()
        lines += [ranking.model_dump_json() for ranking in found.rankings]
        unscored += found.unscored
        job.run.save_if_due(step + 1, rankings=lines, unscored=dict(unscored), asked=dict(job.labeler.counts))
    return [Ranking.model_validate_json(line) for line in lines], unscored


def figures(snapshot: Snapshot, labeler: str) -> dict[str, Estimate]:
    """What there is to say of the AI labeler's rankings, with 95 % intervals clustered by prompt.

    `alignment`: how often its soft label is on the side of a person's untied comparison; `alignment_one_order`, that of
    one order alone; `alignment_same_position`, that of pairs of which both orders prefer one place and the mean alone
    decides; `calibration_error` of the soft label's certainty. `same_position`: pairs of which both orders prefer the
    same place, `first_of_same`, of those the first. `order_gap`: how far the two orders' probabilities lie apart.
    `prefers_longer`: probability that the longer response is better, and by `people` how often it was.
    """
    kind = {one.id: one.kind for one in snapshot.labelers}
    own = [ranking for ranking in snapshot.rankings if ranking.labeler == labeler]
    people = [ranking for ranking in snapshot.rankings if kind[ranking.labeler] in PEOPLE]
    beside = compared(judged_pairs(own), people)
    prompts = [one.prompt_id for one in beside]
    both_orders = judged_pairs(ranking for ranking in own if ranking.preference)
    places = [(pair.prompt_id, place) for pair in both_orders if (place := same_position(pair)) is not None]
    same = [(id, place) for id, place in places if place]
    length = {response.id: len(response.text) for response in snapshot.responses}
    return {
        "alignment": clustered_proportion([one.right for one in beside], prompts),
        "alignment_one_order": clustered_proportion([one.in_one_order for one in beside], prompts),
        "alignment_same_position": clustered_proportion(
            [one.right for one in beside if one.same_place], [one.prompt_id for one in beside if one.same_place]
        ),
        "calibration_error": _calibration([one.right for one in beside], [one.certainty for one in beside], prompts),
        "same_position": clustered_proportion([float(place > 0) for _, place in places], [id for id, _ in places]),
        "first_of_same": clustered_proportion([float(place == 1) for _, place in same], [id for id, _ in same]),
        "order_gap": clustered_mean(
            [abs(pair.first - pair.second) for pair in both_orders], [pair.prompt_id for pair in both_orders]
        ),
        "prefers_longer": _longer(own, length),
        "people_prefer_longer": _longer(people, length),
    }


def _longer(rankings: Sequence[Ranking], length: dict[str, int]) -> Estimate:
    found = of_longer(rankings, length)
    return clustered_proportion([share for _, share in found], [id for id, _ in found])


def _calibration(right: list[float], certainty: list[float], prompts: list[str]) -> Estimate:
    def error(index: NDArray[np.intp]) -> float:
        return calibration_error([right[i] for i in index], [certainty[i] for i in index])

    return cluster_bootstrap(error, prompts, num_resamples=200)


def report_of(snapshot: Snapshot) -> dict[str, dict[str, Estimate]]:
    """AI labeler → figures, of every one that ranked something."""
    return {one.id: figures(snapshot, one.id) for one in snapshot.labelers if one.kind == "ai"}


def cost(job: Job, prices: Prices | None = None) -> str:
    """What judging will take, in one line."""
    labeler, items = job.labeler, job.items
    if job.served:
        return said_before(labeler, job.served, items, prices)
    asked = labeler.ask
    assert isinstance(asked, LocalAsk)
    questions = labeler.questions(items)
    labels = marks_of(labeler.template) if job.config.by == "scores" else labeler.template.labels
    estimate = asked.estimate(questions, labels, job.config.rationale_tokens if job.config.think else 0)
    said = f"{len(items):,} sets, {len(questions):,} questions, {estimate.tokens:,} tokens"
    if job.config.think:
        number = len(questions) * job.config.rationales
        said += f", and {number:,} rationales of at most {job.config.rationale_tokens} tokens"
    if estimate.too_long:
        said += f"; {estimate.too_long:,} questions exceed the model's context, and their sets get no verdict"
    return said


def identity_of(model: str) -> str:
    """What a folder's weights are known by; a hub name stands for itself."""
    return weights_hash(model) if Path(model).is_dir() else model
