"""Opening, migrating, transactions, two processes at once."""

import multiprocessing
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, create_engine, func, select, text

from heedful.config import InputError
from heedful.store.database import Store, open_store
from heedful.store.labels import add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt
from heedful.store.schema import labelers, metadata, rankings
from heedful.types import Labeler, Prompt, Response
from small_store import ranking


def test_the_migrations_make_the_tables_that_the_code_uses(store: Store) -> None:
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_opening_again_keeps_what_is_there(new_place: Callable[[], str]) -> None:
    place = new_place()
    with open_store(place) as store:
        add_labeler(store, Labeler(id="ann"))
    with open_store(place) as store:
        assert add_labeler(store, Labeler(id="ann")) == 0


def test_a_newer_schema_is_refused(new_place: Callable[[], str]) -> None:
    place = new_place()
    with open_store(place) as store, store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InputError, match=r"9999.*newer heedful"):
        open_store(place)


def test_another_programs_database_is_left_alone(new_place: Callable[[], str]) -> None:
    place = new_place()
    engine = create_engine(place if "://" in place else f"sqlite:///{place}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (x INTEGER)"))
    engine.dispose()
    with pytest.raises(InputError, match="something else"):
        open_store(place)


def test_places_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database " * 200)
    with pytest.raises(InputError, match=r"notes\.txt cannot be opened"):
        open_store(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"neither a path nor a database URL|not installed"):
        open_store("nonsense://x/y")
    with pytest.raises(InputError, match="cannot make the folder"):
        open_store(tmp_path / "notes.txt" / "store.db")


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(InputError, match=r"\*\*\*@.*cannot be opened") as error:
        open_store(f"postgresql://someone:secret@/db?host={tmp_path}")
    assert "secret" not in str(error.value)


def test_a_failed_write_leaves_nothing(store: Store) -> None:
    def work(connection: Connection) -> None:
        connection.execute(
            metadata.tables["labelers"].insert().values(id="x", group="train", kind="person", round=0, created="")
        )
        raise RuntimeError

    with pytest.raises(RuntimeError):
        store.write(work)
    assert add_labeler(store, Labeler(id="x")) == 1


def insert_many(place: str, who: str, start: Barrier) -> None:
    start.wait()
    with open_store(place) as store:
        add_prompt(store, Prompt(id="p0", text="t", user="u"))
        add_response(store, *(Response(id=f"r0{i}", prompt_id="p0", text="x") for i in range(3)))
        add_labeler(store, Labeler(id=who), Labeler(id="both"))
        for number in range(40):
            add_ranking(store, ranking(f"{who}-{number}", 0, who))
            add_ranking(store, ranking(f"shared-{number}", 0, "both"))


def test_two_processes_make_one_store_and_lose_and_double_nothing(new_place: Callable[[], str]) -> None:
    place = new_place()
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    workers = [context.Process(target=insert_many, args=(place, who, start)) for who in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    with open_store(place) as store, store.read() as connection:
        counts = connection.execute(select(rankings.c.labeler, func.count()).group_by(rankings.c.labeler))
        assert dict(map(tuple, counts)) == {"a": 40, "b": 40, "both": 40}


def test_a_writer_waits_for_its_turn_before_it_looks(tmp_path: Path) -> None:
    """On SQLite a look before the turn would be stale, and the whole transaction would have to run again."""
    looks: list[int] = []
    inside, waiting = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        inside.set()
        waiting.wait(5)
        time.sleep(0.2)
        connection.execute(labelers.insert().values(id="first", group="train", kind="person", round=0, created=""))

    def quick(connection: Connection) -> None:
        looks.append(connection.execute(select(func.count()).select_from(labelers)).scalar_one())
        connection.execute(labelers.insert().values(id="second", group="train", kind="person", round=0, created=""))

    with open_store(tmp_path / "s.db") as store:
        other = threading.Thread(target=store.write, args=(slow,))
        other.start()
        inside.wait(5)
        waiting.set()
        store.write(quick)
        other.join()
    assert looks == [1]


def test_readers_see_one_moment(filled: Store) -> None:
    with filled.read() as connection:
        before = connection.execute(select(func.count()).select_from(rankings)).scalar()
        add_ranking(filled, ranking("new", 0, "ann"))
        assert connection.execute(select(func.count()).select_from(rankings)).scalar() == before
    with filled.read() as connection:
        assert connection.execute(select(func.count()).select_from(rankings)).scalar() == before + 1
