"""Gold items: who gets them, when, and how they are measured."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import select

from heedful.config import InputError
from heedful.store import accounts, gold
from heedful.store.database import Store
from heedful.store.export import export_snapshot
from heedful.store.labels import add_labeler, add_ranking, add_rating, edit
from heedful.store.passing import skip
from heedful.store.progress import Work, progress
from heedful.store.schema import slots
from heedful.store.settings import write_setting
from heedful.store.slots import claim, finish, offer, tally
from heedful.types import Labeler, Rating
from small_store import fill, ranking

WORK = Work("ranking", pool="reward_model", overlap=5)
PASSWORD = "a long password"


@pytest.fixture
def project(store_of: Callable[..., Store]) -> Store:
    """Three prompts on offer, a lead who ranked p1, two labelers who judged nothing; every item may be gold."""
    return store_of(begin_project)


def begin_project(store: Store) -> None:
    fill(store)
    accounts.add_account(store, "lea", PASSWORD, role="lead")
    accounts.add_account(store, "cy", PASSWORD)
    accounts.add_account(store, "dee", PASSWORD, languages=("en",))
    add_ranking(store, ranking("lea-1", 1, "lea", (1, 2, 3), purpose="screening"))
    add_rating(store, rated("lea", "r10", True))
    offer(store, WORK)
    write_setting(store, "gold_rate", 1.0, "lea")


def rated(labeler: str, response: str, ticked: bool) -> Rating:
    marks = {"overall": 4, "flags": {"violent": ticked}, "purpose": "screening"}
    return Rating(
        id=f"{labeler}-{response}", prompt_id=f"p{response[1]}", response_id=response, labeler=labeler, **marks
    )


def items_of(store: Store, labeler: str, languages: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """What the labeler is given until nothing is left, all of it judged at once: purpose and prompt."""
    got = []
    while (slot := claim(store, [WORK], labeler, 10, languages)) is not None:
        again = claim(store, [WORK], labeler, 10, languages)  # asked again, the same one, for as long from then on
        assert again is not None and again._replace(expires=slot.expires) == slot
        got.append((slot.work.purpose, slot.item))
        judged = ranking(
            f"{slot.work.purpose}-{labeler}-{slot.item}", int(slot.item[1]), labeler, purpose=slot.work.purpose
        )
        add_ranking(store, judged)
        store.write(lambda c, slot=slot: done(c, slot, labeler))
    return got


def done(connection, slot, labeler: str) -> None:
    assert finish(connection, slot.work, slot.item, labeler)


def test_without_known_answers_nobody_gets_any(project: Store) -> None:
    assert {purpose for purpose, _ in items_of(project, "cy")} == {"train"}


def test_a_labeler_gets_each_once_and_never_what_they_judge_anyway(project: Store) -> None:
    gold.mark(project, "lea-1", "lea")
    got = items_of(project, "cy")
    assert got[0] == ("screening", "p1")
    assert sorted(item for _, item in got) == ["p0", "p1", "p2"]
    assert [purpose for purpose, _ in got].count("screening") == 1
    assert items_of(project, "lea")[0][0] == "train" and ("screening", "p1") not in items_of(project, "lea")
    assert items_of(project, "ann") == []  # who judged it for training is not asked for it again


def test_the_rate_is_the_share(project: Store) -> None:
    gold.mark(project, "lea-1", "lea")
    write_setting(project, "gold_rate", 0.0, "lea")
    assert {purpose for purpose, _ in items_of(project, "cy")} == {"train"}


def test_what_they_cannot_read_or_passed_over_is_none_for_them(project: Store) -> None:
    gold.mark(project, "lea-1", "lea")
    slot = claim(project, [WORK], "cy", 10)
    assert slot.work.purpose == "screening"
    skip(project, slot.work, slot.item, "cy", "unclear")
    assert sorted(items_of(project, "cy")) == [("train", "p0"), ("train", "p2")]
    with project.read() as connection:
        assert gold.due(connection, WORK, "dee", ("xx",)) is None
        assert gold.due(connection, WORK, "dee") == "p1"
        assert gold.due(connection, WORK, "lea") is None  # whoever knows the answer, by whatever role
        assert gold.due(connection, replace(WORK, round=1), "dee") is None
        assert gold.due(connection, replace(WORK, pool="ppo"), "dee") is None
        assert gold.due(connection, replace(WORK, purpose="evaluation"), "dee") is None


def test_it_changes_no_progress_no_overlap_and_no_training(project: Store) -> None:
    gold.mark(project, "lea-1", "lea")
    before = progress(project, WORK).done
    with project.read() as connection:
        first = tally(connection, WORK, "cy")
    slot = claim(project, [WORK], "cy", 10)
    add_ranking(project, ranking("gold-cy", 1, "cy", purpose="screening"))
    with project.read() as connection:
        held = tally(connection, WORK, "cy")
    project.write(lambda c: done(c, slot, "cy"))
    assert progress(project, WORK).done == before
    with project.read() as connection:
        after = tally(connection, WORK, "cy")
        numbers = list(
            connection.execute(select(slots.c.number).where(slots.c.item == "p1", slots.c.purpose == "train"))
        )
    # the labeler sees what they would see of any other item
    assert held == first._replace(held=1)
    assert after == first._replace(done=first.done + 1, own=1)
    assert len(numbers) == 5
    for purpose in ("train", None):
        assert "gold-cy" not in {r.id for r in export_snapshot(project, purpose=purpose).rankings}


def test_accuracy_by_labeler_and_item(project: Store) -> None:
    gold.mark(project, "lea-1", "lea", "because")
    add_ranking(project, ranking("cy-g", 1, "cy", (1, 2, 3), purpose="screening"))
    add_ranking(project, ranking("dee-g", 1, "dee", (2, 1, 2), purpose="screening"))  # 0, a tie, 1 of the three pairs
    with project.read() as connection:
        found = gold.gold_results(connection)
        (kept,) = gold.read_gold(connection)
    assert (kept.round, kept.flags, kept.note) == (0, {"r10": {"violent": True}}, "because")
    assert {name: of.mean for name, of in found.by_labeler.items()} == {"cy": 1.0, "dee": 0.5}
    assert found.by_item["p1"].mean == 0.75 and found.by_item["p1"].num_prompts == 2
    assert gold.right_of({"a": 1, "b": 2, "c": 2}, {"a": 1, "b": 1, "c": 3}) == (1.5, 2)


def test_an_answer_must_say_something_and_be_the_one_that_stands(project: Store) -> None:
    add_ranking(project, ranking("lea-2", 2, "lea", (1, 1, 1), purpose="screening"))
    for wrong, told in (
        ("lea-2", "ties all"),
        ("nobody", "no current ranking"),
        ("comparison/x", "no current ranking"),
    ):
        with pytest.raises(InputError, match=told):
            gold.mark(project, wrong, "lea")
    edit(project, ranking("lea-1/v2", 1, "lea", (3, 2, 1), purpose="screening"), "lea-1")
    with pytest.raises(InputError, match="no current ranking"):
        gold.mark(project, "lea-1", "lea")
    gold.mark(project, "lea-1/v2", "lea")
    gold.mark(project, "lea-1/v2", "lea")
    with project.read() as connection:
        (kept,) = gold.read_gold(connection)
    assert kept.rank == {"r10": 3, "r11": 2, "r12": 1}
    gold.unmark(project, "ranking", "p1")
    with project.read() as connection:
        assert gold.read_gold(connection) == []


def test_labelers_without_an_account_are_measured_and_leads_not(project: Store) -> None:
    add_labeler(project, Labeler(id="robot", kind="simulated"))
    with project.read() as connection:
        who = {name: gold.is_measured(connection, name) for name in ("robot", "cy", "lea")}
    assert who == {"robot": True, "cy": True, "lea": False}
