"""Slots: the right to judge an item once. As many as the item's overlap; open, leased to a labeler, or done.

The database's keys hold the overlap: no number of an item is given twice and nobody holds two slots of one item, so
however many labelers ask at once, an item is judged exactly as often as it should be. A lease that runs out leaves the
slot its labeler's until another one takes it: who comes back after lunch finds the page as it was.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, bindparam, case, delete, exists, func, not_, or_, select, true
from sqlalchemy.sql.elements import ColumnElement

from heedful.config import InputError
from heedful.store.database import Store, timestamp
from heedful.store.gold import due, is_measured
from heedful.store.language import language_to_read, readable
from heedful.store.progress import (
    NEW,
    Item,
    Work,
    done_by,
    is_of,
    is_set_aside,
    open_items,
    wanted,
    with_responses,
    work_of,
)
from heedful.store.records import chunks
from heedful.store.schema import drafts, gold, prompts, responses, skips, slots, works

OTHER_SLOTS = slots.alias()
BY_KEY = select(slots).where(slots.c.key == bindparam("wanted"))
FRESH = 0.9  # share of a lease that is as good as all of it
OPEN = {"labeler": None, "expires": None, "done": None, "seconds": None}


class Slot(NamedTuple):
    """What a labeler holds or has filled: one item of a work."""

    key: str
    work: Work
    item: str
    labeler: str | None
    done: str | None
    expires: str | None = None


class Taken(InputError):
    """The slot went to somebody else after its lease had run out; the labeler's draft is kept."""


def offer(store: Store, work: Work, options: Mapping[str, Any] | None = None) -> int:
    """Put the work on offer to the labelers of its group, or bring what is on offer up to date.

    `options` are what only the task knows: `number` of items for those that labelers make themselves.

    Returns:
        The number of slots nobody has filled.
    """

    def put(connection: Connection) -> int:
        store.take_turns(connection, works)
        own = and_(is_of(works, work), works.c.pool == (work.pool or ""))
        row = connection.execute(select(works.c.options).where(own)).first()
        merged = {**(row.options if row else {}), **(options or {})}
        values = {"overlap": work.overlap, "options": merged, "closed": None}
        if row:
            connection.execute(works.update().where(own).values(values))
        else:
            connection.execute(
                works.insert().values(key_of(work) | values | {"pool": work.pool or "", "created": timestamp()})
            )
        if make_slots(connection, work):
            store.survey(connection, slots)
        left = select(slots.c.item).where(is_of(slots, work), slots.c.done.is_(None))
        return len(connection.execute(left).all())

    return store.write(put)


def withdraw(store: Store, work: Work) -> None:
    """Take the work off offer; what is judged stays, what is leased may still be finished."""
    own = and_(is_of(works, work), works.c.pool == (work.pool or ""))
    store.write(lambda connection: connection.execute(works.update().where(own).values(closed=timestamp())))


def on_offer(connection: Connection, group: str | None = None) -> list[tuple[Work, dict[str, Any]]]:
    """The works that are open, of one group or all, each with its options; in the order they came in."""
    found = connection.execute(select(works).where(works.c.closed.is_(None)).order_by(works.c.created, works.c.task))
    rows = [row for row in found if group in (None, row.group)]
    return [
        (Work(row.task, row.round, row.pool or None, row.overlap, row.group, row.purpose), row.options) for row in rows
    ]


def make_slots(connection: Connection, work: Work) -> int:
    """Bring the slots up to what is wanted: one for every judgement made, open ones up to the overlap.

    Judgements that came in from elsewhere fill slots too. What was once wanted and is no more stays.

    Returns:
        The number of new slots.
    """
    judged = done_by(connection, work)
    held: dict[str, dict[int, Any]] = defaultdict(dict)
    for row in connection.execute(select(slots).where(is_of(slots, work))):
        held[row.item][row.number] = row
    languages = _languages(connection, work, [item for item in judged if item not in held])
    new = []
    for item, who in judged.items():
        rows = held.get(item, {})
        language = next((row.language for row in rows.values()), languages.get(item, ""))
        there = {row.labeler for row in rows.values() if row.labeler}
        for row in rows.values():
            if row.labeler in who and row.done is None:
                _set(connection, work, item, row.number, done=timestamp(), expires=None)
        free = [number for number, row in rows.items() if row.labeler is None]
        number, there_are = max(rows, default=0), len(rows)
        for labeler in sorted(who - there):
            if free:
                _set(connection, work, item, free.pop(0), labeler=labeler, done=timestamp())
                continue
            number, there_are = number + 1, there_are + 1
            new.append(_row(work, item, number, language) | {"labeler": labeler, "done": timestamp()})
        while there_are < wanted(work, item):
            number, there_are = number + 1, there_are + 1
            new.append(_row(work, item, number, language))
    for chunk in chunks(new):
        connection.execute(slots.insert(), list(chunk))
    return len(new)


