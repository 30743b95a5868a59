"""Accounts: passwords, invitations that work once, sessions that end, and tries that are slowed down."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from heedful.config import InputError
from heedful.store import accounts
from heedful.store.accounts import Wait
from heedful.store.database import Store, timestamp
from heedful.store.schema import accounts as table
from heedful.store.schema import attempts, invitations, sessions, tokens

PASSWORD = "a long password"
PAST = "2000-01-01T00:00:00.000000Z"


def test_the_right_password_alone_lets_in(store: Store) -> None:
    accounts.add_account(store, "Ada", PASSWORD)
    assert accounts.log_in(store, "ada", PASSWORD, "here").id == "Ada"
    assert accounts.log_in(store, "Ada", PASSWORD + " ", "here") is None
    assert accounts.log_in(store, "nobody", PASSWORD, "here") is None
    with store.read() as connection:
        kept = connection.execute(select(table.c.password)).scalar()
    assert kept.startswith("$argon2id$") and PASSWORD not in kept


def test_wrong_passwords_are_slowed_down_and_forgiven(store: Store) -> None:
    accounts.add_account(store, "ada", PASSWORD)
    for _ in range(accounts.FREE_TRIES):
        assert accounts.log_in(store, "ada", "wrong", "here") is None
    with pytest.raises(Wait) as wait:
        accounts.log_in(store, "ADA", PASSWORD, "elsewhere")  # the name is what is guessed at
    assert 1 <= wait.value.seconds <= 2
    store.write(lambda connection: connection.execute(update(attempts).values(until=timestamp())))
    assert accounts.log_in(store, "ada", PASSWORD, "here") is not None
    assert accounts.log_in(store, "ada", "wrong", "here") is None  # and no wait: the count began anew
    assert accounts.log_in(store, "ada", PASSWORD, "here") is not None


def test_waits_grow_up_to_a_quarter_of_an_hour(store: Store) -> None:
    for _ in range(accounts.FREE_TRIES + 20):
        store.write(lambda connection: connection.execute(update(attempts).values(until=timestamp())))
        accounts.log_in(store, "ada", "wrong", "here")
    with pytest.raises(Wait) as wait:
        accounts.log_in(store, "ada", "wrong", "here")
    assert accounts.LONGEST_WAIT - 5 <= wait.value.seconds <= accounts.LONGEST_WAIT + 1


def test_who_guesses_at_many_names_is_slowed_down_too(store: Store) -> None:
    for n in range(10 * accounts.FREE_TRIES):
        assert accounts.log_in(store, f"name{n}", "wrong", "there") is None
    with pytest.raises(Wait):
        accounts.log_in(store, "another", "wrong", "there")
    assert accounts.log_in(store, "another", "wrong", "here") is None


def test_wrong_passwords_of_long_ago_count_no_more(store: Store) -> None:
    """Or an office's typing errors of a year would shut it out, and the table grow for ever."""
    for n in range(10 * accounts.FREE_TRIES):
        accounts.log_in(store, f"name{n}", "wrong", "office")
    past = timestamp(datetime.now(UTC) - timedelta(seconds=accounts.FORGOTTEN))
    store.write(lambda connection: connection.execute(update(attempts).values(until=past)))
    assert accounts.log_in(store, "ada", "wrong", "office") is None
    assert accounts.log_in(store, "ada", "wrong", "office") is None
    with store.read() as connection:
        assert sorted(connection.execute(select(attempts.c.failures)).scalars()) == [2, 2]


def test_names_are_one_however_they_are_spelt(store: Store) -> None:
    """SQLite knows the small letters of ASCII alone: Émile's session must not become émile's."""
    for n, name in enumerate(("Émile", "straße", "\ufb01ona")):  # a ligature
        account = accounts.add_account(store, name, f"{PASSWORD} {n}")
        assert accounts.log_in(store, name, f"{PASSWORD} {n}", "here") == account
        secret = accounts.start_session(store, account, days=1)
        with store.read() as connection:
            assert accounts.find_session(connection, secret).account == account
    for n, alike in enumerate(("e\u0301mile", "STRASSE", "FIONA")):
        with pytest.raises(InputError, match="is taken"):
            accounts.add_account(store, alike, PASSWORD)
        assert accounts.log_in(store, alike, f"{PASSWORD} {n}", "here") is not None
    for _ in range(accounts.FREE_TRIES):
        accounts.log_in(store, "émile", "wrong", "here")
    with pytest.raises(Wait):
        accounts.log_in(store, "E\u0301MILE", "wrong", "elsewhere")


