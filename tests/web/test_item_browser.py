"""What every item's page keeps of what was written, in a real browser: nothing goes before the server has it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect
from test_rank import made_by, marks

from heedful.store.database import Store
from heedful.web.visit import COOKIE
from web.conftest import PASSWORD

ANSWERS = "demonstration/train/0"
RANKINGS = "ranking/train/0"
BEAT = 301_000  # ms, a little more than from one sign of life to the next
COPIES = "() => Object.keys(localStorage).filter(name => name.startsWith('heedful draft'))"


def open_item(page: Page, work: str = ANSWERS) -> str:
    """Its address."""
    page.goto("/")
    page.locator(f'form:has(input[value="{work}"]) button').click()
    page.wait_for_url("**/item/*")
    page.wait_for_function("() => document.getElementById('submit') && !document.getElementById('submit').disabled")
    page.locator("#state").wait_for(state="attached")
    return page.url.split("?")[0]


def no_way(page: Page, *methods: str) -> None:
    """The network is down for what the item's page sends."""
    page.route("**/item/**", lambda r: r.abort() if r.request.method in methods else r.continue_())


def log_in_here(page: Page, name: str) -> None:
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")


def test_a_session_that_ended_costs_no_word(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    item = open_item(page)
    page.fill("#text", "early")
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.context.clear_cookies(name=COOKIE)
    page.fill("#text", "early and late")
    expect(page.locator("#state")).to_contain_text("You were logged out.")
    page.click("#submit")
    page.wait_for_url("**/login?next=/item/*")
    log_in_here(page, "cy")
    page.wait_for_url(item)
    expect(page.locator("#text")).to_have_value("early and late")
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.click("#submit")
    page.wait_for_url("**notice=saved")
    assert page.evaluate(COPIES) == []


def test_a_submission_that_never_arrived_costs_no_word(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    item = open_item(page)
    no_way(page, "POST", "PUT")
    page.fill("#text", "precious words")
    expect(page.locator("#state")).to_contain_text("kept in this browser")
    page.click("#submit")
    page.wait_for_url(lambda url: not url.startswith(item))  # the browser's own page: no connection
    page.unroute("**/item/**")
    page.goto(open_item(page, RANKINGS))  # another item's page is no proof
    page.goto(item)
    expect(page.locator("#text")).to_have_value("precious words")


def test_what_one_left_here_is_not_shown_to_the_next_person(open_page: Callable[..., Page], served) -> None:
    page = open_page("cy")
    item = open_item(page)
    page.route("**/draft", lambda route: route.abort())
    page.fill("#text", "only mine")
    expect(page.locator("#state")).to_contain_text("kept in this browser")
    page.context.clear_cookies(name=COOKIE)
    page.goto("/login")
    log_in_here(page, "dee")
    page.wait_for_url("**/")
    page.goto(item)  # as many as the overlap may judge it, by whichever address
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#state")).to_have_text("")
    assert any(name.endswith(item.rsplit("/", 1)[1]) for name in page.evaluate(COPIES))


def test_a_slow_clock_discards_nothing(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    page.clock.install(time=datetime.now(UTC) - timedelta(minutes=10))
    open_item(page)
    page.fill("#text", "first")
    page.clock.run_for(2000)
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.route("**/draft", lambda route: route.abort())
    page.fill("#text", "first, and a thousand words more")
    page.clock.run_for(2000)
    expect(page.locator("#state")).to_contain_text("kept in this browser")
    page.reload()
    expect(page.locator("#text")).to_have_value("first, and a thousand words more")


def test_a_window_left_open_keeps_the_item_and_writes_nothing(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    page.clock.install()
    item = open_item(page)
    other = page.context.new_page()
    other.goto(item)
    other.fill("#text", "five hundred words")
    expect(other.locator("#state")).to_have_text("Draft saved")
    with page.expect_request("**/lease"):
        page.clock.fast_forward(BEAT)
    page.reload()
    expect(page.locator("#text")).to_have_value("five hundred words")


@pytest.mark.parametrize("mine", [True, False])
def test_of_two_windows_neither_writes_over_the_other_unasked(open_page: Callable[..., Page], mine: bool) -> None:
    page = open_page("cy")
    item = open_item(page)
    other = page.context.new_page()
    other.goto(item)
    other.fill("#text", "there")
    expect(other.locator("#state")).to_have_text("Draft saved")
    page.fill("#text", "here")
    expect(page.locator("#state")).to_contain_text("Another window has saved this item since.")
    if mine:
        page.get_by_role("button", name="Save what stands here instead").click()
        expect(page.locator("#state")).to_have_text("Draft saved")
        page.reload()
        expect(page.locator("#text")).to_have_value("here")
        return
    page.reload()
    expect(page.locator("#text")).to_have_value("there")
    expect(page.locator("#state")).to_contain_text("changes that were never sent")
    page.get_by_role("button", name="Show them").click()
    expect(page.locator("#text")).to_have_value("here")
    expect(page.locator("#state")).to_have_text("Draft saved")


def test_an_answer_that_was_lost_is_no_other_window(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    open_item(page)

    def lose(route) -> None:  # the server has it, and its answer never comes
        route.fetch()
        route.abort()

    page.route("**/draft", lose)
    page.fill("#text", "once")
    expect(page.locator("#state")).to_contain_text("kept in this browser")
    page.unroute("**/draft")
    page.fill("#text", "once and again")
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.route("**/draft", lose)
    page.fill("#text", "once and again and more")
    expect(page.locator("#state")).to_contain_text("kept in this browser")
    page.unroute("**/draft")
    page.reload()
    expect(page.locator("#text")).to_have_value("once and again and more")
    expect(page.locator("#state")).to_have_text("Draft saved")


def test_drafts_name_the_version_they_were_made_from(client: Callable, people: Store) -> None:
    cy = client("cy")
    item = cy.next()

    def put(made_from: str | None, **fields: str):
        headers = {"x-csrf-token": cy.csrf} | ({} if made_from is None else {"x-draft-version": made_from})
        return cy.http.put(f"{item}/draft", json=fields, headers=headers)

    first = put("", **{"rank-A": "1"}).json()["version"]
    assert f'data-version="{first}"' in cy.get(item).text
    late = put("", **{"rank-A": "2"})
    assert late.status_code == 409 and late.json() == {"version": first, "fields": {"rank-A": "1"}}
    assert put(first, **{"rank-A": "3"}).status_code == 200
    assert put(None, **{"rank-A": "2"}).status_code == 200  # who names none wants theirs
    second = put(None, **{"rank-A": "2"}).json()["version"]
    assert cy.http.put(f"{item}/lease", headers={"x-csrf-token": cy.csrf}).json() == {"yours": True}
    assert cy.http.put(f"{item}/lease").status_code == 403
    assert "selected>2" in cy.get(item).text
    cy.post(item, **marks("123", "444"))
    for old in ("", second):  # what was submitted is newer than any draft before it
        assert put(old, **{"rank-A": "3"}).status_code == 409
    assert "selected>1" in cy.get(item).text and len(made_by(people, "cy")[0]) == 1
    dee = client("dee")
    assert dee.http.put(f"{item}/lease", headers={"x-csrf-token": dee.csrf}).status_code == 404


def test_ctrl_enter_in_the_note_passes_over(open_page: Callable[..., Page], served) -> None:
    page = open_page("cy")
    open_item(page, RANKINGS)
    rank_all(page)
    page.click("#skip summary")
    page.check('[name="reason"][value="unclear"]')
    page.fill("#note", "what is meant?")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**notice=skipped*")
    assert made_by(served.store, "cy") == ([], [])


@pytest.mark.parametrize("key", ["c", "?"])
def test_ctrl_enter_in_a_dialog_submits_nothing(open_page: Callable[..., Page], served, key: str) -> None:
    page = open_page("cy")
    item = open_item(page, RANKINGS)
    rank_all(page)
    page.keyboard.press(key)
    expect(page.locator("dialog[open]")).to_be_visible()
    page.locator("dialog[open] h2").click()
    page.keyboard.press("Control+Enter")
    page.wait_for_timeout(300)
    assert page.url.split("?")[0] == item and made_by(served.store, "cy") == ([], [])


def rank_all(page: Page) -> None:
    page.locator("#response-A").focus()
    for place in "123":
        for key in (place, "Shift+5", "ArrowDown"):
            page.keyboard.press(key)
