"""How far the labelling has come, what a labeler has still to do, and leases: what is handed out to one labeler is
not handed to others beyond the overlap until it expires."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Select, and_, delete, func, select, true

from heedful.config import InputError
from heedful.store.database import Store, timestamp
from heedful.store.pools import Pool, unit
from heedful.store.records import chunks, is_current, select_records
from heedful.store.schema import demonstrations, labelers, leases, prompts, rankings, ratings, responses
from heedful.types import LabelerGroup, Prompt, Response

Item = tuple[Prompt, tuple[Response, ...]]


@dataclass(frozen=True)
class Work:
    """What is to be labelled: demonstrations of a pool's prompts, ratings of responses, or rankings of prompts with
    at least two responses, each by `overlap` labelers of the group.

    A broken overlap is a mean: with 1.15 everything is judged by one labeler and some 15 %, by a hash of the id, by a
    second. Held-out labelers make no training judgements of prompts of the training split: those could be used for
    nothing (InstructGPT, section 3.4).
    """

    task: Literal["demonstration", "rating", "ranking"]
    round: int = 0
    pool: Pool | None = None  # None: any
    overlap: float = 1
    group: LabelerGroup = "train"
    purpose: Literal["train", "evaluation"] = "train"


@dataclass(frozen=True)
class Progress:
    """Judgements made and wanted; one labeler beyond an item's overlap does not count."""

    work: Work
    done: int
    total: int

    def __str__(self) -> str:
        who = " by held-out labelers" if self.work.group == "heldout" else ""
        return f"{self.done} of {self.total} {self.work.task}s{who}"


def ranking_work(round: int, train: int, heldout: int, overlap: float) -> list[Work]:
    """The rankings a round waits for: of every prompt by one training labeler, of a share `overlap` by a second one;
    of those outside the training split by two held-out labelers as well. Nothing waits for more labelers than there
    are in its group (`train`, `heldout`)."""
    work = Work("ranking", round=round, pool="reward_model", overlap=min(train, 1 + overlap))
    return [work] + ([replace(work, group="heldout", overlap=min(heldout, 2))] if heldout else [])


def progress(store: Store, work: Work) -> Progress:
    """How many of the wanted judgements are made."""
    with store.read() as connection:
        done_by = _done_by(connection, work)
    wanted = {item: _wanted(work, item) for item in done_by}
    done = sum(min(len(by), wanted[item]) for item, by in done_by.items())
    return Progress(work, done, sum(wanted.values()))


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
        return _with_responses(connection, work, _open_items(connection, work, labeler, timestamp())[:limit])


def lease(store: Store, work: Work, labeler: str, hours: float = 24, limit: int | None = None) -> list[Item]:
    """As `to_label`, and what is returned is the labeler's for so many hours from now; asking again prolongs it.

    Raises:
        InputError: no such labeler.
    """
    now = datetime.now(UTC)
    expires = timestamp(now + timedelta(hours=hours))

    def take(connection: Connection) -> list[Item]:
        store.take_turns(connection, leases)
        items = _open_items(connection, work, labeler, timestamp(now))[:limit]
        connection.execute(delete(leases).where(leases.c.expires <= timestamp(now)))
        own = {"labeler": labeler, "task": work.task, "purpose": work.purpose, "round": work.round}
        for chunk in chunks(items):
            held = and_(*(leases.c[key] == value for key, value in own.items()), leases.c.item.in_(chunk))
            connection.execute(delete(leases).where(held))
            connection.execute(leases.insert(), [own | {"item": item, "expires": expires} for item in chunk])
        return _with_responses(connection, work, items)

    return store.write(take)


def _wanted(work: Work, item: str) -> int:
    """By how many labelers the item is to be judged."""
    whole = int(work.overlap)
    return whole + (unit(item, "overlap") < work.overlap - whole)


def _open_items(connection: Connection, work: Work, labeler: str, now: str) -> list[str]:
    group = connection.execute(select(labelers.c.group).where(labelers.c.id == labeler)).scalar()
    if group is None:
        raise InputError(f"no labeler {labeler} in the store; add the labeler first")
    work = replace(work, group=group)
    done_by, leased_to = _done_by(connection, work), _leased_to(connection, work, now)

    def is_open(item: str) -> bool:
        taken = done_by[item] | (leased_to.get(item, set()) - {labeler})
        return labeler not in taken and len(taken) < _wanted(work, item)

    return sorted(filter(is_open, done_by), key=lambda item: (labeler not in leased_to.get(item, ()), item))


def _leased_to(connection: Connection, work: Work, now: str) -> Mapping[str, set[str]]:
    """Each leased item's id with the labelers of the group whose lease on it stands."""
    held = select(leases.c.item, leases.c.labeler).join(labelers).where(labelers.c.group == work.group)
    held = held.where(leases.c.task == work.task, leases.c.purpose == work.purpose, leases.c.round == work.round)
    return _by_item(connection, held.where(leases.c.expires > now))


def _by_item(connection: Connection, rows: Select[Any]) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for item, labeler in connection.execute(rows):
        found[item].add(labeler)
    return found


def _done_by(connection: Connection, work: Work) -> dict[str, set[str]]:
    """Each item's id (a prompt's; a response's for ratings) with the labelers of the group who have judged it."""
    asked = (prompts.c.pool == work.pool) if work.pool else true()
    if work.group == "heldout" and work.purpose == "train":
        asked = and_(asked, prompts.c.split != "train")
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
        made = made.where(table.c.purpose == work.purpose)
    judged = _by_item(connection, made)
    return {id: judged.get(id, set()) for id in connection.execute(items).scalars()}


def _with_responses(connection: Connection, work: Work, items: Sequence[str]) -> list[Item]:
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
