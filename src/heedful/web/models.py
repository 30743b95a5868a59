"""Asking a served model, over HTTP, in the form of OpenAI's API (docs/serve.md).

Only the addresses that whoever runs the app has named are ever asked: redirects are not followed and proxies of the
environment not used. An answer is asked for as a stream, so that it can be shown as it is written and cut wherever it
grows beyond its limits, and it is whole only if the server says how it ended.
"""

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import httpx

from heedful.web.config import WebConfig
from heedful.web.words import N_

CONNECT = 5  # seconds in which a server takes the connection
TRIAL = 20  # seconds in which a model answers when chats with it are put on offer
LEAST = 16  # tokens of an answer; where the context leaves fewer, the chat is too long
LONGEST_TOKEN = 64  # characters on the average, over which an answer is cut whatever its server says
MOST = 64  # answers that are being written at once
log = logging.getLogger("heedful.web")

Message = Mapping[str, str]


class ModelError(Exception):
    """No answer. `message` is for the labeler, to be translated; what the server said goes to the log alone, for it
    may name the model."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(detail)
        self.message = message


AWAY = N_("The model cannot be reached at the moment.")
SLOW = N_("The model took too long to answer.")
BUSY = N_("The model has too much to do at the moment. Try again soon.")
LONG = N_("The chat has become too long for the model. Shorten your message, or finish here.")
REFUSED = N_("The model's server refused the message. Tell whoever leads the project.")
BROKEN = N_("The answer broke off in the middle.")
FAILED = N_("The model's server failed.")
EMPTY = N_("The model answered nothing. Say it in other words.")
NONE = N_("No model is connected. Tell whoever leads the project.")


class How(NamedTuple):
    """How an answer is sampled; `max_tokens` is lowered where the model's context leaves less."""

    temperature: float
    max_tokens: int
    seed: int


class Piece(NamedTuple):
    """A part of an answer; `end` of the last one says how it ended: "stop", or "length" where it was cut."""

    text: str
    end: str = ""


class Model(NamedTuple):
    """A server and the name under which it knows the model."""

    address: str
    name: str
    key: str


def ask(config: WebConfig, name: str, messages: Sequence[Message], how: How) -> Iterator[Piece]:
    """The answer of the model of that name, piece by piece.

    Raises:
        ModelError: there is no such model, its server does not answer in time, refuses, or breaks off.
    """
    try:
        with httpx.Client(
            timeout=httpx.Timeout(config.model_seconds, connect=min(CONNECT, config.model_seconds)),
            follow_redirects=False,
            trust_env=False,
        ) as client:
            model = find(client, config, name)
            yield from _pieces(client, model, messages, how, time.monotonic() + config.model_seconds)
    except ModelError as error:
        log.warning("model %s: %s", name, error)
        raise
    except httpx.TimeoutException as error:
        log.warning("model %s: %r", name, error)
        raise ModelError(AWAY if isinstance(error, httpx.ConnectTimeout) else SLOW, repr(error)) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.warning("model %s: %r", name, error)
        broken = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)
        raise ModelError(BROKEN if broken else AWAY, repr(error)) from None


def trial(config: WebConfig, name: str) -> ModelError | None:
    """What is wrong with chats with the model: it is asked for one word; None where it answers."""
    soon = config.model_copy(update={"model_seconds": min(TRIAL, config.model_seconds)})
    try:
        for _ in ask(soon, name, [{"role": "user", "content": "Hello"}], How(0, 1, 0)):
            pass
    except ModelError as error:
        return error
    return None


def find(client: httpx.Client, config: WebConfig, name: str) -> Model:
    """The configured server, asked for the name it knows the model by: ours, or the only one it has.

    A key that the server wants stands in the address, as http://:KEY@host:port.

    Raises:
        ModelError: nobody configured the name, or the server has several models and none of that name.
    """
    if name not in config.models:
        raise ModelError(NONE, f"no model {name!r} is configured")
    url = httpx.URL(config.models[name])
    key = url.password
    address = str(url.copy_with(userinfo=b"")).rstrip("/").removesuffix("/v1")
    answer = client.get(f"{address}/v1/models", headers=_key(key))
    _check(answer)
    try:
        ids = [str(one["id"]) for one in answer.json()["data"]]
    except (ValueError, KeyError, TypeError):
        raise ModelError(FAILED, f"{address} is no model server: {answer.text[:200]}") from None
    if name not in ids and len(ids) != 1:
        raise ModelError(NONE, f"{address} serves {', '.join(ids) or 'nothing'}, not {name}")
    return Model(address, name if name in ids else ids[0], key)


