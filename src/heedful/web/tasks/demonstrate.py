"""Write what the model should have answered: a demonstration (arXiv 2203.02155, section 3.2)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from heedful.store.labels import Judgement
from heedful.types import Demonstration
from heedful.web.tasks.base import Item, Problem, Problems, common, current, id_of
from heedful.web.words import N_

TEMPLATE = "demonstrate.html"


def show(connection: Connection, item: Item) -> dict[str, Any]:
    return {}


def read(item: Item, fields: Mapping[str, Any]) -> list[Judgement]:
    """The demonstration, without the space around it.

    Raises:
        Problems: nothing is written.
    """
    text = str(fields.get("text", "")).replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        raise Problems([Problem("text", N_("Write a response first."), {})])
    shared = common(item)
    return [Demonstration(id=id_of(item, "demonstration", shared["prompt_id"]), text=text, **shared)]


def stored(connection: Connection, item: Item) -> dict[str, str]:
    return {"text": found[0].text} if (found := current(connection, Demonstration, item)) else {}
