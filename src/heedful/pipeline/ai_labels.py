"""An AI labeler at work on a store: sets of responses in, its rankings beside people's out.

    items/        a snapshot: what is to be judged, with what others said of it
    snapshot/     the same with the AI labeler's rankings
    unjudged.jsonl  the sets without a verdict, each with the reason
    done.json     its figures, and how many sets have no verdict, by reason
    store.db      where the sets came from a file: they and all rankings, to train on

A set is what somebody ranked, or all responses to a prompt that nobody ranked. Begun again, a folder asks for what is
left: for sets that were not asked about yet, and for those that a failing server lost.

Command: heedful judge label PLACE --dir DIR --labeler MODEL --template NAME
"""

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from heedful.config import InputError
from heedful.evaluate.judges import ask
from heedful.feedback.ai.labeler import AILabeler, Ask
from heedful.feedback.ai.ledger import Prices
from heedful.feedback.ai.local import AS_IT_IS, CHAT, LocalAsk
from heedful.feedback.ai.report import failures
from heedful.feedback.ai.server import ServedModel
from heedful.feedback.ai.template import Template, marks_around, marks_of, read_template, texts_of
from heedful.feedback.verdict import Item, Unjudged
from heedful.models.checkpoint import load_policy, weights_hash
from heedful.pipeline.ai_figures import figures
from heedful.pipeline.ai_served import said_before
from heedful.pipeline.ai_settings import AskingConfig
from heedful.run import Run, read_done, write_atomic
from heedful.snapshot import Snapshot, read_records, read_snapshot, write_snapshot
from heedful.store.database import Store
from heedful.store.export import export_snapshot
from heedful.store.labels import add_labeler, add_ranking
from heedful.store.pools import Pool
from heedful.types import Labeler, LabelerGroup, Ranking, Response

CHUNK = 64  # sets judged between two looks at the clock
SERVED_CHUNK = 1024  # the same of a server, which runs empty at the end of each
UNJUDGED = "unjudged.jsonl"
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


class Who(NamedTuple):
    """Who answers: the model as it was named, what it is known by, and of a server what else decides its answers."""

    ask: Ask
    model: str
    known_by: str
    settings: Mapping[str, Any] = {}


class Plan(NamedTuple):
    """Who would judge what. Nothing is written yet."""

    labeler: AILabeler
    config: LabelConfig
    choice: Choice
    who: Who
    snapshot: Snapshot

    @property
    def items(self) -> list[Item]:
        return items_of(self.snapshot)

    @property
    def served(self) -> ServedModel | None:
        """Who answers, where that is a server."""
        return self.who.ask if isinstance(self.who.ask, ServedModel) else None


class Job(NamedTuple):
    """A plan, and the run that carries it out."""

    plan: Plan
    run: Run


class Judged(NamedTuple):
    """What came of the sets."""

    rankings: list[Ranking]
    unjudged: list[Unjudged]


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


def labeler_name(config: LabelConfig, who: Who, template: Template) -> str:
    """What the AI labeler is called in the store: its model and template, settings, and a hash of all that its verdicts
    depend on, so that two who judge otherwise have two names."""
    if config.name:
        return config.name
    place = Path(who.model.rstrip("/"))
    said = [place.parent.name if place.name == "model" else place.name, Path(config.template).name]
    said += [f"{config.shots}-shot"] if config.shots else []
    said += [f"{config.rationales}×thinking at {config.temperature:g}"] if config.think else []
    said += ["by scores"] if config.by == "scores" else []
    deciding = config.model_dump(include=set(AskingConfig.model_fields) - {"template"})
    deciding |= {"seed": config.seed} if config.temperature else {}
    whole = [who.known_by, dict(who.settings), template.model_dump(mode="json"), deciding]
    return f"{' '.join(said)} {hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:6]}"


def plan_job(config: LabelConfig, choice: Choice, who: Who, store: Store, folder: Path) -> Plan:
    """What would be judged: in a folder that was begun, what it began with. Nothing is written.

    Raises:
        InputError: nothing to judge, a template that will not do, or a folder begun with other settings.
    """
    template = read_template(config.template, config.shots, config.think)
    if config.by == "scores" and template.score is None:
        raise InputError(f"{config.template}: no score block; write one, or judge by pairs")
    if isinstance(who.ask, LocalAsk) and (token := who.ask.control_in(texts_of(template))):
        raise InputError(
            f"{config.template}: {token} is a control token of {who.model}, and in a page text; take it out"
        )
    name = labeler_name(config, who, template)
    begun = (folder / "manifest.json").exists()
    snapshot = read_snapshot(folder / "items") if begun else chosen(store, choice, name)
    judge = AILabeler(
        who.ask,
        template,
        Labeler(id=name, group=config.group, kind="ai"),
        rationales=config.rationales,
        temperature=config.temperature,
        max_tokens=config.rationale_tokens,
        seed=config.seed,
        by=config.by,
    )
    plan = Plan(judge, config, choice, who, snapshot)
    if begun:
        _open_run(plan, folder)
    return plan


