"""`heedful chat --best-of`: what is shown is what the reward model likes best of what was sampled."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from heedful.cli.best import of_run
from heedful.config import InputError
from heedful.models.checkpoint import load_reward_model
from heedful.text.collate import Encoded, to_rows
from heedful.text.format import prompt_tokens
from heedful.text.tokenizer import end_id, pad_id, word_tokenizer
from heedful.types import Prompt
from small_models import VOCAB, small_model
from tiny import cli, refuse

LINE = re.compile(r"^(-?\d+\.\d{3})  (.*)$")


def scored(run: Path, text: str, finished: bool) -> float:
    from heedful.export.model import trained_format

    model, tokenizer = load_reward_model(run / "round-1" / "reward_model" / "model")
    prompt = prompt_tokens(Prompt(id="p", text="who ?", user="u"), trained_format(run), tokenizer)
    answer = tokenizer(text, add_special_tokens=False)["input_ids"] + [end_id(tokenizer)] * finished
    with torch.no_grad():
        return float(model(to_rows([Encoded(prompt, answer)], pad_id(tokenizer)).to(model.device)))


def test_the_answer_shown_is_the_one_of_the_highest_score(tiny_run: Path) -> None:
    policy = tiny_run / "round-1" / "ppo" / "model"
    asked = ("chat", policy, "--prompt", "who ?", "--seed", 1, "--max-new-tokens", 9, "--best-of", 6)
    found = cli(*asked, "--verbose")
    assert found.exit_code == 0, found.output
    lines = [match.groups() for line in found.stderr.splitlines() if (match := LINE.match(line))]
    assert len(lines) == 6 and len({text for _, text in lines}) > 1
    scores = [float(score) for score, _ in lines]
    assert scores == sorted(scores, reverse=True)
    assert found.stdout == f"{lines[0][1]}\n"
    for score, text in lines:  # cut or finished is not told: one of the two it is
        assert min(abs(float(score) - scored(tiny_run, text, end)) for end in (True, False)) < 2e-3
    quiet = cli(*asked)
    assert quiet.stdout == found.stdout and not quiet.stderr
    named = cli(*asked, "--reward-model", tiny_run / "round-1" / "reward_model" / "model", "--verbose")
    assert named.output == found.output


def test_answers_of_another_tokenizer_are_scored_by_their_text(tiny_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    small_model("llama").save_pretrained(other)
    word_tokenizer([*"who is that boat ?".split(), *(f"w{i}" for i in range(VOCAB - 9))]).save_pretrained(other)
    reward_model = tiny_run / "round-1" / "reward_model" / "model"
    asked = ("--prompt", "who ?", "--max-new-tokens", 5, "--best-of", 4, "--reward-model", reward_model, "--verbose")
    found = cli("chat", other, *asked)
    assert found.exit_code == 0, found.output
    lines = [match.groups() for line in found.stderr.splitlines() if (match := LINE.match(line))]
    assert len(lines) == 4
    for score, text in lines:
        assert min(abs(float(score) - scored(tiny_run, text, end)) for end in (True, False)) < 2e-3


def test_the_reward_model_is_that_of_the_policys_round_or_else_of_the_last(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    for place in ("round-2/reward_model", "round-10/reward_model", "round-2/ppo", "round-3/ppo", "sft/epoch-01"):
        (tmp_path / place / "model").mkdir(parents=True)
    assert of_run(str(tmp_path / "round-2" / "ppo" / "model")) == tmp_path / "round-2" / "reward_model" / "model"
    for place in ("round-3/ppo/model", "sft/epoch-01"):
        assert of_run(str(tmp_path / place)) == tmp_path / "round-10" / "reward_model" / "model"
    for round in (2, 10):
        shutil.rmtree(tmp_path / f"round-{round}" / "reward_model")
    with pytest.raises(InputError, match="is of no run that has one; name one with --reward-model"):
        of_run(str(tmp_path / "round-2" / "ppo" / "model"))


def test_what_cannot_be_chosen_from_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    policy = tiny_run / "round-1" / "ppo" / "model"
    assert "--verbose is for --best-of" in refuse("chat", policy, "--verbose")
    assert "--reward-model is for --best-of" in refuse("chat", policy, "--reward-model", policy)
    assert "--best-of has no choice" in refuse("chat", policy, "--best-of", 2, "--temperature", 0)
    asked = ("--prompt", "who ?", "--best-of", 2)
    assert str(policy) in refuse("chat", policy, *asked, "--reward-model", policy)
    away = Path(shutil.copytree(policy, tmp_path / "away"))
    assert "name one with --reward-model" in refuse("chat", away, *asked)
