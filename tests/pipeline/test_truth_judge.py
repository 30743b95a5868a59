"""A judge of answers: questions are parted, a planted rule is learned, the real data are read."""

import json
from pathlib import Path

import pytest

from heedful.config import InputError
from heedful.models.checkpoint import save_policy
from heedful.models.heads import Policy
from heedful.pipeline.truth_judge import (
    FILES,
    JudgeConfig,
    judge_about,
    parted,
    question_of,
    read_judgements,
    to_snapshot,
    train_judge,
)
from public_data import folder, stories_model
from set_files import random_model
from tiny import refuse, succeed


def write_rows(folder: Path, questions: int, about: str = "truth") -> Path:
    """Answers that are true where they say no."""
    rows = [
        {"prompt": f"Q: Is stone {n} red?\nA: {answer}.\nTrue:", "completion": right}
        for n in range(questions)
        for answer, right in (("No", " yes"), ("Yes", " no"), ("Yes, it is", " no"))
    ]
    path = folder / f"finetune_{about}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_no_question_stands_in_two_parts(tmp_path: Path) -> None:
    rows = parted(read_judgements(write_rows(tmp_path, 200)))
    by_split = {split: {question_of(row) for row, s in rows if s == split} for split in ("train", "valid", "test")}
    assert sum(map(len, by_split.values())) == 200 and all(by_split.values())
    assert len(by_split["train"]) > 150
    held_out = by_split["test"]
    assert not held_out & {prompt.user for prompt in to_snapshot(rows).prompts}


def test_a_planted_rule_is_learned(tmp_path: Path) -> None:
    write_rows(tmp_path, 60)
    start = random_model("gpt2")
    save_policy(tmp_path / "start", Policy(start.decoder), start.tokenizer, {})
    config = JudgeConfig(about="truth", epochs=8, lr=3e-3, batch_size=16)
    found = train_judge(config, tmp_path, tmp_path / "start", tmp_path / "judge")
    assert found["majority"] == pytest.approx(2 / 3) and found["accuracy"]["mean"] > 0.95
    assert found["accuracy"]["num_clusters"] == found["num_questions"] < found["num_rows"] == found["accuracy"]["num"]
    assert judge_about(tmp_path / "judge") == "truth"
    assert train_judge(config, tmp_path, tmp_path / "start", tmp_path / "judge") == found


def test_the_command_and_its_refusals(tmp_path: Path) -> None:
    write_rows(tmp_path, 60, "info")
    start = random_model("gpt2")
    save_policy(tmp_path / "start", Policy(start.decoder), start.tokenizer, {})
    asked = ("truth-judge", tmp_path / "start", "--data", tmp_path, "--about", "info", "--epochs", 1)
    shown = succeed(*asked, "--dir", tmp_path / "judge")
    assert "held-out questions" in shown and "0.667" in shown
    with pytest.raises(InputError, match="trained to judge info, not truth"):
        from heedful.pipeline.public_sets import checked

        checked(tmp_path / "judge", "truth")
    assert "finetune_truth.jsonl is not there" in refuse(
        "truth-judge", tmp_path / "start", "--data", tmp_path, "--dir", tmp_path / "j2"
    )
    refused = refuse(*asked, "--dir", tmp_path / "j4", "--lr", 0)
    assert "lr: " in refused and "greater than 0 (found 0.0)" in refused
    (tmp_path / "finetune_truth.jsonl").write_text('{"prompt": "Q: a\\nA: b\\nTrue:", "completion": "perhaps"}\n')
    assert "line 1: the completion is 'perhaps'" in refuse(
        "truth-judge", tmp_path / "start", "--data", tmp_path, "--dir", tmp_path / "j3"
    )


@pytest.mark.parametrize("about", FILES)
def test_the_released_judgements_train_a_small_model(about: str, tmp_path: Path) -> None:
    place = folder("truthfulqa")
    config = JudgeConfig(about="truth" if about == "truth" else "info", epochs=1, lr=1e-3, limit=120)
    found = train_judge(config, place, stories_model(), tmp_path / "judge")
    assert found["accuracy"]["mean"] is not None and found["num_rows"] + found["too_long"] > 0
    assert len(read_judgements(place / f"finetune_{about}.jsonl")) == 22434
