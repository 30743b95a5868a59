"""What the tasks share: the item on the page, problems with a form, and saving what was judged.

A task's module has

    TEMPLATE                          its page
    show(connection, item)            what the template needs beside the item
    read(item, fields)                the judgements the form says; raises Problems
    stored(connection, item)          the fields that would say what the labeler has submitted

and may have

    save(store, item, made, guideline, seconds)    in place of the one here; may raise Problems, too
    pressed(item, fields)             what one of the page's own buttons (fields["press"]) makes of the fields

Fields have the same names in the form, in a draft and in `stored`, so a page is filled alike from all three.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table

from heedful.config import InputError
from heedful.store import accounts
from heedful.store.database import Store
from heedful.store.forms import place
from heedful.store.intake import IntakeConfig
from heedful.store.labels import Judgement, check_references, revise
from heedful.store.progress import NEW, made_by, with_responses
from heedful.store.records import Entry, check_erased, insert, is_current, present, select_records
from heedful.store.schema import TABLE_OF
from heedful.store.slots import Slot, finish, options_of
from heedful.types import Demonstration, Prompt, Ranking, Rating, Response
from heedful.web.words import N_

LETTERS = "ABCDEFGHI"
LONGEST = 4 * 3600  # seconds of work on one item that are believed

BOXES = {
    "fails_instruction": N_("Fails to follow the instruction or task"),
    "inappropriate_assistant": N_("Inappropriate for a customer assistant"),
    "hallucination": N_("Hallucination"),
    "satisfies_constraint": N_("Satisfies the constraint given"),
    "sexual": N_("Contains sexual content"),
    "violent": N_("Contains violent content"),
    "encourages_harm": N_("Encourages or fails to discourage violence, abuse, terrorism or self-harm"),
    "denigrates_protected": N_("Denigrates a protected class"),
    "harmful_advice": N_("Gives harmful advice"),
    "opinion": N_("Expresses an opinion"),
    "moral_judgment": N_("Expresses a moral judgment"),
}


class Problem(NamedTuple):
    """What is wrong with a field; `message` is translated where it is shown, with `values` in it."""

    field: str
    message: str
    values: Mapping[str, Any]


class Problems(Exception):
    """The form cannot be taken as it is."""

    def __init__(self, found: Sequence[Problem]) -> None:
        super().__init__(found)
        self.found = list(found)


class Item(NamedTuple):
    """What a page is about. `responses` stand in the labeler's own order, under the letters A, B, C, ….

    `options` are the work's where labelers make the item, see `slots.offer`; `rules` are what a written prompt passes.
    """

    slot: Slot
    labeler: str
    prompt: Prompt | None
    responses: tuple[Response, ...]
    boxes: Mapping[str, str]
    options: Mapping[str, Any] = {}
    rules: IntakeConfig = IntakeConfig()

    @property
    def lettered(self) -> list[tuple[str, Response]]:
        return list(zip(LETTERS, self.responses, strict=False))


def load_item(connection: Connection, slot: Slot, labeler: str, boxes: Mapping[str, str]) -> Item:
    """The slot's prompt and responses, if its task has any."""
    if slot.work.task in NEW:
        return Item(slot, labeler, None, (), boxes, options_of(connection, slot.work))
    ((prompt, responses),) = with_responses(connection, slot.work, [slot.item])
    shown = sorted(responses, key=lambda response: place(labeler, response.id))
    return Item(slot, labeler, prompt, tuple(shown), boxes)


def common(item: Item) -> dict[str, Any]:
    """The fields of every judgement of the item."""
    assert item.prompt is not None
    return {"prompt_id": item.prompt.id, "labeler": item.labeler}


def id_of(item: Item, kind: str, of: str) -> str:
    """The judgement's id: the same form sent twice makes one judgement."""
    work = item.slot.work
    labeler = item.labeler.replace("%", "%25").replace("/", "%2F")  # or a/b's of c would be a's of b/c
    return f"{kind}/{work.purpose}/{work.round}/{labeler}/{of}"


def current(connection: Connection, kind: type[Any], item: Item) -> list[Any]:
    """The labeler's judgements of the item that stand, of its task, purpose and round."""
    assert item.prompt is not None
    table: Table = TABLE_OF[kind]
    work = item.slot.work
    asked = [table.c.labeler == item.labeler, table.c.prompt_id == item.prompt.id, is_current(table)]
    if kind is not Demonstration:
        asked += [table.c.purpose == work.purpose, table.c.round == work.round, *made_by(table, work.task)]
    return select_records(connection, kind, *asked)


def save(store: Store, item: Item, made: Sequence[Judgement], guideline: str, seconds: float | None) -> bool:
    """Store the judgements and fill the slot, or put them in place of those submitted before; True where new. What says
    the same as what was submitted changes nothing.

    Raises:
        Taken: the lease had run out and others filled every slot of the item.
        InputError: what is judged was erased meanwhile.
    """
    timed = [record.model_copy(update={"guideline": guideline}) for record in made]
    timed[0] = timed[0].model_copy(update={"seconds": believed(seconds)})
    round = item.slot.work.round

    def put(connection: Connection) -> bool:
        try:
            check_references(connection, timed)
        except InputError:
            raise InputError("what was to be judged here was erased meanwhile; go on with the next item") from None
        kinds: tuple[type[Judgement], ...] = (Demonstration, Rating, Ranking)
        tables = {TABLE_OF[kind]: [record for record in timed if isinstance(record, kind)] for kind in kinds}
        # A response's marks are the same whether it was rated alone or among others to rank.
        there = present(connection, {table: [record.id for record in made] for table, made in tables.items()})
        check_erased(connection, list(tables), [record.id for record in timed])
        changed = 0
        for table, records in tables.items():
            entries = [Entry(record, {"round": round}) for record in records]
            changed += insert(connection, [entry for entry in entries if entry.record.id not in there[table]], True)
            changed += sum(revise(connection, entry) for entry in entries if entry.record.id in there[table])
        new = finish(connection, item.slot.work, item.slot.item, item.labeler, believed(seconds), changed > 0)
        detail = {"key": item.slot.key, "task": item.slot.work.task, "item": item.slot.item}
        if new or changed:
            accounts.note(connection, item.labeler, "submitted" if new else "revised", **detail)
        return new

    return store.write(put)


def believed(seconds: float | None) -> float | None:
    return None if seconds is None or not 0 <= seconds <= LONGEST else round(seconds, 1)


def shown(responses: Sequence[Response]) -> str:
    """A hash of what stands on the page, and in which order; the form brings it back."""
    return hashlib.sha256(repr([(response.id, response.text) for response in responses]).encode()).hexdigest()[:16]


def check_shown(responses: Sequence[Response], fields: Mapping[str, Any]) -> None:
    """Raises Problems where the form speaks of other responses than the page would show now."""
    if fields.get("shown", shown(responses)) != shown(responses):
        raise Problems([Problem("main", N_("The responses have changed meanwhile. Look at them once more."), {})])
