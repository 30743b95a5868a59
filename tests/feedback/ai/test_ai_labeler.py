"""What is made of a model's answers: soft labels of both orders, thoughts, marks; and what is not judged."""

import doctest
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import fmean
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.evaluate.judges import Judge, ask
from heedful.feedback.ai import labeler as module
from heedful.feedback.ai.labeler import AILabeler, Outcome, expected_score, share_of_first
from heedful.feedback.ai.template import SCORES, Template, read_template, write, write_score
from heedful.feedback.verdict import Item
from heedful.types import Labeler, Prompt, Ranking, Response

few = settings(max_examples=40, deadline=None, derandomize=True)
WHO = Labeler(id="ai", kind="ai")
HELPFUL = read_template("helpful.base.en")
THINKING = read_template("helpful.base.en", think=True)
HARMLESS = read_template("harmless.base.en")


@dataclass
class Says:
    """Answers by a function of the prompt; remembers what it was asked."""

    answer: Callable[[str], Outcome]
    thought: Callable[[str, int], Outcome] = lambda prompt, n: Outcome(text=" because", new_tokens=2)
    asked: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    labels: Sequence[str] = ()

    def choose(self, prompts: Sequence[str], labels: Sequence[str]) -> list[Outcome]:
        self.asked += prompts
        self.labels = labels
        return [self.answer(prompt) for prompt in prompts]

    def write(
        self, prompts: Sequence[str], n: int, temperature: float, max_tokens: int, seed: int
    ) -> list[list[Outcome]]:
        self.thinking += prompts
        return [[self.thought(prompt, i) for i in range(n)] for prompt in prompts]


def noise(prompt: str) -> Outcome:
    """Log-probabilities that look like chance, the same for the same prompt."""
    draws = [crc32(f"{label}{prompt}".encode()) / 2**32 for label in range(10)]
    return Outcome(logprobs=tuple(-5 * draw for draw in draws), prompt_tokens=7)


def item(*texts: str, id: str = "p") -> Item:
    prompt = Prompt(id=id, text=f"Say {id}", user=id)
    return prompt, [Response(id=f"{id}{n}", prompt_id=id, text=text) for n, text in enumerate(texts)]


def labeler(says: Says, template: Template = HELPFUL, **more: object) -> AILabeler:
    return AILabeler(says, template, WHO, **more)  # type: ignore[arg-type]


def first_label(outcome: Outcome) -> float:
    one, two = (math.exp(x) for x in outcome.logprobs[:2])
    return one / (one + two)


def two(answer: Callable[[str], Outcome]) -> Callable[[str], Outcome]:
    return lambda prompt: Outcome(logprobs=answer(prompt).logprobs[:2])


def test_the_examples() -> None:
    assert doctest.testmod(module).failed == 0


finite = st.floats(-50, 0)


@few
@given(finite | st.just(-math.inf), finite, st.integers(2, 5), st.sampled_from([HELPFUL, HARMLESS]))
def test_a_pure_position_labeler_says_exactly_one_half(a: float, b: float, number: int, template: Template) -> None:
    judge = labeler(Says(lambda prompt: Outcome(logprobs=(a, b))), template)
    [verdict] = judge.judge([item(*(f"text {n}" for n in range(number)))])
    assert verdict.rank == (1,) * number
    assert [first + second for first, second in verdict.preference] == [1.0] * math.comb(number, 2)
    if abs(a - b) > 1e-9:
        assert all(first != 0.5 for first, _ in verdict.preference)  # the habit stays on record


@few
@given(finite, finite)
def test_of_two_labels_turned_round_the_shares_sum_to_exactly_one(a: float, b: float) -> None:
    assert share_of_first((a, b)) + share_of_first((b, a)) == 1.0
    assert share_of_first((a, b)) == pytest.approx(math.exp(a) / (math.exp(a) + math.exp(b)))


def test_what_cannot_be_is_no_error() -> None:
    assert share_of_first((-math.inf, -3.0)) == 0 and share_of_first((-3.0, -math.inf)) == 1
    assert share_of_first((-2000.0, -1.0)) == 0 and share_of_first((-1.0, -2000.0)) == 1


