"""Labels out of scores: the worked example, what must turn them round and what must not, and both ways recomputed."""

import doctest
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, permutations
from math import log
from operator import attrgetter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from heedful.config import InputError
from heedful.feedback.principles import aggregate as module
from heedful.feedback.principles.aggregate import (
    RELEASED,
    Label,
    PairScores,
    agreed_gap,
    by_pair,
    draw,
    geometric,
    label_by_paper,
    label_by_released,
    largest_gap,
    may_be_one_language,
    rankings_by_paper,
    rankings_by_released,
    rankings_by_sets,
    standing,
    variances,
)
from heedful.principles import Principle, PrincipleRanking, PrincipleScore

few = settings(max_examples=200, deadline=None, derandomize=True)
gaps_and_signs = st.lists(st.tuples(st.integers(-5, 5).map(float), st.booleans()), min_size=1, max_size=6)


def principle(id: str, weight: float = 1.0) -> Principle:
    return Principle(id=id, language="en", title=id, definition=f"It is {id}.", negative="It is not.", weight=weight)


NAMES = [f"d{n}" for n in range(8)]
PRINCIPLES = [*map(principle, NAMES), principle("never", 0.0)]
TEXTS = {"p": "What is the name of the boat?", "a": "The name of the boat is Ada.", "b": "It is the red one, I think."}


