"""The page where a principle is tried on a pair: scores in both orders, of it and of its negation."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse
from starlette.responses import Response as HTTPResponse

from heedful.feedback.principles.book import read_principles
from heedful.store.database import Store
from heedful.web.config import WebConfig
from judge_servers import Judge, running

pytestmark = pytest.mark.parametrize("store_of", ["sqlite"], indirect=True)
SURE = f"{math.log(9):+.2f}"  # of a judge who is sure to 90 %
AGAINST = SURE.replace("+", "−")


def brief(prompt: str) -> float:
    """P(1) of a judge who reads the guideline: few words, or many."""
    shown = re.findall(r"Response [12] - (.*)", prompt)
    if not shown:
        return 0.5  # of what the server is tried with
    first, second = shown
    wanted = (len(first) < len(second)) == ("few words" in prompt)
    return 0.9 if wanted else 0.1


def trying(**more: str) -> dict[str, str]:
    return {
        "model": "judge",
        "language": "en",
        "prompt": "What is the sun?",
        "a": "A star.",
        "b": "The sun, as it is called, is a star among stars.",
        "principle": "",
        "title": "Brief",
        "definition": "It takes few words.",
        "negative": "It takes many.",
        "do": "score",
    } | more


def rows(page: str) -> dict[str, list[str]]:
    """What the table says: row → its cells without tags."""
    found = re.findall(r'<tr data-move="(\w+)">(.*?)</tr>', page, re.DOTALL)
    cells = {name: re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for name, row in found}
    return {name: [re.sub(r"<[^>]+>", "", cell) for cell in each] for name, each in cells.items()}


def test_a_principle_and_its_negation_move_the_score(people: Store, client: Callable) -> None:
    judge = Judge("chat", "logprobs", first=brief)
    with running(judge) as address:
        researcher = client("researcher", config=WebConfig(models={"judge": address}))
        page = researcher.post("/principles", **trying()).text
        assert rows(page) == {
            "kept": [SURE, "–", "A keeps to it better", SURE, SURE],
            "negated": [AGAINST, "–", "B keeps to it better", AGAINST, AGAINST],
        }
        assert len(judge.asked) == 4 and all("What is the sun?" in prompt for prompt in judge.prompts())
        assert sum("Guideline - Brief: It takes few words." in prompt for prompt in judge.prompts()) == 2
        assert sum("Guideline - The opposite of Brief: It takes many." in prompt for prompt in judge.prompts()) == 2
        was = dict(re.findall(r'name="(was-\w+)" value="([^"]+)"', page))
        page = researcher.post("/principles", **trying(definition="It takes many words."), **was).text
    assert rows(page)["kept"] == [AGAINST, SURE, "B keeps to it better", AGAINST, AGAINST]
    assert 'value="Brief"' in page and "It takes many words.</textarea>" in page


def test_a_judge_who_minds_places_alone_says_nothing(people: Store, client: Callable) -> None:
    with running(Judge("chat", "logprobs", first=lambda prompt: 0.9)) as address:
        page = client("lead", config=WebConfig(models={"judge": address})).post("/principles", **trying()).text
    assert rows(page)["kept"] == ["0.00", "–", "none: the two orders disagree", SURE, AGAINST]


def test_what_gives_no_score_says_why(people: Store, client: Callable) -> None:
    with running(Judge("chat")) as address:  # votes
        lead = client("lead", config=WebConfig(models={"judge": address}))
        page = lead.post("/principles", **trying())
        assert page.status_code == 502 and "gives no log-probabilities" in page.text
    gone = lead.post("/principles", **trying(), **{"was-kept": "1.25", "was-negated": "inf"})
    assert gone.status_code == 502 and "cannot be reached" in gone.text and "A star." in gone.text
    assert (
        'name="was-kept" value="1.25"' in gone.text and "was-negated" not in gone.text
    )  # what it came to before stays


def test_texts_beyond_the_model_s_context_are_no_chat(people: Store, client: Callable) -> None:
    def long(body: Any, number: int) -> HTTPResponse:
        return JSONResponse({"error": {"message": "too long", "code": "context_length_exceeded"}}, 400)

    with running(Judge("chat", "logprobs", bad=long)) as address:
        page = client("lead", config=WebConfig(models={"judge": address})).post("/principles", **trying()).text
    said = ["Together the texts are too long for the model; shorten the prompt or a response."]
    assert rows(page) == {"kept": said, "negated": said}


def test_texts_that_were_changed_are_one_s_own(people: Store, client: Callable) -> None:
    lead = client("lead", config=WebConfig(models={"judge": "http://127.0.0.1:1"}))
    own = {part: texts_of("concise")[part] for part in ("title", "definition", "negative")}
    chosen = '<option value="concise" selected>'
    assert chosen in lead.post("/principles", **trying(principle="concise", **own)).text
    changed = trying(principle="concise", **own | {"definition": "It is short.\r\nVery."})
    assert chosen not in lead.post("/principles", **changed).text
    with running(judge := Judge("chat", "logprobs")) as address:
        client("lead", config=WebConfig(models={"judge": address})).post("/principles", **changed)
    assert sum("Concise: It is short. Very.\n" in prompt for prompt in judge.prompts()) == 2  # on one line


def texts_of(id: str) -> dict[str, str]:
    return next(one for one in read_principles("preference", "en") if one.id == id).model_dump()


@pytest.mark.accept
def test_a_served_model_whose_answers_begin_otherwise_gives_none(
    people: Store, client: Callable, small_model: str
) -> None:
    """`heedful serve` with random weights: neither label is among its likeliest tokens."""
    real = client("lead", config=WebConfig(models={"judge": small_model}))
    said = ["The model answered something else than 1 or 2."]
    assert rows(real.post("/principles", **trying()).text) == {"kept": said, "negated": said}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"a": " "}, "Fill in all the fields"),
        ({"negative": ""}, "Fill in all the fields"),
        ({"b": "A star."}, "Both responses are the same"),
        ({"prompt": "x" * 20_001}, "too long"),
        ({"model": "http://127.0.0.1:1"}, "no such model"),
    ],
)
def test_what_cannot_be_asked(people: Store, client: Callable, changed: dict[str, str], said: str) -> None:
    page = client("lead", config=WebConfig(models={"judge": "http://127.0.0.1:1"})).post(
        "/principles", **trying(**changed)
    )
    assert page.status_code == 422 and said in page.text and rows(page.text) == {}


def test_a_shipped_principle_brings_its_texts_in_the_language_the_model_reads(people: Store, client: Callable) -> None:
    lead = client("lead", config=WebConfig(models={"judge": "http://127.0.0.1:1"}))
    page = lead.post("/principles", **trying(do="take", principle="concise", language="zh")).text
    assert 'value="简洁"' in page and "回答用很多话说很少的意思，重复而冗长。</textarea>" in page
    assert "Concise" in lead.get("/principles").text
    assert "No model is connected" in client("lead", config=WebConfig()).get("/principles").text


OWN = """
principles:
  kind:
    en: {title: Kind, definition: It is kind., negative: It is unkind.}
  plain:
    en: {title: Plain, definition: It is plain., negative: It is ornate.}
    zh: {title: 平实, definition: 回答平实。, negative: 回答华丽。}
