"""The quality pages: figures for who may see them, known answers that nobody can tell, disputes that a lead decides."""

import csv
import html
import io
import re
from collections.abc import Callable

import pytest
from sqlalchemy import select

from heedful.store import accounts
from heedful.store.database import Store
from heedful.store.export import export_snapshot
from heedful.store.formats.files import escape_formula
from heedful.store.gold import mark, read_gold
from heedful.store.labels import add_labeler, add_ranking, add_response, edit
from heedful.store.pools import add_prompt
from heedful.store.progress import Work, progress
from heedful.store.records import select_records
from heedful.store.schema import rankings, slots
from heedful.store.settings import write_setting
from heedful.types import Labeler, Prompt, Ranking, Response
from heedful.web.routes.quality import rounded
from small_store import ranking

PAGES = ("/lead/quality", "/lead/adjudicate", "/lead/gold", "/lead/screening")
WHOLE = {"rank-A": "1", "rank-B": "2", "rank-C": "3", "overall-A": "7", "overall-B": "4", "overall-C": "2"}


@pytest.mark.parametrize("locale", ["en", "zh_Hans"])
def test_who_may_see_what(client: Callable, locale: str) -> None:
    for name in ("lead", "admin", "researcher", "cy", "hilda"):
        who = client(name)
        who.post("/language", locale=locale, next="/")
        for path in PAGES:
            allowed = name in ("lead", "admin") or (name == "researcher" and path == "/lead/quality")
            assert who.get(path).status_code == (200 if allowed else 403), (name, path)


def test_figures_in_the_page_and_the_table(client: Callable, people: Store) -> None:
    add_labeler(people, Labeler(id="=1+1", kind="simulated"))
    add_ranking(people, ranking("evil", 0, "=1+1", (3, 2, 1)))
    reader = client("researcher")
    page = reader.get("/lead/quality").text
    assert "&lt;" not in page and "=1+1" in page and page.count("<svg") == 2
    assert re.search(r"K = 3", page) and "style=" not in page
    lines = list(csv.DictReader(io.StringIO(reader.get("/lead/quality.csv").text)))
    assert [line["labeler"] for line in lines] == ["'=1+1", "ann", "bob", "hal"]
    assert float(lines[0]["agreement"]) == 0 and float(lines[1]["agreement"]) == pytest.approx(18 / 21)
    assert lines[0]["gold_accuracy"] == "" and float(lines[1]["hours"]) == pytest.approx(3 * 12.25 / 3600)
    assert client("researcher").get("/lead/quality?purpose=nonsense").status_code == 200


def test_new_judgements_show_at_once(client: Callable, people: Store) -> None:
    reader = client("lead")
    before = reader.get("/lead/quality").text
    assert re.findall(r"prompt=(p\d)", reader.get("/lead/adjudicate").text)[0] == "p0", "all agree"
    add_ranking(people, ranking("cy-2", 2, "cy", (3, 2, 1)))
    after = reader.get("/lead/quality").text
    assert ">cy<" not in before and ">cy<" in after
    assert re.findall(r"prompt=(p\d)", reader.get("/lead/adjudicate").text)[0] == "p2", "the worst dispute now"
    edit(people, ranking("cy-2b", 2, "cy"), "cy-2")
    assert "50 %" not in reader.get("/lead/adjudicate").text


def anonymous(page: str, key: str) -> str:
    """The page without what is the item's own: its key, its texts and their fingerprint."""
    page = page.replace(key.split("/")[2], "KEY")
    page = re.sub(r'name="shown" value="\w+"', "", page)
    page = re.sub(r' <span class="quiet">\d+ done by you</span>', "", page)  # one more than before, gold or not
    return re.sub(r"Say \d|Ja \d", "TEXT", page)


