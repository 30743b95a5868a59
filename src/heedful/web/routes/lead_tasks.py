"""What is on offer to labelers, how it goes, and what they passed over."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from heedful.config import InputError
from heedful.store import slots
from heedful.store.passing import passed_items, put_back
from heedful.store.pools import PAPER_SHARES
from heedful.store.progress import NEW, Work
from heedful.store.worklist import (
    PURPOSES,
    find_work,
    put_on_offer,
    standings,
    take_off_offer,
    work_at,
)
from heedful.web.models import NONE, trial
from heedful.web.routes.work import REASONS
from heedful.web.tasks import TASKS
from heedful.web.tasks.chatting import KIND, MOST_TOKENS, MOST_TURNS, TOKENS, TURNS
from heedful.web.visit import Fields, Lead, NotFound, Visit, text_of
from heedful.web.words import N_

router = APIRouter()
POOLS = ("", *dict.fromkeys(pool for shares in PAPER_SHARES.values() for pool in shares), "evaluation")
NAMES = ("task", "purpose", "round", "group", "pool")
MOST_ROUNDS, MOST_OVERLAP, MOST_ITEMS = 1000, 50, 100_000
FRESH = {
    **{"task": "ranking", "purpose": "train", "group": "train", "pool": "", "round": "0", "overlap": "1"},
    **{"number": "50", "plain": "1", "few_shot": "1", "user_based": "1", "applications": "", "turns": str(TURNS)},
    **{"temperature": "1", "max_tokens": str(TOKENS)},
}

CHAT = {  # of a work of chats: what it is called, the least and the most
    "turns": (N_("turns of a chat"), 1, MOST_TURNS),
    "temperature": (N_("temperature"), 0, 2),
    "max_tokens": (N_("most tokens of an answer"), 1, MOST_TOKENS),
}


@router.get("/lead/tasks")
def tasks_page(here: Lead) -> Response:
    return shown(here)


def shown(here: Visit, status: int = 200, **more: Any) -> Response:
    with here.store.read() as connection:
        rows = [row for row in standings(connection) if row.work.purpose != "screening"]
    values = {"rows": rows, "tasks": [task for task in PURPOSES if task in TASKS], "pools": POOLS, "new": NEW}
    values |= {"models": sorted(here.config.models), "fields": FRESH, "problem": "", "made": ""}
    values |= {"made": here.request.query_params.get("made", ""), "chat": CHAT, "chosen": (), "warnings": ()}
    return here.page("lead_tasks.html", status, **values | more)


@router.post("/lead/tasks/offer")
def put_new(here: Lead, form: Fields) -> Response:
    fields = {name: text_of(form, name) for name in form if name != "csrf"}
    try:
        work = work_of(here, fields)
        left = put_on_offer(here.store, here.account.id, work, options_of(here, work, form))
    except InputError as error:
        return shown(here, 422, fields=FRESH | fields, chosen=form.getlist("models"), problem=here.why(error))
    return offered(here, work, "offered", left)


def work_of(here: Visit, fields: Mapping[str, str]) -> Work:
    """The work that the form names.

    Raises:
        InputError: a field that names none, in the visitor's language.
    """
    chosen = [("task", tuple(TASKS)), ("purpose", ("train", "evaluation")), ("group", ("train", "heldout"))]
    for name, values in [*chosen, ("pool", POOLS)]:
        if fields.get(name, "") not in values:
            raise InputError(here.say(N_("Choose something else for %(field)s."), field=name))
    named: dict[str, Any] = {name: fields[name] for name in ("task", "purpose", "group")}
    round = int(number_of(here, fields.get("round", ""), N_("round"), 0, MOST_ROUNDS))
    overlap = number_of(here, fields.get("overlap", ""), N_("labelers per item"), 1, MOST_OVERLAP)
    pool: Any = fields["pool"] or None
    if named["task"] in NEW:
        pool, overlap = None, 1  # who makes an item is the only one who can
    return Work(round=round, pool=pool, overlap=overlap, **named)


def number_of(here: Visit, text: str, name: str, least: float, most: float) -> float:
    """The field's number. Raises InputError where it holds none or lies outside."""
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most:
        said = N_("%(name)s: give a number from %(least)s to %(most)s.")
        raise InputError(here.say(said, name=here.say(name), least=f"{least:g}", most=f"{most:g}"))
    return number


