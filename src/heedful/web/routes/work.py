"""A labeler's day: what there is to do, the next item, its page, drafts, submitting, passing over, editing."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse, Response
from sqlalchemy import Connection, and_, func, select

from heedful.store import screening
from heedful.store.adjudication import texts_of
from heedful.store.drafts import Newer, keep_draft, read_draft, version_of
from heedful.store.guidelines import Guideline, current_guideline, read_guideline
from heedful.store.passing import called_impossible, skip, unskip
from heedful.store.progress import Work
from heedful.store.records import select_records
from heedful.store.schema import responses, slots
from heedful.store.settings import read_boxes, read_number, read_setting
from heedful.store.slots import (
    Slot,
    Taken,
    claim,
    find_slot,
    is_fresh,
    offer,
    on_offer,
    prolong,
    submitted,
    tally,
)
from heedful.types import UNKNOWN_GUIDELINE
from heedful.types import Response as Sampled
from heedful.web.markdown import writable
from heedful.web.rules import rules_of
from heedful.web.tasks import TASKS
from heedful.web.tasks.base import BOXES, Item, Problems, load_item, save
from heedful.web.visit import Fields, Forbidden, Member, NotFound, Visit, Worker, text_of
from heedful.web.words import N_

router = APIRouter()
REASONS = {
    "unclear": N_("The prompt is unclear"),
    "language": N_("I do not know this language well enough"),
    "knowledge": N_("I do not know enough about this"),
    "upsetting": N_("I would rather not read this"),
    "other": N_("Something else"),
}


@router.get("/")
def home(here: Member) -> Response:
    """What the labeler can do, how far everybody is, and what they did last."""
    if here.account.role == "researcher":
        return here.redirect("/run")
    if screening.is_candidate(here.account):
        return here.redirect("/screening")
    with here.store.read() as connection:
        offered = [work for work, _ in on_offer(connection, here.account.group) if work.task in TASKS]
        counts = [tally(connection, work, here.account.id, here.account.languages) for work in offered]
        last = [shown(here, slot) for slot in submitted(connection, here.account.id, limit=10)]
        texts = asked_in(connection, last)
    rows = [
        {"work": work, "number": number, **count._asdict()}
        for number, (work, count) in enumerate(zip(offered, counts, strict=True))
    ]
    return here.page("home.html", rows=rows, last=last, texts=texts)


def asked_in(connection: Connection, done: Sequence[Slot]) -> dict[str, str]:
    """How the prompt of each item begins, by which its labeler knows it again; "" where they made the item."""
    rated = [slot.item for slot in done if slot.work.task == "rating"]
    prompt_of = {one.id: one.prompt_id for one in select_records(connection, Sampled, responses.c.id.in_(rated))}
    named = {slot.item: prompt_of.get(slot.item, slot.item) for slot in done}
    texts = texts_of(connection, sorted(set(named.values())))
    return {item: texts.get(prompt, "") for item, prompt in named.items()}


@router.post("/next")
def next_item(here: Worker, form: Fields) -> Response:
    """Lease the next item, of the work that was asked for or of any."""
    return to_next(here, text_of(form, "work"))


class Offer(NamedTuple):
    """What is on offer to a visitor, and for how long they get it."""

    minutes: float
    works: list[tuple[Work, dict[str, Any]]]


def offer_to(connection: Connection, here: Visit) -> Offer:
    return Offer(read_number(connection, "lease_minutes"), on_offer(connection, here.account.group))


def to_next(
    here: Visit, wanted: str = "", notice: str = "", submitted: str = "", offered: Offer | None = None
) -> Response:
    """The next item's page, or the first one. `submitted`: the key of what is in, by which its browser lets go."""
    of = f"of={submitted}&" if submitted else ""
    slot = next_slot(here, wanted, offered=offered)
    if slot is None and "/screening/" in wanted and here.account.leads:
        return here.redirect("/lead/screening")
    if slot is None:
        return here.redirect(f"/?{of}notice=done")
    return here.redirect(f"/item/{slot.key}" + (f"?{of}notice={notice}" if notice else ""))


