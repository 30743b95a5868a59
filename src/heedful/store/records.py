"""Records to rows and back: inserting without doubling, reading the current view.

These work inside a transaction (`Store.read`, `Store.write`); `labels` and `intake` are the doors for callers.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Connection, Table, and_, exists, literal, not_, select, union_all

from heedful.config import InputError, said
from heedful.store.database import timestamp
from heedful.store.schema import TABLE_OF, Stored, examples, ranking_items, tombstones
from heedful.types import Prompt, Ranking, Record

R = TypeVar("R", bound=Record)
S = TypeVar("S", bound=Stored)
T = TypeVar("T")

# Some rows keep a list beside them: the list's table, and its column that names the owner.
CHILD_OF: dict[str, tuple[Table, str]] = {
    "prompts": (examples, "prompt_id"),
    "rankings": (ranking_items, "ranking_id"),
}
CHUNK = 500  # ids in one SQL statement
SCREENED = "demonstration/screening/"  # begins the ids of demonstrations that measure their labeler
NO_TRAINING = (SCREENED, "demonstration/evaluation/")  # begin the ids of those that train nothing
TOXICITY = "toxicity/"  # begins the ids of rankings and ratings of that task: better is not what it is elsewhere


class Entry(NamedTuple):
    """A record with the columns it does not know itself: round, pool, organisation, supersedes, created."""

    record: Stored
    columns: Mapping[str, Any]


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in pieces that fit one SQL statement."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def make_record(kind: type[R], values: Mapping[str, Any], where: str) -> R:
    """`values` as a record.

    Raises:
        InputError: one line that names `where` and the first field that does not fit.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {field + ': ' if field else ''}{said(first)}") from None


def insert(connection: Connection, entries: Sequence[Entry], fresh: bool = False) -> int:
    """Insert records of one type; returns the number of new rows.

    A record that is already there with equal content is passed over, so a resumed run may insert again. `fresh`: the
    caller has seen that none is there, nor was erased.

    Raises:
        InputError: an id is taken by different content or was erased, or a text holds a NUL character.
    """
    if not entries:
        return 0
    kind = type(entries[0].record)
    table = TABLE_OF[kind]
    created = timestamp()
    unique = _without_repeats(entries)
    written = {entry.record.id: _to_rows(entry.record) for entry in unique}
    _check_characters(table, [row for main, items in written.values() for row in (main, *items)])
    rows, children = [], []
    for chunk in chunks(unique):
        ids = [entry.record.id for entry in chunk]
        there: dict[str, tuple[Stored, dict[str, Any]]] = {}
        if not fresh:
            check_erased(connection, [table], ids)
            found = select_entries(connection, kind, table.c.id.in_(ids))
            there = {row["id"]: (record, row) for record, row in found}
        for entry in chunk:
            if entry.record.id in there:
                _check_same(entry, *there[entry.record.id])
            else:
                row, items = written[entry.record.id]
                rows.append(row | {"round": 0, "created": created} | dict(entry.columns))
                children += items
    for target, values in ((table, rows), (CHILD_OF.get(table.name, (table,))[0], children)):
        if values:
            _insert_rows(connection, target, values)
    return len(rows)


