"""The test of new labelers, from the invitation to the first ordinary item."""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import select

from heedful.config import InputError
from heedful.store import accounts, screening
from heedful.store.database import Store
from heedful.store.export import export_snapshot
from heedful.store.pools import add_prompt
from heedful.store.progress import Work, done_by
from heedful.store.schema import slots
from heedful.types import Prompt
from web.conftest import PASSWORD, Client, fill_people

PLACES = {"rank-A": "1", "rank-B": "2", "rank-C": "3", "overall-A": "7", "overall-B": "4", "overall-C": "2"}


@pytest.fixture
def people(store_of: Callable[..., Store]) -> Store:
    """A test of two items to rank and one to answer, judged by the lead; eve and hugo (held out) are invited."""
    return store_of(make_test)


@pytest.fixture
def test_set(people: Store) -> Store:
    return people


def make_test(store: Store) -> None:
    fill_people(store)
    accounts.add_account(store, "eve", PASSWORD, screening="invited")
    accounts.add_account(store, "hugo", PASSWORD, group="heldout", screening="invited")
    lead = Client(store, "lead")
    lead.post("/lead/screening/items", ranking="p0\np1", demonstration="p2")
    path = lead.post("/lead/screening/judge").url.path
    for _ in range(2):
        page = lead.get(path).text
        assert "screening" in page  # leads know what they do
        path = lead.post(path, **by_text(page, "012"), **{f"box-{letter_of(page, 'Ja 0')}-violent": "yes"}).url.path
    assert path == "/lead/screening"


def letter_of(page: str, text: str) -> str:
    """The letter under which the response stands."""
    return re.search(rf'id="response-(\w)"(?:(?!id="response-).)*?{text}', page, re.S)[1]


def by_text(page: str, order: str) -> dict[str, str]:
    """A form that places the responses Ja 0, Ja 1, Ja 2 in the order."""
    fields = {}
    for place, number in enumerate(order, 1):
        letter = letter_of(page, f"Ja {number}")
        fields |= {f"rank-{letter}": str(place), f"overall-{letter}": str(8 - 2 * place)}
    return fields


def purpose_at(store: Store, path: str) -> str:
    with store.read() as connection:
        return connection.execute(select(slots.c.purpose).where(slots.c.key == path.split("/")[2])).scalar_one()


def result_of(store: Store, name: str) -> screening.Result:
    with store.read() as connection:
        return screening.result(connection, accounts.find_account(connection, name))


def test_a_candidate_gets_the_test_and_nothing_else(test_set: Store, client: Callable) -> None:
    dee = client("dee").next()
    eve = client("eve")
    page = eve.get("/")
    assert page.url.path == "/screening" and page.text.count('action="/next"') == 2
    assert eve.get(dee).status_code == 404 and eve.post(dee, **PLACES).status_code == 404
    for work in ("ranking/train/0", "ranking/evaluation/0", "", "demonstration/screening/"):
        path = eve.post("/next", work=work).url.path
        assert path.startswith("/item/") and purpose_at(test_set, path) == "screening", work
    assert eve.get("/lead/screening").status_code == 403


def take(eve, store: Store, orders: dict[str, str], violent: bool) -> None:
    """Eve goes through the whole test, by the buttons of her page."""
    path = eve.post("/next", work="ranking/screening/").url.path
    for _ in range(2):
        page = eve.get(path).text
        fields = by_text(page, orders[re.search(r"Say (\d)", page)[1]])
        if violent:
            fields[f"box-{letter_of(page, 'Ja 0')}-sexual"] = "yes"  # another box, but sensitive all the same
        path = eve.post(path, **fields).url.path
    assert path == "/screening"
    path = eve.post("/next", work="demonstration/screening/").url.path
    assert eve.post(path, text="I would rather not.").url.path == "/screening"
    eve.http.post("/screening/answers", data={"csrf": eve.csrf, "topics": ["race", "age", "nonsense"], "more": "敏感"})


