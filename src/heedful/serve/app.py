"""The routes: a body in, an answer or a stream of events out, and an error in the API's form for whatever fails."""

import asyncio
import contextlib
import hmac
import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from heedful.serve.answers import Answer, Json
from heedful.serve.collect import Collector, as_line
from heedful.serve.errors import ApiError, bad
from heedful.serve.requests import ChatRequest, CompletionRequest, parse
from heedful.serve.served import Asked, Served
from heedful.serve.worker import Job, Worker

MAX_BODY = 4 * 1024 * 1024  # bytes
GONE = 499  # what nobody is there to read

log = logging.getLogger("heedful.serve")
Handler = Callable[[Request], Awaitable[Response]]


def make_app(
    served: Served,
    max_waiting: int,
    api_keys: Sequence[str] = (),
    origins: Sequence[str] = (),
    threads: int | None = None,
    collector: Collector | None = None,
) -> Starlette:
    """`api_keys`: any of them opens the API; none: it is open. `origins`: web pages that browsers may let in.

    `collector` keeps the prompts of those who agree; without one, a request that agrees is refused.
    """
    server = _Server(served, max_waiting, [key.encode() for key in api_keys], threads, collector)
    routes = [
        Route("/health", server.health),
        Route("/v1/models", server.guarded(server.models)),
        Route("/v1/models/{name:path}", server.guarded(server.model)),
        Route("/v1/chat/completions", server.guarded(server.chat), methods=["POST"]),
        Route("/v1/completions", server.guarded(server.complete), methods=["POST"]),
    ]
    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    handlers: dict[Any, Any] = {
        ApiError: _api_error,
        HTTPException: _http_error,
        ClientDisconnect: _gone,
        Exception: _server_error,
    }
    return Starlette(
        routes=routes,
        lifespan=server.lifespan,
        exception_handlers=handlers,
        middleware=[cors] if origins else [],
    )


class _Server:
    """The handlers and what they share."""

    def __init__(
        self,
        served: Served,
        max_waiting: int,
        api_keys: Sequence[bytes],
        threads: int | None,
        collector: Collector | None,
    ) -> None:
        self._served, self._max_waiting, self._api_keys, self._threads = served, max_waiting, api_keys, threads
        self._collector = collector
        self._worker: Worker
        self._tokenizing = threading.Lock()  # tokenizers are not made for several threads

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        served = self._served
        self._worker = Worker(served.engine, served.spelling, self._max_waiting, self._threads)
        yield
        await self._worker.close()

    def guarded(self, handler: Handler) -> Handler:
        """The handler, for those who have a key."""

        async def checked(request: Request) -> Response:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            given = key.strip().encode()
            fits = [hmac.compare_digest(given, known) for known in self._api_keys]
            if self._api_keys and not (scheme.lower() == "bearer" and any(fits)):
                message = "give the API key as a header: Authorization: Bearer KEY"
                raise ApiError(401, message, None, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
            return await handler(request)

        return checked

    async def health(self, request: Request) -> Response:
        return JSONResponse(
            {
                "status": "ok",
                "rows": self._worker.alive,
                "asked": self._worker.asked,
                "close_draws": self._served.engine.counts["close_draws"],
            },
            headers={"Cache-Control": "no-store"},
        )

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._about()]})

    async def model(self, request: Request) -> Response:
        self._served.check_name(request.path_params["name"])
        return JSONResponse(self._about())

    def _about(self) -> Json:
        served = self._served
        kind = {"id": served.name, "object": "model", "created": served.created, "owned_by": "heedful"}
        return kind | {"max_model_len": served.context}

    async def chat(self, request: Request) -> Response:
        asked = parse(ChatRequest, await read_body(request))
        if asked.store and self._collector is None:
            message = "this server keeps no prompts; leave out store, or start it with --collect FILE"
            raise bad(message, "store", "unsupported_parameter")
        keep = partial(self._collector.keep, as_line(asked)) if asked.store and self._collector is not None else None
        return await self._answer(request, asked, lambda: self._served.chat(asked), keep)

    async def complete(self, request: Request) -> Response:
        asked = parse(CompletionRequest, await read_body(request))
        return await self._answer(request, asked, lambda: self._served.complete(asked))

    async def _answer(
        self,
        request: Request,
        asked: ChatRequest | CompletionRequest,
        prepare: Callable[[], Asked],
        keep: Callable[[], None] | None = None,
    ) -> Response:
        """`keep` is called once the request is accepted: what is refused leaves no trace."""

        def prepared() -> Asked:
            with self._tokenizing:
                return prepare()

        answer = Answer(self._served, await run_in_threadpool(prepared), asked)
        job = answer.asked.job
        self._worker.submit(job)
        if keep is not None:
            try:
                await run_in_threadpool(keep)
            except BaseException as error:
                self._worker.leave(job)
                if not isinstance(error, OSError):
                    raise
                # answered here: an error that nobody handles would cost the client its connection as well
                log.exception("a prompt could not be kept")
                raise failed() from error
        if asked.stream:
            return _Events(_written(answer.events()), lambda: self._worker.leave(job))
        return await self._whole(request, answer, job)

    async def _whole(self, request: Request, answer: Answer, job: Job) -> Response:
        """The whole answer, given up as soon as the client leaves."""
        working = asyncio.create_task(answer.whole())
        gone = asyncio.create_task(_until_gone(request))
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                return Response(status_code=GONE)
            return Response(_json(working.result()), media_type="application/json")
        finally:
            self._worker.leave(job)
            working.cancel()
            gone.cancel()


class _Events(StreamingResponse):
    """Server-sent events; `leave` is called however the stream ends."""

    def __init__(self, events: AsyncIterator[bytes], leave: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _written(events: AsyncIterator[Json]) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            yield b"data: " + _json(event) + b"\n\n"
    except ApiError as error:  # the status is sent already
        yield b"data: " + _json(error.body) + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def read_body(request: Request) -> bytes:
    """The body of a request.

    Raises:
        ApiError: it is too large, or not said to be JSON (a web page may send other kinds without asking).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send the request as Content-Type: application/json")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
        elif size > 16 * MAX_BODY:  # up to here it is read to its end, so that the client hears why it is refused
            break
    if size > MAX_BODY:
        raise ApiError(413, f"the body exceeds {MAX_BODY} bytes", None, "request_too_large")
    return b"".join(parts)


def _json(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


async def _api_error(request: Request, error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, error.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    found = bad(f"{request.method} {request.url.path}: {error.detail.lower()}")
    return JSONResponse(found.body, error.status_code, error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=GONE)


async def _server_error(request: Request, error: Exception) -> Response:
    return JSONResponse(failed().body, 500)


def failed() -> ApiError:
    return ApiError(500, "the server failed; its log says why", type="server_error")
