"""Labels out of scores: which of two responses is better under a list of principles, some of them negated.

SALMON (arXiv 2310.05910), section 3.2, and the code released with it, which differ:

    paper       three principles; each negated with probability ½; of the gaps (s12 + s21)/2 the largest by size
                decides, its sign turned where its principle is negated
    released    n principles, n geometric (p = 0.2), drawn again above 8; a gap counts 0 where its two orders disagree,
                and is divided by the variance of its principle's scores (not by their deviation); then two rules, and
                noise: the label is turned round with probability 0.1, or 0.25 where a rule made it

    sets        ours: each principle by itself, and negated by itself; all of a prompt's responses in one ranking, by
                how far each is ahead of the others in the mean, with every pair's probability beside it

Rules of the released code: of two responses the one that calls itself a language model loses, half of the time; the one
that alone is in the instruction's language wins, and where neither is, there is no label. It draws without a seed; here
every pair has its own generator, of the seed, the pass and the pair's ids, so its labels are the same in any company
(the released way's variances are of all pairs). It also shuffles the two outputs, which means nothing to a loss.
"""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import pvariance
from typing import NamedTuple

from heedful.config import InputError
from heedful.feedback.ai.labeler import share_of_first
from heedful.principles import Listed, Principle, PrincipleRanking, PrincipleScore
from heedful.store.language import LATIN, WORDS, language_of

PHRASES = ("As an AI language model", "As a large language model", "作为一个人工智能语言模型", "作为一个AI语言模型")


class PairScores(NamedTuple):
    """What a labeler said of one pair: principle → s12 and s21, as in `principles.PrincipleScore`."""

    prompt_id: str
    responses: tuple[str, str]
    orders: dict[str, tuple[float, float]]


class Label(NamedTuple):
    """Under these principles the first response is the better, or the second."""

    principles: tuple[Listed, ...]
    first: bool
    decided_by: str
    flipped: bool = False


class Aggregated(NamedTuple):
    """Rankings, and how often a pass made none of a pair, by reason.

    undecided: all gaps are 0, or the largest two contradict each other; of sets, all share a rank. unscored: no
    principle with a weight has a score. language: neither response is in the instruction's language.
    """

    rankings: list[PrincipleRanking]
    left_out: Counter[str]


@dataclass(frozen=True)
class Rules:
    """The released code's numbers, and the words that its first rule looks for (the second to fourth are ours)."""

    stop: float = 0.2  # of the geometric number of principles
    most: int = 8
    phrases: tuple[str, ...] = PHRASES
    phrase_loses: float = 0.5
    noise: float = 0.1
    noise_of_rules: float = 0.25


RELEASED = Rules()


def largest_gap(gaps: Sequence[float], negated: Sequence[bool]) -> tuple[int, bool] | None:
    """Whose gap is the largest by size, and whether the first response wins by it: where it is above 0, turned round
    where the principle is negated. None where all gaps are 0, or where equally large ones contradict each other.

    Scores (2, 3, 6) against (1, 5, 5), the second principle negated: it decides, and the first response wins.

    >>> largest_gap([2 - 1, 3 - 5, 6 - 5], [False, True, False])
    (1, True)
    """
    most = max(map(abs, gaps))
    winners = {(gap > 0) != turned for gap, turned in zip(gaps, negated, strict=True) if abs(gap) == most}
    if most == 0 or len(winners) == 2:
        return None
    return [abs(gap) for gap in gaps].index(most), winners.pop()


def variances(scores: Iterable[PrincipleScore]) -> dict[str, float]:
    """Of each principle the (biased) variance of all s12 and s21 together, in nats²."""
    found: dict[str, list[float]] = {}
    for score in scores:
        found.setdefault(score.principle, []).extend(score.orders)
    return {principle: pvariance(values) for principle, values in found.items()}


def agreed_gap(orders: tuple[float, float], variance: float) -> float:
    """(s12 + s21) / 2 / variance where both have one sign, else 0; 0 too where the principle's scores never vary.

    >>> agreed_gap((3.0, 1.0), 4.0), agreed_gap((3.0, -1.0), 4.0)
    (0.5, 0.0)
    """
    if orders[0] * orders[1] <= 0 or variance == 0:
        return 0.0
    return (orders[0] + orders[1]) / 2 / variance


def draw(principles: Sequence[Principle], number: int, rng: random.Random) -> list[Principle]:
    """So many of the principles, one after the other by weight, none twice; all that have a weight where those are
    fewer."""
    left = [one for one in principles if one.weight > 0]
    drawn: list[Principle] = []
    while left and len(drawn) < number:
        drawn.append(left.pop(rng.choices(range(len(left)), [one.weight for one in left])[0]))
    return drawn


