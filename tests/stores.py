"""A store of each kind. PostgreSQL: HEEDFUL_TEST_POSTGRES names a server, else one is started where it is installed."""

import getpass
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import create_engine, text

from heedful.store import accounts, database
from heedful.store.database import Store, connect, open_store
from heedful.store.schema import metadata
from small_store import fill

SERVER = "HEEDFUL_TEST_POSTGRES"


@pytest.fixture(scope="module", autouse=True)
def quick_hashes() -> Iterator[None]:
    """Passwords that are quick to hash: that argon2 is slow is its point, not these tests'."""
    with pytest.MonkeyPatch.context() as patch:
        quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        patch.setattr(accounts, "HASHER", quick)
        patch.setattr(accounts, "NOBODY", quick.hash("nobody's password"))
        yield


@pytest.fixture(scope="module", autouse=True)
def quick_disk() -> Iterator[None]:
    """Neither SQLite's commits nor files wait for the disk: no test cuts the power."""
    prepare = database._prepare_sqlite

    def without_waiting(connection: Any, record: Any) -> None:
        prepare(connection, record)
        connection.execute("PRAGMA synchronous=OFF")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "_prepare_sqlite", without_waiting)
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def installed_postgres() -> str | None:
    """The command that makes a server's folder, where one is installed."""
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    return shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server's maintenance database."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if url := os.environ.get(SERVER):
        yield url.replace("postgresql://", "postgresql+psycopg://", 1)
        return
    initdb = installed_postgres()
    if initdb is None:
        pytest.skip("no PostgreSQL server is installed")
    binaries = Path(initdb).resolve().parent
    user = "postgres" if os.getuid() == 0 else getpass.getuser()  # the server refuses to run as root
    home = Path(tempfile.mkdtemp(prefix="heedful-pg-"))
    as_user = {}
    if os.getuid() == 0:
        shutil.chown(home, user)
        as_user = {"user": user}
    data = home / "data"
    options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off -c max_connections=40"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": home, **as_user}
    subprocess.run([binaries / "initdb", "-D", data, "-U", user, "-A", "trust", "-E", "UTF8", "--no-sync"], **quiet)
    subprocess.run([binaries / "pg_ctl", "-D", data, "-o", options, "-l", home / "log", "-w", "start"], **quiet)
    try:
        yield f"postgresql+psycopg://{user}@/postgres?host={home}"
    finally:
        subprocess.run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_store(postgres_server: str) -> Iterator[Store]:
    """One store on PostgreSQL for the tests that only need an empty one: emptying is quicker than creating."""
    name = f"heedful_shared_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    admin.dispose()
    with open_store(postgres_server.replace("/postgres?", f"/{name}?")) as store:
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """A function that gives a fresh, empty place for a store at each call."""
    made: list[str] = []
    if request.param == "sqlite":
        yield lambda: made.append("") or str(tmp_path / f"store{len(made)}.db")
        return
    server = request.getfixturevalue("postgres_server")
    admin = create_engine(server, isolation_level="AUTOCOMMIT")

    def create() -> str:
        name = f"heedful_{uuid.uuid4().hex[:12]}"
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
        made.append(name)
        return server.replace("/postgres?", f"/{name}?")

    yield create
    with admin.connect() as connection:
        for name in made:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


Filling = Callable[[Store], None]


@pytest.fixture(scope="session")
def sqlite_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Filling, Path], Store]:
    """Opens a copy, at a path, of the SQLite store that a function filled once: migrating and filling take longest."""

    @cache
    def original(filling: Filling) -> Path:
        path = tmp_path_factory.mktemp("stores") / f"{filling.__name__}.db"
        with open_store(path) as opened:
            filling(opened)
        return path

    return lambda filling, path: connect(shutil.copyfile(original(filling), path))


@pytest.fixture(scope="session")
def postgres_again(shared_store: Store) -> Callable[[Filling], Store]:
    """Brings the shared store back to what a function made of an empty one, which is kept in tables beside its own."""
    tables = [table.name for table in metadata.sorted_tables]
    empty = [f"DELETE FROM {table}" for table in reversed(tables)]  # quicker than TRUNCATE, where little is in it

    def run(statements: list[str]) -> None:
        with shared_store.engine.begin() as connection:
            connection.exec_driver_sql("; ".join(statements))

    @cache
    def fill_again(filling: Filling) -> list[str]:
        run(empty)
        filling(shared_store)
        beside = f"kept_{filling.__name__}"
        run([f"CREATE SCHEMA {beside}", *(f"CREATE TABLE {beside}.{t} AS TABLE public.{t}" for t in tables)])
        return [f"INSERT INTO public.{t} SELECT * FROM {beside}.{t}" for t in tables]

    def again(filling: Filling) -> Store:
        run([*empty, *fill_again(filling)])
        return shared_store

    return again


@pytest.fixture(params=["sqlite", "postgresql"])
def store_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Filling], Store]]:
    """The test's store on each database, as a function fills an empty one."""
    opened: list[Store] = []

    def fill_store(filling: Filling) -> Store:
        assert not opened, "a test has one store"
        if request.param == "sqlite":
            opened.append(request.getfixturevalue("sqlite_copy")(filling, tmp_path / "store.db"))
        else:
            opened.append(request.getfixturevalue("postgres_again")(filling))
        return opened[0]

    yield fill_store
    if request.param == "sqlite":
        for each in opened:
            each.close()


def nothing(store: Store) -> None:
    """An empty store."""


@pytest.fixture
def store(store_of: Callable[[Filling], Store]) -> Store:
    """An empty store, on each database."""
    return store_of(nothing)


@pytest.fixture
def filled(store_of: Callable[[Filling], Store]) -> Store:
    """Three prompts of three users (train, train, valid), three responses each, two labelers and a held-out one who
    ranked them all."""
    return store_of(fill)
