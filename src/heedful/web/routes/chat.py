"""Chats: a message goes out, answers come in, as a stream or with the next page, and one of two is chosen.

What a labeler writes is stored before any model is asked. Models' names and addresses never reach the page.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from heedful.store.chats import Answer, Chat, Stale, all_chats, choose, put_answer, say
from heedful.store.drafts import keep_draft
from heedful.store.pools import unit
from heedful.store.slots import Taken, prolong
from heedful.web.config import WebConfig
from heedful.web.models import EMPTY, NONE, How, Job, ModelError, ask, events, together
from heedful.web.routes.work import filled, lease_minutes, mine, read_item, seconds_of, shown_guideline
from heedful.web.tasks.base import Item, Problem, Problems
from heedful.web.tasks.chatting import (
    KIND,
    LONGEST_MESSAGE,
    MOST_TOKENS,
    TOKENS,
    chat_of,
    new_chat,
    number,
    turns_of,
)
from heedful.web.tasks.compare import CHOICES, MISSING, choice_of
from heedful.web.tasks.rank import whole
from heedful.web.visit import Fields, NotFound, Reader, Visit, Worker, text_of
from heedful.web.words import N_

router = APIRouter()
TRIES = 3  # samples until one is not empty
MOVED = N_("The chat has moved on meanwhile, in another window. Look at it once more.")


@router.post("/item/{key}/message")
async def send(here: Worker, key: str, form: Fields) -> Response:
    """Store the message and ask for its answers; a script is told at once and asks for them itself (`stream`)."""
    item = await run_in_threadpool(item_of, here, key)
    scripted = "application/json" in here.request.headers.get("accept", "")
    try:
        chat, turn = await run_in_threadpool(take_message, here, item, form)
    except Problems as problems:
        if scripted:
            said = [here.say(problem.message, **problem.values) for problem in problems.found]
            return JSONResponse({"error": " ".join(said)}, 422)
        return await run_in_threadpool(again, here, item, form, problems.found, 422)
    except Taken:
        await run_in_threadpool(keep_draft, here.store, item.slot, item.labeler, fields_of(form))
        return JSONResponse({"gone": "/?notice=taken"}) if scripted else here.redirect("/?notice=taken")
    if scripted:
        return JSONResponse({"turn": turn})
    told = [one async for one in together(jobs(here, item, chat, turn))]
    errors = list(dict.fromkeys(one.error for one in told if one.error))
    if errors:
        found = [Problem("message", error, {}) for error in errors]
        return await run_in_threadpool(again, here, item, form, found, 502)
    return here.redirect(f"/item/{key}#last")


@router.post("/item/{key}/stream")
async def stream(here: Worker, key: str, form: Fields) -> Response:
    """The last message's answers as they are written: events of {letter, text}, {letter, over, error}, {end}."""
    item = await run_in_threadpool(item_of, here, key)
    chat = await run_in_threadpool(last_of, here, item)
    if not chat.turns:
        raise NotFound
    told = together(jobs(here, item, chat, len(chat.turns) - 1))
    return StreamingResponse(
        events(told, here.say), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
    )


@router.post("/item/{key}/choose")
def choose_answer(here: Worker, key: str, form: Fields) -> Response:
    """Store the choice between the last two answers; until the next message is sent, another one takes its place."""
    item = item_of(here, key)
    choice = text_of(form, "choice")
    with here.store.read() as connection:
        guideline = shown_guideline(connection, form)
    try:
        if choice not in CHOICES:
            raise Problems([Problem("choice", MISSING, {})])
        won, strength = choice_of(choice)
        choose(
            here.store,
            new_chat(item).id,
            whole(text_of(form, "judged")),
            won,
            strength,
            item.slot.work.purpose,
            guideline,
            seconds_of(form),
        )
    except Problems as problems:
        return again(here, item, form, problems.found, 422)
    except Stale:
        return again(here, item, form, [Problem("chat", MOVED, {})], 422)
    keep_fields(here, item, form, "choice")
    return here.redirect(f"/item/{key}#last")


@router.get("/lead/chats.jsonl")
def chats_file(here: Reader) -> Response:
    """Every chat with its marks, one a line."""
    with here.store.read() as connection:
        found = all_chats(connection)
    rows = [chat._asdict() | {"turns": [turn.model_dump() for turn in chat.turns]} for chat in found]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    headers = {"Content-Disposition": 'attachment; filename="chats.jsonl"'}
    return Response("".join(lines), media_type="application/jsonl", headers=headers)


def item_of(here: Visit, key: str) -> Item:
    """The labeler's own item, if it is a chat."""
    with here.store.read() as connection:
        slot = mine(connection, key, here)
        if slot.work.task not in KIND:
            raise NotFound
        return read_item(connection, here, slot)


