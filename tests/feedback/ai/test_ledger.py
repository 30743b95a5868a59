"""What is kept, by which key, and what it says of tokens and money."""

import sqlite3
from pathlib import Path

import pytest

from heedful.config import InputError
from heedful.feedback.ai.ledger import (
    BYTES_PER_TOKEN,
    Estimate,
    Ledger,
    Prices,
    Spent,
    call_key,
    read_prices,
)


def test_a_reply_is_found_again_after_the_file_was_closed(tmp_path: Path) -> None:
    with Ledger(tmp_path / "deep" / "judge.db") as ledger:
        assert ledger.reply("k") is None and not ledger.knows("k")
        ledger.keep("k", "m", '{"raw": "é"}', 40, 10, 2, 0.5)
        ledger.keep("k", "m", "another", 40, 99, 99, 0.5)  # as another process might: the first stays
        ledger.keep_able("http://a", "m", {"way": "top"})
    with Ledger(tmp_path / "deep" / "judge.db") as ledger:
        assert ledger.reply("k") == '{"raw": "é"}' and ledger.knows("k")
        assert ledger.spent() == Spent(1, 10, 2, 0)
        assert ledger.able("http://a", "m") == {"way": "top"} and ledger.able("http://b", "m") is None


def test_what_a_server_does_not_count_is_said() -> None:
    with Ledger() as ledger:
        ledger.keep("a", "m", "r", 400, 100, 7, 0.1)
        ledger.keep("b", "m", "r", 400, None, None, 0.1)
        ledger.keep("c", "other", "r", 400, 50, 1, 0.1)
        assert ledger.spent("m") == Spent(2, 100, 7, 1)
        assert ledger.spent() == Spent(3, 150, 8, 1)
        assert ledger.bytes_per_token("m") == 4.0 and ledger.bytes_per_token("other") == 8.0
        assert ledger.bytes_per_token("unknown") == BYTES_PER_TOKEN
    assert Spent().with_call(3, 4).with_call(None, 4) == Spent(2, 3, 8, 1)
    assert Spent(1, 2, 3, 0).plus(Spent(1, 1, 1, 1)) == Spent(2, 3, 4, 1)


def test_a_key_is_of_the_question_alone() -> None:
    body = {"model": "m", "prompt": "p", "temperature": 0}
    assert call_key("chat", body) == call_key("chat", dict(reversed(body.items())))
    others = [
        call_key("text", body),
        call_key("chat", body | {"model": "n"}),
        call_key("chat", body | {"prompt": "q"}),
        call_key("chat", body | {"temperature": 1}),
        call_key("chat", body, turn=1),
        call_key("chat", body | {"prompt": "\ud800"}),  # half a character
    ]
    assert len({call_key("chat", body), *others}) == 7


def test_what_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE t (x)")
    before = other.read_bytes()
    with pytest.raises(InputError, match="another program's"):
        Ledger(other)
    assert other.read_bytes() == before
    (tmp_path / "text").write_text("no database at all, though long enough to look like one" * 20)
    with pytest.raises(InputError, match="not a database"):
        Ledger(tmp_path / "text")
    with pytest.raises(InputError, match="choose another file"):
        Ledger(tmp_path / "text" / "below.db")
    Ledger(tmp_path / "own.db").close()
    with sqlite3.connect(tmp_path / "own.db") as file:
        file.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="of another version"):
        Ledger(tmp_path / "own.db")


def test_two_processes_may_write_one_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "j.db") as one, Ledger(tmp_path / "j.db") as other:
        one.keep("a", "m", "1", 1, 1, 1, 0.0)
        other.keep("b", "m", "2", 1, 1, 1, 0.0)
        assert one.reply("b") == "2" and other.reply("a") == "1"


def test_prices() -> None:
    assert read_prices("0.15/0.6") == Prices(0.15, 0.6)
    assert Prices(2, 8).cost(1_000_000, 500_000) == 6.0
    for wrong in ("0.15", "a/b", "-1/2", "nan/1", "inf/1", "1/2/3"):
        with pytest.raises(InputError, match=r"such as 0\.15/0\.60"):
            read_prices(wrong)
    assert Estimate(1, 2, 3.0, 4).plus(Estimate(1, 1, 1.0, 1)) == Estimate(2, 3, 4.0, 5)
