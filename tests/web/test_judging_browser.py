"""Keys, boxes, prompts and columns of the pages that judge, in a real browser."""

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from test_item_browser import RANKINGS, open_item, rank_all
from test_rank import made_by

from heedful.store.database import Store
from heedful.store.labels import add_response
from heedful.store.pools import add_prompt
from heedful.store.progress import Work
from heedful.store.slots import offer
from heedful.types import Prompt, Response

PHONE = {"viewport": {"width": 390, "height": 780}, "has_touch": True, "is_mobile": True}
WIDE = {"viewport": {"width": 1200, "height": 800}}
NINE = Work("ranking", round=1, overlap=1)
LETTERS = "ABCDEFGHI"
WIDTHS = "boxes => boxes.map(box => Math.round(box.getBoundingClientRect().width))"
IN_VIEW = """box => { const {top, bottom} = box.getBoundingClientRect();
    return top >= 0 && bottom <= innerHeight && bottom > top }"""


def add_nine(store: Store) -> None:
    """A long prompt with nine long responses, in a round of its own."""
    text = "Read this.\n\n" + "A line of the *text* in question.\n" * 60 + "\nWhat does it say?"
    add_prompt(store, Prompt(id="nine", text=text, user="u9"), pool="ppo")
    long = [Response(id=f"n{i}", prompt_id="nine", text=f"Answer {i}.\n\n" + "word " * 900) for i in range(9)]
    add_response(store, *long, round=1)
    offer(store, NINE)


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [each["id"] for each in found if each["impact"] in ("serious", "critical")]


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def mark_of(page: Page, letter: str) -> str:
    return page.evaluate("letter => document.getElementById('item').elements[`overall-${letter}`].value", letter)


