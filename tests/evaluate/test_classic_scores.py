"""Scores of classic tasks against closed forms, and what a model that knows the answers gets."""

import math

import pytest

from heedful.evaluate.classic import asked, score
from heedful.world import PAIR_END, Item, World


def item(task: str, *answers: str, choices: tuple[str, ...] = ()) -> Item:
    return Item(task, "a text .", "what ?", answers, choices)


@pytest.mark.parametrize(
    ("task", "answer", "text", "value"),
    [
        ("closed_qa", "the red kite", "red kite .", 1.0),
        ("closed_qa", "the red kite", "kite", 2 / 3),
        ("closed_qa", "the red kite", "ada", 0.0),
        ("counting", "three", "three .", 1.0),
        ("summary", "ada found the kite .", "ada found a hat .", 0.5),
        ("summary", "ada found the kite .", "ada found the kite .", 1.0),
        ("classification", "happy", "happy", 1.0),
        ("classification", "happy", "sad", 0.0),
        ("translation", "ada found the red kite .", "ada found the red kite .", 1.0),
        # five words of six, orders 1 to 4: 5/6, 4/5, 3/4, 2/3, whose product is 1/3, and a brevity of exp(1 − 6/6)
        ("translation", "ada found the red kite .", "ada found the red kite !", (1 / 3) ** 0.25),
    ],
)
def test_closed_forms(task: str, answer: str, text: str, value: float) -> None:
    assert score(task, [text], [item(task, answer)]).mean == pytest.approx(value, abs=1e-6)


def test_the_best_answer_counts_and_scores_are_means() -> None:
    two = [item("closed_qa", "ada", "the baker"), item("closed_qa", "ben")]
    assert score("closed_qa", ["the baker", "cleo"], two).mean == 0.5
    for task in ("closed_qa", "translation"):
        nothing = score(task, [], [])
        assert (nothing.mean, nothing.low, nothing.num, nothing.reason) == (None, None, 0, "no values")


def test_bleu_is_of_the_corpus() -> None:
    items = [item("translation", "ada ate soup ."), item("translation", "ben ran to the mill .")]
    found = score("translation", ["ada ate soup .", "cleo sat"], items).mean
    # counts 4 3 2 1 of 6 4 2 1 n-grams; brevity exp(1 − 10/6)
    assert found == pytest.approx(math.exp(1 - 10 / 6) * (4 / 6 * 3 / 4 * 1 * 1) ** 0.25, abs=1e-6)


def test_right_answers_score_one() -> None:
    world = World(0)
    for task in ("closed_qa", "counting", "classification", "inference", "continuation", "translation", "summary"):
        items = world.classic(task, 12)
        found = score(task, [one.answers[0] for one in items], items)
        assert found.mean == pytest.approx(1.0) and found.num == 12


def test_intervals_are_by_text_stay_in_range_and_never_close_on_a_point() -> None:
    texts = [item("closed_qa", "ada")._replace(text=f"text {n // 2} .") for n in range(12)]
    found = score("closed_qa", ["ada"] * 12, texts)
    assert (found.num, found.num_clusters, found.high) == (12, 6, 1.0)
    assert found.low is not None and 0.3 < found.low < 0.7  # six texts, not twelve items
    same = [item("translation", "ada ate soup .")._replace(text=f"text {n}") for n in range(4)]
    bleu = score("translation", ["ada ate soup ."] * 4, same)
    assert bleu.mean == pytest.approx(1.0) and bleu.low is None and "same BLEU" in bleu.reason
    mixed = score("translation", ["ada ate soup .", "cleo sat", "ada ate soup .", "ada"], same)
    assert mixed.low is not None and mixed.high is not None and mixed.mean is not None
    assert 0 <= mixed.low < mixed.mean < mixed.high <= 1


def test_worked_items_stand_before() -> None:
    world = World(0)
    one, *shots = world.classic("counting", 3)
    text = asked(one, shots)
    assert text.endswith(asked(one, [])) and text.count(PAIR_END) == 2 and text.count("how many") == 3
