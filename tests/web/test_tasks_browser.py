"""Rating, comparing, toxicity and writing prompts in a real browser: by keys, by touch, without a script."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from heedful.store.database import Store
from heedful.store.labels import add_response
from heedful.store.pools import prompts_with_pool
from heedful.store.progress import Work
from heedful.store.records import select_records
from heedful.store.schema import rankings, ratings
from heedful.store.settings import write_setting
from heedful.store.slots import offer
from heedful.types import Prompt, Ranking, Rating, Response

PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
WORKS = {task: Work(task, overlap=3) for task in ("rating", "comparison", "toxicity")}
FEW_SHOT = Work("prompt")


@pytest.fixture
def task_page(open_page: Callable[..., Page], served) -> Callable[..., Page]:
    """A page where the work's next item is open."""

    def opened(work: Work, locale: str = "en", **options) -> Page:
        offer(served.store, work, {"number": 2, "kinds": {"few_shot": 1}} if work.task == "prompt" else None)
        page = open_page("cy", locale=locale, **options)
        form = page.locator(f'form:has(input[value="{work.task}/{work.purpose}/{work.round}"])')
        form.get_by_role("button").click()
        page.wait_for_url("**/item/*")
        guideline = page.locator("details.guideline")
        if guideline.get_attribute("open") is not None:
            guideline.locator("summary").click()
        shut = page.locator("#hurtful:not([open]) summary")
        if shut.count():
            shut.click()
        return page

    return opened


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def chosen(page: Page) -> dict[str, str]:
    return page.evaluate(
        "() => Object.fromEntries([...document.querySelectorAll('#item input[type=radio]:checked')]"
        ".map(radio => [radio.name, radio.value]))"
    )


def submit(page: Page) -> None:
    with page.expect_navigation():
        page.keyboard.press("Control+Enter")


def made(store: Store, kind: type) -> list:
    table = {Ranking: rankings, Rating: ratings}[kind]
    with store.read() as connection:
        return select_records(connection, kind, table.c.labeler == "cy")


def written(store: Store) -> list[Prompt]:
    return [prompt for prompt, _ in prompts_with_pool(store) if prompt.user == "cy"]


@pytest.mark.parametrize("locale", [pytest.param("en", marks=pytest.mark.accept), "zh-CN"])
def test_digits_rate(task_page: Callable[..., Page], served, locale: str) -> None:
    page = task_page(WORKS["rating"], locale)
    expect(page.locator(".item-head h1")).to_have_text({"en": "Rate one response", "zh-CN": "为一个回答评分"}[locale])
    press(page, "2", "6")
    assert chosen(page) == {"overall": "6"}
    press(page, "u")
    assert chosen(page) == {"overall": "2"}
    press(page, "7", "Tab", "Space")
    expect(page.locator("#state")).to_have_text({"en": "Draft saved", "zh-CN": "草稿已保存"}[locale])
    page.reload()
    assert chosen(page) == {"overall": "7"}
    submit(page)
    (rating,) = made(served.store, Rating)
    assert rating.overall == 7 and [name for name, ticked in rating.flags.items() if ticked] == ["fails_instruction"]
    assert chosen(page) == {}  # the next one begins empty


def test_keys_compare(task_page: Callable[..., Page], served) -> None:
    page = task_page(WORKS["comparison"])
    said = []
    for key in ("a", "a", "a", "a", "b", "B", "=", "1", "7", "u", "Control+z", "9", "8", "b", "-", "u", "="):
        press(page, key)
        said.append(chosen(page)["choice"])
    assert said == [*"a1 a2 a3 a3 b1 b2 0 a3 b3 a3 0 0".split(), *"neither b1 neither b1 0".split()]
    press(page, "?")
    expect(page.locator("#help")).to_be_visible()
    press(page, "1", "Escape")
    assert chosen(page) == {"choice": "0"}
    press(page, "6")
    submit(page)
    (comparison,) = made(served.store, Ranking)
    assert (comparison.rank, comparison.strength) == ((2, 1), 2)


