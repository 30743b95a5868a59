"""What leads set on a page: kinds of harm, cut-offs, votes of the playground, rules of intake, sampling of chats."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sqlalchemy import select
from starlette.responses import JSONResponse

from heedful.config import InputError
from heedful.store import accounts, screening
from heedful.store.database import Store
from heedful.store.intake import IntakeConfig
from heedful.store.pools import prompts_with_pool
from heedful.store.progress import Work
from heedful.store.schema import chats, events, works
from heedful.store.settings import NUMBERS, read_number, read_setting, write_setting
from heedful.store.slots import offer
from heedful.store.worklist import find_work
from heedful.web.config import WebConfig
from heedful.web.rules import rules_of
from heedful.web.tasks.red_team import HARMS
from heedful.web.visit import ENVIRONMENTS
from model_servers import whole


class Form(HTMLParser):
    """The fields that a browser would send of the page's form with this action."""

    def __init__(self, page: str, action: str) -> None:
        super().__init__()
        self.action, self.inside, self.select = action, False, ""
        self.fields: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "form":
            self.inside = found.get("action") == self.action
        elif self.inside and tag == "input" and (found.get("type") != "checkbox" or "checked" in found):
            self.fields[found["name"]] = found["value"]
        elif self.inside and tag == "select":
            self.select = found["name"]
        elif self.inside and tag == "option" and "selected" in found:
            self.fields[self.select] = found["value"]


def sent(lead, action: str, **changes: str | None):
    """The form sent as it stood, but for the changes; None leaves a field out."""
    fields = Form(lead.get("/lead/settings").text, f"/lead/settings/{action}").fields | changes
    return lead.post(f"/lead/settings/{action}", **{name: text for name, text in fields.items() if text is not None})


def stored(store: Store, key: str):
    with store.read() as connection:
        return read_setting(connection, key, None)


def test_kinds_of_harm_in_the_project_s_words(client: Callable, people: Store, planted: Callable) -> None:
    lead = client("lead")
    new = {"name-new-0": "brand", "en-new-0": "Harm to <b>us</b>", "zh_Hans-new-0": "损害我们", "shown-new-0": "yes"}
    for wrong in ({"name-new-0": "hate"}, {"name-new-0": "X"}, {"en-hate": ""}, {"place-new-0": "1", "en-new-0": ""}):
        assert sent(lead, "harms", **new | wrong).status_code == 422
    none = {f"shown-{name}": None for name in HARMS} | {f"shown-new-{n}": None for n in range(3)}
    page = sent(lead, "harms", **none)
    assert page.status_code == 422 and "Show one kind of harm at least" in page.text
    assert stored(people, "red_team_harms") is None
    page = sent(lead, "harms", **new, **{"place-new-0": "0", "shown-insult": None, "zh_Hans-other": "别的"})
    assert "Saved." in page.text and stored(people, "red_team_harms")[0]["name"] == "brand"
    offer(people, Work("red_team"), {"number": 1})
    cy = client("cy", config=WebConfig(models={"m": planted(lambda body, n: whole("Yes"))}))
    item = cy.next("red_team/train/0")
    english = cy.get(item).text
    assert "Harm to &lt;b&gt;us&lt;/b&gt;" in english and 'name="harm-insult"' not in english
    cy.http.cookies.set("heedful_locale", "zh_Hans")
    chinese = cy.get(item).text
    assert "损害我们" in chinese and "别的" in chinese and "自残" in chinese
    cy.post(f"{item}/message", message="Hello", turn="0")
    cy.post(item, success="3", **{"harm-brand": "yes", "harm-insult": "yes"})
    with people.read() as connection:
        (marks,) = connection.execute(select(chats.c.marks)).scalars()
        boxes = read_setting(connection, "sensitive_boxes", "untouched")
    assert marks["harms"] == ["brand"] and boxes == "untouched"