def _row(work: Work, item: str, number: int, language: str) -> dict[str, Any]:
    own = {"item": item, "number": number, "key": secrets.token_hex(8), "priority": 0, "language": language}
    return key_of(work) | own | OPEN


def key_of(work: Work) -> dict[str, Any]:
    """What names the work in a row of slots, skips or drafts."""
    return {"task": work.task, "purpose": work.purpose, "round": work.round, "group": work.group}


def _languages(connection: Connection, work: Work, items: Sequence[str]) -> dict[str, str]:
    if work.task in NEW:
        return {}
    found = {}
    for chunk in chunks(items):
        asked = select(prompts.c.id, prompts.c.text, prompts.c.task).where(prompts.c.id.in_(chunk))
        if work.task == "rating":
            asked = select(responses.c.id, prompts.c.text, prompts.c.task).join(prompts)
            asked = asked.where(responses.c.id.in_(chunk))
        for id, text, task in connection.execute(asked):
            found[id] = language_to_read(text, task)
    return found


def _set(connection: Connection, work: Work, item: str, number: int, **values: Any) -> None:
    at = and_(is_of(slots, work), slots.c.item == item, slots.c.number == number)
    connection.execute(slots.update().where(at).values(values))


def claim(
    store: Store, offered: Iterable[Work], labeler: str, minutes: float, languages: Sequence[str] = ()
) -> Slot | None:
    """Lease the labeler the next item: what they hold already, else the first that is open to them. Now and then it is
    a gold item in its stead (`heedful.store.gold`).

    Args:
        offered: Works of the labeler's group, the first goes first.
        languages: Those the labeler reads; none: any.
    """
    offered = list(offered)
    expires = timestamp(datetime.now(UTC) + timedelta(minutes=minutes))

    def take(connection: Connection) -> Slot | None:
        store.take_turns(connection, works)
        measured = is_measured(connection, labeler)
        mine = and_(slots.c.labeler == labeler, slots.c.done.is_(None))
        holds = connection.execute(select(slots.c.key).where(mine).limit(1)).first() is not None  # mostly nothing
        also = [silent(each) for each in offered if measured and each.purpose == "train"]
        for work in [*offered, *also] if holds else []:
            row = _held(connection, work, labeler)
            if row is not None:
                _set(connection, work, row.item, row.number, expires=expires)
                return _slot(row, work)._replace(expires=expires)
        for work in offered:
            row = _next(connection, work, labeler, languages)
            if row is not None:
                known = due(connection, work, labeler, languages) if measured else None
                if known is not None:
                    return own_slot(connection, silent(work), known, labeler, expires)
                _set(connection, work, row.item, row.number, labeler=labeler, expires=expires)
                return _slot(row, work)._replace(labeler=labeler, expires=expires)
        return None

    return store.write(take)


def silent(work: Work) -> Work:
    """What the gold items that come among the work's are slots of."""
    return replace(work, purpose="screening")


def own_slot(connection: Connection, work: Work, item: str, labeler: str, expires: str) -> Slot:
    """The labeler's slot of the item, made where there is none: it is theirs alone and beyond any overlap."""
    rows = connection.execute(select(slots).where(is_of(slots, work), slots.c.item == item)).all()
    mine = next((row for row in rows if row.labeler == labeler), None)
    if mine is not None:
        return _slot(mine, work)
    row = _row(work, item, max((row.number for row in rows), default=0) + 1, "")
    connection.execute(slots.insert().values(row | {"labeler": labeler, "expires": expires}))
    return Slot(row["key"], work, item, labeler, None, expires)


