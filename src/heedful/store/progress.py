"""How far the labelling has come, and what a labeler has still to do. Handing it out is `heedful.store.slots`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import Connection, Select, Table, and_, false, func, select, true
from sqlalchemy.sql.elements import ColumnElement

from heedful.config import InputError
from heedful.store.database import Store, timestamp
from heedful.store.pools import Pool, unit
from heedful.store.records import NO_TRAINING, chunks, is_current, select_records
from heedful.store.schema import demonstrations, labelers, prompts, rankings, ratings, responses, skips, slots, works
from heedful.store.settings import read_number
from heedful.types import LabelerGroup, Prompt, Purpose, Response

Task = Literal["demonstration", "rating", "ranking", "comparison", "toxicity", "prompt", "red_team", "chat"]
Item = tuple[Prompt, tuple[Response, ...]]
NEW = ("prompt", "red_team", "chat")  # tasks whose items are made by labelers: "new/0", "new/1", …
CHAT = "chat/"  # begins the ids of prompts that are turns of chats: whoever wrote them has judged them already


@dataclass(frozen=True)
class Work:
    """What is to be labelled: demonstrations of a pool's prompts, ratings of responses, or rankings, comparisons and
    marks of toxicity of prompts with at least two responses, each by `overlap` labelers of the group. Prompts and chats
    are made by labelers: as many as are on offer (`slots.offer`), each with its slot.

    A broken overlap is a mean: with 1.15 everything is judged by one labeler and some 15 %, by a hash of the id, by a
    second. Held-out labelers make no training judgements of prompts of the training split: those could be used for
    nothing (InstructGPT, section 3.4).
    """

    task: Task
    round: int = 0
    pool: Pool | None = None  # None: any
    overlap: float = 1
    group: LabelerGroup = "train"
    purpose: Purpose = "train"


@dataclass(frozen=True)
class Progress:
    """Judgements made and wanted; one labeler beyond an item's overlap does not count."""

    work: Work
    done: int
    total: int

    def __str__(self) -> str:
        who = " by held-out labelers" if self.work.group == "heldout" else ""
        things = {"toxicity": "toxicity judgements", "red_team": "red-team chats"}
        return f"{self.done} of {self.total} {things.get(self.work.task, self.work.task + 's')}{who}"


def ranking_work(round: int, train: int, heldout: int, overlap: float) -> list[Work]:
    """The rankings a round waits for: of every prompt by one training labeler, of a share `overlap` by a second one;
    of those outside the training split by two held-out labelers as well. Nothing waits for more labelers than there
    are in its group (`train`, `heldout`)."""
    work = Work("ranking", round=round, pool="reward_model", overlap=min(train, 1 + overlap))
    return [work] + ([replace(work, group="heldout", overlap=min(heldout, 2))] if heldout else [])


def marking_work(round: int, ratings: bool, references: bool) -> list[Work]:
    """What a round's people do for a reward model that learns by regression, besides ranking."""
    works = [Work("rating", round=round, pool="reward_model")] if ratings else []
    turns = (0, round) if references else ()  # the prompts of the start, and those that came in since
    return works + [Work("demonstration", round=turn, pool="reward_model") for turn in turns]


def evaluation_work(train: int, heldout: int, labelers_per_prompt: int, also_training: bool = False) -> list[Work]:
    """The rankings the final evaluation waits for: by held-out labelers, where there are any, and by training labelers
    where there are none or they are asked too."""
    asked: dict[LabelerGroup, int] = {"heldout": heldout, "train": train if also_training or not heldout else 0}
    return [
        Work("ranking", pool="evaluation", overlap=min(labelers_per_prompt, number), group=group, purpose="evaluation")
        for group, number in asked.items()
        if number
    ]


def progress(store: Store, work: Work) -> Progress:
    """How many of the wanted judgements are made."""
    with store.read() as connection:
        judged = done_by(connection, work)
    total = {item: wanted(work, item) for item in judged}
    done = sum(min(len(by), total[item]) for item, by in judged.items())
    return Progress(work, done, sum(total.values()))


def to_label(store: Store, work: Work, labeler: str, limit: int | None = None) -> list[Item]:
    """The items this labeler can still judge: not yet by them, nor by `overlap` others of their group, counting those
    who hold a lease on it.

    Returns:
        Each prompt with the responses to judge (none for a demonstration, one for a rating): first what is leased to
        the labeler, then the rest, in order of id.

    Raises:
        InputError: no such labeler.
    """
    with store.read() as connection:
        own = work_of(connection, work, labeler)
        return with_responses(connection, own, open_items(connection, own, labeler, timestamp())[:limit])


def wanted(work: Work, item: str) -> int:
    """By how many labelers the item is to be judged."""
    whole = int(work.overlap)
    return whole + (unit(item, "overlap") < work.overlap - whole)


def work_of(connection: Connection, work: Work, labeler: str) -> Work:
    """The work as the labeler's group has it.

    Raises:
        InputError: no such labeler.
    """
    group = connection.execute(select(labelers.c.group).where(labelers.c.id == labeler)).scalar()
    if group is None:
        raise InputError(f"no labeler {labeler} in the store; add the labeler first")
    return replace(work, group=group)


def open_items(connection: Connection, work: Work, labeler: str, now: str) -> list[str]:
    """What of the work of their group is open to the labeler: theirs first, then in order of id."""
    judged, leased_to = done_by(connection, work), _leased_to(connection, work, now)
    mine = and_(is_of(skips, work), skips.c.labeler == labeler)
    skipped = set(connection.execute(select(skips.c.item).where(mine)).scalars())

    def is_open(item: str) -> bool:
        taken = judged[item] | (leased_to.get(item, set()) - {labeler})
        return labeler not in taken and item not in skipped and len(taken) < wanted(work, item)

    return sorted(filter(is_open, judged), key=lambda item: (labeler not in leased_to.get(item, ()), item))


