"""Chats with served models: what is kept, exactly once, whatever the model's server does."""

import json
import re
import socket
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select
from starlette.responses import JSONResponse, RedirectResponse, Response

from heedful.store.chats import Chat, all_chats
from heedful.store.database import Store
from heedful.store.export import export_snapshot
from heedful.store.progress import Work, progress
from heedful.store.records import is_current, select_entries, select_records
from heedful.store.schema import events, prompts, rankings, responses
from heedful.store.settings import write_setting
from heedful.store.slots import offer
from heedful.types import Prompt, Ranking
from heedful.types import Response as Answered
from heedful.web.config import WebConfig
from model_servers import NAME, broken, part, slow, whole

PAIRS, ATTACKS = "chat/train/0", "red_team/train/0"


@pytest.fixture
def talks(people: Store) -> Store:
    for group in ("train", "heldout"):
        offer(people, Work("chat", group=group), {"number": 2, "max_tokens": 24})
        offer(people, Work("red_team", group=group), {"number": 2, "max_tokens": 24})
    return people


def connected(address: str, **more: object) -> WebConfig:
    return WebConfig(models={"policy-7": address}, **more)


def chats(store: Store) -> list[Chat]:
    with store.read() as connection:
        return all_chats(connection)


def current_rankings(store: Store, labeler: str = "cy") -> list[Ranking]:
    with store.read() as connection:
        return select_records(connection, Ranking, rankings.c.labeler == labeler, is_current(rankings))


def message_of(page: str) -> str:
    found = re.search(r"<textarea id=\"message\"[^>]*>(.*?)</textarea>", page, re.S)
    return found[1] if found else ""


def test_a_turn_becomes_a_comparison(talks: Store, client: Callable, small_model: str) -> None:
    cy = client("cy", config=connected(small_model))
    item = cy.next(PAIRS)
    page = cy.post(f"{item}/message", message="Say <b>hello</b> & go", turn="0", seconds="3")
    assert page.status_code == 200 and page.url.path == item
    assert "Say &lt;b&gt;hello" in page.text and message_of(page.text) == ""
    (chat,) = chats(talks)
    answers = chat.turns[0].answers
    assert [answers[letter].model for letter in "ab"] == ["policy-7"] * 2 and answers["a"].seed != answers["b"].seed
    assert current_rankings(talks) == []
    page = cy.post(f"{item}/choose", choice="b2", judged="0", seconds="10")
    assert "You chose: B is clearly better" in page.text
    page = cy.post(f"{item}/message", message="And then?", turn="1", seconds="12")
    cy.post(f"{item}/choose", choice="0", judged="1", seconds="20")
    first, second = current_rankings(talks)
    assert (first.rank, first.strength, first.seconds) == ((2, 1), 2, 7)
    assert (second.rank, second.strength) == ((1, 1), None)
    assert first.id.startswith("comparison/train/0/cy/chat/") and first.order == first.responses
    with talks.read() as connection:
        asked = select_entries(connection, Prompt, prompts.c.user == "cy")
        given = select_records(connection, Answered, responses.c.prompt_id == asked[1][0].id)
    assert [row["pool"] for _, row in asked] == ["reward_model"] * 2
    prompt = asked[1][0]
    assert (prompt.text, prompt.source, prompt.use_case, prompt.split) == ("And then?", "labeler", "chat", "train")
    assert prompt.examples == (("Say <b>hello</b> & go", answers["b"].text),)
    assert [answer.model for answer in given] == ["policy-7"] * 2
    cy.post(f"{item}/message", message="A tie goes on with A", turn="2")
    (chat,) = chats(talks)
    assert chat.history(2)[1] == ("And then?", chat.turns[1].answers["a"].text)
    cy.post(f"{item}/choose", choice="a1", judged="2")
    page = cy.post(item)
    assert page.url.path != item
    snapshot = export_snapshot(talks, pools=["reward_model"])
    assert {first.id, second.id} <= {ranking.id for ranking in snapshot.rankings}


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_no_page_names_the_model(talks: Store, client: Callable, small_model: str) -> None:
    cy = client("cy", config=connected(small_model))
    item = cy.next(PAIRS)
    page = cy.post(f"{item}/message", message="Hello", turn="0")
    streamed = cy.post(f"{item}/stream")
    for text in (page.text, streamed.text, cy.get(item).text):
        assert NAME not in text and "policy-7" not in text and small_model not in text


