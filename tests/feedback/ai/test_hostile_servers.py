"""Servers that refuse, fail, lie, stall and die: each is counted as what it is, and no call is answered twice."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from email.utils import formatdate
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from heedful.feedback.ai.calls import Limits, read_reply, retry_after, said_by
from heedful.feedback.ai.labeler import Outcome, share_of_first
from heedful.feedback.ai.ledger import Ledger
from heedful.feedback.ai.server import ServedModel
from judge_servers import NAME, Judge, chance, prompt_of, running
from processes import wait_until

LABELS = ["1", "2"]
PROMPTS = [f"Q{n}: which?" for n in range(40)]
QUICK = Limits(in_flight=8, tries=4, first_wait=0.01, longest_wait=0.02, patience=60.0)
CHATS = ("chat", "logprobs", "draws")


def right(outcomes: Sequence[Outcome], prompts: Sequence[str] = PROMPTS) -> None:
    assert Counter(outcome.kind for outcome in outcomes) == {"ok": len(prompts)}, outcomes
    assert [share_of_first(o.logprobs) for o in outcomes] == pytest.approx(list(map(chance, prompts)), abs=1e-9)


def error(status: int, message: str = "planted", **more: Any) -> Response:
    headers = more.pop("headers", None)
    return JSONResponse({"error": {"message": message, **more}}, status, headers)


def failing(times: int, answer: Callable[[], Response]) -> Callable[[Any, int], Response | None]:
    """Every third question is answered badly so many times, and well when it is asked again."""
    seen: Counter[str] = Counter()

    def planted(body: Any, number: int) -> Response | None:
        prompt = prompt_of(body)
        seen[prompt] += 1
        return answer() if prompt in PROMPTS[::3] and seen[prompt] <= times else None

    return planted


PASSING: dict[str, tuple[Callable[[], Response], str]] = {
    "a full queue": (lambda: error(429), "429"),
    "one that says when": (lambda: error(429, headers={"Retry-After": "0.05"}), "429"),
    "one that says it oddly": (lambda: error(429, headers={"Retry-After": "soon"}), "429"),
    "a failure": (lambda: error(500), "500"),
    "a failure without words": (lambda: Response(b"", 502), "502"),
    "one that loads": (lambda: error(503), "503"),
    "garbage": (lambda: Response(b'{"choices": [{"mess'), "garbage"),
    "a page": (lambda: Response(b"<html>hello"), "garbage"),
    "no choices": (lambda: JSONResponse({"choices": []}), "garbage"),
    "null": (lambda: JSONResponse(None), "garbage"),
    "choices that are none": (lambda: JSONResponse({"choices": [None]}), "garbage"),
    "deep brackets": (lambda: Response(b"[" * 200_000), "garbage"),
    "broken compression": (lambda: Response(b"no such thing", headers={"Content-Encoding": "gzip"}), "connection"),
}


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_is_asked_again_and_answered(kind: str) -> None:
    planted, reason = PASSING[kind]
    judge = Judge(*CHATS, bad=failing(2, planted))
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK)
        right(model.choose(PROMPTS, LABELS))
        assert model.caller.counts[reason] == 2 * len(PROMPTS[::3])
        assert model.caller.counts["asked"] == len(judge.asked) == len(PROMPTS) + 2 * len(PROMPTS[::3])
        assert ledger.spent().calls == len(PROMPTS) and judge.most <= QUICK.in_flight


def test_what_does_not_pass_is_no_answer_and_is_asked_again_next_time() -> None:
    """Some questions fail for ever; then the server mends."""
    lame = set(PROMPTS[::10])
    judge = Judge(*CHATS)
    judge.bad = lambda body, number: error(500) if prompt_of(body) in lame else None
    with running(judge) as address, Ledger() as ledger:
        found = ServedModel(address, ledger, limits=QUICK).choose(PROMPTS, LABELS)
        assert [outcome.kind for outcome in found] == ["api" if prompt in lame else "ok" for prompt in PROMPTS]
        assert found[0].message == "4 tries: 500: planted" and found[0].logprobs == ()
        assert len(judge.asked) == len(PROMPTS) + 3 * len(lame)
        judge.bad, before = None, len(judge.asked)
        right(ServedModel(address, ledger, limits=QUICK).choose(PROMPTS, LABELS))
    assert sorted(judge.prompts()[before:]) == sorted(lame)


def test_a_time_that_is_named_is_waited_for_by_all() -> None:
    """One 429 with Retry-After: from then on nobody comes before that time."""
    came: list[float] = []

    async def once(body: Any, number: int) -> Response | None:
        came.append(time.monotonic())
        await asyncio.sleep(0.02)
        return error(429, headers={"Retry-After": "1"}) if number == 0 else None

    with running(Judge(*CHATS, bad=once)) as address, Ledger() as ledger:
        right(ServedModel(address, ledger, limits=QUICK).choose(PROMPTS, LABELS))
    early = [moment for moment in came if moment < came[0] + 1]
    assert len(early) <= 2 * QUICK.in_flight  # those that were on their way, or answered in the same moment


def test_dates_and_numbers_of_retry_after() -> None:
    assert retry_after("7") == 7 and retry_after("0.5") == 0.5
    assert 55 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60
    for nothing in ("", "soon", "-3", "nan", "inf", formatdate(time.time() - 60)):
        assert retry_after(nothing) == 0


ENDING: dict[str, tuple[Callable[[], Response], str]] = {
    "a key that is not taken": (lambda: error(401, "wrong key"), "401: wrong key"),
    "no money": (lambda: error(429, "buy more", code="insufficient_quota"), "429: buy more"),
    "a model that went": (lambda: error(404, "no such model"), "404: no such model"),
    "a wait without end": (lambda: error(429, headers={"Retry-After": "86400"}), "asks to wait 86400 s"),
}


@pytest.mark.parametrize("kind", ENDING)
def test_what_cannot_pass_ends_all_at_once(kind: str) -> None:
    planted, said = ENDING[kind]
    judge = Judge(*CHATS, bad=lambda body, number: planted() if number >= 10 else None)
    with running(judge) as address, Ledger() as ledger:
        found = ServedModel(address, ledger, limits=QUICK).choose(PROMPTS, LABELS)
    counts = Counter(outcome.kind for outcome in found)
    assert counts == {"ok": 10, "api": 30} and len(judge.asked) <= 10 + QUICK.in_flight
    assert all(said in outcome.message for outcome in found if outcome.kind == "api")
    assert any(outcome.message.startswith("not asked") for outcome in found)


READ: dict[str, tuple[Callable[[], Response], str]] = {
    "a filter": (lambda: error(400, "x", code="content_filter"), "refusal"),
    "a policy": (lambda: error(400, "triggering the content management policy"), "refusal"),
    "too long": (lambda: error(400, "x", code="context_length_exceeded"), "long"),
    "too long in words": (lambda: error(400, "This model's maximum context length is 512 tokens"), "long"),
    "our own limit": (lambda: error(400, "max_tokens is too large: 4096. It supports at most 2048 tokens"), "api"),
    "too long for the limit": (
        lambda: error(400, "max_tokens is too large: 9. The maximum context length is 512 tokens"),
        "long",
    ),
    "too large": (lambda: error(413, "x"), "long"),
    "another mistake": (lambda: error(422, "x"), "api"),
    "a way elsewhere": (lambda: Response(b"", 307, headers={"Location": "http://127.0.0.1:9/v1"}), "api"),
    "a refusal": (lambda: message(refusal="I will not"), "refusal"),
    "a refusal in words": (lambda: message("I'm sorry, but I can't choose.", logprob=-0.01), "refusal"),
    "in Chinese": (lambda: message("抱歉，我无法选择。", logprob=-0.01), "refusal"),
    "an end by a filter": (lambda: message("", finish_reason="content_filter"), "refusal"),
    "no log-probabilities": (lambda: message("1"), "parse"),
    "neither label": (lambda: message("Both are good", logprob=-0.01), "parse"),
    "nothing": (lambda: message(""), "parse"),
    "no message": (lambda: JSONResponse({"choices": [{}]}), "parse"),
    "odd log-probabilities": (lambda: message("1", logprob=3.0), "parse"),
}


def message(content: str = "", logprob: float | None = None, refusal: str | None = None, **choice: Any) -> Response:
    told = None if logprob is None else {"content": [{"token": content, "logprob": logprob, "top_logprobs": []}]}
    found = {"message": {"content": content, "refusal": refusal}, "logprobs": told, **choice}
    return JSONResponse({"choices": [found], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})


@pytest.mark.parametrize("kind", READ)
def test_each_failure_has_its_name_and_is_no_label(kind: str) -> None:
    """Of every fourth question, so that no run of failures ends it all."""
    planted, outcome = READ[kind]
    lame = set(PROMPTS[::4])
    judge = Judge(*CHATS)
    judge.bad = lambda body, number: planted() if prompt_of(body) in lame else None
    with running(judge) as address, Ledger() as ledger:
        found = ServedModel(address, ledger, limits=QUICK).choose(PROMPTS, LABELS)
        assert [one.kind for one in found] == [outcome if prompt in lame else "ok" for prompt in PROMPTS]
        assert all(one.message and not one.logprobs for one in found if one.kind != "ok")
        right([one for one in found if one.kind == "ok"], [prompt for prompt in PROMPTS if prompt not in lame])
        assert len(judge.asked) == len(PROMPTS)
        again = ServedModel(address, ledger, limits=QUICK).choose(PROMPTS, LABELS)
    asked = judge.prompts()[len(PROMPTS) :]
    if outcome == "api":
        assert sorted(asked) == sorted(lame)
    else:  # an answer is not asked for again, unless it was that the first prompts are too long, before any other came
        assert [(one.kind, one.message) for one in again] == [(one.kind, one.message) for one in found]
        assert set(asked) <= (set(PROMPTS[: QUICK.in_flight]) & lame if outcome == "long" else set())


def test_votes_that_say_nothing_are_counted_and_too_many_are_no_answer() -> None:
    """Of eight votes three, then five, are unreadable; then one call of the eight fails."""

    def some(lame: int) -> Callable[[Any, int], Response | None]:
        return lambda body, number: message("Hm.") if body["seed"] < lame else None

    for lame, kind in ((3, "ok"), (5, "parse")):
        judge = Judge("chat", "draws", first=lambda prompt: 1.0, bad=some(lame))
        with running(judge) as address, Ledger() as ledger:
            model = ServedModel(address, ledger, limits=QUICK)
            found = model.choose(PROMPTS[:5], LABELS)
        assert [one.kind for one in found] == [kind] * 5 and model.caller.counts["unread votes"] == 5 * lame
        assert all(one.logprobs == (0.0, float("-inf")) for one in found if kind == "ok")
    judge = Judge("chat", "draws", bad=lambda body, number: error(400, "x") if body["seed"] == 7 else None)
    with running(judge) as address, Ledger() as ledger:
        found = ServedModel(address, ledger, limits=QUICK).choose(PROMPTS[:5], LABELS)
    assert [(one.kind, one.message) for one in found] == [("api", "400: x")] * 5


def test_a_refusal_that_names_a_number_is_no_vote() -> None:
    for said, kind in (
        ("I'm sorry, but I can't choose between these 2 responses.", "refusal"),
        ("Between the 2 responses, the first is better.", "parse"),
    ):
        judge = Judge("chat", "draws", bad=lambda body, number, said=said: message(said))
        with running(judge) as address, Ledger() as ledger:
            found = ServedModel(address, ledger, limits=QUICK).choose(PROMPTS[:5], LABELS)
        assert [one.kind for one in found] == [kind] * 5 and not any(one.logprobs for one in found)


def test_samples_that_do_not_come_are_missing_one_by_one() -> None:
    def fewer(body: Any, number: int) -> Response | None:
        return message("only one") if number == 0 else None

    judge = Judge("chat", "many", "draws", bad=fewer)
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=Limits(in_flight=1))
        found = model.write(PROMPTS[:2], 3, 1.0, 10, 0)
    assert [[one.kind for one in group] for group in found] == [["ok", "parse", "parse"], ["ok"] * 3]
    assert found[0][1].message == "1 of 3 samples came"


def test_a_reply_that_does_not_come_is_given_up_and_asked_for_again() -> None:
    over = Event()

    async def never(body: Any, number: int) -> None:
        while number == 0 and not over.is_set():
            await asyncio.sleep(0.02)

    limits = Limits(in_flight=8, tries=50, first_wait=0.01, answer=1.0)
    with running(Judge(*CHATS, bad=never)) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=limits)
        right(model.choose(PROMPTS[:4], LABELS), PROMPTS[:4])
        assert model.caller.counts["timeout"] >= 1
        over.set()


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = "sk-secret-4711"
    judge = Judge(*CHATS, bad=lambda body, number: error(422, f"no such thing for {key}, {key}") if number else None)
    caplog.set_level("DEBUG")
    with running(judge) as address, Ledger(tmp_path / "j.db") as ledger:
        model = ServedModel(address, ledger, key=key, limits=QUICK)
        found = model.choose(PROMPTS[:3], LABELS)
        said = repr((found, model.caller, model.told))
    assert set(judge.headers) == {f"Bearer {key}"}
    assert key not in said and "no such thing for [key], [key]" in said
    assert not any(key.encode() in path.read_bytes() for path in tmp_path.iterdir())
    assert key not in caplog.text


def test_a_resumed_job_repeats_no_call(tmp_path: Path) -> None:
    """Counted at the server: neither a question nor the probe."""
    judge = Judge(*CHATS)
    with running(judge) as address:
        with Ledger(tmp_path / "j.db") as ledger:
            ServedModel(address, ledger, limits=QUICK).choose(PROMPTS[:25], LABELS)
        probed = judge.probed
        with Ledger(tmp_path / "j.db") as ledger:
            model = ServedModel(address, ledger, limits=QUICK)
            right(model.choose([*PROMPTS, *PROMPTS[:5]], LABELS), [*PROMPTS, *PROMPTS[:5]])
            assert judge.probed == probed > 0 and sorted(judge.prompts()) == sorted(PROMPTS)
            ServedModel(address, ledger, limits=QUICK, probe_again=True)
            assert judge.probed == 2 * probed
            model.choose(PROMPTS, ["2", "1"])  # the same question: the labels are only read out of its reply
    assert len(judge.asked) == len(PROMPTS)
    with running(judge) as elsewhere, Ledger(tmp_path / "j.db") as ledger:
        right(ServedModel(elsewhere, ledger, limits=QUICK).choose(PROMPTS, LABELS))
    assert len(judge.asked) == len(PROMPTS)  # the same model behind another address


def start_judge(port: int, answered: Path) -> subprocess.Popen[bytes]:
    program = Path(sys.modules["judge_servers"].__file__ or "")
    process = subprocess.Popen([sys.executable, str(program), str(port), str(answered)])
    wait_until(lambda: listens(port), 60)
    return process


def listens(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_that_dies_midway_costs_only_what_was_on_its_way(tmp_path: Path) -> None:
    """kill -9 while hundreds are asked, and a restart while they are tried again: all are answered, and no question
    whose reply had come is asked again. Then it dies for good: what is left is counted, and told as not asked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answered, ledger_file = tmp_path / "answered", tmp_path / "j.db"
    prompts = [f"Q{n}: which?" for n in range(400)]
    server = start_judge(port, answered)
    kept: set[str] = set()

    def kill_and_restart() -> None:
        nonlocal server
        wait_until(lambda: answered.exists() and len(answered.read_text().split("\n")) > 100, 60)
        server.send_signal(signal.SIGKILL)
        server.wait()
        kept.update(answered.read_text().split("\n")[:-1])
        server = start_judge(port, answered)

    try:
        killer = Thread(target=kill_and_restart)
        limits = Limits(in_flight=16, tries=30, first_wait=0.1, longest_wait=0.5)
        with Ledger(ledger_file) as ledger:
            model = ServedModel(f"http://127.0.0.1:{port}", ledger, NAME, limits=limits)
            killer.start()
            right(model.choose(prompts, LABELS), prompts)
            killer.join()
            assert model.caller.counts["connection"] > 0 and ledger.spent().calls == len(prompts)
        times = Counter(answered.read_text().split("\n")[:-1])
        twice = [prompt for prompt, number in times.items() if number > 1]
        assert set(times) == set(prompts) and len(twice) <= 16 and set(twice) <= kept
        server.send_signal(signal.SIGKILL)
        server.wait()
        quick = Limits(in_flight=4, tries=2, first_wait=0.01)
        with Ledger(ledger_file) as ledger:
            model = ServedModel(f"http://127.0.0.1:{port}", ledger, NAME, limits=quick)
            found = model.choose([*prompts, *PROMPTS, *(f"R{n}" for n in range(50))], LABELS)
        assert Counter(one.kind for one in found) == {"ok": len(prompts) + len(PROMPTS), "api": 50}
        assert sum(one.message.startswith("not asked") for one in found) > 30
        assert model.caller.counts["asked"] <= 2 * (8 + 3)
    finally:
        server.kill()
        server.wait()