collections:
  mine: {kind: 2.5, plain: 0}
"""


def test_the_project_has_principles_of_its_own(people: Store, client: Callable, tmp_path: Path) -> None:
    lead = client("lead", config=WebConfig(models={"judge": "http://127.0.0.1:1"}))
    assert "came with heedful" in (page := lead.get("/lead/principles").text) and "interventions" in page
    page = lead.post("/lead/principles", yaml="principles: {}").text
    assert "were not saved" in page and "came with heedful" in page  # what is refused has changed nothing
    page = lead.post("/lead/principles", yaml=OWN).text
    assert "Saved." in page and "the project's own" in page.replace("&#39;", "'")
    assert re.search(r'<th scope="row">kind</th>.*?<td class="number">2.5</td>', page, re.DOTALL)
    tried = lead.get("/principles").text
    assert '<option value="kind">Kind</option>' in tried and "Concise" not in tried
    assert "平实" in lead.post("/principles", **trying(do="take", language="zh", principle="plain")).text
    (tmp_path / "mine.yaml").write_bytes(lead.get("/lead/principles.yaml").content)
    kind, plain = read_principles(f"{tmp_path / 'mine.yaml'}:mine", "en")
    assert (kind.title, kind.weight, plain.weight) == ("Kind", 2.5, 0)
    for wrong, told in (
        (OWN.replace("kind: 2.5", "kin: 2.5"), "no such principle"),
        (OWN.replace("kind:", "kind: &x", 1).replace("mine: {", "mine: *x #"), "by an alias"),
        ("[" * 5000, "no YAML"),
        (f"{OWN}#{'x' * 200_000}\n[", "One of the texts is too long."),
        ("be kind", "below it names with en or zh, below those title, definition, negative"),
    ):
        page = lead.post("/lead/principles", yaml=wrong)
        assert page.status_code == 422 and told in page.text and "principles.yaml:" not in page.text
    assert '<option value="kind">' in lead.get("/principles").text  # what was there stays
    lead.post("/lead/principles", yaml=" ")
    assert "Concise" in lead.get("/principles").text