def _key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _check(answer: httpx.Response) -> None:
    """Raises ModelError unless the server took the request."""
    if answer.status_code == 200:
        return
    said = answer.read().decode(errors="replace")[:500]
    detail = f"{answer.status_code}: {said}"
    if answer.status_code in (429, 503):
        raise ModelError(BUSY, detail)
    if answer.status_code == 400 and ("context_length_exceeded" in said or "maximum context" in said):
        raise ModelError(LONG, detail)
    raise ModelError(REFUSED if answer.status_code < 500 else FAILED, detail)


def _pieces(client: httpx.Client, model: Model, messages: Sequence[Message], how: How, until: float) -> Iterator[Piece]:
    limit = how.max_tokens
    while True:
        body = {"model": model.name, "messages": list(messages), "max_tokens": limit, "stream": True}
        body |= {"temperature": how.temperature, "seed": how.seed}
        url = f"{model.address}/v1/chat/completions"
        with client.stream("POST", url, json=body, headers=_key(model.key)) as answer:
            try:
                _check(answer)
            except ModelError as error:  # what is refused costs nothing: ask for less
                if error.message != LONG or limit <= LEAST:
                    raise
                limit = max(LEAST, limit // 2)
                continue
            yield from _read(answer, limit, until)
            return


def _read(answer: httpx.Response, limit: int, until: float) -> Iterator[Piece]:
    length, end = 0, ""
    for line in answer.iter_lines():
        if time.monotonic() > until:
            raise ModelError(SLOW, "the time for a whole answer is over")
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            break
        text, said = _event(data)
        end = said or end
        length += len(text)
        if length > limit * LONGEST_TOKEN:
            end = "length"
            break
        if text:
            yield Piece(text)
    if not end:
        raise ModelError(BROKEN, "the stream ended without its end")
    yield Piece("", end)


def _event(data: str) -> tuple[str, str]:
    """The text and the reason of the end that an event of the stream brings."""
    try:
        event: Any = json.loads(data)
        if "error" in event:
            raise ModelError(BROKEN, f"in the stream: {data[:500]}")
        if not event["choices"]:
            return "", ""
        choice = event["choices"][0]
        text = choice["delta"].get("content") or ""
        # No database takes NUL, and no page half a character.
        return text.replace("\0", "\ufffd").encode(errors="replace").decode(), choice.get("finish_reason") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(BROKEN, f"not an event of a chat: {data[:200]}") from None


class Told(NamedTuple):
    """What one of several answers brings: a text, or its end; an end with `error` is none. `html`: all of it, to be
    shown, where whoever passes it on has made that."""

    letter: str
    text: str
    over: bool = False
    error: str = ""
    html: str = ""


Job = Callable[[Callable[[str], None]], None]  # is told pieces by way of its argument; raises ModelError
ROOM = threading.BoundedSemaphore(MOST)


async def together(jobs: Mapping[str, Job]) -> AsyncIterator[Told]:
    """Answers by letter, side by side, each from a thread of its own: pages never wait for models.

    Whoever stops listening does not stop the jobs: what they keep is kept.
    """
    loop, queue = asyncio.get_running_loop(), asyncio.Queue[Told]()

    def tell(told: Told) -> None:
        with contextlib.suppress(RuntimeError):  # the app has ended meanwhile
            loop.call_soon_threadsafe(queue.put_nowait, told)

    def run(letter: str, job: Job) -> None:
        error = ""
        try:
            job(lambda text: tell(Told(letter, text)))
        except ModelError as why:
            error = why.message
        except Exception:
            log.exception("an answer could not be kept")
            error = FAILED
        finally:
            ROOM.release()
        tell(Told(letter, "", over=True, error=error))

    for letter, job in jobs.items():
        if ROOM.acquire(blocking=False):
            threading.Thread(target=run, args=(letter, job), daemon=True).start()
        else:
            tell(Told(letter, "", over=True, error=BUSY))
    left = len(jobs)
    while left:
        told = await queue.get()
        left -= told.over
        yield told


async def events(told: AsyncIterator[Told], say: Callable[[str], str]) -> AsyncIterator[str]:
    """As server-sent events, errors in the visitor's language; the last one is {"end": true}."""
    async for one in told:
        event: dict[str, Any] = {"letter": one.letter, "text": one.text}
        if one.over:
            event |= {"over": True, "error": say(one.error) if one.error else ""}
            event |= {"html": one.html} if one.html else {}
        yield f"data: {json.dumps(event)}\n\n"
    yield 'data: {"end": true}\n\n'