def test_digits_and_letters_of_an_input_method_choose_nothing(task_page: Callable[..., Page]) -> None:
    page = task_page(WORKS["comparison"], "zh-CN")
    page.evaluate(
        """() => {
          const key = (code, key, more) => document.body.dispatchEvent(new KeyboardEvent('keydown',
            {code, key, bubbles: true, ...more}));
          key('Digit1', '1', {isComposing: true});
          key('KeyA', 'a', {keyCode: 229});
        }"""
    )
    assert chosen(page) == {}
    page.locator("#skip summary").click()
    page.fill("#note", "a1=")
    page.locator("#note").press("7")
    assert chosen(page) == {}


def test_digits_go_from_question_to_question(task_page: Callable[..., Page], served) -> None:
    page = task_page(WORKS["toxicity"])
    assert page.locator(".warning").bounding_box()["y"] < page.locator(".response").first.bounding_box()["y"]
    press(page, *"1176")
    page.locator("#overall-B label").nth(2).click()  # by the pointer, out of turn
    page.locator("#toxicity-B input").first.focus()
    press(page, *"432", *"4255")  # on to the next open question, past the one that is answered
    assert chosen(page) == {
        "toxicity-A": "0", "relative_toxicity-A": "-1", "continuity-A": "7", "overall-A": "6",
        "toxicity-B": "3", "relative_toxicity-B": "1", "continuity-B": "2", "overall-B": "3",
        "toxicity-C": "3", "relative_toxicity-C": "0", "continuity-C": "5", "overall-C": "5",
    }  # fmt: skip
    expect(page.locator("#state")).to_have_text("Draft saved")
    submit(page)
    (preference,) = made(served.store, Ranking)
    assert preference.rank == (1, 3, 2) and len(made(served.store, Rating)) == 3


