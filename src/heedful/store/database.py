"""Opening a store, its transactions, its schema version.

SQLite (a path, the default) runs in WAL mode with immediate write transactions, so readers never wait and writers
queue instead of failing; PostgreSQL is any postgresql:// URL. Nothing outside this module knows which one it is.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, OperationalError

from heedful.config import InputError

T = TypeVar("T")
BUSY_SECONDS = 30
TRIES = 8
CONNECTIONS = 10  # are kept open: as many as the app's threads ask for at once
MIGRATION_LOCK = 0x6865656466  # any number of our own: PostgreSQL's advisory locks are named by number


@dataclass(frozen=True)
class Store:
    """A handle on the database; safe to share between threads."""

    engine: Engine
    turns: RLock = field(default_factory=RLock, compare=False, repr=False)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view: everything read inside stands as it was at the first read."""
        with self._connect(write=False) as connection, connection.begin():
            yield connection

    @contextmanager
    def glance(self) -> Iterator[Connection]:
        """For one statement, which is a view of its own: a server is asked once, not also to begin and to end."""
        connection = self._connect(write=False)
        if self.engine.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        with connection:
            yield connection

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in one transaction, all or nothing, and again when another writer was in the way."""
        for attempt in range(TRIES):
            try:
                with self._turn(), self._connect(write=True) as connection, connection.begin():
                    return work(connection)
            except (OperationalError, IntegrityError):
                # Another writer holds the lock, or inserted the same row between our look and our insert.
                if attempt == TRIES - 1:
                    raise
                time.sleep(0.01 * 2**attempt * (1 + random.random()))
        raise AssertionError("unreachable")

    def take_turns(self, connection: Connection, table: Table) -> None:
        """Let no other transaction that calls this for the table run until this one ends; call it first in `write`.

        Who changes slots by what stands in several of them calls it for works, not for slots: a judgement, which fills
        its own slot alone, waits for nobody then.
        """
        if self.engine.dialect.name == "postgresql":  # SQLite's writers take turns anyway
            connection.exec_driver_sql(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE")

    def survey(self, connection: Connection, table: Table) -> None:
        """Have the database count what the table holds; call it after many rows came in at once.

        Of a table that it takes for empty, PostgreSQL sorts all rows to find the first.
        """
        if self.engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"ANALYZE {table.name}")

    def _turn(self) -> AbstractContextManager[Any]:
        """SQLite lets writers look again after ever longer sleeps; threads of one process need not."""
        return self.turns if self.engine.dialect.name == "sqlite" else nullcontext()

    def _connect(self, write: bool) -> Connection:
        return self.engine.connect().execution_options(heedful_write=write, heedful_settings={})

    def close(self) -> None:
        self.engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_store(where: str | Path) -> Store:
    """The store at a path (SQLite) or database URL, created or migrated to this version's schema; what an older heedful
    wrote is backed up first.

    Raises:
        InputError: the database cannot be reached, holds something else, or was written by a newer heedful; the backup
            cannot be written.
    """
    store = connect(where)
    try:
        migrate(store, keep=True)
    except BaseException:
        store.close()
        raise
    return store


def connect(where: str | Path) -> Store:
    """A handle without creating or migrating anything."""
    text = str(where)
    if "://" not in text:
        try:
            Path(text).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{where}: cannot make the folder for the store: {error.strerror}") from None
        text = f"sqlite:///{text}"
    try:
        url = make_url(text)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        # PostgreSQL's default level would let the statements of one transaction see different moments.
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"}
        if url.get_backend_name() == "sqlite":
            options = {"connect_args": {"timeout": BUSY_SECONDS}}
        engine = create_engine(url, pool_size=CONNECTIONS, **options)
    except ModuleNotFoundError as error:
        raise InputError(f"{where}: {error.name} is not installed; pip install 'heedful[postgres]'") from None
    except ArgumentError:
        raise InputError(f"{where}: neither a path nor a database URL") from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return Store(engine)


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; _begin_sqlite sends it
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("heedful_write")
    # A transaction that reads first and writes later cannot wait for its turn: it would have to fail.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def migrate(store: Store, revision: str = "head", keep: bool = False) -> None:
    """Create or upgrade the schema up to `revision`; a second process waits for the first. `keep`: back up before an
    older schema is upgraded, beside an SQLite file, into the current folder for a server's database.

    Raises:
        InputError: unreachable, not a heedful store, or newer than this version.
    """

    def upgrade(connection: Connection) -> None:
        config = _alembic()
        scripts = ScriptDirectory.from_config(config)
        known = {script.revision for script in scripts.walk_revisions()}
        found = schema_revision(connection)
        if found is None and inspect(connection).get_table_names():
            raise InputError(f"{_name(store)} holds tables of something else; choose another place for the store")
        for wanted in (found, revision):
            if wanted not in (None, "head") and wanted not in known:
                raise InputError(f"{_name(store)} has schema {wanted}, written by a newer heedful; update heedful")
        if keep and found not in (None, scripts.get_current_head()):
            _keep(store, str(found))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    try:
        with _migration_lock(store.engine):
            store.write(upgrade)
    except DatabaseError as error:
        raise unreachable(store, error) from None


def _keep(store: Store, revision: str) -> None:
    from heedful.store.backup import backup  # which opens stores itself

    place = Path(store.engine.url.database or "store")
    folder = place.parent if store.engine.dialect.name == "sqlite" else Path()
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{place.name}.schema-{revision}.{moment}.jsonl.gz"
    try:
        backup(store, path)
    except OSError as error:
        raise InputError(
            f"{_name(store)} is of an older heedful, and its backup before the upgrade cannot be written to {path} "
            f"({error.strerror}); make room there, or start where you may write"
        ) from None
    logging.getLogger(__name__).warning("%s is of an older heedful and is upgraded; backup: %s", _name(store), path)


def is_of_this_version(connection: Connection) -> bool:
    """Whether the schema is the one that the code knows."""
    return schema_revision(connection) == ScriptDirectory.from_config(_alembic()).get_current_head()


def unreachable(store: Store, error: DatabaseError) -> InputError:
    """The database's complaint in one line."""
    return InputError(f"{_name(store)} cannot be opened as a store: {' '.join(str(error.orig).split())}")


@contextmanager
def _migration_lock(engine: Engine) -> Iterator[None]:
    """One process migrates at a time; SQLite's immediate transactions see to that by themselves."""
    if engine.dialect.name != "postgresql":
        yield
        return
    with engine.begin() as connection:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        yield


def schema_revision(connection: Connection) -> str | None:
    """The schema's revision; None when there is none yet."""
    return MigrationContext.configure(connection).get_current_revision()


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _name(store: Store) -> str:
    url = store.engine.url
    return url.database or "" if url.drivername == "sqlite" else url.render_as_string(hide_password=True)


def timestamp(moment: datetime | None = None) -> str:
    """The moment (now, when None) as the store writes it; a moment without a zone is local time."""
    moment = datetime.now(UTC) if moment is None else moment.astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
