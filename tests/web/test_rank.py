"""The ranking page: what a labeler sends is what stands in the store, whichever way they send it."""

from collections.abc import Callable

from playwright.sync_api import Page, expect
from sqlalchemy import event, select

from heedful.store.database import Store
from heedful.store.progress import Work
from heedful.store.records import select_records
from heedful.store.schema import rankings, ratings
from heedful.store.slots import offer, withdraw
from heedful.types import Ranking, Rating
from web.conftest import WORKS


def made_by(store: Store, labeler: str) -> tuple[list[Ranking], list[Rating]]:
    with store.read() as connection:
        return (
            select_records(connection, Ranking, rankings.c.labeler == labeler),
            select_records(connection, Rating, ratings.c.labeler == labeler),
        )


def marks(places: str, overall: str) -> dict[str, str]:
    fields = {}
    for letter, place, mark in zip("ABC", places, overall, strict=True):
        fields |= {f"rank-{letter}": place, f"overall-{letter}": mark}
    return fields


def test_a_form_becomes_a_ranking_and_ratings(client: Callable, people: Store) -> None:
    cy = client("cy")
    item = cy.next()
    page = cy.post(item, **marks("131", "527"), **{"box-B-hallucination": "yes"}, seconds="31")
    assert page.url.path.startswith("/item/") and page.url.path != item
    (ranking,), rated = made_by(people, "cy")
    assert ranking.rank == (1, 2, 1) and ranking.order == ranking.responses and ranking.seconds == 31
    overall = {rating.response_id: rating.overall for rating in rated}
    assert [overall[id] for id in ranking.responses] == [5, 2, 7]
    ticked = {rating.response_id for rating in rated if rating.flags["hallucination"]}
    assert ticked == {ranking.responses[1]}


def test_an_untouched_page_is_refused_and_leaves_nothing(client: Callable, people: Store) -> None:
    cy = client("cy")
    page = cy.post(cy.next())
    assert page.status_code == 422 and "Response A has no place" in page.text
    assert made_by(people, "cy") == ([], [])


def test_half_a_page_comes_back_as_it_was_sent(client: Callable) -> None:
    cy = client("cy")
    page = cy.post(cy.next(), **{"rank-A": "2", "overall-B": "6", "box-C-opinion": "yes"})
    assert page.status_code == 422
    assert page.text.count(" selected") == 1 and page.text.count(" checked>") == 3  # and the first reason to skip
    assert "Response B has no overall mark" not in page.text


def test_sending_twice_makes_one_and_a_correction_a_new_version(client: Callable, people: Store) -> None:
    cy = client("cy")
    item = cy.next()
    for _ in range(2):
        cy.post(item, **marks("123", "444"))
    assert len(made_by(people, "cy")[0]) == 1
    page = cy.get(item)
    assert "Submitted" in page.text
    cy.post(item, **marks("321", "444"))
    versions, _ = made_by(people, "cy")
    assert [ranking.rank for ranking in versions] == [(1, 2, 3), (3, 2, 1)]
    with people.read() as connection:
        assert connection.execute(select(rankings.c.supersedes).where(rankings.c.labeler == "cy")).scalars().all() == [
            None,
            versions[0].id,
        ]


def test_what_was_done_is_found_again_by_its_prompt(client: Callable, people: Store) -> None:
    cy = client("cy")
    page = cy.post(cy.next(), **marks("123", "444"))
    assert "1 done by you" in page.text
    (ranking,), rated = made_by(people, "cy")
    home = cy.get("/").text
    text = {f"p{n}": f"Say {n}, 说" for n in range(3)}[ranking.prompt_id]
    assert text in home and ranking.prompt_id not in home and not any(r.response_id in home for r in rated)
    offer(people, Work("rating"))
    cy.post(cy.next("rating/train/0"), overall="3")
    home = cy.get("/").text
    assert home.count("<bdi>Say ") == home.count('href="/item/') > 1


def test_where_nothing_is_on_offer_the_page_says_so(client: Callable, people: Store) -> None:
    for work in WORKS:
        withdraw(people, work)
    assert "Nothing is on offer at the moment. Come back later." in client("cy").get("/").text


def start(page: Page) -> None:
    """Open the next item by the button that has the focus, and wait for its script."""
    expect(page.locator("button.main").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/item/*")
    expect(page.locator("#board")).to_be_visible()


def test_keys_rank_without_a_mouse(open_page: Callable[..., Page], served) -> None:
    page = open_page("cy")
    start(page)
    assert [page.input_value(f"#rank-{letter}") for letter in "ABC"] == ["", "", ""]
    assert page.evaluate("scrollY") == 0  # guideline and prompt come first
    expect(page.locator("#left")).to_have_text("To place: A B C · To mark: A B C")
    for keys in (("2", "Shift+3", "ArrowDown"), ("=", "Shift+4", "ArrowDown"), ("1", "Shift+7")):
        for key in keys:
            page.keyboard.press(key)
    assert [page.input_value(f"#rank-{letter}") for letter in "ABC"] == ["2", "2", "1"]
    expect(page.locator("#left")).to_have_text("Complete: it can be submitted.")
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.keyboard.press("3")
    page.keyboard.press("u")
    assert page.input_value("#rank-C") == "1"
    with page.expect_navigation():
        page.keyboard.press("Control+Enter")
    (ranking,), rated = made_by(served.store, "cy")
    assert ranking.rank == (2, 2, 1)
    assert [rating.overall for rating in sorted(rated, key=lambda r: ranking.responses.index(r.response_id))] == [
        3,
        4,
        7,
    ]
    assert ranking.seconds is not None
    assert [page.input_value(f"#rank-{letter}") for letter in "ABC"] == ["", "", ""]  # nothing carries over


def test_a_draft_outlives_the_page(open_page: Callable[..., Page]) -> None:
    page = open_page("cy")
    start(page)
    page.keyboard.press("2")
    expect(page.locator("#state")).to_have_text("Draft saved")
    page.reload()
    assert page.input_value("#rank-A") == "2"


def test_digits_of_an_input_method_place_nothing(open_page: Callable[..., Page]) -> None:
    page = open_page("cy", locale="zh-CN")
    start(page)
    page.evaluate(
        """() => {
          const card = document.querySelector('.response');
          const key = (more) => card.dispatchEvent(new KeyboardEvent('keydown',
            {code: 'Digit1', key: '1', bubbles: true, ...more}));
          key({isComposing: true});
          document.dispatchEvent(new CompositionEvent('compositionstart'));
          key({});
        }"""
    )
    assert page.input_value("#rank-A") == ""
    page.evaluate("() => document.dispatchEvent(new CompositionEvent('compositionend'))")
    page.wait_for_timeout(50)
    page.keyboard.press("1")
    assert page.input_value("#rank-A") == "1"


def test_a_submission_and_the_next_page_ask_the_database_few_things(client: Callable, people: Store) -> None:
    """A server is asked each of them over a connection, and under load every way there and back may have to wait."""
    cy = client("cy")
    item = cy.next()
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    event.listen(people.engine, "before_cursor_execute", note)
    try:
        page = cy.post(item, **marks("123", "765"))
    finally:
        event.remove(people.engine, "before_cursor_execute", note)
    assert page.status_code == 200 and page.url.path.startswith("/item/")
    asked = [statement for statement in asked if not statement.startswith(("BEGIN", "LOCK"))]
    assert 20 < len(asked) <= 36, "\n".join(asked)
