"""Files of public sets in their own form: where they lie, and their rows. Local files come first, then the hub.

A set's file is looked for in the data folder and in the folders directly below it: `RTE/val.jsonl` is found in
`data/RTE/val.jsonl` and in `data/superglue/RTE/val.jsonl`.
"""

import csv
import gzip
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from heedful.config import InputError

Row = dict[str, Any]
T = TypeVar("T")
_notes: ContextVar[dict[str, str] | None] = ContextVar("_notes", default=None)


@contextmanager
def noting() -> Iterator[dict[str, str]]:
    """Everything that is read within, by its place: the SHA-256 of each file, and of a hub set's rows."""
    notes: dict[str, str] = {}
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def _note(place: str, content: bytes) -> None:
    notes = _notes.get()
    if notes is not None:
        notes[place] = hashlib.sha256(content).hexdigest()


class Wanted(NamedTuple):
    """A file that a set needs, where the original is to be had, and its data set on the hub ("" for none)."""

    file: str  # its place, as the original archive has it; alternatives parted by |
    source: str
    hub: str = ""  # name[:configuration]:split


def find(data: Path | None, wanted: Wanted) -> Path | None:
    """The file's place in the data folder, or one folder deeper; None where it is not there."""
    if data is None:
        return None
    for name in wanted.file.split("|"):
        for path in (data / name, *sorted(data.glob(f"*/{name}"))):
            if path.exists():
                return path
    return None


def need(data: Path | None, wanted: Wanted) -> Path:
    """As `find`.

    Raises:
        InputError: it is not there; says what file of what source is wanted.
    """
    path = find(data, wanted)
    if path is None:
        names = " or ".join(wanted.file.split("|"))
        where = f"{data}: {names} is not there" if data is not None else f"{names} is wanted: name its folder by --data"
        raise InputError(f"{where}; {wanted.source}")
    return path


def rows(data: Path | None, wanted: Wanted) -> tuple[list[Row], str]:
    """Every row of the set and where it came from: a local file where there is one, else the hub.

    Raises:
        InputError: neither is to be had, or the file is broken.
    """
    path = find(data, wanted)
    if path is None and wanted.hub and data is None:
        return hub_rows(wanted), f"hub {wanted.hub}"
    path = need(data, wanted)
    return read_rows(path), str(path)


def read_rows(path: Path) -> list[Row]:
    """Rows of a CSV, TSV, JSON-lines or JSON file, by its suffix; `.gz` is unpacked. A JSON object is one row.

    Raises:
        InputError: it is not what its suffix says.
    """
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    text = read_text(path)
    try:
        if suffix in (".csv", ".tsv"):
            return list(_table(text, "\t" if suffix == ".tsv" else ","))
        if suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        found = json.loads(text)
        return found if isinstance(found, list) else [found]
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: not readable as {suffix[1:]}: {error}; fetch the original file again") from None


def _table(text: str, delimiter: str) -> Iterator[Row]:
    """Rows by the names in the first line; tab-separated files have no quotes."""
    csv.field_size_limit(sys.maxsize)
    file, tabs = io.StringIO(text, newline=""), delimiter == "\t"
    quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    reader = csv.DictReader(file, delimiter=delimiter, quoting=quoting, strict=True)
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num} has another number of columns than the first")
        yield row


def read_text(path: Path) -> str:
    """The file's text, unpacked where it ends in .gz.

    Raises:
        InputError: not UTF-8, or a broken archive.
    """
    try:
        raw = path.read_bytes()
        _note(str(path), raw)
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{path}: not readable as text: {error}; fetch the original file again") from None


def hub_rows(wanted: Wanted) -> list[Row]:
    """The rows of a data set on the hub, by the library `datasets`.

    Raises:
        InputError: the library is not installed, or the data set is not to be had.
    """
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise InputError(
            f"{wanted.file} from the hub needs datasets; pip install 'heedful[hub]', or name the folder of the files"
        ) from None
    name, *configuration, split = wanted.hub.split(":")
    try:
        found = [dict(row) for row in load_dataset(name, *configuration, split=split)]
    except Exception as error:  # the library raises of everything: network, names, broken files
        line = " ".join(str(error).split())[:200]
        raise InputError(f"hub data set {wanted.hub} is not to be had: {line}; {wanted.source}") from None
    _note(f"hub {wanted.hub}", json.dumps(found, sort_keys=True, default=str).encode())
    return found


def columns(found: list[Row], names: tuple[str, ...], where: str) -> list[Row]:
    """The rows, once each is known to have these columns.

    Raises:
        InputError: one lacks one of them, or there are no rows.
    """
    if not found:
        raise InputError(f"{where} holds no rows; fetch the original file again")
    for i, row in enumerate(found):
        missing = [name for name in names if name not in row]
        if missing:
            raise InputError(f"{where}: row {i + 1} has no {missing[0]!r}; it is not the original file of the set")
    return found


def each(found: list[Row], item: Callable[[Row, int], T], where: str) -> list[T]:
    """item(row, n) of every row, n from 0.

    Raises:
        InputError: a row is not as the set's own are: a value is missing or of another kind.
    """
    made = []
    for n, row in enumerate(found):
        try:
            made.append(item(row, n))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            line = f"{type(error).__name__}: {error}"
            raise InputError(f"{where}: row {n + 1} is not as in the original file of the set ({line})") from None
    return made
