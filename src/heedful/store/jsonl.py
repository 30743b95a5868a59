"""heedful's own interchange format: one judgement a line, with everything it speaks of.

    {"schema": "ranking/1", "prompt": {...}, "responses": [{...}, ...], "labeler": {...}, "ranking": {...},
     "pool": "reward_model", "round": 0, "created": "2026-11-21T09:10:57.000123Z"}

The objects are the records of `heedful.types`. A line stands alone: it can be cut out, mailed, and read into an empty
store. Lines come in order of id, so equal stores give equal bytes, and importing an export reproduces it. Only the
current view is written; history and tombstones travel in a backup. Forms that labelers fill in (`heedful.store.forms`)
are read too.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from sqlalchemy import Connection, select

from heedful.config import InputError, not_json
from heedful.snapshot import read_lines
from heedful.store.database import Store
from heedful.store.forms import FORMS, Form, judgements, read_book, read_form
from heedful.store.labels import check_references, revise
from heedful.store.pools import Pool, insert_prompts
from heedful.store.records import Entry, chunks, insert, is_current, make_record, select_entries, select_records
from heedful.store.schema import TABLE_OF, Stored, prompts, responses
from heedful.types import Demonstration, Labeler, Prompt, Ranking, Rating, Response

KINDS: dict[str, type[Demonstration | Rating | Ranking]] = {
    "demonstration": Demonstration,
    "rating": Rating,
    "ranking": Ranking,
}
Kind = Literal["demonstration", "rating", "ranking"]
S = TypeVar("S", bound=Stored)


def export_jsonl(store: Store, path: Path, kind: Kind) -> int:
    """Write every current judgement of the kind, all or nothing; returns their number."""
    partial = path.with_name(path.name + ".partial")
    number = 0
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file, store.read() as connection:
            for line in lines(connection, kind):
                file.write(line + "\n")
                number += 1
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)
    return number


def import_jsonl(store: Store, path: Path) -> Counter[str]:
    """Read judgements with their prompts, responses and labelers, or forms that labelers filled in, all or nothing;
    returns table → new rows.

    Forms that nobody filled in are passed over, and counted as "forms not filled in".

    Raises:
        InputError: a line that is broken or does not fit together, by its number; an id taken by different content.
    """
    rows = _read(path)

    def work(connection: Connection) -> Counter[str]:
        found, added = _entries(connection, rows)
        for kind in (Prompt, Labeler, Response, *KINDS.values()):
            entries = [entry for _, of_line in found for entry in of_line if type(entry.record) is kind]
            check_references(connection, [entry.record for entry in entries])
            add = insert_prompts if kind is Prompt else insert
            added[TABLE_OF[kind].name] = add(connection, entries)
        return +added

    return store.write(work)


def edit_jsonl(store: Store, path: Path) -> Counter[str]:
    """Put the file's judgements, each a new version, in place of those with their ids; all or nothing.

    The old versions stay on record. What a form leaves empty, and what is equal, stays as it was. Returns table → new
    versions, and how many were "unchanged".

    Raises:
        InputError: as `import_jsonl`; a judgement that is not in the store, by its line.
    """
    rows = _read(path)

    def work(connection: Connection) -> Counter[str]:
        found, edited = _entries(connection, rows)
        for where, of_line in found:
            judged = [entry for entry in of_line if type(entry.record) in KINDS.values()]
            for number, entry in enumerate(judged):
                table = TABLE_OF[type(entry.record)]
                try:
                    changed = revise(connection, entry, must_exist=number == 0)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from None
                edited[table.name if changed else "unchanged"] += 1
        return +edited

    return store.write(work)


def _read(path: Path) -> list[tuple[str, Form | list[Entry]]]:
    """Each line that is not blank: where it stands, and what it holds."""
    numbered = enumerate(read_lines(path), start=1)
    places = ((f"{path}, line {number}", line) for number, line in numbered if line.strip())
    return [(where, _read_line(line, where)) for where, line in places]


def _entries(
    connection: Connection, lines: list[tuple[str, Form | list[Entry]]]
) -> tuple[list[tuple[str, list[Entry]]], Counter[str]]:
    """The entries of each line, its judgement or a form's judgements among them; the number of empty forms."""
    forms = [line for _, line in lines if isinstance(line, Form)]
    book = read_book(connection) if forms else None
    found = []
    for where, line in lines:
        if isinstance(line, Form):
            assert book is not None
            line = judgements(line, book, where)
        found.append((where, line))
    return found, Counter({"forms not filled in": sum(not entries for _, entries in found)})


