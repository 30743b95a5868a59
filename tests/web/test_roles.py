"""Every address of the app against every role: who may not come in is turned away, whatever else they send."""

import re
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from heedful.store.database import Store, open_store
from heedful.web.app import create_app
from web.conftest import Client, fill_people

PUBLIC = {"/login", "/join/{secret}", "/reset/{secret}", "/language"}
OF_READERS = ("/lead/quality", "/lead/chats", "/run", "/playground", "/principles")  # researchers come in here, too
OF_LEADS = ("/lead", *OF_READERS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_store(tmp_path_factory.mktemp("roles") / "store.db") as store:
        fill_people(store)
        yield store


def routes(store: Store) -> list[tuple[str, str]]:
    """(method, path) of all that is no static file."""
    found = [
        (method, route.path)
        for route in all_routes(create_app(store).routes)
        for method in sorted(route.methods - {"HEAD", "OPTIONS"})
    ]
    assert len(found) > 40
    return found


def all_routes(found: list) -> Iterator[APIRoute]:
    for route in found:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from all_routes(route.original_router.routes)


def address(path: str) -> str:
    return re.sub(r"\{\w+(:\w+)?\}", "1", path)


def is_program(path: str) -> bool:
    """Of the JSON API, which goes by tokens instead of forms."""
    return path.startswith("/api")


def refused(client: TestClient, method: str, path: str, csrf: str = "") -> str:
    """What a request to the path comes to: "login", "403", or another status."""
    sent = {"POST": {"data": {"csrf": csrf}}, "PUT": {"json": {}}}.get(method, {})
    headers = {"x-csrf-token": csrf} if csrf else {}
    answer = client.request(method, address(path), follow_redirects=False, headers=headers, **sent)
    if answer.status_code == 303 and answer.headers["location"].startswith("/login"):
        return "login"
    return str(answer.status_code)


def test_strangers_reach_nothing_but_the_door(whole: Store) -> None:
    nobody = Client(whole).http
    for method, path in routes(whole):
        if path not in PUBLIC:
            assert refused(nobody, method, path) == ("401" if is_program(path) else "login"), (method, path)


@pytest.mark.parametrize("name", ["cy", "hilda", "researcher"])
def test_who_leads_nothing_is_refused(whole: Store, name: str) -> None:
    client = Client(whole, name)
    tried = 0
    for method, path in routes(whole):
        if path.startswith(OF_LEADS) and not (name == "researcher" and path.startswith(OF_READERS)):
            answer = client.http.request(method, address(path), data={"csrf": client.csrf})
            assert answer.status_code == 403 and "lead" in answer.text, (method, path)
            tried += 1
    assert tried > 20


def test_leads_change_no_roles(whole: Store) -> None:
    lead = Client(whole, "lead")
    assert lead.post("/lead/people/role", account="cy", role="admin").status_code == 403


def test_a_form_of_another_session_changes_nothing(whole: Store) -> None:
    admin, other = Client(whole, "admin"), Client(whole, "lead")
    for method, path in routes(whole):
        if method != "GET" and path not in PUBLIC:
            for csrf in ("", other.csrf):
                assert refused(admin.http, method, path, csrf) in ("401", "403"), (method, path)


@pytest.mark.parametrize("path", ["/", "/account", "/lead/people", "/lead/tasks"])
def test_pages_of_another_site_cannot_be_made_to_post(whole: Store, path: str) -> None:
    admin = Client(whole, "admin")
    answer = admin.http.post(path, data={"csrf": admin.csrf}, headers={"origin": "https://elsewhere.example"})
    assert answer.status_code == 403
