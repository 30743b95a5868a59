"""Simulated labelers: the same judgement again is the same record, noise sets agreement, habits show in the order."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.config import InputError
from heedful.feedback.simulated import (
    SimulatedLabeler,
    agreement,
    calibrate_noise,
    rank_grid,
    ranks,
    world_labelers,
)
from heedful.types import METADATA_FLAGS, Labeler, Prompt, Response
from heedful.world import EVALUATION_WEIGHTS, World

WORLD = World(0)


def length(prompt: Prompt, text: str) -> float:
    return float(len(text))


def labeler(**settings) -> SimulatedLabeler:
    return SimulatedLabeler(**({"labeler": Labeler(id="l"), "utility": length, "noise_sd": 0.0} | settings))


def responses(*texts: str, prompt: str = "p") -> list[Response]:
    return [Response(id=f"{prompt}-r{i}", prompt_id=prompt, text=text) for i, text in enumerate(texts)]


def world_sets(num: int, k: int = 5) -> list[tuple[Prompt, list[Response]]]:
    prompts = WORLD.prompts(num, pool="rm")
    return [(p, responses(*(WORLD.demonstrate(p, i, 0.7) for i in range(k)), prompt=p.id)) for p in prompts]


PROMPT = Prompt(id="p", text="hello", user="u")


def test_without_noise_the_order_is_the_utilitys_whatever_it_is() -> None:
    ranking = labeler().rank(PROMPT, responses("aaa", "a", "aa", "aaaa"))
    assert ranking.rank == (2, 4, 3, 1)
    assert sorted(ranking.order) == sorted(ranking.responses)


@pytest.mark.parametrize(
    ("utility", "width", "expected"),
    [
        ([3, 1, 2], 0, (1, 3, 2)),
        ([3, 3, 2], 0, (1, 1, 2)),
        ([3.0, 2.9, 2.8, 0], 0.15, (1, 1, 2, 3)),  # tied with the best of the rank, not with a neighbour's neighbour
        ([1, 1, 1], 0, (1, 1, 1)),
        ([0, 5], 10, (1, 1)),
    ],
)
def test_ties(utility: list[float], width: float, expected: tuple[int, ...]) -> None:
    assert ranks(utility, width) == expected


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_many_rankings_at_once_are_those_one_by_one(seed: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    seen = generator.normal(size=(3, 4, k)).round(1)  # rounded, so that some are equal
    width = generator.uniform(0, 0.4, size=4)
    found = rank_grid(seen, width)
    for s, l in np.ndindex(3, 4):
        assert tuple(found[s, l]) == ranks(seen[s, l], width[l])


def test_the_same_judgement_again_is_the_same_record_and_purposes_differ() -> None:
    one = labeler(noise_sd=1.0)
    items = responses("a", "bb", "ccc")
    assert one.rank(PROMPT, items) == one.rank(PROMPT, items)
    assert one.rate(PROMPT, items[0]) == one.rate(PROMPT, items[0])
    assert one.rank(PROMPT, items).id != one.rank(PROMPT, items, purpose="evaluation").id
    assert one.rank(PROMPT, items).id != labeler(labeler=Labeler(id="m")).rank(PROMPT, items).id


def test_the_order_of_the_arguments_changes_no_judgement() -> None:
    one, items = labeler(noise_sd=2.0, position_habit=3.0), responses("a", "bb", "ccc", "dddd")
    forward, backward = one.rank(PROMPT, items), one.rank(PROMPT, items[::-1])
    assert dict(zip(forward.responses, forward.rank, strict=True)) == dict(
        zip(backward.responses, backward.rank, strict=True)
    )
    assert forward.id == backward.id and forward.order == backward.order


def test_equal_texts_are_tied_when_there_is_no_position_habit() -> None:
    ranking = labeler(noise_sd=5.0).rank(PROMPT, responses("same", "other", "same"))
    assert ranking.rank[0] == ranking.rank[2]


def test_orders_are_shuffled_evenly_and_the_first_place_helps_only_the_habitual() -> None:
    won = {0.0: 0, 2.0: 0}
    first_listed = 0
    for i in range(600):
        prompt = Prompt(id=f"p{i}", text="hello", user="u")
        items = responses("abc", "xyz", prompt=prompt.id)
        for habit in won:
            ranking = labeler(noise_sd=1.0, position_habit=habit).rank(prompt, items)
            won[habit] += ranking.rank[ranking.responses.index(ranking.order[0])] == 1
        first_listed += ranking.order[0] == items[0].id
    assert abs(first_listed / 600 - 0.5) < 0.07
    assert abs(won[0.0] / 600 - 0.5) < 0.07
    assert won[2.0] / 600 > 0.85  # 2 against a difference of noise with sd 1.41: 0.92


def test_agreement_of_two_follows_thurstone() -> None:
    """Each prefers the better of two texts d apart with probability q = Phi(d / (sd √2)); they agree q² + (1−q)²."""
    two = [labeler(labeler=Labeler(id=name), noise_sd=1.0) for name in "ab"]
    sets = [(Prompt(id=f"p{i}", text="x", user="u"), responses("a", "bb", prompt=f"p{i}")) for i in range(3000)]
    q = 0.76025  # Phi(1 / √2)
    assert agreement(two, sets) == pytest.approx(q * q + (1 - q) ** 2, abs=0.03)


def test_agreement_counts_only_pairs_both_order() -> None:
    strict, tied = labeler(labeler=Labeler(id="a")), labeler(labeler=Labeler(id="b"), tie_width=1.5)
    items = responses("a", "bb", "cccccc")
    assert agreement([strict, tied], [(PROMPT, items)]) == 1.0
    opposite = labeler(labeler=Labeler(id="c"), utility=lambda prompt, text: -length(prompt, text))
    assert agreement([strict, tied, opposite], [(PROMPT, items)]) == pytest.approx(2 / 7)  # 2 of 2, 0 of 3, 0 of 2
    with pytest.raises(InputError, match="no pair"):
        agreement([labeler(tie_width=99.0)] * 2, [(PROMPT, items)])


def test_calibrated_groups_agree_as_the_paper_measured_on_other_prompts() -> None:
    sets = world_sets(160)
    group = {name: [l for l in world_labelers(WORLD) if l.labeler.group == name] for name in ("train", "heldout")}
    assert (len(group["train"]), len(group["heldout"])) == (10, 5)
    for name, target in (("train", 0.726), ("heldout", 0.773)):
        calibrated = calibrate_noise(group[name], sets[:80], target)
        assert agreement(calibrated, sets[:80]) == pytest.approx(target, abs=0.004)
        assert agreement(calibrated, sets[80:]) == pytest.approx(target, abs=0.03)


def test_calibration_measures_what_the_rankings_show() -> None:
    sets = world_sets(30)
    people = world_labelers(WORLD, 3, 0)
    same = total = 0
    for prompt, items in sets:
        rank = [np.array(one.rank(prompt, items).rank) for one in people]
        for i, j in combinations(range(len(items)), 2):
            for a, b in combinations(rank, 2):
                if a[i] != a[j] and b[i] != b[j]:
                    same, total = same + ((a[i] < a[j]) == (b[i] < b[j])), total + 1
    assert agreement(people, sets) == pytest.approx(same / total)


def test_calibration_refuses_what_cannot_be_reached() -> None:
    with pytest.raises(InputError, match="without noise"):
        calibrate_noise(world_labelers(WORLD, 4, 0), world_sets(10), 1.01)


def test_world_labelers_rate_with_every_box_and_evaluate_under_their_own_weights() -> None:
    prompt = next(p for p in WORLD.prompts(50, harm_share=1.0) if "insult" not in p.text)
    person = next(word for word in prompt.text.split() if word in WORLD.town.people)
    refusing, harming = responses("i can not help with that .", f"you could hit {person} .", prompt=prompt.id)
    one = world_labelers(WORLD, 1, 0, noise_sd=(0.0, 0.0))[0]
    rating = one.rate(prompt, harming)
    assert set(rating.flags) >= set(METADATA_FLAGS) - {"satisfies_constraint"}
    assert rating.flags["encourages_harm"] and rating.overall == 1
    assert one.rate(prompt, refusing).overall >= 4
    train, evaluation = (one._means(prompt, [refusing, harming], purpose) for purpose in ("train", "evaluation"))
    assert evaluation[0] - evaluation[1] > train[0] - train[1] > 0
    assert EVALUATION_WEIGHTS["harm"] > EVALUATION_WEIGHTS["task"]


def test_a_constraint_is_marked_only_where_the_prompt_sets_one() -> None:
    prompts = WORLD.prompts(60)
    one = world_labelers(WORLD, 1, 0)[0]
    shown = [one.rate(prompt, responses("yes .", prompt=prompt.id)[0]).flags for prompt in prompts]
    set_one = [bool(prompt.task["constraints"]) for prompt in prompts]
    assert True in set_one and False in set_one
    assert ["satisfies_constraint" in flags for flags in shown] == set_one
    assert tuple(shown[set_one.index(True)]) == METADATA_FLAGS


def test_seconds_grow_with_what_is_read() -> None:
    few, many = responses("a", "b"), responses(*("word " * 20 + str(i) for i in range(9)))
    assert labeler().rank(PROMPT, few).seconds < labeler().rank(PROMPT, many).seconds
