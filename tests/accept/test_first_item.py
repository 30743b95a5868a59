"""A person who never saw the app: from the invitation's link to the first ranked item, at a reader's pace."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import select

from hands import OPTIONS
from heedful.store.database import open_store
from heedful.store.labels import add_response
from heedful.store.pools import add_prompt
from heedful.store.progress import Work
from heedful.store.schema import rankings
from heedful.store.slots import offer
from heedful.types import Prompt, Response
from processes import start, wait_until

pytestmark = pytest.mark.accept
PASSWORD = "correct horse battery"
WORDS_A_SECOND, KEYS_A_SECOND, LOOK = 4.0, 5.0, 1.0  # reading, typing, and finding what to press next
PROMPT = "Write a two-sentence thank-you note to a neighbour who watered my plants."
ANSWERS = (
    "Dear Ada, thank you so much for looking after my plants. They look happier than when I left!",
    "Thank you for watering the plants.",
    "Plants need water, light and soil. Most should be watered once a week, but do not overwater.",
    "Dear neighbour, thank you. You are welcome to visit any time. My plants say thank you, too.",
)
LINK = re.compile(r"http://\S+/join/\S+")


@pytest.fixture
def invited(tmp_path: Path, chromium: Browser) -> Iterator[str]:
    """A link that an admin, who came by the link of `heedful label serve` itself, has made for a new labeler."""
    place = tmp_path / "store.db"
    with open_store(place) as store:
        add_prompt(store, Prompt(id="p", text=PROMPT, user="u"), Prompt(id="q", text="Say more.", user="u"), pool="ppo")
        made = [Response(id=f"{id}{n}", prompt_id=id, text=text) for id in "pq" for n, text in enumerate(ANSWERS)]
        add_response(store, *made)
        offer(store, Work("ranking"))
    said = tmp_path / "said.txt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = start(said, "label", "serve", str(place), "--port", port)
    wait_until(lambda: LINK.search(said.read_text()) is not None)
    wait_until(lambda: answers(port))
    page = chromium.new_context().new_page()
    page.goto(LINK.search(said.read_text())[0])
    page.fill("#name", "boss")
    page.fill("#password", PASSWORD)
    page.fill("#again", PASSWORD)
    page.click("button.main")
    page.get_by_role("link", name="People").click()
    page.click('form[action="/lead/people/invite"] button')
    yield page.locator(".fresh input").first.input_value()
    page.context.close()
    server.terminate()
    server.wait()


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


class Newcomer:
    """Reads, finds, types and presses as a person does; `steps` are what they did, with the seconds on the clock."""

    def __init__(self, page: Page) -> None:
        self.page, self.began, self.steps = page, time.monotonic(), []

    def did(self, what: str) -> None:
        self.steps.append((what, time.monotonic() - self.began))

    def read(self, selector: str) -> None:
        words = sum(len(text.split()) for text in self.page.locator(selector).all_inner_texts())
        time.sleep(words / WORDS_A_SECOND)

    def type(self, selector: str, text: str) -> None:
        self.touch(selector)
        self.page.keyboard.type(text, delay=1000 / KEYS_A_SECOND)

    def touch(self, selector: str) -> None:
        time.sleep(LOOK)
        found = self.page.locator(selector).first
        found.tap() if self.page.viewport_size["width"] < 400 else found.click()


@pytest.mark.parametrize("how", ["keyboard", "phone"])
def test_the_first_item_is_ranked_within_a_minute(
    invited: str, tmp_path: Path, chromium: Browser, record_property: Any, how: str
) -> None:
    record_property(
        "claim", f"a newcomer ({how}) ranks the first item within a minute of opening it, and tells how from the page"
    )
    page = chromium.new_context(locale="en", **OPTIONS[how]).new_page()
    new = Newcomer(page)
    page.goto(invited)
    new.read("form.narrow p")
    for field, text in (("#name", "mira"), ("#password", PASSWORD), ("#again", PASSWORD)):
        new.type(field, text)
    new.touch("form.narrow button.main")
    page.wait_for_selector(".work")
    new.did("made an account")
    new.touch(".work button.main")
    page.wait_for_selector("#board:visible")
    opened = time.monotonic()
    new.touch("details.guideline summary")  # put aside for later
    new.read("#prompt-text, .response .text")
    for place, letter in enumerate("ABCD", 1):
        judge(new, how, letter, str(place), str(8 - place))
    if how == "keyboard":
        page.keyboard.press("Control+Enter")
    else:
        new.touch("#submit")
    expect(page.locator(".notice")).to_have_text("Saved.")
    seconds = time.monotonic() - opened
    new.did("ranked four responses")
    told = "; ".join(f"{what} after {at:.0f} s" for what, at in new.steps)
    record_property("measured", f"{told} ({seconds:.0f} s on the ranking page), the guideline left for later")
    with open_store(tmp_path / "store.db") as store, store.read() as connection:
        assert connection.execute(select(rankings.c.labeler)).scalars().all() == ["mira"]
    assert seconds <= 60


def judge(new: Newcomer, how: str, letter: str, place: str, mark: str) -> None:
    if how == "keyboard":
        for key in (place, f"Shift+{mark}", "ArrowDown"):
            time.sleep(LOOK / 2)
            new.page.keyboard.press(key)
    else:
        new.touch(f'#overall-{letter} label:has([value="{mark}"])')
        new.touch(f'.chip[data-letter="{letter}"]')
        new.touch(f'.tier[data-rank="{place}"] .tier-name')
