"""One request: who asks, in which language, with what form; and the pages that answer it."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.datastructures import FormData, UploadFile

from heedful.config import InputError
from heedful.store.accounts import Account, Session, find_session
from heedful.store.database import Store
from heedful.web.config import WebConfig
from heedful.web.markdown import html_of, writable
from heedful.web.words import LANGUAGES, LOCALES, N_, NAMES, accepted, language_tag, translations

COOKIE = "heedful_session"
LOCALE_COOKIE = "heedful_locale"
HERE = Path(__file__).parent


# What stands in the head of every page, and for whom.
SECTIONS = (
    ("/", N_("Work"), ("labeler", "lead", "admin")),
    ("/lead/tasks", N_("Tasks"), ("lead", "admin")),
    ("/lead/people", N_("People"), ("lead", "admin")),
    ("/lead/guidelines", N_("Guidelines"), ("lead", "admin")),
    ("/lead/quality", N_("Quality"), ("lead", "admin", "researcher")),
    ("/run", N_("Run"), ("lead", "admin", "researcher")),
    ("/playground", N_("Playground"), ("lead", "admin", "researcher")),
    ("/principles", N_("Principles"), ("lead", "admin", "researcher")),
)


class LoginNeeded(Exception):
    """Nobody is logged in."""


class Forbidden(Exception):
    """Whoever is logged in may not do this; the message says what they would have to be."""


class NotFound(Exception):
    """No such thing, or not theirs to see: the two look alike from outside."""


def environment(locale: str) -> Environment:
    """Templates with the locale's words; what is undefined is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    made.install_gettext_translations(translations(locale), newstyle=True)  # type: ignore[attr-defined]
    made.filters["markdown"] = html_of
    made.filters["said"] = translations(locale).gettext  # of texts that may be the project's: _() escapes nothing
    made.globals["languages"] = LANGUAGES
    made.globals["locales"] = {locale: NAMES[locale] for locale in LOCALES}
    return made


ENVIRONMENTS = {locale: environment(locale) for locale in LOCALES}


class Visit:
    """A request and what belongs to it. `session` is None where nobody is logged in."""

    def __init__(self, request: Request, store: Store, config: WebConfig, session: Session | None) -> None:
        self.request, self.store, self.config, self.session = request, store, config, session
        chosen = request.cookies.get(LOCALE_COOKIE, "")
        if chosen in LOCALES:
            self.locale = chosen
        elif session is not None and session.account.locale in LOCALES:
            self.locale = session.account.locale
        else:
            self.locale = accepted(request.headers.get("accept-language", ""))

    @property
    def account(self) -> Account:
        if self.session is None:
            raise LoginNeeded
        return self.session.account

    @property
    def address(self) -> str:
        return self.request.client.host if self.request.client else ""

    def say(self, message: str, **values: Any) -> str:
        """The message in the visitor's language; marked by `words.N_` where it stands."""
        said = translations(self.locale).gettext(message)
        return said % values if values else said

    def why(self, error: InputError) -> str:
        """What a refusal says, in the visitor's language."""
        return self.say(error.message, **error.values)

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """The template, filled."""
        common = {
            "session": self.session,
            "account": self.session.account if self.session else None,
            "csrf": self.session.csrf if self.session else "",
            "title": self.config.title,
            "sections": self.sections(),
            "locale": self.locale,
            "tag": language_tag(self.locale),
            "path": self.request.url.path,
            "notice": self.request.query_params.get("notice", ""),
            "undo": self.key("undo"),
            "of": self.key("of"),
        }
        made = ENVIRONMENTS[self.locale].get_template(template).render(common | values)
        return HTMLResponse(made, status)

    def key(self, name: str) -> str:
        """The item's key that the address names, if it could be one."""
        found = self.request.query_params.get(name, "")
        return found if found.isalnum() else ""

    def sections(self) -> list[tuple[str, str]]:
        role = self.session.account.role if self.session else ""
        return [(address, name) for address, name, roles in SECTIONS if role in roles]

    def redirect(self, path: str) -> RedirectResponse:
        """To one of our own pages, to be fetched by GET."""
        return RedirectResponse(path, 303)


def visit(request: Request) -> Visit:
    """Whoever asks, logged in or not."""
    store, config = request.app.state.store, request.app.state.config
    secret = request.cookies.get(COOKIE, "")
    session = None
    if secret:
        with store.glance() as connection:
            session = find_session(connection, secret)
    return Visit(request, store, config, session)


Anybody = Annotated[Visit, Depends(visit)]


async def logged_in(here: Anybody) -> Visit:  # what waits for nothing is no work for a thread
    if here.session is None:
        raise LoginNeeded
    return here


Member = Annotated[Visit, Depends(logged_in)]


def of_role(*roles: str) -> Any:
    """A dependency: the visitor is logged in and has one of the roles."""

    async def check(here: Member) -> Visit:
        if here.account.role not in roles:
            raise Forbidden(" / ".join(roles))
        return here

    return Depends(check)


Worker = Annotated[Visit, of_role("labeler", "lead", "admin")]
Reader = Annotated[Visit, of_role("researcher", "lead", "admin")]
Lead = Annotated[Visit, of_role("lead", "admin")]
Admin = Annotated[Visit, of_role("admin")]


async def checked_form(request: Request) -> Mapping[str, Any]:
    """The form's fields; a field that came twice is its last value, see `many` for lists."""
    try:
        form = await request.form(max_files=2, max_fields=1000)
    except (RecursionError, UnicodeError):
        raise Forbidden("form") from None
    texts = [text for pair in form.multi_items() for text in pair if isinstance(text, str)]
    if any("\0" in text or text != writable(text) for text in texts):  # a form may name a charset of its own
        raise Forbidden("text without NUL characters or halves of characters")
    return form


async def with_csrf(here: Anybody, form: Annotated[FormData, Depends(checked_form)]) -> FormData:
    """The fields of a form that one of our own pages of this session sent."""
    if here.session is not None:
        sent = form.get("csrf") or here.request.headers.get("x-csrf-token") or ""
        if not secrets.compare_digest(str(sent).encode(), here.session.csrf.encode()):
            raise Forbidden("a form of this session")
    return form


Fields = Annotated[FormData, Depends(with_csrf)]


async def aside(here: Visit, work: Callable[[], Response]) -> Response:
    """The work, which hashes a password, on one of few threads: however many ask at once, pages are served."""
    return await to_thread.run_sync(work, limiter=here.request.app.state.hashing)


def text_of(form: Mapping[str, Any], name: str) -> str:
    """A text field with \\n at its line ends; "" where it is missing."""
    value = form.get(name, "")
    if isinstance(value, UploadFile):
        return ""
    return str(value).replace("\r\n", "\n").replace("\r", "\n")