def next_slot(
    here: Visit,
    wanted: str = "",
    only: bool = False,
    tasks: Collection[str] = TASKS.keys(),
    offered: Offer | None = None,
) -> Slot | None:
    """The visitor's next item, leased to them: of the work they want, or, unless `only`, of any where that is gone.

    `offered`: what this request has read of it already.
    """
    account = here.account
    if screening.is_candidate(account) or (account.leads and "/screening/" in wanted):
        return screening.next_slot(here.store, account, lease_minutes(here), wanted.partition("/")[0])
    for fresh in (False, True):  # where nothing is left, look once more for what came in since
        if fresh or offered is None:
            with here.store.read() as connection:
                offered = offer_to(connection, here)
        found = [(work, options) for work, options in offered.works if work.task in tasks]
        if wanted:
            found = [pair for pair in found if name_of(pair[0]) == wanted] or ([] if only else found)
        if fresh:
            for work, options in found:
                offer(here.store, work, options)
        works = [work for work, _ in found]
        slot = claim(here.store, works, account.id, offered.minutes, account.languages)
        if slot is not None:
            return slot
    return None


def shown(here: Visit, slot: Slot) -> Slot:
    """The slot as its page shows it: an item of known answer looks like any other."""
    return slot._replace(work=screening.shown_work(here.account, slot.work))


def name_of(work: Work) -> str:
    return f"{work.task}/{work.purpose}/{work.round}"


@router.get("/item/{key}")
def item_page(here: Worker, key: str) -> Response:
    """The item's form: empty, as the draft left it, or as it was submitted."""
    with here.store.read() as connection:
        slot, minutes = mine(connection, key, here), read_number(connection, "lease_minutes")
        if slot.done is not None or is_fresh(slot, here.account.id, minutes):
            return item_as_it_is(connection, here, slot)
    if not prolong(here.store, slot, here.account.id, minutes):
        return here.redirect("/?notice=taken")
    with here.store.read() as connection:
        return item_as_it_is(connection, here, slot)


def item_as_it_is(connection: Connection, here: Visit, slot: Slot) -> Response:
    item = read_item(connection, here, slot)
    fields = TASKS[slot.work.task].stored(connection, item) if slot.done else {}
    draft = read_draft(connection, slot, here.account.id)
    version = version_of(slot, draft)
    return filled(connection, here, item, draft.content if draft else fields, saved=draft is not None, version=version)


def mine(connection: Connection, key: str, here: Visit) -> Slot:
    """The slot, where it is the visitor's or open to them; what is done by others looks as if it were not there."""
    slot = find_slot(connection, key)
    if slot is None or slot.work.task not in TASKS or slot.work.group != here.account.group:
        raise NotFound
    if slot.labeler != here.account.id and not (slot.labeler is None or slot.done is None):
        raise NotFound
    if screening.is_candidate(here.account) and slot.work.purpose != "screening":
        raise NotFound
    return slot


def read_item(connection: Connection, here: Visit, slot: Slot) -> Item:
    item = load_item(connection, slot, here.account.id, labels(connection, here))
    return item._replace(rules=rules_of(connection, here.config.runs)) if slot.work.task == "prompt" else item


def labels(connection: Connection, here: Visit) -> dict[str, str]:
    """The boxes in the visitor's language; what the project's leads wrote stands as they wrote it."""
    return {name: here.say(label) for name, label in read_boxes(connection, BOXES, here.locale).items()}


def lease_minutes(here: Visit) -> float:
    with here.store.read() as connection:
        return read_number(connection, "lease_minutes")


def filled(
    connection: Connection, here: Visit, item: Item, fields: Mapping[str, Any], status: int = 200, **more: Any
) -> Response:
    """The task's page with its fields filled in."""
    task = TASKS[item.slot.work.task]
    slot = shown(here, item.slot)
    guideline = guideline_of(connection, here, slot.work)
    values: dict[str, Any] = {"item": item, "slot": slot, "fields": fields, "guideline": guideline}
    values |= {"reasons": REASONS, "problems": [], "saved": False, "work": name_of(slot.work)}
    if "version" not in more:
        values["version"] = version_of(item.slot, read_draft(connection, item.slot, here.account.id))
    values["impossible"] = called_impossible(connection, item.slot.work, item.slot.item, here.account.id)
    values |= task.show(connection, item) | more
    values |= {"read_all": read_setting(connection, "read_all", False), "done": own_done(connection, here, slot.work)}
    if fields.get("shown", values.get("shown")) != values.get("shown"):
        values["fields"] = {}  # what was said was said of other responses
    return here.page(task.TEMPLATE, status, **values)


def own_done(connection: Connection, here: Visit, work: Work) -> int:
    """Items of the work that the visitor has done, those of known answer among them."""
    purposes = (work.purpose, "screening") if work.purpose == "train" else (work.purpose,)
    own = and_(slots.c.labeler == here.account.id, slots.c.done.is_not(None), slots.c.purpose.in_(purposes))
    at = and_(slots.c.task == work.task, slots.c.round == work.round, own)
    return connection.execute(select(func.count()).select_from(slots).where(at)).scalar_one()


