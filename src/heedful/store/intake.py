"""From files of prompts to prompts in pools, by InstructGPT's rules (section 3.2), everything dropped counted.

In this order: prompts erased on request stay out; de-duplicate by a long common prefix; at most 200 prompts per user;
split by user; remove personal data from the training split; give each its pool; write few-shot prompts out.

De-duplication: two prompts are the same when their first `prefix` characters agree, or the whole texts where one is
shorter, compared without regard to case, spacing and Unicode form; the earliest stays. Prompts made by filling one
template differ only late, and that is what the paper's heuristic is for. The paper gives no length; 200 characters
(two or three sentences) is longer than the openings that different people share ("Write a short story about ...").
A fixed length, unlike "nearly the same", makes sameness transitive: what stays depends on nothing but who came first.
What instructs the model (`system`) is the operator's text and the same in every chat: two prompts under one are the
same when the characters behind it agree.
"""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from sqlalchemy import Connection, select

from heedful.config import Config, InputError
from heedful.snapshot import read_lines, read_records
from heedful.store.database import Store
from heedful.store.incoming import PART, IncomingPrompt, expand_few_shot, full_text, hashed, own_texts
from heedful.store.pii import Names, find_pii, load_names, redact
from heedful.store.pools import PAPER_SHARES, Pool, insert_prompts, pool_of, unit
from heedful.store.records import Entry, chunks, erased_ids, insert, known_ids, select_records
from heedful.store.schema import labelers, prompts
from heedful.types import Labeler, Prompt, Source, Split

TABLE_6 = {source: dict(weights) for source, weights in PAPER_SHARES.items()}


class IntakeConfig(Config):
    """The rules of intake."""

    prefix: int = Field(default=200, ge=1)  # characters; the paper gives no length
    cap: int = Field(default=200, ge=1)  # prompts per user; InstructGPT: 200
    key: Literal["user", "organisation"] = "user"  # of cap and split; section 3.2 says user, appendix A.2 organisation
    split: Literal["assign", "keep"] = "assign"  # keep: the prompts bring their splits
    valid: float = Field(default=0.1, ge=0, le=1)  # share of users
    test: float = Field(default=0.1, ge=0, le=1)  # share of users
    pii: Literal["redact", "drop", "keep"] = "redact"  # training split only; drop: the whole prompt
    names: str | None = None  # module:function that finds people's names in a text; without it names stay
    salt: str = ""  # another one gives another split and other pools
    shares: dict[Source, dict[Pool, float]] = Field(default=TABLE_6)  # weights of the pools, by who wrote the prompt

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.valid + self.test >= 1:
            raise ValueError(f"valid and test take {self.valid + self.test:g} of the users and leave none for training")
        return self


