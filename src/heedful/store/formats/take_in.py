"""Files of other tools into the store: all or nothing, and the same file again changes nothing.

Ids are hashes of content. A prompt's user is the column that says so, else the opening of its conversation, so all
that is made from one opening stands in one split; the split falls by the user, as in intake. Prompts stay as they are:
no de-duplication, no cap, no redaction (`heedful.store.intake` does that for prompts of one's own).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from sqlalchemy import Connection, select

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.formats.item import Item, with_system
from heedful.store.formats.reading import Read, Source, read_items
from heedful.store.incoming import IncomingPrompt, hashed
from heedful.store.pools import Pool, insert_prompts, unit
from heedful.store.records import Entry, chunks, erased_ids, insert, known_ids
from heedful.store.schema import TABLE_OF, labelers, prompts
from heedful.types import (
    UNKNOWN_GUIDELINE,
    Demonstration,
    Labeler,
    LabelerGroup,
    LabelerKind,
    Prompt,
    Ranking,
    Rating,
    Response,
    Split,
)

BATCH = 500  # items between two inserts
KEPT_APART = "format"  # in Prompt.task: what stands in the text joined and a format keeps apart


@dataclass(frozen=True)
class Placing:
    """What the file does not say. None: the file's or the store's own word, else the first choice.

    `split`: assign lets it fall by user, keep takes what a dataset folder's names say, others put all into one.
    `valid` and `test` are shares of users. `purpose` is what the judgements were made for.
    """

    labeler: str = "imported"
    group: LabelerGroup | None = None
    kind: LabelerKind | None = None
    pool: Pool | None = None
    split: Literal["assign", "keep", "train", "valid", "test"] = "assign"
    valid: float = 0.1
    test: float = 0.1
    salt: str = ""
    round: int = 0
    purpose: Literal["train", "evaluation"] = "train"
    guideline: str = UNKNOWN_GUIDELINE


@dataclass
class Taken:
    """What an import did: the rows' report, table → new rows, and judgements that were there (or came twice)."""

    read: Read
    new: Counter[str] = field(default_factory=Counter)
    known: int = 0

    def lines(self) -> list[str]:
        """The report for a person, one fact a line."""
        known = [f"  in the store already, or twice in the file: {self.known:,} judgements"] if self.known else []
        return [*self.read.lines(), *known]


@dataclass
class _Batch:
    """Records that go in together; a judgement stands behind what it speaks of."""

    prompts: dict[str, Entry] = field(default_factory=dict)
    labelers: dict[str, Labeler] = field(default_factory=dict)
    others: dict[type, dict[str, Entry]] = field(default_factory=dict)
    judgements: int = 0  # repeats within the batch counted too

    def add(self, record: Any, round: int) -> None:
        self.others.setdefault(type(record), {})[record.id] = Entry(record, {"round": round})
        self.judgements += isinstance(record, Demonstration | Rating | Ranking)


def import_file(store: Store, source: Source, placing: Placing | None = None) -> Taken:
    """Read the file into the store.

    Raises:
        InputError: broken rows under "refuse", a file that cannot be read, a labeler who is of another group in the
            store, or a user in two splits.
    """
    placing = placing or Placing()

    def work(connection: Connection) -> Taken:
        taken = Taken(Read(source.path, source.shape))
        items = read_items(source, taken.read)
        while batch := list(islice(items, BATCH)):
            _store(connection, batch, placing, taken)
        taken.new = +taken.new
        return taken

    return store.write(work)


def _store(connection: Connection, items: list[Item], placing: Placing, taken: Taken) -> None:
    users = sorted({_user(item) for item in items})
    splits: dict[str, Split] = {}
    for chunk in chunks(users):
        found = connection.execute(select(prompts.c.user, prompts.c.split).where(prompts.c.user.in_(chunk)))
        splits.update((user, split) for user, split in found)
    batch = _Batch()
    for item in items:
        _add(item, placing, splits, batch)
    gone = _erased(connection, batch, taken)
    known = known_ids(connection, prompts, sorted(batch.prompts))
    fresh = [entry for id, entry in batch.prompts.items() if id not in known and id not in gone]
    taken.new["prompts"] += insert_prompts(connection, fresh)
    taken.new["labelers"] += insert(connection, _labelers(connection, batch, placing))
    taken.known += batch.judgements
    for kind in (Response, Demonstration, Rating, Ranking):
        of_kind = batch.others.get(kind, {})
        number = insert(connection, [entry for id, entry in of_kind.items() if id not in gone])
        taken.new[TABLE_OF[kind].name] += number
        taken.known -= number + sum(id in gone for id in of_kind) if kind is not Response else 0


def _erased(connection: Connection, batch: _Batch, taken: Taken) -> set[str]:
    """The ids that were erased on request, and those of what speaks of them; counted."""
    people = set(erased_ids(connection, labelers, sorted(batch.labelers)))
    for name in people:
        del batch.labelers[name]
    gone = set(erased_ids(connection, prompts, sorted(batch.prompts)))
    for kind, entries in batch.others.items():
        gone |= set(erased_ids(connection, TABLE_OF[kind], sorted(entries)))
    if not gone and not people:
        return gone
    for kind in (Response, Demonstration, Rating, Ranking):
        for id, entry in batch.others.get(kind, {}).items():
            by = getattr(entry.record, "labeler", None)
            if id in gone or by in people or not _speaks_of(entry.record).isdisjoint(gone):
                gone.add(id)
                taken.read.tally.left_out[f"{TABLE_OF[kind].name} erased on request, or of what was"] += 1
    return gone