def geometric(stop: float, most: int, rng: random.Random) -> int:
    """n ≥ 1 with P(n) ∝ (1 − stop)^(n − 1), none above `most`."""
    while True:
        number = 1 + math.floor(math.log(1 - rng.random()) / math.log(1 - stop))
        if number <= most:
            return number


def label_by_paper(
    pair: PairScores, principles: Sequence[Principle], rng: random.Random, number: int = 3
) -> Label | str:
    """A label, or the reason why there is none."""
    drawn = draw([one for one in principles if one.id in pair.orders], number, rng)
    if not drawn:
        return "unscored"
    negated = [rng.random() < 0.5 for _ in drawn]
    gaps = [(pair.orders[one.id][0] + pair.orders[one.id][1]) / 2 for one in drawn]
    return _label(drawn, negated, gaps)


def label_by_released(
    pair: PairScores,
    texts: tuple[str, str, str],
    principles: Sequence[Principle],
    variance: Mapping[str, float],
    rng: random.Random,
    rules: Rules = RELEASED,
) -> Label | str:
    """A label, or the reason why there is none. `texts`: the instruction and both responses."""
    drawn = draw([one for one in principles if one.id in pair.orders], geometric(rules.stop, rules.most, rng), rng)
    if not drawn:
        return "unscored"
    negated = [rng.random() < 0.5 for _ in drawn]
    label = _label(drawn, negated, [agreed_gap(pair.orders[one.id], variance[one.id]) for one in drawn])
    if isinstance(label, str):
        return label
    first, by = label.first, label.decided_by
    instruction, *responses = texts
    speaks = [any(phrase.lower() in text.lower() for phrase in rules.phrases) for text in responses]
    if speaks[0] != speaks[1] and rng.random() < rules.phrase_loses:
        first, by = speaks[1], "rule:phrase"
    suits = [may_be_one_language(instruction, text) for text in responses]
    if not any(suits):
        return "language"
    if suits[0] != suits[1]:
        first, by = suits[0], "rule:language"
    flipped = rng.random() < (rules.noise_of_rules if by.startswith("rule:") else rules.noise)
    return Label(label.principles, first != flipped, by, flipped)


def _label(drawn: Sequence[Principle], negated: Sequence[bool], gaps: Sequence[float]) -> Label | str:
    decided = largest_gap(gaps, negated)
    if decided is None:
        return "undecided"
    listed = tuple((one.id, turned) for one, turned in zip(drawn, negated, strict=True))
    return Label(listed, decided[1], drawn[decided[0]].id)


def may_be_one_language(a: str, b: str) -> bool:
    """False where the letters tell that two texts are in different languages.

    >>> may_be_one_language("What is the name of it?", "今天天气很好"), may_be_one_language("What is it?", "Paris")
    (False, True)
    """
    one, other = language_of(a), language_of(b)
    unsure = LATIN in (one, other) and {one, other} <= {LATIN, *WORDS}
    return one == other or unsure or not (one and other)


def by_pair(scores: Iterable[PrincipleScore]) -> list[PairScores]:
    """The scores gathered, pairs in the order in which they first come.

    Raises:
        InputError: two scores of one pair by one principle.
    """
    found: dict[tuple[str, tuple[str, str]], PairScores] = {}
    for score in scores:
        key = (score.prompt_id, score.responses)
        own = found.setdefault(key, PairScores(*key, {}))
        if score.principle in own.orders:
            raise InputError(f"two scores of {' and '.join(score.responses)} by {score.principle}; keep one of them")
        own.orders[score.principle] = score.orders
    return list(found.values())


def rankings_by_paper(
    scores: Sequence[PrincipleScore],
    principles: Sequence[Principle],
    labeler: str,
    seed: int,
    passes: int = 1,
    number: int = 3,
) -> Aggregated:
    """`label_by_paper` of every pair in every pass."""
    found = Aggregated([], Counter())
    for turn in range(passes):
        for pair in by_pair(scores):
            rng = generator(seed, turn, pair)
            _keep(found, label_by_paper(pair, principles, rng, number), pair, (labeler, principles[0], seed, turn))
    return found


def rankings_by_released(
    scores: Sequence[PrincipleScore],
    principles: Sequence[Principle],
    texts: Mapping[str, str],
    labeler: str,
    seed: int,
    passes: int = 4,
    rules: Rules = RELEASED,
) -> Aggregated:
    """`label_by_released` of every pair in every pass. `texts`: those of prompts and responses, by id."""
    found, variance = Aggregated([], Counter()), variances(scores)
    for turn in range(passes):
        for pair in by_pair(scores):
            rng = generator(seed, turn, pair)
            own = texts[pair.prompt_id], texts[pair.responses[0]], texts[pair.responses[1]]
            label = label_by_released(pair, own, principles, variance, rng, rules)
            _keep(found, label, pair, (labeler, principles[0], seed, turn))
    return found


