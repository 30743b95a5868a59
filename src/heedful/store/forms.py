"""Forms: what a labeler is to judge, a JSON line each, to be filled in with any editor or script.

    {"schema": "ranking-form/1", "prompt": {"alias": "3f…", "text": "…", "examples": []}, "labeler": "ada",
     "guideline": "v2", "seconds": null, "seal": {"prompt": "b2…", …}, "purpose": "train",
     "responses": [{"alias": "9c…", "text": "…", "overall": null, "metadata": {"violent": false, …}, "rank": null}, …]}

A form is blind: it shows texts, and nothing that tells which policy wrote a response or which split a prompt is of. An
alias is a hash of the record's id and of the moment it was stored, which the labeler knows neither of; the store that
wrote the form finds the record by it. `seal` holds a hash of each thing that must come back as it was handed out. The
rules, for each of the three schemas, stand at `judgements`.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator
from sqlalchemy import Connection, Table, select

from heedful.config import InputError, nearest
from heedful.run import write_atomic
from heedful.store.database import Store
from heedful.store.pools import unit
from heedful.store.progress import Work
from heedful.store.records import Entry, make_record
from heedful.store.schema import labelers, prompts, responses
from heedful.store.slots import lease
from heedful.types import (
    METADATA_FLAGS,
    UNKNOWN_GUIDELINE,
    Demonstration,
    Prompt,
    Ranking,
    Rating,
    Record,
    Response,
)

BLANK_BOXES: dict[str, bool | None] = dict.fromkeys(METADATA_FLAGS, False)


class ShownPrompt(Record):
    """A prompt as labelers see it."""

    alias: str
    text: str = ""
    examples: tuple[tuple[str, str], ...] = ()


class RatedResponse(Record):
    """A response as labelers see it, with its marks: overall 1-7 and the boxes of InstructGPT's table 3."""

    alias: str
    text: str = ""
    overall: int | None = Field(default=None, ge=1, le=7)
    metadata: dict[str, bool | None] = Field(default_factory=dict)

    @field_validator("metadata")
    @classmethod
    def _known_boxes(cls, value: dict[str, bool | None]) -> dict[str, bool | None]:
        for box in value:
            if box not in METADATA_FLAGS:
                raise ValueError(f"no box {box}{nearest(box, METADATA_FLAGS)}; known are {', '.join(METADATA_FLAGS)}")
        return value

    def flags(self) -> dict[str, bool]:
        """Whether each box is ticked: one that is not written down is not; null does not apply and is left out."""
        marks = BLANK_BOXES | self.metadata
        return {box: ticked for box, ticked in marks.items() if ticked is not None}


class RankedResponse(RatedResponse):
    rank: int | None = None


class Form(Record):
    """What every form holds. `seconds`: how long the labeler took for all of it; `seal`: see `seals`."""

    prompt: ShownPrompt
    labeler: str
    guideline: str = UNKNOWN_GUIDELINE
    seconds: float | None = Field(default=None, ge=0)
    seal: dict[str, str] = Field(default_factory=dict)


class DemonstrationForm(Form):
    text: str | None = None


class RatingForm(Form):
    purpose: Literal["train", "evaluation"] = "train"
    responses: tuple[RatedResponse, ...]


class RankingForm(Form):
    purpose: Literal["train", "evaluation"] = "train"
    responses: tuple[RankedResponse, ...]


FORMS: dict[str, type[DemonstrationForm | RatingForm | RankingForm]] = {
    "demonstration-form/1": DemonstrationForm,
    "rating-form/1": RatingForm,
    "ranking-form/1": RankingForm,
}


class Book(NamedTuple):
    """The rows that aliases stand for, and the labelers' ids."""

    prompts: Mapping[str, Any]
    responses: Mapping[str, Any]
    labelers: frozenset[str]


def read_book(connection: Connection) -> Book:
    who = frozenset(connection.execute(select(labelers.c.id)).scalars())
    return Book(_rows_by_alias(connection, prompts), _rows_by_alias(connection, responses), who)


def _rows_by_alias(connection: Connection, table: Table) -> dict[str, Any]:
    columns = [column for column in table.c if column.name in ("id", "prompt_id", "round", "created")]
    found = connection.execute(select(*columns))
    return {hashlib.sha256(f"{row.created}\n{row.id}".encode()).hexdigest()[:16]: row for row in found}


def write_forms(
    store: Store,
    path: Path,
    work: Work,
    labeler: str,
    *,
    hours: float = 24,
    limit: int | None = None,
    guideline: str = UNKNOWN_GUIDELINE,
) -> int:
    """Write a form for everything the labeler can still judge, and lease it to them for so many hours.

    The responses stand in an order of the labeler's own, which the ranking's `order` will keep.

    Raises:
        InputError: no such labeler.
    """
    items = lease(store, work, labeler, hours, limit)
    with store.read() as connection:
        book = read_book(connection)
    alias_of = {row.id: alias for alias, row in book.prompts.items()}
    alias_of_response = {row.id: alias for alias, row in book.responses.items()}
    lines = []
    for prompt, answers in items:
        shown = sorted(answers, key=lambda response: place(labeler, response.id))
        form = _empty_form(work, prompt, alias_of[prompt.id], [(r, alias_of_response[r.id]) for r in shown])
        form |= {"labeler": labeler, "guideline": guideline}
        blank = FORMS[f"{work.task}-form/1"].model_validate(form)
        line = {"schema": f"{work.task}-form/1"} | blank.model_dump(mode="json") | {"seal": seals(blank)}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines))
    return len(lines)