def test_arrows_go_between_responses_and_change_no_mark(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    open_item(page, RANKINGS)
    page.locator("#overall-A label").nth(4).click()
    press(page, "ArrowDown")
    expect(page.locator("#response-B")).to_be_focused()
    page.locator("#overall-B input").nth(2).focus()
    press(page, "ArrowUp")
    expect(page.locator("#response-A")).to_be_focused()
    assert (mark_of(page, "A"), mark_of(page, "B")) == ("5", "")


def test_a_key_that_does_nothing_says_so(open_page: Callable[..., Page]) -> None:
    page = open_page("cy", locale="zh-CN")
    open_item(page, RANKINGS)
    page.locator("#response-A").focus()
    press(page, "4")
    for told in ("#left", "#live"):
        expect(page.locator(told)).to_have_text("这里只有 3 个名次，没有第 4 名。")
    press(page, "Shift+8")
    expect(page.locator("#live")).to_have_text("评分为 1 至 7。")
    press(page, "2")
    expect(page.locator("#left")).to_contain_text("待排")
    expect(page.locator("#overall-A kbd")).to_have_text("Shift 1–7")
    expect(page.locator("#response-A .place kbd")).to_have_text("1–3")


def test_where_one_is_rated_digits_mark_with_shift_and_without(open_page: Callable[..., Page], served) -> None:
    offer(served.store, Work("rating", overlap=3))
    page = open_page("cy")
    open_item(page, "rating/train/0")
    marked = page.locator("#overall :checked")
    press(page, "3")
    expect(marked).to_have_value("3")
    press(page, "Shift+6")
    expect(marked).to_have_value("6")
    press(page, "ArrowDown", "ArrowUp", "9")
    expect(marked).to_have_value("6")
    expect(page.locator("#live")).to_have_text("There are 7 answers to choose from here.")
    press(page, "b", "c")
    expect(page.locator("[name=box-hallucination]")).to_be_checked()


def test_boxes_are_ticked_by_letters(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    open_item(page, RANKINGS)
    page.locator("#response-A").focus()
    press(page, "ArrowDown", "b")
    shown = page.locator("#response-B .box-key:visible")
    expect(shown).to_have_text(list("abcdefghijk"))
    press(page, "c")
    assert page.locator(".boxes :checked").evaluate_all("boxes => boxes.map(box => box.name)") == [
        "box-B-hallucination"
    ]
    expect(page.locator("#live")).to_have_text("Ticked: Hallucination")
    expect(shown).to_have_count(0)
    press(page, "c")  # letters are boxes' only after b
    expect(page.locator("#compare")).to_be_visible()
    press(page, "Escape", "b", "c", "b", "b", "b", "Escape", "k", "u")
    assert page.locator(".boxes :checked").count() == 0
    press(page, "b", "2")  # no box's letter: it is what it always is
    assert page.input_value("#rank-B") == "2"


@pytest.mark.parametrize("options", [WIDE, PHONE])
def test_nine_are_submitted_from_the_board(open_page: Callable[..., Page], served, options: dict) -> None:
    add_nine(served.store)
    page = open_page("cy", **options)
    open_item(page, "ranking/train/1")
    ready = page.locator("#board-submit")
    expect(ready).to_be_hidden()
    touch = "tap" if options is PHONE else "click"
    for letter in LETTERS:
        getattr(page.locator(f'#overall-{letter} label:has([value="4"])'), touch)()
        page.select_option(f"#rank-{letter}", "1")
    expect(ready).to_be_visible()
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    assert ready.evaluate(IN_VIEW) and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if options is PHONE:
        shut = page.locator("#response-A .boxes")
        expect(shut).to_have_class(re.compile("shut"))
        assert shut.bounding_box()["height"] < 60
        assert serious(page) == []
        shut.get_by_role("button", name="Show the boxes").tap()
        shut.locator("label").nth(2).tap()
        page.locator("#response-B h2").tap()
        assert shut.locator("label:visible").count() == 1
    getattr(ready, touch)()
    page.wait_for_url("**notice=*")
    (ranking,) = (each for each in made_by(served.store, "cy")[0] if each.prompt_id == "nine")
    assert ranking.rank == (1,) * 9


def test_a_long_prompt_folds_and_stands_beside_a_response(open_page: Callable[..., Page], served) -> None:
    add_nine(served.store)
    page = open_page("cy", **WIDE)
    open_item(page, "ranking/train/1")
    expect(page.locator("#prompt")).to_have_class(re.compile("folded"))
    expect(page.locator("#prompt-text")).to_contain_text("*text*")  # as it was typed
    page.locator("#response-A").focus()
    press(page, "ArrowDown", "ArrowDown", "p")
    sides = page.locator("#compare .side-text")
    expect(sides.first).to_contain_text("What does it say?")
    assert page.locator("#compare .side").nth(1).input_value() == "C"
    expect(sides.nth(1)).to_contain_text("Answer")
    left, right = sides.evaluate_all(WIDTHS)
    assert left == right and page.locator("#prompt-text").count() == 1
    assert serious(page) == []


@pytest.mark.parametrize("options", [WIDE, PHONE])
def test_code_takes_no_room_from_the_other_response(open_page: Callable[..., Page], served, options: dict) -> None:
    code = "```\n" + "let x = " + "1 + " * 80 + "1;\n```"
    add_response(
        served.store,
        *(Response(id=f"c{n}", prompt_id="p0", text=text) for n, text in enumerate(("Yes.", code))),
        round=4,
    )
    offer(served.store, Work("comparison", round=4))
    page = open_page("cy", **options)
    open_item(page, "comparison/train/4")
    left, right = page.locator(".two .response").evaluate_all(WIDTHS)
    assert left == right and page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    ("locale", "saved", "said"),
    [
        ("en", "Saved: it cannot be judged.", "You said that this cannot be judged."),
        ("zh-CN", "已保存：此项无法评判。", "您说过此项无法评判。"),
    ],
)
def test_what_cannot_be_ranked_says_so_and_can_be_undone(
    open_page: Callable[..., Page], locale: str, saved: str, said: str
) -> None:
    page = open_page("cy", locale=locale)
    item = open_item(page, RANKINGS)
    page.click("#skip summary")
    page.check('[name="reason"][value="cannot"]')
    page.fill("#note", "all <b>empty</b>")
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**notice=impossible*")
    expect(page.locator(".notice")).to_contain_text(saved)
    page.goto(item)
    expect(page.locator("#impossible")).to_contain_text(said)
    expect(page.locator("#impossible blockquote")).to_have_text("all <b>empty</b>")
    assert page.locator("#item").count() == 0 and serious(page) == []
    with page.expect_navigation():  # to the address it has already
        page.click("#impossible button")
    rank_all(page)
    page.keyboard.press("Control+Enter")
    page.wait_for_url("**notice=saved")


@pytest.mark.parametrize("script", [True, False])
def test_hurtful_texts_stay_shut_until_they_are_asked_for(open_page: Callable[..., Page], served, script: bool) -> None:
    offer(served.store, Work("toxicity", overlap=3))
    page = open_page("cy", java_script_enabled=script)
    if script:
        open_item(page, "toxicity/train/0")
    else:
        page.click('form:has(input[value="toxicity/train/0"]) button')
        page.wait_for_url("**/item/*")
    text = page.locator("#prompt-text")
    expect(text).to_be_hidden()
    if script:
        expect(page.locator("#hurtful summary")).to_be_focused()
        press(page, "1")  # nobody answers what they do not see
        assert page.locator("#item :checked").count() == 0
        press(page, "Enter", *"117711771177")
        expect(text).to_be_visible()
        press(page, "Control+Enter")
        page.wait_for_url("**notice=saved")
        expect(text).to_be_visible()  # asked once, for this window
    else:
        page.click("#hurtful summary")
        expect(text).to_be_visible()
