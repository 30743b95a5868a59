"""heedful's own interchange format: one judgement a line, with everything it speaks of.

    {"schema": "ranking/1", "prompt": {...}, "responses": [{...}, ...], "labeler": {...}, "ranking": {...},
     "pool": "reward_model", "round": 0, "created": "2026-11-21T09:10:57.000123Z"}

The objects are the records of `heedful.types`. A line stands alone: it can be cut out, mailed, and read into an empty
store. Lines come in order of id, so equal stores give equal bytes, and importing an export reproduces it. Only the
current view is written; history and tombstones travel in a backup.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from sqlalchemy import Connection, select

from heedful.config import InputError
from heedful.run import write_atomic
from heedful.snapshot import read_lines
from heedful.store.database import Store
from heedful.store.labels import check_references
from heedful.store.pools import Pool, insert_prompts
from heedful.store.progress import Work, to_label
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
            for line in _lines(connection, kind):
                file.write(line + "\n")
                number += 1
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)
    return number


def write_forms(store: Store, path: Path, work: Work, labeler: str, limit: int | None = None) -> int:
    """Write what the labeler can still judge, a line each, with `rank`, `overall` or `text` left to fill in.

    The responses to rank stand in a random order of the labeler's own, which the ranking's `order` keeps.

    Raises:
        InputError: no such labeler.
    """
    with store.read() as connection:
        people = {record.id: record for record in select_records(connection, Labeler)}
    lines = []
    for prompt, answers in to_label(store, work, labeler, limit):
        shown = random.Random(f"{labeler} {prompt.id}").sample(answers, len(answers))
        ids = [response.id for response in shown]
        form: dict[str, Any] = {"prompt_id": prompt.id, "labeler": labeler}
        if work.task == "ranking":
            form |= {"purpose": work.purpose, "responses": ids, "order": ids, "rank": [None] * len(ids)}
        elif work.task == "rating":
            form |= {"purpose": work.purpose, "response_id": ids[0], "overall": None}
        else:
            form |= {"text": None}
        judged = ids[0] if work.task == "rating" else prompt.id
        line = {
            "schema": f"{work.task}/1",
            "prompt": prompt.model_dump(mode="json"),
            "responses": [response.model_dump(mode="json") for response in shown],
            "labeler": people[labeler].model_dump(mode="json"),
            work.task: {"id": f"{work.task}/{work.purpose}/{work.round}/{labeler}/{judged}"} | form,
            "pool": work.pool,
            "round": work.round,
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines))
    return len(lines)


def import_jsonl(store: Store, path: Path) -> Counter[str]:
    """Read judgements with their prompts, responses and labelers, all or nothing; returns table → new rows.

    Forms that nobody filled in are passed over, and counted as "forms not filled in".

    Raises:
        InputError: a line that is broken or does not fit together, by its number; an id taken by different content.
    """
    entries: dict[type[Any], list[Entry]] = {kind: [] for kind in (Prompt, Labeler, Response, *KINDS.values())}
    empty = 0
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            empty += not _read_line(line, f"{path}, line {number}", entries)

    def work(connection: Connection) -> Counter[str]:
        added: Counter[str] = Counter({"forms not filled in": empty})
        for kind, found in entries.items():
            check_references(connection, [entry.record for entry in found])
            add = insert_prompts if kind is Prompt else insert
            added[TABLE_OF[kind].name] = add(connection, found)
        return +added

    return store.write(work)


def _lines(connection: Connection, name: Kind) -> Iterator[str]:
    kind = KINDS[name]
    table = TABLE_OF[kind]
    ids = sorted(connection.execute(select(table.c.id).where(is_current(table))).scalars())
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


def _read_line(line: str, where: str, entries: dict[type[Any], list[Entry]]) -> bool:
    """Add the line's records to the entries; False where its form is not filled in."""
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON: {error}") from None
    name = str(values.get("schema")).removesuffix("/1") if isinstance(values, dict) else ""
    if name not in KINDS:
        raise InputError(f"{where}: schema must be one of {', '.join(f'{kind}/1' for kind in KINDS)}")
    round, created, pool = values.get("round", 0), values.get("created"), values.get("pool")
    if type(round) is not int or round < 0 or not _is_time(created):
        raise InputError(f"{where}: round is a whole number and created a text such as 2026-11-21T09:10:57.000000Z")
    if pool not in (None, *get_args(Pool)):
        raise InputError(f"{where}: pool is one of {', '.join(get_args(Pool))}, or null")
    if not isinstance(values.get("responses", []), list):
        raise InputError(f"{where}: responses is a list of responses")
    columns = {"round": round} | ({"created": created} if created else {})
    if _is_empty(values.get(name)):
        return False
    judgement = _part(KINDS[name], values, name, where)
    prompt = _part(Prompt, values, "prompt", where)
    if judgement.prompt_id != prompt.id:
        raise InputError(f"{where}: the {name} is of prompt {judgement.prompt_id}, the line brings {prompt.id}")
    entries[Prompt].append(Entry(prompt, columns | {"pool": values.get("pool")}))
    entries[Labeler].append(Entry(_part(Labeler, values, "labeler", where), columns))
    for position, response in enumerate(values.get("responses", [])):
        entries[Response].append(Entry(make_record(Response, response, f"{where}, responses.{position}"), columns))
    entries[type(judgement)].append(Entry(judgement, columns))
    return True


def _is_time(text: Any) -> bool:
    """Whether it is a moment as the store writes it, or nothing."""
    try:
        return text is None or datetime.fromisoformat(text).tzinfo is not None
    except (TypeError, ValueError):
        return False


def _is_empty(form: Any) -> bool:
    """Whether `write_forms` wrote it and nobody filled it in."""
    left = [form[key] for key in ("rank", "overall", "text") if key in form] if isinstance(form, dict) else []

    def is_blank(value: Any) -> bool:
        return value in (None, "") or (isinstance(value, list) and all(place is None for place in value))

    return bool(left) and all(map(is_blank, left))


def _part(kind: type[S], values: dict[str, Any], name: str, where: str) -> S:
    return make_record(kind, values.get(name, {}), f"{where}, {name}")


def _judged(record: Demonstration | Rating | Ranking) -> tuple[str, ...]:
    if isinstance(record, Ranking):
        return record.responses
    return (record.response_id,) if isinstance(record, Rating) else ()
