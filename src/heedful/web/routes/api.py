"""The app for programs: what the labelers' pages do, as JSON, and what leads and researchers carry in and out.

Whoever asks sends a token (`Authorization: Bearer …`; `heedful label token` makes one) and may do what their pages
allow, by the same code. Sessions count for nothing here, so no other site can ask in a browser's name. The schema is
at /api/openapi.json.
"""

import hashlib
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from heedful.config import InputError
from heedful.store import accounts
from heedful.store.accounts import Session, find_token
from heedful.store.database import Store, timestamp
from heedful.store.drafts import keep_draft, read_draft
from heedful.store.guidelines import read_guideline
from heedful.store.intake import import_prompts
from heedful.store.jsonl import Kind, lines
from heedful.store.labels import add_response
from heedful.store.passing import skip, unskip
from heedful.store.progress import Work
from heedful.store.screening import is_candidate
from heedful.store.slots import Slot, Taken, on_offer, prolong, tally
from heedful.store.worklist import put_on_offer
from heedful.types import UNKNOWN_GUIDELINE
from heedful.types import Response as Sampled
from heedful.web.routes.api_fields import fields_of, strange
from heedful.web.routes.api_models import (
    ERRORS,
    Added,
    Ask,
    Done,
    DraftSaved,
    Me,
    NewPrompts,
    NewResponses,
    NewWork,
    Next,
    Offered,
    Saved,
    ShownGuideline,
    ShownItem,
    ShownPrompt,
    ShownResponse,
    Skip,
    Submission,
    TakenIn,
    WorkOnOffer,
    WorkProgress,
)
from heedful.web.routes.work import REASONS, guideline_of, lease_minutes, mine, name_of, next_slot, read_item, shown
from heedful.web.rules import rules_of
from heedful.web.tasks import TASKS
from heedful.web.tasks.base import Problem, Problems, save
from heedful.web.tasks.chatting import KIND
from heedful.web.visit import Forbidden, LoginNeeded, Visit
from heedful.web.words import N_

router = APIRouter(prefix="/api/v1", responses=ERRORS)
BY_FORM = [task for task in TASKS if task not in KIND]
bearer = HTTPBearer(auto_error=False, description="A token that `heedful label token` made.")


