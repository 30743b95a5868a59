"""Rate one response: overall 1-7 and the boxes of InstructGPT's table 3 (arXiv 2203.02155).

The item is a response. Marks that it got on the ranking page, by the same labeler for the same purpose, are the same
judgement.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from heedful.store.labels import Judgement
from heedful.types import Rating
from heedful.web.tasks.base import Item, Problem, Problems, check_shown, common, current, id_of, shown
from heedful.web.tasks.rank import MARKS, whole
from heedful.web.words import N_

TEMPLATE = "rate.html"


def show(connection: Connection, item: Item) -> dict[str, Any]:
    return {"marks": MARKS, "shown": shown(item.responses)}


def read(item: Item, fields: Mapping[str, Any]) -> list[Judgement]:
    """The rating.

    Raises:
        Problems: there is no mark.
    """
    check_shown(item.responses, fields)
    if whole(fields.get("overall")) not in MARKS:
        raise Problems([Problem("overall", N_("Give the response an overall mark."), {})])
    (response,) = item.responses
    rating = Rating(
        id=id_of(item, "rating", response.id),
        response_id=response.id,
        overall=whole(fields["overall"]),
        flags={box: f"box-{box}" in fields for box in item.boxes},
        purpose=item.slot.work.purpose,
        **common(item),
    )
    return [rating]


def stored(connection: Connection, item: Item) -> dict[str, str]:
    (response,) = item.responses
    for rating in current(connection, Rating, item):
        if rating.response_id == response.id:
            ticked = {f"box-{box}": "yes" for box, ticked in rating.flags.items() if ticked}
            return {"overall": str(rating.overall), **ticked}
    return {}