def test_the_four_parts(test_set: Store, client: Callable) -> None:
    eve = client("eve")
    take(eve, test_set, {"0": "012", "1": "210"}, violent=False)
    found = result_of(test_set, "eve")
    assert found.ranking.mean == 0.5 and found.ranking.num_comparisons == 6
    assert found.sensitive.mean == pytest.approx(4 / 6)  # one response of each prompt is sensitive to the lead
    assert (found.sensitive.num_prompts, found.sensitive.stderr) == (2, pytest.approx(0, abs=1e-9))  # 2 of 3 in both
    assert found.grade is None and [part.left for part in found.parts] == [0, 0]
    assert found.answers == {"topics": ["race", "age"], "more": "敏感"}
    lead = client("lead")
    page = lead.get("/lead/screening/eve").text
    assert "I would rather not." in page and "敏感" in page
    id = re.search(r'name="id-0" value="([^"]+)"', page)[1]
    lead.post("/lead/screening/eve/grade", **{"id-0": id, "grade-0": "6"})
    client("admin").post("/lead/screening/eve/grade", **{"id-0": id, "grade-0": "3"})
    lead.post("/lead/screening/eve/grade", **{"id-0": id, "grade-0": "7"})
    assert lead.post("/lead/screening/eve/grade", **{"id-0": id, "grade-0": "8"}).status_code == 422
    found = result_of(test_set, "eve")
    assert (found.grade, found.graded) == (5.0, 2)
    assert "5.0 / 7" in lead.get("/lead/screening").text


def test_agreement_in_full(test_set: Store, client: Callable) -> None:
    take(client("eve"), test_set, {"0": "012", "1": "012"}, violent=True)
    found = result_of(test_set, "eve")
    assert found.ranking.mean == 1 and found.sensitive.mean == 1


def test_nothing_of_it_trains(test_set: Store, client: Callable) -> None:
    take(client("eve"), test_set, {"0": "012", "1": "012"}, violent=True)
    for purpose in ("train", None):
        found = export_snapshot(test_set, purpose=purpose)
        made = [*found.rankings, *found.ratings, *found.demonstrations]
        assert not {record.labeler for record in made} & {"eve", "lead"}
    assert export_snapshot(test_set).dropped["demonstrations: for another purpose"] == 1
    with test_set.read() as connection:
        assert done_by(connection, Work("demonstration"))["p2"] == set()  # it is still to be written


def test_who_passes_works_at_once_and_who_fails_is_told(test_set: Store, client: Callable) -> None:
    eve, lead = client("eve"), client("lead")
    held = eve.post("/next").url.path
    lead.post("/lead/screening/eve/decide", verdict="failed")
    page = eve.get("/")
    assert page.url.path == "/screening" and "Thank you for taking part" in page.text
    assert eve.get(held).status_code == 404 and eve.post("/next").url.path == "/screening"
    lead.post("/lead/screening/eve/decide", verdict="invited")
    assert eve.post("/next").url.path.startswith("/item/")
    lead.post("/lead/screening/eve/decide", verdict="passed")
    assert eve.get("/").url.path == "/" and purpose_at(test_set, eve.next()) == "train"
    assert eve.get("/screening").url.path == "/"
    assert lead.post("/lead/screening/eve/decide", verdict="perhaps").status_code == 422


def test_held_out_labelers_skip_it(test_set: Store, client: Callable) -> None:
    hugo = client("hugo")
    assert hugo.get("/").url.path == "/"
    assert "hugo" not in client("lead").get("/lead/screening").text
    assert hugo.post("/screening/answers", topics="race").status_code == 403