def bearer_visit(request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> Visit:
    """Whoever's token it is."""
    store = request.app.state.store
    with store.read() as connection:
        account = find_token(connection, sent.credentials) if sent else None
    if account is None:
        raise LoginNeeded
    return Visit(request, store, request.app.state.config, Session(account, csrf=""))


Anyone = Annotated[Visit, Depends(bearer_visit)]


def of_role(*roles: str) -> Any:
    def check(here: Anyone) -> Visit:
        if here.account.role not in roles:
            raise Forbidden(f"this is for: {', '.join(roles)}")
        return here

    return Depends(check)


Worker = Annotated[Visit, of_role("labeler", "lead", "admin")]
Reader = Annotated[Visit, of_role("researcher", "lead", "admin")]
Lead = Annotated[Visit, of_role("lead", "admin")]


@router.get("/me", tags=["label"])
def me(here: Anyone) -> Me:
    """Who the token's bearer is."""
    account = here.account
    return Me(id=account.id, role=account.role, group=account.group, languages=list(account.languages))


@router.get("/works", tags=["label"])
def works(here: Worker) -> list[WorkOnOffer]:
    """The works that are on offer to you, and how far they are; chats are held on their pages alone."""
    if is_candidate(here.account):
        return []  # `next` gives them the test's items, one after the other
    with here.store.read() as connection:
        found = [work for work, _ in on_offer(connection, here.account.group) if work.task in BY_FORM]
        tallies = [tally(connection, work, here.account.id, here.account.languages) for work in found]
    return [
        WorkOnOffer(work=name_of(work), task=work.task, purpose=work.purpose, round=work.round, **count._asdict())
        for work, count in zip(found, tallies, strict=True)
    ]


@router.post("/next", tags=["label"])
def next_item(here: Worker, ask: Ask) -> Next:
    """Lease the next item: the one you hold, else one that is open to you. Never a chat."""
    if ask.work.partition("/")[0] in KIND:
        raise InputError("chats are held on their pages, not over the API; ask for another work")
    slot = next_slot(here, ask.work, ask.only, BY_FORM)
    return Next(item=shown_item(here, slot) if slot else None)


@router.get("/items/{key}", tags=["label"])
def item(here: Worker, key: str) -> ShownItem:
    """The item; where it is not done, it is leased to you anew."""
    slot = slot_of(here, key)
    if slot.done is None and not prolong(here.store, slot, here.account.id, lease_minutes(here)):
        raise Taken("others have judged this item meanwhile; ask for the next one")
    return shown_item(here, slot)


def slot_of(here: Visit, key: str) -> Slot:
    """The slot, of a task that a form can do.

    Raises:
        InputError: it is a chat's.
    """
    with here.store.read() as connection:
        slot = mine(connection, key, here)
    if slot.work.task in KIND:
        raise InputError("chats are held on their pages, not over the API; ask for another work")
    return slot


def shown_item(here: Visit, slot: Slot) -> ShownItem:
    """What the item's page shows, and nothing else."""
    with here.store.read() as connection:
        item = read_item(connection, here, slot)
        task = TASKS[slot.work.task]
        page = task.show(connection, item)
        draft = read_draft(connection, slot, here.account.id)
        fields = draft.content if draft else task.stored(connection, item) if slot.done else {}
        guideline = guideline_of(connection, here, shown(here, slot).work)
    prompt, slot = item.prompt, shown(here, slot)
    return ShownItem(
        key=slot.key,
        work=name_of(slot.work),
        task=slot.work.task,
        purpose=slot.work.purpose,
        prompt=ShownPrompt(text=prompt.text, examples=list(prompt.examples)) if prompt else None,
        responses=[
            ShownResponse(letter=letter, text=response.text, finished=response.finished)
            for letter, response in page.get("pair", item.lettered)
        ],
        boxes=dict(item.boxes),
        guideline=ShownGuideline(id=guideline.id, text=guideline.text),
        fields=fields,
        shown=page.get("shown", ""),
        done=slot.done is not None,
    )


@router.post("/items/{key}", tags=["label"], response_model=Saved)
def submit(here: Worker, key: str, judged: Submission) -> Saved | Response:
    """Judge the item. Sent again it changes nothing; changed, it becomes the new version and the old one is kept."""
    slot = slot_of(here, key)
    task = TASKS[slot.work.task]
    with here.store.read() as connection:
        item = read_item(connection, here, slot)
        guideline = read_guideline(connection, judged.guideline) if judged.guideline else None
    fields = fields_of(judged, slot.work.task)
    problems = list(strange(item, fields))
    if judged.guideline and guideline is None:
        problems.append(Problem("guideline", N_("There is no guideline %(name)s."), {"name": judged.guideline}))
    try:
        if problems:
            raise Problems(problems)
        made = task.read(item, fields)
        keep = getattr(task, "save", save)
        new = keep(here.store, item, made, guideline.id if guideline else UNKNOWN_GUIDELINE, judged.seconds)
    except Problems as refused:
        told = [{"field": p.field, "message": here.say(p.message, **p.values)} for p in refused.found]
        return JSONResponse({"error": told[0]["message"], "problems": told}, 422)
    except Taken:
        keep_draft(here.store, slot, here.account.id, fields)
        raise
    return Saved(new=new)


@router.put("/items/{key}/draft", tags=["label"])
def draft(here: Worker, key: str, judged: Submission) -> DraftSaved:
    """Keep what there is so far, for the page and for you, and the lease alive."""
    slot = slot_of(here, key)
    yours = slot.done is not None or prolong(here.store, slot, here.account.id, lease_minutes(here))
    keep_draft(here.store, slot, here.account.id, fields_of(judged, slot.work.task))
    return DraftSaved(saved=timestamp(), yours=yours)


@router.post("/items/{key}/skip", tags=["label"])
def skip_item(here: Worker, key: str, why: Skip) -> Done:
    """Pass the item over, somebody else gets it; with the reason "cannot" it counts as judged: it cannot be."""
    slot = slot_of(here, key)
    reason = why.reason if why.reason in (*REASONS, "cannot") else "other"
    skip(here.store, slot.work, slot.item, here.account.id, reason, why.note[:2000], reason == "cannot")
    return Done()


@router.post("/items/{key}/unskip", tags=["label"])
def unskip_item(here: Worker, key: str) -> Done:
    """Undo that, where the item is still to be had."""
    slot = slot_of(here, key)
    unskip(here.store, slot.work, slot.item, here.account.id)
    return Done()


@router.get("/progress", tags=["lead"])
def progress(here: Reader) -> list[WorkProgress]:
    """How far every work on offer is."""
    with here.store.read() as connection:
        found = [(work, tally(connection, work, "")) for work, _ in on_offer(connection)]
    names = ("task", "purpose", "round", "group", "pool", "overlap")
    return [
        WorkProgress(**{name: getattr(work, name) for name in names}, done=count.done, total=count.total)
        for work, count in found
    ]


@router.post("/works", tags=["lead"])
def offer_work(here: Lead, asked: NewWork) -> Offered:
    """Put work on offer by the rules of the leads' page; asked again it brings what is on offer up to date."""
    work = Work(asked.task, asked.round, asked.pool, asked.overlap, asked.group, asked.purpose)
    options = {"number": asked.number} if asked.number else {}
    return Offered(open=put_on_offer(here.store, here.account.id, work, options))


@router.get(
    "/judgements/{kind}",
    tags=["lead"],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "Lines of `heedful label export`."}},
)
def judgements(
    here: Reader,
    kind: Kind,
    since: Annotated[str, Query(description="Only what was made later, as 2026-11-21T09:10:57.")] = "",
) -> Response:
    """Every current judgement of the kind, a line each, with all it speaks of; held-out labelers' as well."""
    return StreamingResponse(streamed(here.store, kind, since), media_type="application/x-ndjson")


def streamed(store: Store, kind: Kind, since: str) -> Iterator[bytes]:
    with store.read() as connection:
        for line in lines(connection, kind, since):
            yield line.encode() + b"\n"


@router.post("/prompts", tags=["lead"])
def take_prompts(here: Lead, came: NewPrompts) -> TakenIn:
    """Take prompts in by the project's rules of intake: all or nothing, and the same again changes nothing."""
    with here.store.read() as connection:
        rules = rules_of(connection, here.config.runs)
    report = import_prompts(here.store, came.prompts, rules, came.pool, came.round)
    here.store.write(lambda connection: accounts.note(connection, here.account.id, "prompts", kept=report.kept))
    return TakenIn(
        read=report.read, kept=report.kept, dropped=report.dropped, stored=report.stored, report=report.lines()
    )


@router.post("/responses", tags=["lead"])
def take_responses(here: Lead, came: NewResponses) -> Added:
    """Responses to judge, of prompts that are in the store; all or nothing."""
    records = [Sampled(**one.model_dump(exclude={"id"}), id=one.id or hashed(one)) for one in came.responses]
    new = add_response(here.store, *records, round=came.round)
    here.store.write(lambda connection: accounts.note(connection, here.account.id, "responses", new=new))
    return Added(new=new)


def hashed(response: Any) -> str:
    content = repr((response.prompt_id, response.model, response.text))
    return "r" + hashlib.sha256(content.encode()).hexdigest()[:19]