def options_of(connection: Connection, work: Work) -> dict[str, Any]:
    """What the work was offered with, of whatever pool."""
    found = connection.execute(select(works.c.options).where(is_of(works, work)).order_by(works.c.created))
    return {name: value for options in found.scalars() for name, value in options.items()}


def find_slot(connection: Connection, key: str) -> Slot | None:
    """The slot an address speaks of."""
    row = connection.execute(BY_KEY, {"wanted": key}).first()
    if row is None:
        return None
    return _slot(row, Work(row.task, row.round, None, 1, row.group, row.purpose))


def is_fresh(slot: Slot, labeler: str, minutes: float) -> bool:
    """Whether the slot, as it was just read, is leased to the labeler for all but a little of the minutes."""
    enough = timestamp(datetime.now(UTC) + timedelta(minutes=FRESH * minutes))
    return slot.labeler == labeler and slot.done is None and (slot.expires or "") > enough


def prolong(store: Store, slot: Slot, labeler: str, minutes: float) -> bool:
    """Lease the item the slot is of, or prolong the lease; False where no slot of it is open to the labeler."""
    if is_fresh(slot, labeler, minutes):
        return True  # a page and its drafts ask again and again, and whoever writes keeps others waiting
    expires = timestamp(datetime.now(UTC) + timedelta(minutes=minutes))

    def take(connection: Connection) -> bool:
        store.take_turns(connection, works)
        row = _own_or_free(connection, slot.work, slot.item, labeler)
        if row is None or row.done is not None:
            return False
        _set(connection, slot.work, slot.item, row.number, labeler=labeler, expires=expires)
        return True

    return store.write(take)


def _slot(row: Any, work: Work) -> Slot:
    return Slot(row.key, work, row.item, row.labeler, row.done, row.expires)


class Tally(NamedTuple):
    """How far a work is: slots filled, of how many not set aside; filled by the labeler; theirs right now; and slots
    beside those, of prompts in languages that the labeler does not read."""

    done: int
    total: int
    own: int
    held: int
    others: int


def tally(connection: Connection, work: Work, labeler: str, languages: Sequence[str] = ()) -> Tally:
    """Counts of the work's slots. Gold items count as done and as the labeler's own, or they would be told apart.

    `languages` are those the labeler reads; none: any.
    """
    mine = slots.c.labeler == labeler
    reads = or_(slots.c.language.in_(readable(languages)), mine) if languages else true()
    asked = select(
        func.count(case((and_(reads, slots.c.done.is_not(None)), 1))),
        func.count(case((reads, 1))),
        func.count(case((and_(mine, slots.c.done.is_not(None)), 1))),
        func.count(case((and_(mine, slots.c.done.is_(None)), 1))),
        func.count() - func.count(case((reads, 1))),
    )
    counted = or_(slots.c.done.is_not(None), ~is_set_aside(connection, work))
    found = Tally(*connection.execute(asked.where(is_of(slots, work), in_pool(work), counted)).one())
    if work.purpose != "train" or not is_measured(connection, labeler):
        return found
    is_gold = slots.c.item.in_(select(gold.c.item).where(gold.c.task == work.task))
    extra = Tally(*connection.execute(asked.where(is_of(slots, silent(work)), mine, is_gold, in_pool(work))).one())
    done = min(found.done + extra.done, found.total)
    return found._replace(done=done, own=found.own + extra.own, held=found.held + extra.held)


def submitted(connection: Connection, labeler: str, limit: int = 20) -> list[Slot]:
    """What the labeler filled last, the newest first."""
    own = select(slots).where(slots.c.labeler == labeler, slots.c.done.is_not(None))
    rows = connection.execute(own.order_by(slots.c.done.desc()).limit(limit))
    return [_slot(row, Work(row.task, row.round, None, 1, row.group, row.purpose)) for row in rows]


