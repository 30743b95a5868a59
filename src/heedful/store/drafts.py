"""Drafts: what a labeler's page holds before it is submitted."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, select

from heedful.store.database import Store, timestamp
from heedful.store.progress import is_of
from heedful.store.schema import drafts
from heedful.store.slots import Slot, key_of


class Draft(NamedTuple):
    content: dict[str, str]
    saved: str


def keep_draft(store: Store, slot: Slot, labeler: str, content: Mapping[str, Any]) -> None:
    """In place of the labeler's draft of the item before."""
    values = key_of(slot.work) | {"item": slot.item, "labeler": labeler, "content": dict(content), "saved": timestamp()}

    def put(connection: Connection) -> None:
        connection.execute(delete(drafts).where(_own(slot, labeler)))
        connection.execute(drafts.insert().values(values))

    store.write(put)


def read_draft(connection: Connection, slot: Slot, labeler: str) -> Draft | None:
    row = connection.execute(select(drafts.c.content, drafts.c.saved).where(_own(slot, labeler))).first()
    return Draft(row.content, row.saved) if row else None


def drop_draft(store: Store, slot: Slot, labeler: str) -> None:
    store.write(lambda connection: connection.execute(delete(drafts).where(_own(slot, labeler))))


def _own(slot: Slot, labeler: str) -> Any:
    return and_(is_of(drafts, slot.work), drafts.c.item == slot.item, drafts.c.labeler == labeler)
