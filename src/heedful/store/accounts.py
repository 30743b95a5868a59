"""Who may use the labelling app: accounts, invitations, sessions, tokens of the API, and tries to log in.

A secret (cookie, link, token) is known to its bearer alone: the store keeps its SHA-256. Of passwords it keeps
argon2id.
"""

import hashlib
import secrets
import threading
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, and_, bindparam, delete, select

from heedful.config import InputError
from heedful.store.database import Store, timestamp
from heedful.store.records import Entry, insert
from heedful.store.schema import accounts, attempts, events, invitations, labelers, sessions, tokens
from heedful.types import Labeler, LabelerGroup, LabelerKind

Role = Literal["admin", "lead", "labeler", "researcher"]
ROLES: tuple[Role, ...] = ("admin", "lead", "labeler", "researcher")
LEAST_PASSWORD, MOST_PASSWORD = 10, 200  # characters; argon2 of a very long one would keep the server busy
MOST_NAME = 64
FREE_TRIES = 5  # wrong passwords before one has to wait
LONGEST_WAIT = 900  # seconds
FORGOTTEN = 3600  # seconds after which wrong passwords no longer count
HASHER = PasswordHasher()
HASHING = threading.Semaphore(2)  # one argon2 takes 64 MiB: many logins at once must not take all there is
OF_ACCOUNT = [accounts.c[name] for name in ("id", "role", "languages", "locale", "screening")]
OPEN_ACCOUNT = select(*OF_ACCOUNT, labelers.c.group).join_from(accounts, labelers).where(accounts.c.closed.is_(None))
OPEN_SESSION = (  # asked at every request, so it is put together once
    OPEN_ACCOUNT.add_columns(sessions.c.csrf)
    .join(sessions, sessions.c.account == accounts.c.id)
    .where(sessions.c.token == bindparam("secret"), sessions.c.expires > bindparam("now"))
)
NOBODY = HASHER.hash("nobody's password")  # checked where there is no account, so that both take equally long


class Account(NamedTuple):
    """Somebody who logged in. `group` is that of the labeler with the same id."""

    id: str
    role: Role
    group: LabelerGroup
    languages: tuple[str, ...]
    locale: str
    screening: str

    @property
    def leads(self) -> bool:
        return self.role in ("admin", "lead")


class Session(NamedTuple):
    account: Account
    csrf: str


class Wait(InputError):
    """Too many wrong passwords; `seconds` until the next try."""

    def __init__(self, seconds: int) -> None:
        super().__init__("too many tries; wait %(seconds)s seconds", seconds=seconds)
        self.seconds = seconds


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def add_account(
    store: Store,
    id: str,
    password: str,
    role: Role = "labeler",
    group: LabelerGroup = "train",
    languages: tuple[str, ...] = (),
    locale: str = "en",
    screening: str = "none",
    kind: LabelerKind = "person",
) -> Account:
    """A new account, and the labeler of the same id where there is none.

    Raises:
        InputError: a name or password that will not do, or a name that is taken.
    """
    check_name(id)
    check_password(password)
    encoded = hash_of(password)
    store.write(lambda c: _add(c, id, encoded, role, group, languages, locale, screening, kind))
    return Account(id, role, group, languages, locale, screening)


def _add(
    connection: Connection,
    id: str,
    encoded: str,
    role: str,
    group: LabelerGroup,
    languages: tuple[str, ...],
    locale: str,
    screening: str,
    kind: LabelerKind = "person",
) -> None:
    if folded(id) in map(folded, connection.execute(select(accounts.c.id)).scalars()):
        raise InputError("the name %(name)s is taken; choose another one", name=id)
    insert(connection, [Entry(Labeler(id=id, group=group, kind=kind), {})])
    values: dict[str, Any] = {
        "id": id,
        "role": role,
        "password": encoded,
        "languages": list(languages),
        "locale": locale,
    }
    values |= {"screening": screening, "answers": {}, "created": timestamp()}
    connection.execute(accounts.insert().values(values))


