"""OpenAI's released outputs: the scoring gives the numbers that were found in them before, to rounding."""

import csv
import json
from pathlib import Path

import pytest

from heedful.config import InputError
from heedful.evaluate.sets.released import MODELS, released
from public_data import folder
from tiny import succeed

# By prompt as the files name it; gpt, sft, ppo-noptx, ppo-ptx, each xl, 6b, 175b. Of the files themselves, a hundred
# items a cell; the paper's own numbers are of other, larger sets.
SQUAD = {
    "zero-shot": [50.4, 56.2, 56.7, 37.2, 42.3, 53.4, 46.5, 48.0, 40.7, 45.0, 43.1, 53.1],
    "few-shot": [53.6, 56.4, 67.9, 44.7, 55.2, 64.1, 45.3, 51.2, 48.0, 53.9, 61.1, 65.8],
}
TRUE = {
    "QA": [0.31, 0.18, 0.24, 0.23, 0.40, 0.50, 0.54, 0.49, 0.74, 0.24, 0.44, 0.63],
    "instruction": [0.30, 0.42, 0.54, 0.30, 0.71, 0.61, 0.56, 0.93, 0.86, 0.33, 0.71, 0.80],
    "QA + instruction": [0.27, 0.29, 0.39, 0.51, 0.55, 0.81, 0.73, 0.67, 0.94, 0.24, 0.50, 0.51],
}
BOTH = {
    "QA": [0.17, 0.18, 0.22, 0.19, 0.21, 0.28, 0.50, 0.48, 0.73, 0.23, 0.42, 0.61],
    "instruction": [0.17, 0.20, 0.21, 0.20, 0.21, 0.21, 0.45, 0.16, 0.34, 0.33, 0.27, 0.50],
    "QA + instruction": [0.15, 0.22, 0.25, 0.21, 0.25, 0.16, 0.72, 0.58, 0.54, 0.16, 0.35, 0.26],
}
TOXICITY_175B = {
    "basic": [0.199, 0.189, 0.199, 0.195],
    "respectful": [0.195, 0.184, 0.178, 0.173],
    "biased": [0.244, 0.239, 0.411, 0.329],
}


@pytest.fixture(scope="module")
def means() -> dict[tuple[str, str, str], float]:
    cells = released(folder("instructgpt_eval_samples"))
    assert all(cell.estimate.num == cell.estimate.num_clusters == 100 for cell in cells)
    return {(cell.metric, cell.prompt, cell.model): float(cell.estimate.mean or 0) for cell in cells}


@pytest.mark.parametrize("prompt", SQUAD)
def test_squad_f1(means: dict[tuple[str, str, str], float], prompt: str) -> None:
    assert [round(100 * means["squad_f1", prompt, model], 1) for model in MODELS] == SQUAD[prompt]


@pytest.mark.parametrize("prompt", TRUE)
def test_truthful_and_informative(means: dict[tuple[str, str, str], float], prompt: str) -> None:
    assert [round(means["truthful", prompt, model], 2) for model in MODELS] == TRUE[prompt]
    assert [round(means["both", prompt, model], 2) for model in MODELS] == BOTH[prompt]


@pytest.mark.parametrize("prompt", TOXICITY_175B)
def test_toxicity(means: dict[tuple[str, str, str], float], prompt: str) -> None:
    models = [model for model in MODELS if model.endswith("175b")]
    assert [round(means["toxicity", prompt, model], 3) for model in models] == TOXICITY_175B[prompt]


def test_the_papers_shape(means: dict[tuple[str, str, str], float]) -> None:
    """Respectful below basic below biased, and models of reinforcement learning react most to the biased prompt."""
    of = {kind: [means["toxicity", p, f"{kind}-175b"] for p in TOXICITY_175B] for kind in ("gpt", "ppo-noptx")}
    assert all(respectful < basic < biased for basic, respectful, biased in of.values())
    assert of["ppo-noptx"][2] - of["ppo-noptx"][0] > 3 * (of["gpt"][2] - of["gpt"][0])


def test_labels_are_the_tables_by_value() -> None:
    """The labels of two prompts are swapped in the file: as named here they lie nearer the paper's."""
    cells = [cell for cell in released(folder("instructgpt_eval_samples")) if cell.metric in ("truthful", "both")]

    def distance(prompt: str, other: str) -> float:
        paper = [cell.paper for cell in cells if cell.prompt == other]
        ours = [float(cell.estimate.mean or 0) for cell in cells if cell.prompt == prompt]
        return sum(abs(a - b) for a, b in zip(ours, paper, strict=True)) / len(ours)

    assert round(distance("QA", "QA"), 3) == 0.043
    assert round(distance("instruction", "instruction"), 3) == 0.036
    assert round(distance("instruction", "QA + instruction"), 3) == 0.146
    assert round(distance("QA + instruction", "QA + instruction"), 2) == 0.06


def test_a_missing_file_is_named_with_its_source(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"truthful_qa_samples\.csv.*following-instructions-human-feedback"):
        released(tmp_path)


def test_another_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "truthful_qa_samples.csv").write_text("model_type,prompt_type,question\ngpt-xl,QA prompt,Why?\n")
    with pytest.raises(InputError, match="row 1 has no 'answer'"):
        released(tmp_path)


def test_the_command_writes_every_cell_as_json_csv_and_page(tmp_path: Path) -> None:
    succeed("released", folder("instructgpt_eval_samples"), "--dir", tmp_path)
    cells = json.loads((tmp_path / "released.json").read_text(encoding="utf-8"))["cells"]
    with (tmp_path / "released.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(cells) == 11 * 12
    for row, cell in zip(rows, cells, strict=True):
        assert (row["metric"], row["prompt"], row["model"]) == (cell["metric"], cell["prompt"], cell["model"])
        for key in ("mean", "low", "high", "num", "num_clusters"):
            assert float(row[f"estimate.{key}"]) == cell["estimate"][key]
    page = (tmp_path / "released.html").read_text(encoding="utf-8")
    assert page.count("100 (100)") == 11 * 12
