"""The test of new labelers: what a candidate sees of it, and what the leads do with it."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import select

from heedful.config import InputError
from heedful.store import screening
from heedful.store.accounts import Account
from heedful.store.adjudication import texts_of
from heedful.store.schema import grades
from heedful.store.settings import write_setting
from heedful.web.routes.lead_tasks import POOLS
from heedful.web.routes.work import lease_minutes
from heedful.web.visit import Fields, Forbidden, Lead, NotFound, Visit, Worker, text_of
from heedful.web.words import N_

router = APIRouter()
TOPICS = {
    "gender": N_("Gender"),
    "orientation": N_("Sexual orientation"),
    "race": N_("Race and ethnic origin"),
    "religion": N_("Religion and belief"),
    "nationality": N_("Nationality and migration"),
    "disability": N_("Disability and illness"),
    "age": N_("Age"),
    "body": N_("Appearance and body"),
    "class": N_("Poverty and social standing"),
    "politics": N_("Politics"),
    "violence": N_("Violence and crime"),
    "self_harm": N_("Self-harm and suicide"),
    "sexual": N_("Sexual content"),
    "drugs": N_("Drugs and addiction"),
}
MOST_ITEMS, MOST_WORDS = 200, 2000
MOST_FOUND = 50  # prompts that a search shows


@router.get("/screening")
def own_page(here: Worker) -> Response:
    """The candidate's parts and how far they are."""
    account = here.account
    if not screening.is_candidate(account):
        return here.redirect("/")
    with here.store.read() as connection:
        found = screening.result(connection, account)
    left = sum(part.left for part in found.parts)
    return here.page("screening.html", parts=found.parts, left=left, answers=found.answers, topics=TOPICS)


@router.post("/screening/answers")
def keep_answers(here: Worker, form: Fields) -> Response:
    """The candidate's self-assessment."""
    if not screening.is_candidate(here.account):
        raise Forbidden("candidate")
    chosen = [str(value) for value in form.getlist("topics") if value in TOPICS]
    answers = {"topics": chosen, "more": text_of(form, "more").strip()[:MOST_WORDS]}
    screening.keep_answers(here.store, here.account.id, answers)
    return here.redirect("/screening?notice=revised")


@router.get("/lead/screening")
def lead_page(here: Lead) -> Response:
    return shown(here)


def shown(here: Visit, status: int = 200, problem: str = "", fields: Mapping[str, str] | None = None) -> Response:
    """The test's items, who has judged them as a reference, and the candidates with their figures."""
    asked = here.request.query_params
    find = {name: asked.get(name, "")[:MOST_WORDS] for name in ("find", "pool")}
    with here.store.read() as connection:
        given = "find" in asked
        results = screening.find_prompts(connection, find["find"], find["pool"], MOST_FOUND + 1) if given else None
        plan = screening.plan(connection)
        own = screening.parts_of(connection, here.account)
        people = [(each, screening.result(connection, each)) for each in screening.candidates(connection)]
        texts = texts_of(connection, [item for of_task in plan.values() for _, item in of_task])
        judged = screening.judged_by(connection)
        cuts = screening.cut_offs(connection)
    ids = {task: [item for _, item in items] for task, items in plan.items()}
    chosen = {task: "\n".join(items) for task, items in ids.items()}
    values: dict[str, Any] = {
        "plan": plan,
        "people": people,
        "cuts": cuts,
        "texts": texts,
        "judged": judged,
    }
    values |= {"find": find, "results": results, "chosen": ids, "most": MOST_FOUND, "pools": POOLS}
    values |= {"own": own, "fields": fields or chosen, "problem": problem, "topics": TOPICS}
    return here.page("screening_lead.html", status, **values)