def hash_of(password: str) -> str:
    with HASHING:
        return HASHER.hash(password)


def check_name(name: str) -> None:
    """Raises InputError where the name will not do."""
    if not name or name != name.strip() or len(name) > MOST_NAME or not name.isprintable():
        raise InputError("a name has 1 to %(most)s visible characters and no space at its ends", most=MOST_NAME)


def check_password(password: str) -> None:
    """Raises InputError where the password will not do."""
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        size = {"least": LEAST_PASSWORD, "most": MOST_PASSWORD}
        raise InputError("a password has %(least)s to %(most)s characters", **size)


def set_password(store: Store, id: str, password: str) -> None:
    """A new password; whoever is logged in by the old one is logged out.

    Raises:
        InputError: no such account, or a password that will not do.
    """
    check_password(password)
    encoded = hash_of(password)

    def put(connection: Connection) -> None:
        if not connection.execute(accounts.update().where(accounts.c.id == id).values(password=encoded)).rowcount:
            raise InputError("no account %(name)s", name=id)
        connection.execute(delete(sessions).where(sessions.c.account == id))

    store.write(put)


def folded(name: str) -> str:
    """Names that differ only in small and capital letters, or in how Unicode spells them, are one name.

    Here and not in SQL: SQLite knows the capitals of ASCII alone.
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def named(connection: Connection, name: str) -> Account | None:
    """The open account of that name, however it is written."""
    ids = connection.execute(select(accounts.c.id).where(accounts.c.closed.is_(None))).scalars().all()
    alike = [id for id in ids if folded(id) == folded(name)]
    return find_account(connection, name if name in alike or not alike else alike[0])


def find_account(connection: Connection, id: str) -> Account | None:
    """The open account of exactly that name."""
    row = connection.execute(OPEN_ACCOUNT.where(accounts.c.id == id)).first()
    return None if row is None else _account(row)


def _account(row: Any) -> Account:
    return Account(row.id, row.role, row.group, tuple(row.languages), row.locale, row.screening)


def log_in(store: Store, id: str, password: str, address: str) -> Account | None:
    """The account where the password is right, else None; both name and address are slowed down by wrong ones.

    Raises:
        Wait: there were too many wrong ones lately.
    """
    keys = [name_key(id), f"address {address}"]
    with store.read() as connection:
        seconds = max(_wait(connection, key) for key in keys)
        account = named(connection, id)
        own = select(accounts.c.password).where(accounts.c.id == (account.id if account else ""))
        encoded = connection.execute(own).scalar() or NOBODY
    if seconds > 0:
        raise Wait(seconds)
    right = _verify(encoded, password) and account is not None
    if right and account is not None:
        store.write(lambda c: c.execute(delete(attempts).where(attempts.c.key == keys[0])))
        if HASHER.check_needs_rehash(encoded):
            anew = hash_of(password)
            store.write(lambda c: c.execute(accounts.update().where(accounts.c.id == account.id).values(password=anew)))
        return account
    store.write(lambda connection: _count_failures(connection, keys))
    return None


def name_key(id: str) -> str:
    """What wrong passwords for the name are counted by."""
    return f"name {folded(id)[:MOST_NAME]}"


def _verify(encoded: str, password: str) -> bool:
    try:
        with HASHING:
            return len(password) <= MOST_PASSWORD and HASHER.verify(encoded, password)
    except (VerificationError, InvalidHashError):
        return False


def _wait(connection: Connection, key: str) -> int:
    until = connection.execute(select(attempts.c.until).where(attempts.c.key == key)).scalar()
    if until is None or until <= timestamp():
        return 0
    return 1 + int((_moment(until) - datetime.now(UTC)).total_seconds())


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def _count_failures(connection: Connection, keys: list[str]) -> None:
    old = timestamp(datetime.now(UTC) - timedelta(seconds=FORGOTTEN))
    connection.execute(delete(attempts).where(attempts.c.until <= old))
    for key in keys:
        before = connection.execute(select(attempts.c.failures).where(attempts.c.key == key)).scalar() or 0
        over = before + 1 - (FREE_TRIES if key.startswith("name ") else 10 * FREE_TRIES)
        seconds = min(LONGEST_WAIT, 2**over) if over >= 0 else 0
        connection.execute(delete(attempts).where(attempts.c.key == key))
        until = timestamp(datetime.now(UTC) + timedelta(seconds=seconds))
        connection.execute(attempts.insert().values(key=key, failures=before + 1, until=until))


def start_session(store: Store, account: Account, days: float) -> str:
    """A new session; returns the secret for the cookie."""
    secret = secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    values = {"token": hashed(secret), "account": account.id, "csrf": secrets.token_urlsafe(24)}
    values |= {"seen": timestamp(now), "expires": timestamp(now + timedelta(days=days)), "created": timestamp(now)}

    def put(connection: Connection) -> None:
        connection.execute(delete(sessions).where(sessions.c.expires <= timestamp(now)))
        connection.execute(sessions.insert().values(values))

    store.write(put)
    return secret


def find_session(connection: Connection, secret: str) -> Session | None:
    """The session the cookie opens, unless it ran out or its account was closed."""
    row = connection.execute(OPEN_SESSION, {"secret": hashed(secret), "now": timestamp()}).first()
    return None if row is None else Session(_account(row), row.csrf)


def end_session(store: Store, secret: str) -> None:
    store.write(lambda connection: connection.execute(delete(sessions).where(sessions.c.token == hashed(secret))))


def find_token(connection: Connection, secret: str) -> Account | None:
    """The account whose token of the API this is."""
    valid = and_(tokens.c.token == hashed(secret), tokens.c.revoked.is_(None))
    id = connection.execute(select(tokens.c.account).where(valid)).scalar()
    return find_account(connection, id) if id is not None else None


def add_token(store: Store, account: str, name: str) -> str:
    """A token for the API; it is shown this once."""
    secret = secrets.token_urlsafe(32)
    values = {"token": hashed(secret), "account": account, "name": name, "created": timestamp()}
    store.write(lambda connection: connection.execute(tokens.insert().values(values)))
    return secret


def invite(
    store: Store, author: str, role: Role, group: LabelerGroup = "train", screening: bool = False, days: float = 7
) -> str:
    """A link's secret, by which one person makes their account."""
    secret = secrets.token_urlsafe(24)
    now = datetime.now(UTC)
    values = {"token": hashed(secret), "role": role, "group": group, "screening": screening, "author": author}
    values |= {"expires": timestamp(now + timedelta(days=days)), "created": timestamp(now)}
    store.write(lambda connection: connection.execute(invitations.insert().values(values)))
    return secret


