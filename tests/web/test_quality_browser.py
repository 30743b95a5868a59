"""The quality pages in a real browser: nothing that axe takes for serious, nothing wider than the window."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from heedful.store import accounts, screening
from heedful.store.gold import mark
from heedful.store.labels import add_ranking, add_rating
from heedful.store.settings import write_setting
from heedful.types import Rating
from small_store import ranking
from web.conftest import PASSWORD, Served

PAGES = (
    *("/lead/quality", "/lead/adjudicate", "/lead/adjudicate/item?prompt=p0&round=0&fill=yes", "/lead/gold"),
    *("/lead/screening", "/lead/screening/eve"),
)
GRAVE = ("serious", "critical")


@pytest.fixture
def busy(served: Served) -> Served:
    """Ratings by two, a gold item, and a candidate."""
    store = served.store
    marks = {"prompt_id": "p0", "response_id": "r00", "overall": 4, "flags": {"violent": True}}
    add_rating(store, *(Rating(id=f"rating/{who}", labeler=who, **marks) for who in ("ann", "bob")))
    add_ranking(store, ranking("lead-1", 1, "lead"))
    mark(store, "lead-1", "lead", "because")
    accounts.add_account(store, "eve", PASSWORD, screening="invited")
    with store.read() as connection:
        items = screening.check_plan(connection, {"ranking": ["p0"], "demonstration": ["p1"]})
    write_setting(store, "screening", items, "lead")
    return served


@pytest.mark.parametrize(("locale", "width"), [pytest.param("en", 1200, marks=pytest.mark.accept), ("zh-CN", 390)])
def test_every_page_is_accessible_and_fits(
    busy: Served, open_page: Callable[..., Page], locale: str, width: int
) -> None:
    for name, pages in (("lead", PAGES), ("eve", ("/screening",))):
        page = open_page("", locale=locale, viewport={"width": width, "height": 800})
        page.goto("/login")
        if locale != "en" and page.locator("button[lang=en]").count() == 0:
            with page.expect_navigation():  # else what is filled in stands on the page that goes
                page.click("button[name=locale]")
        page.fill("#name", name)
        page.fill("#password", PASSWORD)
        page.press("#password", "Enter")
        page.wait_for_url(lambda url: "/login" not in url)
        for path in pages:
            page.goto(path)
            found = Axe().run(page).response["violations"]
            assert [each["id"] for each in found if each["impact"] in GRAVE] == [], (path, found)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_a_lead_decides_by_keyboard_alone(busy: Served, open_page: Callable[..., Page]) -> None:
    page = open_page("lead")
    page.goto("/lead/adjudicate")
    page.locator("td a").first.focus()
    page.keyboard.press("Enter")
    page.get_by_text("Fill in the proposal").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**fill=yes**")
    for letter in "ABC":
        page.locator(f"#overall-{letter} input").first.focus()
        page.keyboard.press("Space")
    page.locator("button.main").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/lead/adjudicate?purpose=train")
    expect(page.get_by_role("cell", name="decided", exact=True)).to_have_count(1)