@pytest.mark.parametrize("template", [HELPFUL, HARMLESS], ids=["better", "worse"])
def test_four_responses_by_all_pairs_as_written_out(template: Template) -> None:
    asked = item("one", "two", "three", "four")
    prompt, responses = asked
    [ranking] = ask(labeler(Says(two(noise)), template), [asked], "train").rankings
    share: dict[tuple[int, int], float] = {}
    for (i, a), (j, b) in combinations(enumerate(responses), 2):
        one = first_label(noise(write(template, prompt, a.text, b.text)))
        two_ = 1 - first_label(noise(write(template, prompt, b.text, a.text)))
        if template is HARMLESS:
            one, two_ = 1 - one, 1 - two_
        share[i, j] = (one + two_) / 2
        share[j, i] = 1 - share[i, j]
        place = [*combinations(range(4), 2)].index((i, j))
        assert ranking.preference[place] == pytest.approx((one, two_))
        assert ranking.share()[a.id, b.id] == pytest.approx(share[i, j])
    wins = [fmean(share[i, j] for j in range(4) if j != i) for i in range(4)]
    assert sorted(range(4), key=lambda i: ranking.rank[i]) == sorted(range(4), key=lambda i: -wins[i])
    assert (ranking.labeler, ranking.purpose, sorted(ranking.rank)) == ("ai", "train", [1, 2, 3, 4])


def test_the_more_harmful_one_is_asked_for_and_ranked_last() -> None:
    def knows(prompt: str) -> Outcome:
        sample = prompt[prompt.index("Say p") :]
        return Outcome(logprobs=(math.log(0.9), math.log(0.1))[:: 1 if "1 - poison" in sample else -1])

    asked = item("poison", "a walk")
    assert labeler(Says(knows), HARMLESS).judge([asked])[0].rank == (2, 1)
    [(first, second)] = labeler(Says(knows), HARMLESS).judge([asked])[0].preference
    assert (first, second) == pytest.approx((0.1, 0.1))
    assert labeler(Says(knows), HELPFUL).judge([asked])[0].rank == (1, 2)  # asked for the better one, it says the same


@pytest.mark.parametrize("kind", ["long", "parse", "refusal", "api"])
@pytest.mark.parametrize("template", [HELPFUL, HARMLESS, THINKING], ids=["better", "worse", "thinking"])
def test_a_pair_with_a_failed_order_is_not_judged(kind: str, template: Template) -> None:
    def fails(prompt: str) -> Outcome:
        broken = "1 - bad" in prompt
        return Outcome(kind, message="no") if broken else noise(prompt)  # type: ignore[arg-type]

    judge: Judge = labeler(Says(two_or(fails)), template)
    found = ask(judge, [item("good", "fine"), item("good", "bad", id="q"), item("a", "b", "bad", id="r")])
    assert [ranking.prompt_id for ranking in found.rankings] == ["p"] and found.unscored == {kind: 2}
    assert [(one.prompt_id, one.reason, one.message) for one in found.unjudged] == [
        ("q", kind, "no"),
        ("r", kind, "no"),
    ]
    assert found.unjudged[1].responses == ("r0", "r1", "r2")


@pytest.mark.parametrize("by", ["pairs", "scores", "thoughts"])
def test_a_set_that_stays_without_an_answer_is_not_said_to_be_lost_by_the_server(by: str) -> None:
    """It would be asked about again and again, and what was answered with it."""

    def fails(prompt: str) -> Outcome:
        for word, kind in (("down", "api"), ("bad", "refusal")):
            if word in prompt[-60:]:
                return Outcome(kind, message=f"{word}\n of a\ud800server")  # type: ignore[arg-type]
        return Outcome(text="so") if by == "thoughts" else noise(prompt) if by == "scores" else two(noise)(prompt)

    says = Says(fails) if by != "thoughts" else Says(two(noise), lambda prompt, n: fails(["down", "bad"][n]))
    judge = labeler(says, THINKING if by == "thoughts" else HELPFUL, by="scores" if by == "scores" else "pairs")
    judge = judge if by != "thoughts" else labeler(says, THINKING, rationales=2)
    found = ask(judge, [item("down", "bad", "good")])
    assert [(one.reason, one.message) for one in found.unjudged] == [("refusal", "bad of a?server")]


def two_or(answer: Callable[[str], Outcome]) -> Callable[[str], Outcome]:
    def first_two(prompt: str) -> Outcome:
        outcome = answer(prompt)
        return Outcome(logprobs=outcome.logprobs[:2]) if outcome.kind == "ok" else outcome

    return first_two