def invitation(connection: Connection, secret: str) -> Any:
    """The invitation's row; None where it is unknown, used or ran out."""
    good = and_(
        invitations.c.token == hashed(secret), invitations.c.used_by.is_(None), invitations.c.expires > timestamp()
    )
    return connection.execute(select(invitations).where(good)).first()


def accept(
    store: Store, secret: str, id: str, password: str, languages: tuple[str, ...] = (), locale: str = "en"
) -> Account:
    """Make the invited person's account.

    Raises:
        InputError: an invitation that does not hold, a name or password that will not do, a name that is taken.
    """
    check_name(id)
    check_password(password)
    encoded = hash_of(password)

    def put(connection: Connection) -> Account:
        row = invitation(connection, secret)
        if row is None:
            raise InputError("this invitation was used already or has run out; ask for a new one")
        screening = "invited" if row.screening else "none"
        _add(connection, id, encoded, row.role, row.group, languages, locale, screening)
        connection.execute(invitations.update().where(invitations.c.token == row.token).values(used_by=id))
        return Account(id, row.role, row.group, languages, locale, screening)

    return store.write(put)


def note(connection: Connection, account: str, what: str, **detail: Any) -> None:
    """Write down who did what; nothing written here is ever changed."""
    connection.execute(
        events.insert().values(id=secrets.token_hex(8), at=timestamp(), account=account, what=what, detail=detail)
    )
