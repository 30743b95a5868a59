"""What is handed out to one labeler is not handed out to others beyond the overlap, until it expires."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.runtime.migration import MigrationContext
from sqlalchemy import MetaData, Table, select

from heedful.config import InputError
from heedful.steps import read_step
from heedful.store.backup import backup, restore
from heedful.store.database import Store, connect, migrate, open_store
from heedful.store.erase import erase_labeler, erase_user
from heedful.store.jsonl import export_jsonl
from heedful.store.labels import add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt
from heedful.store.progress import Work, evaluation_work, progress, ranking_work, to_label
from heedful.store.schema import metadata, slots
from heedful.store.slots import lease
from heedful.types import Labeler, Prompt, Response
from small_store import fill, ranking

WORK = Work("ranking", round=0, pool="ppo")


def crowd(store: Store, prompts: int = 6) -> None:
    """Prompts with two responses each, two thirds of them for training; three training labelers, two held-out ones."""
    for n in range(prompts):
        split = "valid" if n % 3 == 2 else "train"
        add_prompt(store, Prompt(id=f"q{n}", text=f"Ask {n}", user=f"w{n}", split=split), pool="ppo")
        add_response(store, *(Response(id=f"q{n}/{i}", prompt_id=f"q{n}", text=f"{i}") for i in range(2)))
    add_labeler(store, *(Labeler(id=f"t{n}") for n in range(3)))
    add_labeler(store, *(Labeler(id=f"h{n}", group="heldout") for n in range(2)))


def ids(items: list) -> list[str]:
    return [prompt.id for prompt, _ in items]


def test_labelers_get_different_items_and_each_their_own_again(store: Store) -> None:
    crowd(store)
    assert ids(lease(store, WORK, "t0", limit=2)) == ["q0", "q1"]
    assert ids(lease(store, WORK, "t1", limit=2)) == ["q2", "q3"]
    assert ids(lease(store, WORK, "t0", limit=3)) == ["q0", "q1", "q4"]
    assert ids(to_label(store, WORK, "t2")) == ["q5"]
    assert ids(lease(store, Work("ranking", pool="ppo", purpose="evaluation"), "t2", limit=2)) == ["q0", "q1"]
    assert ids(lease(store, Work("demonstration", pool="ppo"), "t2", limit=2)) == ["q0", "q1"]
    assert ids(lease(store, WORK, "h0")) == ["q2", "q5"]  # another group has an overlap of its own


def test_an_overlap_of_two_hands_out_to_two(store: Store) -> None:
    crowd(store)
    work = Work("ranking", pool="ppo", overlap=2)
    assert len(lease(store, work, "t0")) == 6
    assert len(lease(store, work, "t1", limit=4)) == 4
    assert ids(lease(store, work, "t2")) == ["q4", "q5"]


def test_what_expired_or_was_judged_goes_on(store: Store) -> None:
    crowd(store, 3)
    assert len(lease(store, WORK, "t0", hours=0)) == 3
    ((prompt, responses),) = lease(store, WORK, "t1", limit=1)
    assert prompt.id == "q0"
    add_ranking(store, rank_item("t1", prompt, responses))
    assert ids(lease(store, WORK, "t1", limit=1)) == ["q1"]
    assert ids(lease(store, WORK, "t0")) == ["q2"]
    with store.read() as connection:
        assert len(connection.execute(select(slots)).all()) == 3  # no slot more than judgements wanted


def test_leases_go_with_the_person_and_travel_in_a_backup(
    store: Store, new_place: Callable[[], str], tmp_path: Path
) -> None:
    crowd(store)
    lease(store, WORK, "t0", limit=2)
    lease(store, Work("rating", pool="ppo"), "t1", limit=3)
    erase_user(store, "w0")
    with store.read() as connection:
        held = select(slots.c.item).where(slots.c.labeler.is_not(None))
        assert set(connection.execute(held).scalars()) == {"q1", "q1/0"}
    backup(store, tmp_path / "b.gz")
    place = new_place()
    restore(tmp_path / "b.gz", place)
    with open_store(place) as again:
        assert ids(to_label(again, WORK, "t2", limit=1)) == ["q2"]
    erase_labeler(store, "t0")
    erase_labeler(store, "t1")
    with store.read() as connection:
        assert connection.execute(held).all() == []


def test_labelers_who_ask_at_once_share_nothing(new_place: Callable[[], str]) -> None:
    place = new_place()
    with open_store(place) as store:
        crowd(store, 12)
    got: dict[str, list[str]] = {}
    start = threading.Barrier(3)

    def ask(labeler: str) -> None:
        with open_store(place) as own:
            start.wait()
            got[labeler] = ids(lease(own, WORK, labeler, limit=4))

    threads = [threading.Thread(target=ask, args=(f"t{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(item for items in got.values() for item in items) == sorted(f"q{n}" for n in range(12))


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_a_store_of_an_older_schema_is_backed_up_and_migrated(
    revision: str, new_place: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = new_place()
    old = connect(place)
    migrate(old, revision)
    with open_store(tmp_path / "new.db") as new:
        fill(new)
        copy_what_fits(new, old)
    if revision == "0002":
        with old.engine.begin() as connection:
            leased = {"labeler": "ann", "task": "ranking", "purpose": "evaluation", "round": 0, "item": "p0"}
            table = Table("leases", MetaData(), autoload_with=connection)
            connection.execute(table.insert().values(leased | {"expires": "2100-01-01T00:00:00.000000Z"}))
    old.close()
    monkeypatch.chdir(tmp_path)
    with open_store(place) as store:
        (kept,) = tmp_path.rglob(f"*.schema-{revision}.*.jsonl.gz")
        with store.read() as connection:
            assert MigrationContext.configure(connection).get_current_revision() == "0003"
        add_labeler(store, Labeler(id="cy"))
        evaluation = ids(lease(store, Work("ranking", purpose="evaluation"), "cy"))
        assert ("p0" in evaluation) == (revision == "0001")  # what was leased before is leased after
        assert len(lease(store, Work("ranking", overlap=3), "cy")) == 3
        assert str(progress(store, Work("ranking"))) == "3 of 3 rankings"
        exported = [export_jsonl(store, tmp_path / "one.jsonl", "ranking"), (tmp_path / "one.jsonl").read_bytes()]
    restore(kept, tmp_path / "restored.db")
    with open_store(tmp_path / "restored.db") as again:
        there = ids(lease(again, Work("ranking", purpose="evaluation"), "bob"))
        assert ("p0" in there) == (revision == "0001")
        again_exported = [export_jsonl(again, tmp_path / "two.jsonl", "ranking"), (tmp_path / "two.jsonl").read_bytes()]
    assert exported == again_exported
    assert len(list(tmp_path.rglob("*.schema-*"))) == 1, "a store of this schema needs no backup"


def copy_what_fits(new: Store, old: Store) -> None:
    """The rows of a store in a store of an older schema, without the columns that it does not have."""
    found = MetaData()
    found.reflect(old.engine)
    with new.read() as source, old.engine.begin() as target:
        for table in metadata.sorted_tables:
            there = found.tables.get(table.name)
            rows = [dict(row._mapping) for row in source.execute(select(table))]
            if there is not None and rows:
                target.execute(there.insert(), [{c.name: row[c.name] for c in there.columns} for row in rows])


def test_a_broken_overlap_asks_a_second_labeler_for_a_share(store: Store) -> None:
    crowd(store, 200)
    work = Work("ranking", pool="ppo", overlap=1.25)
    total = progress(store, work).total
    assert 230 <= total <= 270
    first = lease(store, work, "t0")
    second = lease(store, work, "t1")
    assert len(first) == 200 and len(second) == total - 200
    assert lease(store, work, "t2") == []
    for labeler, items in (("t0", first), ("t1", second)):
        add_ranking(store, *(rank_item(labeler, prompt, responses) for prompt, responses in items))
    assert progress(store, work).done == total


def rank_item(labeler: str, prompt: Prompt, responses: tuple[Response, ...]):
    shown = tuple(response.id for response in responses)
    made = ranking("x", 0, labeler)
    return made.model_copy(
        update={"id": f"{labeler}-{prompt.id}", "prompt_id": prompt.id, "responses": shown, "rank": (1, 2), "order": ()}
    )


@pytest.mark.parametrize(
    ("train", "heldout", "overlap", "wanted"),
    [
        (10, 5, 0.15, [("train", 1.15), ("heldout", 2)]),
        (2, 1, 1.0, [("train", 2), ("heldout", 1)]),
        (1, 0, 0.5, [("train", 1)]),
    ],
)
def test_nothing_waits_for_more_labelers_than_there_are(
    train: int, heldout: int, overlap: float, wanted: list[tuple[str, float]]
) -> None:
    works = ranking_work(3, train, heldout, overlap)
    assert [(work.group, work.overlap) for work in works] == wanted
    assert {(work.task, work.pool, work.round, work.purpose) for work in works} == {
        ("ranking", "reward_model", 3, "train")
    }


@pytest.mark.parametrize(
    ("train", "heldout", "also_training", "wanted"),
    [
        (3, 2, False, [("heldout", 2)]),
        (1, 5, True, [("heldout", 2), ("train", 1)]),
        (0, 5, True, [("heldout", 2)]),
        (3, 0, False, [("train", 2)]),
        (3, 0, True, [("train", 2)]),
    ],
)
def test_the_evaluation_waits_for_held_out_labelers_and_others_where_asked(
    train: int, heldout: int, also_training: bool, wanted: list[tuple[str, float]]
) -> None:
    works = evaluation_work(train, heldout, 2, also_training)
    assert [(work.group, work.overlap) for work in works] == wanted
    assert {(work.task, work.pool, work.purpose) for work in works} == {("ranking", "evaluation", "evaluation")}


def test_held_out_labelers_make_no_training_judgements_of_training_prompts(store: Store) -> None:
    crowd(store)
    train, heldout = ranking_work(0, 3, 2, 0.0)
    assert progress(store, Work("ranking", pool="ppo", group="heldout")).total == 2
    assert progress(store, Work("ranking", pool="ppo", group="heldout", purpose="evaluation")).total == 6
    assert ids(to_label(store, Work("rating", pool="ppo"), "h0")) == ["q2", "q2", "q5", "q5"]
    assert (train.overlap, heldout.overlap) == (1, 2)


def test_the_status_of_a_run_whose_store_is_of_an_older_schema(tmp_path: Path) -> None:
    """A run that waits for people, begun by a heedful that had no labelling app."""
    folder = tmp_path / "run"
    old = connect(folder / "store.db")
    migrate(old, "0002")
    with open_store(tmp_path / "new.db") as new:
        fill(new)
        copy_what_fits(new, old)
    old.close()
    recipe = {"name": "old", "seed": 0, "labelers": {"judge": "people", "train": 2, "heldout": 1, "overlap": 0}}
    recipe["labelers"] |= {"ratings": 0, "references": 0}
    recipe |= {"evaluate": {"labelers_per_prompt": 1}}
    own = folder / "round-0" / "rankings"
    own.mkdir(parents=True)
    (own / "manifest.json").write_text("{}")
    step = read_step(folder, "round-0/rankings", recipe, busy=False)
    assert step.state == "waiting" and step.result.startswith("3 of 3 rankings")
    (kept,) = folder.glob("store.db.schema-0002.*.jsonl.gz")
    (folder / "store.db").unlink()
    with pytest.raises(InputError, match="is gone"):
        read_step(folder, "round-0/rankings", recipe, busy=False)
    assert not (folder / "store.db").exists(), "or the run would go on with an empty one"
    restore(kept, folder / "store.db")
    assert read_step(folder, "round-0/rankings", recipe, busy=False) == step
