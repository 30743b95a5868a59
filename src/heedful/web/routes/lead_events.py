"""Who did what when, as it was written down; nothing here can be changed."""

import json
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response

from heedful.store import workforce
from heedful.web.visit import Lead
from heedful.web.words import N_

router = APIRouter()
AT_ONCE = 100
WHAT = {
    "logged in": N_("logged in"),
    "logged out everywhere": N_("logged out everywhere"),
    "submitted": N_("submitted an item"),
    "revised": N_("corrected an item"),
    "invited": N_("invited somebody"),
    "withdrew invitation": N_("withdrew an invitation"),
    "closed account": N_("closed an account"),
    "reopened account": N_("reopened an account"),
    "changed role": N_("changed a role"),
    "offered a new password": N_("made a link for a new password"),
    "set a new password": N_("set a new password"),
    "made token": N_("made a token"),
    "revoked token": N_("revoked a token"),
    "changed languages": N_("changed their languages"),
    "put on offer": N_("put work on offer"),
    "withdrew": N_("took work off offer"),
    "put back": N_("put an item back"),
    "wrote guideline": N_("wrote a guideline"),
    "changed settings": N_("changed settings"),
    "changed boxes": N_("changed the boxes"),
}


@router.get("/lead/events")
def events_page(here: Lead) -> Response:
    """The newest first, of one person or one kind where asked."""
    asked = {name: here.request.query_params.get(name, "").replace("\0", "") for name in ("account", "what", "before")}
    with here.store.read() as connection:
        rows = workforce.read_events(connection, **asked, limit=AT_ONCE + 1)
        kinds = workforce.kinds_of_events(connection)
        names = [person.id for person in workforce.people(connection)]
    older = f"{rows[AT_ONCE - 1].at}/{rows[AT_ONCE - 1].id}" if len(rows) > AT_ONCE else ""
    lines = [(row, {name: told(value) for name, value in row.detail.items()}) for row in rows[:AT_ONCE]]
    values: dict[str, Any] = {"rows": lines, "kinds": kinds, "names": names, "said": WHAT, "older": older}
    return here.page("lead_events.html", asked=asked, **values)


def told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
