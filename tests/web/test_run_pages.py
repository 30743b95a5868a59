"""The dashboard: steps, waits, curves and the report of the run, and nothing else of the disk."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page, expect

from heedful import steps
from heedful.config import InputError
from heedful.steps import begun_steps, read_steps, tail
from heedful.store.database import open_store
from heedful.web.config import WebConfig
from heedful.web.curves import POINTS, curves_of, thinned
from heedful.web.visit import COOKIE
from tiny import TINY
from web.conftest import PASSWORD, Client, Served, fill_people, session_of

SECRET = "what nobody asked for"


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    from heedful.config import read_recipe
    from heedful.pipeline.recipe import build

    return build(read_recipe(str(TINY))).model_dump(mode="json")


def begin(folder: Path, name: str, stage: str, **files: Any) -> Path:
    """A step as it stands on disk: its manifest, and whatever else is given."""
    place = folder / name
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({"stage": stage}), encoding="utf-8")
    for file, content in files.items():
        (place / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
    return place


def log(place: Path, rows: list[dict[str, Any]], torn: str = "") -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows) + torn
    (place / "metrics.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, recipe: dict[str, Any]) -> Path:
    """A run that has its data, is pretraining, and waits for nobody; beside it a file that is none of its."""
    made = tmp_path / "run"
    made.mkdir()
    (made / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    counts = {"<b>over pools.sft</b>": 12}
    begin(made, "data", "data", done={"results": {"sft": 24}, "counts": counts, "seconds": 1.25})
    place = begin(made, "pretrain", "pretrain", progress={"step": 30, "total": 80})
    log(place, [{"step": n, "loss": 5 - n / 20, "lr": 1e-3} for n in range(30)], torn='{"step": 30, "lo')
    (tmp_path / "secret.html").write_text(SECRET, encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "secret": 4711}) + "\n", encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def logged_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Client]]:
    """A client of each role over one small store."""
    with open_store(tmp_path_factory.mktemp("store") / "store.db") as store:
        fill_people(store)
        yield {name: Client(store, name) for name in ("researcher", "lead", "cy", "")}


def at(client: Client, folder: Path | str) -> Client:
    """The client of an app that shows the folder."""
    client.http.app.state.config = WebConfig(runs=str(folder))
    return client


@pytest.fixture
def researcher(logged_in: dict[str, Client], folder: Path) -> Client:
    return at(logged_in["researcher"], folder)


def test_the_page_tells_the_run(researcher: Client) -> None:
    page = researcher.get("/run")
    assert page.status_code == 200 and "1 of " in page.text and "prompts: sft 24" in page.text
    assert "stopped" in page.text and "not begun" in page.text
    assert "&lt;b&gt;over pools.sft&lt;/b&gt;" in page.text  # escaped, and counted
    assert "<code>loss</code>" in page.text and "3.55" in page.text  # the last whole row, without scripts
    told = researcher.get("/run/steps.json").json()
    state = {step["name"]: step["state"] for step in told["steps"]}
    assert state["data"] == "done" and state["pretrain"] == "stopped" and state["sft"] == "not begun"
    curves = researcher.get("/run/curves.json?step=pretrain").json()
    assert [name for name, _ in curves["curves"]] == ["loss"] and curves["whole"]
    assert curves["curves"][0][1][-1] == [29, pytest.approx(3.55)] and curves["last"]["lr"] == 1e-3


def test_a_run_at_work_is_running(researcher: Client, folder: Path) -> None:
    import fcntl

    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        told = researcher.get("/run/steps.json").json()
    (step,) = [step for step in told["steps"] if step["name"] == "pretrain"]
    assert told["busy"] and step["state"] == "running" and step["result"] == "30 of 80"


def test_what_people_are_asked_for_stands_on_it(
    logged_in: dict[str, Client], folder: Path, recipe: dict[str, Any]
) -> None:
    asked = recipe | {"labelers": recipe["labelers"] | {"judge": "people", "train": 3, "heldout": 0, "overlap": 0}}
    (folder / "recipe.json").write_text(json.dumps(asked), encoding="utf-8")
    begin(folder, "round-1/rankings", "rankings")
    lead = at(logged_in["lead"], folder)
    page = lead.get("/run")
    assert "What people are asked for" in page.text and "Rate and rank responses" in page.text
    (step,) = [s for s in lead.get("/run/steps.json").json()["steps"] if s["name"] == "round-1/rankings"]
    assert step["state"] == "waiting" and step["result"] == "0 of 0 rankings"


def test_only_those_who_may_read_it(logged_in: dict[str, Client], folder: Path) -> None:
    for path in ("/run", "/run/steps.json", "/run/curves.json?step=pretrain", "/run/report"):
        assert at(logged_in["cy"], folder).get(path).status_code == 403, path
        assert "/login" in str(at(logged_in[""], folder).get(path).url)


def test_the_report_is_shown_as_a_stranger(researcher: Client, folder: Path) -> None:
    assert researcher.get("/run/report").status_code == 404
    (folder / "report.html").write_text("<!doctype html><style>p{}</style><p>All is well.", encoding="utf-8")
    answer = researcher.get("/run/report")
    policy = answer.headers["content-security-policy"]
    assert "All is well." in answer.text and policy.startswith("sandbox allow-scripts;")
    assert "allow-same-origin" not in policy and "connect-src" not in policy and "default-src 'none'" in policy
    assert "'unsafe-inline'" not in researcher.get("/run").headers["content-security-policy"]
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(folder.parent / "secret.html")
    answer = researcher.get("/run/report")
    assert answer.status_code == 404 and SECRET not in answer.text


PATHS = ["", ".", "..", "../", "/", "/etc", "pretrain/..", "..%2f", "%2e%2e", "data/../../", "pretrain%00", "x" * 5000]


@pytest.mark.parametrize("path", [*PATHS, "pretrain/metrics.jsonl", "~", "\\..\\", "link", "link/inner"])
def test_a_step_is_inside_the_run(researcher: Client, folder: Path, path: str) -> None:
    outside = folder.parent / "outside"
    begin(outside, "inner", "sft")
    (outside / "manifest.json").write_text("{}", encoding="utf-8")
    for place in (outside, outside / "inner"):
        log(place, [{"step": 1, "secret": 4711}])
    (folder / "link").symlink_to(outside)
    answer = researcher.get(f"/run/curves.json?step={path}", headers={"Accept": "application/json"})
    assert answer.status_code in (400, 404) and "4711" not in answer.text
    (folder / "pretrain" / "metrics.jsonl").unlink()
    (folder / "pretrain" / "metrics.jsonl").symlink_to(outside / "metrics.jsonl")
    assert researcher.get("/run/curves.json?step=pretrain").status_code == 404
    assert "4711" not in researcher.get("/run").text


@pytest.mark.parametrize("broken", ["{", "[]", "null", '{"seconds": "x"}', '{"results": [], "counts": 3}', "\0"])
def test_a_step_that_cannot_be_read_hides_no_other(researcher: Client, folder: Path, broken: str) -> None:
    (folder / "data" / "done.json").write_text(broken, encoding="utf-8")
    page = researcher.get("/run")
    assert page.status_code == 200 and "cannot be read" in page.text and "<code>loss</code>" in page.text


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"sft": 3, "ppo": null}', "\0"])
def test_a_recipe_that_cannot_be_read_is_said(researcher: Client, folder: Path, broken: str) -> None:
    (folder / "recipe.json").write_text(broken, encoding="utf-8")
    page = researcher.get("/run")
    assert page.status_code == 200 and "recipe.json" in page.text
    assert researcher.get("/run/steps.json", headers={"Accept": "application/json"}).status_code == 400


def test_an_app_over_a_store_alone_says_so(logged_in: dict[str, Client]) -> None:
    page = at(logged_in["lead"], "").get("/run")
    assert page.status_code == 200 and "heedful label serve RUN" in page.text
    assert logged_in["lead"].get("/run/report", headers={"Accept": "application/json"}).status_code == 400


def test_a_folder_of_far_too_many_files_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "MOST_ENTRIES", 20)
    assert sorted(begun_steps(folder)) == ["data", "pretrain"]
    many = folder / "many"
    many.mkdir()
    for n in range(20):
        (many / str(n)).touch()
    with pytest.raises(InputError, match="more than 20 files"):
        begun_steps(folder)


def test_steps_are_found_as_deep_as_they_go_and_links_are_not_followed(folder: Path) -> None:
    begin(folder, "round-1/folds/model-1", "reward_model")
    begin(folder, "a/b/c/d/e", "sft")
    (folder / "loop").symlink_to(folder)
    assert sorted(begun_steps(folder)) == ["data", "pretrain", "round-1/folds/model-1"]


def test_it_is_what_the_status_command_tells(tiny_run: Path) -> None:
    told = read_steps(tiny_run, json.loads((tiny_run / "recipe.json").read_text()))
    assert {step.state for step in told} == {"done"} and all(step.result for step in told if step.name != "x")


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=3), st.floats() | st.integers() | st.text())),
    most=st.integers(1, 2000),
)
def test_a_log_is_read_up_to_its_last_whole_line(
    rows: list[dict[str, Any]], most: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    whole = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(whole + '{"half": 1', encoding="utf-8")
    size = path.stat().st_size
    found, all_of_it = tail(path, most)
    assert all_of_it == (size <= most)
    assert json.dumps(found) == json.dumps(rows[len(rows) - len(found) :])
    if size <= most:
        assert len(found) == len(rows)
    told = curves_of(found)
    assert json.loads(json.dumps(told, allow_nan=False))
    assert all(len(points) <= POINTS for _, points in told.curves)


def test_torn_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a"\n\xff\n[1]\n' + b"[" * 10_000 + b'\n{"a": 2}\n')
    assert tail(path) == ([{"a": 1}, {"a": 2}], True)
    assert tail(tmp_path / "none") == ([], True)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000))
def test_thinned_curves_keep_their_mean_and_their_range(values: list[float]) -> None:
    points = list(enumerate(values))
    few = thinned(points, 50)
    assert len(few) <= 50 and [x for x, _ in few] == sorted({x for x, _ in few})
    slack = 1e-6 * max(1, *map(abs, values))
    assert min(values) - slack <= min(y for _, y in few) and max(y for _, y in few) <= max(values) + slack
    if len(points) <= 50:
        assert few == points


@pytest.fixture
def watched(sqlite_copy: Any, tmp_path: Path, folder: Path) -> Iterator[Served]:
    with sqlite_copy(fill_people, tmp_path / "store.db") as store:
        app = Served(store, WebConfig(runs=str(folder)))
        yield app
        app.close()


@pytest.mark.parametrize("locale", ["en", pytest.param("zh-CN", marks=pytest.mark.accept)])
def test_curves_move_while_one_looks(chromium: Any, watched: Served, folder: Path, locale: str) -> None:
    context = chromium.new_context(locale=locale, base_url=watched.address)
    context.set_default_timeout(20_000)
    chosen = "zh_Hans" if locale == "zh-CN" else "en"
    locale_cookie = {"name": "heedful_locale", "value": chosen, "url": watched.address}
    session = {"name": COOKIE, "value": session_of(watched.store, "lead"), "url": watched.address}
    context.add_cookies([locale_cookie, session])
    page: Page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto("/run")
    curve = page.locator('.log[data-step="pretrain"] svg')
    expect(curve).to_have_count(1)
    expect(curve).to_have_attribute("aria-label", re.compile("loss: 5 → 3.55"))
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    log(folder / "pretrain", [{"step": n, "loss": 5 - n / 20} for n in range(60)])
    done = {"results": {"valid_loss": 2.0}, "counts": {}, "seconds": 9}
    (folder / "pretrain" / "done.json").write_text(json.dumps(done), encoding="utf-8")
    expect(page.locator('.log[data-step="pretrain"] .at')).to_have_text("59")
    expect(page.locator('#steps [data-step="pretrain"]')).to_have_attribute("data-state", "done")
    expect(page.locator('#steps [data-step="pretrain"]')).to_contain_text("held-out loss 2.000")
    expect(page.locator("#summary")).to_contain_text("2 of " if locale == "en" else "已完成 2 个")
    (folder / "report.html").write_text("<!doctype html><p>All is well.", encoding="utf-8")
    expect(page.locator("#report")).to_be_visible()
    context.close()
    assert not complaints


def test_the_real_report_runs_in_its_sandbox(chromium: Any, sqlite_copy: Any, tmp_path: Path, tiny_run: Path) -> None:
    from heedful.report import write_report

    copy = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    write_report(copy)
    with sqlite_copy(fill_people, tmp_path / "store.db") as store:
        app = Served(store, WebConfig(runs=str(copy)))
        context = chromium.new_context(base_url=app.address)
        page = context.new_page()
        page.goto("/login?next=/run")
        page.fill("#name", "lead")
        page.fill("#password", PASSWORD)
        page.press("#password", "Enter")
        page.wait_for_url("**/run")
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.get_by_role("link", name="Report").click()
        page.wait_for_url("**/run/report")
        expect(page.locator("h1").first).to_be_visible()
        assert page.evaluate("self.origin") == "null"  # a stranger: none of the app's cookies
        colour = page.evaluate("getComputedStyle(document.body).maxWidth")
        assert colour and not complaints, complaints
        context.close()
        app.close()
