"""Chats, the playground and principles in a real browser: answers that grow, keys, broken streams, phones, axe."""

import time
from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from heedful.store.chats import all_chats
from heedful.store.progress import Work
from heedful.store.records import select_records
from heedful.store.schema import rankings
from heedful.store.slots import offer, withdraw
from heedful.types import Ranking
from heedful.web.config import WebConfig
from judge_servers import Judge, running
from model_servers import broken, part, whole


def growing(body: dict, n: int) -> Iterator[str]:
    """An answer to what was asked, word by word."""
    for word in (f"You said **{body['messages'][-1]['content']}**.", " This", " is", " one", " answer", f" ({n})."):
        yield part(word)
        time.sleep(0.02)
    yield part(end="stop")
    yield "data: [DONE]\n\n"


@pytest.fixture
def talk(served, open_page: Callable[..., Page], planted: Callable) -> Callable[..., Page]:
    """A page at a chat of the task, with a model that answers so."""

    def opened(task: str = "chat", answer: Callable = growing, name: str = "cy", **options: object) -> Page:
        address = planted(answer)
        served.server.config.app.state.config = WebConfig(models={"left": address, "right": address})
        for work in (Work("ranking", overlap=3), Work("demonstration", overlap=2)):
            withdraw(served.store, work)
        offer(served.store, Work(task), {"number": 3})  # type: ignore[arg-type]
        page = open_page(name, **options)
        if name == "cy":
            page.locator("button.main").first.click()
            page.wait_for_url("**/item/*")
        return page

    return opened


def violations(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}" for one in found if one["impact"] in ("serious", "critical")]


def made(served) -> list[Ranking]:
    with served.store.read() as connection:
        return select_records(connection, Ranking, rankings.c.labeler == "cy")


def test_a_chat_by_keys(talk: Callable[..., Page], served) -> None:
    page = talk()
    page.focus("#message")
    page.keyboard.type("Good morning")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#choose")).to_be_visible()
    expect(page.locator(".answer .text strong")).to_have_text(["Good morning", "Good morning"])
    expect(page.locator("[name=choice]").first).to_be_focused()
    assert violations(page) == []
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    with page.expect_navigation():
        page.keyboard.press("Control+Enter")
    (ranking,) = made(served)
    assert (ranking.rank, ranking.strength) == ((1, 2), 2)
    expect(page.locator("#message")).to_have_value("")
    page.fill("#message", "And then?")
    page.click("#send")
    expect(page.locator("#choose")).to_be_visible()
    expect(page.locator("#live")).to_have_text("Both answers are complete. Choose one.")
    expect(page.locator(".said")).to_have_count(2)
    page.check("[name=choice][value='0']", force=True)
    page.click("#choose")
    expect(page.locator("summary", has_text="You chose: About the same")).to_be_visible()
    page.click("#submit")
    page.wait_for_url(lambda url: "notice=saved" in url)
    assert len(made(served)) == 2


def test_a_broken_stream_keeps_what_was_written(talk: Callable[..., Page], served) -> None:
    page = talk("red_team", lambda body, n: broken("It was") if n == 0 else whole("At last"), locale="zh-CN")
    page.check("[name=success][value='3']", force=True)
    page.fill("#message", "你好")
    page.click("#send")
    expect(page.locator("#trouble")).to_have_text("回答中途中断了。")
    expect(page.locator("#message")).to_have_value("你好")
    page.reload()
    expect(page.locator("#message")).to_have_value("你好")
    page.click("#send")
    expect(page.locator(".answer .text")).to_have_text("At last")
    expect(page.locator("#message")).to_have_value("")
    expect(page.locator("[name=success][value='3']")).to_be_checked()
    assert violations(page) == []
    with served.store.read() as connection:
        (chat,) = all_chats(connection)
    assert [turn.text for turn in chat.turns] == ["你好"]


def test_a_chat_without_scripts_on_a_phone(talk: Callable[..., Page], served) -> None:
    page = talk(java_script_enabled=False, viewport={"width": 390, "height": 800})
    page.fill("#message", "Hello")
    page.click("#send")
    page.check("[name=choice][value=b3]", force=True)
    page.click("#choose")
    expect(page.locator("summary", has_text="You chose")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert [ranking.rank for ranking in made(served)] == [(2, 1)]


def test_the_playground(talk: Callable[..., Page], served) -> None:
    page = talk(name="lead")
    page.goto("/playground")
    page.fill("#prompt", "Who are you?")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#ballot")).to_be_visible()
    expect(page.locator("[data-letter=a] strong")).to_have_text("Who are you?")
    assert '"prompt": "Who are you?"' in page.input_value("#pair")
    assert page.locator("h2 bdi").count() == 0
    assert violations(page) == []
    page.click("#ballot [value=b]")
    expect(page.locator("h2 bdi")).to_have_count(2)
    assert sorted(page.locator("h2 bdi").all_inner_texts()) == ["left", "right"]
    assert violations(page) == []
    page.click("#send")
    expect(page.locator("h2 bdi")).to_have_count(0)
    expect(page.locator("#ballot")).to_be_visible()


@pytest.mark.parametrize(("locale", "width"), [("en", 1200), ("zh-CN", 390)])
def test_a_principle_is_tried_and_changed(served, open_page: Callable[..., Page], locale: str, width: int) -> None:
    with running(Judge("chat", "logprobs")) as address:  # who prefers by a hash of what is asked
        served.server.config.app.state.config = WebConfig(models={"judge": address})
        page = open_page("researcher", locale=locale, viewport={"width": width, "height": 900})
        page.goto("/principles")
        page.select_option("#principle", "concise")
        titles = {"en": "Concise", "zh": "简洁"}
        expect(page.locator("#title")).to_have_value(titles[locale[:2]])
        page.select_option("#language", other := "zh" if locale == "en" else "en")
        expect(page.locator("#title")).to_have_value(titles[other])
        expect(page.locator("#principle option:checked")).to_have_text(titles[other])
        page.select_option("#language", locale[:2])
        page.fill("#prompt", "Sun?")
        page.fill("#a", "A star.")
        page.fill("#b", "It is a star.")
        page.focus("#b")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#result")).to_be_focused(timeout=60_000)
        score, before, first, second = page.locator("[data-move=kept] .number").all_inner_texts()
        values = [float(text.replace("−", "-")) for text in (first, second, score)]
        assert values[2] == pytest.approx((values[0] + values[1]) / 2, abs=0.011) and before == "–"
        page.fill("#definition", "x")
        expect(page.locator("#principle")).to_have_value("")  # one's own
        page.select_option("#principle", "")
        expect(page.locator("#definition")).to_have_value("x")
        page.click("#send")
        expect(page.locator("[data-move=kept] .number").nth(1)).to_have_text(score)
        assert violations(page) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        boxes = page.locator("[data-move] td").evaluate_all(
            "all => all.map((one) => one.getBoundingClientRect().right)"
        )
        assert len(boxes) == 10 and max(boxes) <= width  # a phone shows every cell
