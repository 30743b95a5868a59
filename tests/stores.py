"""A store of each kind. PostgreSQL: HEEDFUL_TEST_POSTGRES names a server, else one is started where it is installed."""

import getpass
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from heedful.store.database import Store, open_store
from heedful.store.schema import metadata
from small_store import fill


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a server's maintenance database."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if url := os.environ.get("HEEDFUL_TEST_POSTGRES"):
        yield url.replace("postgresql://", "postgresql+psycopg://", 1)
        return
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    initdb = shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))
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
    admin = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS heedful_shared"))
        connection.execute(text("CREATE DATABASE heedful_shared TEMPLATE template0"))
    admin.dispose()
    with open_store(postgres_server.replace("/postgres?", "/heedful_shared?")) as store:
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


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store, on each database."""
    if request.param == "sqlite":
        with open_store(tmp_path / "store.db") as opened:
            yield opened
        return
    shared = request.getfixturevalue("shared_store")
    tables = ", ".join(table.name for table in metadata.sorted_tables)
    with shared.engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables}"))
    yield shared


@pytest.fixture
def filled(store: Store) -> Store:
    """Three prompts of three users (train, train, valid), three responses each, two labelers and a held-out one who
    ranked them all."""
    fill(store)
    return store
