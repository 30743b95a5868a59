"""Twenty labelers at once: every item is judged exactly as often as it should be, and nothing twice by one person."""

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import func, select

from heedful.store.database import Store, open_store
from heedful.store.labels import add_labeler, add_response
from heedful.store.pools import add_prompt
from heedful.store.progress import Work
from heedful.store.schema import rankings, slots
from heedful.store.slots import Taken, claim, offer, prolong
from heedful.types import Labeler, Prompt, Response
from heedful.web.tasks import rank
from heedful.web.tasks.base import load_item, save

THREADS, ITEMS, OVERLAP = 20, 60, 2  # 200 items, over HTTP: tests/accept/test_labelling.py
WORK = Work("ranking", overlap=OVERLAP)
FIELDS = {f"{name}-{letter}": str(number) for number, letter in enumerate("AB", 1) for name in ("rank", "overall")}


def many(store: Store) -> None:
    prompts = [Prompt(id=f"q{n:03}", text=f"Ask {n}", user=f"w{n}") for n in range(ITEMS)]
    add_prompt(store, *prompts)
    add_response(store, *(Response(id=f"{p.id}/{i}", prompt_id=p.id, text=f"{i}") for p in prompts for i in range(2)))
    add_labeler(store, *(Labeler(id=f"l{n:02}") for n in range(THREADS)))
    offer(store, WORK)


def work_through(store: Store, labeler: str) -> None:
    """Judge whatever is handed out until nothing is left; some forms are sent twice, as by an impatient finger."""
    while (slot := claim(store, [WORK], labeler, minutes=10)) is not None:
        with store.read() as connection:
            item = load_item(connection, slot, labeler, {})
        made = rank.read(item, FIELDS)
        try:
            assert save(store, item, made, "none", 1.0)
            assert not item.slot.item.endswith("7") or not save(store, item, made, "none", 1.0)
        except Taken:
            raise AssertionError(f"{slot.item} was {labeler}'s") from None


@pytest.mark.timeout(120)
def test_twenty_labelers_at_once_judge_everything_exactly_twice(new_place: Callable[[], str]) -> None:
    failures: list[BaseException] = []
    with open_store(new_place()) as store:
        many(store)
        start = threading.Barrier(THREADS)

        def run(labeler: str) -> None:
            try:
                start.wait()
                work_through(store, labeler)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(f"l{n:02}",)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        with store.read() as connection:
            made = connection.execute(select(rankings.c.prompt_id, rankings.c.labeler)).all()
            filled = connection.execute(select(func.count()).where(slots.c.done.is_not(None))).scalar()
        assert len(made) == len(set(made)) == filled == ITEMS * OVERLAP
        assert set(Counter(prompt for prompt, _ in made).values()) == {OVERLAP}


def test_the_next_item_goes_by_priority_then_id_and_what_ran_out_keeps_its_place(store: Store) -> None:
    many(store)
    once = Work("ranking", overlap=2)
    store.write(lambda c: c.execute(slots.update().where(slots.c.item == "q007").values(priority=-1)))
    first, second = (claim(store, [once], "l00", minutes).item for minutes in (10, 10))
    assert (first, second) == ("q007", "q007")  # what is held comes again
    store.write(lambda c: c.execute(slots.update().where(slots.c.labeler == "l00").values(expires="2026-01-01")))
    assert [claim(store, [once], name, 10).item for name in ("l01", "l02", "l03")] == ["q007", "q007", "q000"]
    store.write(lambda c: c.execute(slots.update().where(slots.c.labeler == "l03").values(expires="2026-01-01")))
    assert [claim(store, [once], name, 10).item for name in ("l19", "l18", "l17")] == ["q000", "q000", "q001"]
    store.write(lambda c: c.execute(slots.update().where(slots.c.labeler > "l16").values(expires="2026-01-01")))
    assert claim(store, [once], "l10", 10).item == "q000"  # first by item, not by who held it


def test_a_fresh_lease_is_not_written_again_and_one_that_runs_down_is(store: Store) -> None:
    many(store)
    slot = claim(store, [WORK], "l00", minutes=10)

    def expires() -> str:
        with store.read() as connection:
            return connection.execute(select(slots.c.expires).where(slots.c.key == slot.key)).scalar()

    def asked_again(minutes: float, labeler: str = "l00") -> tuple[bool, bool]:
        """Whether the item is theirs, and whether the lease was written."""
        before = expires()
        return prolong(store, slot, labeler, minutes), expires() != before

    assert asked_again(10) == (True, False)
    assert asked_again(20) == (True, True)  # less than nine tenths of so long are left
    assert asked_again(10) == (True, False)  # a longer one is not cut short
    assert asked_again(20, "l01") == (True, False)  # the item's other slot


def test_postgresql_has_counted_the_slots_that_were_made(store: Store) -> None:
    if store.engine.dialect.name != "postgresql":
        pytest.skip("SQLite goes by the index without")
    many(store)
    with store.read() as connection:
        assert connection.exec_driver_sql("SELECT reltuples FROM pg_class WHERE relname = 'slots'").scalar() == 120