def lines(connection: Connection, name: Kind, since: str = "") -> Iterator[str]:
    """Every current judgement of the kind that was stored after the moment, as the format has it."""
    kind = KINDS[name]
    table = TABLE_OF[kind]
    ids = sorted(connection.execute(select(table.c.id).where(is_current(table), table.c.created > since)).scalars())
    people = {labeler.id: labeler for labeler in select_records(connection, Labeler)}
    for chunk in chunks(ids):
        found = select_entries(connection, kind, table.c.id.in_(chunk))
        asked = sorted({record.prompt_id for record, _ in found})
        prompt_rows = {r.id: (r, row) for r, row in select_entries(connection, Prompt, prompts.c.id.in_(asked))}
        answers = {r.id: r for r in select_records(connection, Response, responses.c.prompt_id.in_(asked))}
        for record, row in found:
            prompt, prompt_row = prompt_rows[record.prompt_id]
            line = {
                "schema": f"{name}/1",
                "prompt": prompt.model_dump(mode="json"),
                "responses": [answers[id].model_dump(mode="json") for id in _judged(record)],
                "labeler": people[record.labeler].model_dump(mode="json"),
                name: record.model_dump(mode="json"),
                "pool": prompt_row["pool"],
                "round": row["round"],
                "created": row["created"],
            }
            yield json.dumps(line, ensure_ascii=False)


def _read_line(line: str, where: str) -> Form | list[Entry]:
    """A form, or the line's records, the judgement last."""
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: {not_json(str(error))}") from None
    schema = str(values.get("schema")) if isinstance(values, dict) else ""
    if schema in FORMS:
        return read_form(values, where)
    name = schema.removesuffix("/1")
    if name not in KINDS:
        known = ", ".join([*(f"{kind}/1" for kind in KINDS), *FORMS])
        raise InputError(f"{where}: schema must be one of {known}")
    round, created, pool = values.get("round", 0), values.get("created"), values.get("pool")
    if type(round) is not int or round < 0 or not _is_time(created):
        raise InputError(f"{where}: round is a whole number and created a text such as 2026-11-21T09:10:57.000000Z")
    if pool not in (None, *get_args(Pool)):
        raise InputError(f"{where}: pool is one of {', '.join(get_args(Pool))}, or null")
    if not isinstance(values.get("responses", []), list):
        raise InputError(f"{where}: responses is a list of responses")
    columns = {"round": round} | ({"created": created} if created else {})
    judgement = _part(KINDS[name], values, name, where)
    prompt = _part(Prompt, values, "prompt", where)
    if judgement.prompt_id != prompt.id:
        raise InputError(f"{where}: the {name} is of prompt {judgement.prompt_id}, the line brings {prompt.id}")
    found = [Entry(prompt, columns | {"pool": pool}), Entry(_part(Labeler, values, "labeler", where), columns)]
    for position, response in enumerate(values.get("responses", [])):
        found.append(Entry(make_record(Response, response, f"{where}, responses.{position}"), columns))
    return [*found, Entry(judgement, columns)]


def _is_time(text: Any) -> bool:
    """Whether it is a moment as the store writes it, or nothing."""
    try:
        return text is None or datetime.fromisoformat(text).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _part(kind: type[S], values: dict[str, Any], name: str, where: str) -> S:
    return make_record(kind, values.get(name, {}), f"{where}, {name}")


def _judged(record: Demonstration | Rating | Ranking) -> tuple[str, ...]:
    if isinstance(record, Ranking):
        return record.responses
    return (record.response_id,) if isinstance(record, Rating) else ()
