"""axe on every page that anybody can reach, in English and Chinese, light and dark, wide and on a phone."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urljoin, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from full_project import PASSWORD, fill_project
from heedful.store import accounts, workforce
from heedful.store.database import open_store
from heedful.store.progress import Work
from heedful.store.slots import offer
from heedful.web.config import WebConfig
from heedful.web.tasks import TASKS
from model_servers import planted, whole
from web.conftest import Served, quick_hashes
from web.test_run_pages import begin, folder, log, recipe

pytestmark = pytest.mark.accept
__all__ = ["folder", "planted", "quick_hashes", "recipe"]

GRAVE = ("serious", "critical")
ROLES = {
    "": "nobody",
    "eve": "a candidate",
    "ana": "a labeler",
    "researcher": "a researcher",
    "lead": "a lead",
    "admin": "an admin",
}
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
LOOKS = [(locale, scheme, width) for locale in ("en", "zh-CN") for scheme in SCHEMES for width in (1200, 390)]
MOST_OF_A_KIND = 2  # pages of one route: what differs between two of them is text
OTHER_TASKS = (
    *(
        Work("rating"),
        Work("comparison"),
        Work("toxicity", purpose="evaluation"),
        Work("ranking", purpose="evaluation"),
    ),
    *(Work("prompt", round=n) for n in (1, 2, 3)),
    *(Work("red_team"), Work("chat")),
)
KINDS = ("plain", "few_shot", "user_based")


@pytest.fixture
def app(tmp_path: Path, folder: Path, planted: Callable[..., str]) -> Iterator[Served]:
    """A project in full swing on a run's folder, with models."""
    place = begin(folder, "sft", "sft", progress={"step": 12, "total": 40})
    log(place, [{"step": n, "loss": 3 - n / 10, "valid_loss": 3.1 - n / 12} for n in range(12)])
    models = {name: planted(lambda body, n: whole("An **answer**.")) for name in ("left", "right")}
    with open_store(tmp_path / "store.db") as store:
        fill_project(store)
        for work in OTHER_TASKS:
            offer(store, work, {"number": 3, "kinds": {KINDS[work.round - 1]: 1}})
        app = Served(store, WebConfig(models=models, runs=str(folder)))
        yield app
        app.close()


def log_in(browser: Browser, app: Served, name: str, locale: str, scheme: Scheme, width: int) -> Page:
    context = browser.new_context(
        locale=locale, color_scheme=scheme, base_url=app.address, viewport={"width": width, "height": 800}
    )
    if locale != "en":
        context.add_cookies([{"name": "heedful_locale", "value": "zh_Hans", "url": app.address}])
    page = context.new_page()
    if name:
        send(page, "/login", {"#name": name, "#password": PASSWORD}, "form.narrow button.main", ".who a")
    return page


class Checked:
    """What axe said of each page."""

    def __init__(self) -> None:
        self.states = 0
        self.grave: list[str] = []
        self.slight: set[str] = set()

    def look(self, page: Page, where: str) -> None:
        self.states += 1
        for found in Axe().run(page).response["violations"]:
            said = f"{where}: {found['id']} ({found['impact']}): {found['nodes'][0]['html'][:100]}"
            (self.grave.append if found["impact"] in GRAVE else self.slight.add)(said)
        if not page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
            self.grave.append(f"{where}: wider than the window")


def kind_of(path: str) -> str:
    """What a page is alike with: /lead/guidelines/rating/train/en with all other guidelines."""
    parts = path.split("/")
    return "/".join([*parts[:3], *("…" for _ in parts[3:])]) if path.startswith("/lead") else parts[1]


def links_of(page: Page) -> list[str]:
    hrefs = page.locator("a[href]").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    whole = [urlsplit(urljoin(page.url, href)) for href in hrefs]
    own = [link for link in whole if link.netloc == urlsplit(page.url).netloc]
    return [link.path + (f"?{link.query}" if link.query else "") for link in own]


