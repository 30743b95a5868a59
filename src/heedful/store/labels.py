"""Putting responses and judgements into the store, and what is still to be labelled.

Every add is all or nothing, and adding the same record again changes nothing. A judgement is changed by `edit`, which
adds a new row that supersedes the old one; the old one stays on record.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.records import Entry, chunks, insert, present, select_entries
from heedful.store.schema import TABLE_OF, labelers, prompts, responses
from heedful.types import Demonstration, Labeler, Ranking, Rating, Response

Judgement = Demonstration | Rating | Ranking


def add_labeler(store: Store, *records: Labeler, round: int = 0) -> int:
    """Returns the number of new labelers.

    Raises:
        InputError: the id is taken by another group or kind: a held-out labeler never becomes a training labeler.
    """
    return _add(store, records, round)


def add_response(store: Store, *records: Response, round: int = 0) -> int:
    """Returns the number of new responses; `round` is the turn of the loop in which they were sampled.

    Raises:
        InputError: an empty response, an unknown prompt, or an id taken by other content.
    """
    return _add(store, records, round)


def add_demonstration(store: Store, *records: Demonstration, round: int = 0) -> int:
    """Returns the number of new demonstrations.

    Raises:
        InputError: an empty text, an unknown prompt or labeler, or an id taken by other content.
    """
    return _add(store, records, round)


def add_rating(store: Store, *records: Rating) -> int:
    """Returns the number of new ratings; a rating's round is its response's.

    Raises:
        InputError: an unknown prompt, labeler or response, a response of another prompt, or an id taken.
    """
    return _add(store, records)


def add_ranking(store: Store, *records: Ranking) -> int:
    """Returns the number of new rankings; a ranking's round is the newest of its responses'.

    Raises:
        InputError: an unknown prompt, labeler or response, a response of another prompt, or an id taken.
    """
    return _add(store, records)


def edit(store: Store, record: Judgement, supersedes: str) -> int:
    """Add a judgement in place of the current one with id `supersedes`; returns 1, or 0 when it is already there.

    Raises:
        InputError: no such judgement, another labeler's or prompt's, or one that is superseded already.
    """
    return store.write(lambda connection: _supersede(connection, record, supersedes))


def revise(connection: Connection, entry: Entry, must_exist: bool = True) -> bool:
    """Put the judgement in place of the current version of the one with its id; False when they say the same, in
    however many seconds.

    Versions are named by the first one's id: k, k/v2, k/v3. One that is not in the store is added, unless it must
    exist.

    Raises:
        InputError: no such judgement of this labeler and prompt.
    """
    record = entry.record
    assert isinstance(record, Judgement)
    table = TABLE_OF[type(record)]
    own = select(table.c.id, table.c.supersedes)
    own = own.where(table.c.labeler == record.labeler, table.c.prompt_id == record.prompt_id)
    older = {row.id: row.supersedes for row in connection.execute(own)}
    if record.id not in older:
        if must_exist:
            raise InputError(
                f"{record.labeler} has made no judgement {record.id} of that prompt; heedful label import adds new ones"
            )
        check_references(connection, [record])
        return bool(insert(connection, [entry]))
    newer = {old: new for new, old in older.items() if old is not None}
    first = record.id
    while older[first] is not None:
        first = older[first]
    current, version = first, 1
    while current in newer:
        current, version = newer[current], version + 1
    standing, _ = select_entries(connection, type(record), table.c.id == current)[0]
    if standing == record.model_copy(update={"id": current, "seconds": standing.seconds}):
        return False
    return bool(_supersede(connection, record.model_copy(update={"id": f"{first}/v{version + 1}"}), current))


def _supersede(connection: Connection, record: Judgement, supersedes: str) -> int:
    table = TABLE_OF[type(record)]
    found = select_entries(connection, type(record), table.c.id == supersedes)
    if not found:
        raise InputError(f"{table.name}: no {supersedes} to supersede")
    old, row = found[0]
    if (old.labeler, old.prompt_id) != (record.labeler, record.prompt_id):
        raise InputError(f"{record.id} cannot supersede {supersedes}: that is another labeler's or prompt's")
    newer = connection.execute(select(table.c.id).where(table.c.supersedes == supersedes)).scalar()
    if newer not in (None, record.id):
        raise InputError(f"{table.name}: {supersedes} was already superseded by {newer}; edit that one")
    check_references(connection, [record])
    return insert(connection, [Entry(record, {"round": row["round"], "supersedes": supersedes})])


def _add(store: Store, records: Sequence[Any], round: int = 0) -> int:
    def work(connection: Connection) -> int:
        rounds = check_references(connection, records)
        entries = []
        for record in records:
            of_responses = [rounds[id] for id in _responses_of(record)]
            entries.append(Entry(record, {"round": max(of_responses, default=round)}))
        return insert(connection, entries)

    return store.write(work)


def check_references(connection: Connection, records: Sequence[Any]) -> dict[str, int]:
    """Everything the records speak of is in the store and belongs together; returns the round of each response.

    Raises:
        InputError: names the first record that does not fit.
    """
    named = {prompts: {record.prompt_id for record in records if hasattr(record, "prompt_id")}}
    named[labelers] = {record.labeler for record in records if hasattr(record, "labeler")}
    known = present(connection, {table: sorted(ids) for table, ids in named.items()})
    prompt_of: dict[str, str] = {}
    rounds: dict[str, int] = {}
    for chunk in chunks(sorted({id for record in records for id in _responses_of(record)})):
        columns = responses.c.id, responses.c.prompt_id, responses.c.round
        for id, prompt_id, round in connection.execute(select(*columns).where(responses.c.id.in_(chunk))):
            prompt_of[id], rounds[id] = prompt_id, round
    for record in records:
        name = f"{type(record).__name__.lower()} {record.id}"
        if hasattr(record, "text") and not record.text.strip():
            raise InputError(f"{name} is empty; leave it out or write a text")
        if hasattr(record, "prompt_id") and record.prompt_id not in known[prompts]:
            raise InputError(f"{name}: no prompt {record.prompt_id} in the store; add the prompt first")
        if hasattr(record, "labeler") and record.labeler not in known[labelers]:
            raise InputError(f"{name}: no labeler {record.labeler} in the store; add the labeler first")
        for id in _responses_of(record):
            if id not in prompt_of:
                raise InputError(f"{name}: no response {id} in the store; add the response first")
            if prompt_of[id] != record.prompt_id:
                raise InputError(f"{name}: response {id} answers prompt {prompt_of[id]}, not {record.prompt_id}")
    return rounds


def _responses_of(record: Any) -> tuple[str, ...]:
    if isinstance(record, Ranking):
        return record.responses
    return (record.response_id,) if isinstance(record, Rating) else ()
