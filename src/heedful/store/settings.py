"""What a project's leads may change: the boxes, how often an item of known answer comes, …"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select

from heedful.store.database import Store, timestamp
from heedful.store.schema import settings


def read_setting(connection: Connection, key: str, default: Any) -> Any:
    found = connection.execute(select(settings.c.value).where(settings.c.key == key)).first()
    return default if found is None else found.value


def write_setting(store: Store, key: str, value: Any, author: str) -> None:
    values = {"key": key, "value": value, "author": author, "changed": timestamp()}

    def put(connection: Connection) -> None:
        connection.execute(delete(settings).where(settings.c.key == key))
        connection.execute(settings.insert().values(values))

    store.write(put)


def read_boxes(connection: Connection, default: Mapping[str, str]) -> Mapping[str, str]:
    """The boxes of a response, name → what labelers read, in order."""
    found = read_setting(connection, "boxes", None)
    return default if found is None else {box["name"]: box["label"] for box in found}
