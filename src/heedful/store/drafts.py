"""Drafts: what a labeler's page holds before it is submitted.

A draft has a version, and so has an item without one, by when it was submitted. Who names the version that theirs was
made from never takes the place of a newer one: a window left open knows nothing of what another one has saved.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, select

from heedful.store.database import Store, timestamp
from heedful.store.progress import is_of
from heedful.store.schema import drafts
from heedful.store.slots import Slot, find_slot, key_of


class Draft(NamedTuple):
    content: dict[str, str]
    saved: str


class Newer(Exception):
    """The labeler's draft, or what they submitted, is newer than what was sent. `draft`: None where there is none."""

    def __init__(self, draft: Draft | None, version: str) -> None:
        super().__init__(version)
        self.draft, self.version = draft, version


def keep_draft(
    store: Store, slot: Slot, labeler: str, content: Mapping[str, Any], made_from: str | None = None
) -> Draft:
    """In place of the labeler's draft of the item before.

    Args:
        made_from: The version that the content was made from (`version_of`); None: whatever is there.

    Raises:
        Newer: another version is there by now.
    """
    draft = Draft(dict(content), timestamp())
    values = key_of(slot.work) | {"item": slot.item, "labeler": labeler, **draft._asdict()}

    def put(connection: Connection) -> None:
        if made_from is not None:
            there = read_draft(connection, slot, labeler)
            now = version_of(find_slot(connection, slot.key) or slot, there)
            if now != made_from:
                raise Newer(there, now)
        connection.execute(delete(drafts).where(_own(slot, labeler)))
        connection.execute(drafts.insert().values(values))

    store.write(put)
    return draft


def version_of(slot: Slot, draft: Draft | None) -> str:
    """What stands on the item's page: the draft, else what was submitted, else nothing."""
    return draft.saved if draft else slot.done or ""


def read_draft(connection: Connection, slot: Slot, labeler: str) -> Draft | None:
    row = connection.execute(select(drafts.c.content, drafts.c.saved).where(_own(slot, labeler))).first()
    return Draft(row.content, row.saved) if row else None


def drop_draft(store: Store, slot: Slot, labeler: str) -> None:
    store.write(lambda connection: connection.execute(delete(drafts).where(_own(slot, labeler))))


def _own(slot: Slot, labeler: str) -> Any:
    return and_(is_of(drafts, slot.work), drafts.c.item == slot.item, drafts.c.labeler == labeler)
