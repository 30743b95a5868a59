"""The JSON API: the pages' own code behind a token, as blind, as strict; no input breaks it."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from starlette.testclient import TestClient

from apps import quick_app
from heedful.store import accounts
from heedful.store.database import Store, open_store
from heedful.store.progress import Work
from heedful.store.records import select_records
from heedful.store.schema import demonstrations, events, rankings, ratings, slots, works
from heedful.store.slots import claim, offer
from heedful.types import Demonstration, Ranking, Rating
from matrix import is_whole
from web.conftest import fill_people

API = "/api/v1"
USE = {"use_case": "open_qa"}
MARKS = {letter: {"rank": place, "overall": 8 - 2 * place} for place, letter in enumerate("ABC", start=1)}


class Caller:
    """A program with a token; without a name it has none."""

    def __init__(self, store: Store, name: str = "") -> None:
        self.http = TestClient(quick_app(store), raise_server_exceptions=False)
        self.headers = {"Authorization": f"Bearer {accounts.add_token(store, name, 'test')}"} if name else {}

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.http.request(method, API + path, json=body, headers=self.headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    def next(self, work: str = "ranking/train/0") -> Any:
        return self.ask("POST", "/next", {"work": work, "only": True})["item"]


@pytest.fixture
def caller(people: Store) -> Callable[..., Caller]:
    return lambda name="cy": Caller(people, name)


def test_a_ranking_comes_in_as_from_the_page(caller: Callable[..., Caller], people: Store) -> None:
    cy = caller()
    item = cy.next()
    assert [response["letter"] for response in item["responses"]] == ["A", "B", "C"] and not item["done"]
    marks = deepcopy(MARKS) | {"B": MARKS["B"] | {"boxes": ["hallucination"]}}
    sent = {"marks": marks, "seconds": 12.5, "guideline": item["guideline"]["id"], "shown": item["shown"]}
    assert cy.ask("POST", f"/items/{item['key']}", sent) == {"new": True}
    assert cy.ask("POST", f"/items/{item['key']}", sent) == {"new": False}
    with people.read() as connection:
        (ranking,) = select_records(connection, Ranking, rankings.c.labeler == "cy")
        rated = select_records(connection, Rating, ratings.c.labeler == "cy")
    assert ranking.rank == (1, 2, 3) and ranking.order == ranking.responses and ranking.seconds == 12.5
    assert ranking.guideline == item["guideline"]["id"] and len(rated) == 3
    overall = {rating.response_id: (rating.overall, rating.flags["hallucination"]) for rating in rated}
    assert [overall[id] for id in ranking.responses] == [(6, False), (4, True), (2, False)]
    again = cy.ask("GET", f"/items/{item['key']}")
    assert again["done"] and again["fields"]["rank-C"] == "3" and again["fields"]["box-B-hallucination"] == "yes"
    marks["A"]["rank"], marks["B"]["rank"] = 2, 1
    assert cy.ask("POST", f"/items/{item['key']}", {"marks": marks}) == {"new": False}
    with people.read() as connection:
        versions = select_records(connection, Ranking, rankings.c.labeler == "cy")
    assert [version.rank for version in versions] == [(1, 2, 3), (2, 1, 3)]
    assert cy.next()["key"] != item["key"]


def test_items_are_blind(caller: Callable[..., Caller]) -> None:
    said = json.dumps(caller().next(), ensure_ascii=False)
    for secret in ('"p0"', '"r0', "reward_model", '"u0"', "split", "model"):
        assert secret not in said, secret


def test_a_demonstration_a_draft_and_what_is_missing(caller: Callable[..., Caller], people: Store) -> None:
    cy = caller()
    item = cy.next("demonstration/train/0")
    told = cy.ask("POST", f"/items/{item['key']}", {"text": " "}, 422)
    assert told["error"] == "Write a response first." and told["problems"][0]["field"] == "text"
    assert cy.ask("PUT", f"/items/{item['key']}/draft", {"text": "Hal"})["yours"]
    assert cy.ask("GET", f"/items/{item['key']}")["fields"] == {"text": "Hal"}
    assert cy.ask("POST", f"/items/{item['key']}", {"text": "Hallo"})["new"]
    with people.read() as connection:
        (written,) = select_records(connection, Demonstration, demonstrations.c.labeler == "cy")
    assert written.text == "Hallo"


def test_passing_over_and_back(caller: Callable[..., Caller]) -> None:
    cy = caller()
    first = cy.next()
    cy.ask("POST", f"/items/{first['key']}/skip", {"reason": "unclear"})
    assert cy.next()["key"] != first["key"]
    cy.ask("POST", f"/items/{first['key']}/unskip")
    assert first["prompt"] in [cy.next()["prompt"], cy.ask("GET", f"/items/{first['key']}")["prompt"]]


def test_who_may_what(caller: Callable[..., Caller]) -> None:
    nobody, cy, lead, researcher = caller(""), caller(), caller("lead"), caller("researcher")
    key = cy.next()["key"]
    for method, path in (("GET", "/me"), ("POST", "/next"), ("GET", f"/items/{key}"), ("GET", "/judgements/ranking")):
        assert "token" in nobody.ask(method, path, {}, 401)["error"]
    for path in ("/progress", "/judgements/ranking"):
        cy.ask("GET", path, status=403)
        researcher.http.get(API + path, headers=researcher.headers).raise_for_status()
    carried = (("/prompts", {"prompts": []}), ("/responses", {"responses": []}), ("/works", {"task": "rating"}))
    for path, body in carried:
        cy.ask("POST", path, body, 403)
        researcher.ask("POST", path, body, 403)
        lead.ask("POST", path, body)
    researcher.ask("POST", "/next", {}, 403)
    hilda = caller("hilda")
    for method, path in (("GET", ""), ("POST", ""), ("PUT", "/draft"), ("POST", "/skip"), ("POST", "/unskip")):
        hilda.ask(method, f"/items/{key}{path}", {} if method != "GET" else None, 404)
    assert hilda.next() is None and cy.ask("GET", "/me")["id"] == "cy"


def test_a_session_of_the_pages_is_none_here(client: Callable[..., Any]) -> None:
    assert client("cy").get(f"{API}/me").status_code == 401


def test_a_token_dies_with_its_account_and_when_it_is_revoked(caller: Callable[..., Caller], people: Store) -> None:
    from heedful.store.schema import accounts as table
    from heedful.store.schema import tokens

    cy, dee = caller("cy"), caller("dee")
    people.write(lambda c: c.execute(table.update().where(table.c.id == "cy").values(closed="2026")))
    people.write(lambda c: c.execute(tokens.update().where(tokens.c.account == "dee").values(revoked="2026")))
    cy.ask("GET", "/me", status=401)
    dee.ask("GET", "/me", status=401)


def test_leads_carry_in_what_labelers_then_judge(caller: Callable[..., Caller], people: Store) -> None:
    lead, cy = caller("lead"), caller()
    prompts = [{"text": "Name a river.", "user": "u7"}, {"text": "name a  river.", "user": "u8"}]
    told = lead.ask("POST", "/prompts", {"prompts": prompts, "pool": "reward_model", "round": 3})
    assert told["kept"] == 1 and sum(told["dropped"].values()) == 1
    assert lead.ask("POST", "/prompts", {"prompts": prompts, "pool": "reward_model", "round": 3})["kept"] == 0
    with people.read() as connection:
        from heedful.store.schema import prompts as table
        from heedful.types import Prompt

        (prompt,) = select_records(connection, Prompt, table.c.round == 3)
    rows = [{"prompt_id": prompt.id, "text": text} for text in ("The Elbe.", "Rivers flow.")]
    for new in (2, 0):
        assert lead.ask("POST", "/responses", {"responses": rows, "round": 3}) == {"new": new}
    lead.ask("POST", "/responses", {"responses": [{"prompt_id": "none", "text": "x"}]}, 400)
    assert lead.ask("POST", "/works", {"task": "ranking", "round": 3}) == {"open": 1}
    item = cy.next("ranking/train/3")
    assert item["prompt"]["text"] == "Name a river." and len(item["responses"]) == 2
    cy.ask("POST", f"/items/{item['key']}", {"marks": {letter: MARKS[letter] for letter in "AB"}})
    (work,) = [work for work in lead.ask("GET", "/progress") if work["round"] == 3]
    assert (work["done"], work["total"], work["group"]) == (1, 1, "train")
    answer = lead.http.get(f"{API}/judgements/ranking", headers=lead.headers)
    found = [json.loads(line) for line in answer.text.split("\n") if line]
    assert len(found) == 10 and {line["schema"] for line in found} == {"ranking/1"}
    newest = max(line["created"] for line in found)
    for since, number in ((newest, 0), ("2026", 10), ("%ed%a0%80", 0)):
        answer = lead.http.get(f"{API}/judgements/ranking?since={since}", headers=lead.headers)
        assert answer.status_code == 200 and answer.text.count("\n") == number
    assert lead.http.get(f"{API}/judgements/ranking?since=%00", headers=lead.headers).status_code == 400


def test_the_schema_is_there_and_says_what_is_what(caller: Callable[..., Caller]) -> None:
    schema = caller("").http.get("/api/openapi.json").json()
    assert all(path.startswith(API) for path in schema["paths"]) and len(schema["paths"]) == 11
    for path, methods in schema["paths"].items():
        for method, told in methods.items():
            assert told.get("description"), f"{method} {path}"
            assert told["security"], path
            assert {"401", "422"} <= set(told["responses"])


def paths(schema: Any) -> list[tuple[str, str]]:
    return [(method.upper(), path) for path, methods in schema["paths"].items() for method in methods]


NAMES = ("work", "only", "text", "marks", "fields", "guideline", "shown", "seconds", "reason", "note", "prompts")
NAMES += ("responses", "round", "pool", "A", "rank", "overall", "boxes", "prompt_id", "id", "user", "task", "number")
STRANGE = st.sampled_from(["\0", "\ud800", "😀", "a" * 5000, "p0", "r00", "ranking", "ranking/train/0", "' OR 1=1 --"])
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), STRANGE)
BODIES = st.recursive(
    VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES) | STRANGE, inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.fixture(scope="module")
def lead(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with open_store(tmp_path_factory.mktemp("api") / "s.db") as store:
        fill_people(store)
        yield Caller(store, "lead")


@given(data=st.data(), body=BODIES)
@settings(max_examples=200 if is_whole() else 60, deadline=None, suppress_health_check=list(HealthCheck))
@example(data=None, body={"responses": [{"prompt_id": "p0", "text": "x", "id": "\ud800"}]})
@example(data=None, body={"marks": {"A": {"rank": 10**30}}, "seconds": float("nan")})
@example(data=None, body={"prompts": [{"text": "a\0b", "user": "u"}]})
def test_no_input_breaks_it(lead: Caller, data: Any, body: Any) -> None:
    """Whatever is sent anywhere is answered by a sentence."""
    schema = lead.http.app.openapi()
    held = lead.next()
    keys = [held["key"] if held else "0", "0", "%00", "..%2f", "\ud800".encode("utf-8", "surrogatepass").hex(), "😀"]
    chosen = paths(schema) if data is None else [data.draw(st.sampled_from(paths(schema)))]
    for method, path in chosen:
        key = keys[0] if data is None else data.draw(st.sampled_from(keys))
        at = path.replace("{key}", key).replace("{kind}", "ranking" if key == keys[0] else key)
        headers = lead.headers | {"Content-Type": "application/json"}
        answer = lead.http.request(method, at, content=json.dumps(body).encode(), headers=headers)
        assert answer.status_code < 500, (method, at, answer.text)
        if answer.is_error:
            assert set(answer.json()) == {"error", "problems"} and answer.json()["error"], answer.text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"work": "' + b"a" * 3_000_000 + b'"}'])
def test_what_is_no_json_is_refused(lead: Caller, content: bytes) -> None:
    headers = lead.headers | {"Content-Type": "application/json"}
    answer = lead.http.post(f"{API}/next", content=content, headers=headers)
    assert 400 <= answer.status_code < 500 and answer.json()["error"]


def test_no_program_is_given_a_chat(caller: Callable, people: Store) -> None:
    """It could neither send a message nor choose an answer, and would hold the item from those who can."""
    for task in ("red_team", "chat"):
        offer(people, Work(task), {"number": 1})
    cy = caller()
    assert {work["task"] for work in cy.ask("GET", "/works")} == {"ranking", "demonstration"}
    given = set()
    while item := cy.ask("POST", "/next", {})["item"]:
        given.add(item["task"])
        cy.ask("POST", f"/items/{item['key']}/skip", {"reason": "other"})
    assert given == {"ranking", "demonstration"}
    assert "held on their pages" in str(cy.ask("POST", "/next", {"work": "chat/train/0"}, 400))
    held = claim(people, [Work("chat")], "cy", 60)
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/skip"), ("PUT", "/draft")):
        assert "held on their pages" in str(cy.ask(method, f"/items/{held.key}{path}", {}, 400))
    assert cy.ask("POST", "/next", {})["item"] is None, "nor one that is held already"


@pytest.mark.parametrize(
    "asked",
    [
        {"task": "toxicity", "purpose": "train"},
        {"task": "demonstration", "purpose": "evaluation"},
        {"task": "ranking", "purpose": "screening", "round": 7},
        {"task": "ranking", "pool": "reward_model", "overlap": 3},
        {"task": "prompt"},
        {"task": "prompt", "number": 2, "overlap": 2},
        {"task": "red_team", "number": 2, "pool": "sft"},
    ],
)
def test_a_program_puts_nothing_on_offer_that_the_page_would_refuse(
    caller: Callable, people: Store, asked: Any
) -> None:
    def offered() -> list[Any]:
        with people.read() as connection:
            return connection.execute(select(works)).all()

    before = offered()
    caller("lead").ask("POST", "/works", asked, 400)
    assert offered() == before


def test_what_a_program_puts_on_offer_is_written_down(caller: Callable, people: Store) -> None:
    caller("lead").ask("POST", "/works", {"task": "prompt", "number": 2})
    with people.read() as connection:
        found = connection.execute(select(events).where(events.c.what == "put on offer")).all()
    assert [(event.account, event.detail["task"], event.detail["options"]) for event in found] == [
        ("lead", "prompt", {"number": 2})
    ]


@pytest.mark.parametrize(
    ("work", "said", "otherwise"),
    [
        ("ranking", {"marks": MARKS}, {"marks": MARKS | {"A": {"rank": 1, "overall": 1}}}),
        ("demonstration", {"text": "Hallo"}, {"text": "Hallo!"}),
        ("prompt", {"text": "Name a lake.", "fields": USE}, {"text": "Name a pond.", "fields": USE}),
    ],
)
def test_the_same_again_costs_no_time_and_is_no_event(
    caller: Callable[..., Caller], people: Store, work: str, said: Any, otherwise: Any
) -> None:
    def known() -> tuple[float, list[str]]:
        with people.read() as connection:
            asked = select(slots.c.seconds).where(slots.c.labeler == "cy")
            noted = select(events.c.what).where(events.c.account == "cy").order_by(events.c.at, events.c.id)
            return connection.execute(asked).scalar_one(), list(connection.execute(noted).scalars())

    offer(people, Work("prompt"), {"number": 1, "kinds": {"plain": 1}})
    cy = caller()
    path = f"/items/{cy.next(f'{work}/train/0')['key']}"
    for seconds in (100, 100, 30):  # the last as from a page that was opened again
        cy.ask("POST", path, said | {"seconds": seconds})
        assert known() == (100, ["submitted"]), seconds
    cy.ask("POST", path, otherwise | {"seconds": 30})
    assert known() == (130, ["submitted", "revised"])


@pytest.mark.parametrize(
    ("work", "said", "names"),
    [
        ("ranking", {"marks": MARKS | {"A": MARKS["A"] | {"boxes": ["nosuchbox"]}}}, ["box-A-nosuchbox"]),
        ("ranking", {"marks": MARKS | {"I": MARKS["C"]}}, ["rank-I", "overall-I"]),
        ("ranking", {"marks": MARKS, "text": "B is best", "fields": {"Rank-A": "2"}}, ["text", "Rank-A"]),
        ("ranking", {"marks": MARKS, "guideline": "x/9"}, ["guideline"]),
        ("rating", {"marks": {"A": {"overall": 5}, "B": {"overall": 3}}}, ["overall-B"]),
        ("demonstration", {"text": "Hallo", "marks": {"A": {"rank": 1}}}, ["rank-A"]),
        ("prompt", {"text": "Name a lake.", "fields": USE | {"query-1": "x"}}, ["query-1"]),
    ],
)
def test_what_no_form_has_is_named_and_not_dropped(
    caller: Callable[..., Caller], people: Store, work: str, said: Any, names: list[str]
) -> None:
    offer(people, Work("prompt"), {"number": 1, "kinds": {"plain": 1}})
    offer(people, Work("rating", overlap=3))
    cy = caller()
    path = f"/items/{cy.next(f'{work}/train/0')['key']}"
    told = cy.ask("POST", path, said, 422)
    assert [problem["field"] for problem in told["problems"]] == names
    assert not cy.ask("GET", path)["done"]
