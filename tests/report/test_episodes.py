"""One judgement from the form to the advantages, in a real tiny run and in folders that lack something."""

import json
from pathlib import Path

import pytest

from heedful.report import write_report
from heedful.report.episodes import Outcome, Token, episode_trace, gap, outcome
from heedful.report.folder import RunFolder
from heedful.report.judgements import margins
from heedful.report.samples import samples
from heedful.report.trace import ranking_trace
from heedful.run import read_jsonl
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.types import Labeler, Prompt, Ranking, Response
from report.page import Page

TRACE = "round-1/ppo_ptx/trace.json"


def traced(folder: Path) -> Outcome:
    run = RunFolder(folder)
    ranking = ranking_trace(run)
    assert ranking is not None
    return outcome(run, ranking)


def change_recipe(folder: Path, **ppo: dict[str, object]) -> None:
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["ppo"] = ppo
    (folder / "recipe.json").write_text(json.dumps(recipe))


def test_the_chain_from_the_form_to_the_advantage_holds_together(tiny_run: Path) -> None:
    """The same ranking in both logs; the score PPO is given is the one that the reward model ended with."""
    followed = read_snapshot(tiny_run / "round-1/reward_model/followed")
    logged = read_jsonl(tiny_run / "round-1/reward_model/samples.jsonl")[0]
    after = dict(zip(followed.rankings[0].responses, logged["after"], strict=True))
    for variant in ("ppo", "ppo_ptx"):
        found = json.loads((tiny_run / f"round-1/{variant}/trace.json").read_text())
        assert found["ranking_id"] == logged["ranking_id"] == followed.rankings[0].id
        for row in found["responses"]:
            assert row["score"] == pytest.approx(after[row["response_id"]], abs=1e-4)
            kl = sum(a - b for a, b in zip(row["logprob"], row["ref_logprob"], strict=True))
            assert sum(row["reward"]) == pytest.approx(row["score"] - found["kl_coef"] * kl, abs=1e-4)


def test_what_is_shown_is_what_was_recorded(tiny_run: Path) -> None:
    found, run = traced(tiny_run), RunFolder(tiny_run)
    recorded = json.loads((tiny_run / TRACE).read_text())
    by_id = {row["response_id"]: row for row in recorded["responses"]}
    ranking = ranking_trace(run)
    assert ranking is not None and not found.reason and found.left_out == 0
    assert (found.variant, found.kl_coef, found.whitened) == ("ppo_ptx", recorded["kl_coef"], True)
    assert [one.letter for one in found.responses] == [one.letter for one in ranking.shown]  # in the form's order
    ranks = dict(zip(ranking.ranking.responses, ranking.ranking.rank, strict=True))
    for one, shown in zip(found.responses, ranking.shown, strict=True):
        row = by_id[shown.id]
        assert (one.rank, one.score) == (ranks[shown.id], row["score"])
        assert [t.advantage for t in one.tokens] == row["advantage"]
        assert one.reward == pytest.approx(sum(row["reward"])) and one.value == row["value"][0]
        assert one.advantage == pytest.approx(sum(row["advantage"]) / len(row["advantage"]))
        assert " ".join(t.text.strip() for t in one.tokens[: len(row["tokens"])]).split() == shown.text.split()
    page = Page(write_report(tiny_run).read_text(encoding="utf-8")).section("traced")
    assert "From the reward model's score to the advantage" in page and "Advantage by rank" in page


def test_comparisons_that_keep_their_order_are_counted(tiny_run: Path) -> None:
    found, ranking = traced(tiny_run), ranking_trace(RunFolder(tiny_run))
    assert ranking is not None
    pairs = [
        (a, b) for a in found.responses for b in found.responses if a.rank < b.rank
    ]  # every untied comparison, the better one first
    assert found.kept == (
        len(pairs),
        sum(a.score > b.score for a, b in pairs),
        sum(a.advantage > b.advantage for a, b in pairs),
    )
    assert len(ranking.pairs) == len(pairs) > 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "holds no trace.json (it was written by an earlier version"),
        ("{", "damaged or follows another ranking"),
        ('{"ranking_id": "another", "responses": []}', "damaged or follows another ranking"),
    ],
)
def test_a_run_without_the_trace_says_why(tiny_copy: Path, content: str | None, said: str) -> None:
    (tiny_copy / TRACE).unlink()
    if content is not None:
        (tiny_copy / TRACE).write_text(content)
    assert said in traced(tiny_copy).reason
    assert said in Page(write_report(tiny_copy).read_text(encoding="utf-8")).section("traced")


