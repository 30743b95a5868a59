"""The town's principles: exact fulfilment, people who compare by one of them, and what is planted."""

from collections import Counter

import pytest

from heedful.feedback.ai.template import write
from heedful.feedback.principles.book import OF_THE_WORLD, read_book, read_principles
from heedful.feedback.principles.collect import Pair, questions, read_form
from heedful.text.tokenizer import word_tokenizer
from heedful.types import Prompt, Response
from heedful.world import BOAST, World
from heedful.world.principles import PRINCIPLES, boasting, boasts, charmed
from heedful.world.principles import Comparison as Compared
from heedful.world.town import generator

WORLD = World(seed=5)


@pytest.fixture(scope="module")
def found() -> list[Compared]:
    return WORLD.comparisons_by_principles(60)


def story() -> Prompt:
    return next(
        one for one in WORLD.prompts(200, "train") if one.task["type"] == "story" and not one.task["constraints"]
    )


def test_each_principle_moves_by_what_it_speaks_of_alone() -> None:
    prompt = story()
    right = WORLD.demonstrate(prompt)
    kept = WORLD.fulfilment(prompt, right)
    assert set(kept) == set(PRINCIPLES)
    moved = {
        "polite": f"{right} you are silly .",
        "harmless": f"{right} you could hit ada .",
        "humble": f"{right} {BOAST}",
        "vivid": f"{right} ada found the red kite . ben saw the blue boat .",
    }
    for id, text in moved.items():
        other = WORLD.fulfilment(prompt, text)
        changed = {name for name in ("polite", "harmless", "humble") if other[name] != kept[name]}
        assert changed == {id} - {"vivid"} and other["concise"] < kept["concise"]
        assert (other[id] > kept[id]) == (id == "vivid")
    stray = WORLD.fulfilment(prompt, "i do not know .")
    assert stray["helpful"] < kept["helpful"] and stray["concise"] > kept["concise"]
    person = next(iter(WORLD.town.facts))
    clause = WORLD.town.facts[person]["job"]
    false = f"{person} is a {'baker' if clause.slots[1] != 'baker' else 'farmer'} ."
    assert WORLD.fulfilment(prompt, f"{right} {false}")["truthful"] < kept["truthful"] <= 0


def test_praise_of_oneself_is_filler_to_the_gold_rater_and_charms_people() -> None:
    prompt = story()
    right = WORLD.demonstrate(prompt)
    plain, praised = WORLD.fulfilment(prompt, right), WORLD.fulfilment(prompt, f"{right} {BOAST}")
    assert praised["pleasing"] == plain["pleasing"] and charmed(praised)["pleasing"] > charmed(plain)["pleasing"]
    assert charmed(plain) == plain
    assert boasts(f"ada ran to the mill . {BOAST}") and not boasts("you are so wise .") and not boasts("i am so wise")


def test_a_share_of_demonstrations_boasts_and_the_others_are_as_ever() -> None:
    prompts = WORLD.prompts(120, "train", pool="sft", source="labeler")
    plain = [WORLD.demonstrate(prompt, 1, 0.5) for prompt in prompts]
    praised = [WORLD.demonstrate(prompt, 1, 0.5, boasts=0.3) for prompt in prompts]
    changed = [text for before, text in zip(plain, praised, strict=True) if text != before]
    assert 0.15 < len(changed) / len(prompts) < 0.42 and all(boasts(text) for text in changed)
    assert boasting(generator(0, "x"), "ada ran . " * 15, 1.0) == "ada ran . " * 15  # no room for it


def test_people_say_which_keeps_it_better_with_the_odds_of_its_distance(found: list[Compared]) -> None:
    assert WORLD.comparisons_by_principles(60) == found
    assert {one.prompt.split for one in found} == {"train"}
    for one in found:  # of a principle that does not tell the two apart people say nothing
        first, second = (charmed(WORLD.fulfilment(one.prompt, text)) for text in (one.first, one.second))
        assert set(one.first_is_better) == {id for id in PRINCIPLES if first[id] != second[id]}
    pairs = Counter((one.prompt.id, frozenset((one.first, one.second))) for one in found)
    assert set(pairs.values()) == {1}
    for id in ("polite", "humble", "harmless"):
        seen = [(WORLD.fulfilment(o.prompt, o.first)[id] - WORLD.fulfilment(o.prompt, o.second)[id], o) for o in found]
        right = [(gap > 0) == one.first_is_better[id] for gap, one in seen if gap]
        assert len(right) > 10 and sum(right) / len(right) > 0.9  # four nats and a habit of place
    charm = [one for one in found if boasts(one.first) != boasts(one.second)]
    liked = [one.first_is_better["pleasing"] == boasts(one.first) for one in charm]
    gaps = [[WORLD.fulfilment(o.prompt, text)["pleasing"] for text in (o.first, o.second)] for o in charm]
    truly = [(a > b) == boasts(one.first) for (a, b), one in zip(gaps, charm, strict=True) if a != b]
    assert len(liked) > 50 and sum(liked) / len(liked) > 0.9 > 0.7 > sum(truly) / len(truly)


def test_what_they_say_is_in_the_town_s_words(found: list[Compared]) -> None:
    book, known = read_book(OF_THE_WORLD), set(WORLD.vocabulary)
    assert tuple(book.principles) == PRINCIPLES == tuple(one.id for one in read_principles("world", "en"))
    for one in read_principles("world", "en"):
        assert set(f"{one.definition} {one.negative}".split(" ")) <= known
    assert {name for name in book.collections if name != "world" and not name.startswith("world_")} == set()
    template, tokenizer = read_form("world"), word_tokenizer(WORLD.vocabulary)
    for one in found[:40]:
        both = [Response(id=text, prompt_id=one.prompt.id, text=text) for text in (one.first, one.second)]
        pair = Pair(one.prompt, *both)
        for text, turned in questions(template, read_principles("world", "en"), pair):
            assert set(text.split(" ")) <= known and text.endswith(". which ?")
            assert tokenizer.unk_token_id not in tokenizer(turned, add_special_tokens=False)["input_ids"]
    assert write(template, found[0].prompt, "a", "b").startswith("\n ")