def _leased_to(connection: Connection, work: Work, now: str) -> Mapping[str, set[str]]:
    """Each leased item's id with the labelers of the group whose lease on it stands."""
    held = and_(is_of(slots, work), slots.c.done.is_(None), slots.c.expires > now)
    return _by_item(connection, select(slots.c.item, slots.c.labeler).where(held))


@lru_cache(1000)  # putting it together takes longer than most of the queries it is in
def is_of(table: Table, work: Work) -> ColumnElement[bool]:
    """The rows of slots, skips or drafts that are the work's (of whatever pool)."""
    return and_(*(table.c[name] == getattr(work, name) for name in ("task", "purpose", "round", "group")))


def _by_item(connection: Connection, rows: Select[Any]) -> defaultdict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for item, labeler in connection.execute(rows):
        found[item].add(labeler)
    return found


def done_by(connection: Connection, work: Work) -> dict[str, set[str]]:
    """Each item's id (a prompt's; a response's for ratings) with the labelers of the group who have judged it.

    To say that an item cannot be judged is a judgement. One that two labelers passed over is set aside: it is left out.
    """
    asked = and_(prompts.c.id.not_like(f"{CHAT}%"), (prompts.c.pool == work.pool) if work.pool else true())
    if work.group == "heldout" and work.purpose == "train":
        asked = and_(asked, prompts.c.split != "train")
    if work.task in NEW:
        return _made(connection, work)
    if work.task == "demonstration":
        items = select(prompts.c.id).where(asked, prompts.c.round == work.round)
        table, item = demonstrations, demonstrations.c.prompt_id
    elif work.task == "rating":
        items = select(responses.c.id).join(prompts).where(asked, responses.c.round == work.round)
        table, item = ratings, ratings.c.response_id
    else:
        items = select(prompts.c.id).join(responses).where(asked, responses.c.round == work.round)
        items = items.group_by(prompts.c.id).having(func.count() >= 2)
        table, item = rankings, rankings.c.prompt_id
    made = select(item, table.c.labeler).join(labelers, table.c.labeler == labelers.c.id)
    made = made.where(labelers.c.group == work.group, table.c.round == work.round, is_current(table))
    if work.task != "demonstration":
        made = made.where(table.c.purpose == work.purpose, *made_by(table, work.task))
    else:
        made = made.where(*(table.c.id.not_like(f"{begins}%") for begins in NO_TRAINING))
    judged, passed = _by_item(connection, made), set_aside(connection, work)
    for id, who in _by_item(connection, select(skips.c.item, skips.c.labeler).where(_final(work, True))).items():
        judged[id] |= who
    ids = connection.execute(items).scalars()
    return {id: judged.get(id, set()) for id in ids if id not in passed or judged.get(id)}


def _made(connection: Connection, work: Work) -> dict[str, set[str]]:
    """Each item that is to be made, or is, with the labelers who made one. What they pass over stays to be made."""
    filled = and_(is_of(slots, work), slots.c.done.is_not(None))
    made = _by_item(connection, select(slots.c.item, slots.c.labeler).where(filled))
    offered = connection.execute(select(works.c.options).where(is_of(works, work))).scalars()
    number = max((options.get("number", 0) for options in offered), default=0)
    return {f"new/{n}": set() for n in range(number)} | made


def made_by(table: Table, task: Task) -> list[ColumnElement[bool]]:
    """The rankings or ratings that the task made; what was ranked, rated together or alone, is ranking's and rating's.

    Ids of comparisons and of judgements of toxicity begin with the task's name.
    """
    if task in ("ranking", "rating"):
        return [table.c.id.not_like(f"{other}/%") for other in ("comparison", "toxicity")]
    return [table.c.id.like(f"{task}/%")]


def _final(work: Work, final: bool) -> ColumnElement[bool]:
    return and_(is_of(skips, work), skips.c.final.is_(final))


def set_aside(connection: Connection, work: Work) -> set[str]:
    """The items that as many labelers passed over as it takes for nobody else to be asked."""
    return set(connection.execute(often_skipped(connection, work)).scalars())


def often_skipped(connection: Connection, work: Work) -> Select[Any]:
    """`set_aside` as a query."""
    enough = func.count() >= read_number(connection, "set_aside")
    return select(skips.c.item).where(_final(work, False)).group_by(skips.c.item).having(enough)


def is_set_aside(connection: Connection, work: Work) -> ColumnElement[bool]:
    """Slots of items that nobody else is asked to judge: nobody did, and so many passed them over.

    What labelers make themselves is never set aside.
    """
    if work.task in NEW:
        return false()
    judged = select(slots.c.item).where(is_of(slots, work), slots.c.done.is_not(None))
    return and_(slots.c.item.in_(often_skipped(connection, work)), slots.c.item.not_in(judged))


def with_responses(connection: Connection, work: Work, items: Sequence[str]) -> list[Item]:
    answers: dict[str, list[Response]] = defaultdict(list)
    key = responses.c.id if work.task == "rating" else responses.c.prompt_id
    if work.task != "demonstration":
        for chunk in chunks(items):
            for response in select_records(connection, Response, key.in_(chunk), responses.c.round == work.round):
                answers[response.id if work.task == "rating" else response.prompt_id].append(response)
    prompt_of = {item: answers[item][0].prompt_id if work.task == "rating" else item for item in items}
    found: dict[str, Prompt] = {}
    for chunk in chunks(sorted(set(prompt_of.values()))):
        found.update((prompt.id, prompt) for prompt in select_records(connection, Prompt, prompts.c.id.in_(chunk)))
    return [(found[prompt_of[item]], tuple(answers[item])) for item in items]
