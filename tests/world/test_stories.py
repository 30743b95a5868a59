"""Stories make sense as they are told, and what makes no sense is seen."""

import pytest

from heedful.world import World
from heedful.world.grammar import Clause, read, write
from heedful.world.stories import coherent, compose, mood, questions, random_needs, tell
from heedful.world.town import PERSON_FACTS, day_after, generator
from heedful.world.words import CATEGORIES, CATEGORY_OF

TOWN = World(0).town


def fits(text: str) -> list[bool]:
    return coherent([sentence.clause for sentence in read(text)[0] if sentence.clause])


@pytest.mark.parametrize("seed", range(60))
def test_a_composed_story_is_coherent_names_what_it_must_and_nothing_it_must_not(seed: int) -> None:
    rng = generator(seed, "test")
    cast = random_needs(rng, TOWN)
    needs = {name: cast[name] for name in rng.sample(sorted(cast), rng.randint(1, 3))}
    avoid = rng.choice(("went", "found", "then", "home", "happy"))
    length = rng.randint(1, 4)
    clauses = compose(rng, TOWN, needs, length, [avoid])
    text = tell(clauses)
    assert all(coherent(clauses))
    assert [sentence.clause for sentence in read(text)[0]] == clauses
    assert all(f" {value} " in f" {text} " for value in needs.values())
    assert f" {avoid} " not in f" {text} "
    assert length <= len(clauses) <= max(length, len(needs))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada found the red kite . ada lost the red kite . ada was sad .", [True, True, True]),
        ("ada found the red kite . ada lost the red kite . ada was happy .", [True, True, False]),
        ("ada found the red kite . ada was sad .", [True, False]),
        ("ada found the red kite . ada lost the blue kite .", [True, False]),
        ("ada found the red kite . ada sold the red kite to ben . ada lost the red kite .", [True, True, False]),
        ("ada found the red kite . ada showed the red kite to ben . ada lost the red kite .", [True, True, True]),
        ("the red duck followed ada .", [False]),
        ("ada saw the red duck . the red duck followed ada .", [True, True]),
        ("ben thanked ada .", [False]),
        ("ada met ben . ben thanked ada .", [True, True]),
        ("ada ran to the mill . ada walked to the mill .", [True, False]),
        ("ada met ada .", [False]),
        ("at last , ada came home .", [False]),
        ("ada ran to the mill . one day , ada came home .", [True, False]),
        ("ada owns the red boat .", [False]),  # a fact is no event
    ],
)
def test_coherence(text: str, expected: list[bool]) -> None:
    assert fits(text) == expected


def test_mood_follows_losses_and_feelings() -> None:
    lost = [Clause("get", ("ada", "found", "red", "kite")), Clause("lose", ("ada", "red", "kite"))]
    assert mood(lost) == "sad" and mood(lost[:1]) == "happy"
    assert mood([Clause("feel", ("ada", "lonely"))]) == "sad" and mood([Clause("feel", ("ada", "calm"))]) == "happy"


def test_the_short_answer_to_a_question_stands_in_the_clause_that_answers() -> None:
    for seed in range(30):
        rng = generator(seed, "questions")
        for question, clause, short in questions(compose(rng, TOWN, random_needs(rng, TOWN), 4)):
            assert question.endswith(" ?")
            named = [word for word in short if word in CATEGORY_OF]
            assert named and set(named) <= set(write(clause).split())
            assert named[-1] not in question.split()


def test_a_claim_and_its_denial_are_never_both_true() -> None:
    categories = {"own": "THING", "pet": "ANIMAL", "likes": "FOOD", "job": "JOB"}
    for person in TOWN.people:
        for kind, category in categories.items():
            true = TOWN.value(person, kind)[-1]
            for word in CATEGORIES[category]:
                assert TOWN.is_true(Clause(f"not_{kind}", (person, word))) == (word != true)


def test_a_claim_with_one_word_changed_is_false() -> None:
    for person in TOWN.people[:10]:
        for kind in PERSON_FACTS:
            fact = TOWN.facts[person][kind]
            for word in CATEGORIES[CATEGORY_OF[fact.slots[-1]]]:
                changed = fact._replace(slots=(*fact.slots[:-1], word))
                assert TOWN.is_true(changed) == (word == fact.slots[-1])
    assert TOWN.is_true(Clause("weather", ("cold",))) is None


def test_calendar_and_sums() -> None:
    assert day_after("sunday") == "monday" and day_after("monday") == "tuesday"
    assert TOWN.is_true(Clause("after", ("tuesday", "monday")))
    assert not TOWN.is_true(Clause("after", ("monday", "tuesday")))
    assert TOWN.is_true(Clause("sum", ("two", "three", "five")))
    assert not TOWN.is_true(Clause("sum", ("two", "three", "six")))