def last_of(here: Visit, item: Item) -> Chat:
    with here.store.read() as connection:
        return chat_of(connection, item)


def take_message(here: Visit, item: Item, form: Mapping[str, Any]) -> tuple[Chat, int]:
    """The chat with the form's message, and which turn that is.

    Raises:
        Problems: nothing is written, too much, or one turn too many.
        Taken: the item is somebody else's by now.
    """
    if item.slot.done is not None:
        raise Problems([Problem("message", N_("This chat is finished."), {})])
    if not prolong(here.store, item.slot, item.labeler, lease_minutes(here)):
        raise Taken("others have taken this item meanwhile")
    text, turn = text_of(form, "message").strip(), whole(text_of(form, "turn"))
    if not text:
        raise Problems([Problem("message", N_("Write a message first."), {})])
    if len(text) > LONGEST_MESSAGE:
        most = {"most": LONGEST_MESSAGE}
        raise Problems([Problem("message", N_("This is longer than %(most)s characters."), most)])
    if turn >= turns_of(item):
        raise Problems([Problem("message", N_("This chat has all the messages it may have. Finish it."), {})])
    try:
        chat = say(here.store, new_chat(item, models_of(item, here.config)), turn, text, seconds_of(form))
    except Stale:
        raise Problems([Problem("message", MOVED, {})]) from None
    keep_fields(here, item, form, "message")
    return chat, turn


def keep_fields(here: Visit, item: Item, form: Mapping[str, Any], used: str) -> None:
    """The rest of the form as a draft."""
    if item.slot.done is None:
        rest = {name: value for name, value in fields_of(form).items() if name != used}
        keep_draft(here.store, item.slot, item.labeler, rest)


def fields_of(form: Mapping[str, Any]) -> dict[str, str]:
    return {name: text_of(form, name) for name in form if name not in ("csrf", "guideline", "turn", "judged")}


def again(here: Visit, item: Item, form: Mapping[str, Any], problems: list[Problem], status: int) -> Response:
    """The page with the form as it was sent."""
    with here.store.read() as connection:
        return filled(connection, here, item, fields_of(form), status, problems=problems)


def models_of(item: Item, config: WebConfig) -> list[str]:
    """Whom the chat is with: the models of the work, all that are connected where it names none; red teamers meet
    one of them."""
    offered = item.options.get("models")
    names = [str(name) for name in offered] if isinstance(offered, list) and offered else sorted(config.models)
    if KIND[item.slot.work.task] == "red_team":
        names = sorted(names, key=lambda name: unit(name, new_chat(item).id))[:1]
    return names


def jobs(here: Visit, item: Item, chat: Chat, turn: int) -> dict[str, Job]:
    """What writes the answers that the turn still wants.

    Two models of several are drawn anew each turn, and their sides with them; one model is sampled twice.
    """
    order = sorted(chat.models, key=lambda name: unit(name, f"{chat.id}/{turn}"))
    sides = dict(zip(chat.letters, order * len(chat.letters), strict=False)) if any(order) else {}
    missing = [letter for letter in chat.letters if letter not in chat.turns[turn].answers]
    return {letter: job(here, item, chat, turn, letter, sides.get(letter, "")) for letter in missing}


def job(here: Visit, item: Item, chat: Chat, turn: int, letter: str, model: str) -> Job:
    """Asks the model for one answer, and keeps it."""
    messages = []
    for said, answered in chat.history(turn):
        messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": chat.turns[turn].text})
    temperature = number(item.options, "temperature", 1, 0, 2)
    tokens = int(number(item.options, "max_tokens", TOKENS, 1, MOST_TOKENS))

    def write(tell: Callable[[str], None]) -> None:
        if not model:
            raise ModelError(NONE, "no model is configured")
        for attempt in range(TRIES):
            how = How(temperature, tokens, seed_of(f"{chat.id}/{turn}/{letter}/{attempt}"))
            text, end = "", ""
            for piece in ask(here.config, model, messages, how):
                text, end = text + piece.text, piece.end
                tell(piece.text)
            if text.strip():
                answer = Answer(text=text, model=model, seed=how.seed, finished=end != "length")
                try:
                    put_answer(here.store, chat.id, turn, chat.turns[turn].text, letter, answer)
                except Stale:
                    raise ModelError(MOVED, "the chat has moved on") from None
                return
        raise ModelError(EMPTY, f"{TRIES} empty answers")

    return write


def seed_of(what: str) -> int:
    """The same answer is asked for in the same way."""
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:4], "big") >> 1
