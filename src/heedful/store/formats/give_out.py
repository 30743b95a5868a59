"""From the store to items, and items to files: in order of prompt and id, a chunk of the store at a time.

Held-out labelers' judgements go out only where they are asked for by name, and for evaluation: in training they would
spoil the measure of generalisation (InstructGPT, section 3.4). Everything left out is counted.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.formats.item import Answer, Item, Kind, LeftOut, Tally, Writing
from heedful.store.formats.shapes import WRITABLE, Shape
from heedful.store.formats.take_in import KEPT_APART
from heedful.store.formats.writers import open_writer
from heedful.store.incoming import GAP
from heedful.store.pools import Pool
from heedful.store.records import NO_TRAINING, TOXICITY, chunks, is_current, select_records
from heedful.store.schema import TABLE_OF, prompts, ratings, responses
from heedful.types import Demonstration, Labeler, Prompt, Purpose, Ranking, Rating, Response, Split

RECORD_OF: dict[Kind, type[Any]] = {
    "demonstration": Demonstration,
    "rating": Rating,
    "ranking": Ranking,
    "response": Response,
}


@dataclass(frozen=True)
class Choice:
    """What of the store goes out. None takes any."""

    kind: Kind | None = None  # the shape's usual one
    purpose: Purpose | None = "train"
    heldout: bool = False
    split: Split | None = None
    pool: Pool | None = None
    round: int | None = None


@dataclass
class Given:
    """What an export did."""

    path: Path
    shape: Shape
    kind: str
    items: int = 0
    rows: int = 0
    tally: Tally = field(default_factory=Tally)

    def lines(self) -> list[str]:
        """The report for a person, one fact a line."""
        head = f"{self.path}: {self.rows:,} rows of {self.shape.name} from {self.items:,} {self.kind}s"
        return [head, *(f"  {line}" for line in self.tally.lines())]


def export_file(
    store: Store, path: Path, shape: Shape, choice: Choice | None = None, how: Writing | None = None, bom: bool = False
) -> Given:
    """Write what the choice takes of the store, in the shape, all or nothing.

    Raises:
        InputError: a shape that is only read or does not take such judgements; held-out labelers' judgements for
            training; a place that cannot be written.
    """
    choice, how = choice or Choice(), how or Writing()
    kind = writable_kind(shape, choice.kind)
    if choice.heldout and choice.purpose != "evaluation":
        raise InputError("held-out labelers' judgements are for evaluation: with --heldout goes --purpose evaluation")
    given = Given(path, shape, kind)
    with store.read() as connection:
        items = _items(connection, kind, choice, shape.ratings or how.margin == "rating", given.tally)
        write_items(items, given, how, bom)
    return given


def writable_kind(shape: Shape, kind: Kind | None) -> Kind:
    """The kind that the shape is written from.

    Raises:
        InputError: it is only read, or holds no such judgements.
    """
    if shape.write is None:
        raise InputError(f"{shape.name} is only read; write one of {', '.join(WRITABLE)}")
    if kind is not None and kind not in shape.kinds:
        raise InputError(f"{shape.name} holds no {kind}s; --kind is one of {', '.join(shape.kinds)}")
    return kind or shape.kinds[0]


def write_items(items: Iterable[Item], given: Given, how: Writing, bom: bool) -> None:
    """The items as rows of the file; `given` is filled on the way."""
    assert given.shape.write is not None
    with open_writer(given.path, given.shape.columns, bom, how.escape_formulas) as write:
        for item in items:
            given.items += 1
            tally = Tally()
            try:
                rows = list(given.shape.write(item, how, tally))
            except LeftOut as reason:
                given.tally.left_out[str(reason)] += 1
                continue
            given.tally.left_out += tally.left_out
            given.tally.changed += tally.changed
            given.rows += len(rows)
            for row in rows:
                write(row, item.split or "train")


def _items(connection: Connection, kind: Kind, choice: Choice, rated: bool, tally: Tally) -> Iterator[Item]:
    people = {labeler.id: labeler for labeler in select_records(connection, Labeler)}
    record_type = RECORD_OF[kind]
    for chunk in chunks(_chosen(connection, kind, choice, people, tally)):
        records = {r.id: r for r in select_records(connection, record_type, TABLE_OF[record_type].c.id.in_(chunk))}
        found = [records[id] for id in chunk]
        asked = {p.id: p for p in select_records(connection, Prompt, prompts.c.id.in_({r.prompt_id for r in found}))}
        answers = _answers(connection, found)
        marks = _marks(connection, found) if rated and kind == "ranking" else {}
        for record in found:
            item = _item(record, asked[record.prompt_id], answers, marks)
            who = people.get(item.labeler)
            yield dataclasses.replace(item, group=who.group, kind=who.kind) if who else item


def _chosen(connection: Connection, kind: Kind, choice: Choice, people: dict[str, Labeler], tally: Tally) -> list[str]:
    """The ids of what goes out, in order of prompt and id by code point."""
    table = TABLE_OF[RECORD_OF[kind]]
    names = [name for name in ("labeler", "purpose") if name in table.c]
    columns = [table.c.id, table.c.prompt_id, table.c.round, *(table.c[name] for name in names)]
    query = select(*columns, prompts.c.split, prompts.c.pool).join_from(
        table, prompts, table.c.prompt_id == prompts.c.id
    )
    if "supersedes" in table.c:
        query = query.where(is_current(table))
    kept = []
    for row in connection.execute(query):
        reason = _reason(row, choice, people)
        if reason:
            tally.left_out[f"{kind}s {reason}"] += 1
        else:
            kept.append((row.prompt_id, row.id))
    return [id for _, id in sorted(kept)]


def _reason(row: Any, choice: Choice, people: dict[str, Labeler]) -> str:
    """Why the row stays in the store; empty when it goes out."""
    if choice.purpose is not None and getattr(row, "purpose", choice.purpose) != choice.purpose:
        return "for another purpose (--purpose)"
    own = f"demonstration/{choice.purpose}/"
    if choice.purpose is not None and row.id.startswith(NO_TRAINING) and not row.id.startswith(own):
        return "for another purpose (--purpose)"
    if hasattr(row, "purpose") and row.id.startswith(TOXICITY):
        return "of the toxicity task"
    if hasattr(row, "labeler") and people[row.labeler].group == "heldout" and not choice.heldout:
        return "by held-out labelers"
    if choice.split not in (None, row.split):
        return f"of the {row.split} split (--split)"
    if choice.pool not in (None, row.pool):
        return "of other pools"
    return "of other rounds" if choice.round not in (None, row.round) else ""


def _answers(connection: Connection, records: list[Any]) -> dict[str, Response]:
    ids = sorted({id for record in records for id in _responses_of(record)})
    return {r.id: r for chunk in chunks(ids) for r in select_records(connection, Response, responses.c.id.in_(chunk))}


def _responses_of(record: Any) -> tuple[str, ...]:
    if isinstance(record, Ranking):
        return record.responses
    return (record.response_id,) if isinstance(record, Rating) else ()


def _marks(connection: Connection, rankings: list[Ranking]) -> dict[tuple[str, str, str], int]:
    """(labeler, purpose, response) → overall, for the rankings' prompts."""
    asked = {ranking.prompt_id for ranking in rankings}
    query = select(ratings.c.labeler, ratings.c.purpose, ratings.c.response_id, ratings.c.overall)
    query = query.where(ratings.c.prompt_id.in_(asked), is_current(ratings), ratings.c.id.not_like(f"{TOXICITY}%"))
    found = connection.execute(query.order_by(ratings.c.id))
    return {(row.labeler, row.purpose, row.response_id): row.overall for row in found}


