"""What red teaming and chats of two answers share: whose chat it is, its limits, and how it is finished."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from heedful.store import accounts
from heedful.store.chats import Chat, Kind, find_chat, mark
from heedful.store.database import Store
from heedful.store.slots import finish
from heedful.web.tasks.base import Item, Problem, Problems, believed, id_of
from heedful.web.words import N_

KIND: dict[str, Kind] = {"red_team": "red_team", "chat": "pairs"}
LONGEST_MESSAGE = 8000  # characters
TURNS, MOST_TURNS = 20, 100
TOKENS, MOST_TOKENS = 512, 4096  # of an answer


def new_chat(item: Item, models: Sequence[str] = ()) -> Chat:
    """The labeler's chat of the item before it begins."""
    task, work = item.slot.work.task, item.slot.work
    return Chat(id_of(item, task, item.slot.item), item.labeler, KIND[task], tuple(models), work.round, (), {})


def chat_of(connection: Connection, item: Item) -> Chat:
    return find_chat(connection, new_chat(item).id) or new_chat(item)


def number(options: Mapping[str, Any], name: str, default: float, least: float, most: float) -> float:
    """The option within its limits; the default where it is no number."""
    value = options.get(name, default)
    return min(most, max(least, value)) if isinstance(value, int | float) else default


def turns_of(item: Item) -> int:
    return int(number(item.options, "turns", TURNS, 1, MOST_TURNS))


def show(connection: Connection, item: Item) -> dict[str, Any]:
    """`turns` are the turns with all their answers; `unsent` is the message that has got none."""
    chat = chat_of(connection, item)
    turns = [turn for i, turn in enumerate(chat.turns) if chat.answered(i)]
    unsent = chat.turns[-1].text if len(turns) < len(chat.turns) else ""
    left = turns_of(item) - len(turns)
    return {"chat": chat, "turns": turns, "unsent": unsent, "left": left, "longest": LONGEST_MESSAGE}


def close(store: Store, item: Item, marks: Mapping[str, Any], seconds: float | None) -> bool:
    """Finish the chat, or correct its marks; True where it is new. Earlier marks stay among the events.

    Raises:
        Problems: it has no answer, or the last two wait for a choice.
        Taken: the lease had run out and others filled every slot of the item.
    """

    def put(connection: Connection) -> bool:
        chat = chat_of(connection, item)
        if not any(chat.answered(i) for i in range(len(chat.turns))):
            raise Problems([Problem("message", N_("Send a message first, and read the answer."), {})])
        if not chat.open and chat.answered(len(chat.turns) - 1):
            raise Problems([Problem("choice", N_("Choose between the last two answers first."), {})])
        changed = any(chat.marks.get(name) != value for name, value in marks.items())
        new = finish(connection, item.slot.work, item.slot.item, item.labeler, believed(seconds), changed)
        if not new and not changed:
            return False
        mark(connection, chat.id, marks)
        was = {} if new else {"was": dict(chat.marks)}
        detail = {"key": item.slot.key, "task": item.slot.work.task, "item": item.slot.item} | was
        accounts.note(connection, item.labeler, "submitted" if new else "revised", **detail)
        return new

    return store.write(put)
