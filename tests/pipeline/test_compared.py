"""Models compared outside a run: by people's rankings in a store, by gold, a reward model or a function."""

import json
import re
from pathlib import Path

import pytest

from heedful.evaluate.win_rate import compare_scores
from heedful.run import read_jsonl
from heedful.snapshot import Snapshot, write_snapshot
from heedful.store.database import open_store
from heedful.store.labels import add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt
from heedful.types import Labeler, Prompt, Ranking, Response
from tiny import refuse, succeed

TEXTS = {"old": "no", "new": "a long answer", "third": "no"}


def records(number: int = 8) -> Snapshot:
    """Three models' answers, two of them equal; ann ranks them, the longest first, and leaves the last prompt out."""
    prompts = [Prompt(id=f"p{n}", text=f"say {n}", user="u", split="test") for n in range(number)]
    responses = [
        Response(id=f"{p.id}-{name}", prompt_id=p.id, text=text, model=name)
        for p in prompts
        for name, text in TEXTS.items()
    ]
    rankings = [
        Ranking(
            id=f"k{p.id}",
            prompt_id=p.id,
            labeler="ann",
            responses=tuple(f"{p.id}-{name}" for name in TEXTS),
            rank=(2, 1, 2),
            purpose="evaluation",
        )
        for p in prompts[:-1]
    ]
    return Snapshot(
        prompts=tuple(prompts),
        responses=tuple(responses),
        labelers=(Labeler(id="ann", group="heldout"),),
        rankings=tuple(rankings),
    )


def rows(folder: Path, policy: str) -> dict:
    found = json.loads((folder / "tables" / "win_rates.json").read_text(encoding="utf-8"))
    [row] = [row for row in found if row["policy"] == policy and row["distribution"] == "all" and row["num"]]
    return row


def about(folder: Path) -> dict:
    return json.loads((folder / "compared.json").read_text(encoding="utf-8"))


def test_peoples_rankings_in_a_store_become_tables(tmp_path: Path) -> None:
    made = records()
    with open_store(tmp_path / "store.db") as store:
        for prompt in made.prompts:
            add_prompt(store, prompt, pool="evaluation")
        for response in made.responses:
            add_response(store, response)
        add_labeler(store, *made.labelers)
        for ranking in made.rankings:
            add_ranking(store, ranking)
    shown = succeed("judge", "compare", tmp_path / "store.db", "--baseline", "old", "--dir", tmp_path / "out")
    assert "win rate against old, by people" in shown and "3 responses that nobody ranked" in shown
    row = rows(tmp_path / "out", "new")
    assert (row["wins"], row["ties"], row["losses"], row["mean"]) == (7, 0, 0, 1.0)
    assert rows(tmp_path / "out", "third")["ties"] == 7
    names = {path.name for path in (tmp_path / "out" / "tables").iterdir()}
    assert {"win_rates.csv", "bradley_terry.json", "differences.json", "length_controlled.csv"} <= names


def test_a_function_judges_every_prompt_of_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taste.py").write_text(
        "def short(prompt, text):\n    return None if prompt.id == 'p3' else -len(text)\n"
        "def words(prompt, text):\n    return 'many'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    write_snapshot(tmp_path / "snapshot", records())
    where = ("judge", "compare", tmp_path / "snapshot", "--dir", tmp_path / "out", "--baseline")
    succeed(*where, "old", "--by", "taste:short")
    assert (rows(tmp_path / "out", "new")["losses"], rows(tmp_path / "out", "third")["ties"]) == (7, 7)
    assert rows(tmp_path / "out", "new")["unscored"] == 1
    assert about(tmp_path / "out") == {
        "judge": "taste:short",
        "baseline": "old",
        "unscored": {"a response has no score": 1},
    }
    assert "prompt p0: ValueError" in refuse(*where, "old", "--by", "taste:words")
    assert "no attribute 'tall'" in refuse(*where, "old", "--by", "taste:tall")
    assert "no such judge" in refuse(*where, "old", "--by", "taste")
    assert "gold needs a finished run" in refuse(*where, "old", "--by", "gold")
    assert "'zzz' gave no response; known: old, new, third" in refuse(*where, "zzz")


def test_two_responses_of_one_model_to_a_prompt_are_refused(tmp_path: Path) -> None:
    twice = Response(id="again", prompt_id="p0", text="again", model="new")
    made = records()
    write_snapshot(tmp_path / "s", Snapshot(**{**vars(made), "responses": (*made.responses, twice)}))
    where = (tmp_path / "s", "--baseline", "old", "--dir", tmp_path / "out")
    assert "new gave several responses to prompt p0" in refuse("judge", "compare", *where, "--by", "taste:short")
    assert "4 responses that nobody ranked" in succeed("judge", "compare", *where)  # that one, and those to p7


def test_gold_and_the_reward_model_judge_a_finished_run(tiny_run: Path, tmp_path: Path) -> None:
    results = json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))
    gold: dict[str, dict[str, float]] = {}
    for sample in read_jsonl(tiny_run / "evaluation" / "judgements" / "samples.jsonl"):
        gold.setdefault(sample["policy"], {})[sample["prompt_id"]] = sample["gold"]
    by_gold = ("judge", "compare", tiny_run, "--baseline", "sft", "--dir", tmp_path / "gold", "--by", "gold")
    assert "gold" in succeed(*by_gold)
    row = rows(tmp_path / "gold", "ppo")
    expected = compare_scores(gold["ppo"], gold["sft"])
    assert row["num_prompts"] == 10 and (row["wins"], row["ties"], row["losses"]) == expected[1:]
    model = tiny_run / "round-1" / "reward_model" / "model"
    shown = succeed("judge", "compare", tiny_run, "--baseline", "sft", "--dir", tmp_path / "rm", "--by", model)
    assert "by " in shown and about(tmp_path / "rm")["judge"] == str(model)
    assert set(about(tmp_path / "rm")["unscored"]) <= {"a response has no score", "fewer than two responses"}
    people = ("judge", "compare", tiny_run, "--baseline", "sft", "--dir", tmp_path / "people")
    succeed(*people)
    assert rows(tmp_path / "people", "ppo")["mean"] == results["policies"]["ppo"]["win_rate"]["mean"]


def test_the_pages_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "preference.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    made = records()
    renamed = tuple(r.model_copy(update={"model": "sft"}) if r.model == "old" else r for r in made.responses)
    write_snapshot(tmp_path / "snapshot", Snapshot(**{**vars(made), "responses": renamed}))
    exec(example, {})
    by_people, by_brevity = (
        json.loads((tmp_path / name / "win_rates.json").read_text(encoding="utf-8"))
        for name in ("by_people", "by_brevity")
    )
    assert [row["wins"] for row in by_people if row["policy"] == "new"] == [7]
    assert [row["losses"] for row in by_brevity if row["policy"] == "new"] == [8]
