"""The loop, closed: a run waits, labelers work in the app by its API, and the same command goes on to its results."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from apps import quick_app
from heedful.cli import runs
from heedful.client import Client
from heedful.feedback.remote import remote_labeler, work_through
from heedful.store import accounts
from heedful.store.database import open_store
from heedful.store.slots import on_offer
from heedful.web.config import WebConfig
from people_recipe import write_recipe
from tiny import cli


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


class App:
    """The labelling app on the run's folder, open while people work; ada trains, kim is held out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens: dict[str, str] = {}

    def work(self) -> dict[str, dict[str, int]]:
        """Everybody does what is on offer to them; returns who did what."""
        with open_store(self.folder / "store.db") as store:
            for name, group in (("ada", "train"), ("kim", "heldout")):
                if name not in self.tokens:
                    accounts.add_account(store, name, "a long password", group=group)
                    self.tokens[name] = accounts.add_token(store, name, "test")
            app = TestClient(quick_app(store, WebConfig(runs=str(self.folder))))
            done = {}
            for name, token in self.tokens.items():
                with Client("http://testserver", token, httpx.MockTransport(through(app))) as client:
                    done[name] = dict(work_through(client, remote_labeler(client, "brevity"), answer="w1 w2 w3"))
        return done

    def state(self, name: str) -> tuple[str, str]:
        """A step's state and result as the dashboard tells them."""
        with open_store(self.folder / "store.db") as store:
            secret = accounts.start_session(store, self.lead(store), 1)
            app = TestClient(quick_app(store, WebConfig(runs=str(self.folder))), cookies={"heedful_session": secret})
            steps = app.get("/run/steps.json").json()["steps"]
        return next((step["state"], step["result"]) for step in steps if step["name"] == name)

    def lead(self, store: Any) -> Any:
        with store.read() as connection:
            found = accounts.find_account(connection, "lead")
        return found or accounts.add_account(store, "lead", "a long password", role="lead")


def through(app: TestClient) -> Callable[[httpx.Request], httpx.Response]:
    def call(request: httpx.Request) -> httpx.Response:
        headers = dict(request.headers.items())
        answer = app.request(request.method, str(request.url), content=request.content, headers=headers)
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)

    return call


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path / "run")


def run(recipe: Path, folder: Path, *more: str) -> Any:
    return cli("run", recipe, "--dir", folder, "--cores", 1, *more)


def test_a_run_waits_is_labelled_in_the_app_and_goes_on(
    recipe: Path, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(recipe, app.folder)
    assert first.exit_code == 3, first.output
    told = first.stdout.splitlines()
    serve, forms = (next(n for n, line in enumerate(told) if word in line) for word in ("label serve", "label work"))
    assert serve < forms and told[serve].strip() == f"heedful label serve {app.folder}"
    total = int(told[0].split(" of ")[1].split()[0])
    assert app.state("demonstrations") == ("waiting", f"3 of {total} demonstrations")  # came with a few-shot prompt
    assert app.work() == {"ada": {"demonstration": total - 3}, "kim": {}}
    assert app.state("demonstrations") == ("waiting", f"{total} of {total} demonstrations")

    # From here on the run stays: whenever it rests between two looks, people work.
    rests = []

    def sleep(seconds: float) -> None:
        asked = "round-1/rankings" if not rests else "evaluation/judgements"
        rests.append((app.state(asked), app.work()))

    monkeypatch.setattr(runs, "time", SimpleNamespace(sleep=sleep))
    result = run(recipe, app.folder, "--wait")
    assert result.exit_code == 0, result.output + repr(result.exception)
    (ranked, by_both), (judged, by_held_out) = rests
    assert ranked[0] == judged[0] == "waiting" and judged[1].endswith("rankings by held-out labelers")
    assert by_both["ada"]["ranking"] > by_both["kim"]["ranking"] > 0
    assert by_held_out["ada"] == {} and by_held_out["kim"]["ranking"] > 0
    said = [line.removeprefix("waiting: ") for line in result.stderr.splitlines() if line.startswith("waiting: ")]
    assert said == [ranked[1], judged[1]]
    ppo = json.loads((app.folder / "results.json").read_text(encoding="utf-8"))["policies"]["ppo"]
    assert ppo["win_rate"]["num_prompts"] > 0 and ppo["likert"] is not None  # the page asks for marks as well
    assert (app.folder / "report.html").exists() and app.work() == {"ada": {}, "kim": {}}
    with open_store(app.folder / "store.db") as store, store.read() as connection:
        assert on_offer(connection) == []  # what comes later would be in no snapshot
