"""Guidelines: Markdown by task, purpose and language, in versions that are never changed."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import Connection

from heedful.store import accounts
from heedful.store.guidelines import add_guideline, changes, current_guideline, read_guideline, versions
from heedful.store.worklist import PURPOSES
from heedful.web.visit import Fields, Lead, NotFound, Visit, text_of
from heedful.web.words import LOCALES, N_

router = APIRouter()
MOST_TEXT = 100_000  # characters
PLACE = "/lead/guidelines/{task}/{purpose}/{language}"


@router.get("/lead/guidelines")
def guidelines_page(here: Lead) -> Response:
    """Every guideline with its newest version in each language."""
    with here.store.read() as connection:
        rows = [
            (task, purpose, [(language, newest(connection, task, purpose, language)) for language in LOCALES])
            for task, purposes in PURPOSES.items()
            for purpose in purposes
        ]
    return here.page("lead_guidelines.html", rows=rows)


def newest(connection: Connection, task: str, purpose: str, language: str) -> Any:
    found = versions(connection, task, purpose, language)
    return found[0] if found else None


def check(task: str, purpose: str, language: str) -> None:
    if purpose not in PURPOSES.get(task, ()) or language not in LOCALES:
        raise NotFound


@router.get(PLACE)
def guideline_page(here: Lead, task: str, purpose: str, language: str) -> Response:
    """The newest version to edit; `?version=3` shows an old one, `&with=2` how it came from another."""
    check(task, purpose, language)
    asked, other = here.request.query_params.get("version", ""), here.request.query_params.get("with", "")
    with here.store.read() as connection:
        found = versions(connection, task, purpose, language)
        name = f"{task}/{purpose}/{language}"
        old = read_guideline(connection, f"{name}/{asked}") if asked else None
        before = read_guideline(connection, f"{name}/{other}") if other else None
        text = current_text(connection, task, purpose, language)
    if (asked and old is None) or (other and (before is None or old is None)):
        raise NotFound
    compared = changes(before.text, old.text) if before and old else []
    shown_version: dict[str, Any] = {
        "version": asked,
        "other": other,
        "old": old.text if old else "",
        "compared": compared,
    }
    return shown(here, (task, purpose, language), text, found, **shown_version)


def current_text(connection: Connection, task: str, purpose: str, language: str) -> str:
    """The newest text of this very language; "" where labelers get the English one."""
    guideline = current_guideline(connection, task, purpose, language)
    return guideline.text if guideline.id.split("/")[2:3] == [language] else ""


def shown(here: Visit, place: tuple[str, str, str], text: str, found: Any, status: int = 200, **more: Any) -> Response:
    task, purpose, language = place
    values: dict[str, Any] = {"task": task, "purpose": purpose, "language": language, "text": text, "versions": found}
    values["base"] = str(found[0].number) if found else ""
    values |= {"version": "", "other": "", "old": "", "compared": [], "preview": "", "problem": "", "most": MOST_TEXT}
    return here.page("lead_guideline.html", status, **values | more)


@router.post(PLACE)
def save(here: Lead, task: str, purpose: str, language: str, form: Fields) -> Response:
    """A new version, or with the button "preview" only how it would look."""
    check(task, purpose, language)
    text = text_of(form, "text").strip()
    place = (task, purpose, language)
    with here.store.read() as connection:
        found = versions(connection, *place)
    newest_now = str(found[0].number) if found else ""
    problem = ""
    if not text:
        problem = N_("Write something first.")
    elif len(text) > MOST_TEXT:
        problem = N_("This is too long.")
    elif text_of(form, "do") == "preview":
        return shown(here, place, text, found, preview=text, base=text_of(form, "base"))
    elif text_of(form, "base") != newest_now:
        problem = N_("Somebody has saved another version meanwhile. Compare the two below, then save again.")
    if problem:
        return shown(here, place, text, found, 422, problem=here.say(problem), preview=text)
    return added(here, place, text + "\n")


@router.post(PLACE + "/restore")
def restore(here: Lead, task: str, purpose: str, language: str, form: Fields) -> Response:
    """An old version's text as the newest version."""
    check(task, purpose, language)
    place = (task, purpose, language)
    with here.store.read() as connection:
        old = read_guideline(connection, "/".join((*place, text_of(form, "version"))))
    if old is None:
        raise NotFound
    return added(here, place, old.text)


def added(here: Visit, place: tuple[str, str, str], text: str) -> Response:
    version = add_guideline(here.store, *place, text, here.account.id)
    detail = {"guideline": "/".join((*place, str(version)))}
    here.store.write(lambda connection: accounts.note(connection, here.account.id, "wrote guideline", **detail))
    return here.redirect("/lead/guidelines/" + "/".join(place) + "?notice=saved")
