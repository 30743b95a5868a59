"""The client and the simulated labeler, against the app as it is served."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from apps import quick_app
from heedful.client import Client, Refused
from heedful.config import InputError
from heedful.feedback.remote import remote_labeler, work_through
from heedful.store import accounts
from heedful.store.database import Store, open_store
from heedful.store.progress import Work
from heedful.store.records import select_records
from heedful.store.schema import demonstrations, rankings, ratings
from heedful.store.slots import offer
from heedful.types import Demonstration, Labeler, Ranking, Rating
from small_store import fill
from threaded import threaded
from tiny import refuse, succeed

Make = Callable[..., Client]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "store.db") as opened:
        fill(opened)
        accounts.add_account(opened, "cy", "a long password", kind="simulated")
        accounts.add_account(opened, "dee", "a long password")
        accounts.add_account(opened, "lead", "a long password", role="lead")
        yield opened


@pytest.fixture
def client(store: Store) -> Iterator[Make]:
    app = TestClient(quick_app(store), raise_server_exceptions=False)

    def call(request: httpx.Request) -> httpx.Response:
        """httpx's request through the app, without a socket."""
        answer = app.request(
            request.method, str(request.url), content=request.content, headers=dict(request.headers.items())
        )
        return httpx.Response(answer.status_code, headers=dict(answer.headers), content=answer.content)

    made = []

    def opened(name: str, token: str = "") -> Client:
        secret = token or accounts.add_token(store, name, "test")
        made.append(Client("http://testserver", secret, httpx.MockTransport(call)))
        return made[-1]

    yield opened
    for one in made:
        one.close()


def test_a_program_ranks_and_reads_what_was_ranked(store: Store, client: Make) -> None:
    lead, cy = client("lead"), client("cy")
    assert lead.offer("ranking", overlap=3) == 3  # three prompts, each ranked twice elsewhere
    assert cy.me()["id"] == "cy" and [work["work"] for work in cy.works()] == ["ranking/train/0"]
    done = 0
    while item := cy.next():
        ranks = {response["letter"]: {"rank": 1, "overall": 4} for response in item["responses"]}
        assert cy.submit(item, marks=ranks, seconds=3) and not cy.submit(item, marks=ranks, seconds=3)
        assert cy.item(item["key"])["done"]
        done += 1
    assert done == 3 and lead.progress()[0]["done"] == 9
    found = [line for line in lead.rankings() if line["labeler"]["id"] == "cy"]
    assert [line["ranking"]["rank"] for line in found] == [[1, 1, 1]] * 3
    assert list(lead.judgements("rating", since="9999")) == []


def test_texts_with_strange_line_ends_come_whole(store: Store, client: Make) -> None:
    assert all("\u2028" in line["prompt"]["text"] for line in client("lead").rankings())


def test_what_is_refused_is_said(store: Store, client: Make) -> None:
    client("lead").offer("demonstration")
    cy = client("cy")
    item = cy.next("demonstration/train/0")
    assert item is not None and cy.next("ranking/train/0") is None
    with pytest.raises(Refused, match="Write a response first") as told:
        cy.submit(item, text=" ")
    assert told.value.status == 422 and told.value.problems[0]["field"] == "text"
    assert cy.draft(item, text="Ha") and cy.item(item["key"])["fields"] == {"text": "Ha"}
    cy.skip(item, "unclear")
    other = cy.next()
    assert other is not None and other["key"] != item["key"]
    cy.unskip(item)
    for call in (cy.progress, lambda: list(cy.rankings()), lambda: cy.add_prompts([])):
        with pytest.raises(Refused) as no:
            call()
        assert no.value.status == 403
    with pytest.raises(Refused, match="token"):
        client("", "wrong").me()
    with pytest.raises(InputError, match="no labelling app answers"):
        Client("http://127.0.0.1:9", "x").me()
    for address, token in (("localhost", "x"), ("http://localhost", "é"), ("http://localhost", "")):
        with pytest.raises(InputError):
            Client(address, token)


def test_a_lead_carries_prompts_and_responses_in(store: Store, client: Make) -> None:
    lead = client("lead")
    assert lead.add_prompts([{"text": "Name a river.", "user": "u9"}], pool="reward_model")["kept"] == 1
    assert lead.add_responses([{"prompt_id": "p0", "text": "Ja 9"}]) == 1


def test_simulated_labelers_do_what_is_on_offer(store: Store, client: Make) -> None:
    for task in ("ranking", "rating", "comparison", "demonstration", "toxicity"):
        offer(store, Work(task, overlap=4))
    cy = client("cy")
    labeler = remote_labeler(cy, "brevity")
    done = work_through(cy, labeler)
    assert done == {"ranking": 3, "rating": 9, "comparison": 3}
    assert work_through(cy, labeler, answer="Nein.", limit=2) == {"demonstration": 2}
    with store.read() as connection:
        assert {labeler.kind for labeler in select_records(connection, Labeler) if labeler.id == "cy"} == {"simulated"}
        ranked = select_records(connection, Ranking, rankings.c.labeler == "cy")
        rated = select_records(connection, Rating, ratings.c.labeler == "cy")
        written = select_records(connection, Demonstration, demonstrations.c.labeler == "cy")
    assert len(ranked) == 6 and len(written) == 2 and {text.text for text in written} == {"Nein."}
    assert all(set(ranking.rank) == {1} for ranking in ranked)  # all are two words long
    assert {rating.overall for rating in rated} == {7}


@pytest.fixture
def address(store: Store) -> Iterator[str]:
    """Of the app, on a port of its own."""
    with threaded(quick_app(store)) as served:
        yield served


def test_the_example_in_the_documents_runs(store: Store, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/api.md, as it is written, by a labeler who prefers what is short."""
    offer(store, Work("ranking", overlap=4))
    page = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    example = example.replace("http://localhost:8200", address)
    exec(example, {"token": accounts.add_token(store, "cy", "docs")})
    assert capsys.readouterr().out == "ranking/train/0 6 of 12\n"
    with store.read() as connection:
        assert {r.rank for r in select_records(connection, Ranking, rankings.c.labeler == "cy")} == {(1, 2, 3)}


def test_tokens_and_simulation_from_the_command_line(store: Store, address: str, tmp_path: Path) -> None:
    offer(store, Work("ranking", overlap=4))
    make = ("label", "token", tmp_path / "store.db", "--account")
    tokens = [succeed(*make, name, "--simulated").strip() for name in ("sim-1", "sim-2")]
    assert succeed(*make, "sim-1").strip() not in tokens
    assert "a name has" in refuse(*make, " ")
    assert "no run or store there" in refuse("label", "token", tmp_path / "none", "--account", "x")
    told = succeed("label", "simulate", address, "--token", tokens[0], "--token", tokens[1])
    assert told == "sim-1: 3 ranking\nsim-2: 3 ranking\n"
    assert succeed("label", "simulate", address, "--token", tokens[0]) == "sim-1: nothing\n"
    assert "token" in refuse("label", "simulate", address, "--token", "wrong")