@router.post("/lead/screening/items")
def set_items(here: Lead, form: Fields) -> Response:
    """The test's items: ids of prompts, a line each, or as many as are asked for, chosen by themselves."""
    fields = {task: text_of(form, task) for task in screening.TASKS}
    try:
        with here.store.read() as connection:
            wanted = {}
            for task, text in fields.items():
                number = text_of(form, f"number-{task}")
                whole = number.isascii() and number.isdigit() and len(number) < 6
                if number and not (whole and int(number) <= MOST_ITEMS):
                    raise InputError(here.say(N_("A test has at most %(most)s items of a kind."), most=MOST_ITEMS))
                listed = text.split()
                wanted[task] = screening.some_prompts(connection, task, int(number)) if number else listed
            items = screening.check_plan(connection, wanted)
    except InputError as error:
        return shown(here, 422, here.why(error), fields)
    write_setting(here.store, "screening", items, here.account.id)
    return here.redirect("/lead/screening")


@router.post("/lead/screening/add")
def add_items(here: Lead, form: Fields) -> Response:
    """Prompts that were found and ticked, beside those the test has."""
    try:
        with here.store.read() as connection:
            items = screening.plan(connection)
            ticked = {task: [str(id) for id in form.getlist(f"add-{task}")] for task in screening.TASKS}
            for task, new in screening.check_plan(connection, ticked).items():
                there = {id for _, id in items[task]}
                items[task] += [pair for pair in new if pair[1] not in there]
        if max(len(of_task) for of_task in items.values()) > MOST_ITEMS:
            raise InputError(here.say(N_("A test has at most %(most)s items of a kind."), most=MOST_ITEMS))
    except InputError as error:
        return shown(here, 422, here.why(error))
    write_setting(here.store, "screening", items, here.account.id)
    query = urlencode({name: text_of(form, name) for name in ("find", "pool")})
    return here.redirect(f"/lead/screening?{query}#found")


@router.post("/lead/screening/judge")
def judge(here: Lead, form: Fields) -> Response:
    """The next item of the test that the lead has not judged: theirs are what candidates are compared with."""
    slot = screening.next_slot(here.store, here.account, lease_minutes(here), "ranking")
    return here.redirect(f"/item/{slot.key}" if slot else "/lead/screening")


@router.get("/lead/screening/{name:path}")
def candidate_page(here: Lead, name: str) -> Response:
    return shown_candidate(here, name)


def shown_candidate(here: Visit, name: str, status: int = 200, problem: str = "") -> Response:
    """One candidate: the four parts, the demonstrations to grade, the decision."""
    with here.store.read() as connection:
        account = candidate(here, name)
        found = screening.result(connection, account)
        written = screening.written(connection, account.id)
        asked = select(grades.c.demonstration_id, grades.c.grade).where(grades.c.grader == here.account.id)
        own = dict(tuple(row) for row in connection.execute(asked))
        texts = texts_of(connection, [each.prompt_id for each in written])
        cuts = screening.cut_offs(connection)
    values: dict[str, Any] = {"person": account, "found": found, "written": written, "own": own, "texts": texts}
    return here.page("screening_candidate.html", status, **values, cuts=cuts, topics=TOPICS, problem=problem)


def candidate(here: Visit, name: str) -> Account:
    with here.store.read() as connection:
        found = [each for each in screening.candidates(connection) if each.id == name]
    if not found:
        raise NotFound
    return found[0]


@router.post("/lead/screening/{name:path}/grade")
def grade(here: Lead, name: str, form: Fields) -> Response:
    """The lead's grades of the candidate's demonstrations."""
    account = candidate(here, name)
    with here.store.read() as connection:
        theirs = [each.id for each in screening.written(connection, account.id)]
    for number, id in enumerate(theirs):
        mark = text_of(form, f"grade-{number}")
        if mark and text_of(form, f"id-{number}") == id:
            if mark not in "1234567":
                return shown_candidate(here, name, 422, here.say(N_("A grade is a whole number from 1 to 7.")))
            screening.grade(here.store, id, here.account.id, int(mark))
    return here.redirect(f"/lead/screening/{quote(name, safe='')}")


@router.post("/lead/screening/{name:path}/decide")
def decide(here: Lead, name: str, form: Fields) -> Response:
    """Pass, fail, or take it again."""
    account = candidate(here, name)
    try:
        screening.decide(here.store, account.id, text_of(form, "verdict"), here.account.id)
    except InputError as error:
        return shown_candidate(here, name, 422, here.why(error))
    return here.redirect("/lead/screening")
