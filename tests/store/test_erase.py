"""A person's data goes: from the tables, from the file's bytes, and for good; tombstones stay."""

from pathlib import Path

import pytest
from sqlalchemy import select

from heedful.config import InputError
from heedful.store.database import Store, open_store
from heedful.store.erase import erase_labeler, erase_user, erased_counts
from heedful.store.labels import add_demonstration, add_labeler, add_ranking, add_rating, edit
from heedful.store.pools import add_prompt
from heedful.store.schema import metadata, tombstones
from heedful.types import Demonstration, Labeler, Prompt, Rating
from small_store import fill, ranking


def everything(store: Store) -> str:
    with store.read() as connection:
        return "\n".join(
            repr(row) for table in metadata.sorted_tables if table is not tombstones
            for row in connection.execute(select(table))
        )  # fmt: skip


def test_a_labelers_judgements_and_prompts_go(filled: Store) -> None:
    add_prompt(filled, Prompt(id="mine", text="secret words", user="ann", source="labeler"))
    add_prompt(filled, Prompt(id="namesake", text="another ann", user="ann2", source="customer"))
    add_demonstration(filled, Demonstration(id="d", prompt_id="mine", text="secret answer", labeler="bob"))
    add_rating(filled, Rating(id="g", prompt_id="p0", response_id="r00", labeler="ann", overall=5))
    edit(filled, ranking("ann-0b", 0, "ann"), "ann-0")
    edit(filled, ranking("ann-0c", 0, "ann"), "ann-0b")
    erased = erase_labeler(filled, "ann")
    assert erased == {"rankings": 5, "ratings": 1, "demonstrations": 1, "prompts": 1, "labelers": 1}
    assert erased_counts(filled) == erased
    left = everything(filled)
    assert "'ann'" not in left and "secret" not in left and "namesake" in left and "bob-0" in left
    with filled.read() as connection:
        row = connection.execute(select(tombstones).where(tombstones.c.id == "ann-0")).one()
    assert (row.kind, row.reason) == ("rankings", "labeler's request") and row.erased.endswith("Z")


def test_a_users_prompts_take_along_what_was_made_from_them(filled: Store) -> None:
    erased = erase_user(filled, "u1")
    assert erased == {"prompts": 1, "responses": 3, "rankings": 3}
    assert "p1" not in everything(filled) and "p0" in everything(filled)


def test_a_customer_with_a_labelers_name_is_another_person(filled: Store) -> None:
    add_prompt(filled, Prompt(id="namesake", text="x", user="ann"))
    erase_labeler(filled, "ann")
    assert "namesake" in everything(filled)


def test_erased_ids_do_not_come_back(filled: Store) -> None:
    erase_labeler(filled, "ann")
    with pytest.raises(InputError, match="labelers: ann was erased on request"):
        add_labeler(filled, Labeler(id="ann"))
    with pytest.raises(InputError, match="rankings: ann-0 was erased on request"):
        add_ranking(filled, ranking("ann-0", 0, "bob"))


def test_nobody_to_erase_is_said(filled: Store) -> None:
    with pytest.raises(InputError, match="no labeler zoe"):
        erase_labeler(filled, "zoe")
    with pytest.raises(InputError, match="no prompts of user zoe"):
        erase_user(filled, "zoe")
    assert not erased_counts(filled)


def test_the_bytes_leave_the_file(tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    with open_store(place) as store:
        fill(store)
        add_prompt(store, Prompt(id="x", text="xyzzy-" * 2000, user="leaver"))
        files = [path for path in tmp_path.iterdir() if path.name.startswith("s.db")]
        assert any(b"xyzzy-" in path.read_bytes() for path in files)
        erase_user(store, "leaver")
        assert not any(b"xyzzy-" in path.read_bytes() for path in files if path.exists())