def _empty_form(work: Work, prompt: Prompt, alias: str, shown: list[tuple[Response, str]]) -> dict[str, Any]:
    form: dict[str, Any] = {"prompt": {"alias": alias, "text": prompt.text, "examples": prompt.examples}}
    if work.task == "demonstration":
        return form
    marked = [{"alias": alias, "text": response.text, "metadata": BLANK_BOXES} for response, alias in shown]
    return form | {"purpose": work.purpose, "responses": marked}


def seals(form: Form) -> dict[str, str]:
    """A hash of each thing that must come back as it was handed out; the order of the responses is free."""
    things: dict[str, Any] = {"prompt": form.prompt.model_dump(mode="json"), "labeler": form.labeler}
    if isinstance(form, RatingForm | RankingForm):
        things |= {"responses": sorted([r.alias, r.text] for r in form.responses), "purpose": form.purpose}
    of_form = [type(form).__name__, form.prompt.alias]
    return {name: hashlib.sha256(json.dumps([*of_form, it]).encode()).hexdigest()[:12] for name, it in things.items()}


def place(labeler: str, response: str) -> float:
    """What the labeler's own order of responses goes by."""
    return unit(response, f"order {labeler}")


def read_form(values: Mapping[str, Any], where: str) -> Form:
    """Raises InputError where a field does not fit."""
    kind = FORMS[values["schema"]]
    return make_record(kind, {key: value for key, value in values.items() if key != "schema"}, where)


def judgements(form: Form, book: Book, where: str) -> list[Entry]:
    """What the labeler said in the form, the form's own task first; nothing where they left it empty.

    A demonstration-form wants `text`. A rating-form wants `overall`: with it, a box that is not ticked says no, and one
    set to null does not apply. A ranking-form wants `rank` for every response; `overall` makes a rating of the response
    as well.

    Raises:
        InputError: a form that is not as handed out, is of another store, or was filled in by half.
    """
    _check_seals(form, where)
    if form.labeler not in book.labelers:
        raise InputError(_unknown(where, "labeler", form.labeler))
    if form.prompt.alias not in book.prompts:
        raise InputError(_unknown(where, "prompt", form.prompt.alias))
    prompt = book.prompts[form.prompt.alias]
    common = {"prompt_id": prompt.id, "labeler": form.labeler, "guideline": form.guideline}
    if isinstance(form, DemonstrationForm):
        if not (form.text or "").strip():
            return []
        id = f"demonstration/train/{prompt.round}/{form.labeler}/{prompt.id}"
        values = common | {"id": id, "text": form.text, "seconds": form.seconds}
        return [Entry(make_record(Demonstration, values, where), {"round": prompt.round})]
    assert isinstance(form, RatingForm | RankingForm)
    rows = [_response(shown, book, where) for shown in form.responses]
    common |= {"purpose": form.purpose}
    ratings = [
        _rating(shown, row, common | {"seconds": form.seconds if isinstance(form, RatingForm) else None}, where)
        for shown, row in zip(form.responses, rows, strict=True)
        if _is_rated(shown, f"{where}, responses: {shown.alias}")
    ]
    if isinstance(form, RatingForm):
        return ratings
    return _ranking(form, rows, common, bool(ratings), where) + ratings


def _check_seals(form: Form, where: str) -> None:
    for name, seal in seals(form).items():
        if form.seal.get(name) != seal:
            changed = name if name in form.seal else f"seal.{name}"
            raise InputError(
                f"{where}, {changed}: not as handed out; put back what stood there, or let heedful label work "
                "write the form anew"
            )


def _response(shown: RatedResponse, book: Book, where: str) -> Any:
    if shown.alias not in book.responses:
        raise InputError(_unknown(where, "response", shown.alias))
    return book.responses[shown.alias]


def _unknown(where: str, what: str, name: str) -> str:
    return f"{where}: no {what} {name!r} in this store; the form is of another store, or what it shows was erased"


def _is_rated(shown: RatedResponse, where: str) -> bool:
    if shown.overall is None and any(shown.flags().values()):
        raise InputError(f"{where}: boxes without overall; give overall a mark from 1 to 7")
    return shown.overall is not None


def _rating(shown: RatedResponse, row: Any, common: Mapping[str, Any], where: str) -> Entry:
    id = f"rating/{common['purpose']}/{row.round}/{common['labeler']}/{row.id}"
    marks = {"id": id, "response_id": row.id, "overall": shown.overall, "flags": shown.flags()}
    return Entry(make_record(Rating, {**common, **marks}, where), {"round": row.round})


def _ranking(form: RankingForm, rows: list[Any], common: Mapping[str, Any], rated: bool, where: str) -> list[Entry]:
    rank = [shown.rank for shown in form.responses]
    missing = [shown.alias for shown in form.responses if shown.rank is None]
    if len(missing) == len(rank) and not rated:
        return []
    if missing:
        raise InputError(f"{where}: response {missing[0]} has no rank; give every response one (equal ranks tie)")
    ids, round = [row.id for row in rows], max(row.round for row in rows)
    id = f"ranking/{form.purpose}/{round}/{form.labeler}/{common['prompt_id']}"
    order = sorted(ids, key=lambda id: place(form.labeler, id))
    values = {**common, "id": id, "responses": ids, "rank": rank, "order": order, "seconds": form.seconds}
    return [Entry(make_record(Ranking, values, where), {"round": round})]
