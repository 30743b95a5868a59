"""Servers of no model at all, for judges: what each can do is told, what goes wrong is planted, what was asked is kept.

As a program it is such a server that can be killed:

    python judge_servers.py PORT FILE      appends a line to FILE for each question it answers
"""

import asyncio
import hashlib
import json
import math
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from threaded import threaded

NAME = "judge-7"
TRIED = ("Which is larger", "Tell a story")  # how the probe's prompts begin
Json = dict[str, Any]
Bad = Callable[[Json, int], Response | Awaitable[Response | None] | None]


def chance(prompt: str) -> float:
    """P(1) of 1 and 2 that the servers see in a prompt."""
    return 0.05 + 0.9 * int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big") / 2**32


def spread(first: float) -> dict[str, float]:
    """Token → probability where an answer begins."""
    found = {}
    for label, share in (("1", first), ("2", 1 - first)):
        wide = chr(ord(label) + 0xFEE0)
        found |= {label: 0.5 * share, f" {label}": 0.3 * share, wide: 0.1 * share}
    return found | {"The": 0.06, "\n": 0.03} | {f"word{n}": 0.01 / 2**n for n in range(1, 31)}


class Judge:
    """A server that can do what it is told it can.

    chat, text: the routes it has. logprobs: lists the likeliest tokens; token_ids: and those that are asked for;
    echo: and those of a prompt. json_schema, structured_outputs, guided_choice: answers only what it may. many: heeds
    n. draws: heeds the temperature. thinks, wordy: does so before the answer, the latter in these `words`. modern:
    wants max_completion_tokens and takes no temperature and no seed.
    """

    def __init__(
        self,
        *can: str,
        bad: Bad | None = None,
        first: Callable[[str], float] = chance,
        most_listed: int = 100,
        words: Sequence[str] = ("The", " better", " one", " is"),
        failing_probe: Callable[[int], Response | None] | None = None,  # of the number of the probe's question
        root: str | None = None,  # where it says that the model was loaded from
    ) -> None:
        self.root = root
        self.words, self.failing_probe = words, failing_probe
        self.can, self.bad, self.first, self.most_listed = set(can), bad, first, most_listed
        self.asked: list[Json] = []  # bodies of questions, without the probe's
        self.probed = 0
        self.headers: list[str] = []
        self.in_flight = self.most = 0

    def prompts(self) -> list[str]:
        return [prompt_of(body) for body in self.asked]

    def app(self) -> Starlette:
        async def models(request: Request) -> Response:
            return JSONResponse({"data": [{"id": NAME, "root": self.root}]})

        async def tokenize(request: Request) -> Response:
            if "token_ids" not in self.can:
                return JSONResponse({"detail": "Not Found"}, 404)
            return JSONResponse({"tokens": ids_of((await request.json())["prompt"])})

        routes = [Route("/v1/models", models), Route("/tokenize", tokenize, methods=["POST"])]
        for route, name in (("chat", "/v1/chat/completions"), ("text", "/v1/completions")):
            if route in self.can:
                routes.append(Route(name, self.answer, methods=["POST"]))
        return Starlette(routes=routes)

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.headers.append(request.headers.get("authorization", ""))
        if prompt_of(body).startswith(TRIED):
            self.probed += 1
            failed = self.failing_probe(self.probed - 1) if self.failing_probe else None
            return failed or self.good(body)
        self.asked.append(body)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            planted = self.bad(body, len(self.asked) - 1) if self.bad else None
            found = await planted if isinstance(planted, Awaitable) else planted
            return found if found is not None else self.good(body)
        finally:
            self.in_flight -= 1

    def good(self, body: Json) -> Response:
        if "modern" in self.can:
            for field, said in (
                ("max_tokens", "use max_completion_tokens"),
                ("temperature", "temperature"),
                ("seed", "seed"),
            ):
                if field in body:
                    return JSONResponse({"error": {"message": f"Unsupported parameter: {said}"}}, 400)
        prompts = body.get("prompt") if isinstance(body.get("prompt"), list) else [prompt_of(body)]
        number = int(body.get("n", 1)) if "many" in self.can else 1
        if body.get("echo") and "echo" in self.can:
            choices = [self.echoed(text) for text in prompts]
        else:
            choices = [self.choice(body, i) for i in range(number)]
        usage = {"prompt_tokens": sum(map(len, prompts)), "completion_tokens": 3 * len(choices)}
        return JSONResponse({"choices": choices, "usage": usage})

    def choice(self, body: Json, sample: int) -> Json:
        prompt = prompt_of(body)
        first = self.first(prompt)
        seed = body.get("seed", 0) if "draws" in self.can else 0
        draw = random.Random(f"{prompt}{seed}{sample if 'draws' in self.can else 0}").random()
        warm = body.get("temperature", 1) > 0 and "draws" in self.can
        label = "1" if (draw < first if warm else first >= 0.5) else "2"
        tokens = ["Well", f"{draw:.9f}"] if prompt.startswith(TRIED[1]) else [label]
        may = self.may_say(body)
        if may is not None:
            tokens = [may[0] if label not in may else label]
        if may is not None and "response_format" in body:
            tokens = [json.dumps({"label": tokens[0]})]
        if "wordy" in self.can and may is None and not prompt.startswith(TRIED[1]):
            tokens = [*self.words, f" {label}", "."]
        thoughts = ["<think>", "1", " beats", " 2", "</think>", "\n\n"] if "thinks" in self.can else []
        said = thoughts + tokens
        most = body.get("max_tokens", body.get("max_completion_tokens"))
        found: Json = {"index": sample, "finish_reason": "stop" if len(said) <= most else "length"}
        if "messages" in body:
            message = {"role": "assistant", "content": "".join(said[len(thoughts) : most])}
            found["message"] = message | ({"reasoning_content": "1 beats 2"} if thoughts else {})
        else:
            found["text"] = "".join(said[:most])
        if body.get("logprobs") and "logprobs" in self.can:
            found["logprobs"] = {key: rows[:most] for key, rows in self.listed(body, said, first).items()}
        return found

    def may_say(self, body: Json) -> list[str] | None:
        """What the answer must be one of."""
        if "json_schema" in self.can and "response_format" in body:
            return body["response_format"]["json_schema"]["schema"]["properties"]["label"]["enum"]
        if "structured_outputs" in self.can and "structured_outputs" in body:
            return body["structured_outputs"]["choice"]
        return body["guided_choice"] if "guided_choice" in self.can and "guided_choice" in body else None

    def listed(self, body: Json, tokens: Sequence[str], first: float) -> Json:
        """Where the label stands, the spread; elsewhere the token that came, and the wrong label likely."""
        rows = []
        place = max((n for n, token in enumerate(tokens) if token.strip() in ("1", "2")), default=0)
        for n, token in enumerate(tokens):
            odds = spread(first) if n == place else {token: 0.9, "1": 0.05, "2": 0.01, "so": 0.04}
            odds.setdefault(token, 1e-9)
            if "token_ids" in self.can and "logprob_token_ids" in body:
                asked = {text for text in odds if ids_of(text)[0] in body["logprob_token_ids"]}
                rows.append((token, {text: odds[text] for text in (*asked, token)}))
            else:
                number = body["top_logprobs"] if "messages" in body else body["logprobs"]
                kept = sorted(odds, key=lambda text: -odds[text])[: min(number, self.most_listed)]
                rows.append((token, {text: odds[text] for text in kept} | {token: odds[token]}))
        logs = [(token, {text: math.log(value) for text, value in odds.items()}) for token, odds in rows]
        if "messages" in body:
            content = [
                entry(token, odds[token]) | {"top_logprobs": [entry(*one) for one in odds.items()]}
                for token, odds in logs
            ]
            return {"content": content}
        return {
            "tokens": [token for token, _ in logs],
            "token_logprobs": [odds[token] for token, odds in logs],
            "top_logprobs": [odds for _, odds in logs],
        }

    def echoed(self, text: str) -> Json:
        form = next(form for form in (text[-2:], text[-1:]) if form in spread(0.5))
        prompt = text.removesuffix(form)
        names = [prompt[:3], prompt[3:], form]
        logprobs = [None, -5.0, math.log(spread(self.first(prompt))[form])]
        return {"text": text, "finish_reason": "length", "logprobs": {"tokens": names, "token_logprobs": logprobs}}