def test_a_chat_is_judged_where_it_is_made(talks: Store, client: Callable, planted: Callable) -> None:
    before = progress(talks, Work("ranking", pool="reward_model"))
    cy = client("cy", config=connected(planted(lambda body, n: whole("Yes"))))
    item = cy.next(PAIRS)
    cy.post(f"{item}/message", message="Hello", turn="0")
    cy.post(f"{item}/choose", choice="a1", judged="0")
    assert len(current_rankings(talks)) == 1
    assert progress(talks, Work("ranking", pool="reward_model")) == before


def test_sending_and_choosing_twice_makes_one(talks: Store, client: Callable, planted: Callable) -> None:
    asked = []
    cy = client("cy", config=connected(planted(lambda body, n: asked.append(body) or whole(f"Answer {n}"))))
    item = cy.next(PAIRS)
    for _ in range(2):
        cy.post(f"{item}/message", message="Hello", turn="0")
    assert len(asked) == 2 and len({body["seed"] for body in asked}) == 2
    for seconds in "12":
        cy.post(f"{item}/choose", choice="a3", judged="0", seconds=seconds)
    assert [ranking.strength for ranking in current_rankings(talks)] == [3]
    with talks.read() as connection:
        assert len(select_records(connection, Ranking, rankings.c.labeler == "cy")) == 1


def test_a_choice_can_be_changed_until_the_next_message(talks: Store, client: Callable, planted: Callable) -> None:
    cy = client("cy", config=connected(planted(lambda body, n: whole(body["messages"][-1]["content"] + str(n)))))
    item = cy.next(PAIRS)
    cy.post(f"{item}/message", message="Hello", turn="0")
    cy.post(f"{item}/choose", choice="a1", judged="0")
    cy.post(f"{item}/choose", choice="b3", judged="0")
    (standing,) = current_rankings(talks)
    assert (standing.rank, standing.strength, standing.id[-3:]) == ((2, 1), 3, "/v2")
    page = cy.post(f"{item}/choose", choice="neither", judged="0")
    (standing,) = current_rankings(talks)
    assert (standing.rank, standing.strength, standing.both_bad) == ((1, 1), None, True)
    assert "You chose: Both are bad" in page.text and chats(talks)[0].turns[0].went_on == "a"
    cy.post(f"{item}/choose", choice="b3", judged="0")
    (standing,) = current_rankings(talks)
    went_on = chats(talks)[0].turns[0].answers["b"].text
    cy.post(f"{item}/message", message="More", turn="1")
    page = cy.post(f"{item}/choose", choice="a1", judged="0")
    assert page.status_code == 422 and "moved on" in page.text
    assert current_rankings(talks) == [standing]
    assert chats(talks)[0].history(1) == [("Hello", went_on)]


def test_a_second_window_cannot_overtake(talks: Store, client: Callable, planted: Callable) -> None:
    cy = client("cy", config=connected(planted(lambda body, n: whole("Yes"))))
    item = cy.next(PAIRS)
    cy.post(f"{item}/message", message="Hello", turn="0")
    for turn in ("0", "1", "2"):  # answered already, not chosen yet, beyond
        page = cy.post(f"{item}/message", message="Another", turn=turn)
        assert page.status_code == 422 and "moved on" in page.text
    assert [turn.text for turn in chats(talks)[0].turns] == ["Hello"]


def refusing(status: int, code: str = "") -> Callable[[dict, int], Response]:
    return lambda body, n: JSONResponse({"error": {"message": f"no {NAME}", "code": code}}, status)


