"""What a judge is taught on: people's comparisons and marks of answers that no model wrote."""

import math
from collections import Counter

import pytest

from heedful.feedback.ai.template import marks_of, read_template, write, write_score
from heedful.text.tokenizer import word_tokenizer
from heedful.world import Compared, World
from heedful.world.comparisons import RANGE, compare

WORLD = World(seed=5)


@pytest.fixture(scope="module")
def found() -> Compared:
    return WORLD.comparisons(300)


def test_the_same_seed_makes_the_same_and_another_town_another(found: Compared) -> None:
    assert WORLD.comparisons(300) == found
    assert World(seed=6).comparisons(20) != WORLD.comparisons(20)


def test_its_users_are_nobody_else_s(found: Compared) -> None:
    own = {one.prompt.user for one in found.comparisons}
    for pool in ("sft", "rm", "ppo", "eval"):
        assert not own & {prompt.user for prompt in WORLD.prompts(400, "train", pool)}
    assert {one.prompt.split for one in found.comparisons} == {"train"}
    assert {one.prompt.split for one in WORLD.comparisons(20, "valid").marks} == {"valid"}


def test_half_of_the_ordered_pairs_are_compared_and_every_answer_is_marked(found: Compared) -> None:
    marked = Counter(mark.prompt.id for mark in found.marks)
    assert max(marked.values()) == 4 and len(marked) == 300
    share = len(found.comparisons) / sum(number * (number - 1) for number in marked.values())
    assert 0.45 < share < 0.55
    assert all(one.first != one.second for one in found.comparisons)
    assert {mark.mark for mark in found.marks} == set(range(1, 11))


def test_people_prefer_what_is_worth_more_and_a_little_what_comes_first() -> None:
    """Two answers of known worth: P(first) is the logistic function of their distance and the habit."""
    prompts = WORLD.prompts(3000, "train", pool="judge")
    found = compare(0, prompts, 2, lambda prompt, index, flaw: f"i see {'red blue'.split()[index % 2]} .", worth)
    plain = [one for one in found.comparisons if {one.first, one.second} == {"i see red .", "i see blue ."}]
    for better, gap in ((True, 0.46 + 0.3), (False, -0.46 + 0.3)):
        expected = 1 / (1 + math.exp(-gap / 0.6))
        chosen = [one.first_is_better for one in plain if (one.first == "i see red .") == better]
        assert len(chosen) > 200 and sum(chosen) / len(chosen) == pytest.approx(expected, abs=0.07)


def test_answers_may_be_given() -> None:
    prompts = WORLD.prompts(50, "train", pool="judge")
    said = {prompt.id: ["i see red .", "i see blue ."] for prompt in prompts[1:]}
    found = WORLD.comparisons(50, given=said)
    assert {mark.prompt.id for mark in found.marks} == said.keys()
    assert {text for one in found.comparisons for text in (one.first, one.second)} == {"i see red .", "i see blue ."}
    assert [(mark.prompt.id, mark.text) for mark in found.marks] == [(id, text) for id in said for text in said[id]]


def worth(prompt: object, text: str) -> float:
    return {"i see red .": 0.5, "i see blue .": 0.04}.get(text, -5.0)


def test_marks_rise_with_worth(found: Compared) -> None:
    low, high = RANGE
    for mark in found.marks[:200]:
        exact = 1 + 9 * (WORLD.rate(mark.prompt, mark.text).utility - low) / (high - low)
        assert abs(mark.mark - min(10, max(1, exact))) < 5  # four standard deviations of the noise, and rounding


def test_the_world_s_template_asks_in_the_world_s_words(found: Compared) -> None:
    template, tokenizer = read_template("world"), word_tokenizer(WORLD.vocabulary)
    known = set(WORLD.vocabulary)
    for one in found.comparisons[:100]:
        text = write(template, one.prompt, one.first, one.second)
        assert text.endswith(" which ?") and set(text.split(" ")) <= known
        assert tokenizer.unk_token_id not in tokenizer(text, add_special_tokens=False)["input_ids"]
    text = write_score(template, found.marks[0].prompt, found.marks[0].text)
    assert text.endswith(" how many ?") and set(text.split(" ")) <= known
    assert {*template.labels, *marks_of(template)} <= known and len(marks_of(template)) == 10
