"""Win rates: who is compared with whom, and what counts as one observation."""

import itertools
import random

import pytest

from heedful.evaluate.win_rate import compare_scores, win_rate
from heedful.types import Ranking

NAMES = ("a", "b", "c")


def make(number: int, seed: int = 0, labelers: int = 2) -> tuple[list[Ranking], dict[str, dict[str, str]]]:
    """Three policies' responses to some prompts, equal texts shared, ranked by some labelers."""
    draw = random.Random(seed)
    given: dict[str, dict[str, str]] = {name: {} for name in NAMES}
    rankings = []
    for n in range(number):
        for name in NAMES:
            given[name][f"p{n}"] = f"p{n}-{draw.choice(NAMES)}"
        ids = sorted({given[name][f"p{n}"] for name in NAMES})
        for labeler in range(labelers):
            if len(ids) > 1:
                rank = tuple(draw.randint(1, len(ids)) for _ in ids)
                id = f"k{n}-{labeler}"
                rankings.append(Ranking(id=id, prompt_id=f"p{n}", labeler=f"l{labeler}", responses=ids, rank=rank))
    return rankings, given


def test_wins_ties_and_losses_by_hand() -> None:
    given = {"new": {"p": "p-x", "q": "q-x", "s": "s-x"}, "old": {"p": "p-y", "q": "q-y", "s": "s-x"}}

    def ranked(prompt: str, *rank: int) -> Ranking:
        ids = (f"{prompt}-y", f"{prompt}-x", f"{prompt}-z")
        return Ranking(id=f"{prompt}{rank}", prompt_id=prompt, labeler="l", responses=ids, rank=rank)

    rankings = [ranked("p", 2, 1, 3), ranked("p", 1, 1, 2), ranked("q", 1, 2, 1), ranked("s", 1, 1, 1)]
    found = win_rate(rankings, given, "new", "old")
    assert (found.wins, found.ties, found.losses) == (1, 2, 1)  # s: one text is a tie
    assert found.estimate.mean == (1 + 0.5 + 0 + 0.5) / 4
    assert (found.estimate.num, found.estimate.num_clusters) == (4, 3)


def test_a_shared_text_weighs_as_much_as_a_judged_one() -> None:
    given = {"new": {"p": "p-x", "s": "s-x", "t": "t-x"}, "old": {"p": "p-y", "s": "s-x", "t": "t-x"}}
    pairs = {
        "p": (("p-x", "p-y"), (1, 2)),
        "s": (("s-x", "s-z"), (1, 2)),
    }  # a third policy's s-z; nobody was asked of t
    rankings = [
        Ranking(id=f"{prompt}{labeler}", prompt_id=prompt, labeler=labeler, responses=ids, rank=rank)
        for prompt, (ids, rank) in pairs.items()
        for labeler in ("k", "l")
    ]
    found = win_rate(rankings, given, "new", "old")
    assert (found.wins, found.ties, found.losses) == (2, 3, 0)
    assert found.estimate.num_clusters == 3


@pytest.mark.parametrize("seed", range(5))
def test_the_two_sides_of_a_comparison_add_up(seed: int) -> None:
    rankings, given = make(30, seed)
    for one, other in itertools.permutations(NAMES, 2):
        mine, theirs = win_rate(rankings, given, one, other), win_rate(rankings, given, other, one)
        assert mine.estimate.mean == pytest.approx(1 - theirs.estimate.mean)
        assert (mine.wins, mine.ties, mine.losses) == (theirs.losses, theirs.ties, theirs.wins)
        assert mine.estimate.low == pytest.approx(1 - theirs.estimate.high)
        assert mine.estimate.num_clusters == 30


def judged(ranks: dict[str, tuple[int, int]]) -> tuple[list[Ranking], dict[str, dict[str, str]]]:
    """One ranking of the two policies' responses for each prompt."""
    given = {name: {prompt: f"{prompt}-{name}" for prompt in ranks} for name in ("a", "b")}
    return [
        Ranking(id=prompt, prompt_id=prompt, labeler="l", responses=(f"{prompt}-a", f"{prompt}-b"), rank=rank)
        for prompt, rank in ranks.items()
    ], given


@pytest.mark.parametrize(("rank", "mean"), [((1, 2), 1.0), ((2, 1), 0.0), ((1, 1), 0.5)])
def test_twelve_equal_judgements_leave_room_for_doubt(rank: tuple[int, int], mean: float) -> None:
    found = win_rate(*judged({f"p{n}": rank for n in range(12)}), "a", "b").estimate
    assert found.mean == mean and found.low is not None and found.high is not None
    assert 0 <= found.low <= found.mean <= found.high <= 1 and 0.2 < found.high - found.low < 0.6


def test_an_interval_near_one_does_not_pass_it() -> None:
    ranks = {f"p{n}": (1, 2) for n in range(19)} | {"p19": (2, 1)}
    found = win_rate(*judged(ranks), "a", "b").estimate
    assert found.mean == pytest.approx(0.95) and found.high is not None and 0.95 < found.high < 1
    mine, theirs = {p: float(rank[0] == 1) for p, rank in ranks.items()}, dict.fromkeys(ranks, 0.5)
    assert compare_scores(mine, theirs).estimate == found


def test_the_baseline_ties_with_itself() -> None:
    rankings, given = make(10)
    found = win_rate(rankings, given, "a", "a")
    assert found.estimate.mean == 0.5 and (found.wins, found.ties, found.losses) == (0, len(rankings), 0)


def test_a_second_labeler_of_the_same_prompt_is_no_second_prompt() -> None:
    rankings, given = make(40, labelers=1)
    copies = [r.model_copy(update={"id": f"{r.id}-{n}", "labeler": f"m{n}"}) for r in rankings for n in range(8)]
    # The same judgement from eight labelers: nothing was learned about other prompts, so the interval stays.
    one, eight = (win_rate(judged, given, "a", "b").estimate for judged in (rankings, copies))
    assert eight.num > 3 * one.num and eight.num_clusters == one.num_clusters
    untied = [r for r in rankings if given["a"][r.prompt_id] != given["b"][r.prompt_id]]
    alone = {name: {r.prompt_id: given[name][r.prompt_id] for r in untied} for name in NAMES}
    copies = [r for r in copies if r.prompt_id in alone["a"]]
    one, eight = (win_rate(judged, alone, "a", "b").estimate for judged in (untied, copies))
    assert one.mean == pytest.approx(eight.mean) and one.stderr == pytest.approx(eight.stderr)


def test_a_ranking_without_both_responses_does_not_count() -> None:
    given = {"a": {"p": "x"}, "b": {"p": "y"}}
    ranking = Ranking(id="k", prompt_id="p", labeler="l", responses=("x", "z"), rank=(1, 2))
    found = win_rate([ranking], given, "a", "b")
    assert found.estimate.mean is None and found.estimate.num == 0 and found.estimate.reason


def test_a_scorer_decides_prompt_by_prompt() -> None:
    mine, theirs = {"p": 1.0, "q": 0.0, "r": 2.0, "s": 1.0, "only": 9.0}, {"p": 0.0, "q": 1.0, "r": 2.0, "s": 0.5}
    found = compare_scores(mine, theirs)
    assert (found.wins, found.ties, found.losses) == (2, 1, 1)
    assert found.estimate.mean == pytest.approx(2.5 / 4) and found.estimate.num_clusters == 4
