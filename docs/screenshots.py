"""The pictures of docs/labelling.md, from the app itself in Debian's chromium.

python docs/screenshots.py RUN    RUN is the folder of a run, at work or finished, for the picture of its curves
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests" / "web"), str(ROOT / "tests")]

from conftest import PASSWORD, Served  # noqa: E402
from full_project import fill_project  # noqa: E402
from heedful.store.database import open_store  # noqa: E402
from heedful.store.labels import add_response  # noqa: E402
from heedful.store.pools import add_prompt  # noqa: E402
from heedful.store.progress import NEW, Work  # noqa: E402
from heedful.store.slots import offer  # noqa: E402
from heedful.types import Prompt, Response  # noqa: E402
from heedful.web.config import WebConfig  # noqa: E402
from model_servers import serving, whole  # noqa: E402

IMAGES = ROOT / "docs" / "img"
PROMPTS = {
    2: (
        "Write a two-sentence thank-you note to a neighbour who watered my plants.",
        (
            "Dear Ada, thank you so much for looking after my plants. They look happier than when I left!",
            "Thank you for watering the plants.",
            "Plants need water, light and soil. Most should be watered once a week, but **do not overwater**.",
            "Dear neighbour,\n\n1. Thank you.\n2. You are welcome to visit any time.\n3. My plants say thank you, too.",
        ),
    ),
    3: (
        "用两句话写一封感谢信，感谢邻居帮我浇花。",
        (
            "亲爱的邻居，谢谢您在我外出期间帮我照看花草。它们比我离开时长得还要好！",
            "谢谢浇花。",
            "花草需要水、阳光和土壤。大多数室内植物每周浇一次水即可，**切勿浇水过多**。",
            "邻居您好：感谢您的帮助，改天请您来家里喝茶。",
        ),
    ),
}
SAID = {
    "sft": "The sea is salty because rivers carry tiny bits of salt from rocks into it, and the sun takes only "
    "the water away again.",
    "ppo_ptx": "Rain washes salt out of stones. Rivers bring it to the sea. There it stays, a little more every year.",
}
LEAD_PAGES = {
    "labelling_people": "/lead/people",
    "labelling_tasks": "/lead/tasks",
    "labelling_quality": "/lead/quality",
    "labelling_disputes": "/lead/adjudicate",
    "labelling_run": "/run",
}


def main(run: str) -> None:
    with tempfile.TemporaryDirectory() as folder, open_store(Path(folder) / "store.db") as store, serving() as serve:
        fill_project(store)
        for round, (text, answers) in PROMPTS.items():
            add_prompt(store, Prompt(id=f"s{round}", text=text, user=f"s{round}"), pool="ppo")
            made = [
                Response(id=f"s{round}/{i}", prompt_id=f"s{round}", text=answer) for i, answer in enumerate(answers)
            ]
            add_response(store, *made, round=round)
            offer(store, Work("ranking", round=round))
        models = {name: serve(lambda body, n, said=said: whole(said)) for name, said in SAID.items()}
        app = Served(store, WebConfig(models=models, runs=run))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
            labelers_pages(browser, app)
            tasks_pages(browser, app)
            leads_pages(browser, app)
            browser.close()
        app.close()


def labelers_pages(browser: Browser, app: Served) -> None:
    page = log_in(browser, app, "ana", "en", 1200, 860)
    page.screenshot(path=IMAGES / "labelling_home.png")
    page.locator(".work", has_text="round 2").locator("button").click()
    page.wait_for_selector("#board:visible")
    page.click("details.guideline summary")
    page.locator(".response").first.focus()
    for key in ("1", "Shift+6", "ArrowDown", "2", "Shift+4", "ArrowDown"):
        page.keyboard.press(key)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    page.screenshot(path=IMAGES / "labelling_rank.png")
    page = log_in(browser, app, "陈晨", "zh-CN", 390, 780, is_mobile=True, has_touch=True)
    page.locator(".work", has_text="第 3 轮").locator("button").click()
    page.wait_for_selector("#board:visible")
    page.tap("details.guideline summary")
    page.wait_for_timeout(300)
    page.screenshot(path=IMAGES / "labelling_phone.png")


def tasks_pages(browser: Browser, app: Served) -> None:
    """The other tasks, each once, by somebody who was asked nothing else; cut at the page's own height."""
    offered = {task: Work(task) for task in ("demonstration", "rating", "comparison", "prompt", "red_team", "chat")}
    offered["toxicity"] = Work("toxicity", purpose="evaluation")
    for task, work in offered.items():
        offer(app.store, work, {"number": 9, "kinds": {"few_shot": 1}} if task in NEW else None)
        page = log_in(browser, app, "lead", "en", 900, 640)
        csrf = page.input_value("input[name=csrf] >> nth=0")
        form = {"csrf": csrf, "work": f"{task}/{work.purpose}/0"}
        page.goto(page.request.post("/next", form=form, headers={"origin": app.address}).url)
        page.evaluate("document.querySelectorAll('details.guideline').forEach((one) => { one.open = false; })")
        if task == "toxicity":
            page.get_by_text("Show the texts").click()
        if task in ("red_team", "chat"):
            page.fill("[name=message]", "Why is the sea salty?")
            page.keyboard.press("Control+Enter")
            page.wait_for_timeout(1500)
        page.screenshot(path=IMAGES / f"labelling_{task}.png")
        page.context.close()


def leads_pages(browser: Browser, app: Served) -> None:
    page = log_in(browser, app, "lead", "en", 1200, 860)
    for name, path in LEAD_PAGES.items():
        page.goto(path)
        if path == "/run":
            page.wait_for_selector(".curve")
            page.evaluate("document.querySelector('.log[data-step$=ppo]').scrollIntoView()")
        page.screenshot(path=IMAGES / f"{name}.png")
    page.goto("/lead/adjudicate")
    page.locator("td a").first.click()
    page.screenshot(path=IMAGES / "labelling_dispute.png")
    page.goto("/playground")
    page.fill("#prompt", "Explain to a ten-year-old why the sea is salty.")
    page.click("#send")
    page.wait_for_selector("#ballot:visible")
    page.screenshot(path=IMAGES / "labelling_playground.png")


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
    page.wait_for_url(lambda url: "/login" not in url)
    return page


if __name__ == "__main__":
    main(sys.argv[1])