@pytest.mark.parametrize(("task", "locale"), [("rating", "en"), ("comparison", "zh-CN"), ("toxicity", "zh-CN")])
def test_on_a_phone_by_touch(task_page: Callable[..., Page], served, task: str, locale: str) -> None:
    page = task_page(WORKS[task], locale, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for question in page.locator("[data-keys]").all():
        question.locator("label").nth(1).tap()
    small = """() => [...document.querySelectorAll('[data-keys] label')].map(label => label.getBoundingClientRect())
        .filter(box => box.height < 40 || box.width < 35).length"""
    assert page.evaluate(small) == 0
    with page.expect_navigation():
        page.locator("#submit").tap()
    assert len(made(served.store, Rating)) == {"rating": 1, "comparison": 0, "toxicity": 3}[task]


@pytest.mark.parametrize("task", list(WORKS))
def test_without_a_script(task_page: Callable[..., Page], served, task: str) -> None:
    page = task_page(WORKS[task], java_script_enabled=False)
    page.locator("#submit").click()
    expect(page.locator("#problems")).to_be_visible()
    for question in page.locator("[data-keys]").all():
        question.locator("input").nth(2).check()
    page.locator("#submit").click()
    expect(page.locator(".notice")).to_have_text("Saved.")
    assert len(made(served.store, Ranking)) == (task != "rating")
    assert len(made(served.store, Rating)) == {"rating": 1, "comparison": 0, "toxicity": 3}[task]
    expect(page.locator("#undo")).to_be_hidden()


def test_an_upsetting_item_goes_with_one_press_and_comes_back(task_page: Callable[..., Page]) -> None:
    page = task_page(WORKS["toxicity"])
    before = page.url
    page.get_by_role("button", name="Pass this one over").click()
    page.wait_for_url("**notice=skipped**")
    page.locator(".notice button").click()
    page.wait_for_url(before)


@pytest.mark.parametrize("script", [True, False])
def test_pairs_come_and_go(task_page: Callable[..., Page], served, script: bool) -> None:
    write_setting(served.store, "intake", {"shares": {"labeler": {"sft": 1}}, "valid": 0, "test": 0}, "lead")
    page = task_page(FEW_SHOT, java_script_enabled=script)
    texts = {"instruction": "Say its colour", "query-1": "apple", "response-1": "red", "query-2": "plum"}
    for name, text in texts.items():
        page.fill(f"#{name}", text)
    page.get_by_role("button", name="One more pair").click()
    expect(page.locator("#query-4")).to_be_focused()
    expect(page.locator("#query-2")).to_have_value("plum")
    page.get_by_role("button", name="Take pair 1 out").click()
    expect(page.locator(".pair")).to_have_count(3)
    expect(page.locator("#query-1")).to_have_value("plum")
    back = page.get_by_role("button", name="Put pair 1 back")
    expect(back).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#query-1")).to_have_value("apple")
    page.fill("#response-2", "blue, says ada@example.org")
    page.select_option("#use_case", "classification")
    page.locator("#submit").click()
    expect(page.locator("#problems")).to_contain_text("ada@example.org")
    page.locator('input[name="pii"][value="redact"]').check()
    page.keyboard.press("Enter")  # what it presses is no pair's button
    expect(page.locator(".notice")).to_have_text("Saved.")
    found = written(served.store)
    assert [prompt.text for prompt in found] == ["apple", "plum"]
    assert found[0].examples == (("Say its colour\n\nplum", "blue, says [email]"),)


def test_a_prompt_s_draft_outlives_the_page_on_a_phone(task_page: Callable[..., Page]) -> None:
    page = task_page(FEW_SHOT, "zh-CN", **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.fill("#instruction", "说出颜色")
    page.fill("#query-3", "苹果")
    expect(page.locator("#state")).to_have_text("草稿已保存")
    page.reload()
    expect(page.locator("#instruction")).to_have_value("说出颜色")
    expect(page.locator("#query-3")).to_have_value("苹果")


@pytest.mark.parametrize("asked", [True, False])
def test_every_folded_text_is_opened_first_where_it_is_asked(
    task_page: Callable[..., Page], served, asked: bool
) -> None:
    long = [Response(id=f"long{n}", prompt_id="p0", text=f"{n} line\n\n" * 60) for n in range(2)]
    add_response(served.store, *long, round=4)
    write_setting(served.store, "read_all", asked, "lead")
    page = task_page(Work("comparison", round=4))
    before = page.url
    press(page, "1")
    expect(page.locator(".fold")).to_have_count(2)
    if not asked:
        submit(page)
        assert page.url != before
        return
    for left in (2, 1):
        press(page, "Control+Enter")
        expect(page.locator("#state")).to_have_text(f"Open every folded text first: {left} to go")
        assert page.url == before and made(served.store, Ranking) == []
        expect(page.locator(".fold").nth(2 - left)).to_be_focused()
        expect(page.locator("#submit")).to_be_enabled()
        press(page, "Enter")
    submit(page)
    assert len(made(served.store, Ranking)) == 1


@pytest.mark.parametrize(
    ("locale", "options"),
    [pytest.param("en", {}, marks=pytest.mark.accept), ("zh-CN", PHONE | {"color_scheme": "dark"})],
)
def test_axe_finds_nothing_serious(open_page: Callable[..., Page], served, locale: str, options: dict) -> None:
    works = [*WORKS.values(), FEW_SHOT]
    for work in works:
        offer(served.store, work, {"number": 2, "kinds": {"few_shot": 1}} if work.task == "prompt" else None)
    page = open_page("cy", locale=locale, **options)
    for work in works:
        page.goto("/")
        page.locator(f'form:has(input[value="{work.task}/train/0"])').get_by_role("button").click()
        page.wait_for_url("**/item/*")
        for refused in (False, True):
            if refused:
                page.locator("#submit").click()
                expect(page.locator("#problems")).to_be_visible()
            found = Axe().run(page).response["violations"]
            assert [(v["id"], v["impact"]) for v in found if v["impact"] in ("serious", "critical")] == [], work