def _speaks_of(record: Any) -> set[str]:
    found = {record.prompt_id}
    if isinstance(record, Ranking):
        found |= set(record.responses)
    if isinstance(record, Rating):
        found.add(record.response_id)
    return found


def _add(item: Item, placing: Placing, splits: dict[str, Split], batch: _Batch) -> None:
    prompt = _prompt(item, placing, splits)
    natural: Pool = "sft" if item.demonstration and not item.answers else "reward_model"
    pool = placing.pool or ("evaluation" if prompt.split == "test" else natural)
    batch.prompts.setdefault(prompt.id, Entry(prompt, {"pool": pool, "round": placing.round}))
    for record in _judgements(item, prompt.id, placing):
        batch.add(record, placing.round)
    if item.demonstration or item.rank or any(answer.overall is not None for answer in item.answers):
        name = item.labeler or placing.labeler
        group, kind = placing.group or item.group, placing.kind or item.kind
        batch.labelers.setdefault(name, Labeler(id=name, group=group or "train", kind=kind or "person"))


def _user(item: Item) -> str:
    opening = with_system(item)
    return item.user or hashed(opening.examples[0][0] if opening.examples else opening.text)


def _prompt(item: Item, placing: Placing, splits: dict[str, Split]) -> Prompt:
    user = _user(item)
    split: Split
    if placing.split == "keep":
        split = item.split or splits.get(user) or _split(user, placing)
    elif placing.split == "assign":
        split = splits.get(user) or _split(user, placing)
    else:
        split = placing.split
    splits.setdefault(user, split)
    apart = {name: text for name, text in (("system", item.system), ("input", item.input)) if text}
    task = {KEPT_APART: apart} if apart else {}
    incoming = IncomingPrompt(
        id="", text=item.text, examples=item.examples, system=item.system, user=user, split=split, task=task
    )
    return incoming.plain()


def _split(user: str, placing: Placing) -> Split:
    """As intake's: the same user falls into the same split either way."""
    point = unit(user, f"split {placing.salt}")
    if point < placing.test:
        return "test"
    return "valid" if point < placing.test + placing.valid else "train"


def _judgements(item: Item, prompt_id: str, placing: Placing) -> Iterator[Any]:
    """Responses first, then what was said of them."""
    labeler = item.labeler or placing.labeler
    common: dict[str, Any] = {"prompt_id": prompt_id, "labeler": labeler}
    common["guideline"] = item.guideline or placing.guideline
    if item.demonstration:
        yield Demonstration(id=_id("d", prompt_id, labeler, item.demonstration), text=item.demonstration, **common)
    ids: list[str] = []
    repeats: Counter[tuple[str, str]] = Counter()
    for answer in item.answers:
        repeats[answer.model, answer.text] += 1
        # One ranking may hold the same text twice; the first is the same response wherever it stands.
        ids.append(_id("r", prompt_id, answer.model, answer.text, repeats[answer.model, answer.text]))
        yield Response(id=ids[-1], prompt_id=prompt_id, text=answer.text, model=answer.model)
    common["purpose"] = placing.purpose
    for id, answer in zip(ids, item.answers, strict=True):
        if answer.overall is not None:
            rating_id = _id("g", id, labeler, answer.overall, placing.purpose)
            yield Rating(id=rating_id, response_id=id, overall=answer.overall, **common)
    if item.rank:
        order = tuple(ids[position] for position in item.order)
        values = common | {"responses": tuple(ids), "rank": item.rank, "strength": item.strength}
        values |= {"order": order, "seconds": item.seconds} | ({"both_bad": True} if item.both_bad else {})
        values |= {"preference": item.preference} if item.preference else {}
        yield Ranking(id=_id("k", sorted(values.items())), **values)


def _id(letter: str, *content: Any) -> str:
    return letter + hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()[:19]


def _labelers(connection: Connection, batch: _Batch, placing: Placing) -> list[Entry]:
    """The labelers to insert. One who is there keeps group and kind where nobody says otherwise."""
    there: dict[str, Any] = {}
    for chunk in chunks(sorted(batch.labelers)):
        found = connection.execute(
            select(labelers.c.id, labelers.c.group, labelers.c.kind).where(labelers.c.id.in_(chunk))
        )
        there.update((row.id, row) for row in found)
    fresh = []
    for name, labeler in sorted(batch.labelers.items()):
        if name not in there:
            fresh.append(Entry(labeler, {"round": placing.round}))
        elif placing.group not in (None, there[name].group):
            raise InputError(
                f"labeler {name} is of the {there[name].group} group in the store, not {placing.group}; "
                "leave --group out, or give the imported labelers another name"
            )
    return fresh
