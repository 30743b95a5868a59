"""Items that labelers passed over: somebody else gets them, or they are called impossible to judge, and both can be
undone, by the labeler at once and by a lead later."""

from collections import defaultdict
from typing import NamedTuple

from sqlalchemy import Connection, and_, delete, or_, select

from heedful.config import InputError
from heedful.store.accounts import note as note_event
from heedful.store.database import Store, timestamp
from heedful.store.progress import NEW, Work, is_of, is_set_aside, often_skipped, with_responses
from heedful.store.schema import skips, slots, works
from heedful.store.slots import OPEN, finish, in_pool, key_of
from heedful.types import Prompt


def skip(store: Store, work: Work, item: str, labeler: str, reason: str, note: str = "", final: bool = False) -> None:
    """Pass the item over: somebody else gets it. `final`: it is a judgement, that it cannot be judged.

    Raises:
        InputError: the labeler does not hold the item.
    """

    def put(connection: Connection) -> None:
        store.take_turns(connection, works)
        at = and_(is_of(slots, work), slots.c.item == item, slots.c.labeler == labeler, slots.c.done.is_(None))
        row = connection.execute(select(slots).where(at)).first()
        if row is None:
            raise InputError("that item is not yours to pass over; open the next one")
        said = {"labeler": labeler, "reason": reason, "note": note, "final": final, "created": timestamp()}
        values = key_of(work) | {"item": item} | said
        connection.execute(delete(skips).where(is_of(skips, work), skips.c.item == item, skips.c.labeler == labeler))
        if final:
            finish(connection, work, item, labeler)
        else:
            connection.execute(slots.update().where(at).values(OPEN))
        connection.execute(skips.insert().values(values))

    store.write(put)


def unskip(store: Store, work: Work, item: str, labeler: str) -> None:
    """Undo the labeler's `skip`, where the item is still to be had; it is theirs again."""

    def put(connection: Connection) -> None:
        store.take_turns(connection, works)
        own = and_(is_of(skips, work), skips.c.item == item, skips.c.labeler == labeler)
        final = connection.execute(select(skips.c.final).where(own)).scalar()
        connection.execute(delete(skips).where(own))
        mine = and_(is_of(slots, work), slots.c.item == item, slots.c.labeler == labeler)
        if final:  # else what is done was judged, and stays so
            connection.execute(slots.update().where(mine).values(OPEN))

    store.write(put)


class Said(NamedTuple):
    """One labeler's word on an item they did not judge."""

    labeler: str
    reason: str
    note: str
    final: bool
    created: str


def called_impossible(connection: Connection, work: Work, item: str, labeler: str) -> str | None:
    """The labeler's note on the item where they said that it cannot be judged; None where they did not."""
    own = and_(is_of(skips, work), skips.c.item == item, skips.c.labeler == labeler, skips.c.final)
    return connection.execute(select(skips.c.note).where(own)).scalar()


class Passed(NamedTuple):
    """An item that is out of the queue: set aside, or called impossible to judge. `prompt`: None where none is made."""

    work: Work
    item: str
    prompt: Prompt | None
    aside: bool
    said: tuple[Said, ...]


def passed_items(connection: Connection, work: Work) -> list[Passed]:
    """The work's items that are out of the queue, the latest word first."""
    own = and_(is_of(slots, work), in_pool(work))
    aside = set(connection.execute(select(slots.c.item).where(own, is_set_aside(connection, work))).scalars())
    final = select(skips.c.item).where(is_of(skips, work), skips.c.final)
    out = or_(skips.c.final, skips.c.item.in_(often_skipped(connection, work)), skips.c.item.in_(final))
    asked = select(skips).where(is_of(skips, work), out, skips.c.item.in_(select(slots.c.item).where(own)))
    said: dict[str, list[Said]] = defaultdict(list)
    for each in connection.execute(asked.order_by(skips.c.created.desc())):
        said[each.item].append(Said(each.labeler, each.reason, each.note, each.final, each.created))
    shown = [item for item, words in said.items() if item in aside or any(word.final for word in words)]
    known = [] if work.task in NEW else shown
    prompts = dict(zip(known, (prompt for prompt, _ in with_responses(connection, work, known)), strict=True))
    return [Passed(work, item, prompts.get(item), item in aside, tuple(said[item])) for item in shown]


def put_back(store: Store, author: str, work: Work, item: str) -> bool:
    """Forget that the item was passed over and give it out again; False where nobody had passed it over."""

    def put(connection: Connection) -> bool:
        store.take_turns(connection, works)
        own = and_(is_of(skips, work), skips.c.item == item)
        rows = connection.execute(select(skips).where(own)).all()
        final = [row.labeler for row in rows if row.final]
        at = and_(is_of(slots, work), slots.c.item == item, slots.c.labeler.in_(final))
        connection.execute(slots.update().where(at).values(OPEN))
        connection.execute(delete(skips).where(own))
        words = [{"labeler": row.labeler, "reason": row.reason, "note": row.note} for row in rows]
        if rows:
            note_event(connection, author, "put back", task=work.task, item=item, said=words)
        return bool(rows)

    return store.write(put)
