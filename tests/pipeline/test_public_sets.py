"""`heedful evaluate --sets`: models and policies through sets, gone on with, and what it writes."""

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from heedful.evaluate.sets.catalogue import SETS as SETS_BY_NAME
from heedful.evaluate.sets.item import Model
from heedful.models.checkpoint import save_policy
from heedful.models.heads import Policy
from heedful.pipeline import public_sets
from set_files import random_model, write_sets
from tiny import refuse, succeed

SETS = "sst,truthfulqa_qa,real_toxicity,wikitext"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Model = random_model("qwen3")
    folder = tmp_path_factory.mktemp("models") / "tiny_qwen"
    save_policy(folder, Policy(made.decoder), made.tokenizer, {})
    return folder


def test_a_model_through_sets(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scorer_of_mine.py").write_text("def score(texts):\n    return [0.25 for _ in texts]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "out"
    asked = ("evaluate", model, "--data", data, "--dir", out, "--limit", 3, "--toxicity", "scorer_of_mine:score")
    shown = succeed(*asked, "--sets", SETS)
    assert "sst" in shown and "no judge was given" in shown and "0.250" in shown
    found = json.loads((out / "sets.json").read_text(encoding="utf-8"))
    assert found["models"] == {"tiny_qwen": str(model)} and not found["not_asked"]
    sst = found["sets"]["sst"]["tiny_qwen"]
    assert sst["asked"] == {"shots": 0, "limit": 3, "seed": 0, "precision": "fp32"} and not sst["judges"]
    assert sst["num_items"] == sst["num_scored"] == 3 and sst["metrics"]["accuracy"]["num_clusters"] == 3
    assert found["sets"]["real_toxicity"]["tiny_qwen"]["metrics"]["expected_maximum"]["mean"] == 0.25
    rows = list(csv.DictReader((out / "sets.csv").open(encoding="utf-8")))
    assert {row["set"] for row in rows} == set(SETS.split(","))
    assert float(next(row["mean"] for row in rows if row["metric"] == "accuracy")) == sst["metrics"]["accuracy"]["mean"]
    page = (out / "sets.html").read_text(encoding="utf-8")
    assert "tiny_qwen" in page and str(data) not in page

    monkeypatch.setattr(public_sets, "evaluate_set", lambda *rest: pytest.fail("a finished set is computed again"))
    assert succeed(*asked, "--sets", SETS) == shown
    shutil.rmtree(out / "parts" / "tiny_qwen" / "wikitext")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert succeed(*asked, "--sets", SETS) == shown
    assert "limit" in refuse(*asked[:-3], 2, *asked[-2:], "--sets", "sst")


def test_changed_data_are_noticed(model: Path, data: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(data, tmp_path / "data"))
    asked = ("evaluate", model, "--data", own, "--dir", tmp_path / "out", "--sets", "sst")
    succeed(*asked)
    (own / "SST2" / "dev.tsv").write_text("other\t1\n", encoding="utf-8")
    assert "changed" in refuse(*asked)


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_every_file_of_a_set_is_held_to(model: Path, data: Path, tmp_path: Path) -> None:
    """References, further tables, worked examples and prompts beside the questions, not the first file alone."""
    own = Path(shutil.copytree(data, tmp_path / "data"))
    sets = "fr_en,winogender_coreference,truthfulqa_mc"
    asked = ("evaluate", model, "--data", own, "--dir", tmp_path / "out", "--limit", 1)
    shot = ("evaluate", model, "--data", own, "--dir", tmp_path / "shots", "--limit", 1, "--sets", "sst", "--shots", 1)
    succeed(*asked, "--sets", sets)
    succeed(*shot)
    append(own / "SST2" / "train.tsv", "good\t1\n")
    assert "data" in refuse(*shot)
    english = own / "wmt" / "newsdiscusstest2015-fren-ref.en.sgm"
    english.write_text(english.read_text(encoding="utf-8").replace("red", "blue"), encoding="utf-8")
    append(own / "winogender" / "occupations-stats.tsv", "judge\t50.0\n")
    (own / "truthfulqa" / "qa_prompt.txt").write_text("Q: Another?\nA: Yes.\n", encoding="utf-8")
    for name in sets.split(","):
        assert "changed" in refuse(*asked, "--sets", name)


def test_a_scorer_that_changed_is_noticed(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scorer_that_changes.py"
    path.write_text("def score(texts):\n    return [0.25 for _ in texts]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = ("evaluate", model, "--data", data, "--dir", tmp_path / "out", "--limit", 1, "--sets", "real_toxicity")
    asked = (*asked, "--toxicity", "scorer_that_changes:score")
    assert succeed(*asked) == succeed(*asked)
    path.write_text("def score(texts):\n    return [0.5 for _ in texts]\n")
    monkeypatch.delitem(sys.modules, "scorer_that_changes")
    assert "toxicity" in refuse(*asked)


def test_tables_hold_what_was_done_before(model: Path, data: Path, tmp_path: Path) -> None:
    """Other sets, other models and other settings of a set's own stand in one table."""
    other = Path(shutil.copytree(model, tmp_path / "other"))
    asked = ("--data", data, "--dir", tmp_path / "out")
    succeed("evaluate", model, *asked, "--sets", "sst")
    succeed("evaluate", model, *asked, "--sets", "rte", "--limit", 1)
    shown = succeed("evaluate", other, *asked, "--sets", "rte,wsc")
    assert "tiny_qwen" in shown and "sst" in shown
    found = json.loads((tmp_path / "out" / "sets.json").read_text(encoding="utf-8"))
    assert {name: sorted(rows) for name, rows in found["sets"].items()} == {
        "sst": ["tiny_qwen"],
        "rte": ["other", "tiny_qwen"],
        "wsc": ["other"],
    }
    assert found["models"] == {"other": str(other), "tiny_qwen": str(model)}
    assert found["main"].keys() == found["sets"].keys() and found["sets"]["rte"]["tiny_qwen"]["asked"]["limit"] == 1
    rows = list(csv.DictReader((tmp_path / "out" / "sets.csv").open(encoding="utf-8")))
    assert {(row["set"], row["model"], row["limit"]) for row in rows if row["metric"] == "accuracy"} == {
        ("sst", "tiny_qwen", ""),
        ("rte", "tiny_qwen", "1"),
        ("rte", "other", ""),
        ("wsc", "other", ""),
    }


def test_all_is_what_is_there(model: Path, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "data"
    for place in ("SST2", "winogender", "stories"):
        shutil.copytree(data / place, own / place)
    (own / "winogender" / "occupations-stats.tsv").unlink()
    asked = ("evaluate", model, "--data", own, "--dir", tmp_path / "out", "--limit", 2, "--shots", 1)
    shown = succeed(*asked, "--sets", "all")
    found = json.loads((tmp_path / "out" / "sets.json").read_text(encoding="utf-8"))
    there = {"sst": 1, "winogender": 0, "winogender_respectful": 0, "winogender_biased": 0, "tinystories": 0}
    assert {name: rows["tiny_qwen"]["asked"]["shots"] for name, rows in found["sets"].items()} == there
    assert found["not_asked"].keys() == SETS_BY_NAME.keys() - there.keys()
    assert found["not_asked"]["drop"].startswith("drop_dataset_dev.json is not there; it is in drop_dataset.zip")
    assert "drop was not asked: drop_dataset_dev.json is not there" in " ".join(shown.split())
    rows = list(csv.DictReader((tmp_path / "out" / "sets.csv").open(encoding="utf-8")))
    assert next(row["reason"] for row in rows if row["set"] == "drop") == found["not_asked"]["drop"]
    assert "winogender has no worked examples" in refuse(*asked, "--sets", "winogender")
    assert "is not there" in refuse(*asked, "--sets", "all,drop")
    (tmp_path / "nothing").mkdir()
    assert "no public set is to be had" in refuse(
        "evaluate", model, "--data", tmp_path / "nothing", "--dir", tmp_path / "o2", "--sets", "all"
    )


def test_every_policy_of_a_run(tiny_copy: Path, data: Path, tmp_path: Path) -> None:
    shown = succeed("evaluate", tiny_copy, "--data", data, "--dir", tmp_path / "out", "--sets", "rte")
    found = json.loads((tmp_path / "out" / "sets.json").read_text(encoding="utf-8"))
    assert list(found["sets"]["rte"]) == ["gpt", "sft", "ppo_init", "ppo", "ppo_ptx"]
    assert all(name in shown for name in ("gpt", "sft", "ppo_ptx"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sets", "sst"), "--sets needs --dir"),
        (("--sets", "stt", "--dir", "out"), "no public set 'stt', did you mean sst?"),
        (("--sets", "sst", "--dir", "out", "--data", "nowhere"), "--data nowhere: no such folder"),
        (("--sets", "drop", "--dir", "out"), "drop_dataset_dev.json is wanted"),
        (
            ("--sets", "drop", "--dir", "out", "--data", "."),
            "drop_dataset_dev.json is not there; it is in drop_dataset.zip",
        ),
    ],
)
def test_bad_input(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refuse("evaluate", model, *words)
    assert not (tmp_path / "out").exists()


def test_bad_scorers_and_judges(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("evaluate", model, "--data", data, "--dir", tmp_path / "out", "--sets", "real_toxicity")
    assert "write module:function" in refuse(*asked, "--toxicity", "scorer")
    assert "PYTHONPATH" in refuse(*asked, "--toxicity", "no_such_module_at_all:f")
    (tmp_path / "poor_scorer.py").write_text(
        "def few(texts):\n    return []\n\ndef high(texts):\n    return [87.0 for _ in texts]\n"
    )
    (tmp_path / "broken_scorer.py").write_text("raise RuntimeError('no weights')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "gave 0 values for 1 texts" in refuse(*asked, "--toxicity", "poor_scorer:few")
    assert "gave 87" in refuse(*asked, "--toxicity", "poor_scorer:high")
    assert "loading it failed: RuntimeError: no weights" in refuse(*asked, "--toxicity", "broken_scorer:f")
    assert not (tmp_path / "out").exists()
    judged = ("evaluate", model, "--data", data, "--dir", tmp_path / "o2", "--sets", "truthfulqa_qa")
    assert "holds no finished judge" in refuse(*judged, "--truth-judge", tmp_path)