@dataclass
class IntakeReport:
    """What became of `read` prompts: `kept` new ones, `dropped` reason → count; pii kind → number of places found."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    pii: Counter[str] = field(default_factory=Counter)
    prompts_with_pii: int = 0
    resplit: int = 0  # prompts whose user has another split in the store than the rules give, and keeps it
    stored: int = 0  # prompts in the store after few-shot prompts were written out
    demonstrations: int = 0
    unused_answers: int = 0  # a few-shot prompt outside the SFT pool asks its last query; the answer is not kept

    def lines(self) -> list[str]:
        """The report for a person, one fact a line."""
        lines = [f"{self.read} prompts read, {self.kept} kept"]
        lines += [f"  dropped, {reason}: {count}" for reason, count in self.dropped.most_common()]
        if self.prompts_with_pii:
            kinds = ", ".join(f"{kind} {count}" for kind, count in self.pii.most_common())
            lines.append(f"  personal data in {self.prompts_with_pii} training prompts: {kinds}")
        if self.resplit:
            lines.append(f"  in the split their user has in the store, where the rules give another: {self.resplit}")
        if self.demonstrations:
            lines.append(f"  few-shot prompts written out: {self.demonstrations} demonstrations")
        if self.unused_answers:
            lines.append(f"  last answers of few-shot prompts outside the SFT pool, not kept: {self.unused_answers}")
        return [*lines, f"  new in the store: {self.stored} prompts"]


def read_prompts(path: Path, user: str = "") -> list[IncomingPrompt]:
    """Prompts from a .jsonl file (IncomingPrompt's fields; "text" and "user" suffice) or a .txt file (one a line).

    Blank lines separate and are no prompts. The prompts of a text file belong to `user`; without one, each line is
    taken to be of a user of its own.

    Raises:
        InputError: no such file, another suffix, wrong encoding or a broken line, by its number.
    """
    if path.suffix == ".jsonl":
        return read_records(path, IncomingPrompt)
    if path.suffix != ".txt":
        raise InputError(f"{path}: prompts are read from .jsonl or .txt files; rename or convert it")
    rows = [line.strip() for line in read_lines(path)]
    return [IncomingPrompt(id="", text=row, user=user or hashed(row)) for row in rows if row]


def take_in(
    incoming: Iterable[Prompt],
    config: IntakeConfig,
    names: Names | None = None,
    stored_prefixes: Collection[str] = (),
    stored_per_key: Mapping[str, int] | None = None,
    stored_splits: Mapping[str, Split] | None = None,
) -> tuple[list[IncomingPrompt], IntakeReport]:
    """The prompts that pass the rules, in their order, split and cleaned; no database.

    Args:
        names: finds people's names in a text; without it, names stay.
        stored_prefixes: `prefix_of` the prompts there already; stored_per_key: their number by user or organisation;
            stored_splits: the splits of the users there already, which they keep.

    Raises:
        InputError: a prompt without the key, or a user in two splits.
    """
    rows = [p if isinstance(p, IncomingPrompt) else IncomingPrompt(**p.model_dump()) for p in incoming]
    report = IntakeReport(read=len(rows))
    kept = _deduplicate(rows, config, stored_prefixes, report)
    kept = _cap(kept, config, Counter(stored_per_key or {}), report)
    kept = _clean(_split(kept, config, stored_splits or {}, report), config, names, report)
    # Redaction can make two prompts equal, or equal to a redacted one that is stored.
    kept = _deduplicate(kept, config, stored_prefixes, report)
    report.kept, report.dropped = len(kept), +report.dropped
    return kept, report


def prefix_of(text: str, length: int, system: str = "") -> str:
    """What prompts are compared by: the first `length` characters after normalisation, under this `system`; hashed."""
    plain = [" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in (system, text)]
    return hashed(f"{plain[0]}\n{plain[1][:length]}")


def import_prompts(
    store: Store,
    incoming: Iterable[Prompt],
    config: IntakeConfig | None = None,
    pool: Pool | None = None,
    round: int = 0,
    names: Names | None = None,
) -> IntakeReport:
    """Take prompts into the store by the rules, all or nothing; the same file again changes nothing.

    `pool` puts them all in one pool (test prompts too); without it each falls to its own by `config.shares`.
    A few-shot prompt of the SFT pool becomes K prompts with demonstrations; elsewhere it asks its last query.
    `names` comes before the one that the config names.

    Raises:
        InputError: from the rules, or a prompt's id that is taken by different content.
    """
    config = config or IntakeConfig()
    names = names or (load_names(config.names) if config.names else None)
    rows = [p if isinstance(p, IncomingPrompt) else IncomingPrompt(**p.model_dump()) for p in incoming]
    return store.write(lambda connection: import_into(connection, rows, config, pool, round, names))


def import_into(
    connection: Connection,
    rows: Sequence[IncomingPrompt],
    config: IntakeConfig,
    pool: Pool | None = None,
    round: int = 0,
    names: Names | None = None,
) -> IntakeReport:
    """`import_prompts` inside a transaction; `names` are the only ones."""
    fresh, known, erased = _sort_out(connection, rows)
    prefixes, per_key, splits = _stored(connection, [*fresh, *known], config, names)
    kept, report = take_in(fresh, config, names, prefixes, per_key, splits)
    # Prompts that are there already passed dedup and cap then; insert finds them equal or says what changed.
    again = _clean(_split(known, config, splits, IntakeReport()), config, names, IntakeReport())
    _store(connection, [*kept, *again], config, pool, round, report)
    report.read = len(rows)
    report.dropped.update({"erased on request": erased, "already in the store": len(known)})
    report.dropped = +report.dropped
    return report


def few_demonstrations(found: Iterable[tuple[Prompt, Pool | None]], other_mend: str) -> str:
    """A warning where hardly any prompt falls to the SFT pool because none is said to be a labeler's; else empty.

    By table 6's shares customers' prompts, which all are that say nothing of their source, are ranked and trained on.
    """
    training = [(prompt, pool) for prompt, pool in found if prompt.split != "test"]
    number = sum(pool == "sft" for _, pool in training)
    if any(prompt.source == "labeler" for prompt, _ in training) or number >= len(training) / 10:
        return ""
    return (
        f"warning: prompts that people write demonstrations for (pool sft): {number} of {len(training)}, for none is "
        f'marked as a labeler\'s; add "source": "labeler" to those that labelers wrote, or {other_mend}'
    )


def _deduplicate(
    rows: Sequence[IncomingPrompt], config: IntakeConfig, stored: Collection[str], report: IntakeReport
) -> list[IncomingPrompt]:
    seen, kept = set(stored), []
    for row in rows:
        prefix = prefix_of(full_text(row), config.prefix, row.system)
        if prefix not in seen:
            seen.add(prefix)
            kept.append(row)
    report.dropped[f"same first {config.prefix} characters as an earlier prompt"] += len(rows) - len(kept)
    return kept


def _cap(
    rows: Sequence[IncomingPrompt], config: IntakeConfig, per_key: Counter[str], report: IntakeReport
) -> list[IncomingPrompt]:
    kept = []
    for row in rows:
        key = _key(row, config)
        if per_key[key] < config.cap:
            per_key[key] += 1
            kept.append(row)
    report.dropped[f"over {config.cap} of one {config.key}"] += len(rows) - len(kept)
    return kept


def _split(
    rows: Sequence[IncomingPrompt], config: IntakeConfig, stored: Mapping[str, Split], report: IntakeReport
) -> list[IncomingPrompt]:
    split_of: dict[str, Split] = {}
    done = []
    for row in rows:
        # A split that the file itself gives against the store's is refused when it is stored.
        brings = config.split == "keep" and "split" in row.model_fields_set
        rule = row.split if config.split == "keep" else _split_of(_key(row, config), config)
        split = rule if brings else stored.get(row.user, rule)
        report.resplit += split != rule
        if split_of.setdefault(row.user, split) != split:
            mend = "give each user one split" if config.split == "keep" else "use key: user"
            raise InputError(f"prompt {row.id}: user {row.user} falls into {split_of[row.user]} and {split}; {mend}")
        done.append(row.model_copy(update={"split": split}))
    return done


def _split_of(key: str, config: IntakeConfig) -> Split:
    point = unit(key, f"split {config.salt}")
    if point < config.test:
        return "test"
    return "valid" if point < config.test + config.valid else "train"


def _clean(
    rows: Sequence[IncomingPrompt], config: IntakeConfig, names: Names | None, report: IntakeReport
) -> list[IncomingPrompt]:
    kept = []
    for row in rows:
        found: Counter[str] = Counter()

        def clean(text: str, found: Counter[str] = found) -> str:
            spans = find_pii(text, names)
            found.update(span.kind for span in spans)
            return redact(text, spans)

        if config.pii == "keep" or row.split != "train":
            kept.append(row)
            continue
        text = clean(row.text)
        pairs = tuple((clean(query), clean(response)) for query, response in row.examples)
        update = {"text": text, "examples": pairs, "system": clean(row.system)}
        update |= {"instruction": text} if row.instruction else {}
        report.pii.update(found)
        report.prompts_with_pii += bool(found)
        if not found or config.pii == "redact":
            kept.append(row.model_copy(update=update))
    report.dropped["personal data in a training prompt"] += len(rows) - len(kept)
    return kept


def _sort_out(
    connection: Connection, rows: Sequence[IncomingPrompt]
) -> tuple[list[IncomingPrompt], list[IncomingPrompt], int]:
    """The new prompts, those in the store already, and the number of those erased from it on request."""
    ids = sorted({id for row in rows for id in (row.id, f"{row.id}{PART}0")})
    there, gone = known_ids(connection, prompts, ids), set(erased_ids(connection, prompts, ids))
    fresh, known, erased = [], [], 0
    for row in rows:
        own = {row.id, f"{row.id}{PART}0"}
        if own & gone:
            erased += 1
        elif own & there:
            known.append(row)
        else:
            fresh.append(row)
    return fresh, known, erased


def _stored(
    connection: Connection, rows: Sequence[IncomingPrompt], config: IntakeConfig, names: Names | None
) -> tuple[set[str], Counter[str], dict[str, Split]]:
    """Of the store: all prefixes, also those behind a `system` of the rows; how many prompts each user or organisation
    of the rows has; the splits of the rows' users."""
    systems = {row.system for row in rows} - {""}
    openings = systems | {redact(system, find_pii(system, names)) for system in systems}  # as training prompts have it
    prefixes = set()
    for prompt in select_records(connection, Prompt):
        text = full_text(prompt)
        prefixes.add(prefix_of(text, config.prefix))
        prefixes |= {prefix_of(own, config.prefix, opening) for opening, own in own_texts(text, openings)}
    per_key: Counter[str] = Counter()
    column = prompts.c[config.key]
    for chunk in chunks(sorted({_key(row, config) for row in rows})):
        found = connection.execute(select(column, prompts.c.id).where(column.in_(chunk)))
        # The examples of one few-shot prompt count once.
        per_key.update(key for key, _ in {(key, id.partition(PART)[0]) for key, id in found})
    splits: dict[str, Split] = {}
    for chunk in chunks(sorted({row.user for row in rows})):
        found = connection.execute(select(prompts.c.user, prompts.c.split).where(prompts.c.user.in_(chunk)))
        splits.update((user, split) for user, split in found)
    return prefixes, per_key, splits


def _store(
    connection: Connection,
    rows: Sequence[IncomingPrompt],
    config: IntakeConfig,
    pool: Pool | None,
    round: int,
    report: IntakeReport,
) -> None:
    entries, demonstrations = [], []
    for row in rows:
        columns = {"round": round, "organisation": row.organisation or None}
        columns["pool"] = pool or pool_of(row, config.shares, config.salt)
        expanded = [(row.plain(), None)] if not row.instruction else expand_few_shot(row)
        if row.instruction and columns["pool"] != "sft":
            expanded = [(expanded[-1][0].model_copy(update={"id": row.id}), None)]
            report.unused_answers += 1
        for prompt, demonstration in expanded:
            entries.append(Entry(prompt, columns))
            demonstrations += [demonstration] if demonstration else []
    report.stored = insert_prompts(connection, entries)
    authors = sorted({demonstration.labeler for demonstration in demonstrations})
    new = set(authors) - known_ids(connection, labelers, authors)
    insert(connection, [Entry(Labeler(id=author), {"round": round}) for author in sorted(new)])
    report.demonstrations = insert(connection, [Entry(record, {"round": round}) for record in demonstrations])


def _key(row: IncomingPrompt, config: IntakeConfig) -> str:
    key = row.user if config.key == "user" else row.organisation
    if not key:
        raise InputError(f"prompt {row.id} has no {config.key}; add the field or use another key")
    return key
