"""What servers replied, kept: nothing is paid for twice, and what it cost is on record.

One SQLite file (WAL). A call's key is the hash of the model, the parameters and the prompt, so the same question finds
its reply again behind another address, in another run, or after a crash. The raw reply is kept, so reading it better
later costs nothing. Keys and prompts themselves are not kept, and neither is the API key.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from heedful.config import InputError

KIND = 0x68656C64  # names our files among SQLite's (PRAGMA application_id)
VERSION = 1
BUSY_SECONDS = 30
BYTES_PER_TOKEN = 4.0  # of English text, until a server has counted some
SCHEMA = """
CREATE TABLE replies (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    reply TEXT NOT NULL,
    prompt_bytes INTEGER NOT NULL,
    prompt_tokens INTEGER,
    new_tokens INTEGER,
    made REAL NOT NULL,
    seconds REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE servers (
    address TEXT NOT NULL,
    model TEXT NOT NULL,
    able TEXT NOT NULL,
    probed REAL NOT NULL,
    PRIMARY KEY (address, model)
) WITHOUT ROWID;
"""


class Spent(NamedTuple):
    """Calls that were answered and their tokens; of `uncounted` ones the server told no number."""

    calls: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    uncounted: int = 0

    def plus(self, other: "Spent") -> "Spent":
        return Spent(*(a + b for a, b in zip(self, other, strict=True)))

    def with_call(self, prompt_tokens: int | None, new_tokens: int | None) -> "Spent":
        counted = prompt_tokens is not None and new_tokens is not None
        return Spent(
            self.calls + 1,
            self.prompt_tokens + (prompt_tokens or 0),
            self.new_tokens + (new_tokens or 0),
            self.uncounted + (not counted),
        )


class Prices(NamedTuple):
    """What a million tokens cost, in whatever currency the user thinks in."""

    prompt: float
    new: float

    def cost(self, prompt_tokens: float, new_tokens: float) -> float:
        return (self.prompt * prompt_tokens + self.new * new_tokens) / 1e6


def read_prices(text: str) -> Prices:
    """Prices as a person writes them: "0.15/0.60", of a million tokens read and written.

    Raises:
        InputError: it is written otherwise.
    """
    parts = text.split("/")
    try:
        prompt, new = map(float, parts)
    except ValueError:
        prompt = new = -1.0
    if not (0 <= prompt < float("inf") and 0 <= new < float("inf")):
        raise InputError(f"--server price={text}: write what a million tokens read and written cost, such as 0.15/0.60")
    return Prices(prompt, new)


class Estimate(NamedTuple):
    """What calls that were not made yet will take: at most `new_tokens`, about `prompt_tokens`."""

    calls: int
    kept: int  # answered before: they cost nothing
    prompt_tokens: float
    new_tokens: int

    def plus(self, other: "Estimate") -> "Estimate":
        return Estimate(
            self.calls + other.calls,
            self.kept + other.kept,
            self.prompt_tokens + other.prompt_tokens,
            self.new_tokens + other.new_tokens,
        )


def call_key(route: str, body: Mapping[str, Any], turn: int = 0) -> str:
    """The name of a call: a hash of its model, parameters and prompt, all of which stand in the body.

    `turn` tells apart calls that are equal and meant to be made several times.
    """
    text = json.dumps([route, body, turn], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class Ledger:
    """The file; for one thread."""

    def __init__(self, path: str | Path = ":memory:") -> None:
        """Raises InputError where the file cannot be opened or is no ledger."""
        try:
            if str(path) != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            self._prepare(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; choose another file for the ledger") from None
        except sqlite3.Error as error:
            raise InputError(f"{path}: {error}; name a ledger of heedful, or a file that is not there yet") from None

    def _prepare(self, path: str | Path) -> None:
        self._file.execute("BEGIN IMMEDIATE")
        [kind], [version] = (
            self._file.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
        )
        [tables] = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not (kind or tables):
            for statement in SCHEMA.split(";"):
                self._file.execute(statement)
            self._file.execute(f"PRAGMA application_id = {KIND}")
            self._file.execute(f"PRAGMA user_version = {VERSION}")
        self._file.execute("COMMIT")
        if (kind, version) != (KIND, VERSION) and (kind or tables):
            self._file.close()
            why = "of another version of heedful" if kind == KIND else "another program's, not a ledger"
            raise InputError(f"{path}: {why}; choose another file for the ledger")
        self._file.execute("PRAGMA journal_mode = WAL")
        self._file.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may lose the last replies, no more

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def reply(self, key: str) -> str | None:
        """The raw reply to the call of that key; None where there was none yet."""
        row = self._file.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def knows(self, key: str) -> bool:
        return self._file.execute("SELECT 1 FROM replies WHERE key = ?", (key,)).fetchone() is not None

    def keep(
        self,
        key: str,
        model: str,
        reply: str,
        prompt_bytes: int,
        prompt_tokens: int | None,
        new_tokens: int | None,
        seconds: float,
    ) -> None:
        """Keep a reply; of two to one call, which two processes may have got, the first stays.

        Raises:
            InputError: the file cannot be written.
        """
        row = (key, model, reply, prompt_bytes, prompt_tokens, new_tokens, time.time(), seconds)
        try:
            self._file.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise InputError(f"the ledger: {error}; mend that and run the same command again") from None

    def spent(self, model: str | None = None) -> Spent:
        """What is on record, of one model or of all."""
        found = self._file.execute(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(new_tokens), 0), "
            "coalesce(sum(prompt_tokens IS NULL OR new_tokens IS NULL), 0) FROM replies WHERE ?1 IS NULL OR model = ?1",
            (model,),
        ).fetchone()
        return Spent(*found)

    def bytes_per_token(self, model: str) -> float:
        """UTF-8 bytes of a prompt's text per token that the model's server counted; that of English before any."""
        [size, tokens] = self._file.execute(
            "SELECT sum(prompt_bytes), sum(prompt_tokens) FROM replies WHERE model = ? AND prompt_tokens > 0", (model,)
        ).fetchone()
        return size / tokens if size and tokens else BYTES_PER_TOKEN

    def able(self, address: str, model: str) -> dict[str, Any] | None:
        """What the probe of that server found; None where it was never probed."""
        row = self._file.execute(
            "SELECT able FROM servers WHERE address = ? AND model = ?", (address, model)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_able(self, address: str, model: str, able: Mapping[str, Any]) -> None:
        row = (address, model, json.dumps(able), time.time())
        self._file.execute("INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?)", row)