def test_an_invitation_works_once_and_not_for_ever(store: Store) -> None:
    secret = accounts.invite(store, "ada", "labeler", group="heldout")
    with pytest.raises(InputError, match="10 to 200"):
        accounts.accept(store, secret, "ben", "short")
    account = accounts.accept(store, secret, "ben", PASSWORD, ("zh",), "zh_Hans")
    assert (account.role, account.group, account.languages) == ("labeler", "heldout", ("zh",))
    with pytest.raises(InputError, match="used already"):
        accounts.accept(store, secret, "cy", PASSWORD)
    late = accounts.invite(store, "ada", "admin")
    store.write(lambda connection: connection.execute(update(invitations).values(expires=PAST)))
    with pytest.raises(InputError, match="run out"):
        accounts.accept(store, late, "cy", PASSWORD)


@pytest.mark.parametrize("name", ["", " ada", "ada\n", "a" * 65, "ADA", "a\u202eb"])
def test_names_that_will_not_do(store: Store, name: str) -> None:
    accounts.add_account(store, "ada", PASSWORD)
    with pytest.raises(InputError, match=r"a name has|is taken"):
        accounts.add_account(store, name, PASSWORD)


def test_sessions_end(store: Store) -> None:
    account = accounts.add_account(store, "ada", PASSWORD)
    first, second = (accounts.start_session(store, account, days=1) for _ in range(2))
    assert first != second
    with store.read() as connection:
        assert accounts.find_session(connection, first).account == account
        assert accounts.find_session(connection, "") is None
        assert first not in str(connection.execute(select(sessions)).all())  # only its hash is kept
    accounts.end_session(store, first)
    with store.read() as connection:
        assert accounts.find_session(connection, first) is None
        assert accounts.find_session(connection, second) is not None
    accounts.set_password(store, "ada", "another password")
    with store.read() as connection:
        assert accounts.find_session(connection, second) is None
    third = accounts.start_session(store, account, days=1)
    store.write(lambda connection: connection.execute(update(table).values(closed=PAST)))
    with store.read() as connection:
        assert accounts.find_session(connection, third) is None  # a closed account lets nobody in
    store.write(lambda connection: connection.execute(update(table).values(closed=None)))
    store.write(lambda connection: connection.execute(update(sessions).values(expires=PAST)))
    with store.read() as connection:
        assert accounts.find_session(connection, third) is None


def test_tokens_are_revoked(store: Store) -> None:
    accounts.add_account(store, "ada", PASSWORD)
    secret = accounts.add_token(store, "ada", "my script")
    with store.read() as connection:
        assert accounts.find_token(connection, secret).id == "ada"
        assert accounts.find_token(connection, secret + "x") is None
    store.write(lambda connection: connection.execute(update(tokens).values(revoked=PAST)))
    with store.read() as connection:
        assert accounts.find_token(connection, secret) is None


def test_two_passwords_at_a_time_are_hashed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 64 MiB: however many ask at once, they must not take all there is."""
    accounts.add_account(store, "ada", PASSWORD)
    lock, pair, inside, most = threading.Lock(), threading.Barrier(2), 0, 0

    class Slow:
        def hash(self, password: str) -> str:
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            pair.wait(30)
            time.sleep(0.02)  # for a third, if it were let in
            with lock:
                inside -= 1
            return "hashed"

        def verify(self, encoded: str, password: str) -> bool:
            return self.hash(password) == ""

    monkeypatch.setattr(accounts, "HASHER", Slow())
    for ask in (lambda: accounts.hash_of(PASSWORD), lambda: accounts.log_in(store, "ada", PASSWORD, "here")):
        most = 0
        many = [threading.Thread(target=ask) for _ in range(4)]
        for one in many:
            one.start()
        for one in many:
            one.join()
        assert most == 2
