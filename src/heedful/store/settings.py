"""What a project's leads may change: the boxes, how often an item of known answer comes, …"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select

from heedful.store.database import Store, timestamp
from heedful.store.schema import settings


class Number(NamedTuple):
    """A setting that is a number: what it is while nobody has changed it, and between which it lies."""

    default: float
    least: float
    most: float


NUMBERS: dict[str, Number] = {
    "gold_rate": Number(0.05, 0, 1),  # share of a labeler's items whose answer is known
    "lease_minutes": Number(45, 1, 24 * 60),  # an item is its labeler's for so long after the page last spoke
    "set_aside": Number(2, 1, 20),  # labelers who pass an item over, after whom nobody else is asked
    "pass_agreement": Number(0.75, 0, 1),  # in the screening, with the leads, from which on it is enough
    "pass_grade": Number(6, 1, 7),  # of responses written in the screening, from which on it is enough
}


READ = ""  # no setting's key: that they were read, even where there are none
ALL = select(settings.c.key, settings.c.value)


class Box(NamedTuple):
    """What can be ticked, of a response or of a chat. One that is no longer shown stays, so that what was ticked can be
    read."""

    name: str  # the key in judgements: never changed
    labels: Mapping[str, str]  # locale → what labelers read; "en" stands in where a locale has none
    shown: bool = True


def read_setting(connection: Connection, key: str, default: Any) -> Any:
    """What the project has put there. A transaction reads all settings at once: every page asks for several."""
    known = connection.get_execution_options()["heedful_settings"]
    if not known:
        known |= {READ: True} | {name: value for name, value in connection.execute(ALL)}
    return known.get(key, default)


def read_number(connection: Connection, key: str) -> float:
    """One of NUMBERS, as the project has it."""
    return float(read_setting(connection, key, NUMBERS[key].default))


def write_setting(store: Store, key: str, value: Any, author: str) -> None:
    store.write(lambda connection: put_setting(connection, key, value, author))


def put_setting(connection: Connection, key: str, value: Any, author: str) -> None:
    """`write_setting` inside a transaction."""
    values = {"key": key, "value": value, "author": author, "changed": timestamp()}
    connection.execute(delete(settings).where(settings.c.key == key))
    connection.execute(settings.insert().values(values))
    connection.get_execution_options()["heedful_settings"].clear()


def read_boxes(connection: Connection, default: Mapping[str, str], locale: str = "en") -> dict[str, str]:
    """The boxes that are shown with a response, name → what labelers read, in order."""
    found = all_boxes(connection, default)
    return {box.name: box.labels.get(locale) or box.labels["en"] for box in found if box.shown}


def all_boxes(connection: Connection, default: Mapping[str, str], key: str = "boxes") -> list[Box]:
    """Every box there is or was, of the setting `key`."""
    found = read_setting(connection, key, None)
    if found is None:
        return [Box(name, {"en": label}) for name, label in default.items()]
    return [Box(box["name"], box["labels"], box.get("shown", True)) for box in found]


def put_boxes(connection: Connection, boxes: list[Box], author: str, key: str = "boxes") -> None:
    """The boxes in their order, in place of those before."""
    put_setting(connection, key, [box._asdict() for box in boxes], author)