def test_a_gold_page_is_like_any_other_byte_for_byte(client: Callable, people: Store) -> None:
    lead, cy = client("lead"), client("cy")
    known(lead, people)
    people_at_home = re.compile(r"\d+ of \d+ done, \d+ by you")
    write_setting(people, "gold_rate", 0.0, "lead")
    plain = cy.next()
    first = anonymous(cy.get(plain).text, plain)
    write_setting(people, "gold_rate", 1.0, "lead")
    path = cy.post(plain, **WHOLE).url.path
    assert purpose_at(people, path) == "screening"
    assert anonymous(cy.get(path).text, path) == first
    assert "screening" not in cy.get(path).text
    before = people_at_home.findall(cy.get("/").text)
    asked = cy.post(path, **{"rank-A": "1"})
    assert asked.status_code == 422 and "screening" not in asked.text
    cy.http.get(path)
    onwards = cy.http.post(path, data={"csrf": cy.csrf, **WHOLE}, follow_redirects=False)
    assert re.fullmatch(r"/item/\w+\?of=\w+&notice=saved|/\?of=\w+&notice=done", onwards.headers["location"])
    after = people_at_home.findall(cy.get("/").text)
    counts = [[int(n) for n in re.findall(r"\d+", line)] for lines in (before, after) for line in lines[:1]]
    assert counts[1] == [counts[0][0] + 1, counts[0][1], counts[0][2] + 1]
    assert "screening" not in cy.get("/").text and "screening" not in cy.get(path).text


def purpose_at(store: Store, path: str) -> str:
    with store.read() as connection:
        return connection.execute(select(slots.c.purpose).where(slots.c.key == path.split("/")[2])).scalar_one()


def known(lead, store: Store) -> None:
    """The lead decides p1, and its answer is known."""
    made = lead.post("/lead/adjudicate/item?purpose=train", prompt="p1", round="0", gold="yes", **WHOLE)
    assert made.url.path == "/lead/adjudicate"
    with store.read() as connection:
        assert [each.item for each in read_gold(connection)] == ["p1"]


def test_the_api_tells_no_more_than_the_page(client: Callable, people: Store) -> None:
    known(client("lead"), people)
    write_setting(people, "gold_rate", 1.0, "lead")
    secret = accounts.add_token(people, "cy", "test")
    cy = client()
    given = cy.http.post("/api/v1/next", json={}, headers={"Authorization": f"Bearer {secret}"})
    assert given.status_code == 200 and given.json()["item"]["purpose"] == "train"
    assert purpose_at(people, f"/item/{given.json()['item']['key']}") == "screening"
    assert "screening" not in given.text


def test_a_gold_judgement_measures_and_never_trains(client: Callable, people: Store) -> None:
    known(client("lead"), people)
    write_setting(people, "gold_rate", 1.0, "lead")
    work = Work("ranking", overlap=3)
    before = progress(people, work).done
    cy = client("cy")
    path = cy.next()
    cy.post(path, **WHOLE, seconds="9")
    with people.read() as connection:
        (made,) = select_records(connection, Ranking, rankings.c.labeler == "cy")
    assert (made.purpose, made.prompt_id) == ("screening", "p1")
    assert progress(people, work).done == before
    assert made.id not in {ranking.id for ranking in export_snapshot(people, purpose=None).rankings}
    page = client("lead").get("/lead/gold").text
    assert re.search(r"\d+\.\d( ± \d+\.\d)? %", page)
    write_setting(people, "gold_rate", 0.0, "lead")
    cy.post(path, **WHOLE | {"rank-A": "3", "rank-C": "1"})  # a correction is measured too, and trains no more
    with people.read() as connection:
        versions = select_records(connection, Ranking, rankings.c.labeler == "cy")
    assert [ranking.purpose for ranking in versions if ranking.prompt_id == "p1"] == ["screening", "screening"]


def test_the_share_of_gold_is_the_leads_to_set(client: Callable, people: Store) -> None:
    lead = client("lead")
    lead.post("/lead/gold/rate", rate="12,5")
    assert 'value="12.5"' in lead.get("/lead/gold").text
    for wrong in ("-1", "101", "nan", "many"):
        assert lead.post("/lead/gold/rate", rate=wrong).status_code == 422
    assert 'value="12.5"' in lead.get("/lead/gold").text


def test_own_rankings_become_gold_and_are_taken_away(client: Callable, people: Store) -> None:
    add_ranking(people, ranking("lead-2", 2, "lead"), ranking("lead-0", 0, "lead", (1, 1, 1)))
    lead = client("lead")
    assert 'value="lead-2"' in lead.get("/lead/gold").text
    lead.post("/lead/gold/mark", ranking="lead-2", note="see the guideline")
    page = lead.get("/lead/gold").text
    assert 'value="lead-2"' not in page and "see the guideline" in page
    assert lead.post("/lead/gold/mark", ranking="lead-0").status_code == 422
    assert lead.post("/lead/gold/mark", ranking="' OR 1=1").status_code == 422
    lead.post("/lead/gold/unmark", task="ranking", item="p2")
    assert 'value="lead-2"' in lead.get("/lead/gold").text


