"""The app: routes, middleware, and a page for every way in which a request can fail."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.slots import Taken
from heedful.web.config import WebConfig
from heedful.web.markdown import writable
from heedful.web.routes import (
    adjudicate,
    api,
    chat,
    lead,
    login,
    playground,
    principles,
    quality,
    run,
    screening,
    work,
)
from heedful.web.security import HEADERS, NO_STORE, Guard
from heedful.web.visit import HERE, Forbidden, LoginNeeded, NotFound, visit
from heedful.web.words import N_

MEASURING = (quality.router, adjudicate.router, screening.router)
ASKING = (chat.router, playground.router, principles.router)  # of models
ROUTERS = (login.router, work.router, *ASKING, api.router, run.router, *lead.ROUTERS, *MEASURING)
THREADS = 8  # that make pages: Python runs one at a time, and among more of them every page waits longer
SAYS = {
    403: N_("You may not do this."),
    404: N_("There is nothing here."),
    405: N_("There is nothing here."),
    422: N_("This request makes no sense here."),
    500: N_("Something went wrong on our side. What you wrote is kept as a draft."),
}


def create_app(store: Store, config: WebConfig | None = None) -> FastAPI:
    """The app over an open store."""
    config = config or WebConfig()
    app = FastAPI(title="heedful", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json", lifespan=few_threads)
    app.state.store, app.state.config = store, config
    app.state.hashing = CapacityLimiter(4)  # threads for passwords, see `visit.aside`
    app.state.judging = CapacityLimiter(4)  # threads that wait for a model's scores
    for router in ROUTERS:
        app.include_router(router, include_in_schema=router is api.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_middleware(Guard, max_body=config.max_body)
    app.add_exception_handler(LoginNeeded, to_login)
    app.add_exception_handler(Forbidden, lambda request, error: failed(request, 403, str(error)))
    app.add_exception_handler(NotFound, lambda request, error: failed(request, 404))
    app.add_exception_handler(Taken, lambda request, error: refused(request, 409, error))
    app.add_exception_handler(InputError, lambda request, error: refused(request, 400, error))
    app.add_exception_handler(RequestValidationError, lambda request, error: failed(request, 422, told(error)))
    app.add_exception_handler(HTTPException, lambda request, error: failed(request, error.status_code))
    app.add_exception_handler(Exception, broken)
    return app


@asynccontextmanager
async def few_threads(_: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def to_login(request: Request, _: Exception) -> Response:
    """By way of the login page back to where they were going, or to the item whose form they had sent."""
    if wants_json(request):
        return JSONResponse({"error": "log in first, or send a token: Authorization: Bearer …"}, 401)
    path = request.url.path
    of_item = path.startswith("/item/")
    aim = path if request.method == "GET" else "/".join(path.split("/")[:3]) if of_item else "/"
    response = Response(status_code=303)
    response.headers["location"] = f"/login?next={quote(aim)}"
    return response


def failed(request: Request, status: int, why: str = "") -> Response:
    """A page, or JSON for programs, that says what went wrong."""
    if wants_json(request):
        return JSONResponse({"error": writable(why or SAYS.get(status, str(status))), "problems": []}, status)
    here = visit(request)
    message = here.say(SAYS.get(status, N_("This did not work.")))
    return here.page("error.html", status, message=message, why=writable(why))


def refused(request: Request, status: int, error: Exception) -> Response:
    """As `failed`, with what is wrong with what they sent."""
    assert isinstance(error, InputError)
    return failed(request, status, visit(request).why(error))


def broken(request: Request, _: Exception) -> Response:
    """The page of a mistake of ours, which the guard never sees."""
    response = failed(request, 500)
    response.headers.update(HEADERS | NO_STORE)
    return response


def told(error: Exception) -> str:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def wants_json(request: Request) -> bool:
    return request.url.path.startswith("/api/") or "application/json" in request.headers.get("accept", "")
