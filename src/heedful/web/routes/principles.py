"""Try a principle: how much better one of two responses keeps to it than the other, and to its negation, says a model.

Scores are those of `heedful judge principles` (docs/salmon.md): s12 and s21, the labels' log-probability differences in
both orders, and their mean. A text that was changed stands beside what it came to before. Nothing is kept.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx
from anyio import to_thread
from fastapi import APIRouter
from fastapi.responses import Response as Page
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from heedful.config import InputError
from heedful.feedback.ai.calls import Limits
from heedful.feedback.ai.labeler import AILabeler
from heedful.feedback.ai.ledger import Ledger
from heedful.feedback.ai.server import ServedModel
from heedful.feedback.principles.book import book_of
from heedful.feedback.principles.collect import Pair, read_form, score_pairs
from heedful.principles import Language, Principle
from heedful.types import Labeler, Prompt, Response
from heedful.web.config import WebConfig
from heedful.web.models import AWAY, CONNECT, FAILED, REFUSED, ModelError, find
from heedful.web.routes.lead_principles import current
from heedful.web.visit import Fields, Reader, Visit, text_of
from heedful.web.words import N_

router = APIRouter()
log = logging.getLogger("heedful.web")
LONGEST = 20_000  # characters of a text
TEXTS = ("prompt", "a", "b", "title", "definition", "negative")
PARTS = ("title", "definition", "negative")  # of a principle
MOVES = ("kept", "negated")  # the principle, and what its negation asks for
# In the language of what the model reads.
OPPOSITE: dict[Language, str] = {"en": "The opposite of {title}", "zh": "与“{title}”相反"}
SAMPLES = N_("This model's server gives no log-probabilities, and without them there is no score.")
WHY = {
    "long": N_("Together the texts are too long for the model; shorten the prompt or a response."),
    "api": FAILED,
    "refusal": REFUSED,
    "parse": N_("The model answered something else than 1 or 2."),
    "infinite": N_("The model takes one of the two answers for impossible: that is no score."),
}


class Tried(NamedTuple):
    """What is asked of which model."""

    model: str
    prompt: str
    responses: tuple[str, str]
    principle: Principle


class Move(NamedTuple):
    """What the model says by one text: s12 and s21 in nats, above 0 where A keeps to it better; or why nothing."""

    orders: tuple[float, float] = (0.0, 0.0)
    problem: str = ""

    @property
    def gap(self) -> float:
        return sum(self.orders) / 2

    @property
    def better(self) -> str:
        """a or b; "" where the two orders prefer different responses, which says nothing of either."""
        if self.orders[0] * self.orders[1] <= 0:
            return ""
        return "a" if self.gap > 0 else "b"


class Bad(Exception):
    """What is asked cannot be: `message` says why."""

    def __init__(self, message: str) -> None:
        self.message = message


@router.get("/principles")
def principles(here: Reader) -> Page:
    return page(here, {})


@router.post("/principles")
async def score(here: Reader, form: Fields) -> Page:
    """The scores on a page; "take" only puts the chosen principle's texts into the form."""
    if text_of(form, "do") == "take":
        return await run_in_threadpool(page, here, form, taken=True)
    try:
        tried = read(here, form)
        limiter = here.request.app.state.judging
        moves = await to_thread.run_sync(ask, here.config, tried, limiter=limiter)
    except Bad as bad:
        return await run_in_threadpool(page, here, form, 422, error=bad.message)
    except ModelError as error:
        log.warning("model %s: %s", text_of(form, "model"), error)
        return await run_in_threadpool(page, here, form, 502, error=error.message)
    return await run_in_threadpool(page, here, form, moves=moves)


def page(
    here: Visit,
    form: Mapping[str, Any],
    status: int = 200,
    error: str = "",
    moves: Mapping[str, Move] | None = None,
    taken: bool = False,
) -> Page:
    language = language_of(here, form)
    with here.store.read() as connection:
        book = current(connection)
    texts = {
        each: {one.id: {part: getattr(one, part) for part in PARTS} for one in known(book, each)} for each in OPPOSITE
    }
    fields = {name: text_of(form, name) for name in (*TEXTS, "model", "principle")}
    chosen = texts[language].get(fields["principle"])
    if chosen and (taken or not any(fields[part] for part in PARTS)):
        fields |= chosen
    elif chosen != {part: fields[part] for part in PARTS}:
        fields["principle"] = ""  # texts that were changed are the visitor's own
    before = {name: number_of(form, f"was-{name}") for name in MOVES}
    return here.page(
        "principles.html",
        status,
        models=sorted(here.config.models),
        fields=fields,
        language=language,
        texts=texts,
        error=error,
        moves=moves or {},
        before=before,
        was=before | {name: move.gap for name, move in (moves or {}).items() if not move.problem},
        longest=LONGEST,
    )