def crawl(page: Page, begin_at: list[str], checked: Checked) -> int:
    """Every kind of page that links lead to; the number of pages."""
    waiting, seen = [*begin_at], set(begin_at)
    kinds: Counter[str] = Counter()
    while waiting:
        path = waiting.pop(0)
        kind = kind_of(path.split("?")[0])
        kinds[kind] += 1
        if kinds[kind] > MOST_OF_A_KIND:
            continue
        answer = page.goto(path)
        if not answer or "html" not in answer.headers.get("content-type", ""):
            continue
        checked.look(page, path)
        for link in links_of(page):
            if link not in seen and not link.startswith(("/static", "/run/report")) and ".csv" not in link:
                seen.add(link)
                waiting.append(link)
    return len(kinds)


def work_through(page: Page, checked: Checked) -> None:
    """Every task on offer: its page, the page that a form without an answer gets, the dialogs."""
    page.goto("/")
    names = page.locator('input[name="work"]').evaluate_all("all => all.map(one => one.value)")
    opened = set()
    for name in names:
        page.goto("/")
        with page.expect_navigation():
            page.click(f'form:has(input[value="{name}"]) button')
        checked.look(page, name)
        if "/item/" not in page.url:  # others have done all of it
            continue
        opened.add(name.split("/")[0])
        for opener in ("#help-open", "#compare-open"):
            if page.locator(opener).is_visible():
                page.click(opener)
                checked.look(page, f"{name} {opener}")
                page.keyboard.press("Escape")
        page.click("#skip summary")
        page.locator("#submit").click()
        page.wait_for_selector("#problems")
        checked.look(page, f"{name}, not complete")
        if page.locator("#send").is_visible():
            page.fill("#message", "Hello")
            page.click("#send")
            page.wait_for_selector(".answer .text strong")
            checked.look(page, f"{name}, answered")
    assert opened == TASKS.keys()


def send(page: Page, path: str, fields: dict[str, str], button: str, sight: str) -> None:
    """Fill in a form of the page, send it, and wait for what is to be seen then."""
    page.goto(path)
    page.evaluate("document.querySelectorAll('form').forEach(form => form.noValidate = true)")
    for field, text in fields.items():
        page.fill(field, text)
    page.click(button)
    page.wait_for_selector(sight)


def forms_of_leads(page: Page, checked: Checked) -> None:
    """Pages that only a form leads to."""
    send(page, "/lead/people", {}, 'form[action="/lead/people/invite"] button', ".fresh")
    checked.look(page, "an invitation's link")
    send(page, "/account", {"#token-name": "axe"}, 'form[action="/account/tokens"] button', "#token")
    checked.look(page, "a fresh token")
    numbers = {"#gold_rate": "0.5", "#lease_minutes": ""}
    send(page, "/lead/settings", numbers, 'form[action="/lead/settings/numbers"] button', ".problem")
    checked.look(page, "refused settings")
    page.goto("/lead/guidelines/ranking/train/en?version=1&with=0")
    checked.look(page, "a guideline's changes")
    send(page, "/playground", {"#prompt": "Who are you?"}, "#send", "#ballot:visible")
    checked.look(page, "two answers")
    page.click("#ballot [value=b]")
    page.wait_for_selector("h2 bdi")
    checked.look(page, "a vote")


@pytest.mark.parametrize("name", ROLES, ids=[who.split()[-1] for who in ROLES.values()])
def test_axe_on_every_page(app: Served, chromium: Browser, record_property: Any, name: str) -> None:
    record_property(
        "claim", f"axe finds nothing serious on any page that {ROLES[name]} can reach, none is wider than its window"
    )
    checked, kinds = Checked(), 0
    for locale, scheme, width in LOOKS:
        page = log_in(chromium, app, name, locale, scheme, width)
        begin_at = ["/"]
        if not name:
            joining = accounts.invite(app.store, "admin", "labeler")
            with app.store.read() as connection:
                admin = accounts.find_account(connection, "admin")
            setting = workforce.offer_reset(app.store, admin, "ben")
            begin_at = ["/login", f"/join/{joining}", f"/reset/{setting}", "/nowhere"]
        kinds = max(kinds, crawl(page, begin_at, checked))
        if name == "ana":
            work_through(page, checked)
        if name == "lead":
            forms_of_leads(page, checked)
        page.context.close()
    record_property(
        "measured",
        f"{kinds} kinds of pages, {checked.states} looks (2 languages, light and dark, 1200 and 390 px): "
        f"{len(checked.grave)} serious or critical, {len(checked.slight)} lesser",
    )
    found = [*checked.grave, *sorted(checked.slight)]
    assert not found, "\n".join(found)
