"""A snapshot: a frozen, hashed dataset on disk, the only thing training reads.

A folder of JSON-lines tables (one file per record type, each row a `heedful.types` record) and `snapshot.json` with
their hash, their sizes and the counts of everything that was left out. Nothing in it depends on when it was written,
so equal data has an equal hash.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from heedful.config import InputError, said
from heedful.principles import Principle, PrincipleRanking
from heedful.types import Demonstration, Document, Labeler, Prompt, Ranking, Rating, Record, Response, Split

R = TypeVar("R", bound=Record)

TABLES: dict[str, type[Record]] = {
    "prompts": Prompt,
    "responses": Response,
    "labelers": Labeler,
    "demonstrations": Demonstration,
    "rankings": Ranking,
    "ratings": Rating,
    "documents": Document,
    "principles": Principle,
    "principle_rankings": PrincipleRanking,
}
LATER = ("principles", "principle_rankings")  # came after the first hashes, and count where there are rows


@dataclass(frozen=True)
class Snapshot:
    """A dataset in memory; `dropped` says what was left out and why, reason → count."""

    prompts: tuple[Prompt, ...] = ()
    responses: tuple[Response, ...] = ()
    labelers: tuple[Labeler, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    rankings: tuple[Ranking, ...] = ()
    ratings: tuple[Rating, ...] = ()
    documents: tuple[Document, ...] = ()
    principles: tuple[Principle, ...] = ()
    principle_rankings: tuple[PrincipleRanking, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    hash: str = ""

    def prompt_by_id(self) -> dict[str, Prompt]:
        return {prompt.id: prompt for prompt in self.prompts}

    def response_by_id(self) -> dict[str, Response]:
        return {response.id: response for response in self.responses}

    def labeler_by_id(self) -> dict[str, Labeler]:
        return {labeler.id: labeler for labeler in self.labelers}

    def prompts_of(self, split: Split) -> list[Prompt]:
        return [prompt for prompt in self.prompts if prompt.split == split]

    def demonstrations_of(self, split: Split) -> list[tuple[Prompt, Demonstration]]:
        """Each demonstration of the split's prompts, beside its prompt."""
        prompts = self.prompt_by_id()
        joined = ((prompts[d.prompt_id], d) for d in self.demonstrations)
        return [(prompt, d) for prompt, d in joined if prompt.split == split]

    def rankings_of(self, split: Split, group: str | None = None) -> list[tuple[Prompt, list[Response], Ranking]]:
        """Each ranking of the split's prompts with its prompt and responses; `group` keeps one labeler group's."""
        prompts, responses, labelers = self.prompt_by_id(), self.response_by_id(), self.labeler_by_id()
        return [
            (prompts[ranking.prompt_id], [responses[id] for id in ranking.responses], ranking)
            for ranking in self.rankings
            if prompts[ranking.prompt_id].split == split and group in (None, labelers[ranking.labeler].group)
        ]

    def principle_rankings_of(self, split: Split) -> list[tuple[Prompt, list[Response], PrincipleRanking]]:
        """Each ranking under principles of the split's prompts, with its prompt and responses."""
        prompts, responses = self.prompt_by_id(), self.response_by_id()
        return [
            (prompts[ranking.prompt_id], [responses[id] for id in ranking.responses], ranking)
            for ranking in self.principle_rankings
            if prompts[ranking.prompt_id].split == split
        ]

    def asked_for(self, ranking: PrincipleRanking) -> list[str]:
        """The texts of the principles the ranking was made under, negated ones by their negative definition.

        Raises:
            InputError: the snapshot lacks one of them in the ranking's language.
        """
        known = {(one.id, one.language): one for one in self.principles}
        if lacking := [id for id, _ in ranking.principles if (id, ranking.language) not in known]:
            raise InputError(f"{ranking.id}: no principle {lacking[0]} in {ranking.language!r}; add it to principles")
        return [known[id, ranking.language].text(negated) for id, negated in ranking.principles]

    def alone(self, id: str) -> "Snapshot":
        """One ranking with its prompt, its responses, its labeler, and the principles where it is under some."""
        plain = tuple(one for one in self.rankings if one.id == id)
        under = tuple(one for one in self.principle_rankings if one.id == id)
        one, responses = (plain or under)[0], self.response_by_id()
        return Snapshot(
            prompts=(self.prompt_by_id()[one.prompt_id],),
            responses=tuple(responses[id] for id in one.responses),
            labelers=(self.labeler_by_id()[one.labeler],),
            rankings=plain,
            principles=self.principles if under else (),
            principle_rankings=under,
        )

    def documents_of(self, split: Split) -> list[str]:
        return [document.text for document in self.documents if document.split == split]


def write_snapshot(folder: Path, snapshot: Snapshot) -> Snapshot:
    """Write the snapshot, all or nothing; returns it with its hash.

    Raises:
        InputError: the folder already holds a different snapshot.
    """
    hashed = hashlib.sha256()
    texts = {name: _lines(getattr(snapshot, name)) for name in TABLES}
    for name, text in texts.items():
        if text or name not in LATER:
            hashed.update(f"{name}\n{text}".encode())
    digest = hashed.hexdigest()
    if folder.exists():
        if read_snapshot(folder).hash != digest:
            raise InputError(f"{folder} holds another snapshot; choose a new folder")
    else:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, text in texts.items():
            if text:
                (partial / f"{name}.jsonl").write_text(text, encoding="utf-8")
        about = {
            "hash": digest,
            "rows": {n: t.count("\n") for n, t in texts.items()},
            "dropped": dict(snapshot.dropped),
        }
        (partial / "snapshot.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder)
    return Snapshot(**{name: getattr(snapshot, name) for name in TABLES}, dropped=snapshot.dropped, hash=digest)


def read_snapshot(folder: Path) -> Snapshot:
    """The snapshot in `folder`.

    Raises:
        InputError: not a snapshot, a broken line (named by file and number), or content that does not match its hash.
    """
    try:
        about = json.loads((folder / "snapshot.json").read_text(encoding="utf-8"))
        known, dropped = about["hash"], about["dropped"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{folder} is not a snapshot: snapshot.json is missing or broken") from None
    hashed = hashlib.sha256()
    tables: dict[str, tuple[Record, ...]] = {}
    for name, record in TABLES.items():
        path = folder / f"{name}.jsonl"
        raw = path.read_bytes() if path.exists() else b""
        if raw or name not in LATER:
            hashed.update(f"{name}\n".encode() + raw)
        tables[name] = tuple(read_records(path, record)) if raw else ()
    if hashed.hexdigest() != known:
        raise InputError(f"{folder}: content does not match its hash; write the snapshot again")
    return Snapshot(**tables, dropped=dropped, hash=known)  # type: ignore[arg-type]


def read_records(path: Path, record: type[R]) -> list[R]:
    """The JSON-lines file as records.

    Raises:
        InputError: a missing file, wrong encoding, or a broken line, named by its number.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            try:
                rows.append(record.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise InputError(f"{path}, line {number}: {where + ': ' if where else ''}{said(first)}") from None
    return rows


def read_lines(path: Path) -> list[str]:
    """The file's lines, cut at line feeds alone: a text may hold any of Unicode's other line separators.

    Raises:
        InputError: a missing file or wrong encoding, named by its line.
    """
    try:
        raw = path.read_bytes()
        return raw.decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the file as UTF-8") from None


def _lines(records: Iterable[Record]) -> str:
    return "".join(record.model_dump_json() + "\n" for record in records)
