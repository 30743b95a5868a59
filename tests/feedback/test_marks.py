"""Marks of single responses: people's, averaged over the training labelers, and two metrics against demonstrations."""

import pytest

from heedful.config import InputError
from heedful.feedback.marks import MARKS, bleu, good_bad, likert, rouge_l
from heedful.snapshot import Snapshot
from heedful.types import Demonstration, Labeler, Prompt, Rating, Response


def snapshot(*texts: str, shown: tuple[str, ...] = (), marks: tuple[tuple[int, str, int], ...] = ()) -> Snapshot:
    """Responses r0, r1, … to one prompt with its demonstrations; a mark is (response, labeler, overall)."""
    return Snapshot(
        prompts=(Prompt(id="p", text="?", user="u"), Prompt(id="q", text="?", user="u")),
        responses=(
            *(Response(id=f"r{n}", prompt_id="p", text=text) for n, text in enumerate(texts)),
            Response(id="elsewhere", prompt_id="q", text="no demonstration here"),
        ),
        labelers=(Labeler(id="ada"), Labeler(id="bob"), Labeler(id="out", group="heldout")),
        demonstrations=tuple(
            Demonstration(id=f"d{n}", prompt_id="p", text=text, labeler="ada") for n, text in enumerate(shown)
        ),
        ratings=tuple(
            Rating(id=f"m{n}", prompt_id="p", response_id=f"r{k}", labeler=who, overall=overall)
            for n, (k, who, overall) in enumerate(marks)
        ),
    )


MARKED = snapshot("a", "b", "c", "d", marks=((0, "ada", 7), (0, "bob", 4), (0, "out", 1), (1, "bob", 2), (3, "ada", 5)))


def test_people_are_the_training_labelers_averaged() -> None:
    assert likert(MARKED) == {"r0": 5.5, "r1": 2.0, "r3": 5.0}
    assert good_bad(MARKED) == {"r0": 0.75, "r1": 0.0, "r3": 1.0}


def test_rouge_l_by_hand() -> None:
    # Longest common subsequences: 4 of 6 and 5 words; 5 of 5 and 5; none.
    found = rouge_l(
        snapshot(
            "The cat sat on the mat.", "a dog ran far away", "x y", shown=("the cat sat, on", "A dog ran far away!")
        )
    )
    assert found == pytest.approx({"r0": 2 * (4 / 6) * 1 / (4 / 6 + 1), "r1": 1.0, "r2": 0.0})


def test_bleu_by_hand() -> None:
    shown = ("the cat sat on the mat today",)
    found = bleu(snapshot("the cat sat on the mat today", "the cat sat on the red mat", "x y z w", shown=shown))
    # Of 7, 6, 5, 4 n-grams stand 6, 4, 3, 2 in the demonstration; both have 7 words, so there is no brevity penalty.
    assert found["r0"] == pytest.approx(1.0)
    assert found["r1"] == pytest.approx((6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** 0.25)
    assert found["r2"] < 0.1 and set(found) == {"r0", "r1", "r2"}


@pytest.mark.parametrize("metric", [bleu, rouge_l])
def test_chinese_is_compared_by_character(metric: object) -> None:
    found = metric(snapshot("小猫坐在红色的船上", "小狗坐在红色的船上", "下雨了", shown=("小猫坐在红色的船上",)))  # type: ignore[operator]
    assert found["r0"] == pytest.approx(1.0) and 0.5 < found["r1"] < 1 and found["r2"] < 0.2


def test_bleu_of_english_is_sacrebleus_own() -> None:
    from sacrebleu import sentence_bleu

    texts = ("Ada's boat isn't red, it's 3.5 m long!", 'She said: "no" (twice) - at 10:30.')
    shown = ("Ada's boat is red; it is 3.5 m long.", 'He said "no" twice, at 10:30!')
    found = bleu(snapshot(*texts, shown=shown))
    for n, text in enumerate(texts):
        assert found[f"r{n}"] == pytest.approx(sentence_bleu(text, list(shown)).score / 100)


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("likert", "no response has a mark from a training labeler; set labelers.ratings=true"),
        ("good_bad", "no response has a mark from a training labeler"),
        ("bleu", "no prompt with responses has a demonstration to compare them with; set labelers.references=true"),
        ("rouge_l", "no prompt with responses has a demonstration"),
    ],
)
def test_without_anything_to_mark_by_it_says_what_to_bring(name: str, mend: str) -> None:
    with pytest.raises(InputError, match=mend):
        MARKS[name](snapshot("a", "b", marks=((0, "out", 3),)))
