"""Writing prompts: three kinds, by the rules of intake, without a script."""

import re
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from heedful.store.database import Store
from heedful.store.export import export_snapshot
from heedful.store.labels import add_demonstration
from heedful.store.pools import add_prompt, prompts_with_pool
from heedful.store.progress import Work, progress
from heedful.store.records import select_records
from heedful.store.settings import write_setting
from heedful.store.slots import claim, offer, tally
from heedful.types import Demonstration, Prompt
from heedful.web.tasks.write_prompt import USE_CASES, application_of, kind_of
from heedful.world.prompts import USE_CASES as TABLE_1

WORK = Work("prompt")
NAME = "prompt/train/0"


@pytest.fixture
def writer(client: Callable, people: Store) -> Callable:
    """Offers `number` prompts of one kind, all of which fall to one pool, and gives a client and the first item."""

    def start(kind: str, number: int = 3, pool: str = "sft", **options):
        write_setting(people, "intake", {"shares": {"labeler": {pool: 1}}, "valid": 0, "test": 0}, "lead")
        offer(people, WORK, {"number": number, "kinds": {kind: 1}} | options)
        cy = client("cy")
        return cy, cy.next(NAME)

    return start


def written(store: Store, labeler: str = "cy") -> list[tuple[Prompt, str]]:
    return [(prompt, pool) for prompt, pool in prompts_with_pool(store) if prompt.user == labeler]


