"""Servers that fail while they are found out about, that take no prompt, and that never come to an end."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from heedful.config import InputError
from heedful.feedback.ai.calls import Limits
from heedful.feedback.ai.ledger import Ledger
from heedful.feedback.ai.server import ServedModel
from judge_servers import Judge, prompt_of, running

LABELS = ["1", "2"]
PROMPTS = [f"Q{n}: which?" for n in range(100)]
QUICK = Limits(in_flight=8, tries=4, first_wait=0.01, longest_wait=0.02, patience=60.0)
CHATS = ("chat", "logprobs", "draws")


def error(status: int) -> Response:
    return JSONResponse({"error": {"message": "x"}}, status)


def test_a_run_of_too_long_prompts_and_no_answer_ends_it() -> None:
    judge = Judge(*CHATS, bad=lambda body, number: error(413))
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK)
        kinds = Counter(one.kind for one in model.choose(PROMPTS, LABELS))
        assert model.caller.over == "all of 16 calls were too long (413: x)" and kinds["long"] >= 16 and kinds["api"]
        assert len(judge.asked) == kinds["long"] < 16 + QUICK.in_flight
        judge.bad = lambda body, number: error(413) if prompt_of(body) != PROMPTS[0] else None
        model = ServedModel(address, ledger, limits=QUICK)
        assert Counter(one.kind for one in model.choose(PROMPTS, LABELS)) == {"ok": 1, "long": 99}


@pytest.mark.parametrize("can", [(*CHATS, "many"), ("text", "logprobs", "echo", "draws"), ("chat", "json_schema")])
@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_fails_while_it_is_probed_is_not_taken_for_less(can: tuple[str, ...], status: int) -> None:
    """It fails from each of the probe's questions on in turn, and nothing is kept of what was found before."""
    judge = Judge(*can)
    with running(judge) as address, Ledger() as ledger:
        able = ServedModel(address, Ledger(), limits=QUICK).able
        questions = judge.probed
        assert questions >= 3
        for well in range(questions):
            judge.probed, judge.failing_probe = 0, lambda n, well=well: error(status) if n >= well else None
            with pytest.raises(InputError, match="run the same command again later"):
                ServedModel(address, ledger, limits=QUICK)
        judge.failing_probe = None
        assert ServedModel(address, ledger, limits=QUICK).able == able


def test_a_reply_that_is_too_large_is_not_read() -> None:
    async def huge(body: Any, number: int) -> Response | None:
        async def rows() -> Any:
            for _ in range(64):
                yield b" " * 2**16
                await asyncio.sleep(0)

        return StreamingResponse(rows()) if number == 0 else None

    with running(Judge(*CHATS, bad=huge)) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=Limits(in_flight=1, answer=60.0))
        model.caller.largest = 2**20
        found = model.choose(PROMPTS[:3], LABELS)
    assert [one.kind for one in found] == ["api", "ok", "ok"]
    assert found[0].message == "a reply of more than 1,048,576 bytes"
