"""What a project may want otherwise: the boxes of a response, and a few numbers. The tasks read them."""

import re
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from heedful.config import InputError
from heedful.store import accounts
from heedful.store.screening import SENSITIVE
from heedful.store.settings import NUMBERS, Box, all_boxes, put_boxes, put_setting, read_number, read_setting
from heedful.web.routes.lead_tasks import number_of
from heedful.web.tasks.base import BOXES
from heedful.web.visit import Fields, Lead, Visit, text_of
from heedful.web.words import N_, translations

router = APIRouter()
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
MOST_LABEL, MOST_BOXES, NEW_ROWS = 200, 60, 3
SAID = {
    "gold_rate": N_("Share of a labeler's items whose answer is known (0 to 1)"),
    "lease_minutes": N_("Minutes for which an item stays with its labeler after the page was last heard of"),
    "set_aside": N_("Labelers who pass an item over, after whom nobody else is asked"),
}


@router.get("/lead/settings")
def settings_page(here: Lead) -> Response:
    return shown(here)


def shown(here: Visit, status: int = 200, **more: Any) -> Response:
    with here.store.read() as connection:
        boxes = all_boxes(connection, BOXES)
        sensitive = set(read_setting(connection, "sensitive_boxes", SENSITIVE))
        numbers = {name: f"{read_number(connection, name):g}" for name in NUMBERS}
        read_all = bool(read_setting(connection, "read_all", False))
    values: dict[str, Any] = {
        "boxes": [row_of(box, place, sensitive) for place, box in enumerate(boxes, 1)],
        "numbers": numbers,
    }
    values["fresh"] = [{"name": "", "en": "", "zh_Hans": "", "sensitive": False}] * NEW_ROWS
    values |= {"said": SAID, "limits": NUMBERS, "read_all": read_all, "problem": "", "new_rows": NEW_ROWS}
    return here.page("lead_settings.html", status, **values | more)


def row_of(box: Box, place: int, sensitive: set[str]) -> dict[str, Any]:
    """A line of the form."""
    english = box.labels["en"]
    labels = {"en": english, "zh_Hans": box.labels.get("zh_Hans", "")}
    labels["by_itself"] = translations("zh_Hans").gettext(english)
    ticked = {"shown": box.shown, "sensitive": box.name in sensitive}
    return {"name": box.name, "place": str(place), **ticked, **labels}


@router.post("/lead/settings/numbers")
def save_numbers(here: Lead, form: Fields) -> Response:
    sent = {name: text_of(form, name) for name in NUMBERS}
    read_all = "read_all" in form
    try:
        values: dict[str, Any] = {
            name: number_of(here, sent[name], SAID[name], limit.least, limit.most) for name, limit in NUMBERS.items()
        }
    except InputError as error:
        return shown(here, 422, numbers=sent, read_all=read_all, problem=str(error))
    values["read_all"] = read_all

    def put(connection: Any) -> None:
        for name, value in values.items():
            if read_setting(connection, name, None) != value:
                put_setting(connection, name, value, here.account.id)
        accounts.note(connection, here.account.id, "changed settings", **values)

    here.store.write(put)
    return here.redirect("/lead/settings?notice=saved")


@router.post("/lead/settings/boxes")
def save_boxes(here: Lead, form: Fields) -> Response:
    """Labels, order, and which are shown. A box never goes away: ratings that have it stay readable."""
    with here.store.read() as connection:
        known = [box.name for box in all_boxes(connection, BOXES)]
    rows = [read_row(form, name, name) for name in known]
    fresh = [read_row(form, f"new-{n}", text_of(form, f"name-new-{n}").strip()) for n in range(NEW_ROWS)]
    problem = wrong(rows + [row for row in fresh if row["name"]], known)
    if problem:
        return shown(here, 422, boxes=rows, fresh=fresh, problem=here.say(problem))
    rows += [row for row in fresh if row["name"]]
    rows.sort(key=lambda row: int(row["place"]) if row["place"].isdecimal() else MOST_BOXES + 1)

    sensitive = [row["name"] for row in rows if row["sensitive"]]

    def put(connection: Any) -> None:
        put_boxes(connection, [box_of(row) for row in rows], here.account.id)
        put_setting(connection, "sensitive_boxes", sensitive, here.account.id)
        shown_now = [row["name"] for row in rows if row["shown"]]
        accounts.note(connection, here.account.id, "changed boxes", shown=shown_now, sensitive=sensitive)

    here.store.write(put)
    return here.redirect("/lead/settings?notice=saved")


def read_row(form: Any, key: str, name: str) -> dict[str, Any]:
    labels = {locale: text_of(form, f"{locale}-{key}").strip() for locale in ("en", "zh_Hans")}
    labels["by_itself"] = ""
    ticked = {name: f"{name}-{key}" in form for name in ("shown", "sensitive")}
    return {"name": name, "place": text_of(form, f"place-{key}").strip()[:4], **ticked, **labels}


def wrong(rows: list[dict[str, Any]], known: list[str]) -> str:
    """What stops the boxes from being saved; "" where nothing does."""
    names = [row["name"] for row in rows]
    if any(not NAME.fullmatch(name) for name in names if name not in known):
        return N_("A new box needs a name of small letters, digits and _, such as cites_source.")
    if len(set(names)) < len(names):
        return N_("Two boxes have the same name.")
    if any(not row["en"] for row in rows):
        return N_("Every box needs a label in English; labelers of other languages see it where theirs is missing.")
    if any(len(row[locale]) > MOST_LABEL for row in rows for locale in ("en", "zh_Hans")):
        return N_("A label has at most 200 characters.")
    if len(rows) > MOST_BOXES:
        return N_("These are too many boxes.")
    return ""


def box_of(row: dict[str, Any]) -> Box:
    labels = {locale: row[locale] for locale in ("en", "zh_Hans") if row[locale]}
    return Box(row["name"], labels, row["shown"])
