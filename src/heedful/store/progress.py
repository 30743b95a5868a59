"""How far the labelling has come, and what a labeler has still to do."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, func, select, true

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.pools import Pool
from heedful.store.records import chunks, is_current, select_records
from heedful.store.schema import demonstrations, labelers, prompts, rankings, ratings, responses
from heedful.types import LabelerGroup, Prompt, Response


@dataclass(frozen=True)
class Work:
    """What is to be labelled: demonstrations of a pool's prompts, ratings of responses, or rankings of prompts with
    at least two responses, each by `overlap` labelers of the group."""

    task: Literal["demonstration", "rating", "ranking"]
    round: int = 0
    pool: Pool | None = None  # None: any
    overlap: int = 1
    group: LabelerGroup = "train"
    purpose: Literal["train", "evaluation"] = "train"


@dataclass(frozen=True)
class Progress:
    """Judgements made and wanted; one labeler beyond an item's overlap does not count."""

    task: str
    done: int
    total: int

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.task}s"


def progress(store: Store, work: Work) -> Progress:
    """How many of the wanted judgements are made."""
    with store.read() as connection:
        done_by = _done_by(connection, work)
    done = sum(min(len(by), work.overlap) for by in done_by.values())
    return Progress(work.task, done, work.overlap * len(done_by))


def to_label(
    store: Store, work: Work, labeler: str, limit: int | None = None
) -> list[tuple[Prompt, tuple[Response, ...]]]:
    """The items this labeler can still judge: not yet by them, nor by `overlap` others of their group.

    Returns:
        Each prompt with the responses to judge (none for a demonstration, one for a rating), in order of id.

    Raises:
        InputError: no such labeler.
    """
    with store.read() as connection:
        group = connection.execute(select(labelers.c.group).where(labelers.c.id == labeler)).scalar()
        if group is None:
            raise InputError(f"no labeler {labeler} in the store; add the labeler first")
        done_by = _done_by(connection, replace(work, group=group))
        open_items = sorted(item for item, by in done_by.items() if labeler not in by and len(by) < work.overlap)
        return _with_responses(connection, work, open_items[:limit])


def _done_by(connection: Connection, work: Work) -> dict[str, set[str]]:
    """Each item's id (a prompt's; a response's for ratings) with the labelers of the group who have judged it."""
    in_pool = (prompts.c.pool == work.pool) if work.pool else true()
    if work.task == "demonstration":
        items = select(prompts.c.id).where(in_pool, prompts.c.round == work.round)
        table, item = demonstrations, demonstrations.c.prompt_id
    elif work.task == "rating":
        items = select(responses.c.id).join(prompts).where(in_pool, responses.c.round == work.round)
        table, item = ratings, ratings.c.response_id
    else:
        items = select(prompts.c.id).join(responses).where(in_pool, responses.c.round == work.round)
        items = items.group_by(prompts.c.id).having(func.count() >= 2)
        table, item = rankings, rankings.c.prompt_id
    done_by: dict[str, set[str]] = {id: set() for id in connection.execute(items).scalars()}
    made = select(item, table.c.labeler).join(labelers, table.c.labeler == labelers.c.id)
    made = made.where(labelers.c.group == work.group, table.c.round == work.round, is_current(table))
    if work.task != "demonstration":
        made = made.where(table.c.purpose == work.purpose)
    for id, labeler in connection.execute(made):
        if id in done_by:
            done_by[id].add(labeler)
    return done_by


def _with_responses(
    connection: Connection, work: Work, items: Sequence[str]
) -> list[tuple[Prompt, tuple[Response, ...]]]:
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
