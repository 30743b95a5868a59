"""The app over a small store: a client without a browser, and the app served for a real one."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from starlette.testclient import TestClient

from apps import quick_app
from heedful.store import accounts
from heedful.store.database import Store
from heedful.store.progress import Work
from heedful.store.slots import offer
from heedful.web.config import WebConfig
from heedful.web.visit import COOKIE
from matrix import is_whole, left_out
from model_servers import planted, small_model
from small_store import fill
from stores import (
    SERVER,
    installed_postgres,
    new_place,
    postgres_again,
    postgres_server,
    quick_hashes,
    shared_store,
    sqlite_copy,
    store,
    store_of,
)
from threaded import Threaded

__all__ = [
    "new_place",
    "planted",
    "postgres_again",
    "postgres_server",
    "quick_hashes",
    "shared_store",
    "small_model",
    "sqlite_copy",
    "store",
    "store_of",
]

PASSWORD = "a long password"
PATIENCE = 30_000  # ms: only what fails waits so long, and a busy machine can be slow
WORKS = (Work("ranking", overlap=3), Work("demonstration", overlap=2))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A page's test runs on one of the databases, which the store's own tests hold alike; all in `make accept`."""
    if is_whole() or not (SERVER in os.environ or installed_postgres()):
        return
    out = left_out(items, Path(__file__).parent)
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]


@pytest.fixture
def people(store_of: Callable[..., Store]) -> Store:
    """Three prompts of three responses to rank and to answer, and an account for every role and group."""
    return store_of(fill_people)


def fill_people(store: Store) -> None:
    fill(store)
    for name in ("cy", "dee"):
        accounts.add_account(store, name, PASSWORD)
    accounts.add_account(store, "hilda", PASSWORD, group="heldout")
    for role in ("admin", "lead", "researcher"):
        accounts.add_account(store, role, PASSWORD, role=role)
    for work in WORKS:
        offer(store, work)


class Client:
    """A browser without JavaScript: it keeps cookies, follows redirects and sends the token of its session."""

    def __init__(self, store: Store, name: str = "", config: WebConfig | None = None) -> None:
        self.http = TestClient(quick_app(store, config), raise_server_exceptions=False)
        self.csrf = ""
        if name:
            page = self.post("/login", name=name, password=PASSWORD)
            assert page.status_code in (200, 403), page.text
            self.csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)[1]

    def get(self, path: str, **how):
        return self.http.get(path, **how)

    def post(self, path: str, **fields):
        return self.http.post(path, data={"csrf": self.csrf} | fields)

    def next(self, work: str = "ranking/train/0") -> str:
        """The address of the next item."""
        page = self.post("/next", work=work)
        assert page.url.path.startswith("/item/"), page.url
        return page.url.path


@pytest.fixture
def client(people: Store) -> Callable[..., Client]:
    """A client for a name; nobody without one."""
    return lambda name="", **more: Client(people, name, **more)


class Served:
    """The app on a port of its own, in a thread."""

    def __init__(self, store: Store, config: WebConfig | None = None) -> None:
        self.store = store
        self.server = Threaded(quick_app(store, config), log_level="warning")
        self.address = self.server.address

    def close(self) -> None:
        self.server.close()


@pytest.fixture
def served(sqlite_copy: Callable[..., Store], tmp_path: Path) -> Iterator[Served]:
    """The app over a small SQLite store, for a real browser."""
    with sqlite_copy(fill_people, tmp_path / "store.db") as store:
        app = Served(store)
        yield app
        app.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


def session_of(store: Store, name: str) -> str:
    """The secret of a session of somebody who has logged in."""
    with store.read() as connection:
        account = accounts.find_account(connection, name)
    return accounts.start_session(store, account, days=1)


@pytest.fixture
def open_page(chromium: Browser, served: Served) -> Iterator[Callable[..., Page]]:
    """A page where the name is logged in; whatever the page complains of fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(name: str = "cy", locale: str = "en", **options) -> Page:
        context = chromium.new_context(locale=locale, base_url=served.address, **options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        if locale.startswith("zh"):
            context.add_cookies([{"name": "heedful_locale", "value": "zh_Hans", "url": served.address}])
        if name:
            context.add_cookies([{"name": COOKIE, "value": session_of(served.store, name), "url": served.address}])
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        if name:
            page.goto("/")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not [text for text in complaints if not text.startswith("Failed to load resource")], complaints
