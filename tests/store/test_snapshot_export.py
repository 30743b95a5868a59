"""What a snapshot holds and what it says it left out."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from heedful.snapshot import read_snapshot, write_snapshot
from heedful.store.database import Store
from heedful.store.erase import erase_labeler, erase_user
from heedful.store.export import export_snapshot
from heedful.store.formats.give_out import Choice, export_file
from heedful.store.formats.shapes import SHAPES
from heedful.store.labels import add_demonstration, add_ranking, add_rating, add_response, edit
from heedful.store.pools import add_prompt
from heedful.store.progress import Work, progress
from heedful.types import Demonstration, Prompt, Ranking, Rating, Response
from small_store import ranking


def ids(records: tuple) -> list[str]:
    return [record.id for record in records]


def test_heldout_labelers_never_enter_training(filled: Store) -> None:
    add_demonstration(filled, Demonstration(id="d", prompt_id="p0", text="x", labeler="hal"))
    add_rating(filled, Rating(id="g", prompt_id="p0", response_id="r00", labeler="hal", overall=5))
    snapshot = export_snapshot(filled)
    assert ids(snapshot.labelers) == ["ann", "bob"] and len(snapshot.rankings) == 6
    assert not snapshot.demonstrations and not snapshot.ratings
    assert snapshot.dropped == {
        "rankings: by held-out labelers": 3,
        "demonstrations: by held-out labelers": 1,
        "ratings: by held-out labelers": 1,
    }
    validation = export_snapshot(filled, heldout="validation")
    assert ids(validation.rankings) == ["ann-0", "ann-1", "ann-2", "bob-0", "bob-1", "bob-2", "hal-2"]
    assert validation.rankings_of("train", "heldout") == []
    assert len(export_snapshot(filled, heldout="include").rankings) == 9


def test_filters(filled: Store) -> None:
    add_prompt(filled, Prompt(id="q", text="other pool", user="w"), pool="ppo")
    add_prompt(filled, Prompt(id="z", text="no pool", user="w"))
    add_ranking(filled, ranking("e", 0, "ann", purpose="evaluation"))
    add_response(filled, Response(id="s", prompt_id="p1", text="round one"), round=1)
    add_ranking(filled, Ranking(id="mixed", prompt_id="p1", labeler="ann", responses=("s", "r10"), rank=(1, 2)))

    ppo = export_snapshot(filled, pools={"ppo"})
    assert ids(ppo.prompts) == ["q"] and not ppo.rankings and not ppo.responses
    assert ppo.dropped["prompts: of other pools"] == 4
    assert ppo.dropped["rankings: of other pools' prompts"] == 11

    later = export_snapshot(filled, rounds={1})
    assert ids(later.rankings) == ["mixed"] and ids(later.prompts) == ["p1"] and ids(later.responses) == ["r10", "s"]
    assert later.dropped["rankings: of other rounds"] == 10
    first = export_snapshot(filled, rounds={0})
    assert "mixed" not in ids(first.rankings) and "s" not in ids(first.responses) and len(first.prompts) == 5

    assert ids(export_snapshot(filled, purpose="evaluation").rankings) == ["e"]
    assert len(export_snapshot(filled, purpose=None).rankings) == 8
    assert export_snapshot(filled).dropped["rankings: for another purpose"] == 1


def test_edits_and_ties(filled: Store) -> None:
    edit(filled, ranking("ann-0b", 0, "ann", (2, 2, 2)), "ann-0")
    snapshot = export_snapshot(filled)
    assert "ann-0b" in ids(snapshot.rankings) and "ann-0" not in ids(snapshot.rankings)
    assert snapshot.dropped["rankings: superseded by an edit"] == 1
    assert snapshot.dropped["rankings: all tied (kept, but without a pair to learn from)"] == 1


def test_as_of(filled: Store) -> None:
    moment = datetime.now(UTC)
    before = export_snapshot(filled)
    edit(filled, ranking("ann-0b", 0, "ann", (3, 2, 1)), "ann-0")
    add_ranking(filled, ranking("late", 1, "bob"))
    assert export_snapshot(filled, as_of=moment) == before
    assert export_snapshot(filled, as_of=moment.astimezone().replace(tzinfo=None)) == before  # local time
    assert len(export_snapshot(filled).rankings) == 7
    assert export_snapshot(filled, as_of=moment - timedelta(days=1)).prompts == ()
    erase_labeler(filled, "bob")
    assert ids(export_snapshot(filled, as_of=moment).rankings) == ["ann-0", "ann-1", "ann-2"]


def test_erased_rows_are_gone_and_counted(filled: Store) -> None:
    erase_user(filled, "u0")
    snapshot = export_snapshot(filled)
    assert ids(snapshot.prompts) == ["p1", "p2"] and len(snapshot.rankings) == 4
    assert snapshot.dropped["rankings: erased on request"] == 3
    assert snapshot.dropped["responses: erased on request"] == 3


def test_equal_stores_give_equal_hashes(filled: Store, tmp_path: Path) -> None:
    one = write_snapshot(tmp_path / "a", export_snapshot(filled))
    assert read_snapshot(tmp_path / "a") == one
    edit(filled, ranking("ann-0b", 0, "ann", (3, 2, 1)), "ann-0")
    assert write_snapshot(tmp_path / "b", export_snapshot(filled)).hash != one.hash


@pytest.mark.parametrize("heldout", ["exclude", "validation", "include"])
def test_every_ranking_is_kept_or_counted(filled: Store, heldout: str) -> None:
    add_ranking(filled, ranking("e", 0, "hal", purpose="evaluation"))
    edit(filled, ranking("bob-1b", 1, "bob"), "bob-1")
    snapshot = export_snapshot(filled, heldout=heldout, rounds={0, 1}, pools={"reward_model"})
    left_out = {reason: n for reason, n in snapshot.dropped.items() if reason.startswith("rankings") and "kept" not in reason}  # fmt: skip  # noqa: E501
    assert len(snapshot.rankings) + sum(left_out.values()) == 11


@pytest.mark.parametrize("purpose", ["screening", "evaluation"])
def test_what_was_written_to_measure_somebody_never_trains(filled: Store, tmp_path: Path, purpose: str) -> None:
    for id in (f"demonstration/{purpose}/0/ann/p0", "demonstration/train/0/ann/p1"):
        add_demonstration(filled, Demonstration(id=id, prompt_id=f"p{id[-1]}", text="x", labeler="ann"))
    snapshot = export_snapshot(filled)
    assert ids(snapshot.demonstrations) == ["demonstration/train/0/ann/p1"]
    assert snapshot.dropped["demonstrations: for another purpose"] == 1
    assert progress(filled, Work("demonstration", pool="reward_model")).done == 1
    for wanted, number in (("train", 1), (purpose, 2), (None, 2)):
        given = export_file(filled, tmp_path / f"{wanted}.jsonl", SHAPES["alpaca"], Choice(purpose=wanted))
        assert given.items == number, wanted
