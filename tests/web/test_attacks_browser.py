"""Hostile texts in a real browser, wherever a page shows one: nothing runs, nothing is fetched from elsewhere."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page

from heedful.store import accounts
from heedful.store.guidelines import add_guideline
from heedful.store.labels import add_response
from heedful.store.pools import add_prompt
from heedful.store.progress import Work
from heedful.store.settings import Box, put_boxes
from heedful.store.slots import offer
from heedful.types import Prompt, Response
from web.conftest import PASSWORD, Served

EVIL = """</script></textarea></title><script>window.hit=1</script><img src=//evil.example/1 onerror="window.hit=2">
<svg onload="window.hit=3"><style>@import '//evil.example/2';body{background:url(//evil.example/3)}</style></svg>
"><b onmouseover=window.hit=4 autofocus onfocus=window.hit=5 tabindex=1>{{7*7}} ' " ` \u202etxet neddih\u2066
[click](javascript:window.hit=6) ![i](https://evil.example/4) <https://a.example> [d](data:text/html,x)
<iframe srcdoc="<script>parent.hit=7</script>"></iframe><base href=//evil.example>
<meta http-equiv=refresh content=0;//evil.example>
"""
NAME = "<img/src=x onerror=window.hit=8>"


def plant(served: Served) -> None:
    store = served.store
    task = {"instruction": EVIL, "pairs": [[EVIL, EVIL]] * 2}
    evil = Prompt(id="a<b>'\"", text=EVIL, user=NAME, examples=((EVIL, EVIL),), task=task)
    add_prompt(store, evil, pool="reward_model")
    add_response(store, *(Response(id=f"e{i}'<", prompt_id=evil.id, text=f"{EVIL}{i}", model=EVIL) for i in range(3)))
    for task in ("ranking", "demonstration", "comparison", "rating"):
        add_guideline(store, task, "train", "en", EVIL, "lead")
        offer(store, Work(task, overlap=3))
    boxes = [Box("hallucination", {"en": NAME, "zh_Hans": NAME})]
    store.write(lambda connection: put_boxes(connection, boxes, NAME))
    accounts.add_account(store, NAME, PASSWORD)
    accounts.add_token(store, "lead", NAME)
    store.write(lambda connection: accounts.note(connection, NAME, EVIL, **{"<i>": EVIL}))


@pytest.fixture
def watched(open_page: Callable[..., Page], served: Served) -> Callable[[str], Page]:
    """A page that fails the test when it asks anybody else, or opens a dialog."""
    asked: list[str] = []

    def opened(name: str) -> Page:
        page = open_page(name)
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: asked.append(dialog.message))
        return page

    plant(served)
    yield opened
    assert not [url for url in asked if not url.startswith((served.address, "data:image/"))]


def unharmed(page: Page, path: str) -> None:
    page.wait_for_load_state()
    page.wait_for_timeout(100)
    assert page.evaluate("window.hit") is None, path
    main = page.locator("#main")
    assert main.locator("script, iframe, base, meta, img, style, [onerror], [onload], [onmouseover]").count() == 0, path
    links = page.locator("a").evaluate_all("all => all.map(a => a.href)")
    assert not [link for link in links if link.startswith(("javascript:", "data:"))], path
    assert page.locator("[onfocus], [onerror], svg[onload]").count() == 0, path


def test_labelers_pages_run_nothing(watched: Callable[[str], Page], served: Served) -> None:
    page = watched(NAME)
    for task in ("ranking", "demonstration", "comparison", "rating"):
        page.goto("/")
        page.locator(f'form:has(input[value="{task}/train/0"]) button').click()
        page.wait_for_url("**/item/*")
        assert page.locator("body").inner_text().count("window.hit=1") >= 1
        unharmed(page, task)
        path = page.url
        script = """async text => { const form = document.getElementById("item");
            const fields = {seconds: text, text, evil: text};
            for (const name of new FormData(form).keys()) if (name !== "csrf") fields[name] = text;
            return (await fetch(location.pathname + "/draft", {method: "PUT", body: JSON.stringify(fields),
                headers: {"Content-Type": "application/json", "X-CSRF-Token": form.dataset.csrf}})).status }"""
        assert page.evaluate(script, EVIL) == 200
        page.goto(path)
        unharmed(page, f"{task}, draft")
        page.evaluate(
            """text => { const form = document.getElementById("item");
            localStorage.setItem(`heedful draft ${form.dataset.person} ${form.dataset.key}`,
            JSON.stringify({version: document.getElementById("state").dataset.version,
            values: {text, "rank-A": text, "<b>": text, __proto__: {x: text}}})) }""",
            EVIL,
        )
        page.goto(f"{path}?notice=skipped&undo={NAME}&next=javascript:window.hit=9")
        unharmed(page, f"{task}, restored")
        page.locator(".skip summary").click()
        page.fill("#note", EVIL[:2000])
        with page.expect_navigation():
            page.locator(".skip button").last.click()
        unharmed(page, f"{task}, passed over")


def test_leads_pages_run_nothing(watched: Callable[[str], Page], served: Served) -> None:
    page = watched("lead")
    paths = [
        "/lead/people",
        "/lead/tasks",
        "/lead/guidelines/ranking/train/en",
        "/lead/settings",
        "/lead/events",
        "/account",
    ]
    paths += [
        "/lead/guidelines/ranking/train/en?version=1&with=0",
        "/lead/quality",
        "/lead/adjudicate",
        "/lead/screening",
    ]
    paths += [
        "/lead/gold",
        "/playground",
        "/principles",
        "/run",
        f"/lead/tasks?notice=offered&made={NAME}",
        f"/nothing/{NAME}",
    ]
    for path in paths:
        page.goto(path)
        unharmed(page, path)
    page.goto("/lead/guidelines/ranking/train/en")
    page.fill("#text", EVIL)
    with page.expect_navigation():
        page.click('button[value="preview"]')
    unharmed(page, "preview")


def test_the_policy_stops_what_would_get_through(chromium: Browser, served: Served) -> None:
    """Even a hole in every template would run nothing: the page's policy knows no script but our files."""
    page = chromium.new_page()
    page.goto(f"{served.address}/login")
    said = page.evaluate(
        """async () => {
            const broken = [];
            document.addEventListener("securitypolicyviolation", event => broken.push(event.effectiveDirective));
            document.body.insertAdjacentHTML("beforeend", '<img src="https://evil.example/x" onerror="window.hit=1">' +
                '<b style="color:red">x</b><iframe src="https://evil.example"></iframe>');
            const script = document.createElement("script");
            script.textContent = "window.hit=2";
            document.body.append(script);
            try { await fetch("https://evil.example/"); } catch {}
            await new Promise(done => setTimeout(done, 300));
            return [window.hit ?? null, broken.map(one => one.replace(/-(elem|attr)$/, "")).sort()];
        }"""
    )
    assert said[0] is None
    page.close()
    assert {"connect-src", "frame-src", "img-src", "script-src", "style-src"} <= set(said[1])
