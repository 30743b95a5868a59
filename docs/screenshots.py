"""The pictures of docs/labelling.md, from the app itself in Debian's chromium.

python docs/screenshots.py
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests" / "web"), str(ROOT / "tests")]

from conftest import PASSWORD, Served, fill_people  # noqa: E402
from heedful.store.database import open_store  # noqa: E402
from heedful.store.labels import add_response  # noqa: E402
from heedful.store.pools import add_prompt  # noqa: E402
from heedful.store.progress import Work  # noqa: E402
from heedful.store.slots import offer  # noqa: E402
from heedful.types import Prompt, Response  # noqa: E402

IMAGES = ROOT / "docs" / "img"
PROMPTS = {
    1: (
        "Write a two-sentence thank-you note to a neighbour who watered my plants.",
        (
            "Dear Ada, thank you so much for looking after my plants. They look happier than when I left!",
            "Thank you for watering the plants.",
            "Plants need water, light and soil. Most should be watered once a week, but **do not overwater**.",
            "Dear neighbour,\n\n1. Thank you.\n2. You are welcome to visit any time.\n3. My plants say thank you, too.",
        ),
    ),
    2: (
        "用两句话写一封感谢信，感谢邻居帮我浇花。",
        (
            "亲爱的邻居，谢谢您在我外出期间帮我照看花草。它们比我离开时长得还要好！",
            "谢谢浇花。",
            "花草需要水、阳光和土壤。大多数室内植物每周浇一次水即可，**切勿浇水过多**。",
            "邻居您好：感谢您的帮助，改天请您来家里喝茶。",
        ),
    ),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "store.db") as store:
        fill_people(store)
        for round, (text, answers) in PROMPTS.items():
            add_prompt(store, Prompt(id=f"s{round}", text=text, user=f"s{round}"), pool="ppo")
            made = [
                Response(id=f"s{round}/{i}", prompt_id=f"s{round}", text=answer) for i, answer in enumerate(answers)
            ]
            add_response(store, *made, round=round)
            offer(store, Work("ranking", round=round))
        app = Served(store)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            take(browser, app)
            browser.close()
        app.close()


def take(browser: Browser, app: Served) -> None:
    page = log_in(browser, app, "cy", "en", 1200, 860)
    page.screenshot(path=IMAGES / "labelling_home.png")
    page.locator(".work", has_text="round 1").locator("button").click()
    page.wait_for_selector("#board:visible")
    for key in ("1", "Shift+6", "ArrowDown", "2", "Shift+4", "ArrowDown"):
        page.keyboard.press(key)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "labelling_rank.png")
    page = log_in(browser, app, "dee", "zh-CN", 390, 780, is_mobile=True, has_touch=True)
    page.locator(".work", has_text="第 2 轮").locator("button").click()
    page.wait_for_selector("#board:visible")
    page.wait_for_timeout(300)
    page.screenshot(path=IMAGES / "labelling_phone.png")


def log_in(browser: Browser, app: Served, name: str, locale: str, width: int, height: int, **more: bool) -> Page:
    context = browser.new_context(
        locale=locale, base_url=app.address, viewport={"width": width, "height": height}, **more
    )
    if locale.startswith("zh"):
        context.add_cookies([{"name": "heedful_locale", "value": "zh_Hans", "url": app.address}])
    page = context.new_page()
    page.goto("/login")
    page.fill("#name", name)
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url("**/")
    return page


if __name__ == "__main__":
    main()
