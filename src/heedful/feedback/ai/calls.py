"""Calls of a server, many at once, each tried until it is answered or there is no point in trying on.

What may pass (a full queue, a failure, a reply that is no reply, a dead connection) is tried again after a wait that
doubles, with jitter, and never sooner than the server's Retry-After. What cannot pass (the key, the model's name) ends
all at once; and so do as many failures in a row as calls are in flight: then the server is gone, and whatever was not
asked says so. Every reply goes to the ledger before anybody reads it.
"""

import asyncio
import json
import random
import re
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx

from heedful.config import InputError
from heedful.feedback.ai.labeler import SHOWN, Kind
from heedful.feedback.ai.ledger import Ledger, Spent, call_key

CHAT, COMPLETIONS = "chat/completions", "completions"
MAY_PASS = (408, 409, 425, 429)  # and all from 500 on
ENDS_ALL = (401, 402, 403, 404, 405)
NO_MONEY = ("insufficient_quota", "billing")
FILTERED = re.compile(r"content_?(filter|policy)|content management policy|safety (system|filter)", re.I)
CONTEXT = re.compile(r"context_length_exceeded|maximum context|context (length|window|size)|max_model_len", re.I)
TOO_LONG = re.compile(r"(too|very) (long|large|many tokens)|exceeds? .{0,60}(context|tokens|length)", re.I)
LIMIT = re.compile(r"max_(completion_|new_)?tokens", re.I)  # what is too large is then our own field
KEPT = "heedful_failure"  # marks a kept answer that was an error: a refusal, a prompt that is too long
GONE = 8  # failures in a row at least, where fewer calls are in flight
LARGEST = 64 * 2**20  # bytes of a reply; one of 4,096 tokens with twenty beside each has about 6 million

Json = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """How a server is treated. Times in seconds."""

    in_flight: int = 32
    tries: int = 8
    first_wait: float = 0.5
    longest_wait: float = 30.0  # between two tries, unless the server asks for more
    patience: float = 300.0  # the longest Retry-After that is waited for
    connect: float = 10.0
    answer: float = 600.0  # for a whole reply


class Call(NamedTuple):
    """A request: `prompt` is its text, as far as it is counted; `turn` tells equal calls apart."""

    route: str
    body: Json
    prompt: str
    turn: int = 0

    @property
    def key(self) -> str:
        return call_key(self.route, self.body, self.turn)


class Reply(NamedTuple):
    """The choices of a reply, at least one, and the tokens of all of them, as the server counts them."""

    choices: list[Json]
    prompt_tokens: int | None
    new_tokens: int | None  # with what was thought
    reasoning_tokens: int = 0


class Failure(NamedTuple):
    """Why there is no reply: "long", "refusal" or "api"; `status`: HTTP's, of the last answer; 0 of none."""

    kind: Kind
    message: str
    status: int = 0


