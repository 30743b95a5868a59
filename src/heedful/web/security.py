"""What every request passes: a limit on its size, a check of where it comes from, and headers that bind the browser."""

from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE = ("GET", "HEAD", "OPTIONS")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
NO_STORE = {"Cache-Control": "no-store"}


class TooLarge(Exception):
    """The body is longer than the app takes."""


class Guard:
    """An ASGI middleware around the whole app."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self.app, self.max_body = app, max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] not in SAFE and not same_site(headers):
            await self._refuse(scope, receive, send, "this request comes from another site", 403)
            return
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            await self._refuse(scope, receive, send, "no address holds NUL characters", 400)
            return
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20) or int(length) > self.max_body:
            await self._refuse(scope, receive, send, f"more than {self.max_body:,} bytes", 413)
            return
        read = 0
        started = False

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self.max_body:
                raise TooLarge
            return message

        async def with_headers(message: Message) -> None:
            nonlocal started
            if read > self.max_body and not started:
                return  # what the app makes of half a body is not what is wrong
            if message["type"] == "http.response.start":
                started = True
                found = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    found.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    found.setdefault("Cache-Control", "no-store")
            await send(message)

        with suppress(TooLarge):
            await self.app(scope, limited, with_headers)
        if read > self.max_body and not started:
            await self._refuse(scope, receive, send, f"more than {self.max_body:,} bytes", 413)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, why: str, status: int) -> None:
        headers = HEADERS | NO_STORE | {"Connection": "close"}
        answer: Response = PlainTextResponse(why + "\n", status, headers)
        if scope["path"].startswith("/api/"):
            answer = JSONResponse({"error": why, "problems": []}, status, headers)
        await answer(scope, receive, send)


def same_site(headers: Headers) -> bool:
    """Whether the browser says that our own page sent it. A program that says nothing has no one else's cookies."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")
