"""Chat with a model that answers each message twice: the labeler chooses, and the chosen answer goes on.

As Bai et al. collected theirs (arXiv 2204.05862, section 2); each choice is stored as a comparison at once, see
`heedful.store.chats`, so finishing only says that nothing more comes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from heedful.store.database import Store
from heedful.web.tasks import chatting
from heedful.web.tasks.base import Item
from heedful.web.tasks.compare import CHOICES

TEMPLATE = "chat.html"


def show(connection: Connection, item: Item) -> dict[str, Any]:
    return chatting.show(connection, item) | {"choices": CHOICES, "harms": {}}


def read(item: Item, fields: Mapping[str, Any]) -> list[Any]:
    return []


def save(store: Store, item: Item, made: Sequence[Any], guideline: str, seconds: float | None) -> bool:
    """Raises Problems where there is nothing to finish, or a choice to make."""
    return chatting.close(store, item, {"guideline": guideline}, seconds)


def stored(connection: Connection, item: Item) -> dict[str, str]:
    return {}
