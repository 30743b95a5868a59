"""Backup and restore: everything, tombstones and superseded rows included, from either database to either."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from heedful.config import InputError
from heedful.store.backup import backup, restore
from heedful.store.database import Store, open_store
from heedful.store.erase import erase_user
from heedful.store.labels import add_demonstration, add_labeler, add_rating, edit
from heedful.store.pools import add_prompt
from heedful.store.schema import metadata
from heedful.types import Demonstration, Labeler, Prompt, Rating
from small_store import fill, ranking


def contents(store: Store) -> dict[str, list]:
    with store.read() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
        }


def enrich(store: Store) -> None:
    edit(store, ranking("aaa", 0, "ann", (3, 2, 1)), "ann-0")  # sorts before what it supersedes
    edit(store, ranking("zzz", 0, "ann", (3, 1, 1)), "aaa")
    add_prompt(
        store, Prompt(id="f", text="\n\u2028'\"", user="w", kind="few_shot", examples=(("a", "b"),), task={"t": [1.5]})
    )
    add_demonstration(store, Demonstration(id="d", prompt_id="f", text="x", labeler="bob", seconds=1 / 3))
    add_rating(store, Rating(id="g", prompt_id="p0", response_id="r00", labeler="bob", overall=1, flags={"y": False}))
    erase_user(store, "u1")


def test_round_trip(filled: Store, new_place: Callable[[], str], tmp_path: Path) -> None:
    enrich(filled)
    before = contents(filled)
    assert len(before["tombstones"]) == 7 and len(before["rankings"]) == 8
    counts = backup(filled, tmp_path / "b.gz")
    place = new_place()
    assert restore(tmp_path / "b.gz", place) == counts
    with open_store(place) as again:
        assert contents(again) == before
        backup(again, tmp_path / "c.gz")
    assert gzip.decompress((tmp_path / "b.gz").read_bytes()) == gzip.decompress((tmp_path / "c.gz").read_bytes())
    with pytest.raises(InputError, match="is not empty"):
        restore(tmp_path / "b.gz", place)


def test_it_sees_one_moment_while_others_write(filled: Store, tmp_path: Path) -> None:
    with filled.read():
        backup(filled, tmp_path / "b.gz")
        add_labeler(filled, Labeler(id="new"))
    restore(tmp_path / "b.gz", tmp_path / "r.db")
    with open_store(tmp_path / "r.db") as again:
        assert add_labeler(again, Labeler(id="new")) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "swap", "drop", "other", "newer", "missing"])
def test_a_damaged_backup_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "b.gz"
    with open_store(tmp_path / "s.db") as store:
        fill(store)
        backup(store, path)
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    if damage == "flip":
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        path.write_bytes(raw)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "swap":
        path.write_bytes(gzip.compress(b"".join([lines[0], lines[2], lines[1], *lines[3:]])))
    elif damage == "drop":
        path.write_bytes(gzip.compress(b"".join(lines[:-2] + lines[-1:])))
    elif damage == "other":
        path.write_bytes(b"PK nothing of ours")
    elif damage == "newer":
        path.write_bytes(newer(lines))
    else:
        path.unlink()
    message = {"missing": "no such file", "newer": "newer heedful"}.get(damage, "damaged")
    with pytest.raises(InputError, match=message):
        restore(path, tmp_path / "r.db")


def newer(lines: list[bytes]) -> bytes:
    """The backup as a later version would write it, checksum and all."""
    import hashlib
    import json

    body = b"".join([lines[0].replace(b'"0003"', b'"0099"'), *lines[1:-1]])
    return gzip.compress(body + json.dumps({"sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n")


def test_other_tables_in_the_target_are_safe(new_place: Callable[[], str], tmp_path: Path) -> None:
    with open_store(tmp_path / "s.db") as store:
        backup(store, tmp_path / "b.gz")
    place = new_place()
    with open_store(place) as store, store.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    with pytest.raises(InputError, match="is not empty"):
        restore(tmp_path / "b.gz", place)
