"""The preference tables: every cell by hand, and planted differences found where they were planted."""

import random
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.config import InputError
from heedful.evaluate.preference import (
    Judged,
    differences,
    games,
    length_control,
    mean_mark,
    metadata,
    strengths,
    tables,
    win_rates,
)
from heedful.evaluate.preference import likert as likert_rows
from heedful.evaluate.win_rate import win_rate
from heedful.snapshot import Snapshot
from heedful.types import Labeler, LabelerGroup, Prompt, Ranking, Rating, Response

NAMES = ("sft", "ppo", "ppo_ptx")
LABELERS: tuple[tuple[str, LabelerGroup], ...] = (
    ("t1", "train"),
    ("t2", "train"),
    ("h1", "heldout"),
    ("h2", "heldout"),
)


def kind(prompt: Prompt) -> str:
    return "base" if prompt.id.startswith("b") else "instruct"


def study(number: int = 60, seed: int = 0, chance: Mapping[tuple[str, str], float] | None = None) -> Judged:
    """Half of the prompts are a base model's; `chance` says how often ppo beats the others by (group, distribution)."""
    draw = random.Random(seed)
    prompts = [Prompt(id=f"{'bi'[n % 2]}{n}", text="say", user="u") for n in range(number)]
    responses, rankings, ratings = [], [], []
    given: dict[str, dict[str, str]] = {name: {} for name in NAMES}
    for prompt in prompts:
        for name in NAMES:
            given[name][prompt.id] = f"{name}/{prompt.id}"
            words = " ".join(["word"] * draw.randint(3, 9) + ["more"] * 3 * (name == "ppo"))
            responses.append(Response(id=f"{name}/{prompt.id}", prompt_id=prompt.id, text=words, model=name))
        ids = tuple(f"{name}/{prompt.id}" for name in NAMES)
        for labeler, group in LABELERS:
            won = draw.random() < (chance or {}).get((group, kind(prompt)), 0.5)
            other = draw.choice((1, 2))
            rank = (1 + other % 2 + won, 1 if won else 3, 1 + (other + 1) % 2 + won)
            rankings.append(ranked(labeler, prompt.id, ids, rank))
            flags = {"hallucination": draw.random() < 0.2} | (
                {"satisfies_constraint": True} if len(prompt.id) > 2 else {}
            )
            for id in ids[:2]:
                ratings.append(
                    Rating(
                        id=f"{labeler}{id}",
                        prompt_id=prompt.id,
                        response_id=id,
                        labeler=labeler,
                        overall=4,
                        flags=flags,
                    )
                )
    who = tuple(Labeler(id=name, group=group) for name, group in LABELERS)
    return Judged.of(
        Snapshot(
            prompts=tuple(prompts),
            responses=tuple(responses),
            labelers=who,
            rankings=tuple(rankings),
            ratings=tuple(ratings),
        ),
        given,
        "sft",
        kind,
    )


def ranked(labeler: str, prompt_id: str, ids: tuple[str, ...], rank: tuple[int, ...]) -> Ranking:
    return Ranking(id=f"{labeler}{prompt_id}", prompt_id=prompt_id, labeler=labeler, responses=ids, rank=rank)


def cell(rows: list, policy: str, group: str, distribution: str = "all") -> dict:
    [row] = [r for r in rows if (r["policy"], r["group"], r["distribution"]) == (policy, group, distribution)]
    return row


def test_every_cell_is_the_win_rate_of_its_judgements() -> None:
    judged = study()
    rows = win_rates(judged, two_way=True)
    assert len(rows) == 2 * 3 * 2  # two policies, two groups, all prompts and two kinds
    for row in rows:
        chosen = [
            ranking
            for ranking in judged.rankings
            if judged.group[ranking.labeler] == row["group"]
            and row["distribution"] in ("all", judged.distribution[ranking.prompt_id])
        ]
        expected = win_rate(chosen, judged.given, row["policy"], "sft")
        assert (row["mean"], row["low"], row["high"]) == expected.estimate[:1] + expected.estimate[2:4]
        assert (row["wins"], row["ties"], row["losses"]) == expected[1:]
        assert (row["num"], row["num_prompts"], row["num_labelers"], row["unscored"]) == (
            2 * row["num_prompts"],
            60 if row["distribution"] == "all" else 30,
            2,
            0,
        )
        assert row["two_way"]["low"] <= row["low"] + 0.05 and 0.05 < row["smallest_difference"] < 0.4
        assert row["p"] <= row["p_adjusted"] <= 1


def test_what_was_planted_in_a_cell_is_found_there_alone() -> None:
    chance = {
        ("train", "base"): 0.95,
        ("train", "instruct"): 0.5,
        ("heldout", "base"): 0.5,
        ("heldout", "instruct"): 0.5,
    }
    rows = win_rates(study(160, 1, chance))
    found = {(g, d): cell(rows, "ppo", g, d) for g in ("train", "heldout") for d in ("base", "instruct")}
    assert found["train", "base"]["low"] > 0.8 and found["train", "base"]["p_adjusted"] < 0.001
    for where in (("train", "instruct"), ("heldout", "base"), ("heldout", "instruct")):
        assert found[where]["low"] < 0.5 < found[where]["high"]


def test_a_group_that_did_not_judge_says_so_and_the_other_is_the_headline() -> None:
    judged = study()
    alone = Judged(**{**vars(judged), "rankings": judged.rankings_of("train"), "ratings": ()})
    assert judged.headline == "heldout" and alone.headline == "train"
    row = cell(win_rates(alone, two_way=True), "ppo", "heldout")
    assert row["mean"] is None and "no labeler of this group" in row["reason"] and row["p"] is None
    assert row["unscored"] == 60 and row["two_way"]["reason"] == "no values"
    [rated] = [r for r in likert_rows(alone) if r["policy"] == "ppo"]
    assert rated["mean"] is None and rated["unscored"] == 60 and "nobody rated" in rated["reason"]