def _insert_rows(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    # One statement for many rows needs the same columns in each.
    names = {name for row in rows for name in row}
    connection.execute(table.insert(), [dict.fromkeys(names) | row for row in rows])


def _without_repeats(entries: Sequence[Entry]) -> list[Entry]:
    first: dict[str, Entry] = {}
    for entry in entries:
        kept = first.setdefault(entry.record.id, entry)
        if kept.record != entry.record:
            raise InputError(f"{_name(entry.record)} was given twice with different content")
    return list(first.values())


def _check_same(entry: Entry, record: Stored, columns: Mapping[str, Any]) -> None:
    name = _name(record)
    if record != entry.record:
        was, now = record.model_dump(), entry.record.model_dump()
        field = next(key for key in was if was[key] != now[key])
        mend = "heedful label edit replaces it" if "supersedes" in columns else "give the new one its own id"
        raise InputError(f"{name} is already stored with another {field}; {mend}")
    for key in ("pool", "supersedes"):
        wanted = entry.columns.get(key)
        if wanted is not None and wanted != columns[key]:
            raise InputError(f"{name} is already stored with {key} {columns[key]}, not {wanted}")


def _check_characters(table: Table, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        for field, value in row.items():
            if isinstance(value, str) and "\0" in value:
                owner = row.get("id") or row.get("prompt_id") or row.get("ranking_id")
                raise InputError(f"{table.name}: {owner}: {field} holds a NUL character; remove it")


def _name(record: Stored) -> str:
    return f"{type(record).__name__.lower()} {record.id}"


def _to_rows(record: Stored) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    row = record.model_dump(mode="json")
    items: list[dict[str, Any]] = []
    if isinstance(record, Prompt):
        for position, (query, response) in enumerate(row.pop("examples")):
            items.append({"prompt_id": record.id, "position": position, "query": query, "response": response})
    if isinstance(record, Ranking):
        presented = {id: position for position, id in enumerate(row.pop("order"))}
        for position, (id, rank) in enumerate(zip(row.pop("responses"), row.pop("rank"), strict=True)):
            items.append({"ranking_id": record.id, "position": position, "response_id": id, "rank": rank})
            items[-1]["presented"] = presented.get(id)
    return row, items


def _from_rows(kind: type[S], row: Mapping[str, Any], items: Sequence[Any]) -> S:
    values = {name: row[name] for name in kind.model_fields if name in row}
    if kind is Prompt:
        values["examples"] = [(item.query, item.response) for item in items]
    if kind is Ranking:
        values["responses"] = [item.response_id for item in items]
        values["rank"] = [item.rank for item in items]
        placed = sorted((item for item in items if item.presented is not None), key=lambda item: item.presented)
        values["order"] = [item.response_id for item in placed]
    record = kind.model_validate(values)
    assert isinstance(record, kind)
    return record


def select_records(connection: Connection, kind: type[S], *conditions: ColumnElement[bool]) -> list[S]:
    """The records that meet the conditions on their table, in order of id."""
    return [record for record, _ in select_entries(connection, kind, *conditions)]


def select_entries(
    connection: Connection, kind: type[S], *conditions: ColumnElement[bool]
) -> list[tuple[S, dict[str, Any]]]:
    """The records that meet the conditions, each with its row, in order of id (by code point on every database)."""
    table = TABLE_OF[kind]
    items = defaultdict(list)
    if table.name in CHILD_OF:
        child, owner = CHILD_OF[table.name]
        owners = select(table.c.id).where(*conditions)
        found = select(child).where(child.c[owner].in_(owners)).order_by(child.c[owner], child.c.position)
        for item in connection.execute(found):
            items[getattr(item, owner)].append(item)
    rows = sorted(_rows(connection, table, *conditions), key=lambda row: row["id"])
    return [(_from_rows(kind, row, items[row["id"]]), row) for row in rows]


def _rows(connection: Connection, table: Table, *conditions: ColumnElement[bool]) -> list[dict[str, Any]]:
    return [{**row} for row in connection.execute(select(table).where(*conditions)).mappings()]


def is_current(table: Table, as_of: str | None = None) -> ColumnElement[bool]:
    """True for the rows that stand at `as_of` (now, when None): written by then, not superseded by then."""
    newer = table.alias()
    replaced = newer.c.supersedes == table.c.id
    if as_of is None:
        return not_(exists().where(replaced))
    return and_(table.c.created <= as_of, not_(exists().where(replaced, newer.c.created <= as_of)))


def erased_ids(connection: Connection, table: Table, ids: Sequence[str]) -> list[str]:
    """Those of the ids whose rows were erased."""
    found: list[str] = []
    for chunk in chunks(ids):
        at_hand = and_(tombstones.c.kind == table.name, tombstones.c.id.in_(chunk))
        found += connection.execute(select(tombstones.c.id).where(at_hand)).scalars()
    return sorted(found)


def check_erased(connection: Connection, tables: Sequence[Table], ids: Sequence[str]) -> None:
    """Raises InputError where a record with one of the ids was erased from one of the tables."""
    for chunk in chunks(ids):
        gone = and_(tombstones.c.kind.in_([table.name for table in tables]), tombstones.c.id.in_(chunk))
        for kind, erased in connection.execute(select(tombstones.c.kind, tombstones.c.id).where(gone)):
            raise InputError(f"{kind}: {erased} was erased on request and cannot be added again")


def present(connection: Connection, wanted: Mapping[Table, Sequence[str]]) -> dict[Table, set[str]]:
    """Those of the ids that stand in each table; few of them are looked up by one statement."""
    found: dict[Table, set[str]] = {table: set() for table in wanted}
    if sum(map(len, wanted.values())) > CHUNK:
        return {table: known_ids(connection, table, ids) for table, ids in wanted.items()}
    asked = [
        select(literal(number), table.c.id).where(table.c.id.in_(ids))
        for number, (table, ids) in enumerate(wanted.items())
        if ids
    ]
    tables = list(wanted)
    for number, id in connection.execute(union_all(*asked)) if asked else ():
        found[tables[number]].add(id)
    return found


def known_ids(connection: Connection, table: Table, ids: Sequence[str]) -> set[str]:
    """Those of the ids that stand in the table."""
    found: set[str] = set()
    for chunk in chunks(ids):
        found.update(connection.execute(select(table.c.id).where(table.c.id.in_(chunk))).scalars())
    return found