def test_as_many_calls_are_on_their_way_as_may_be() -> None:
    """A server that answers one only while all places are taken: a client that left one empty would wait for ever."""
    number, places = 200, 32
    waiting: list[asyncio.Event] = []
    left = number

    async def when_full(body: Any, _: int) -> None:
        nonlocal left
        mine = asyncio.Event()
        waiting.append(mine)
        if len(waiting) == min(places, left):
            left -= 1
            waiting.pop(0).set()
        await mine.wait()
        if waiting and len(waiting) == min(places, left):
            left -= 1
            waiting.pop(0).set()

    prompts = [f"Q{n}: which?" for n in range(number)]
    judge = Judge(*CHATS, bad=when_full)
    with running(judge) as address, Ledger() as ledger:
        right(ServedModel(address, ledger, limits=Limits(tries=1)).choose(prompts, LABELS), prompts)
    assert judge.most == places


def test_words_of_errors() -> None:
    for form in (
        '{"error": {"message": "m"}}',
        '{"error": "m"}',
        '{"detail": "m"}',
        '{"detail": [{"msg": "m", "input": "x"}]}',
    ):
        assert said_by(form).message == "m"
    assert said_by('{"error": {"message": "m", "code": "c", "type": "t"}}').code == "c t"
    assert said_by("").message == "nothing" and said_by("plain").message == "plain"
    assert said_by('["prompt"]').message == said_by("{}").message == "an error in no known form"
    reply = read_reply(json.dumps({"choices": [{}], "usage": {"prompt_tokens": True, "completion_tokens": -1}}))
    assert reply[1:] == (None, None, 0)