def test_a_dispute_is_decided_beside_the_labelers(client: Callable, people: Store) -> None:
    add_ranking(people, ranking("cy-1", 1, "cy", (3, 2, 1)))
    lead = client("lead")
    queue = lead.get("/lead/adjudicate").text
    assert re.findall(r"prompt=(p\d)", queue)[0] == "p1" and "50 %" in queue
    path = "/lead/adjudicate/item?prompt=p1&round=0&purpose=train"
    page = lead.get(path).text
    assert page.count(" selected") == 0 and page.count(" checked") == 0
    filled = lead.get(path + "&fill=yes").text
    assert filled.count(" selected") == 3
    refused = lead.post("/lead/adjudicate/item?purpose=train", prompt="p1", round="0", **{"rank-A": "2"})
    assert refused.status_code == 422 and refused.text.count(" selected") == 1
    before = progress(people, Work("ranking", overlap=9)).done
    lead.post("/lead/adjudicate/item?purpose=train", prompt="p1", round="0", **WHOLE)
    lead.post("/lead/adjudicate/item?purpose=train", prompt="p1", round="0", **WHOLE | {"rank-B": "1"})
    with people.read() as connection:
        made = select_records(connection, Ranking, rankings.c.labeler == "lead")
    assert [(r.purpose, r.rank) for r in made] == [("screening", (1, 2, 3)), ("screening", (1, 1, 2))]
    assert progress(people, Work("ranking", overlap=9)).done == before
    assert re.findall(r"prompt=(p\d)", lead.get("/lead/adjudicate").text)[-1] == "p1"  # what is decided comes last
    assert lead.get(path).text.count(" selected") == 3
    tied = lead.post(
        "/lead/adjudicate/item?purpose=train",
        prompt="p1",
        round="0",
        gold="yes",
        **{**WHOLE, "rank-B": "1", "rank-C": "1"},
    )
    assert tied.status_code == 422 and "ties all" in tied.text


def test_ids_like_addresses_are_still_ids(client: Callable, people: Store) -> None:
    """Prompts of files bring ids of their own."""
    id = 'a/b?c=1&prompt=p1&round=7#d "é%25'
    add_prompt(people, Prompt(id=id, text="The odd one", user="u"))
    shown = [Response(id=f"odd{i}", prompt_id=id, text=f"Odd {i}") for i in range(2)]
    add_response(people, *shown)
    for labeler, rank in (("ann", (1, 2)), ("bob", (2, 1))):
        made = {"prompt_id": id, "labeler": labeler, "responses": ("odd0", "odd1"), "rank": rank}
        add_ranking(people, Ranking(id=f"odd {labeler}", **made))
    lead = client("lead")
    queue = lead.get("/lead/adjudicate").text
    address = html.unescape(re.search(r'href="(/lead/adjudicate/item[^"]+)" dir="auto">The odd one', queue)[1])
    page = lead.get(address).text
    assert "Odd 1" in page and page.count(" selected") == 0
    filled = html.unescape(re.search(r'href="([^"]+fill=yes[^"]*)"', page)[1])
    assert lead.get(filled).text.count(" selected") == 2


def test_what_is_not_there_is_not_found(client: Callable) -> None:
    lead = client("lead")
    for query in ("prompt=p9&round=0", "prompt=p1&round=7", "prompt=p1&round=x", "prompt=p1", "", "prompt=p1&round=²"):
        assert lead.get(f"/lead/adjudicate/item?{query}").status_code == 404, query
    assert lead.post("/lead/adjudicate/item", prompt="p9", round="0", **WHOLE).status_code == 404


def test_axes_are_easy_to_read_and_names_no_formulas() -> None:
    assert [rounded(value) for value in (0.5, 4, 4.1, 9, 21, 41, 79, 1000)] == [4, 4, 8, 20, 40, 80, 80, 2000]
    assert [escape_formula(text) for text in ("@x", "x@")] == ["'@x", "x@"]


def test_gold_of_the_store_is_used_only_where_it_fits(client: Callable, people: Store) -> None:
    add_ranking(people, ranking("lead-1", 1, "lead"))
    mark(people, "lead-1", "lead")
    write_setting(people, "gold_rate", 1.0, "lead")
    lead = client("lead")
    assert purpose_at(people, lead.next()) == "train"  # leads know the answers