def options_of(here: Visit, work: Work, form: Any) -> dict[str, Any]:
    """What only the work's own task knows: of those whose items labelers make."""
    if work.task not in NEW:
        return {}
    number = number_of(here, text_of(form, "number"), N_("number of items"), 1, MOST_ITEMS)
    options: dict[str, Any] = {"number": int(number)}
    if work.task == "prompt":
        kinds = ("plain", "few_shot", "user_based")
        shares = {kind: text_of(form, kind) for kind in kinds}
        options["kinds"] = {
            k: number_of(here, text or "1", N_("share of a kind"), 0, 1000) for k, text in shares.items()
        }
        if not any(options["kinds"].values()):
            raise InputError(here.say(N_("At least one kind of prompt needs a share above 0.")))
        lines = text_of(form, "applications").splitlines()
        options["applications"] = [line.strip() for line in lines if line.strip()]
    else:
        options["models"] = [name for name in form.getlist("models") if name in here.config.models]
        for name, (said, least, most) in CHAT.items():
            options[name] = number_of(here, text_of(form, name) or FRESH[name], said, least, most)
        options |= {name: int(options[name]) for name in ("turns", "max_tokens")}
    return options


def there(here: Visit, form: Any) -> Any:
    """The row of the work whose names the form gives; NotFound where there is none."""
    named = {name: text_of(form, name) for name in NAMES}
    if not named["round"].isdecimal() or len(named["round"]) > 6 or any("\0" in name for name in named.values()):
        raise NotFound
    with here.store.read() as connection:
        place = named["task"], named["purpose"], int(named["round"]), named["group"], named["pool"]
        row = find_work(connection, *place)
    if row is None or row.purpose == "screening":
        raise NotFound
    return row


@router.post("/lead/tasks/change")
def change(here: Lead, form: Fields) -> Response:
    """Another overlap or number of items; or, with the same, slots for what has come in since."""
    row = there(here, form)
    try:
        options = dict(row.options)
        overlap = row.overlap
        if row.task in NEW:
            options["number"] = int(number_of(here, text_of(form, "number"), N_("number of items"), 1, MOST_ITEMS))
        else:
            overlap = number_of(here, text_of(form, "overlap"), N_("labelers per item"), 1, MOST_OVERLAP)
        work = replace(work_at(row), overlap=overlap)
        left = put_on_offer(here.store, here.account.id, work, options)
    except InputError as error:
        return shown(here, 422, problem=here.why(error))
    return offered(here, work, "changed", left)


def offered(here: Visit, work: Work, notice: str, left: int) -> Response:
    """Back to the page; of chats, each model is asked for a word first, for only here somebody learns why it fails."""
    warnings = faults(here, work) if work.task in KIND else []
    if warnings:
        return shown(here, notice=notice, made=str(left), warnings=warnings)
    return here.redirect(f"/lead/tasks?notice={notice}&made={left}")


def faults(here: Visit, work: Work) -> list[tuple[str, str, str]]:
    """Of each model of the chats that does not answer: its name, what labelers would read, what its server said."""
    with here.store.read() as connection:
        names = slots.options_of(connection, work).get("models") or sorted(here.config.models)
    tried = [(name, trial(here.config, name)) for name in names]
    found = [(name, here.say(error.message), str(error)[:500]) for name, error in tried if error]
    return found if names else [("", here.say(NONE), "heedful label serve --model NAME=URL")]


@router.post("/lead/tasks/withdraw")
def withdraw(here: Lead, form: Fields) -> Response:
    take_off_offer(here.store, here.account.id, work_at(there(here, form)))
    return here.redirect("/lead/tasks?notice=withdrawn")


@router.get("/lead/tasks/passed")
def passed_page(here: Lead) -> Response:
    """What labelers set aside or called impossible to judge, and why; of one work."""
    row = there(here, here.request.query_params)
    with here.store.read() as connection:
        items = passed_items(connection, work_at(row))
    return here.page("lead_passed.html", work=work_at(row), items=items, reasons=REASONS)


@router.post("/lead/tasks/back")
def back(here: Lead, form: Fields) -> Response:
    row = there(here, form)
    if not put_back(here.store, here.account.id, work_at(row), text_of(form, "item")):
        raise NotFound
    query = "&".join(f"{name}={getattr(row, name)}" for name in NAMES)
    return here.redirect(f"/lead/tasks/passed?{query}&notice=back")