@pytest.mark.parametrize(("cut", "grade", "words"), [("0.5", "4", ["enough"] * 2), ("0.9", "6.5", ["below"] * 2)])
def test_cut_offs_are_the_project_s(client: Callable, people: Store, cut: str, grade: str, words: list[str]) -> None:
    lead = client("lead")
    for wrong in ({"pass_agreement": "1.2"}, {"pass_grade": "8"}, {"pass_grade": ""}):
        assert sent(lead, "numbers", **wrong).status_code == 422
    sent(lead, "numbers", pass_agreement=cut, pass_grade=grade)
    accounts.add_account(people, "eve", "a long password", screening="invited")
    page = lead.get("/lead/screening").text
    assert f"{100 * float(cut):.0f} %" in page and f"{float(grade):g} / 7" in page
    with people.read() as connection:
        cuts = screening.cut_offs(connection)
    parts = ENVIRONMENTS["en"].get_template("screening_parts.html").module
    figures = (("pass_agreement", 0.75), ("pass_grade", 6.0))
    told = [str(parts.verdict(value, cuts[name])) for name, value in figures]
    assert [word for said in told for word in ("enough", "below") if word in said] == words


def test_votes_of_the_playground_can_be_kept_or_not(client: Callable, people: Store) -> None:
    lead = client("lead")
    connected = WebConfig(models={"a": "http://localhost:1", "b": "http://localhost:1"})
    researcher = client("researcher", config=connected)
    for keeps, said in ((None, "Nothing is kept"), ("yes", "Kept are your name")):
        sent(lead, "numbers", playground_votes=keeps)
        assert stored(people, "playground_votes") is (keeps == "yes")
        assert said in researcher.get("/playground").text
        page = lead.get("/lead/settings").text
        assert ('name="playground_votes" value="yes" checked' in page) == (keeps == "yes")


def test_sending_the_numbers_back_changes_nothing(client: Callable, people: Store) -> None:
    lead = client("lead")
    sent(lead, "numbers", lease_minutes="30", read_all="yes")
    sent(lead, "numbers")
    with people.read() as connection:
        found = {name: read_number(connection, name) for name in NUMBERS}
    assert found == {name: number.default for name, number in NUMBERS.items()} | {"lease_minutes": 30}
    assert stored(people, "read_all") is True and stored(people, "playground_votes") is True


def test_prompts_come_in_by_the_rules_that_leads_set(client: Callable, people: Store) -> None:
    lead = client("lead")
    with people.read() as connection:
        assert rules_of(connection, "") == IntakeConfig()
    sent(lead, "intake")
    with people.read() as connection:
        assert rules_of(connection, "") == IntakeConfig()
    rules = {"valid": "0", "test": "0", "prefix": "12", "labeler-sft": "0", "labeler-ppo": "2.5"}
    sent(lead, "intake", **rules | {"labeler-reward_model": "0"})
    offer(people, Work("prompt"), {"number": 3, "kinds": {"plain": 1}})
    cy = client("cy")
    item = cy.next("prompt/train/0")
    cy.post(item, text="Tell me about ships", use_case="chat")
    item = cy.next("prompt/train/0")
    page = cy.post(item, text="Tell me about the sea", use_case="chat")  # the same in twelve characters
    assert page.status_code == 422 and "begins alike" in page.text
    assert [(prompt.split, pool) for prompt, pool in prompts_with_pool(people) if prompt.user == "cy"] == [
        ("train", "ppo")
    ]
    with people.read() as connection:
        told = connection.execute(select(events.c.detail).where(events.c.what == "changed settings")).scalars().all()
    assert told[-1]["intake"]["prefix"] == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prefix": "0"}, "give a number from 1"),
        ({"cap": "many"}, "give a number from 1"),
        ({"valid": "0.5", "test": "0.5"}, "leave no users for training"),
        ({"pii": "sell"}, "Choose something else"),
        ({"customer-ppo": "-1"}, "share of a pool: give a number from 0"),
        ({f"labeler-{pool}": "0" for pool in ("sft", "reward_model", "ppo")}, "a share above 0"),
    ],
)
def test_rules_that_cannot_be_are_refused_as_they_were_sent(
    client: Callable, people: Store, changes: dict[str, str], said: str
) -> None:
    page = sent(client("lead"), "intake", **changes)
    assert page.status_code == 422 and said in page.text
    assert stored(people, "intake") is None
    if "pii" not in changes:
        assert Form(page.text, "/lead/settings/intake").fields.items() >= changes.items()


