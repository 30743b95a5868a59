"""How much of a reference a text holds: token F1, DROP's F1 over bags and numbers, QuAC's, ROUGE-L, BLEU.

All but BLEU are 0 to 1 for one text; BLEU, 0 to 100, is of many texts together, from sufficient statistics, so that
its interval can draw sentences again without counting n-grams anew.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces (Rajpurkar et al. 2016, SQuAD).

    >>> normalized("The  North-Sea, an oil field.")
    'northsea oil field'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def token_f1(text: str, reference: str) -> float:
    """F1 of the words two texts share, each counted as often as both have it; two texts without a word are equal.

    Rajpurkar et al. 2016; 2018 for the empty answer.

    >>> token_f1("in the North Sea", "North Sea")
    0.8
    """
    found, wanted = normalized(text).split(), normalized(reference).split()
    return _f1(found, wanted)


def _f1(found: Sequence[str], wanted: Sequence[str]) -> float:
    if not found or not wanted:
        return float(list(found) == list(wanted))
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def best_f1(text: str, references: Sequence[str]) -> float:
    """`token_f1` with the nearest reference."""
    return max(token_f1(text, reference) for reference in references)


def best_match(text: str, references: Sequence[str]) -> float:
    """1 where the text equals a reference once both are normalized."""
    return float(any(normalized(text) == normalized(reference) for reference in references))


def quac_f1(text: str, references: Sequence[str]) -> float:
    """F1 as a person's is computed, who never has their own answer to compare with: the mean, over references left
    out one at a time, of the best F1 with the others (Choi et al. 2018, QuAC). The references are `settled` first.
    """
    told = settled(references)
    if told == [NO_ANSWER]:
        return float(text == NO_ANSWER)
    if len(told) == 1:
        return token_f1(text, told[0])
    scores = [token_f1(text, reference) for reference in told]
    return sum(max(scores[:i] + scores[i + 1 :]) for i in range(len(scores))) / len(scores)


NO_ANSWER = "CANNOTANSWER"


def settled(references: Sequence[str]) -> list[str]:
    """Whether there is an answer: where half of QuAC's references or more say no, that is the only reference left;
    otherwise only those that answer are.

    >>> settled(["a boat", NO_ANSWER]), settled(["a boat", NO_ANSWER, "boat"])
    (['CANNOTANSWER'], ['a boat', 'boat'])
    """
    told = [reference for reference in references if reference != NO_ANSWER]
    return told if 2 * len(told) > len(references) else [NO_ANSWER]


def human_f1(references: Sequence[str]) -> float:
    """How well QuAC's annotators agree: each `settled` reference's best F1 with the others, averaged; 1 of a single
    one."""
    told = settled(references)
    if len(told) == 1:
        return 1.0
    best = [best_f1(one, [*told[:i], *told[i + 1 :]]) for i, one in enumerate(told)]
    return sum(best) / len(best)


def drop_f1(spans: Sequence[str], reference: Sequence[str]) -> float:
    """DROP's F1: answer spans are matched one to one, a pair whose numbers differ counts nothing (Dua et al. 2019).

    The mean over the larger number of spans: one too many costs as much as one missing.

    >>> drop_f1(["4 yards"], ["4"]), drop_f1(["5 yards"], ["4 yards"]), drop_f1(["red", "blue"], ["blue"])
    (0.67, 0.0, 0.5)
    """
    found, wanted = [_bag(span) for span in spans], [_bag(span) for span in reference]
    score = np.array([[_bag_f1(one, other) for other in wanted] for one in found])
    rows, columns = linear_sum_assignment(-score)
    return round(float(score[rows, columns].sum()) / max(score.shape), 2)


def _bag(span: str) -> set[str]:
    """The words of a span; numbers as numbers, hyphens part words."""
    found: list[str] = []
    for word in re.split(r"[ \-]", span.lower()):
        bare = word.translate(PUNCTUATION)
        number = _number(word) or _number(bare)
        found += [number] if number else ARTICLES.sub(" ", bare).split()
    return set(found)


def _number(word: str) -> str:
    """A word that is a number, in one way of writing it; "" for any other."""
    try:
        return str(float(word))
    except ValueError:
        return ""


def _bag_f1(found: set[str], wanted: set[str]) -> float:
    numbers = {word for word in wanted if _number(word)}
    if numbers and not numbers & found:
        return 0.0
    if not found or not wanted:
        return float(found == wanted)
    return 2 * len(found & wanted) / (len(found) + len(wanted))


def rouge_l(text: str, reference: str) -> float:
    """F-measure of the longest common subsequence of stemmed words (Lin 2004)."""
    return float(_rouge().score(reference, text)["rougeL"].fmeasure)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def bleu_statistics(texts: Sequence[str], references: Sequence[str]) -> NDArray[np.int64]:
    """Matching n-grams of orders 1 to 4, all n-grams, length, reference length, (n, 10), as sacrebleu counts them."""
    scores = [_bleu().sentence_score(text, [reference]) for text, reference in zip(texts, references, strict=True)]
    rows = [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores]
    return np.array(rows, dtype=np.int64).reshape(-1, 10)


def bleu_of(statistics: NDArray[np.int64]) -> float:
    """Corpus BLEU, 0 to 100, of sentences' statistics (n, 10) (Papineni et al. 2002; sacrebleu's signature)."""
    from sacrebleu.metrics.bleu import BLEU

    total = [int(x) for x in statistics.sum(0)]
    return float(BLEU.compute_bleu(total[:4], total[4:8], total[8], total[9], smooth_method="exp").score)


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)