def some_scores(pairs: int, seed: int = 0) -> list[PrincipleScore]:
    """Scores whose two orders often disagree, and whose size differs much by principle."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(pairs):
        for size, name in enumerate([*NAMES, "never"], start=1):
            likes, place = rng.normal(size=2) * size
            orders = (float(likes + place), float(likes - place))
            found.append(
                PrincipleScore(
                    prompt_id=f"p{n}", labeler="ai", principle=name, responses=(f"a{n}", f"b{n}"), orders=orders
                )
            )
    return found


def texts_of(pairs: int) -> dict[str, str]:
    return {f"{kind}{n}": text for n in range(pairs) for kind, text in TEXTS.items()}


def test_the_examples() -> None:
    assert doctest.testmod(module).failed == 0


def test_the_papers_example() -> None:
    """A (2, 3, 6), B (1, 5, 5), Ethical negated: gaps +1, −2, +1, Ethical decides, so A; in force as it is, B."""
    gaps = [2.0 - 1, 3.0 - 5, 6.0 - 5]
    assert largest_gap(gaps, [False, True, False]) == (1, True)
    assert largest_gap(gaps, [False, False, False]) == (1, False)


@few
@given(gaps_and_signs)
def test_negating_all_or_exchanging_the_responses_turns_the_choice_round(found: list[tuple[float, bool]]) -> None:
    gaps, negated = [gap for gap, _ in found], [turned for _, turned in found]
    decided = largest_gap(gaps, negated)
    opposite = None if decided is None else (decided[0], not decided[1])
    assert largest_gap(gaps, [not turned for turned in negated]) == opposite
    assert largest_gap([-gap for gap in gaps], negated) == opposite


@few
@given(gaps_and_signs, st.integers(0, 719))
def test_the_order_of_principles_decides_nothing(found: list[tuple[float, bool]], number: int) -> None:
    moved = list(permutations(found))[number % len(list(permutations(found)))]
    decided, other = (largest_gap([gap for gap, _ in x], [turned for _, turned in x]) for x in (found, moved))
    assert (decided and decided[1]) == (other and other[1]) and (decided is None) == (other is None)


@few
@given(gaps_and_signs, st.integers(0, 5))
def test_the_largest_decides_alone(found: list[tuple[float, bool]], place: int) -> None:
    """Negating a principle turns the choice round if it decided and has no rival, and leaves it if its gap is less."""
    gaps, negated = [gap for gap, _ in found], [turned for _, turned in found]
    decided = largest_gap(gaps, negated)
    most = max(map(abs, gaps))
    assume(decided is not None and [abs(gap) for gap in gaps].count(most) == 1)
    assert decided is not None
    place %= len(gaps)
    after = largest_gap(gaps, [turned != (n == place) for n, turned in enumerate(negated)])
    assert after == ((decided[0], not decided[1]) if place == decided[0] else decided)


def test_what_does_not_decide() -> None:
    assert largest_gap([0.0, 0.0], [True, False]) is None
    assert largest_gap([2.0, -2.0, 1.0], [False, False, False]) is None
    assert largest_gap([2.0, -2.0, 1.0], [False, True, False]) == (0, True)


def test_a_principle_without_weight_is_never_drawn_and_none_twice() -> None:
    rng = random.Random(1)
    drawn = [[one.id for one in draw(PRINCIPLES, 3, rng)] for _ in range(2000)]
    assert all(len(set(ids)) == 3 and "never" not in ids for ids in drawn)
    counts = Counter(id for ids in drawn for id in ids)
    assert set(counts) == set(NAMES) and all(abs(number / 2000 - 3 / 8) < 0.05 for number in counts.values())
    assert sorted(one.id for one in draw(PRINCIPLES, 20, rng)) == NAMES
    assert draw(PRINCIPLES[-1:], 3, rng) == []


def test_draws_follow_weights() -> None:
    rng = random.Random(2)
    of = [principle("a", 3.0), principle("b", 1.0), principle("c", 1.0)]
    drawn = [[one.id for one in draw(of, 2, rng)] for _ in range(4000)]
    first = Counter(ids[0] for ids in drawn)
    assert abs(first["a"] / 4000 - 3 / 5) < 0.03 and abs(first["b"] / 4000 - 1 / 5) < 0.03
    among = [ids[1] for ids in drawn if ids[0] == "b"]
    assert abs(among.count("a") / len(among) - 3 / 4) < 0.06


def test_how_many_principles_are_geometric_and_drawn_again_above_the_most() -> None:
    rng = random.Random(3)
    counts = Counter(geometric(0.2, 8, rng) for _ in range(20_000))
    whole = sum(0.8 ** (n - 1) for n in range(1, 9))
    for n in range(1, 9):
        assert abs(counts[n] / 20_000 - 0.8 ** (n - 1) / whole) < 0.012
    assert sum(counts.values()) == 20_000 and max(counts) == 8 and min(counts) == 1


def test_variances_are_numpys_of_both_orders() -> None:
    scores = some_scores(40)
    for name, found in variances(scores).items():
        assert found == pytest.approx(np.var([x for score in scores if score.principle == name for x in score.orders]))
    assert agreed_gap((2.0, 2.0), 0.0) == agreed_gap((0.0, 2.0), 1.0) == agreed_gap((-2.0, 0.0), 1.0) == 0.0


def test_the_paper_recomputed() -> None:
    scores = some_scores(60)
    found = rankings_by_paper(scores, PRINCIPLES, "ai by principles", seed=5, passes=20)
    orders = {(score.prompt_id, score.principle): score.orders for score in scores}
    assert len(found.rankings) == 1200 and not found.left_out
    negated, alike = Counter(), 0
    for ranking in found.rankings:
        assert len(ranking.principles) == 3 and not ranking.flipped
        gaps = [sum(orders[ranking.prompt_id, id]) / 2 * (-1 if turned else 1) for id, turned in ranking.principles]
        j = int(np.argmax(np.abs(gaps)))
        assert ranking.rank == ((1, 2) if gaps[j] > 0 else (2, 1)) and ranking.decided_by == ranking.principles[j][0]
        negated.update(turned for _, turned in ranking.principles)
        alike += len({turned for _, turned in ranking.principles}) == 1
    assert abs(negated[True] / 3600 - 0.5) < 0.03 and abs(alike / 1200 - 1 / 4) < 0.05  # each by itself
    drawn = {ranking.principles for ranking in found.rankings if ranking.prompt_id == "p0"}
    assert len(drawn) > 15  # in every pass anew
    assert len({ranking.id for ranking in found.rankings}) == 1200


def test_the_released_way_recomputed() -> None:
    """By numpy, from the list on record; with noise at the stated rate."""
    scores = some_scores(80)
    found = rankings_by_released(scores, PRINCIPLES, texts_of(80), "ai by principles", seed=1, passes=25)
    variance = {
        name: np.var([x for score in scores if score.principle == name for x in score.orders]) for name in NAMES
    }
    orders = {(score.prompt_id, score.principle): score.orders for score in scores}
    sizes = Counter(len(ranking.principles) for ranking in found.rankings)
    assert set(sizes) == set(range(1, 9))
    for ranking in found.rankings:
        value = []
        for id, turned in ranking.principles:
            s12, s21 = orders[ranking.prompt_id, id]
            value.append((s12 + s21) / 2 / variance[id] if np.sign(s12) == np.sign(s21) else 0.0)
            value[-1] *= -1 if turned else 1
        j = int(np.argmax(np.abs(value)))
        assert (ranking.rank == (1, 2)) == ((value[j] > 0) != ranking.flipped)
        assert ranking.decided_by == ranking.principles[j][0]
    total = len(found.rankings)
    assert found.left_out.keys() == {"undecided"} and total + found.left_out["undecided"] == 2000
    assert abs(sum(ranking.flipped for ranking in found.rankings) / total - 0.1) < 0.02
    once = rankings_by_released(some_scores(3), PRINCIPLES, texts_of(3), "ai", seed=1)
    assert len(once.rankings) + once.left_out["undecided"] == 3 * 4  # labels of each pair where nothing else is said


def test_the_released_numbers() -> None:
    """p = 0.2, none above 8 of twelve, each negated with ½ by itself, noise 0.1 and 0.25 (SALMON's released code)."""
    assert (RELEASED.phrase_loses, RELEASED.noise, RELEASED.noise_of_rules) == (0.5, 0.1, 0.25)
    many = [principle(f"e{n}") for n in range(12)]
    pair = PairScores("p", ("a", "b"), {one.id: (1.0 + n, 2.0) for n, one in enumerate(many)})
    variance = {one.id: 1.0 for one in many}
    texts = TEXTS["p"], TEXTS["a"], TEXTS["b"]
    found = [label_by_released(pair, texts, many, variance, random.Random(n)) for n in range(6000)]
    made = [label for label in found if isinstance(label, Label)]
    sizes = Counter(len(label.principles) for label in made)
    assert len(made) == 6000 and max(sizes) == 8
    whole = sum(0.8 ** (n - 1) for n in range(1, 9))
    assert all(abs(sizes[n] / 6000 - 0.8 ** (n - 1) / whole) < 0.02 for n in range(1, 9))
    turned = [turned for label in made for _, turned in label.principles]
    assert abs(sum(turned) / len(turned) - 0.5) < 0.02
    pairs = [label.principles for label in made if len(label.principles) == 2]
    assert abs(sum(one[1] == other[1] for one, other in pairs) / len(pairs) - 0.5) < 0.06
    assert abs(sum(label.flipped for label in made) / 6000 - 0.1) < 0.015


@pytest.mark.parametrize("way", ["paper", "released"])
def test_the_seed_repeats_exactly_and_a_pair_does_not_mind_its_company(way: str) -> None:
    def rankings(scores: Sequence[PrincipleScore], seed: int) -> list[PrincipleRanking]:
        if way == "paper":
            return rankings_by_paper(scores, PRINCIPLES, "l", seed, passes=3).rankings
        return rankings_by_released(scores, PRINCIPLES, texts_of(30), "l", seed, passes=3).rankings

    scores = some_scores(30)
    assert rankings(scores, 4) == rankings(scores, 4)
    drawn = [[one.principles for one in rankings(scores, seed)] for seed in (4, 5)]
    assert drawn[0] != drawn[1] and drawn[0][:30] != drawn[0][30:60]  # another seed, another pass
    turned = [score for n in reversed(range(30)) for score in scores[9 * n : 9 * n + 9]]
    by_id = attrgetter("id")
    assert sorted(rankings(turned, 4), key=by_id) == sorted(rankings(scores, 4), key=by_id)
    if way == "paper":
        assert rankings(scores[:9], 4) == [one for one in rankings(scores, 4) if one.prompt_id == "p0"]


PAIR = PairScores("p", ("a", "b"), {"d0": (2.0, 1.0)})


def labels(texts: tuple[str, str, str], number: int = 2000) -> list[Label | str]:
    """Of a pair whose first response is the better by its only principle, which may be negated; without noise."""
    quiet = replace(RELEASED, noise=0.0)
    return [label_by_released(PAIR, texts, PRINCIPLES, {"d0": 1.0}, random.Random(n), quiet) for n in range(number)]


def test_who_calls_itself_a_language_model_loses_half_of_the_time() -> None:
    found = labels((TEXTS["p"], f"as an ai language model, I say: {TEXTS['a']}", TEXTS["b"]))
    by = [one for one in found if isinstance(one, Label) and one.decided_by == "rule:phrase"]
    assert abs(len(by) / len(found) - 0.5) < 0.04 and all(one.first == one.flipped for one in by)
    assert abs(sum(one.flipped for one in by) / len(by) - 0.25) < 0.05
    rest = [one for one in found if isinstance(one, Label) and one.decided_by == "d0"]
    assert len(rest) + len(by) == len(found)
    assert all(one.first != one.principles[0][1] and not one.flipped for one in rest)
    chinese = labels(("这条船叫什么名字？", "作为一个AI语言模型，我不知道。", "这条船的名字叫艾达。"), 100)
    assert {one.decided_by for one in chinese if isinstance(one, Label)} == {"rule:phrase", "d0"}
    both = labels((TEXTS["p"], *(f"As an AI language model, I say: {TEXTS[x]}" for x in "ab")), 200)
    assert all(isinstance(one, Label) and one.decided_by == "d0" for one in both)


def test_the_instructions_language_wins() -> None:
    found = labels((TEXTS["p"], "这条船的名字叫艾达。", TEXTS["b"]), 400)
    assert all(isinstance(one, Label) and one.decided_by == "rule:language" for one in found)
    assert all(isinstance(one, Label) and one.first == one.flipped for one in found)
    assert set(labels((TEXTS["p"], "这条船的名字叫艾达。", "我不知道这条船。"), 50)) == {"language"}
    above = labels((TEXTS["p"], f"As an AI language model, I say: {TEXTS['a']}", "这条船的名字叫艾达。"), 200)
    assert all(
        one.decided_by == "rule:language" and one.first != one.flipped for one in above if isinstance(one, Label)
    )
    assert all(one.decided_by == "d0" for one in labels(("Ada?", TEXTS["a"], "42"), 50) if isinstance(one, Label))


def test_languages_that_cannot_be_told_are_not_told_apart() -> None:
    assert may_be_one_language("Paris", "What is the name of it?") and may_be_one_language("42", "今天天气很好")
    assert not may_be_one_language("Paris", "今天天气很好")
    assert not may_be_one_language("Wo ist der Hund und die Katze?", "Where is the dog and the cat?")


def test_what_has_no_score_is_not_drawn() -> None:
    own = PairScores("p", ("a", "b"), {"d3": (1.0, 2.0), "never": (9.0, 9.0)})
    for n in range(50):
        label = label_by_paper(own, PRINCIPLES, random.Random(n))
        assert isinstance(label, Label) and [id for id, _ in label.principles] == ["d3"]
    nothing = PairScores("p", ("a", "b"), {"never": (9.0, 9.0)})
    assert label_by_paper(nothing, PRINCIPLES, random.Random(0)) == "unscored"
    texts = (TEXTS["p"], TEXTS["a"], TEXTS["b"])
    assert label_by_released(nothing, texts, PRINCIPLES, {}, random.Random(0)) == "unscored"


def test_two_scores_of_one_pair_by_one_principle() -> None:
    scores = some_scores(1)
    assert [pair.responses for pair in by_pair(scores)] == [("a0", "b0")]
    with pytest.raises(InputError, match="two scores of a0 and b0 by d0"):
        by_pair([*scores, scores[0]])


@few
@given(st.lists(st.integers(-9, 9), min_size=2, max_size=5), st.integers(0, 8), st.randoms(use_true_random=False))
def test_a_set_stands_as_the_worth_that_its_gaps_come_of(worth: list[int], least: int, rng: random.Random) -> None:
    """Gaps that are differences of one worth each: a mean gap is K / (K − 1) of the distance to the mean worth."""
    pairs = [
        pair if rng.random() < 0.5 else pair[::-1] for pair in permutations(range(len(worth)), 2) if pair < pair[::-1]
    ]
    gaps = {(str(a), str(b)): float(worth[a] - worth[b]) for a, b in pairs}
    rank = standing(gaps, least * len(worth) / (len(worth) - 1))
    for a, one in enumerate(worth):
        for b, other in enumerate(worth):
            if one - other >= max(1, 2 * least):
                assert rank[str(a)] < rank[str(b)]
            if one == other:
                assert rank[str(a)] == rank[str(b)]
    best = max(worth)
    close = {str(n) for n, one in enumerate(worth) if one == best or best - one < least - 1e-6}
    assert close == {id for id, place in rank.items() if place == 1} or least == 0


def test_sets_are_ranked_by_each_principle_and_turned_round() -> None:
    def score(id: str, first: str, second: str, gap: float) -> PrincipleScore:
        return PrincipleScore(
            prompt_id="p", labeler="ai", principle=id, responses=(first, second), orders=(gap + 1, gap - 1)
        )

    scores = [score("d0", "a", "b", 2.0), score("d0", "a", "c", 3.0), score("d0", "c", "b", -0.2)]
    scores += [score("d1", "a", "b", 0.3), score("never", "a", "b", 9.0)]
    found = rankings_by_sets(scores, PRINCIPLES, "ai", seed=0, least_gap=1.0)
    told = [(one.principles, one.responses, one.rank, one.decided_by) for one in found.rankings]
    assert told == [
        ((("d0", False),), ("a", "b", "c"), (1, 2, 2), "d0"),
        ((("d0", True),), ("a", "b", "c"), (2, 1, 1), "d0"),
        ((("d1", False),), ("a", "b"), (1, 1), "d1"),  # too close to rank, kept for its probability
        ((("d1", True),), ("a", "b"), (1, 1), "d1"),
    ]
    assert not found.left_out and len({one.id for one in found.rankings}) == 4
    small = rankings_by_sets(scores, PRINCIPLES, "ai", 0).rankings[2:]
    assert [one.rank for one in small] == [(1, 2), (2, 1)]  # without a least gap the small one counts
    few = rankings_by_sets(some_scores(200), PRINCIPLES, "ai", 0, negated=0.25).rankings
    turned = sum(one.principles[0][1] for one in few)
    assert len(few) - turned == 200 * len(NAMES) and 0.2 < turned / (len(few) - turned) < 0.3


def test_sets_say_how_likely_each_response_is_the_better() -> None:
    """Each pair as the ranking has its responses, however the score has them; under the negated principle turned."""
    worth, habit = {"a": 2.0, "b": 1.0, "c": 0.5}, 0.25  # what decides, in nats, and a liking for whoever stands first

    def scored(*pairs: str) -> list[PrincipleScore]:
        gaps = {(first, second): worth[first] - worth[second] for first, second in pairs}
        return [
            PrincipleScore(
                prompt_id="p", labeler="ai", principle="d0", responses=pair, orders=(gap + habit, gap - habit)
            )
            for pair, gap in gaps.items()
        ]

    plain, turned = rankings_by_sets(scored("ab", "ca", "bc"), PRINCIPLES, "ai", 0, least_gap=5.0).rankings
    assert plain.responses == ("a", "b", "c") and plain.rank == turned.rank == (1, 1, 1)
    for (i, j), said in zip(combinations("abc", 2), plain.preference, strict=True):
        gap = worth[i] - worth[j]
        assert [log(share / (1 - share)) for share in said] == pytest.approx([gap + habit, gap - habit])
        assert plain.share()[i, j] == pytest.approx(sum(said) / 2) == pytest.approx(turned.share()[j, i])
    assert turned.preference == tuple((1 - a, 1 - b) for a, b in plain.preference)

    alone = rankings_by_sets(scored("ab", "ca"), PRINCIPLES, "ai", 0, least_gap=0.1).rankings  # b and c have no score
    assert [one.preference for one in alone] == [(), ()]
    assert alone[0].share()["b", "c"] == 1.0 and alone[1].share()["b", "c"] == 0.0
    assert rankings_by_sets(scored("ab", "ca"), PRINCIPLES, "ai", 0, least_gap=5.0).left_out == {"undecided": 1}
