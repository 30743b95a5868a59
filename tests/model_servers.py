"""Servers that labelers chat with: a real one of a small model, and some that fail in a planted way."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from threaded import Threaded

NAME = "secret-policy-7"  # what the server calls its model: no labeler may read it


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `heedful serve` with a small random model."""
    from small_server import launch, save_small, stop  # with torch, which few of the app's tests need
    from small_tokenizers import byte_tokenizer

    place = tmp_path_factory.mktemp("served")
    folder = save_small(place / "model", byte_tokenizer(), chat=True, context=1024)
    server = launch(place / "said", folder, "--name", NAME, "--max-batch", 8)
    try:
        yield server.wait().url
    finally:
        stop(server)


def part(text: str = "", end: str | None = None) -> str:
    delta = {"content": text} if text else {}
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': end}]})}\n\n"


@contextmanager
def serving() -> Iterator[Callable[..., str]]:
    """Servers whose chats are answered by a function of the request's body and their number; what is called gives one's
    address.

    The function returns a Response, or the pieces of a stream.
    """
    running: list[Threaded] = []

    def serve(answer: Callable[[dict, int], Response | Iterator[str]]) -> str:
        asked = []

        async def models(request: Request) -> Response:
            return JSONResponse({"object": "list", "data": [{"id": NAME}]})

        async def chat(request: Request) -> Response:
            asked.append(await request.json())
            made = answer(asked[-1], len(asked) - 1)
            return made if isinstance(made, Response) else StreamingResponse(made, media_type="text/event-stream")

        routes = [Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
        running.append(Threaded(Starlette(routes=routes)))
        return running[-1].address

    try:
        yield serve
    finally:
        for server in running:
            server.close()


@pytest.fixture
def planted() -> Iterator[Callable[..., str]]:
    """As `serving`."""
    with serving() as serve:
        yield serve


def whole(text: str) -> Iterator[str]:
    """A stream that says this."""
    yield part(text)
    yield part(end="stop")
    yield "data: [DONE]\n\n"


def broken(text: str) -> Iterator[str]:
    """A stream that ends in the middle, as if its server had died."""
    yield part(text)


def slow(seconds: float) -> Iterator[str]:
    """A stream that says something now and then and never ends in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield part("…")
        time.sleep(0.05)
