"""Marks of single responses, for reward models that learn by regression: people's, or an automatic metric's.

Each function takes a snapshot and gives every response it can mark a number, by the response's id. People are the
training labelers alone; a metric compares a response with the demonstrations of its prompt.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean
from typing import Any

from heedful.config import InputError
from heedful.snapshot import Snapshot

Marks = dict[str, float]  # response id → mark
CHINESE = re.compile(r"([\u3400-\u9fff])")


def likert(snapshot: Snapshot) -> Marks:
    """The mean of the overall marks, 1 to 7, that training labelers gave the response.

    Raises:
        InputError: they gave none.
    """
    return _rated(snapshot, float)


def good_bad(snapshot: Snapshot) -> Marks:
    """The share of training labelers whose overall mark says good, 5 to 7, and not bad, 1 to 3; 4 is half of each.

    Raises:
        InputError: they gave none.
    """
    return _rated(snapshot, lambda overall: (overall > 4) + (overall == 4) / 2)


def bleu(snapshot: Snapshot) -> Marks:
    """Sentence BLEU, 0 to 1, against all demonstrations of the prompt (Papineni et al. 2002; sacrebleu's smoothing).

    Raises:
        InputError: no response's prompt has one.
    """
    scorer = _bleu()

    def score(text: str, shown: Sequence[str]) -> float:
        return scorer.sentence_score(_spaced(text), list(map(_spaced, shown))).score / 100

    return _compared(snapshot, score)


def rouge_l(snapshot: Snapshot) -> Marks:
    """ROUGE-L, 0 to 1: F-measure of the longest common subsequence of words with the nearest demonstration (Lin 2004).

    Raises:
        InputError: no response's prompt has one.
    """
    scorer = _rouge()
    return _compared(snapshot, lambda text, shown: scorer.score_multi(shown, text)["rougeL"].fmeasure)


MARKS: dict[str, Callable[[Snapshot], Marks]] = {
    "likert": likert,
    "good_bad": good_bad,
    "bleu": bleu,
    "rouge_l": rouge_l,
}


def _rated(snapshot: Snapshot, mark: Callable[[int], float]) -> Marks:
    labelers = snapshot.labeler_by_id()
    given: dict[str, list[float]] = defaultdict(list)
    for rating in snapshot.ratings:
        if labelers[rating.labeler].group == "train":
            given[rating.response_id].append(mark(rating.overall))
    if not given:
        raise InputError(
            "no response has a mark from a training labeler; set labelers.ratings=true in the recipe, or bring ratings "
            "in with heedful label work --task rating and heedful label import"
        )
    return {id: fmean(marks) for id, marks in given.items()}


def _compared(snapshot: Snapshot, likeness: Callable[[str, Sequence[str]], float]) -> Marks:
    shown: dict[str, list[str]] = defaultdict(list)
    for demonstration in snapshot.demonstrations:
        shown[demonstration.prompt_id].append(demonstration.text)
    found = {r.id: likeness(r.text, shown[r.prompt_id]) for r in snapshot.responses if shown[r.prompt_id]}
    if not found:
        raise InputError(
            "no prompt with responses has a demonstration to compare them with; set labelers.references=true in the "
            "recipe, or bring some in with heedful label work --task demonstration --pool reward_model and heedful "
            "label import"
        )
    return found


def _spaced(text: str) -> str:
    """Each Chinese character as a word of its own, as the metrics' word splitting takes spaces to part words."""
    return CHINESE.sub(r" \1 ", text)


# Both libraries take long to import, which no other command should wait for.


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    class Words:
        def tokenize(self, text: str) -> list[str]:
            return re.findall(r"\w+", _spaced(text).lower())

    return RougeScorer(["rougeL"], tokenizer=Words())