def test_a_response_that_did_not_fit_is_said(tiny_copy: Path) -> None:
    found = json.loads((tiny_copy / TRACE).read_text())
    found["responses"].pop()
    (tiny_copy / TRACE).write_text(json.dumps(found))
    assert traced(tiny_copy).left_out == 1
    text = Page(write_report(tiny_copy).read_text(encoding="utf-8")).section("traced")
    assert "1 of its responses did not fit PPO's limits" in text


def test_an_unfinished_ppo_and_none_at_all(tiny_copy: Path) -> None:
    (tiny_copy / TRACE).unlink()
    (tiny_copy / "round-1/ppo_ptx/done.json").unlink()
    assert "it is not finished" in traced(tiny_copy).reason
    change_recipe(tiny_copy)
    assert "PPO has not begun" in traced(tiny_copy).reason


def test_the_control_without_a_penalty_is_not_what_is_followed(tiny_copy: Path) -> None:
    change_recipe(tiny_copy, ppo={"kl_coef": 0.1}, ppo_ptx={"kl_coef": 0.0})
    run = RunFolder(tiny_copy)
    episode, side_by_side = episode_trace(run), samples(run)
    assert traced(tiny_copy).variant == "ppo" and episode is not None and episode.variant == "ppo"
    assert side_by_side is not None and side_by_side.policy == "ppo"
    change_recipe(tiny_copy, ppo={"kl_coef": 0.0}, ppo_ptx={"kl_coef": 0.0})
    assert traced(tiny_copy).variant == "ppo_ptx"


def test_an_episode_of_a_later_round_s_prompt_is_found(tiny_copy: Path) -> None:
    (tiny_copy / "round-1").rename(tiny_copy / "round-2")
    row = read_jsonl(tiny_copy / "round-2/ppo_ptx/samples.jsonl")[-1]
    later = Prompt(id=row["prompt_id"], text="asked in the second round", user="u")
    write_snapshot(tiny_copy / "round-2/prompts/ppo", Snapshot(prompts=(later,)))
    found = episode_trace(RunFolder(tiny_copy))
    assert found is not None and found.prompt == later and found.prompts == "round-2/prompts/ppo"


@pytest.mark.parametrize(("splits", "expected"), [(("train", "valid", "test"), [2.0]), (("train", "valid"), [1.0])])
def test_margins_are_of_validation_prompts_where_no_test_prompt_was_ranked(
    tmp_path: Path, splits: tuple[str, ...], expected: list[float]
) -> None:
    names = [(split, f"{split}-{n}") for split in splits for n in (0, 1)]
    prompts = tuple(Prompt(id=split, text=split, user=split, split=split) for split in splits)
    responses = tuple(Response(id=id, prompt_id=split, text=id) for split, id in names)
    rankings = tuple(
        Ranking(id=split, prompt_id=split, labeler="l", responses=(f"{split}-0", f"{split}-1"), rank=(2, 1))
        for split in splits
    )
    snapshot = Snapshot(prompts=prompts, responses=responses, labelers=(Labeler(id="l"),), rankings=rankings)
    (tmp_path / "round-1" / "scores").mkdir(parents=True)
    scores = [{"response_id": id, "score": splits.index(split) * int(id[-1])} for split, id in names]
    lines = "".join(json.dumps(row) + "\n" for row in scores)
    (tmp_path / "round-1" / "scores" / "samples.jsonl").write_text(lines)
    assert margins(RunFolder(tmp_path), snapshot) == expected


def test_the_results_tables_are_narrow(tiny_run: Path) -> None:
    """Tables of at most six columns, which fit 1000 pixels and a phone."""
    page = Page(write_report(tiny_run).read_text(encoding="utf-8"))
    tables = [e for e in page.all("table") if e.attributes.get("class") == "results"]
    heads = [[cell.text for cell in table.children[0].children[0].children] for table in tables]
    assert heads == [
        ["policy", "win rate", "prompts", "Likert", "utility", "score"],
        ["policy", "KL", "distinct-2", "length", "cut", "LM loss"],
        ["optimised", "by", "time", "episodes", "sampled tokens"],
    ]


def test_blanks_between_tokens_are_the_tokenizer_s_where_it_has_them() -> None:
    def said(*texts: str) -> list[Token]:
        return [Token(text, 0, 0, 0, 0, 0) for text in texts]

    assert gap(said("this", "is")) == " " and gap(said(" th", "is", " is")) == ""