def pairs(*texts: str) -> dict[str, str]:
    fields = {"pairs": str(len(texts) // 2)}
    for n, (query, response) in enumerate(zip(texts[::2], texts[1::2], strict=True), start=1):
        fields |= {f"query-{n}": query, f"response-{n}": response}
    return fields


def test_a_plain_prompt_is_the_labeler_s_in_a_pool_by_the_shares(writer: Callable, people: Store) -> None:
    cy, item = writer("plain")
    empty = cy.post(item, text="  ")
    assert (
        empty.status_code == 422 and "Write the prompt first" in empty.text and "what the prompt is for" in empty.text
    )
    assert written(people) == []
    page = cy.post(item, text="Name three rivers.\r\n", use_case="open_qa", seconds="12")
    assert page.url.path != item and "Saved" in page.text
    ((prompt, pool),) = written(people)
    assert (prompt.text, prompt.kind, prompt.source, prompt.use_case) == (
        "Name three rivers.", "plain", "labeler", "open_qa"
    )  # fmt: skip
    assert (pool, prompt.split) == ("sft", "train")
    state = progress(people, WORK)
    assert (state.done, state.total, str(state)) == (1, 3, "1 of 3 prompts")
    with people.read() as connection:
        assert tally(connection, WORK, "cy")[:3] == (1, 3, 1)


def test_sending_twice_writes_one_and_a_correction_replaces_it(writer: Callable, people: Store) -> None:
    cy, item = writer("plain")
    for _ in range(2):
        cy.post(item, text="Name three rivers.", use_case="open_qa")
    assert len(written(people)) == 1
    assert ">Name three rivers.</textarea>" in cy.get(item).text
    cy.post(item, text="Name four rivers.", use_case="open_qa")
    assert [prompt.text for prompt, _ in written(people)] == ["Name four rivers."]
    (prompt,) = [prompt for prompt, _ in written(people)]
    add_demonstration(people, Demonstration(id="d", prompt_id=prompt.id, text="The Rhine …", labeler="ann"))
    page = cy.post(item, text="Name five rivers.", use_case="open_qa")
    assert page.status_code == 422 and "Others work with this prompt already" in page.text
    assert written(people)[0][0].text == "Name four rivers."
    again = cy.post(item, text="Name four rivers.", use_case="open_qa")
    assert again.status_code == 200  # what changes nothing disturbs nobody


def test_a_prompt_somebody_has_on_their_screen_stays(writer: Callable, people: Store) -> None:
    cy, item = writer("plain")
    cy.post(item, text="Name three rivers.", use_case="open_qa")
    demonstrating = Work("demonstration", pool="sft")
    offer(people, demonstrating)
    slot = claim(people, [demonstrating], "dee", minutes=5)
    assert slot is not None
    assert cy.post(item, text="Name four rivers.", use_case="open_qa").status_code == 422


def test_what_begins_as_an_earlier_prompt_is_told_to_the_writer(writer: Callable, people: Store) -> None:
    cy, item = writer("plain")
    add_prompt(people, Prompt(id="old", text="Once  upon a TIME", user="somebody"))
    page = cy.post(item, text="Once upon a time", use_case="generation")
    assert page.status_code == 422 and "begins alike" in page.text and "TIME" not in page.text
    assert written(people) == [] and progress(people, WORK).done == 0
    cy.post(item, text="Once upon a hill", use_case="generation")
    assert len(written(people)) == 1


def test_personal_data_is_shown_and_the_writer_decides(writer: Callable, people: Store) -> None:
    cy, item = writer("plain", number=4)
    text = "Write to ada@example.org for me"
    page = cy.post(item, text=text, use_case="rewrite")
    assert page.status_code == 422 and "ada@example.org. Say what" in page.text and written(people) == []
    assert 'value="redact" checked' not in page.text and 'value="keep" checked' not in page.text
    cy.post(item, text=text, use_case="rewrite", pii="redact")
    item = cy.next(NAME)
    asked = cy.post(item, text="Write to bob@example.org for me", use_case="rewrite")
    of = re.search(r'name="pii-of" value="(\w+)"', asked.text)[1]
    other = {"text": "Write to real@example.com for me", "use_case": "rewrite", "pii": "keep", "pii-of": of}
    assert cy.post(item, **other).status_code == 422  # the word was given for another address
    cy.post(item, **(other | {"text": "Write to bob@example.org for me"}))
    assert sorted(prompt.text for prompt, _ in written(people)) == [
        "Write to [email] for me", "Write to bob@example.org for me"
    ]  # fmt: skip


def test_few_shot_expands_in_the_sft_pool(writer: Callable, people: Store) -> None:
    cy, item = writer("few_shot")
    half = cy.post(item, instruction="Sort the fruit", use_case="other", **pairs("apple", "red", "pear", "", "", ""))
    assert half.status_code == 422 and "Pair 2 is only half written" in half.text
    one = cy.post(item, instruction="Sort the fruit", use_case="other", **pairs("apple", "red", "", ""))
    assert one.status_code == 422 and "Write 2 pairs at least" in one.text and ">apple</textarea>" in one.text
    fruit = pairs("apple", "red", "", "", "pear", "green", "plum", "blue")
    cy.post(item, instruction="Sort the fruit", use_case="classification", **fruit)
    found = [prompt for prompt, _ in written(people)]
    assert [prompt.text for prompt in found] == ["apple", "pear", "plum"]
    assert found[1].examples == (("Sort the fruit\n\napple", "red"), ("plum", "blue"))
    assert [d.text for d in export_snapshot(people, pools=["sft"]).demonstrations] == ["red", "green", "blue"]
    assert progress(people, WORK).done == 1 and progress(people, Work("demonstration", pool="sft")).done == 3
    back = cy.get(item).text
    assert ">Sort the fruit</textarea>" in back and back.count('class="card pair"') == 3
    cy.post(item, instruction="Sort the fruit", use_case="classification", **pairs("apple", "red", "fig", "violet"))
    assert [prompt.text for prompt, _ in written(people)] == ["apple", "fig"]
    assert [d.text for d in export_snapshot(people, pools=["sft"]).demonstrations] == ["red", "violet"]


def test_few_shot_elsewhere_asks_its_last_query(writer: Callable, people: Store) -> None:
    cy, item = writer("few_shot", pool="reward_model")
    fruit = pairs("apple", "red", "pear", "green")
    cy.post(item, instruction="Sort the fruit", use_case="other", **fruit)
    ((prompt, pool),) = written(people)
    assert (prompt.text, prompt.examples, pool) == (
        "pear", (("Sort the fruit\n\napple", "red"),), "reward_model"
    )  # fmt: skip
    assert ">green</textarea>" in cy.get(item).text  # the writer sees all they wrote
    cy.post(item, instruction="Sort the fruit", use_case="other", **fruit)
    assert len(written(people)) == 1


def test_pairs_come_and_go_by_buttons_that_submit(writer: Callable, people: Store) -> None:
    cy, item = writer("few_shot")
    assert cy.get(item).text.count('class="card pair"') == 3
    texts = {"instruction": "Sort", "use_case": "other", "seconds": "40"}
    page = cy.post(item, press="add", **texts, **pairs("a", "1", "b", "2", "c", "3"))
    assert page.status_code == 200 and page.url.path == item and page.text.count('class="card pair"') == 4
    assert ">c</textarea>" in page.text and 'name="seconds" value="40"' in page.text
    page = cy.post(item, press="remove-2", **texts, **pairs("a", "1", "b", "2", "c", "3"))
    assert page.text.count('class="card pair"') == 2 and "Put pair 2 back" in page.text
    assert not re.search(r">b</textarea>", page.text)
    gone = dict(re.findall(r'name="(gone-\w+)" value="([^"]*)"', page.text))
    page = cy.post(item, press="back", **texts, **gone, **pairs("a", "1", "c", "3"))
    shown = re.findall(r">([abc123])</textarea>", page.text)
    assert shown == ["a", "1", "b", "2", "c", "3"] and "back</button>" not in page.text
    assert written(people) == []


@pytest.mark.parametrize("press", ["", "remove-", "remove-99", "remove-x", "back", "add\r\nX: 1", "remove-²"])
def test_a_button_that_is_none_changes_nothing(writer: Callable, press: str) -> None:
    cy, item = writer("few_shot")
    page = cy.post(item, press=press, instruction="Sort", **pairs("a", "1", "b", "2"))
    assert page.status_code == 200 and page.text.count('class="card pair"') == 2


@pytest.mark.parametrize("number", ["99999999", "-3", "x", "0", ""])
def test_a_made_up_number_of_pairs_is_bounded(writer: Callable, number: str) -> None:
    cy, item = writer("few_shot")
    page = cy.post(item, pairs=number, instruction="Sort")
    assert page.status_code == 422 and 1 <= page.text.count('class="card pair"') <= 20


def test_user_based_shows_an_application(writer: Callable, people: Store) -> None:
    cy, item = writer("user_based", applications=["A <b>cook</b> who plans meals"])
    assert "A &lt;b&gt;cook&lt;/b&gt; who plans meals" in cy.get(item).text
    cy.post(item, text="Plan a week of soups", use_case="generation")
    ((prompt, _),) = written(people)
    assert (prompt.kind, prompt.task) == ("user_based", {"application": "A <b>cook</b> who plans meals"})


def slot(number: int, **options):
    return SimpleNamespace(slot=SimpleNamespace(item=f"new/{number}"), options=options)


def test_kinds_are_mixed_evenly_and_by_their_shares() -> None:
    for first in (0, 100):
        seen = Counter(kind_of(slot(n, kinds={"plain": 3, "few_shot": 1})) for n in range(first, first + 100))
        assert abs(seen["plain"] - 75) <= 2 and seen["plain"] + seen["few_shot"] == 100
    assert set(Counter(kind_of(slot(n)) for n in range(9))) == {"plain", "few_shot", "user_based"}
    assert kind_of(slot(0, kinds={"nonsense": 1})) == "plain"
    chosen = Counter(application_of(slot(n, applications=["x", "y"])) for n in range(100))
    assert min(chosen["x"], chosen["y"]) > 30


def test_use_cases_are_table_1_s() -> None:
    assert list(USE_CASES) == list(TABLE_1)


def test_more_may_be_wanted_later_and_passing_over_comes_back(writer: Callable, people: Store) -> None:
    cy, item = writer("plain", number=1)
    page = cy.post(f"{item}/skip", reason="other")
    assert "Nothing is left" in page.text and progress(people, WORK).total == 1
    offer(people, WORK, {"number": 2})
    assert progress(people, WORK).total == 2
    other = cy.next(NAME)
    assert other != item
    cy.post(other, text="One", use_case="other")
    assert progress(people, WORK).done == 1


def test_labelers_may_write_more_than_customers_may_send(writer: Callable, people: Store) -> None:
    cy, item = writer("plain", number=2)
    write_setting(people, "intake", {"cap": 1, "shares": {"labeler": {"sft": 1}}, "valid": 0, "test": 0}, "lead")
    cy.post(item, text="One", use_case="other")
    cy.post(cy.next(NAME), text="Two", use_case="other")
    assert [prompt.text for prompt, _ in written(people)] in (["One", "Two"], ["Two", "One"])


def test_the_demonstrations_of_the_heldout_group_stay_out(client: Callable, people: Store) -> None:
    work = Work("prompt", group="heldout")
    write_setting(people, "intake", {"shares": {"labeler": {"sft": 1}}, "valid": 0, "test": 0}, "lead")
    offer(people, work, {"number": 1, "kinds": {"few_shot": 1}})
    hilda = client("hilda")
    item = hilda.next(NAME)
    assert client("cy").get(item).status_code == 404
    hilda.post(item, instruction="Sort", use_case="other", **pairs("a", "1", "b", "2"))
    assert len(written(people, "hilda")) == 2 and export_snapshot(people, pools=["sft"]).demonstrations == ()
    assert progress(people, work).done == 1 and progress(people, WORK).total == 0


def test_a_prompt_of_a_round_is_of_that_round(client: Callable, people: Store) -> None:
    offer(people, Work("prompt", round=2), {"number": 1, "kinds": {"plain": 1}})
    cy = client("cy")
    cy.post(cy.next("prompt/train/2"), text="One", use_case="other")
    assert [prompt.text for prompt, _ in prompts_with_pool(people, 2)] == ["One"]
    with people.read() as connection:
        assert len(select_records(connection, Prompt)) == 4