def rankings_by_sets(
    scores: Sequence[PrincipleScore],
    principles: Sequence[Principle],
    labeler: str,
    seed: int,
    least_gap: float = 0.0,
    negated: float = 1.0,
) -> Aggregated:
    """A ranking for each prompt and each principle with a weight; with probability `negated` the same turned round too.

    Responses are those of the prompt's scored pairs, in the order in which they first come, see `standing`. With every
    pair scored a ranking holds the probabilities too, and one in which all share a rank is kept for them: that a
    principle hardly tells two responses apart is learned by the objective `soft` alone.
    """
    found, known = Aggregated([], Counter()), {one.id: one for one in principles if one.weight > 0}
    for (prompt_id, id), scored in _by_set(scores).items():
        if id not in known:
            continue
        rank = standing({pair: one.gap for pair, one in scored.items()}, least_gap)
        said = preference_of(scored, tuple(rank))
        if len(set(rank.values())) == 1 and not said:
            found.left_out["undecided"] += 1
            continue
        rng = random.Random("\x1f".join((str(seed), prompt_id, id, *rank)))
        for turned in (False, True) if rng.random() < negated else (False,):
            key = "\x1f".join((labeler, prompt_id, id, str(turned), *rank))
            found.rankings.append(
                PrincipleRanking(
                    id=f"principles-{hashlib.sha256(key.encode()).hexdigest()[:16]}",
                    prompt_id=prompt_id,
                    labeler=labeler,
                    language=known[id].language,
                    principles=((id, turned),),
                    responses=tuple(rank),
                    rank=tuple(max(rank.values()) + 1 - place if turned else place for place in rank.values()),
                    decided_by=id,
                    preference=tuple((1 - a, 1 - b) for a, b in said) if turned else said,
                )
            )
    return found


def preference_of(
    scored: Mapping[tuple[str, str], PrincipleScore], responses: Sequence[str]
) -> tuple[tuple[float, float], ...]:
    """What the scores say of the pairs i < j, as `types.Ranking.preference`; () where a pair has none."""
    orders = {pair: one.orders for pair, one in scored.items()}
    orders |= {(second, first): (-s21, -s12) for (first, second), (s12, s21) in orders.items()}
    said = [orders.get(pair) for pair in combinations(responses, 2)]
    known = [one for one in said if one is not None]
    return tuple((probability(s12), probability(s21)) for s12, s21 in known) if len(known) == len(said) else ()


def probability(log_odds: float) -> float:
    return share_of_first((log_odds, 0.0))


def standing(gaps: Mapping[tuple[str, str], float], least_gap: float = 0.0) -> dict[str, int]:
    """The rank of each response by the mean of its gaps to the others, 1 is best; a response less than `least_gap`
    nats behind the best of a rank shares it.

    >>> standing({("a", "b"): 2.0, ("a", "c"): 3.0, ("b", "c"): 0.2}, least_gap=1.0)
    {'a': 1, 'b': 2, 'c': 2}
    """
    ahead: dict[str, list[float]] = {}
    for (first, second), gap in gaps.items():
        ahead.setdefault(first, []).append(gap)
        ahead.setdefault(second, []).append(-gap)
    mean = {id: sum(values) / len(values) for id, values in ahead.items()}
    rank, place, best = {}, 0, math.inf
    for id in sorted(mean, key=lambda id: -mean[id]):
        if mean[id] < best and best - mean[id] >= least_gap:
            place, best = place + 1, mean[id]
        rank[id] = place
    return {id: rank[id] for id in mean}


def _by_set(scores: Iterable[PrincipleScore]) -> dict[tuple[str, str], dict[tuple[str, str], PrincipleScore]]:
    """By prompt and principle, of each pair."""
    found: dict[tuple[str, str], dict[tuple[str, str], PrincipleScore]] = {}
    for score in scores:
        found.setdefault((score.prompt_id, score.principle), {})[score.responses] = score
    return found


def generator(seed: int, turn: int, pair: PairScores) -> random.Random:
    """The pair's own, whatever other pairs there are."""
    return random.Random("\x1f".join((str(seed), str(turn), pair.prompt_id, *pair.responses)))


def _keep(found: Aggregated, label: Label | str, pair: PairScores, of: tuple[str, Principle, int, int]) -> None:
    if isinstance(label, str):
        found.left_out[label] += 1
        return
    labeler, principle, seed, turn = of
    key = "\x1f".join((labeler, str(seed), str(turn), pair.prompt_id, *pair.responses))
    found.rankings.append(
        PrincipleRanking(
            id=f"principles-{hashlib.sha256(key.encode()).hexdigest()[:16]}",
            prompt_id=pair.prompt_id,
            labeler=labeler,
            language=principle.language,
            principles=label.principles,
            responses=pair.responses,
            rank=(1, 2) if label.first else (2, 1),
            decided_by=label.decided_by,
            flipped=label.flipped,
        )
    )