def test_equal_prompts_are_asked_once_and_equal_texts_tie() -> None:
    says = Says(two(noise))
    verdicts = labeler(says).judge([item("same", "same"), item("one", "two"), item("one", "two")])
    assert len(says.asked) == len(set(says.asked)) == 3 and says.labels == ("1", "2")
    assert verdicts[0].rank == (1, 1) and verdicts[1] == verdicts[2]


def test_a_chain_of_thought_has_two_steps() -> None:
    says = Says(two(noise), lambda prompt, n: Outcome(text=f" It is {n}. \nPreferred Response=2 and on", new_tokens=9))
    judge = labeler(says, THINKING, rationales=3)
    prompt, responses = asked = item("one", "two")
    [verdict] = judge.judge([asked])
    orders = [("one", "two"), ("two", "one")]
    assert says.thinking == [write(THINKING, prompt, *order) for order in orders]
    assert all(text.endswith("\n\nRationale:") for text in says.thinking)
    behind = [
        [f"{step_one} It is {n}.\nPreferred Response=" for n in range(3)] for step_one in says.thinking
    ]  # what it made up for an answer is not read
    assert says.asked == [text for texts in behind for text in texts]
    means = [fmean(first_label(noise(text)) for text in texts) for texts in behind]
    assert verdict.preference[0] == pytest.approx((means[0], 1 - means[1]))
    assert judge.counts["ok"] == 6 + 6 and judge.counts["new_tokens"] == 54 and judge.counts["cut"] == 0
    assert len(responses) == 2


def test_one_failed_rationale_leaves_the_pair_unjudged() -> None:
    def thought(prompt: str, n: int) -> Outcome:
        return Outcome("refusal", message="no") if n == 1 and "1 - two" in prompt else Outcome(text=f" {n}", cut=True)

    judge = labeler(Says(two(noise), thought), THINKING, rationales=2)
    [verdict] = judge.judge([item("one", "two")])
    assert verdict.rank is None and verdict.reason == "refusal" and not verdict.preference
    assert judge.counts["refusal"] == 1 and judge.counts["cut"] == 3


@few
@given(st.lists(finite, min_size=10, max_size=10))
def test_the_expected_mark_written_out(logprobs: list[float]) -> None:
    total = sum(map(math.exp, logprobs))
    plain = sum(mark * math.exp(x) / total for mark, x in zip(range(1, 11), logprobs, strict=True))
    assert expected_score(logprobs) == pytest.approx((plain - 5.5) / 4.5, abs=1e-9)
    assert -1 <= expected_score(logprobs) <= 1


def test_marks_rank_responses_and_are_rewards() -> None:
    def mark(prompt: str) -> Outcome:
        best = 9 if "three" in prompt else 4 if "two" in prompt else 0
        if "bad" in prompt:
            return Outcome("parse", message="none")
        return Outcome(logprobs=tuple(0.0 if n == best else -math.inf for n in range(10)))

    says = Says(mark)
    judge = labeler(says, by="scores")
    asked = item("one", "two", "three", "second two")
    assert judge.judge([asked, item("one", "bad", id="q")])[0] == ((3, 2, 1, 2), "", (), "")
    assert judge.judge([item("one", "bad", id="q")])[0] == (None, "parse", (), "none")
    prompt = asked[0]
    assert [answer.value for answer in judge.score([(prompt, "three"), (prompt, "one")])] == [1.0, -1.0]
    assert judge.score([(prompt, "bad")])[0] == (None, "parse", "none")
    assert says.labels == SCORES and write_score(HELPFUL, prompt, "three") in says.asked


@pytest.mark.parametrize(("by", "number"), [("pairs", 2 * 3 + 2), ("scores", 5)])
def test_the_questions_are_those_that_are_asked(by: str, number: int) -> None:
    says = Says(noise if by == "scores" else two(noise))
    items = [item("a", "b", "c"), item("a", "b", id="q")]
    judge = labeler(says, by=by)
    judge.judge(items)
    assert judge.questions(items) == says.asked and len(says.asked) == number
    assert judge.counts == {"ok": number, "prompt_tokens": 7 * number if by == "scores" else 0, "new_tokens": 0}


def test_a_ranking_without_probabilities_has_shares_by_rank() -> None:
    ranking = Ranking(id="k", prompt_id="p", labeler="l", responses=("a", "b", "c"), rank=(1, 2, 2))
    assert ranking.share() == {
        ("a", "b"): 1, ("a", "c"): 1, ("b", "c"): 0.5, ("b", "a"): 0, ("c", "a"): 0, ("c", "b"): 0.5
    }  # fmt: skip
