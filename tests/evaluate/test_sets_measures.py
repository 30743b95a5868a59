"""What is told of a set, from planted answers whose numbers are known."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from heedful.config import InputError
from heedful.evaluate.sets import bias, reading, toxicity, truthfulqa, writing
from heedful.evaluate.sets.choose import Chances
from heedful.evaluate.sets.item import Item, Tools
from heedful.evaluate.sets.judge import judge_of, question_text, yes_probability
from heedful.evaluate.sets.overlap import bleu_of, bleu_statistics
from set_files import random_model

MODEL = random_model("gpt2")
TOOLS = Tools(MODEL)


def given(*totals: float, tokens: Sequence[float] | None = None) -> Chances:
    return Chances(np.array(totals, dtype=float), np.ones(len(totals)) if tokens is None else np.array(tokens))


def test_entropy_in_bits() -> None:
    assert bias.entropy(np.log([0.5, 0.5])) == pytest.approx(1)
    assert bias.entropy(np.log([0.25, 0.75])) == pytest.approx(-0.25 * math.log2(0.25) - 0.75 * math.log2(0.75))
    assert bias.entropy(np.array([-800.0, -801.0])) == pytest.approx(bias.entropy(np.array([0.0, -1.0])))
    assert bias.entropy(np.array([0.0, -900.0])) == pytest.approx(0)


def test_crows_pairs_by_both_metrics() -> None:
    items = [Item(str(n), "", ("more", "less"), about={"type": kind}) for n, kind in enumerate(("age", "age", "race"))]
    found = bias.crows_scores(items, [given(-1, -2), given(-2, -1), given(-3, -3)], TOOLS).metrics
    assert found["stereotype"].mean == 0.5 and found["stereotype_age"].mean == 0.5 == found["stereotype_race"].mean
    assert found["stereotype_race"].num == 1 and found["stereotype_race"].low is None
    two = bias.entropy(np.array([0.0, 1.0]))
    assert found["entropy"].mean == pytest.approx((2 * two + 1) / 3)


def test_winogender_coreference_follows_planted_prejudice() -> None:
    """A model that gives a pronoun to the occupation the likelier, the more of its people are of that gender."""
    items, scores = [], []
    for n, women in enumerate((5.0, 30.0, 60.0, 95.0)):
        for gender in ("male", "female", "neutral"):
            for answer in (0, 1):
                about = {"gender": gender, "occupation": f"job{n}", "women": women}
                items.append(Item(f"{n}{gender}{answer}", "", ("job", "other"), (answer,), (), f"job{n}", about))
                taken = {"male": women < 50, "female": women > 50, "neutral": answer == 0}[gender]
                scores.append(given(0.0, -1.0) if taken else given(-1.0, 0.0))
    found = bias.coreference_scores(items, scores, TOOLS).metrics
    assert found["accuracy_neutral"].mean == 1.0 and found["accuracy_male"].mean == found["accuracy_female"].mean == 0.5
    assert found["female_gap"].mean == 0 and found["correlation"].mean == pytest.approx(
        np.corrcoef([-1, -1, 1, 1], [5, 30, 60, 95])[0, 1]
    )
    assert math.isnan(bias.correlation(np.ones(4), np.arange(4.0)))


def test_truthfulqa_mc() -> None:
    item = Item("a", "", ("best", "true", "false", "false too"), right=(0, 1))
    found = truthfulqa.mc([item], [given(*np.log([0.3, 0.1, 0.2, 0.4]), tokens=[1, 1, 1, 4])], TOOLS).metrics
    assert found["mc1"].mean == 0 and found["mc2"].mean == pytest.approx(0.4)
    assert found["mc1_mean"].mean == 0  # the long answer is the likeliest per token
    won = truthfulqa.mc([item], [given(-1.0, -9.0, -2.0, -3.0)], TOOLS).metrics
    assert won["mc1"].mean == 1 and truthfulqa.mc([item], [given(-1, -9, -1, -3)], TOOLS).metrics["mc1"].mean == 0.5


def test_judged_answers_and_what_a_judge_leaves_open() -> None:
    items = [Item(str(n), "", references=("x",), about={"question": f"q{n}"}) for n in range(4)]
    texts = [["a"], ["b"], ["c"], ["d"]]
    true = {"a": 0.9, "b": 0.4, "c": 0.8, "d": None}
    info = {"a": 0.9, "b": 0.9, "c": 0.5, "d": 0.9}
    seen: list[tuple[str, str]] = []

    def truthful(pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        seen.extend(pairs)
        return [true[answer] for _, answer in pairs]

    tools = Tools(MODEL, truthful, lambda pairs: [info[answer] for _, answer in pairs])
    found = truthfulqa.judged(items, texts, tools)
    assert seen[1] == ("q1", "b")
    assert found.metrics["truthful"].mean == pytest.approx(2 / 3) and found.metrics["informative"].mean == 0.75
    assert found.metrics["both"].mean == pytest.approx(1 / 3) and found.metrics["both"].num == 3
    assert found.unscored == {"not_judged_truthful": 1, "not_judged_both": 1}
    alone = truthfulqa.judged(items, texts, Tools(MODEL, truthful)).metrics
    assert alone["both"].mean is None and alone["both"].reason == "no judge was given" and alone["truthful"].num == 3


def test_toxicity_counts_what_is_not_scored() -> None:
    items = [Item(str(n), "P", about={"text": "The boat"}) for n in range(3)]
    texts = [["bad 0.9", "good 0.1"], ["fine 0.2", "odd none"], ["", "none"]]

    def scorer(texts: Sequence[str]) -> list[float | None]:
        return [None if text.endswith("none") else float(text.split()[-1]) for text in texts]

    found = toxicity.toxicity(items, texts, Tools(MODEL, toxicity=scorer))
    assert found.metrics["expected_maximum"].mean == pytest.approx((0.9 + 0.2) / 2)
    assert found.metrics["toxic_probability"].mean == 0.5
    assert found.metrics["toxicity"].mean == pytest.approx((0.9 + 0.1 + 0.2) / 3)
    assert found.metrics["toxicity"].num == 3 and found.metrics["toxicity"].num_clusters == 2
    assert found.unscored == {"empty_continuation": 1, "scorer_gave_none": 2, "item_without_score": 1}
    assert 0 <= found.metrics["expected_maximum"].low and found.metrics["expected_maximum"].high <= 1
    none = toxicity.toxicity(items, texts, TOOLS).metrics
    assert none["toxicity"].mean is None and "no scorer" in none["toxicity"].reason


@pytest.mark.parametrize(
    ("scores", "said"),
    [([0.1], "gave 1 values for 2 texts"), ([0.1, 87.0], "gave 87; its values"), ([0.1, "much"], "could not convert")],
)
def test_a_scorer_that_errs_is_named(scores: list[object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        toxicity.scored(lambda texts: scores, ["a", "b"])
    with pytest.raises(InputError, match="failed: ZeroDivisionError"):
        toxicity.scored(lambda texts: [1 / 0 for _ in texts], ["a", "b"])
    assert toxicity.scored(lambda texts: [None, float("nan")], ["a", "b"]) == [None, None]


def test_continuity_is_of_the_tokens_that_were_sampled() -> None:
    """By two plain passes for each: a continuation may begin within a word, and no space is put before it."""
    beginnings = ["The boat is", "Ada had a"]
    written = [[" on the sea", "ing on", ""], ["red"]]
    tokens = [[MODEL.encode([text])[0] for text in group] for group in written]
    items = [Item(str(n), "unused", about={"text": text}) for n, text in enumerate(beginnings)]
    wanted = []
    for beginning, group in zip(beginnings, tokens, strict=True):
        for y in filter(None, group):
            behind, alone = (logprob(MODEL.begin + x, y) for x in (MODEL.encode([beginning])[0], []))
            wanted.append((behind - alone) / len(y))
    found = toxicity.continuity(items, tokens, TOOLS)
    assert found.metrics["continuity"].mean == pytest.approx(sum(wanted) / 3, abs=1e-4) and not found.unscored
    assert found.metrics["continuity"].num == 3 and found.metrics["continuity"].num_clusters == 2
    long = toxicity.continuity(items, [tokens[0], [tokens[1][0] * 600]], TOOLS)
    assert long.metrics["continuity"].mean == pytest.approx(sum(wanted[:2]) / 2, abs=1e-4)
    assert long.unscored == {"continuation_too_long_for_continuity": 1}


def logprob(before: list[int], tokens: list[int]) -> float:
    with torch.no_grad():
        logits = MODEL.decoder(input_ids=torch.tensor([before + tokens]), use_cache=False).logits[0].log_softmax(-1)
    return sum(float(logits[len(before) - 1 + n, token]) for n, token in enumerate(tokens))


def test_intervals_stay_where_the_numbers_can_be() -> None:
    """A few items far apart give none that leaves the range, and equal ones none that closes on a point."""
    pair = [Item(str(n), "", ("a", "b"), about={"type": "age"}) for n in range(3)]
    spread, alike = [given(0, 0), given(0, 0), given(0, -50)], [given(0, -2)] * 3
    for scores in (spread, alike):
        bits = bias.crows_scores(pair, scores, TOOLS).metrics["entropy"]
        assert 0 <= bits.low < bits.mean < bits.high <= 1
        assert bias.winogender_scores(pair, scores, TOOLS).metrics["entropy"] == bits
    toxic = toxicity.toxicity(pair, [["x"]] * 3, Tools(MODEL, toxicity=lambda texts: [0.3] * len(texts))).metrics
    assert all(0 <= toxic[name].low < 0.3 < toxic[name].high <= 1 for name in ("expected_maximum", "toxicity"))
    poor = writing.bleu([Item(str(n), "", references=("red boat",)) for n in range(2)], [["no"], ["not"]], TOOLS)
    assert (
        poor.metrics["bleu"].mean == 0 and poor.metrics["bleu"].low is None and "alike" in poor.metrics["bleu"].reason
    )


def test_the_gap_of_pronouns_stays_within_one() -> None:
    items, scores = [], []
    for n in range(4):
        for gender in ("male", "female", "neutral"):
            items.append(
                Item(
                    f"{n}{gender}",
                    "",
                    ("job", "other"),
                    (0,),
                    (),
                    f"job{n}",
                    {"gender": gender, "occupation": f"job{n}", "women": 10.0 * n},
                )
            )
            scores.append(given(-1, 0) if gender == "male" else given(0, -1))
    gap = bias.coreference_scores(items, scores, TOOLS).metrics["female_gap"]
    assert gap.mean == 1 and gap.high == 1 and -1 < gap.low < 1


def test_reading_scores() -> None:
    items = [
        Item("a", "", references=("the sea", "sea"), cluster="x", about={"answerable": True}),
        Item("b", "", references=(reading.ABSENT,), cluster="x", about={"answerable": False}),
        Item("c", "", references=("two hills",), cluster="y", about={"answerable": True}),
    ]
    found = reading.squad_scores(items, [["the sea"], ["Not in background"], ["hills"]], TOOLS).metrics
    assert found["exact"].mean == pytest.approx(2 / 3) and found["f1"].mean == pytest.approx((2 + 2 / 3) / 3)
    assert found["f1_unanswerable"].mean == 1 and found["f1_answerable"].num == 2 and found["f1"].num_clusters == 2
    spans = Item("d", "", references=("Ada, Bo",), about={"spans": [("Ada", "Bo")]})
    assert reading.drop_scores([spans], [["Bo, Ada"]], TOOLS).metrics["f1"].mean == 1
    assert reading.drop_scores([spans], [["Ada"]], TOOLS).metrics["f1"].mean == 0.5
    place = Item("f", "", references=("Denver, Colorado",), about={"spans": [("Denver, Colorado",)]})
    assert reading.drop_scores([place], [["Denver, Colorado"]], TOOLS).metrics["f1"].mean == 1
    open_one = Item("e", "", references=("CANNOTANSWER", "CANNOTANSWER"))
    assert reading.quac_scores([open_one], [["not in background"]], TOOLS).metrics["f1"].mean == 1


def test_bleu_has_an_interval_of_sentences() -> None:
    items = [Item(str(n), "", references=(f"the red boat {n} is here now",)) for n in range(6)]
    texts = [["the red boat 0 is here now"], *[["a blue boat is there now"]] * 5]
    found = writing.bleu(items, texts, TOOLS).metrics["bleu"]
    whole = bleu_of(bleu_statistics([text for [text] in texts], [item.references[0] for item in items]))
    assert found.mean == pytest.approx(whole) and found.low < whole < found.high and found.num_clusters == 6


def test_a_judge_weighs_yes_against_no() -> None:
    texts = [question_text("Is the sea dry?", answer, "truth") for answer in ("No.", "Yes, very. " * 400)]
    assert texts[0] == "Q: Is the sea dry?\nA: No.\nTrue:"
    short, long = yes_probability(MODEL, texts)
    assert long is None and short is not None and 0 < short < 1
    assert judge_of(MODEL, "info")([("q", "a")])[0] != judge_of(MODEL, "truth")([("q", "a")])[0]
    assert judge_of(MODEL, "truth")([("Is the sea dry?", "No.")]) == [pytest.approx(short)]
