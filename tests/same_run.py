"""Two runs of one recipe, compared byte by byte, the clock's fields aside."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from heedful.run import WALL_CLOCK, read_jsonl
from heedful.store.database import open_store
from heedful.store.export import export_snapshot

OWN = {"lock", "clock", "store.db", "store.db-wal", "store.db-shm", "report.html"}


def files(folder: Path) -> dict[str, Path]:
    """Every file that must be the same, by its place in the run."""
    return {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in OWN}


def content(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        return [{key: value for key, value in row.items() if key not in WALL_CLOCK} for row in read_jsonl(path)]
    if path.name in ("done.json", "results.json", "manifest.json"):
        found = json.loads(path.read_text(encoding="utf-8"))
        return {key: value for key, value in found.items() if key not in ("seconds", "commit", "environment")}
    return path.read_bytes()


def differences(one: Path, other: Path) -> Iterator[str]:
    """The places where the runs differ, their stores included."""
    mine, theirs = files(one), files(other)
    yield from (f"only in one of them: {name}" for name in sorted(mine.keys() ^ theirs.keys()))
    for name in sorted(mine.keys() & theirs.keys()):
        if content(mine[name]) != content(theirs[name]):
            yield name
    if stored(one) != stored(other):
        yield "store.db"


def stored(folder: Path) -> Any:
    with open_store(folder / "store.db") as store:
        return export_snapshot(store, purpose=None, heldout="include")
