"""What labelers disagree about, the worst first, and the lead's own ranking of it."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import Connection, select

from heedful.config import InputError
from heedful.store.adjudication import consensus, disputes, rankings_of, texts_of
from heedful.store.counted import disagreement, task_of
from heedful.store.database import timestamp
from heedful.store.gold import mark
from heedful.store.progress import Work
from heedful.store.records import is_current, select_records
from heedful.store.schema import rankings, ratings, responses, works
from heedful.store.settings import read_boxes
from heedful.store.slots import Slot, own_slot
from heedful.types import Rating
from heedful.web.routes.quality import PURPOSES, counting, purpose_of
from heedful.web.routes.work import guideline_of, seconds_of, shown_guideline
from heedful.web.tasks import rank
from heedful.web.tasks.base import BOXES, Item, Problems, load_item, save
from heedful.web.visit import Fields, Lead, NotFound, Visit, text_of

router = APIRouter()


@router.get("/lead/adjudicate")
def queue_page(here: Lead) -> Response:
    purpose = purpose_of(here)
    with counting(here, purpose) as (connection, counted):
        found = disputes(connection, counted)
        texts = texts_of(connection, [dispute.prompt for dispute in found])
    return here.page("quality_disputes.html", found=found, texts=texts, purpose=purpose, purposes=PURPOSES)


@router.get("/lead/adjudicate/item")
def item_page(here: Lead) -> Response:
    """The labelers' rankings side by side, what they say on average, and the lead's own form; `fill` fills it in."""
    asked = here.request.query_params
    with here.store.read() as connection:
        item = item_of(connection, here, asked.get("prompt", ""), asked.get("round", ""))
        fields: Mapping[str, Any] = rank.stored(connection, item)
        if not fields and asked.get("fill"):
            fields = proposal(connection, here, item)
        return shown(connection, here, item, fields)


def item_of(connection: Connection, here: Visit, prompt: str, round: str) -> Item:
    """The item as the lead's own; NotFound where there is nothing to rank."""
    if not (round.isascii() and round.isdigit() and len(round) < 6):
        raise NotFound
    work = Work("ranking", round=int(round), group=here.account.group, purpose="screening")
    there = select(responses.c.id).where(responses.c.prompt_id == prompt, responses.c.round == work.round)
    if len(connection.execute(there.limit(2)).all()) < 2:
        raise NotFound
    boxes = {name: here.say(label) for name, label in read_boxes(connection, BOXES, here.locale).items()}
    return load_item(connection, Slot("", work, prompt, here.account.id, None), here.account.id, boxes)


def shown(
    connection: Connection, here: Visit, item: Item, fields: Mapping[str, Any], status: int = 200, **more: Any
) -> Response:
    purpose = purpose_of(here)
    found = rankings_of(connection, item.slot.item, item.slot.work.round, purpose)
    own = [ratings.c.prompt_id == item.slot.item, ratings.c.purpose == purpose, is_current(ratings)]
    given = {(rating.labeler, rating.response_id): rating for rating in select_records(connection, Rating, *own)}
    values: dict[str, Any] = {"item": item, "fields": fields, "found": found, "given": given, "purpose": purpose}
    values |= {"consensus": consensus(found), "distance": disagreement(found), "problems": []}
    values |= {"guideline": guideline_of(connection, here, item.slot.work)}
    return here.page("quality_adjudicate.html", status, **values | rank.show(connection, item) | more)


def proposal(connection: Connection, here: Visit, item: Item) -> dict[str, str]:
    """The fields that say the consensus: mean places, the median mark (the lower one of two), a majority's boxes."""
    purpose = purpose_of(here)
    places = consensus(rankings_of(connection, item.slot.item, item.slot.work.round, purpose))
    own = [ratings.c.prompt_id == item.slot.item, ratings.c.purpose == purpose, is_current(ratings)]
    marks = select_records(connection, Rating, *own)
    fields = {}
    for letter, response in item.lettered:
        given = [rating for rating in marks if rating.response_id == response.id]
        if response.id in places:
            fields[f"rank-{letter}"] = str(places[response.id])
        if given:
            overall = sorted(rating.overall for rating in given)
            fields[f"overall-{letter}"] = str(overall[(len(overall) - 1) // 2])
        for box in item.boxes:
            if 2 * sum(rating.flags.get(box, False) for rating in given) > len(given):
                fields[f"box-{letter}-{box}"] = "yes"
    return fields


@router.post("/lead/adjudicate/item")
def submit(here: Lead, form: Fields) -> Response:
    """Keep the lead's ranking, and make it the answer of a gold item where that is wished."""
    fields = {name: text_of(form, name) for name in form if name not in ("csrf", "guideline")}
    with here.store.read() as connection:
        item = item_of(connection, here, text_of(form, "prompt"), text_of(form, "round"))
        guideline = shown_guideline(connection, form)
        try:
            made = rank.read(item, fields)
        except Problems as problems:
            return shown(connection, here, item, fields, 422, problems=problems.found)
    expires = timestamp(datetime.now(UTC) + timedelta(hours=1))

    def take(connection: Connection) -> Slot:
        here.store.take_turns(connection, works)
        return own_slot(connection, item.slot.work, item.slot.item, here.account.id, expires)

    slot = here.store.write(take)
    save(here.store, item._replace(slot=slot), made, guideline, seconds_of(form))
    if text_of(form, "gold"):
        try:
            mark(here.store, own_ranking(here, item), here.account.id)
        except InputError as error:
            with here.store.read() as connection:
                return shown(connection, here, item, fields, 422, failed=here.why(error))
    return here.redirect(f"/lead/adjudicate?purpose={purpose_of(here)}")


def own_ranking(here: Visit, item: Item) -> str:
    """The id of the lead's ranking of the item that stands."""
    work = item.slot.work
    own = [rankings.c.labeler == here.account.id, rankings.c.prompt_id == item.slot.item, is_current(rankings)]
    asked = select(rankings.c.id).where(*own, rankings.c.purpose == work.purpose, rankings.c.round == work.round)
    with here.store.read() as connection:
        return next(id for id in connection.execute(asked).scalars() if task_of(id) == "ranking")