def _item(record: Any, prompt: Prompt, answers: dict[str, Response], marks: dict[tuple[str, str, str], int]) -> Item:
    values = asked_of(prompt) | {"split": prompt.split, "id": record.id, "prompt_id": prompt.id, "user": prompt.user}
    if isinstance(record, Response):
        return Item(**values, answers=(Answer(record.text, record.model),))
    values |= {"labeler": record.labeler, "seconds": record.seconds, "guideline": record.guideline}
    if isinstance(record, Demonstration):
        return Item(**values, demonstration=record.text)
    if isinstance(record, Rating):
        judged = answers[record.response_id]
        return Item(**values, answers=(Answer(judged.text, judged.model, record.overall),))
    mark = {id: marks.get((record.labeler, record.purpose, id)) for id in record.responses}
    ranked = tuple(Answer(answers[id].text, answers[id].model, mark[id]) for id in record.responses)
    order = tuple(record.responses.index(id) for id in record.order)
    values |= {"strength": record.strength, "both_bad": record.both_bad, "preference": record.preference}
    return Item(**values, answers=ranked, rank=record.rank, order=order)


def asked_of(prompt: Prompt) -> dict[str, Any]:
    """The prompt's part of an item; what a format kept apart is taken apart again, where it still stands there."""
    apart = prompt.task.get(KEPT_APART)
    apart = apart if isinstance(apart, dict) else {}
    text, examples = prompt.text, prompt.examples
    system, input = str(apart.get("system", "")), str(apart.get("input", ""))
    opening = system + GAP
    if system and examples and examples[0][0].startswith(opening):
        examples = ((examples[0][0].removeprefix(opening), examples[0][1]), *examples[1:])
    elif system and not examples and text.startswith(opening):
        text = text.removeprefix(opening)
    else:
        system = ""
    if not text.endswith(GAP + input):
        input = ""
    return {"text": text, "examples": examples, "system": system, "input": input}
