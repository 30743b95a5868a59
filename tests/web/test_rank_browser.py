"""The ranking page in a real browser: by pointer, by touch, without JavaScript, on a phone, in both languages."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from test_rank import made_by, start

from heedful.store.labels import add_response
from heedful.store.pools import add_prompt
from heedful.store.progress import Work
from heedful.store.slots import offer
from heedful.types import Prompt, Response
from web.conftest import PASSWORD

PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
NINE = Work("ranking", round=1, overlap=1)


def add_nine(served) -> None:
    """A prompt with nine long responses, in a round of its own."""
    add_prompt(served.store, Prompt(id="nine", text="说说**船**。\n<b>not bold</b>", user="u9"), pool="ppo")
    long = [Response(id=f"n{i}", prompt_id="nine", text=f"Answer {i}.\n\n" + "word " * 900) for i in range(9)]
    add_response(served.store, *long, round=1)
    offer(served.store, NINE)


def places(page: Page, letters: str = "ABC") -> list[str]:
    return [page.input_value(f"#rank-{letter}") for letter in letters]


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']}: {each['nodes'][0]['html'][:120]}" for each in found if each["impact"] in ("serious", "critical")
    ]


def test_dragging_a_letter_places_it(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    start(page)
    page.locator("#tiers").evaluate("tiers => tiers.scrollIntoView({block: 'center'})")  # as who drags has done
    page.drag_and_drop('.chip[data-letter="B"]', '.tier[data-rank="1"]')
    page.drag_and_drop('.chip[data-letter="A"]', '.tier[data-rank="1"]')
    assert places(page) == ["1", "1", ""]
    expect(page.locator("#live")).to_contain_text("tied with B")
    page.drag_and_drop('.chip[data-letter="B"]', '.tier[data-rank=""]')
    assert places(page) == ["1", "", ""]


@pytest.mark.parametrize("locale", [pytest.param("en", marks=pytest.mark.accept), "zh-CN"])
def test_a_phone_ranks_by_taps(open_page: Callable[..., Page], served, locale: str) -> None:
    page = open_page("cy", locale=locale, **PHONE)
    page.tap("button.main")
    page.wait_for_url("**/item/*")
    expect(page.locator("#board")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for letter, place in zip("ABC", "213", strict=True):
        page.tap(f'.chip[data-letter="{letter}"]')
        page.tap(f'.tier[data-rank="{place}"] .tier-name')
    for letter in "ABC":
        page.locator(f'#overall-{letter} label:has([value="4"])').tap()
    assert violations(page) == []
    page.tap("#submit")
    page.wait_for_url("**notice=saved")
    assert made_by(served.store, "cy")[0][0].rank == (2, 1, 3)


@pytest.mark.parametrize("locale", ["en", pytest.param("zh-CN", marks=pytest.mark.accept)])
def test_without_a_script_it_is_a_form(open_page: Callable[..., Page], served, locale: str) -> None:
    page = open_page("cy", locale=locale, java_script_enabled=False)
    page.click("button.main")
    page.click("#submit")
    expect(page.locator("#problems li")).to_have_count(6)
    for letter, place in zip("ABC", "313", strict=True):
        page.select_option(f"#rank-{letter}", place)
        page.check(f'[name="overall-{letter}"][value="7"]', force=True)
    page.click("#submit")
    page.wait_for_url("**notice=saved")
    assert made_by(served.store, "cy")[0][0].rank == (2, 1, 2)
    expect(page.locator(".notice")).to_contain_text("Saved." if locale == "en" else "已保存。")


def test_nine_long_responses_by_keys(open_page: Callable[..., Page], served) -> None:
    add_nine(served)
    page = open_page("cy")
    page.locator(".work", has_text="round 1").locator("button").click()
    expect(page.locator("#board")).to_be_visible()
    expect(page.locator(".folded")).to_have_count(9)
    expect(page.locator("#prompt-text")).to_have_text("说说**船**。\n<b>not bold</b>")
    for place in "987654321":
        page.keyboard.press(place)
        page.keyboard.press("Shift+3")
        page.keyboard.press("ArrowDown")
    page.keyboard.press("c")
    expect(page.locator("#compare .side-text").first).to_contain_text("Answer")
    page.keyboard.press("5")  # keys do not reach through the dialog
    page.keyboard.press("Escape")
    assert places(page, "ABCDEFGHI") == [*"987654321"]
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**/*notice=*")
    ranking = next(ranking for ranking in made_by(served.store, "cy")[0] if ranking.prompt_id == "nine")
    assert ranking.rank == tuple(range(9, 0, -1)) and ranking.order == ranking.responses


def test_passing_over_asks_why_and_can_be_undone(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    start(page)
    first = page.url
    page.click("#skip summary")
    page.check('[name="reason"][value="upsetting"]')
    page.click("#skip button")
    page.wait_for_url("**notice=skipped*")
    assert page.url.split("?")[0] != first
    page.click(".notice button")
    page.wait_for_url(first)


def test_what_the_server_did_not_get_comes_back(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    start(page)
    page.route("**/draft", lambda route: route.abort())
    page.keyboard.press("3")
    expect(page.locator("#state")).to_contain_text("kept in this browser")
    page.unroute("**/draft")
    page.reload()
    expect(page.locator("#state")).to_contain_text("Draft saved")
    assert places(page)[0] == "3"


@pytest.mark.parametrize(
    ("locale", "scheme"),
    [
        ("en", "light"),
        pytest.param("zh-CN", "dark", marks=pytest.mark.accept),
        pytest.param("en", "dark", marks=pytest.mark.accept),
        pytest.param("zh-CN", "light", marks=pytest.mark.accept),
    ],
)
def test_nothing_shuts_anybody_out(open_page: Callable[..., Page], locale: str, scheme: str) -> None:
    page = open_page("", locale=locale, color_scheme=scheme)
    page.goto("/login")
    assert violations(page) == []
    page = open_page("cy", locale=locale, color_scheme=scheme)
    assert violations(page) == []
    start(page)
    page.keyboard.press("1")
    assert violations(page) == []
    page.click("#submit")
    page.wait_for_selector("#problems")
    assert violations(page) == []
    page.goto("/nowhere")
    assert violations(page) == []


def test_a_guideline_is_open_the_first_time_for_each_account(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    start(page)
    guideline = page.locator("details.guideline")
    expect(guideline).to_have_attribute("open", "")
    page.reload()
    expect(page.locator("#board")).to_be_visible()
    expect(guideline).not_to_have_attribute("open", "")
    page.get_by_role("button", name="Log out").click()
    page.fill("#name", "dee")  # in the same browser
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    start(page)
    expect(guideline).to_have_attribute("open", "")
