"""lm-evaluation-harness on our engine: its three questions against plain passes, and tasks run whole."""

import json
from pathlib import Path

import pytest
import torch

from set_files import random_model

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")

from heedful.evaluate.harness import HarnessModel  # noqa: E402

CHOICE = """task: boats
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_choice: ["yes", "no"]
doc_to_target: label
metric_list: [{{metric: acc}}]
"""
WRITE = """task: words
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "yes"
generation_kwargs: {{until: ["\\n", "Q:"], max_gen_toks: 8, do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
TEXT = """task: prose
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: question
metric_list: [{{metric: bits_per_byte}}]
"""


def ask(kind: str, *arguments: tuple[object, ...]) -> list[object]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, pair, n) for n, pair in enumerate(arguments)]


@pytest.fixture(scope="module")
def model() -> HarnessModel:
    return HarnessModel(random_model("gpt2", context=64))


def logprobs(model: HarnessModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model.model.decoder(input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)


def test_loglikelihood_is_that_of_a_plain_pass(model: HarnessModel) -> None:
    pairs = [("The boat is", " red"), ("Who? ", "Ada"), ("", "Boats float")]
    found = model.loglikelihood(ask("loglikelihood", *pairs))
    for (context, text), (logprob, greedy) in zip(pairs, found, strict=True):
        before = model.model.encode([context.rstrip()])[0]
        whole = model.begin + model.model.encode([context + text])[0]
        rows, start = logprobs(model, whole), 1 + len(before)
        wanted = [(rows[n - 1, whole[n]], rows[n - 1].argmax() == whole[n]) for n in range(start, len(whole))]
        assert logprob == pytest.approx(float(sum(value for value, _ in wanted)), abs=1e-3)
        assert greedy == all(bool(best) for _, best in wanted)
    best = int(logprobs(model, model.begin + model.model.encode(["The boat is"])[0])[-1].argmax())
    [scored] = model._score([(model.begin + model.model.encode(["The boat is"])[0], [best])])
    assert scored.greedy


def test_rolling_counts_every_token_once(model: HarnessModel) -> None:
    short, long = "Boats float.", "Ada had a boat. " * 40
    found = model.loglikelihood_rolling(ask("loglikelihood_rolling", (short,), (long,)))
    ids = model.begin + model.model.encode([short])[0]
    rows = logprobs(model, ids)
    assert found[0] == pytest.approx(float(sum(rows[n - 1, ids[n]] for n in range(1, len(ids)))), abs=1e-3)
    assert found[1] < found[0] * 5 and not model.counts


def test_answers_are_cut_at_stops_and_contexts_counted(model: HarnessModel) -> None:
    settings = {"until": ["\n", "oat"], "max_gen_toks": 8, "do_sample": False}
    long = "the boat " * 60
    first, second = model.generate_until(ask("generate_until", ("The boat", settings), (long, settings)))
    assert not any(stop in text for text in (first, second) for stop in settings["until"])
    assert model.counts == {"context_cut": 1}


def test_tasks_run_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heedful.cli.harness import run_tasks
    from heedful.config import InputError
    from heedful.models.checkpoint import save_policy
    from heedful.models.heads import Policy

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"question": f"Do {n} boats float", "label": n % 2} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, text in (("boats", CHOICE), ("words", WRITE), ("prose", TEXT)):
        (tasks / f"{name}.yaml").write_text(text.format(data=tmp_path / "rows.jsonl"), encoding="utf-8")
    made = random_model("gpt2")
    save_policy(tmp_path / "model", Policy(made.decoder), made.tokenizer, {})
    names = ["boats", "words", "prose"]
    lines = list(run_tasks(str(tmp_path / "model"), names, tmp_path / "out", tasks, None, 4))
    assert any(line.startswith("boats acc") for line in lines)
    found = json.loads((tmp_path / "out" / "harness.json").read_text(encoding="utf-8"))
    assert set(found["results"]) == set(names) and found["cut"] == {}
    assert found["results"]["prose"]["bits_per_byte,none"] > 0
    with pytest.raises(InputError, match="knows no task 'no_such_task'"):
        list(run_tasks(str(tmp_path / "model"), ["no_such_task"], tmp_path / "out", None, None, None))