def guideline_of(connection: Connection, here: Visit, work: Work) -> Guideline:
    purpose = "train" if work.purpose == "screening" else work.purpose  # who is measured works as everybody does
    return current_guideline(connection, work.task, purpose, here.locale)


@router.post("/item/{key}")
def submit(here: Worker, key: str, form: Fields) -> Response:
    """Take the judgement in, once: sent again it changes nothing, changed it becomes the new version."""
    with here.store.read() as connection:
        slot = mine(connection, key, here)
        item = read_item(connection, here, slot)
        guideline, offered = shown_guideline(connection, form), offer_to(connection, here)
    task = TASKS[slot.work.task]
    fields = {name: text_of(form, name) for name in form if name not in ("csrf", "guideline")}
    if "press" in fields and hasattr(task, "pressed"):
        keep_draft(here.store, slot, here.account.id, task.pressed(item, fields))
        return here.redirect(f"/item/{key}")
    try:
        made = task.read(item, fields)
        keep = getattr(task, "save", save)
        new = keep(here.store, item, made, guideline, seconds_of(form))
    except Problems as problems:
        with here.store.read() as connection:
            return filled(connection, here, item, fields, 422, problems=problems.found)
    except Taken:
        keep_draft(here.store, slot, here.account.id, fields)
        return here.redirect("/?notice=taken")
    if not new:
        return here.redirect(f"/?of={key}&notice=revised")
    return to_next(here, name_of(shown(here, slot).work), "saved", key, offered)


def shown_guideline(connection: Connection, form: Mapping[str, Any]) -> str:
    """The version that stood on the page when it was filled in."""
    found = read_guideline(connection, text_of(form, "guideline"))
    return found.id if found else UNKNOWN_GUIDELINE


def seconds_of(form: Mapping[str, Any]) -> float | None:
    try:
        seconds = float(text_of(form, "seconds"))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) else None


@router.put("/item/{key}/draft")
def put_draft(here: Worker, key: str, fields: Annotated[dict[str, str], Body()]) -> Response:
    """Keep what the page holds so far, and the lease alive; 409 where another window has saved something newer."""
    check_header(here)
    with here.store.read() as connection:
        slot, minutes = mine(connection, key, here), read_number(connection, "lease_minutes")
    kept = slot.done is not None or prolong(here.store, slot, here.account.id, minutes)
    clean = {keepable(name): keepable(text) for name, text in fields.items()}
    try:
        draft = keep_draft(here.store, slot, here.account.id, clean, here.request.headers.get("x-draft-version"))
    except Newer as newer:
        return JSONResponse({"version": newer.version, "fields": newer.draft.content if newer.draft else {}}, 409)
    return JSONResponse({"version": draft.saved, "yours": kept})


@router.put("/item/{key}/lease")
def put_lease(here: Worker, key: str) -> Response:
    """Keep the lease alive, and nothing else: a page left open may be older than what is saved."""
    check_header(here)
    with here.store.read() as connection:
        slot, minutes = mine(connection, key, here), read_number(connection, "lease_minutes")
    return JSONResponse({"yours": slot.done is not None or prolong(here.store, slot, here.account.id, minutes)})


def keepable(text: str) -> str:
    """As a database and a page can hold it: JSON names NUL and halves of characters."""
    return writable(text).replace("\0", "")


def check_header(here: Visit) -> None:
    """Scripts send the session's token in a header; a form of another site cannot."""
    if here.session is None or here.request.headers.get("x-csrf-token") != here.session.csrf:
        raise Forbidden("a page of this session")


@router.post("/item/{key}/skip")
def skip_item(here: Worker, key: str, form: Fields) -> Response:
    """Pass the item over with a reason, or say that it cannot be judged."""
    with here.store.read() as connection:
        slot = mine(connection, key, here)
    reason = text_of(form, "reason")
    if reason not in REASONS and reason != "cannot":
        reason = "other"
    notice = "impossible" if reason == "cannot" else "skipped"
    skip(here.store, slot.work, slot.item, here.account.id, reason, text_of(form, "note")[:2000], reason == "cannot")
    return to_next(here, name_of(shown(here, slot).work), notice=f"{notice}&undo={key}")


@router.post("/item/{key}/unskip")
def undo_skip(here: Worker, key: str, form: Fields) -> Response:
    with here.store.read() as connection:
        slot = find_slot(connection, key)
    if slot is None or slot.work.group != here.account.group:
        raise NotFound
    unskip(here.store, slot.work, slot.item, here.account.id)
    return here.redirect(f"/item/{key}")
