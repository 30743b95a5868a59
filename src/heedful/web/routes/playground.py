"""Two models side by side: a prompt, both answers, and which model wrote which only after a vote or on request.

Nothing is kept but the vote, as an event: who, which two models, which won. Texts are not, and nothing trains on it;
the setting `playground_votes` turns even that off. Who asks chooses the two models, but not their sides: these follow
from a number on the page and the session's secret.
"""

import hashlib
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NamedTuple

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import Connection, select
from starlette.concurrency import run_in_threadpool

from heedful.store import accounts
from heedful.store.chats import VOTE
from heedful.store.schema import events as events_table
from heedful.store.settings import read_setting
from heedful.web.markdown import html_of
from heedful.web.models import How, Job, Told, ask, events, together
from heedful.web.tasks.chatting import MOST_TOKENS, TOKENS
from heedful.web.visit import Fields, NotFound, Reader, Visit, text_of
from heedful.web.words import N_

router = APIRouter()
LONGEST = 20_000  # characters of a prompt
VOTES = {"a": N_("A is better"), "b": N_("B is better"), "tie": N_("About the same"), "neither": N_("Both are bad")}


class Asked(NamedTuple):
    """What is asked of which two models. `number` is the page's; with the session it gives the sides."""

    prompt: str
    models: tuple[str, str]
    temperature: float
    tokens: int
    number: str


class Bad(Exception):
    """What is asked cannot be: `message` says why."""

    def __init__(self, message: str) -> None:
        self.message = message


@router.get("/playground")
def playground(here: Reader) -> Response:
    return page(here, {})


@router.post("/playground")
async def ask_both(here: Reader, form: Fields) -> Response:
    """Both answers on a page; scripts take `/playground/stream` instead."""
    try:
        asked = read(here, form)
    except Bad as bad:
        return await run_in_threadpool(page, here, form, 422, error=bad.message)
    texts, errors = {"a": "", "b": ""}, {}
    async for told in together(jobs(here, asked)):
        texts[told.letter] += told.text
        if told.error:
            errors[told.letter] = told.error
    return await run_in_threadpool(page, here, form, asked=asked, texts=texts, errors=errors)


@router.post("/playground/stream")
async def stream_both(here: Reader, form: Fields) -> Response:
    """As `chat.stream`, and at the end of an answer {html} with its Markdown made up as on the page."""
    try:
        made = jobs(here, read(here, form))
    except Bad as bad:
        return Response(here.say(bad.message), 422)
    return StreamingResponse(
        events(with_html(together(made)), here.say), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


async def with_html(told: AsyncIterator[Told]) -> AsyncIterator[Told]:
    texts: defaultdict[str, str] = defaultdict(str)
    async for one in told:
        texts[one.letter] += one.text
        yield one._replace(html=await run_in_threadpool(html_of, texts[one.letter])) if one.over else one


@router.post("/playground/vote")
def vote(here: Reader, form: Fields) -> Response:
    """Say which is better, or only look; either shows the models' names."""
    try:
        asked = read(here, form)
    except Bad as bad:
        return page(here, form, 422, error=bad.message)
    said = text_of(form, "vote")
    if said not in (*VOTES, "reveal"):
        raise NotFound
    texts = {letter: text_of(form, f"text-{letter}") for letter in "ab"}
    kept = here.store.write(lambda connection: keep(connection, here, asked, said))
    return page(here, form, asked=asked, texts=texts, names=sides(here, asked), voted=said, kept=kept)


def keep(connection: Connection, here: Visit, asked: Asked, said: str) -> bool:
    """Note the vote, once for each pair of answers; False where votes are not kept."""
    if said == "reveal" or not read_setting(connection, "playground_votes", True):
        return False
    own = select(events_table.c.detail).where(events_table.c.account == here.account.id, events_table.c.what == VOTE)
    if not any(detail["number"] == asked.number for detail in connection.execute(own).scalars()):
        names = sides(here, asked)
        detail = {"a": names["a"], "b": names["b"], "vote": said, "number": asked.number}
        how = {"temperature": asked.temperature, "max_tokens": asked.tokens}
        accounts.note(connection, here.account.id, VOTE, **detail, **how)
    return True


def page(here: Visit, form: Mapping[str, Any], status: int = 200, asked: Asked | None = None, **more: Any) -> Response:
    with here.store.read() as connection:
        keeps = read_setting(connection, "playground_votes", True)
    names = sorted(here.config.models)
    fields = {name: text_of(form, name) for name in ("prompt", "one", "other", "temperature", "tokens")}
    values: dict[str, Any] = {
        "error": "",
        "texts": {},
        "errors": {},
        "names": {},
        "voted": "",
        "kept": False,
        "pair": "",
    }
    question = {"number": "", "prompt": "", "one": "", "other": "", "temperature": "", "tokens": ""}
    if asked is not None:
        one, other = asked.models
        question = asked._asdict() | {"one": one, "other": other}
        del question["models"]
        pair = {"prompt": asked.prompt, **more["texts"]} | ({"models": more["names"]} if "names" in more else {})
        values["pair"] = json.dumps(pair, ensure_ascii=False, indent=2)
    values |= {
        "question": question,
        "models": names,
        "keeps": keeps,
        "asked": asked,
        "votes": VOTES,
        "number": secrets.token_hex(8),
    }
    values |= {"fields": fields, "tokens": TOKENS, "most_tokens": MOST_TOKENS, "longest": LONGEST}
    return here.page("playground.html", status, **values | more)


def read(here: Visit, form: Mapping[str, Any]) -> Asked:
    """What the form asks, of models that are configured.

    Raises:
        Bad: it does not say what, or no such model or number is there.
    """
    prompt, one, other = (text_of(form, name) for name in ("prompt", "one", "other"))
    number = text_of(form, "number")
    if not prompt.strip():
        raise Bad(N_("Write a prompt first."))
    if len(prompt) > LONGEST:
        raise Bad(N_("This prompt is too long."))
    if not {one, other} <= here.config.models.keys():
        raise Bad(N_("There is no such model here."))
    try:
        temperature = float(text_of(form, "temperature"))
    except ValueError:
        temperature = -1
    digits = text_of(form, "tokens")
    tokens = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 6 else 0
    if not (0 <= temperature <= 2 and 1 <= tokens <= MOST_TOKENS) or len(number) > 64:
        raise Bad(N_("The temperature lies between 0 and 2, the length between 1 and the most that is allowed."))
    return Asked(prompt, (one, other), temperature, tokens, number)


def sides(here: Visit, asked: Asked) -> dict[str, str]:
    """Which model stands under which letter."""
    assert here.session is not None
    turned = hashlib.sha256(f"{here.session.csrf}/{asked.number}".encode()).digest()[0] % 2
    return dict(zip("ab", asked.models[::-1] if turned else asked.models, strict=True))


def jobs(here: Visit, asked: Asked) -> dict[str, Job]:
    messages = [{"role": "user", "content": asked.prompt}]

    def job(name: str) -> Job:
        how = How(asked.temperature, asked.tokens, secrets.randbits(31))

        def write(tell: Callable[[str], None]) -> None:
            for piece in ask(here.config, name, messages, how):
                tell(piece.text)

        return write

    return {letter: job(name) for letter, name in sides(here, asked).items()}