FAULTS = {
    "reached": None,
    "took too long": lambda body, n: slow(3),
    "refused the message": refusing(400, "invalid_value"),
    "has become too long": refusing(400, "context_length_exceeded"),
    "too much to do": refusing(429),
    "server failed": refusing(500),
    "broke off": lambda body, n: broken("It was a dark"),
    "answered nothing": lambda body, n: whole("  "),
    "broke off ": lambda body, n: iter(["data: no json\n\n"]),
    "broke off  ": lambda body, n: iter([part("It was"), 'data: {"error": {"message": "gone"}}\n\n']),
    "refused the message ": lambda body, n: RedirectResponse("http://127.0.0.1:1/elsewhere"),
}


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_fails_the_message_is_kept(talks: Store, client: Callable, planted: Callable, fault: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    address = nowhere if FAULTS[fault] is None else planted(FAULTS[fault])
    seconds = 0.5 if fault == "took too long" else 60
    cy = client("cy", config=connected(address, model_seconds=seconds))
    work = ATTACKS if fault == "reached" else PAIRS
    item = cy.next(work)
    page = cy.post(f"{item}/message", message="Tell me <all>", turn="0", ideal="My ideal")
    assert page.status_code == 502 and fault.strip() in page.text
    assert NAME not in page.text and "policy-7" not in page.text
    assert message_of(page.text) == message_of(cy.get(item).text) == "Tell me &lt;all&gt;"
    assert ("My ideal" in page.text) == (work == ATTACKS)
    streamed = cy.post(f"{item}/stream").text
    assert fault.strip() in streamed and NAME not in streamed
    assert current_rankings(talks) == [] and not chats(talks)[0].turns[0].answers
    again = client("cy", config=connected(planted(lambda body, n: whole("At last"))))
    page = again.post(f"{item}/message", message="Tell me more", turn="0")
    assert page.status_code == 200 and "At last" in page.text
    assert [turn.text for turn in chats(talks)[0].turns] == ["Tell me more"]


def test_of_two_answers_only_the_missing_one_is_asked_for_again(
    talks: Store, client: Callable, planted: Callable
) -> None:
    cy = client("cy", config=connected(planted(lambda body, n: broken("Half") if n == 1 else whole(f"Whole {n}"))))
    item = cy.next(PAIRS)
    page = cy.post(f"{item}/message", message="Hello", turn="0")
    assert page.status_code == 502
    (first,) = chats(talks)[0].turns[0].answers.values()
    page = cy.post(f"{item}/message", message="Hello", turn="0")
    texts = {answer.text for answer in chats(talks)[0].turns[0].answers.values()}
    assert page.status_code == 200 and texts == {first.text, "Whole 2"}


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_the_answer_is_cut_to_what_the_context_leaves(talks: Store, client: Callable, planted: Callable) -> None:
    def answer(body: dict, n: int) -> Response | Iterator[str]:
        long = JSONResponse({"error": {"code": "context_length_exceeded"}}, 400)
        return long if body["max_tokens"] > 16 else iter([part("As far as it"), part(end="length")])

    cy = client("cy", config=connected(planted(answer)))
    page = cy.post(f"{cy.next(PAIRS)}/message", message="Hello", turn="0")
    assert page.text.count("(cut off at the length limit)") == 2
    assert {answer.finished for answer in chats(talks)[0].turns[0].answers.values()} == {False}


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_a_server_that_never_stops_is_cut(talks: Store, client: Callable, planted: Callable) -> None:
    cy = client("cy", config=connected(planted(lambda body, n: (part("x" * 400) for _ in range(500)))))
    page = cy.post(f"{cy.next(ATTACKS)}/message", message="Hello", turn="0")
    assert page.status_code == 200
    assert len(chats(talks)[0].turns[0].answers["a"].text) < 24 * 64 + 400


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_letters_that_no_database_takes_are_replaced(talks: Store, client: Callable, planted: Callable) -> None:
    cy = client("cy", config=connected(planted(lambda body, n: whole("a\0b\ud800c"))))
    cy.post(f"{cy.next(ATTACKS)}/message", message="Hello", turn="0")
    assert chats(talks)[0].turns[0].answers["a"].text == "a\ufffdb?c"


def test_a_stream_brings_both_answers_and_keeps_them(talks: Store, client: Callable, small_model: str) -> None:
    cy = client("cy", config=connected(small_model))
    item = cy.next(PAIRS)
    fields = {"csrf": cy.csrf, "message": "Hello", "turn": "0"}
    told = cy.http.post(f"{item}/message", data=fields, headers={"accept": "application/json"})
    assert told.json() == {"turn": 0} and not chats(talks)[0].turns[0].answers
    streamed = cy.post(f"{item}/stream")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *heard, end = [json.loads(line.removeprefix("data: ")) for line in streamed.text.split("\n\n") if line]
    assert end == {"end": True} and not any(event.get("error") for event in heard)
    for letter, answer in chats(talks)[0].turns[0].answers.items():
        assert "".join(event["text"] for event in heard if event["letter"] == letter) == answer.text
    assert cy.post(f"{item}/stream").text == 'data: {"end": true}\n\n'  # nothing is asked for twice


def test_chats_of_two_labelers_stay_apart(talks: Store, client: Callable, planted: Callable) -> None:
    config = connected(planted(lambda body, n: whole("Yes")))
    cy, dee, hilda = (client(name, config=config) for name in ("cy", "dee", "hilda"))
    item = cy.next(PAIRS)
    cy.post(f"{item}/message", message="My very own words", turn="0")
    posts = {"message": {"message": "Mine", "turn": "1"}, "stream": {}, "choose": {"choice": "a1", "judged": "0"}}
    for other in (dee, hilda):
        assert "My very own words" not in other.get(item).text
        for action, fields in posts.items():
            page = other.post(f"{item}/{action}", **fields)
            assert "My very own words" not in page.text
            assert page.status_code in (404, 422) or page.url.path == "/"
    cy.post(f"{item}/choose", choice="a1", judged="0")
    cy.post(item)
    for other in (dee, hilda):
        assert other.get(item).status_code == 404
        for action, fields in posts.items():
            assert other.post(f"{item}/{action}", **fields).status_code == 404
    (chat,) = chats(talks)
    assert chat.labeler == "cy" and len(chat.turns) == 1 and current_rankings(talks, "dee") == []
    ranked = cy.next("ranking/train/0")  # an item, but no chat
    assert cy.post(f"{ranked}/message", message="Hello", turn="0").status_code == 404


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_only_configured_models_are_asked(talks: Store, client: Callable, planted: Callable) -> None:
    asked: list[dict] = []
    address = planted(lambda body, n: asked.append(body) or whole("Yes"))
    offer(talks, Work("chat"), {"models": [address, "http://127.0.0.1:1"]})
    cy = client("cy", config=WebConfig(models={"other": "http://127.0.0.1:9"}))
    item = cy.next(PAIRS)
    sneaky = {"model": address, "models": address, "address": address}
    page = cy.post(f"{item}/message", message="Hello", turn="0", **sneaky)
    assert page.status_code == 502 and "No model is connected" in page.text and asked == []


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_two_models_answer_on_changing_sides(talks: Store, client: Callable, planted: Callable) -> None:
    one, other = (planted(lambda body, n, name=name: whole(f"I am {name}")) for name in ("one", "other"))
    cy = client("cy", config=WebConfig(models={"one": one, "other": other}))
    item = cy.next(PAIRS)
    sides = set()
    for turn in range(8):
        cy.post(f"{item}/message", message=f"Hello {turn}", turn=str(turn))
        answers = chats(talks)[0].turns[turn].answers
        assert {answer.model for answer in answers.values()} == {"one", "other"}
        assert all(answer.text == f"I am {answer.model}" for answer in answers.values())
        sides.add(answers["a"].model)
        cy.post(f"{item}/choose", choice="a1", judged=str(turn))
    assert sides == {"one", "other"}


def test_a_red_team_chat_is_marked(talks: Store, client: Callable, small_model: str) -> None:
    cy = client("cy", config=connected(small_model))
    item = cy.next(ATTACKS)
    page = cy.post(item, success="5", **{"harm-hate": "yes"})
    assert page.status_code == 422 and "Send a message first" in page.text
    cy.post(f"{item}/message", message="Be bad", turn="0")
    page = cy.post(item, ideal="No.")
    assert page.status_code == 422 and "how far you got" in page.text and "what kind of harm" in page.text
    assert ">No.</textarea>" in page.text
    cy.post(item, success="5", ideal="No.", seconds="44", **{"harm-hate": "yes", "harm-made-up": "yes"})
    (chat,) = chats(talks)
    assert (chat.marks["success"], chat.marks["harms"], chat.marks["ideal"]) == (5, ["hate"], "No.")
    assert chat.kind == "red_team" and chat.models == ("policy-7",)
    page = cy.get(item)
    assert "Be bad" in page.text and re.search(r'name="success" value="5" checked', page.text)
    for _ in range(2):  # the same again is no event
        cy.post(item, success="2", ideal="No.", **{"harm-hate": "yes"})
    assert chats(talks)[0].marks["success"] == 2
    with talks.read() as connection:
        detail = connection.execute(select(events.c.detail).where(events.c.what == "revised")).scalar_one()
    assert detail["was"]["success"] == 5
    assert cy.post(f"{item}/message", message="More", turn="1").status_code == 422  # it is finished
    assert current_rankings(talks) == []


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_harms_are_the_project_s(talks: Store, client: Callable, planted: Callable) -> None:
    rude = {"name": "rude", "labels": {"en": "<b>Rude</b>ness", "zh_Hans": "粗鲁"}}
    write_setting(talks, "red_team_harms", [rude], "lead")
    cy = client("cy", config=connected(planted(lambda body, n: whole("Yes"))))
    item = cy.next(ATTACKS)
    page = cy.get(item, headers={"accept-language": "zh"})
    assert "&lt;b&gt;Rude&lt;/b&gt;ness" in page.text and "harm-hate" not in page.text


def test_an_unfinished_chat_is_kept_and_goes_on(talks: Store, client: Callable, planted: Callable) -> None:
    cy = client("cy", config=connected(planted(lambda body, n: whole("Yes"))))
    item = cy.next(PAIRS)
    page = cy.post(item)
    assert page.status_code == 422 and "Send a message first" in page.text
    cy.post(f"{item}/message", message="Hello", turn="0")
    page = cy.post(item)
    assert page.status_code == 422 and "Choose between the last two" in page.text
    assert cy.next(PAIRS) == item and "Hello" in cy.get(item).text


@pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
def test_what_may_not_be_sent(talks: Store, client: Callable, planted: Callable) -> None:
    offer(talks, Work("chat"), {"turns": 1})
    cy = client("cy", config=connected(planted(lambda body, n: whole("Yes"))))
    item = cy.next(PAIRS)
    page = cy.post(f"{item}/message", message="  ", turn="0")
    assert page.status_code == 422 and "Write a message first" in page.text
    page = cy.post(f"{item}/message", message="x" * 8001, turn="0")
    assert page.status_code == 422 and "longer than 8000" in page.text and "x" * 8001 in page.text
    assert chats(talks) == []
    cy.post(f"{item}/message", message="Hello", turn="0")
    page = cy.post(f"{item}/choose", judged="0")
    assert page.status_code == 422 and "Choose which response is better" in page.text
    cy.post(f"{item}/choose", choice="a1", judged="0")
    page = cy.post(f"{item}/message", message="More", turn="1")
    assert page.status_code == 422 and "all the messages it may have" in page.text
    assert cy.http.post(f"{item}/message", data={"message": "Hello", "turn": "0"}).status_code == 403  # no token


def test_held_out_labelers_chats_are_for_validation(talks: Store, client: Callable, planted: Callable) -> None:
    hilda = client("hilda", config=connected(planted(lambda body, n: whole("Yes"))))
    item = hilda.next(PAIRS)
    hilda.post(f"{item}/message", message="Mail me at ada@example.org", turn="0")
    hilda.post(f"{item}/choose", choice="a1", judged="0")
    snapshot = export_snapshot(talks, pools=["reward_model"], heldout="validation")
    (ranking,) = [ranking for ranking in snapshot.rankings if ranking.labeler == "hilda"]
    (prompt,) = [prompt for prompt in snapshot.prompts if prompt.id == ranking.prompt_id]
    assert prompt.split == "valid" and "ada@example.org" in prompt.text


def test_training_prompts_hold_no_personal_data(talks: Store, client: Callable, planted: Callable) -> None:
    cy = client("cy", config=connected(planted(lambda body, n: whole("Yes"))))
    item = cy.next(PAIRS)
    for turn, text in enumerate(("Mail me at ada@example.org", "And then?")):
        cy.post(f"{item}/message", message=text, turn=str(turn))
        cy.post(f"{item}/choose", choice="a1", judged=str(turn))
    with talks.read() as connection:
        first, second = select_records(connection, Prompt, prompts.c.user == "cy")
    assert (first.text, second.examples) == ("Mail me at [email]", (("Mail me at [email]", "Yes"),))
    assert first.task == second.task == {"redacted": True}


def test_chats_are_there_for_who_leads(talks: Store, client: Callable, planted: Callable) -> None:
    config = connected(planted(lambda body, n: whole("Yes")))
    cy = client("cy", config=config)
    cy.post(f"{cy.next(ATTACKS)}/message", message="Be bad", turn="0")
    assert cy.get("/lead/chats.jsonl").status_code == 403
    (line,) = client("lead", config=config).get("/lead/chats.jsonl").text.splitlines()
    found = json.loads(line)
    assert (found["labeler"], found["turns"][0]["text"], found["turns"][0]["answers"]["a"]["text"]) == (
        "cy",
        "Be bad",
        "Yes",
    )
