"""The playground: two models side by side, blind until the vote, of which nothing but the vote is kept."""

import json
import re
from collections.abc import Callable

import pytest
from sqlalchemy import select

from heedful.store.database import Store
from heedful.store.schema import events, prompts
from heedful.store.settings import write_setting
from heedful.web.config import WebConfig
from heedful.web.routes.playground import VOTE
from model_servers import broken, whole

pytestmark = pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)


@pytest.fixture
def two(planted: Callable) -> WebConfig:
    """Two models that say their names."""
    address = {name: planted(lambda body, n, name=name: whole(f"I am {name}")) for name in ("left", "right")}
    return WebConfig(models=address)


def asking(**more: str) -> dict[str, str]:
    return {"prompt": "Who?", "one": "left", "other": "right", "temperature": "1", "tokens": "20", "number": "1"} | more


def hidden(page: str) -> dict[str, str]:
    """The hidden fields of the vote's form."""
    form = page[page.index('id="vote"') :]
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', form))


def votes(store: Store) -> list[dict]:
    with store.read() as connection:
        return list(connection.execute(select(events.c.detail).where(events.c.what == VOTE)).scalars())


def test_a_vote_shows_which_is_which(people: Store, client: Callable, two: WebConfig) -> None:
    researcher = client("researcher", config=two)
    assert "selected>left" in researcher.get("/playground").text
    page = researcher.post("/playground", **asking())
    fields = hidden(page.text)
    sides = {letter: fields[f"text-{letter}"].removeprefix("I am ") for letter in "ab"}
    assert set(sides.values()) == {"left", "right"}
    assert 'name="vote" value="neither"' in page.text
    for _ in range(2):  # a page that is sent again votes once
        page = researcher.post("/playground/vote", vote="b", **{k: v for k, v in fields.items() if k != "csrf"})
    for letter in "ab":
        assert f"Response {letter.upper()} · <bdi>{sides[letter]}</bdi>" in page.text
    (kept,) = votes(people)
    assert (kept["a"], kept["b"], kept["vote"]) == (sides["a"], sides["b"], "b")
    assert "Who?" not in json.dumps(kept) and "I am" not in json.dumps(kept)
    with people.read() as connection:
        assert connection.execute(select(prompts.c.id).where(prompts.c.text == "Who?")).first() is None


def test_sides_are_drawn_anew(people: Store, client: Callable, two: WebConfig) -> None:
    researcher = client("researcher", config=two)
    pages = [researcher.post("/playground", **asking(number=str(n))) for n in range(12)]
    assert {hidden(page.text)["text-a"] for page in pages} == {"I am left", "I am right"}
    for page in pages:
        assert "<bdi>left</bdi>" not in page.text and "<bdi>right</bdi>" not in page.text


def test_to_look_is_no_vote_and_a_setting_keeps_none(people: Store, client: Callable, two: WebConfig) -> None:
    researcher = client("researcher", config=two)
    page = researcher.post("/playground/vote", vote="reveal", **asking())
    assert "<bdi>left</bdi>" in page.text and votes(people) == []
    write_setting(people, "playground_votes", False, "lead")
    assert "Nothing is kept" in researcher.get("/playground").text
    page = researcher.post("/playground/vote", vote="a", **asking())
    assert "not kept" in page.text and votes(people) == []


def test_a_stream_brings_both(people: Store, client: Callable, two: WebConfig) -> None:
    researcher = client("researcher", config=two)
    streamed = researcher.post("/playground/stream", **asking()).text
    heard = [json.loads(line.removeprefix("data: ")) for line in streamed.split("\n\n") if line]
    said = {letter: "".join(e["text"] for e in heard[:-1] if e["letter"] == letter) for letter in "ab"}
    assert sorted(said.values()) == ["I am left", "I am right"] and heard[-1] == {"end": True}
    assert {e["letter"]: e["html"] for e in heard if "html" in e} == {a: f"<p>{text}</p>\n" for a, text in said.items()}
    fields = hidden(researcher.post("/playground", **asking()).text)
    assert {letter: fields[f"text-{letter}"] for letter in "ab"} == said  # one number, the same sides


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("prompt", " ", "Write a prompt first"),
        ("prompt", "x" * 20_001, "too long"),
        ("one", "http://127.0.0.1:1", "no such model"),
        ("other", "", "no such model"),
        ("temperature", "2.5", "temperature lies between"),
        ("temperature", "nan", "temperature lies between"),
        ("tokens", "5000", "temperature lies between"),
        ("tokens", "0", "temperature lies between"),
    ],
)
def test_what_cannot_be_asked(
    people: Store, client: Callable, two: WebConfig, field: str, value: str, said: str
) -> None:
    researcher = client("researcher", config=two)
    for path in ("/playground", "/playground/stream", "/playground/vote"):
        page = researcher.post(path, vote="a", **asking(**{field: value}))
        assert page.status_code == 422 and said in page.text
    assert votes(people) == []


def test_one_model_fails_and_the_other_is_shown(people: Store, client: Callable, planted: Callable) -> None:
    config = WebConfig(
        models={"left": planted(lambda body, n: whole("Here")), "right": planted(lambda b, n: broken("Ha"))}
    )
    page = client("lead", config=config).post("/playground", **asking())
    assert page.status_code == 200 and "Here" in page.text and "broke off in the middle" in page.text
    assert 'value="reveal"' in page.text and 'value="tie"' not in page.text


def test_it_is_for_those_who_read(people: Store, client: Callable, two: WebConfig) -> None:
    cy = client("cy", config=two)
    assert cy.get("/playground").status_code == 403
    for path in ("/playground", "/playground/stream", "/playground/vote"):
        assert cy.post(path, vote="a", **asking()).status_code == 403
    lead = client("lead", config=two)
    assert lead.http.post("/playground", data=asking()).status_code == 403  # no token
    assert "No model is connected" in client("lead").get("/playground").text