def begin_job(plan: Plan, store: Store, folder: Path) -> Job:
    """Begin the folder, or go on with it.

    Raises:
        InputError: a labeler who is somebody else in the store, or a folder begun with other settings.
    """
    add_labeler(store, plan.labeler.labeler)
    if not (folder / "manifest.json").exists():
        shutil.rmtree(folder / "items", ignore_errors=True)  # of a beginning that was killed
        plan = plan._replace(snapshot=write_snapshot(folder / "items", plan.snapshot))
    return Job(plan, _open_run(plan, folder))


def _open_run(plan: Plan, folder: Path) -> Run:
    identity = {
        "labeler": plan.config.name,  # a name of our own follows from all the rest, which is told better
        **plan.config.model_dump(),
        "template": plan.labeler.template.model_dump(mode="json"),
        **plan.choice._asdict(),
        **plan.who.settings,
    }
    parents = {"model": plan.who.known_by, "items": plan.snapshot.hash}
    return Run.open(folder, "judge_label", identity, plan.config.seed, parents)


def chosen(store: Store, choice: Choice, labeler: str) -> Snapshot:
    """What the store holds of it for that labeler (`to_judge`)."""
    pools = None if choice.pool is None else [choice.pool]
    rounds = None if choice.round is None else [choice.round]
    found = export_snapshot(store, pools=pools, rounds=rounds, purpose=None, heldout="include")
    return to_judge(found, choice, labeler)


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
    drawn = items if choice.limit is None else drawn_of(items, choice.limit, choice.seed)
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