def entry(token: str, logprob: float) -> Json:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def ids_of(text: str) -> list[int]:
    """One token for what may begin an answer, one a character else."""
    known = list(spread(0.5))
    return [known.index(text)] if text in known else [1000 + ord(character) for character in text]


def prompt_of(body: Json) -> str:
    if "messages" in body:
        return body["messages"][-1]["content"]
    return body["prompt"][0] if isinstance(body["prompt"], list) else body["prompt"]


@contextmanager
def running(judge: Judge) -> Iterator[str]:
    """The judge's address, served by a thread of this process."""
    with threaded(judge.app()) as address:
        yield f"{address}/v1"


def hurry(monkeypatch: Any) -> None:
    """What a command asks of a server in vain it asks again at once."""
    from heedful.feedback.ai.calls import Limits  # not above: the program below starts without them
    from heedful.pipeline import ai_served

    monkeypatch.setattr(ai_served, "Limits", partial(Limits, first_wait=0.01))


def main(port: int, answered: Path) -> None:
    """Each question takes a moment, and is written down just before it is answered."""

    async def slowly(body: Json, number: int) -> None:
        await asyncio.sleep(0.01)
        with answered.open("a") as file:
            file.write(prompt_of(body) + "\n")

    app = Judge("chat", "logprobs", bad=slowly).app()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