@given(st.lists(st.tuples(st.integers(1, 7), st.sampled_from("abcd")), min_size=1, max_size=30))
def test_marks_have_their_mean_and_an_interval_inside_the_scale_that_never_closes(marks: list[tuple[int, str]]) -> None:
    ratings = [
        Rating(id=f"r{i}", prompt_id=prompt, response_id="x", labeler="l", overall=mark)
        for i, (mark, prompt) in enumerate(marks)
    ]
    found = mean_mark(ratings)
    assert found.mean == pytest.approx(sum(mark for mark, _ in marks) / len(marks))
    if len({prompt for _, prompt in marks}) > 1:
        assert found.low is not None and found.high is not None
        assert 1 - 1e-9 <= found.low <= found.mean <= found.high <= 7 + 1e-9 and found.low < found.high


def test_prompts_nobody_judged_are_unscored_and_equal_texts_tie() -> None:
    judged = study(10)
    kept = [ranking for ranking in judged.rankings if ranking.prompt_id not in ("b0", "i1", "b2")]
    given = {name: dict(of) for name, of in judged.given.items()}
    given["ppo"]["b2"] = given["sft"]["b2"]  # one text: a tie without anyone being asked
    rows = win_rates(Judged(**{**vars(judged), "rankings": kept, "given": given}))
    row = cell(rows, "ppo", "heldout")
    assert (row["unscored"], row["num"], row["num_prompts"]) == (2, 2 * 7 + 1, 8)
    assert row["ties"] == cell(win_rates(judged), "ppo", "heldout")["ties"] + 1 - sum(
        win_rate([r], judged.given, "ppo", "sft").ties
        for r in judged.rankings
        if r.prompt_id in ("b0", "i1", "b2") and judged.group[r.labeler] == "heldout"
    )


def test_differences_are_paired_and_adjusted() -> None:
    chance = {(g, d): 0.9 for g in ("train", "heldout") for d in ("base", "instruct")}
    judged = study(120, 2, chance)
    [row] = differences(judged)
    assert (row["policy"], row["other"]) == ("ppo", "ppo_ptx") and row["low"] > 0.2 and row["p_adjusted"] < 0.001
    rows = {name: cell(win_rates(judged), name, "heldout")["mean"] for name in ("ppo", "ppo_ptx")}
    assert row["mean"] == pytest.approx(rows["ppo"] - rows["ppo_ptx"]) and row["p"] == row["p_adjusted"]


def test_a_perfect_record_says_why_it_has_no_smallest_difference() -> None:
    judged = study(12, 2, {(g, d): 1.0 for g in ("train", "heldout") for d in ("base", "instruct")})
    row = cell(win_rates(judged), "ppo", "heldout")
    assert row["mean"] == 1 and row["smallest_difference"] is None
    assert row["reason"].startswith("smallest difference: all judgements are equal")


def test_a_baseline_that_nobody_has_is_named() -> None:
    judged = study(4)
    with pytest.raises(InputError, match="'zzz' gave no response; known: sft, ppo"):
        Judged(**{**vars(judged), "baseline": "zzz"})


def test_strengths_follow_who_wins() -> None:
    chance = {(g, d): 0.9 for g in ("train", "heldout") for d in ("base", "instruct")}
    judged = study(80, 3, chance)
    assert len(games(judged)) == 80 * 2 * 3
    rows = strengths(judged, 200)
    assert rows[0]["policy"] == "ppo" and rows[0]["low"] > 0 and rows[0]["elo"]["low"] > 1000
    [reference] = [row for row in rows if row["policy"] == "sft"]
    assert (reference["mean"], reference["elo"]["mean"]) == (0, 1000)
    nobody = Judged(**{**vars(judged), "rankings": ()})
    assert strengths(nobody) == [] and length_control(nobody)[0]["reason"] == "nobody judged it"


def test_length_control_measures_how_much_longer_a_policy_is() -> None:
    rows = {row["policy"]: row for row in length_control(study(80, 4), style=True, num_resamples=100)}
    assert rows["ppo"]["length_difference"] > 10 > abs(rows["ppo_ptx"]["length_difference"])
    assert set(rows["ppo"]["effects"]) == {"length", "headers", "lists", "bold"}
    assert rows["ppo"]["effects"]["bold"]["mean"] == pytest.approx(0)  # nobody wrote any
    assert rows["ppo"]["low"] < rows["ppo"]["mean"] < rows["ppo"]["high"]


def test_metadata_counts_the_ratings_that_answer_a_box() -> None:
    judged = study(40)
    rows = {(row["policy"], row["flag"]): row for row in metadata(judged)}
    assert rows["ppo", "hallucination"]["num"] == 2 * 40 and rows["ppo", "hallucination"]["unanswered"] == 0
    some = rows["ppo", "satisfies_constraint"]
    assert (some["num"], some["unanswered"], some["mean"]) == (2 * 30, 2 * 10, 1.0) and some["low"] < 1
    assert "no rating" in rows["ppo_ptx", "hallucination"]["reason"]


def test_all_tables_are_made_of_plain_values() -> None:
    import json

    found = tables(study(12), two_way=True, style=True, num_resamples=50)
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {"win_rates", "differences", "bradley_terry", "length_controlled", "likert", "metadata"}
