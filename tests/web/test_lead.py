"""The pages by which a project is run: people, works, guidelines, settings, events, and one's own account."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from sqlalchemy import func, select

from heedful.config import InputError
from heedful.store import accounts, workforce
from heedful.store.database import Store, timestamp
from heedful.store.guidelines import SHIPPED, changes, current_guideline
from heedful.store.labels import add_rating
from heedful.store.passing import skip
from heedful.store.progress import Work
from heedful.store.schema import events, ratings, sessions, skips, slots
from heedful.store.settings import read_boxes, read_number, read_setting, write_setting
from heedful.store.slots import claim, offer, on_offer, withdraw
from heedful.store.worklist import PURPOSES, find_work, put_on_offer, standings, trim, work_at
from heedful.types import Rating
from heedful.web.tasks.base import BOXES
from heedful.web.words import LOCALES
from web.conftest import PASSWORD

RANKING = {"task": "ranking", "purpose": "train", "round": "0", "group": "train", "pool": ""}


def link_in(text: str, kind: str) -> str:
    """The path of the link that the page shows once."""
    return re.search(rf'value="http://testserver(/{kind}/[\w-]+)"', text)[1]


def what_happened(store: Store) -> list[str]:
    with store.read() as connection:
        return list(connection.execute(select(events.c.what).order_by(events.c.at)).scalars())


def test_an_invitation_makes_one_account_of_its_role_and_group(client: Callable, people: Store) -> None:
    lead, guest = client("lead"), client()
    page = lead.post("/lead/people/invite", role="labeler", group="heldout", days="7", screening="yes")
    link = link_in(page.text, "join")
    assert "/join/" not in lead.get("/lead/people").text  # shown once
    fields = {"name": "小明", "password": PASSWORD, "again": PASSWORD, "languages": "zh"}
    assert guest.post(link, **fields).url.path == "/"
    assert guest.get(link).status_code == 404
    with people.read() as connection:
        (person,) = [each for each in workforce.people(connection) if each.id == "小明"]
    assert (person.role, person.group, person.languages) == ("labeler", "heldout", ("zh",))
    assert person.screening == "none"  # held-out labelers skip the screening (InstructGPT, section 3.4)


def test_a_withdrawn_invitation_lets_nobody_in(client: Callable) -> None:
    lead = client("lead")
    page = lead.post("/lead/people/invite", role="researcher", group="train", days="1")
    link = link_in(page.text, "join")
    token = re.search(r'name="invitation" value="(\w+)"', page.text)[1]
    assert client().get(link).status_code == 200
    lead.post("/lead/people/withdraw", invitation=token)
    assert client().get(link).status_code == 404


def test_a_lead_makes_no_administrators_and_manages_none(client: Callable, people: Store) -> None:
    lead = client("lead")
    assert lead.post("/lead/people/invite", role="admin", group="train", days="7").status_code == 403
    for action in ("close", "reset"):
        for whose in ("admin", "lead"):
            assert lead.post(f"/lead/people/{action}", account=whose).status_code == 422
    assert client("admin").get("/").status_code == 200


def test_a_closed_account_is_out_at_once_and_what_it_held_is_free(client: Callable, people: Store) -> None:
    cy, lead = client("cy"), client("lead")
    item = cy.next()
    token = accounts.add_token(people, "cy", "script")
    assert lead.post("/lead/people/close", account="cy").status_code == 200
    assert cy.get(item).url.path == "/login"
    assert "wrong" in client().post("/login", name="cy", password=PASSWORD).text
    with people.read() as connection:
        assert accounts.find_token(connection, token) is None
        now = timestamp()
        assert connection.execute(select(slots.c.expires).where(slots.c.labeler == "cy")).scalar_one() <= now
    lead.post("/lead/people/reopen", account="cy")
    assert client().post("/login", name="cy", password=PASSWORD).url.path == "/"


def test_the_last_administrator_stays(client: Callable, people: Store) -> None:
    admin = client("admin")
    for action, more in (("close", {}), ("role", {"role": "lead"})):
        page = admin.post(f"/lead/people/{action}", account="admin", **more)
        assert page.status_code == 422 and "last administrator" in page.text
    admin.post("/lead/people/role", account="dee", role="admin")
    admin.post("/lead/people/close", account="admin")
    assert admin.get("/").url.path == "/login"
    with pytest.raises(InputError, match="dee is the last administrator"):
        workforce.change_role(people, accounts.Account("dee", "admin", "train", (), "en", "none"), "dee", "labeler")


def test_a_role_that_is_lost_takes_its_links_along(client: Callable, people: Store) -> None:
    lead, admin = client("lead"), client("admin")
    invitation = link_in(lead.post("/lead/people/invite", role="lead", group="train", days="7").text, "join")
    reset = link_in(lead.post("/lead/people/reset", account="cy").text, "reset")
    admin.post("/lead/people/role", account="lead", role="labeler")
    assert client().get(invitation).status_code == client().get(reset).status_code == 404
    assert lead.get("/lead/people").status_code == 403  # and the session that was open is a labeler's
    with pytest.raises(InputError, match="administrator"):  # as is whoever clicked just before
        workforce.close(people, accounts.Account("lead", "lead", "train", (), "en", "none"), "cy")


def test_a_link_sets_one_new_password(client: Callable, people: Store) -> None:
    cy, lead = client("cy"), client("lead")
    old = link_in(lead.post("/lead/people/reset", account="cy").text, "reset")
    link = link_in(lead.post("/lead/people/reset", account="cy").text, "reset")
    guest = client()
    assert guest.get(old).status_code == 404
    assert guest.post(link, password="a fresh password", again="another one").status_code == 422
    assert guest.post(link, password="a fresh password", again="a fresh password").url.path == "/"
    assert guest.get(link).status_code == 404 and cy.get("/").url.path == "/login"
    assert client().post("/login", name="cy", password=PASSWORD).status_code == 401
    assert what_happened(people).count("set a new password") == 1


def test_an_own_password_needs_the_old_one_and_logs_others_out(client: Callable) -> None:
    here, there = client("cy"), client("cy")
    new = {"password": "a fresh password", "again": "a fresh password"}
    assert here.post("/account/password", present="wrong", **new).status_code == 422
    assert here.post("/account/password", present=PASSWORD, **new).url.path == "/account"
    assert there.get("/").url.path == "/login"


def test_a_token_is_shown_once_and_ends_when_revoked(client: Callable, people: Store) -> None:
    cy, dee = client("cy"), client("dee")
    secret = re.search(r'id="token" value="([\w-]+)"', cy.post("/account/tokens", name="my script").text)[1]
    page = cy.get("/account").text
    assert secret not in page and "my script" in page
    token = re.search(r'name="token" value="(\w+)"', page)[1]
    for who, holds in ((dee, True), (cy, False)):
        who.post("/account/tokens/revoke", token=token)
        with people.read() as connection:
            assert (accounts.find_token(connection, secret) is not None) == holds


def test_languages_and_logging_out_everywhere(client: Callable, people: Store) -> None:
    one, other = client("cy"), client("cy")
    page = one.http.post(
        "/account/languages", data={"csrf": one.csrf, "locale": "zh_Hans", "languages": ["zh", "xx", "en"]}
    )
    assert "您的账号" in page.text
    with people.read() as connection:
        assert accounts.find_account(connection, "cy").languages == ("en", "zh")
    one.post("/account/logout")
    with people.read() as connection:
        own = select(func.count()).select_from(sessions).where(sessions.c.account == "cy")
        assert connection.execute(own).scalar() == 0
    assert other.get("/account").url.path == "/login"


def test_numbers_of_one_s_own(client: Callable, people: Store) -> None:
    cy = client("cy")
    item = cy.next("demonstration/train/0")
    cy.post(item, text="hello", seconds="40")
    cy.post(item, text="hello again", seconds="20")
    cy.post(cy.next("demonstration/train/0"), text="hello", seconds="120")
    with people.read() as connection:
        assert workforce.done_by_task(connection, "cy") == [("demonstration", "train", 2, 180 / 3600, 90)]
        (person,) = [each for each in workforce.people(connection) if each.id == "cy"]
    assert (person.items, person.hours) == (2, 180 / 3600) and person.seen is not None
    assert '<td class="number">90</td>' in cy.get("/account").text


def standing_of(store: Store, task: str = "ranking"):
    with store.read() as connection:
        return next(each for each in standings(connection) if each.work.task == task)


def test_a_work_tells_how_it_goes(client: Callable, people: Store) -> None:
    before = standing_of(people)
    assert (before.done, before.total, before.leased, before.workers) == (6, 9, 0, ())  # ann's and bob's, overlap 3
    cy = client("cy")
    with people.read() as connection:
        keys = list(connection.execute(select(slots.c.key).where(slots.c.done.is_not(None))).scalars())
    yesterday = timestamp(datetime.now(UTC) - timedelta(hours=25))
    people.write(lambda c: c.execute(slots.update().where(slots.c.key == keys[0]).values(done=yesterday)))
    cy.post(cy.next(), **{f"{what}-{letter}": "1" for what in ("rank", "overall") for letter in "ABC"}, seconds="50")
    after = standing_of(people)  # cy holds the next one
    assert (after.done, after.total, after.leased, after.workers) == (7, 9, 1, ("cy",))
    assert (after.last_day, after.days_left, after.seconds, after.hours_left) == (6, 2 / 6, 50, 100 / 3600)
    page = client("lead").get("/lead/tasks")
    assert "7 of 9" in page.text and "<bdi>cy</bdi>" in page.text and "about 8 hours" in page.text


def test_work_is_put_on_offer_changed_and_withdrawn(client: Callable, people: Store) -> None:
    lead = client("lead")
    fields = RANKING | {"purpose": "evaluation", "pool": "reward_model", "overlap": "2"}
    assert "Open judgements: 6" in lead.post("/lead/tasks/offer", **fields).text
    assert "Open judgements: 9" in lead.post("/lead/tasks/change", **fields | {"overlap": "3"}).text
    work = Work("ranking", purpose="evaluation")
    held = claim(people, [work], "cy", 10)
    assert "Open judgements: 3" in lead.post("/lead/tasks/change", **fields | {"overlap": "1"}).text
    assert "Open judgements: 6" in lead.post("/lead/tasks/change", **fields | {"overlap": "2"}).text
    with people.read() as connection:
        kept = connection.execute(select(slots.c.labeler).where(slots.c.key == held.key)).scalar_one()
    assert kept == "cy"
    lead.post("/lead/tasks/withdraw", **fields)
    page = lead.get("/lead/tasks")
    assert ">withdrawn<" in page.text and "Put on offer again" in page.text
    assert lead.post("/lead/tasks/withdraw", **fields | {"pool": "ppo"}).status_code == 404
    assert what_happened(people).count("put on offer") == 4 and what_happened(people)[-1] == "withdrew"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"task": "nothing"}, "task"),
        ({"overlap": "0.5"}, "1 to 50"),
        ({"overlap": "nan"}, "1 to 50"),
        ({"round": "x"}, "0 to 1000"),
        ({"task": "demonstration", "purpose": "evaluation"}, "not for evaluation"),
        ({"pool": "sft"}, "on offer for this already"),
    ],
)
def test_work_that_makes_no_sense_is_refused(client: Callable, people: Store, wrong: dict, says: str) -> None:
    page = client("lead").post("/lead/tasks/offer", **RANKING | {"overlap": "1"} | wrong)
    assert page.status_code == 422 and says in page.text
    assert len(standing_of(people).work.pool or "") == 0


def test_slots_that_went_come_back_whatever_their_numbers(people: Store) -> None:
    work = Work("demonstration", purpose="evaluation", overlap=3)
    offer(people, work)
    first, second = (claim(people, [work], name, 10) for name in ("cy", "dee"))
    assert first.item == second.item
    skip(people, work, first.item, "cy", "unclear")
    for overlap, there_are in ((1, 1), (2, 2), (3, 3)):
        offer(people, replace(work, overlap=overlap))
        with people.read() as connection:
            row = find_work(connection, "demonstration", "evaluation", 0, "train", "")
        people.write(lambda connection, row=row: trim(connection, work_at(row)))
        with people.read() as connection:
            own = select(slots.c.key).where(slots.c.purpose == "evaluation", slots.c.item == first.item)
            keys = list(connection.execute(own).scalars())
        assert len(keys) == there_are and second.key in keys


def test_items_that_labelers_make_come_and_go_by_their_number(people: Store) -> None:
    work = Work("prompt")
    assert put_on_offer(people, "lead", work, {"number": 5}) == 5
    held = claim(people, [work], "cy", 10)
    assert put_on_offer(people, "lead", work, {"number": 0}) == 1
    assert put_on_offer(people, "lead", work, {"number": 3}) == 3
    with people.read() as connection:
        asked = select(slots.c.item).where(slots.c.task == "prompt").order_by(slots.c.item)
        assert sorted({*connection.execute(asked).scalars()} | {held.item}) == ["new/0", "new/1", "new/2"]


def test_what_was_set_aside_is_asked_nobody_until_it_is_put_back(client: Callable, people: Store) -> None:
    work = Work("demonstration")
    first = {}
    for name in ("cy", "dee"):
        slot = claim(people, [work], name, 10)
        skip(people, work, slot.item, name, "unclear", note=f"<b>{name}</b> 说不清")
        first[name] = slot.item
    assert first["cy"] == first["dee"]
    standing = standing_of(people, "demonstration")
    assert (standing.skipped, standing.aside, standing.total) == (2, 1, 4)
    with people.read() as connection:
        assert current_left(connection, "ann") == 2
    lead = client("lead")
    fields = RANKING | {"task": "demonstration"}
    page = lead.get("/lead/tasks/passed", params=fields)
    assert "&lt;b&gt;cy&lt;/b&gt; 说不清" in page.text and "Set aside" in page.text
    page = lead.post("/lead/tasks/back", **fields, item=first["cy"])
    assert "No item is set aside" in page.text
    assert lead.post("/lead/tasks/back", **fields, item=first["cy"]).status_code == 404
    assert claim(people, [work], "cy", 10).item == first["cy"]
    write_setting(people, "set_aside", 1, "lead")
    skip(people, work, first["cy"], "cy", "unclear")
    assert claim(people, [work], "dee", 10).item != first["cy"]


def current_left(connection, labeler: str) -> int:
    """Items of demonstrations that are not set aside."""
    asked = select(func.count(slots.c.item.distinct())).where(slots.c.task == "demonstration")
    aside = select(skips.c.item).group_by(skips.c.item).having(func.count() > 1)
    return connection.execute(asked.where(slots.c.item.not_in(aside))).scalar()


def test_what_cannot_be_judged_can_be_put_back(client: Callable, people: Store) -> None:
    offer(people, Work("ranking", purpose="evaluation"))
    work = Work("ranking", purpose="evaluation")
    slot = claim(people, [work], "cy", 10)
    skip(people, work, slot.item, "cy", "cannot", final=True)
    lead = client("lead")
    fields = RANKING | {"purpose": "evaluation"}
    page = lead.get("/lead/tasks/passed", params=fields)
    assert "“Cannot be judged”" in page.text and "<bdi>cy</bdi>" in page.text
    lead.post("/lead/tasks/back", **fields, item=slot.item)
    with people.read() as connection:
        row = connection.execute(select(slots).where(slots.c.key == slot.key)).one()
    assert (row.labeler, row.done) == (None, None)


def test_every_task_has_its_guidelines() -> None:
    names = {
        f"{task}-{purpose}.{locale}.md" for task, kinds in PURPOSES.items() for purpose in kinds for locale in LOCALES
    }
    assert {path.name for path in SHIPPED.iterdir()} == names
    for path in SHIPPED.iterdir():
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ") and len(text) > 300 and text.endswith("\n") and "\t" not in text


def test_guidelines_have_versions(client: Callable, people: Store) -> None:
    lead = client("lead")
    place = "/lead/guidelines/ranking/train/en"
    base = re.search(r'name="base" value="(\d*)"', lead.get(place).text)[1]
    page = lead.post(place, text="# Mine <script>alert(1)</script>", do="preview", base=base)
    assert "<h1>Mine &lt;script&gt;" in page.text and "<script>alert" not in page.text
    assert lead.post(place, text=" ", do="save", base=base).status_code == 422
    lead.post(place, text="Be kind, be brief.", do="save", base=base)
    late = lead.post(place, text="Another", do="save", base=base)
    assert late.status_code == 422 and "Somebody has saved" in late.text
    lead.post(place, text="Be kind, be very brief.", do="save", base="1")
    page = lead.get(place, params={"version": "2", "with": "1"})
    assert "<ins>very </ins>" in page.text.replace("<ins>very</ins> ", "<ins>very </ins>")
    lead.post(place + "/restore", version="0")
    with people.read() as connection:
        current = current_guideline(connection, "ranking", "train", "en")
    assert current.id == "ranking/train/en/3"
    assert current.text == (SHIPPED / "ranking-train.en.md").read_text(encoding="utf-8")
    for wrong in (
        "/lead/guidelines/ranking/train/fr",
        "/lead/guidelines/a/b/en",
        place + "?version=9",
        place + "?version=²",
    ):
        assert lead.get(wrong).status_code == 404
    cy = client("cy")
    assert 'name="guideline" value="ranking/train/en/3"' in cy.get(cy.next()).text


@pytest.mark.parametrize(
    ("old", "new"),
    [("a b\nc\n", "a x b\nc\n"), ("", "all new"), ("很好的回答", "很差的回答"), ("x" * 9, ""), ("same", "same")],
)
def test_changes_hold_both_texts(old: str, new: str) -> None:
    pieces = changes(old, new)
    assert "".join(text for kind, text in pieces if kind != "new") == old
    assert "".join(text for kind, text in pieces if kind != "old") == new
    assert ("same", "很") in pieces or "很" not in old


def test_boxes_in_the_project_s_words(client: Callable, people: Store) -> None:
    lead = client("lead")
    rows = {f"en-{name}": label for name, label in BOXES.items()} | {f"shown-{name}": "yes" for name in BOXES}
    rows |= {f"place-{name}": str(place) for place, name in enumerate(BOXES, 2)}
    rows |= {"name-new-0": "cites", "en-new-0": "100% <b>sourced</b>", "zh_Hans-new-0": "注明出处"}
    rows |= {"shown-new-0": "yes", "place-new-0": "1"}
    rows |= {"sensitive-new-0": "yes", "sensitive-violent": "yes"}
    del rows["shown-violent"]
    add_rating(
        people, Rating(id="old", prompt_id="p0", response_id="r00", labeler="ann", overall=5, flags={"violent": True})
    )
    assert lead.post("/lead/settings/boxes", **rows | {"name-new-0": "No Name"}).status_code == 422
    assert lead.post("/lead/settings/boxes", **rows | {"name-new-0": "violent"}).status_code == 422
    assert lead.post("/lead/settings/boxes", **rows | {"en-opinion": " "}).status_code == 422
    assert lead.post("/lead/settings/boxes", **rows).status_code == 200
    with people.read() as connection:
        shown = read_boxes(connection, BOXES)
        assert sorted(read_setting(connection, "sensitive_boxes", [])) == ["cites", "violent"]
        chinese = read_boxes(connection, BOXES, "zh_Hans")
        assert connection.execute(select(ratings.c.flags).where(ratings.c.id == "old")).scalar() == {"violent": True}
    assert next(iter(shown.items())) == ("cites", "100% <b>sourced</b>") and chinese["cites"] == "注明出处"
    assert "violent" not in shown and len(shown) == len(BOXES)
    cy = client("cy")
    offer(people, Work("rating"))
    for work in ("ranking/train/0", "rating/train/0"):
        page = cy.get(cy.next(work)).text
        assert "100% &lt;b&gt;sourced&lt;/b&gt;" in page and "Contains violent content" not in page
    cy.http.cookies.set("heedful_locale", "zh_Hans")
    page = cy.get(cy.next()).text
    assert "注明出处" in page and "凭空捏造" in page
    assert "Contains violent content" in lead.get("/lead/settings").text


def test_numbers_of_the_project(client: Callable, people: Store) -> None:
    lead = client("lead")
    good = {"gold_rate": "0.1", "lease_minutes": "1", "set_aside": "3", "pass_agreement": "0.75", "pass_grade": "6"}
    for wrong in ({"gold_rate": "2"}, {"lease_minutes": "soon"}, {"set_aside": "0"}):
        page = lead.post("/lead/settings/numbers", **good | wrong)
        assert page.status_code == 422 and f'value="{next(iter(wrong.values()))}"' in page.text
    lead.post("/lead/settings/numbers", **good)
    cy = client("cy")
    cy.next()
    with people.read() as connection:
        assert read_number(connection, "gold_rate") == 0.1
        expires = connection.execute(select(slots.c.expires).where(slots.c.labeler == "cy")).scalar_one()
    assert expires < timestamp(datetime.now(UTC) + timedelta(minutes=2))


def test_the_list_of_events_shows_each_once(client: Callable, people: Store) -> None:
    at = timestamp()

    def put(connection) -> None:
        rows = [
            {"id": f"e{n:03}", "at": at, "account": "ann", "what": "tested", "detail": {"n": n}} for n in range(230)
        ]
        connection.execute(events.insert(), rows)

    people.write(put)
    lead, path, seen = client("lead"), "/lead/events?account=ann&what=tested", []
    while path:
        page = lead.get(path).text
        seen += [int(n) for n in re.findall(r'<span class="quiet">n</span> <bdi>(\d+)</bdi>', page)]
        older = re.search(r'href="(/lead/events\?[^"]+)"', page)
        path = older and older[1].replace("&amp;", "&")
    assert seen == list(range(229, -1, -1))
    assert "logged in" in lead.get("/lead/events", params={"account": "lead"}).text


PAGES = (
    "/lead/people",
    "/lead/tasks",
    "/lead/guidelines",
    "/lead/principles",
    "/lead/guidelines/ranking/train/en",
    "/lead/settings",
    "/lead/events",
    "/account",
)


@pytest.mark.parametrize(("locale", "width"), [pytest.param("en", 1200, marks=pytest.mark.accept), ("zh-CN", 390)])
def test_axe_finds_nothing_serious_and_no_page_is_wider_than_the_screen(
    open_page: Callable[..., Page], locale: str, width: int
) -> None:
    page = open_page("admin", locale=locale, viewport={"width": width, "height": 900})
    for path in PAGES:
        page.goto(path)
        found = Axe().run(page).response["violations"]
        grave = [each for each in found if each["impact"] in ("serious", "critical")]
        assert grave == [], (path, [(each["id"], each["nodes"][0]["html"]) for each in grave])
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_who_leads_finds_the_next_step_where_nothing_is_on_offer(client: Callable, people: Store) -> None:
    with people.read() as connection:
        offered = on_offer(connection)
    for work, _ in offered:
        withdraw(people, work)
    for name, leads in (("admin", True), ("lead", True), ("cy", False)):
        page = client(name).get("/").text
        main = page[page.index("<main") :]
        assert "Nothing is on offer" in main
        assert ('href="/lead/people"' in main and 'href="/lead/tasks"' in main) == leads


def test_finished_work_that_was_taken_off_is_done_and_not_withdrawn(client: Callable, people: Store) -> None:
    cy, work = client("cy"), Work("demonstration", round=0, overlap=1)
    lead = client("lead")
    lead.post("/lead/tasks/withdraw", task="ranking", purpose="train", round="0", group="train", pool="")
    offer(people, work)
    people.write(lambda connection: trim(connection, work))
    for _ in range(3):
        cy.post(cy.next("demonstration/train/0"), text="Hello")
    withdraw(people, work)
    page = lead.get("/lead/tasks").text
    assert page.count(">done<") == 1 and page.count(">withdrawn<") == 1
