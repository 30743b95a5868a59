"""The app for tests that open one after another."""

from functools import cache

from fastapi import APIRouter, FastAPI

from heedful.store.database import Store
from heedful.web.app import create_app
from heedful.web.config import WebConfig


@cache
def known_routes() -> APIRouter:
    """The routes of one app: FastAPI works out at the first request what each of them takes, anew for every app."""
    return create_app(Store(engine=None)).router  # type: ignore[arg-type]


def quick_app(store: Store, config: WebConfig | None = None) -> FastAPI:
    """As `create_app`, with routes that an earlier app has worked out."""
    app = create_app(store, config)
    app.router = known_routes()
    return app