def language_of(here: Visit, form: Mapping[str, Any]) -> Language:
    """Of the texts that the model reads: the form's, else the visitor's."""
    said = text_of(form, "language")
    return next((one for one in OPPOSITE if one == said), "zh" if here.locale.startswith("zh") else "en")


def known(book: str, language: Language) -> list[Principle]:
    """The book's principles that have a text in the language."""
    found = {id: getattr(texts, language) for id, texts in book_of(book, "YAML").principles.items()}
    return [Principle(id=id, language=language, **each.model_dump()) for id, each in found.items() if each]


def number_of(form: Mapping[str, Any], name: str) -> float | None:
    """A finite one, or None."""
    try:
        found = float(text_of(form, name))
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def read(here: Visit, form: Mapping[str, Any]) -> Tried:
    """What the form asks.

    Raises:
        Bad: a text is missing or too long, or no such model is there.
    """
    texts = {name: text_of(form, name).strip() for name in TEXTS}
    if not all(texts.values()):
        raise Bad(N_("Fill in all the fields: the prompt, both responses, the principle and its negation."))
    if max(map(len, texts.values())) > LONGEST:
        raise Bad(N_("One of the texts is too long."))
    if texts["a"] == texts["b"]:
        raise Bad(N_("Both responses are the same; change one of them."))
    if (model := text_of(form, "model")) not in here.config.models:
        raise Bad(N_("There is no such model here."))
    try:
        title, definition, negative = (" ".join(texts[part].split()) for part in PARTS)  # one line, as in a book
        language = language_of(here, form)
        principle = Principle(id="kept", language=language, title=title, definition=definition, negative=negative)
    except ValidationError:
        raise Bad(N_("This request makes no sense here.")) from None
    return Tried(model, texts["prompt"], (texts["a"], texts["b"]), principle)


def ask(config: WebConfig, tried: Tried) -> dict[str, Move]:
    """Four questions: the principle and its negation, each in both orders.

    Raises:
        ModelError: the server is not there, refuses, or has no log-probabilities to give.
    """
    limits = Limits(in_flight=4, tries=2, longest_wait=2, patience=5, connect=CONNECT, answer=config.model_seconds)
    try:
        with httpx.Client(timeout=CONNECT, follow_redirects=False, trust_env=False) as client:
            model = find(client, config, tried.model)
        with Ledger() as ledger:
            served = ServedModel(f"{model.address}/v1", ledger, model.name, model.key, limits)
            if served.able.way in ("forced", "votes"):
                raise ModelError(SAMPLES, served.told)
            return moves_of(AILabeler(served, read_form(form_of(tried)), Labeler(id="tried", kind="ai")), tried)
    except (httpx.HTTPError, httpx.InvalidURL, InputError) as error:
        raise ModelError(AWAY, repr(error)) from None


def form_of(tried: Tried) -> str:
    return f"principle.{tried.principle.language}"


def moves_of(labeler: AILabeler, tried: Tried) -> dict[str, Move]:
    """What the labeler says by the principle, and by its negation."""
    kept = tried.principle
    title = OPPOSITE[kept.language].format(title=kept.title)
    negated = kept.model_copy(update={"id": "negated", "title": title, "definition": kept.negative})
    prompt = Prompt(id="prompt", text=tried.prompt, user="visitor")
    first, second = (
        Response(id=id, prompt_id="prompt", text=text) for id, text in zip("ab", tried.responses, strict=True)
    )
    found = {}
    for name, principle in zip(MOVES, (kept, negated), strict=True):
        scored = score_pairs(labeler, [principle], [Pair(prompt, first, second)])
        reason = next(iter(scored.unscored), "")
        found[name] = Move(problem=WHY.get(reason, FAILED)) if reason else Move(scored.scores[0].orders)
    return found