def test_what_was_passed_over_is_counted_and_not_asked_again(test_set: Store, client: Callable) -> None:
    eve = client("eve")
    path = eve.post("/next", work="ranking/screening/").url.path
    second = eve.post(f"{path}/skip", reason="upsetting").url.path
    assert second.startswith("/item/") and second != path
    assert eve.post(f"{second}/skip", reason="cannot").url.path == "/screening"
    parts = {part.task: part for part in result_of(test_set, "eve").parts}
    assert (parts["ranking"].done, parts["ranking"].skipped, parts["ranking"].left) == (1, 1, 0)


def test_the_items_are_checked_and_can_be_chosen_for_one(client: Callable, people: Store) -> None:
    lead = client("lead")
    for wrong, told in (
        ({"ranking": "p9"}, "no prompt p9"),
        ({"number-ranking": "x"}, "at most"),
        ({"number-ranking": "9" * 5000}, "at most"),
        ({"number-ranking": "999"}, "at most"),
    ):
        refused = lead.post("/lead/screening/items", **wrong)
        assert refused.status_code == 422 and told in refused.text
    lead.post("/lead/screening/items", **{"number-ranking": "2", "number-demonstration": "1"})
    with people.read() as connection:
        plan = screening.plan(connection)
        account = accounts.find_account(connection, "lead")
    assert [len(plan[task]) for task in ("ranking", "demonstration")] == [2, 1]
    assert screening.next_slot(people, account, 5, "demonstration").work.purpose == "screening"


def test_only_candidates_can_be_decided_on(client: Callable, people: Store) -> None:
    lead = client("lead")
    for name in ("cy", "admin", "nobody", "hugo"):
        assert lead.get(f"/lead/screening/{name}").status_code == 404
        assert lead.post(f"/lead/screening/{name}/decide", verdict="passed").status_code == 404
    with pytest.raises(InputError, match="not invited"):
        screening.decide(people, "cy", "failed", "lead")
    with pytest.raises(InputError, match="no such demonstration"):
        screening.grade(people, "demonstration/train/0/cy/p0", "lead", 4)
    assert client("dee").post("/lead/screening/cy/decide", verdict="passed").status_code == 403


def test_a_name_like_a_path_is_still_a_name(client: Callable, people: Store) -> None:
    accounts.add_account(people, "a/b?c", PASSWORD, screening="invited")
    lead = client("lead")
    address = re.search(r'href="(/lead/screening/a[^"]+)"', lead.get("/lead/screening").text)[1]
    assert lead.get(address).status_code == 200
    assert lead.post(f"{address}/decide", verdict="passed").url.path == "/lead/screening"
    with people.read() as connection:
        assert accounts.find_account(connection, "a/b?c").screening == "passed"


def test_a_lead_finds_prompts_and_ticks_them(client: Callable, people: Store) -> None:
    lead = client("lead")
    texts = {"q1": "Is 50% of <b>this</b> sensitive?", "q2": "Is this?"}
    for id, text in texts.items():
        add_prompt(people, Prompt(id=id, text=text, user="u"), pool="sft")
    page = lead.get("/lead/screening?find=THIS&pool=sft").text
    assert "Is 50% of &lt;b&gt;this" in page and "Is this?" in page and "fewer than two responses" in page
    assert "Is this?" not in lead.get("/lead/screening?find=50%25&pool=sft").text
    assert "No prompt is like that" in lead.get("/lead/screening?find=this&pool=ppo").text
    lead.post("/lead/screening/items", ranking="p0")
    page = lead.post("/lead/screening/add", find="Say", pool="", **{"add-ranking": "p1", "add-demonstration": "q2"})
    assert page.url.query == b"find=Say&pool=" and page.text.count("in the test") == 2
    lead.post("/lead/screening/add", **{"add-ranking": "p1"})  # twice is once
    for wrong in ("q1", "none"):
        assert lead.post("/lead/screening/add", **{"add-ranking": wrong}).status_code == 422
    with people.read() as connection:
        assert screening.plan(connection) == {"ranking": [(0, "p0"), (0, "p1")], "demonstration": [(0, "q2")]}
    assert client("cy").post("/lead/screening/add").status_code == 403