@dataclass
class Caller:
    """Where to ask, and what came of asking so far."""

    address: str  # up to and with /v1
    ledger: Ledger
    key: str = field(default="", repr=False)
    limits: Limits = Limits()
    counts: Counter[str] = field(default_factory=Counter)  # requests made, kept replies, failed tries by reason
    spent: Spent = field(default_factory=Spent)
    largest: int = LARGEST  # bytes of a reply that are read
    in_a_row: int = 0  # calls that failed since the last one that did not
    long: int | None = 0  # calls that were too long, while none was answered
    over: str | None = None  # why no more calls are made; it stays so

    def ask(self, calls: Sequence[Call]) -> list[Reply | Failure]:
        """The replies, in order; calls with equal keys are made once.

        Raises:
            InputError: the ledger cannot be written.
        """
        unique = {call.key: call for call in calls}
        try:
            found = asyncio.run(_Asking(self).all(unique))
        except ExceptionGroup as group:
            if (known := group.subgroup(InputError)) is None:
                raise
            raise known.exceptions[0] from None
        return [found[call.key] for call in calls]

    def hidden(self, text: str) -> str:
        """What a server said, on one short line, without the key, which some repeat."""
        said = text.replace(self.key, "[key]") if self.key else text
        return " ".join(said.split())[:SHOWN]

    def tokenize(self, model: str, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text where the server tells them (vLLM's /tokenize); none where it does not.

        Raises:
            InputError: it is busy, or nothing came: whether it tells them is not known.
        """
        address = f"{self.address.removesuffix('/v1')}/tokenize"
        found: list[list[int]] = []
        try:
            with self.plain() as client:
                for text in texts:
                    body = {"model": model, "prompt": text, "add_special_tokens": False}
                    answer = client.post(address, json=body)
                    if answer.status_code in (*MAY_PASS, 502, 503, 504):
                        raise InputError(f"{address}: {answer.status_code}; run the same command again later")
                    told = answer.raise_for_status().json()["tokens"]
                    found.append([id for id in told if type(id) is int])
        except httpx.RequestError as error:
            raise InputError(f"{address}: {self.hidden(repr(error))}; run the same command again later") from None
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return [[] for _ in texts]
        return found

    def plain(self) -> httpx.Client:
        """For single questions about the server."""
        return httpx.Client(headers=self._headers(), timeout=self.limits.connect, follow_redirects=False)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def client(self, tls: ssl.SSLContext | bool) -> httpx.AsyncClient:
        """For one call at a time."""
        limits = self.limits
        return httpx.AsyncClient(
            headers=self._headers(),
            timeout=httpx.Timeout(limits.answer, connect=limits.connect),
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=60),
            verify=tls,
            follow_redirects=False,  # the key is for this address
        )


class _Again(Exception):
    """A try that failed and may pass; `wait`: seconds that the server asks for."""

    def __init__(self, reason: str, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.reason, self.wait = reason, wait


class _Asking:
    """One batch of calls in an event loop."""

    def __init__(self, caller: Caller) -> None:
        self.caller, self.limits = caller, caller.limits
        self.not_before = 0.0  # on the monotonic clock: what Retry-After says holds for all calls

    async def all(self, calls: Mapping[str, Call]) -> dict[str, Reply | Failure]:
        found: dict[str, Reply | Failure] = {}
        todo = iter(calls.items())

        # Made once, for it takes a while. Each place has a connection of its own: a shared pool looks through all of
        # its connections at every call.
        tls = httpx.create_ssl_context() if self.caller.address.startswith("https") else False

        async def work() -> None:
            async with self.caller.client(tls) as client:
                for key, call in todo:
                    found[key] = await self.one(client, key, call)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.limits.in_flight, len(calls))):
                group.create_task(work())
        return found

    async def one(self, client: httpx.AsyncClient, key: str, call: Call) -> Reply | Failure:
        kept = self.caller.ledger.reply(key)
        if kept is not None:
            self.caller.counts["kept"] += 1
            reply = read_kept(kept)
            self.caller.long = None if isinstance(reply, Reply) else self.caller.long
            return reply
        if self.caller.over is not None:
            return Failure("api", f"not asked: {self.caller.over}")
        found = await self.until_answered(client, key, call)
        if isinstance(found, Failure) and found.kind == "api":
            self.caller.in_a_row += 1
            if self.caller.in_a_row >= max(self.limits.in_flight, GONE) and self.caller.over is None:
                self.caller.over = f"the last {self.caller.in_a_row} calls all failed ({found.message})"
            return found
        self.caller.in_a_row = 0
        if isinstance(found, Reply):
            self.caller.long = None
        elif found.kind == "refusal" or self.caller.long is None:  # a server that finds all too long may be mended
            self.keep(key, call, json.dumps({KEPT: found}), (0, 0), 0.0)
        else:
            self.caller.long += 1
            if self.caller.long >= 2 * max(self.limits.in_flight, GONE) and self.caller.over is None:
                self.caller.over = f"all of {self.caller.long} calls were too long ({found.message})"
        return found

    async def until_answered(self, client: httpx.AsyncClient, key: str, call: Call) -> Reply | Failure:
        said, status = "", 0
        for attempt in range(self.limits.tries):
            await self.turn()
            if self.caller.over is not None:
                return Failure("api", f"given up after {attempt} tries: {self.caller.over}")
            try:
                return await self.once(client, key, call)
            except _Again as again:
                self.caller.counts[again.reason] += 1
                said, status = str(again), int(again.reason) if again.reason.isdigit() else 0
                if again.wait > self.limits.patience:
                    self.caller.over = f"{said}; it asks to wait {again.wait:.0f} s, so run the same command again then"
                    continue
                if again.wait:
                    self.not_before = max(self.not_before, time.monotonic() + again.wait)
            if attempt + 1 < self.limits.tries:
                wait = min(self.limits.first_wait * 2**attempt, self.limits.longest_wait)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
        return Failure("api", f"{self.limits.tries} tries: {said}", status)

    async def turn(self) -> None:
        """Wait until calls may be made; they do not all come back in the same moment."""
        while (left := self.not_before - time.monotonic()) > 0 and self.caller.over is None:
            await asyncio.sleep(left + random.uniform(0.0, self.limits.first_wait))

    async def once(self, client: httpx.AsyncClient, key: str, call: Call) -> Reply | Failure:
        """Raises _Again for what may pass."""
        self.caller.counts["asked"] += 1
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(self.limits.answer),
                client.stream(
                    "POST",
                    f"{self.caller.address}/{call.route}",
                    content=json.dumps(call.body).encode(),
                    headers={"Content-Type": "application/json"},
                ) as answer,
            ):
                raw = await read_whole(answer, self.caller.largest)
        except (httpx.TimeoutException, TimeoutError) as error:
            away = isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout)
            raise _Again("timeout", "no connection in time" if away else "no reply in time") from None
        except httpx.RequestError as error:
            raise _Again("connection", self.caller.hidden(f"no reply: {error!r}")) from None
        if raw is None:
            return Failure("api", f"a reply of more than {self.caller.largest:,} bytes")
        text = raw.decode(errors="replace")
        if answer.status_code != 200:
            return self.refused(answer, text)
        try:
            reply = read_reply(text)
        except ValueError as error:
            raise _Again("garbage", f"{error}: {self.caller.hidden(text)!r}") from None
        tokens = (reply.prompt_tokens, reply.new_tokens)
        self.keep(key, call, text, tokens, time.monotonic() - began)
        self.caller.spent = self.caller.spent.with_call(*tokens)
        return reply

    def keep(self, key: str, call: Call, text: str, tokens: tuple[int | None, int | None], seconds: float) -> None:
        size = len(call.prompt.encode(errors="replace"))
        self.caller.ledger.keep(key, str(call.body["model"]), text, size, *tokens, seconds)

    def refused(self, answer: httpx.Response, text: str) -> Failure:
        """What another status than 200 means.

        Raises:
            _Again: it may pass.
        """
        status, said = answer.status_code, said_by(text)
        message = self.caller.hidden(f"{status}: {said.message}")
        words = f"{said.code} {said.message[:SHOWN]}"
        if status in (400, 403, 422) and FILTERED.search(words):
            return Failure("refusal", message)
        too_long = CONTEXT.search(words) or (TOO_LONG.search(words) and not LIMIT.search(words))
        if status in (400, 413, 422) and (status == 413 or too_long):
            return Failure("long", message)
        if status in ENDS_ALL or (status == 429 and any(word in words for word in NO_MONEY)):
            self.caller.over = message
            return Failure("api", message, status)
        if status in MAY_PASS or (status >= 500 and status != 501):
            raise _Again(str(status), message, retry_after(answer.headers.get("Retry-After", "")))
        return Failure("api", message, status)


async def read_whole(answer: httpx.Response, most: int) -> bytes | None:
    """The body, decompressed; None where it is larger, and then the rest is not read."""
    parts, size = [], 0
    async for part in answer.aiter_bytes():
        parts.append(part)
        if (size := size + len(part)) > most:
            return None
    return b"".join(parts)


def read_kept(text: str) -> Reply | Failure:
    """What the ledger holds: a reply, or that the server would not have the prompt."""
    if text.startswith(f'{{"{KEPT}"'):
        return Failure(*json.loads(text)[KEPT])
    return read_reply(text)


def read_reply(text: str) -> Reply:
    """The reply in a body.

    Raises:
        ValueError: no JSON, or no choices in it.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("no JSON that can be read") from None
    except ValueError:
        raise ValueError("no JSON") from None
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise ValueError("no reply")
    if not choices:
        raise ValueError("a reply without choices")
    usage = found.get("usage")
    told = usage if isinstance(usage, dict) else {}
    tokens = (told.get("prompt_tokens"), told.get("completion_tokens"))
    prompt, new = (number if type(number) is int and number >= 0 else None for number in tokens)
    details = told.get("completion_tokens_details")
    thought = details.get("reasoning_tokens") if isinstance(details, dict) else 0
    return Reply(choices, prompt, new, thought if type(thought) is int else 0)


class Said(NamedTuple):
    message: str
    code: str = ""


def said_by(text: str) -> Said:
    """What an error says, in the API's form or another; never what was asked, which some repeat."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Said(text or "nothing")
    told = found if isinstance(found, dict) else {}
    error = told.get("error", told)
    if isinstance(error, dict):
        parts = error.get("message") or error.get("detail") or error.get("msg")
        first = parts[0] if isinstance(parts, list) and parts else parts  # FastAPI's list of faults
        said = first.get("msg") if isinstance(first, dict) else first
        return Said(str(said or "an error in no known form"), f"{error.get('code')} {error.get('type')}")
    return Said(str(error))


def retry_after(value: str) -> float:
    """Seconds that the header asks for: a number or a date; 0 for anything else."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, IndexError):
            return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0


def address_of(text: str) -> str:
    """The address as calls use it: with the API's version, without a slash at its end.

    Raises:
        InputError: it is no address, or holds a key, which would stand in reports and in the ledger.
    """
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"{text}: give the server's address, such as http://127.0.0.1:8000/v1")
    if url.userinfo or url.query:
        raise InputError(f"{url.scheme}://{url.host}: give the key by --server key_from=NAME, not in the address")
    address = str(url).rstrip("/")
    return f"{address}/v1" if url.path in ("", "/") else address
