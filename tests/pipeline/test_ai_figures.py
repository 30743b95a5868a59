"""An AI labeler's figures: what is compared is compared over the same pairs, and noise is not shown as a finding."""

from io import StringIO
from random import Random

import pytest
from rich.console import Console

from heedful.cli import judge
from heedful.feedback.ai.report import FEWEST
from heedful.pipeline.ai_figures import figures
from heedful.ranks import rank_of
from heedful.snapshot import Snapshot
from heedful.types import Labeler, Prompt, Ranking, Response


def judged(shares: list[float], people: list[tuple[int, int] | None]) -> Snapshot:
    """A pair for each prompt, the second response the longer: what the AI labeler says of the first, and a person."""
    ids = [f"p{n}" for n in range(len(shares))]
    responses = [
        Response(id=f"{id}{side}", prompt_id=id, text=text) for id in ids for side, text in (("a", "x"), ("b", "xx"))
    ]
    rankings = []
    for id, share, rank in zip(ids, shares, people, strict=True):
        pair = (f"{id}a", f"{id}b")
        both = ((share, share),)
        own = {"prompt_id": id, "responses": pair}
        rankings.append(Ranking(id=f"ai {id}", labeler="ai", rank=rank_of(both, 2), preference=both, **own))
        rankings += [Ranking(id=f"ann {id}", labeler="ann", rank=rank, **own)] if rank else []
    return Snapshot(
        prompts=tuple(Prompt(id=id, text=id, user=id) for id in ids),
        responses=tuple(responses),
        labelers=(Labeler(id="ai", kind="ai"), Labeler(id="ann")),
        rankings=tuple(rankings),
    )


def test_taste_for_length_is_compared_over_the_same_pairs() -> None:
    found = figures(judged([0.2, 0.4, 0.9, 0.9], [(2, 1), (1, 2), None, None]), "ai")
    assert (found["prefers_longer"].mean, found["prefers_longer"].num) == (pytest.approx(0.7), 2)
    assert (found["people_prefer_longer"].mean, found["people_prefer_longer"].num) == (0.5, 2)
    alone = figures(judged([0.2, 0.4, 0.9, 0.9], [None] * 4), "ai")
    assert (alone["prefers_longer"].mean, alone["prefers_longer"].num) == (pytest.approx(0.4), 4)
    assert alone["people_prefer_longer"].mean is None


def test_four_labelers_stand_side_by_side_in_100_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {name: one._asdict() for name, one in figures(judged([0.2, 0.9], [(2, 1), (1, 2)]), "ai").items()}
    own |= {"alignment": own["alignment"] | {"mean": 0.98, "low": 0.961, "high": 1.0}}
    monkeypatch.setattr(judge, "console", console := Console(width=100, record=True, file=StringIO()))
    judge.show_figures({f"a model of some name {n}": own for n in range(5)})
    lines = console.export_text().splitlines()
    values = [line for line in lines if line.startswith("agrees with people")]
    assert values[0].count("98.0 (96.1…100.0)") == 4 and values[2].count("98.0 (96.1…100.0)") == 1
    assert max(map(len, lines)) <= 100 and any(line.startswith("calibration error ") and "–" in line for line in lines)


@pytest.mark.parametrize("number", [FEWEST - 1, FEWEST])
def test_a_calibration_error_of_few_comparisons_is_none(number: int) -> None:
    random = Random(0)
    shares = [random.uniform(0, 1) for _ in range(number)]
    people = [(1, 2) if random.random() < share else (2, 1) for share in shares]
    found = figures(judged(shares, list(people)), "ai")["calibration_error"]
    if number < FEWEST:
        assert (found.mean, found.low, found.num) == (None, None, number) and "fewer than 400" in found.reason
    else:
        assert found.mean is not None and found.mean < 0.08 and found.num == number