def lease(store: Store, work: Work, labeler: str, hours: float = 24, limit: int | None = None) -> list[Item]:
    """As `progress.to_label`, and what is returned is the labeler's for so many hours from now; asking again prolongs.

    Raises:
        InputError: no such labeler.
    """
    now = datetime.now(UTC)
    expires = timestamp(now + timedelta(hours=hours))

    def take(connection: Connection) -> list[Item]:
        store.take_turns(connection, works)
        own = work_of(connection, work, labeler)
        items = open_items(connection, own, labeler, timestamp(now))
        make_slots(connection, own)
        for item in items[:limit]:
            row = _own_or_free(connection, own, item, labeler)
            assert row is not None  # open_items counted the same slots
            _set(connection, own, item, row.number, labeler=labeler, expires=expires)
        return with_responses(connection, own, items[:limit])

    return store.write(take)


def _held(connection: Connection, work: Work, labeler: str) -> Any:
    mine = and_(is_of(slots, work), slots.c.labeler == labeler, slots.c.done.is_(None), in_pool(work))
    return connection.execute(select(slots).where(mine).order_by(slots.c.priority, slots.c.item).limit(1)).first()


def _next(connection: Connection, work: Work, labeler: str, languages: Sequence[str]) -> Any:
    also = silent(work) if work.purpose == "train" else work  # nobody gets as gold what they judged, nor again
    seen = []
    for table in (OTHER_SLOTS, skips):
        same = or_(is_of(table, work), is_of(table, also))
        seen.append(exists().where(same, table.c.item == slots.c.item, table.c.labeler == labeler))
    fits = and_(is_of(slots, work), not_(or_(*seen)), in_pool(work), ~is_set_aside(connection, work))
    if languages:
        fits = and_(fits, slots.c.language.in_(readable(languages)))
    order = slots.c.priority, slots.c.item, slots.c.number
    queue = slots.c.done, slots.c.labeler, *order  # as the index has them: of 10,000 open slots one is read
    found = [
        connection.execute(select(slots).where(free, fits).order_by(*by).limit(1)).first()
        for free, by in ((_unclaimed(), queue), (_ran_out(), order))
    ]
    return min((row for row in found if row), key=lambda row: (row.priority, row.item, row.number), default=None)


def _unclaimed() -> ColumnElement[bool]:
    return and_(slots.c.done.is_(None), slots.c.labeler.is_(None))


def _ran_out() -> ColumnElement[bool]:
    return and_(slots.c.done.is_(None), slots.c.labeler.is_not(None), slots.c.expires <= timestamp())


def in_pool(work: Work) -> ColumnElement[bool]:
    """Slots of one pool's items; those of other pools carry the same name of work."""
    if work.pool is None or work.task in NEW:
        return and_(True)
    of_pool = select(prompts.c.id).where(prompts.c.pool == work.pool)
    if work.task == "rating":
        of_pool = select(responses.c.id).join(prompts).where(prompts.c.pool == work.pool)
    return slots.c.item.in_(of_pool)


def _own_or_free(connection: Connection, work: Work, item: str, labeler: str) -> Any:
    """The labeler's slot of the item, done or not, else one that is open; None where there is neither."""
    at = and_(is_of(slots, work), slots.c.item == item)
    mine = connection.execute(select(slots).where(at, slots.c.labeler == labeler)).first()
    if mine is not None:
        return mine
    free = or_(_unclaimed(), _ran_out())
    return connection.execute(select(slots).where(at, free).order_by(slots.c.number).limit(1)).first()


def finish(
    connection: Connection, work: Work, item: str, labeler: str, seconds: float | None = None, changed: bool = True
) -> bool:
    """Fill the labeler's slot of the item, in the transaction that stores the judgement; False when it was filled.

    `seconds` of work are added to those of the judgements that this one corrects; where it says what they said
    (not `changed`), they are not.

    Raises:
        Taken: the lease had run out and others filled every slot.
    """
    row = _own_or_free(connection, work, item, labeler)
    if row is None:
        raise Taken("others have judged this item meanwhile; your answer is kept as a draft")
    spent = row.seconds
    if seconds is not None and (changed or row.done is None):
        spent = (spent or 0) + seconds
    _set(connection, work, item, row.number, labeler=labeler, done=row.done or timestamp(), expires=None, seconds=spent)
    for table in (drafts, skips):  # a judgement takes the place of what was passed over
        own = and_(is_of(table, work), table.c.item == item, table.c.labeler == labeler)
        connection.execute(delete(table).where(own))
    return row.done is None
