"""Public sets at length: three kinds of model through all of them, scoring beside single passes, real judges."""

from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytest
import torch

from heedful.engine.prefixes import shared_length
from heedful.evaluate.sets.catalogue import SETS, Options, TextSet, evaluate_set, read_set
from heedful.evaluate.sets.choose import Encoded, chances, encoded, fits
from heedful.evaluate.sets.item import Item, Model, Part, Tools, load_model
from heedful.evaluate.sets.judge import judge_of
from heedful.models.threads import use_threads
from heedful.pipeline.truth_judge import JudgeConfig, train_judge
from public_data import data, folder, stories_model
from set_files import random_model, write_sets

pytestmark = pytest.mark.accept
MODELS = ("stories260K", "gpt2", "qwen3")
NOT_AT_HAND = ("drop", "quac", "cnn_dm")
SCORED = {
    "stories260K": "and all but those too long for it are scored",
    "gpt2": "and all are scored",
    "qwen3": "and all are scored",
}
TIMED = (("truthfulqa_mc", 0), ("sst", 4), ("sst", 0), ("hellaswag", 0), ("boolq", 0))  # with worked examples
CORES, REPEATS = 2, 3


def model_of(name: str) -> Model:
    return load_model(stories_model()) if name == "stories260K" else random_model(name)


CONTEXT = 2048  # holds SQuAD's passages and TL;DR's posts; that of stories260K is 512


def quiet(done: int) -> None:
    pass


@pytest.mark.parametrize("name", MODELS)
def test_every_set(name: str, tmp_path: Path, record_property: Any) -> None:
    record_property("claim", f"{name} goes through every public set, 40 items of each, {SCORED[name]}")
    model = model_of(name) if name == "stories260K" else random_model(name, CONTEXT)
    judge = judge_of(model, "truth")
    tools = Tools(model, judge, judge, lambda texts: [min(1.0, len(text) / 200) for text in texts])
    own, scored, short = write_sets(tmp_path), 0, []
    for set_name in SETS:
        options = Options(own if set_name in NOT_AT_HAND else data(), limit=40)
        found = evaluate_set(set_name, read_set(set_name, options), tools, options, quiet)
        scored += found["num_scored"]
        if found["metrics"][SETS[set_name].metrics[0]]["mean"] is None:
            short.append(set_name)
    said = f"; too few items fit its context of {model.context} in {', '.join(short)}" if short else ""
    record_property("measured", f"{len(SETS)} sets, {scored} items scored{said}")
    assert set(short) <= ({"squad", "tldr"} if name == "stories260K" else set())


@pytest.mark.parametrize("name", MODELS)
def test_batched_scoring_beside_single_passes(name: str, record_property: Any) -> None:
    record_property(
        "claim",
        f"{name}: five multiple-choice sets together are scored ≥ 5 times as fast as by a loop of single passes on the "
        "same threads, and none of them less than 1.5 times",
    )
    model = model_of(name)
    ours, theirs, said, least = 0.0, 0.0, [], inf
    for set_name, shots in TIMED:
        items, tokens = choices_of(set_name, shots, model)
        seconds: list[tuple[float, float]] = []
        for _ in range(REPEATS):
            use_threads(CORES)
            began = perf_counter()
            _, scores, _ = chances(model, items, tokens, quiet)
            middle = perf_counter()
            torch.set_num_threads(CORES)
            plain = [[alone(model, row.prompt, choice) for choice in row.choices] for row in tokens]
            seconds.append((middle - began, perf_counter() - middle))
        for chance, wanted in zip(scores, plain, strict=True):
            assert chance.total == pytest.approx(wanted, abs=1e-2)
        batched, single = (median(side) for side in zip(*seconds, strict=True))
        ours, theirs = ours + batched, theirs + single
        saved = tokens_alone(tokens) / tokens_shared(tokens)
        said.append(f"{set_name}, {shots} examples: {single / batched:.1f} ({saved:.1f} fewer tokens)")
        least = min(least, single / batched)
    record_property("measured", f"together {theirs / ours:.1f} times, on {CORES} threads; {'; '.join(said)}")
    assert theirs / ours >= 5 and least >= 1.5


def choices_of(set_name: str, shots: int, model: Model) -> tuple[list[Item], list[Encoded]]:
    """150 items of the set, less those that do not fit the model's context."""
    assert not isinstance(SETS[set_name], TextSet)
    part = read_set(set_name, Options(data(), shots, limit=150))
    assert isinstance(part, Part)
    rows = encoded(model, part.items)
    kept = [n for n, row in enumerate(rows) if fits(row, model.context)]
    return [part.items[n] for n in kept], [rows[n] for n in kept]


def tokens_alone(rows: list[Encoded]) -> int:
    return sum(len(row.prompt) + len(choice) for row in rows for choice in row.choices)


def tokens_shared(rows: list[Encoded]) -> int:
    """As the engine computes them: what all begin with once, each prompt once, no choice's last token."""
    length = shared_length([row.prompt for row in rows])
    return length + sum(len(row.prompt) - length + sum(len(choice) - 1 for choice in row.choices) for row in rows)


@torch.inference_mode()
def alone(model: Model, prompt: list[int], choice: list[int]) -> float:
    """One choice by one forward pass, nothing shared."""
    logits = model.decoder(input_ids=torch.tensor([prompt + choice]), use_cache=False).logits[0]
    logprob = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(logprob.gather(1, torch.tensor(choice)[:, None]).sum())


@pytest.mark.parametrize("about", ["truth", "info"])
def test_a_judge_of_real_answers(about: str, tmp_path: Path, record_property: Any) -> None:
    record_property("claim", f"a judge ({about}) made from stories260K beats always giving the commoner answer")
    config = JudgeConfig(about="truth" if about == "truth" else "info", epochs=3, lr=1e-3)
    found = train_judge(config, folder("truthfulqa"), stories_model(), tmp_path / "judge")
    accuracy = found["accuracy"]
    record_property(
        "measured",
        f"{accuracy['mean']:.3f} ({accuracy['low']:.3f}…{accuracy['high']:.3f}) on {found['num_rows']} answers to "
        f"{found['num_questions']} held-out questions, the commoner answer {found['majority']:.3f}",
    )
    assert accuracy["mean"] > found["majority"]