def test_rules_that_the_page_does_not_show_stay(client: Callable, people: Store, tmp_path: Path) -> None:
    hidden = {"salt": "pepper", "key": "organisation", "split": "keep", "names": "town:names"}
    (tmp_path / "recipe.json").write_text('{"intake": {"salt": "recipe", "cap": 7}}', encoding="utf-8")
    lead = client("lead", config=WebConfig(runs=str(tmp_path)))
    sent(lead, "intake", prefix="50")
    assert (stored(people, "intake")["salt"], stored(people, "intake")["cap"]) == ("recipe", 7)
    write_setting(people, "intake", hidden, "lead")
    sent(lead, "intake", prefix="60")
    assert stored(people, "intake").items() >= (hidden | {"prefix": 60, "cap": 200}).items()
    with pytest.raises(InputError), people.read() as connection:
        rules_of(connection, str(tmp_path / "nothing"))


def test_chats_are_sampled_as_the_work_says(client: Callable, people: Store, planted: Callable) -> None:
    asked = []
    config = WebConfig(models={"m": planted(lambda body, n: asked.append(body) or whole("Yes"))})
    lead = client("lead", config=config)
    new = {
        "task": "chat",
        "purpose": "train",
        "group": "train",
        "pool": "",
        "round": "0",
        "overlap": "1",
        "number": "2",
    }
    for wrong in ({"temperature": "2.5"}, {"temperature": "hot"}, {"max_tokens": "0"}, {"max_tokens": "99999"}):
        page = lead.post("/lead/tasks/offer", **new, **wrong, models="m")
        assert page.status_code == 422 and f'value="{next(iter(wrong.values()))}"' in page.text
        assert 'value="m" checked' in page.text
    lead.post("/lead/tasks/offer", **new, temperature="0.35", max_tokens="77", turns="3", models="m")
    with people.read() as connection:
        options = connection.execute(select(works.c.options).where(works.c.task == "chat")).scalar()
    assert options == {"number": 2, "models": ["m"], "turns": 3, "temperature": 0.35, "max_tokens": 77}
    cy = client("cy", config=config)
    cy.post(f"{cy.next('chat/train/0')}/message", message="Hello", turn="0")
    trial, *chats = [(body["temperature"], body["max_tokens"]) for body in asked]
    assert trial == (0, 1) and set(chats) == {(0.35, 77)}  # a word of each model when the work is put on offer


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_a_lead_is_told_why_no_model_answers(people: Store, client: Callable, planted: Callable) -> None:
    told = {"error": {"message": "policy-7 has no chat template"}}
    servers = {"deaf": lambda body, n: JSONResponse(told, 400), "fine": lambda body, n: whole("Hello")}
    models = {name: planted(answer) for name, answer in servers.items()}
    lead = client("lead", config=WebConfig(models=models))
    fields = {"task": "chat", "purpose": "train", "group": "train", "pool": "", "round": "0", "overlap": "1"}
    page = lead.post("/lead/tasks/offer", **fields, number="3")
    assert page.status_code == 200 and "Open judgements: 3" in page.text
    assert re.search(r"<bdi>deaf</bdi>.*policy-7 has no chat template", page.text) and "<bdi>fine" not in page.text
    with people.read() as connection:
        assert find_work(connection, "chat", "train", 0, "train", "") is not None
    again = lead.post("/lead/tasks/change", **fields, number="2")
    assert "policy-7 has no chat template" in again.text
    page = lead.post("/lead/tasks/offer", **fields | {"round": "1"}, number="3", models="fine")
    assert page.url.query == b"notice=offered&made=3" and 'role="alert"' not in page.text
    none = client("lead").post("/lead/tasks/offer", **fields | {"task": "red_team"}, number="3")
    assert "No model is connected" in none.text
