"""Every task in a real browser: by keyboard, by pointer, without JavaScript and on a phone, in English and Chinese."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from hands import LOCALES, OPTIONS, Do, Hands, Way
from heedful.store.chats import all_chats
from heedful.store.database import Store
from heedful.store.labels import add_response
from heedful.store.pools import prompts_with_pool
from heedful.store.progress import Work
from heedful.store.records import is_current, select_records
from heedful.store.schema import demonstrations, rankings, ratings, skips
from heedful.store.slots import offer
from heedful.types import Demonstration, Ranking, Rating, Response
from heedful.web.config import WebConfig
from model_servers import part, planted
from web.conftest import PASSWORD, Served, open_page, quick_hashes, served

pytestmark = pytest.mark.accept
__all__ = ["open_page", "planted", "quick_hashes", "served"]

NAME = "cy"
ANSWERS = Work("demonstration", overlap=2)
RANKING, FINAL = Work("ranking", overlap=3), Work("ranking", purpose="evaluation")
RATING, COMPARISON = Work("rating"), Work("comparison")
TOXICITY = Work("toxicity", purpose="evaluation")
PLAIN, FEW_SHOT, USER_BASED = (Work("prompt", round=round) for round in (1, 2, 3))
RED_TEAM, CHAT = Work("red_team"), Work("chat")
KINDS = {PLAIN: "plain", FEW_SHOT: "few_shot", USER_BASED: "user_based"}
PASSED, IMPOSSIBLE = (False, "knowledge", "about boats"), (True, "cannot", "")
HEADS = {
    "demonstration": "Write a response",
    "ranking": "Rate and rank responses",
    "rating": "Rate one response",
    "comparison": "Compare two responses",
    "toxicity": "Judge continuations for toxicity",
    "prompt": "Write prompts",
    "red_team": "Try to make the model fail",
    "chat": "Chat and choose the better answer",
}


def answered(body: dict, n: int) -> Iterator[str]:
    yield part(f"You said **{body['messages'][-1]['content']}**, ")
    yield part(f"and this is answer {n}.")
    yield part(end="stop")
    yield "data: [DONE]\n\n"


@pytest.fixture
def app(served: Served, planted: Callable[..., str]) -> Served:
    """Every task on offer, and models to chat with."""
    models = {name: planted(answered) for name in ("left", "right")}
    served.server.config.app.state.config = WebConfig(models=models)
    long = [Response(id=f"long{n}", prompt_id="p0", text=f"{n}: a long line of words.\n\n" * 60) for n in range(2)]
    add_response(served.store, *long, round=4)
    for work in (FINAL, RATING, COMPARISON, TOXICITY, Work("comparison", round=4)):
        offer(served.store, work)
    for work in (*KINDS, RED_TEAM, CHAT):
        offer(served.store, work, {"number": 3} | ({"kinds": {KINDS[work]: 1}} if work in KINDS else {}))
    return served


def current(store: Store, kind: type[Any]) -> list[Any]:
    """The judgements of ours that stand, the newest last."""
    table = {Demonstration: demonstrations, Ranking: rankings, Rating: ratings}[kind]
    with store.read() as connection:
        return select_records(connection, kind, table.c.labeler == NAME, is_current(table))


def of_work(store: Store, kind: type[Any], work: Work) -> list[Any]:
    """Those of the work: their ids say so."""
    return [one for one in current(store, kind) if one.id.startswith(f"{work.task}/{work.purpose}/{work.round}/")]


def write_an_answer(hands: Hands) -> None:
    hands.write("#text", "好的, here it is.")
    hands.submit()


def answer_stands(store: Store) -> bool:
    return [one.text for one in current(store, Demonstration)] == ["好的, here it is."]


def rank(hands: Hands) -> None:
    """B best, A and C tied behind it; B hallucinates."""
    page, letters, places, marks = hands.page, "ABC", "212", "475"
    assert [page.input_value(f"#rank-{letter}") for letter in letters] == ["", "", ""]
    if hands.typing:
        hands.reach("#response-A")
        hands.press("2", "Shift+4", "ArrowDown", "1", "Shift+7", "ArrowDown", "2", "Shift+5", "ArrowUp")
        hands.tick("box-B-hallucination")
    else:
        for letter, place, mark in zip(letters, places, marks, strict=True):
            put_in_place(hands, letter, place)
            hands.tick(f"overall-{letter}", mark)
        hands.tick("box-B-hallucination")
    assert [page.input_value(f"#rank-{letter}") for letter in letters] == [*places]
    hands.submit()


def put_in_place(hands: Hands, letter: str, place: str) -> None:
    chip, tier = f'.chip[data-letter="{letter}"]', f'.tier[data-rank="{place}"]'
    if hands.way == "no JavaScript":
        hands.choose(f"#rank-{letter}", place)
    elif hands.way == "phone":
        hands.touch(chip)
        hands.touch(f"{tier} .tier-name")
    else:
        hands.page.drag_and_drop(chip, tier)


def ranking_of(work: Work) -> Callable[[Store], bool]:
    def stands(store: Store) -> bool:
        (made,) = of_work(store, Ranking, work)
        ids = dict(zip("ABC", made.responses, strict=True))
        rated = {r.response_id: r for r in current(store, Rating) if r.purpose == work.purpose and r.flags}
        marks = [rated[ids[letter]].overall for letter in "ABC"]
        ticked = [letter for letter in "ABC" if rated[ids[letter]].flags["hallucination"]]
        return (made.rank, marks, ticked) == ((2, 1, 2), [4, 7, 5], ["B"]) and made.guideline != "unknown"

    return stands


def rate(hands: Hands) -> None:
    if hands.typing:
        hands.press("6")
    else:
        hands.tick("overall", "6")
    hands.tick("box-opinion")
    hands.submit()


def rating_stands(store: Store) -> bool:
    made = [one for one in current(store, Rating) if one.overall == 6]
    return [[name for name, ticked in one.flags.items() if ticked] for one in made] == [["opinion"]]


def compare(hands: Hands) -> None:
    """B is clearly better; of the next two, both are bad."""
    for keys, value in (("bb", "b2"), ("-", "neither")):
        if hands.typing:
            hands.press(*keys)
        else:
            hands.tick("choice", value)
        hands.submit()


def comparisons_stand(store: Store) -> bool:
    made = [(one.rank, one.strength, one.both_bad) for one in of_work(store, Ranking, COMPARISON)]
    return sorted(made) == [((1, 1), None, True), ((2, 1), 2, False)]


def judge_toxicity(hands: Hands) -> None:
    """The n-th answer to each question, from A on: 2 3 6 1, 2 3 6 2, 2 3 6 3."""
    page = hands.page
    if page.locator("#hurtful:not([open])").count():
        hands.go("#hurtful summary")
    if hands.typing:
        hands.press(*"236123622363")
    else:
        names = page.locator("[data-keys]").evaluate_all("all => all.map(one => one.id)")
        for number, name in enumerate(names):
            mark = ("1", "1", "6", str(number // 4 + 1))[number % 4]
            hands.tick(name, mark)
    hands.submit()


def toxicity_stands(store: Store) -> bool:
    (preference,) = of_work(store, Ranking, TOXICITY)
    marks = [one for one in current(store, Rating) if one.scales]
    scales = {"toxicity": 1, "relative_toxicity": 1, "continuity": 6}
    return preference.rank == (3, 2, 1) and [one.scales for one in marks] == [scales] * 3


def write_a_prompt(hands: Hands) -> None:
    hands.write("#text", f"Write about the harbour. {hands.page.url[-6:]}")
    hands.choose("#use_case", "generation")
    hands.submit()


def write_pairs(hands: Hands) -> None:
    hands.write("#instruction", "Say its colour")
    for n, (query, response) in enumerate((("apple", "red"), ("plum", "blue")), 1):
        hands.write(f"#query-{n}", query)
        hands.write(f"#response-{n}", response)
    hands.go_to_page('button[value="remove-3"]')
    hands.choose("#use_case", "classification")
    hands.submit()


def prompt_of(kind: str) -> Callable[[Store], bool]:
    def stands(store: Store) -> bool:
        made = [prompt for prompt, _ in prompts_with_pool(store) if prompt.user == NAME and prompt.kind == kind]
        return bool(made) and made[0].text.startswith(("apple", "plum") if kind == "few_shot" else "Write about")

    return stands


def say_something(hands: Hands, text: str, answers: int) -> None:
    hands.write("#message", text)
    if hands.typing:
        hands.press("Control+Enter")
    else:
        hands.go("#send")
    expect(hands.page.locator(".answer .text strong", has_text=text)).to_have_count(answers)


def make_it_fail(hands: Hands) -> None:
    say_something(hands, "Be unkind", 1)
    hands.tick("success", "3")
    hands.tick("harm-insult")
    hands.write("#ideal", "No.")
    hands.go_to_page("#submit")


def attempt_stands(store: Store) -> bool:
    with store.read() as connection:
        (chat,) = [chat for chat in all_chats(connection) if chat.kind == "red_team"]
    said = [turn.text for turn in chat.turns], chat.marks["success"], chat.marks["harms"], chat.marks["ideal"]
    return said == (["Be unkind"], 3, ["insult"], "No.")


def talk(hands: Hands) -> None:
    """Two turns: B is better, then both are bad."""
    for text, value in (("Good morning", "b1"), ("And then", "neither")):
        say_something(hands, text, 2)
        hands.tick("choice", value)
        hands.go_to_page("#choose")
    hands.go_to_page("#submit")


def talk_stands(store: Store) -> bool:
    made = sorted((one for one in current(store, Ranking) if "/chat/" in one.id), key=lambda one: one.prompt_id)
    return [(one.rank, one.strength, one.both_bad) for one in made] == [((2, 1), 1, False), ((1, 1), None, True)]


def pass_over(hands: Hands) -> None:
    """With a reason and a note."""
    first = hands.page.url
    hands.go("#skip summary")
    hands.tick("reason", "knowledge")
    hands.write("#note", "about boats")
    hands.go_to_page("#skip button")
    assert hands.page.url.split("?")[0] != first
    expect(hands.page.locator(".notice")).to_contain_text(hands.say("Passed over; somebody else gets it."))


def pass_over_and_back(hands: Hands) -> None:
    first = hands.page.url
    pass_over(hands)
    hands.go_to_page(".notice button")
    assert hands.page.url == first


def passed_over(store: Store) -> list[tuple[bool, str, str]]:
    with store.read() as connection:
        asked = select(skips.c.final, skips.c.reason, skips.c.note).where(skips.c.labeler == NAME)
        return sorted(tuple(row) for row in connection.execute(asked))


def call_it_impossible(hands: Hands) -> None:
    hands.go("#skip summary")
    hands.tick("reason", "cannot")
    hands.go_to_page("#skip button")


def correct(hands: Hands) -> None:
    """Open what was submitted last but for the item at hand, and write on."""
    head = hands.say(HEADS["demonstration"])
    hands.go_to_page("a.home")
    links = hands.page.locator(".last a", has_text=head)
    address = links.first.get_attribute("href")
    hands.go_to_page(f'.last a[href="{address}"]')
    hands.write("#text", " More.")
    hands.submit()
    expect(hands.page.locator(".notice")).to_have_text(hands.say("Your correction is saved as a new version."))


def correction_stands(store: Store) -> bool:
    with store.read() as connection:
        all_of = select_records(connection, Demonstration, demonstrations.c.labeler == NAME)
    standing = current(store, Demonstration)
    return len(all_of) == 2 and [one.text for one in standing] == ["好的, here it is. More."]


class Job(NamedTuple):
    work: Work
    do: Do
    stands: Callable[[Store], bool]


JOBS = {
    "passed over and undone": Job(ANSWERS, pass_over_and_back, lambda store: passed_over(store) == []),
    "demonstration": Job(ANSWERS, write_an_answer, answer_stands),
    "correction": Job(ANSWERS, correct, correction_stands),
    "passed over": Job(ANSWERS, pass_over, lambda store: passed_over(store) == [PASSED]),
    "ranking": Job(RANKING, rank, ranking_of(RANKING)),
    "final evaluation": Job(FINAL, rank, ranking_of(FINAL)),
    "cannot be ranked": Job(RANKING, call_it_impossible, lambda store: passed_over(store) == [PASSED, IMPOSSIBLE]),
    "rating": Job(RATING, rate, rating_stands),
    "comparison": Job(COMPARISON, compare, comparisons_stand),
    "toxicity": Job(TOXICITY, judge_toxicity, toxicity_stands),
    "prompt, plain": Job(PLAIN, write_a_prompt, prompt_of("plain")),
    "prompt, few-shot": Job(FEW_SHOT, write_pairs, prompt_of("few_shot")),
    "prompt, user-based": Job(USER_BASED, write_a_prompt, prompt_of("user_based")),
    "red teaming": Job(RED_TEAM, make_it_fail, attempt_stands),
    "chat of two answers": Job(CHAT, talk, talk_stands),
}


def log_in(hands: Hands) -> None:
    hands.page.goto("/login")
    hands.write("#name", NAME)
    hands.write("#password", PASSWORD)
    hands.go_to_page("form.narrow button.main")


def begin(hands: Hands, work: Work) -> None:
    """From the home page to an item of the work, in the right language."""
    hands.go_to_page("a.home")
    name = f"{work.task}/{work.purpose}/{work.round}"
    hands.go_to_page(f'form:has(input[value="{name}"]) button')
    head = hands.page.locator(".item-head h1")
    expect(head).to_contain_text(hands.say(HEADS[work.task]))
    assert hands.page.get_attribute("html", "lang") == LOCALES[hands.locale].replace("_", "-")
    guideline = hands.page.locator("details.guideline")
    if guideline.get_attribute("open") is not None:
        hands.go("details.guideline summary")


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("way", OPTIONS)
def test_every_task(app: Served, open_page: Callable[..., Page], record_property: Any, way: Way, locale: str) -> None:
    record_property("claim", f"every task in Chromium, {way}, {locale}: done for real, and the judgement stands")
    hands = Hands(open_page("", locale=locale, **OPTIONS[way]), way, locale)
    log_in(hands)
    failures = {}
    for name, job in JOBS.items():
        try:
            begin(hands, job.work)
            job.do(hands)
            assert job.stands(app.store), "what was judged does not stand in the store"
        except Exception as error:  # the others are tried all the same
            failures[name] = " ".join(str(error).split())[:300]
            hands.page.goto("/")
    done = [name for name in JOBS if name not in failures]
    record_property("measured", f"{len(done)} of {len(JOBS)}: {', '.join(done)}")
    assert not failures