def drawn_of(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """As many of the sets: those that an order by prompt, responses and seed puts first. So labelers that are asked
    about the same sets get the same ones, whoever judged before them, and a larger limit holds a smaller one's."""

    def place(item: Item) -> str:
        prompt, responses = set_key(item)
        return hashlib.sha256("\x1f".join((str(seed), prompt, *sorted(responses))).encode()).hexdigest()

    return sorted(items, key=place)[:limit]


def key_of(ranking: Ranking) -> Key:
    return ranking.prompt_id, frozenset(ranking.responses)


def set_key(item: Item) -> Key:
    prompt, responses = item
    return prompt.id, frozenset(response.id for response in responses)


def judge_items(job: Job, store: Store) -> Json:
    """Judge what is not judged yet, write `snapshot/` and the figures, put the rankings into the store.

    Returns what done.json holds of it. Of a finished folder only those sets are asked about again that a failing server
    lost; an answer that was no label stays what it is.
    """
    if not job.run.done:
        _finish(job, _judged(job))
    elif read_done(job.run.folder)["counts"].get("api"):
        _finish(job, _judged_anew(job))
    add_ranking(store, *_own(job))
    return job.run.results


def _judged(job: Job) -> Judged:
    """All sets; goes on where it was stopped, and asks again for what the server lost before that."""
    done, kept = job.run.restore()
    lines: list[str] = kept.get("rankings", [])
    lost: list[str] = kept.get("unjudged", [])
    asked = job.plan.labeler.counts
    asked.update(kept.get("asked", {}))
    before = [Unjudged.model_validate_json(line) for line in lost]
    items = job.plan.items
    chunk = SERVED_CHUNK if job.plan.served else CHUNK
    steps = -(-len(items) // chunk)
    for step in job.run.track(range(done, steps), steps, f"{job.plan.labeler.labeler.id} judges"):
        found = _ask(job, items[step * chunk : (step + 1) * chunk])
        lines += [ranking.model_dump_json() for ranking in found.rankings]
        lost += [one.model_dump_json() for one in found.unjudged]
        job.run.save_if_due(step + 1, rankings=lines, unjudged=lost, asked=dict(asked))
    rankings = [Ranking.model_validate_json(line) for line in lines]
    return _ask_again(job, Judged(rankings, [Unjudged.model_validate_json(line) for line in lost]), before)


def _judged_anew(job: Job) -> Judged:
    """Of a finished folder, which is unfinished once the server has answered."""
    lost = read_records(job.run.folder / UNJUDGED, Unjudged)
    asked = job.plan.labeler.counts
    asked.update(job.run.results["asked"])
    found = _ask_again(job, Judged(_own(job), lost), lost)
    rankings = [ranking.model_dump_json() for ranking in found.rankings]
    unjudged = [one.model_dump_json() for one in found.unjudged]
    chunk = SERVED_CHUNK if job.plan.served else CHUNK
    steps = -(-len(job.plan.items) // chunk)
    job.run.reopen(steps, rankings=rankings, unjudged=unjudged, asked=dict(asked))
    return found


def _ask_again(job: Job, judged: Judged, lost: Iterable[Unjudged]) -> Judged:
    """With those of `lost` asked about again that the server failed on. What it answered of them is in the ledger."""
    keys = {(one.prompt_id, frozenset(one.responses)) for one in lost if one.reason == "api"}
    if not keys:
        return judged
    found = _ask(job, [item for item in job.plan.items if set_key(item) in keys])
    stays = [one for one in judged.unjudged if (one.prompt_id, frozenset(one.responses)) not in keys]
    place = {set_key(item): n for n, item in enumerate(job.plan.items)}
    rankings = sorted((*judged.rankings, *found.rankings), key=lambda ranking: place[key_of(ranking)])
    return Judged(rankings, [*stays, *found.unjudged])


def _ask(job: Job, items: Sequence[Item]) -> Judged:
    """Raises InputError where the server is gone: going on would only count what was not asked."""
    found = ask(job.plan.labeler, items, job.plan.config.purpose)
    if job.plan.served:
        job.plan.served.check()
    return Judged(found.rankings, found.unjudged)


def _finish(job: Job, judged: Judged) -> None:
    plan, folder = job.plan, job.run.folder
    labelers = (*plan.snapshot.labelers, plan.labeler.labeler)
    found = replace(plan.snapshot, labelers=labelers, rankings=(*plan.snapshot.rankings, *judged.rankings))
    shutil.rmtree(folder / "snapshot", ignore_errors=True)  # of an end that was killed, or with more sets lost
    written = write_snapshot(folder / "snapshot", found)
    write_atomic(folder / UNJUDGED, "".join(one.model_dump_json() + "\n" for one in judged.unjudged))
    for reason, number in (*Counter(one.reason for one in judged.unjudged).items(), *plan.snapshot.dropped.items()):
        job.run.count(reason, number)
    told = {"labeler": plan.labeler.labeler.id, "num_sets": len(plan.items), "num_judged": len(judged.rankings)}
    told |= {"how": plan.served.told} if plan.served else {}
    told |= imitations(plan)
    estimates = {name: one._asdict() for name, one in figures(written, plan.labeler.labeler.id).items()}
    why = failures((one.reason, one.message) for one in judged.unjudged)
    job.run.finish(**told, asked=dict(+plan.labeler.counts), failures=why, figures=estimates)


def _own(job: Job) -> list[Ranking]:
    rankings = read_snapshot(job.run.folder / "snapshot").rankings
    return [ranking for ranking in rankings if ranking.labeler == job.plan.labeler.labeler.id]


def imitations(plan: Plan) -> Json:
    """How many responses hold the template's own marks, and how many spell a control token of a model that is here."""
    texts = [response.text for response in plan.snapshot.responses]
    marks, asked = marks_around(plan.labeler.template, plan.config.by), plan.who.ask
    found: Json = {"num_imitating": sum(any(mark in text for mark in marks) for text in texts)}
    control = (
        {"num_control": sum(bool(asked.control_in(text)) for text in texts)} if isinstance(asked, LocalAsk) else {}
    )
    return found | control


def cost(plan: Plan, prices: Prices | None = None) -> str:
    """What judging will take, in one line."""
    labeler, items = plan.labeler, plan.items
    if plan.served:
        return said_before(labeler, plan.served, items, prices)
    asked = labeler.ask
    assert isinstance(asked, LocalAsk)
    questions = labeler.questions(items)
    labels = marks_of(labeler.template) if plan.config.by == "scores" else labeler.template.labels
    estimate = asked.estimate(questions, labels, plan.config.rationale_tokens if plan.config.think else 0)
    said = f"{len(items):,} sets, {len(questions):,} questions, {estimate.tokens:,} tokens"
    if plan.config.think:
        number = len(questions) * plan.config.rationales
        said += f", and {number:,} rationales of at most {plan.config.rationale_tokens} tokens"
    if estimate.too_long:
        said += f"; {estimate.too_long:,} questions exceed the model's context, and their sets get no verdict"
    return said


def identity_of(model: str) -> str:
    """What a folder's weights are known by; a hub name stands for itself."""
    return weights_hash(model) if Path(model).is_dir() else model
