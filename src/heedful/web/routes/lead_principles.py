"""The project's own principles: a book in YAML, as `heedful judge principles --principles FILE` takes it.

Whoever leads the project edits it here, brings one in by pasting it, and takes it out as a file. Until then the shipped
one stands in, from which the first edit begins.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from sqlalchemy import Connection

from heedful.config import InputError
from heedful.feedback.principles.book import SHIPPED, Book, book_of
from heedful.store.settings import read_setting, write_setting
from heedful.web.visit import Fields, Lead, Visit, text_of
from heedful.web.words import N_

router = APIRouter()
KEY = "principles"
MOST_TEXT = 200_000  # characters


def current(connection: Connection) -> str:
    """The project's book, else the shipped one."""
    return read_setting(connection, KEY, "") or SHIPPED.read_text(encoding="utf-8")


@router.get("/lead/principles")
def principles_page(here: Lead) -> Response:
    with here.store.read() as connection:
        text, own = current(connection), bool(read_setting(connection, KEY, ""))
    return shown(here, text, own)


@router.get("/lead/principles.yaml")
def principles_file(here: Lead) -> Response:
    with here.store.read() as connection:
        text = current(connection)
    name = {"Content-Disposition": 'attachment; filename="principles.yaml"'}
    return Response(text, media_type="application/yaml; charset=utf-8", headers=name)


@router.post("/lead/principles")
def save_principles(here: Lead, form: Fields) -> Response:
    """Keep the book; an empty one brings the shipped one back. One that will not do is shown again, with the reason."""
    text = text_of(form, "yaml")
    if wrong := problem(here, text):
        with here.store.read() as connection:
            own = bool(read_setting(connection, KEY, ""))
        return shown(here, text, own, wrong)
    write_setting(here.store, KEY, text if text.strip() else "", here.account.id)
    return here.redirect("/lead/principles?notice=saved")


def problem(here: Visit, text: str) -> str:
    """Why the text cannot be kept; "" where it can."""
    if len(text) > MOST_TEXT:
        return here.say(N_("One of the texts is too long."))
    try:
        if text.strip():
            book_of(text, "YAML")
    except InputError as error:
        return here.why(error)
    return ""


def shown(here: Visit, text: str, own: bool, error: str = "") -> Response:
    rows = [] if error else rows_of(book_of(text, "YAML"))
    names = list(rows[0]["weights"]) if rows else []
    values: Mapping[str, Any] = {"rows": rows, "collections": names, "own": own, "error": error, "most": MOST_TEXT}
    return here.page("lead_principles.html", 422 if error else 200, text=text, **values)


def rows_of(book: Book) -> list[dict[str, Any]]:
    """Each principle: its titles by language, and its weight in each collection; None where it does not stand there."""
    return [
        {
            "id": id,
            "titles": {language: wording.title for language, wording in texts if wording is not None},
            "weights": {name: weights.get(id) for name, weights in book.collections.items()},
        }
        for id, texts in book.principles.items()
    ]
