"""Each kind of model goes through every public set, rows of our own and the real files, without an error."""

from pathlib import Path

import pytest

from heedful.evaluate.sets.catalogue import SETS, Options, evaluate_set, read_set
from heedful.evaluate.sets.item import Model, Tools, load_model
from heedful.evaluate.sets.judge import judge_of
from public_data import data, stories_model
from set_files import random_model, write_sets

MODELS = ("stories260K", *(pytest.param(name, marks=pytest.mark.accept) for name in ("gpt2", "qwen3")))
NOT_AT_HAND = {"drop", "quac", "cnn_dm"}


@pytest.fixture(scope="module", params=MODELS)
def tools(request: pytest.FixtureRequest) -> Tools:
    model = load_model(stories_model()) if request.param == "stories260K" else random_model(request.param)
    return with_judges(model)


def with_judges(model: Model) -> Tools:
    return Tools(model, judge_of(model, "truth"), judge_of(model, "info"), lambda texts: [len(t) / 1000 for t in texts])


def check(name: str, options: Options, tools: Tools, complete: bool) -> None:
    part = read_set(name, options)
    done: list[int] = []
    found = evaluate_set(name, part, tools, options, done.append)
    assert set(SETS[name].metrics) <= set(found["metrics"])
    assert found["num_scored"] + found["unscored"].get("too_long", 0) == found["num_items"] or not found["num_scored"]
    for estimate in found["metrics"].values():
        assert estimate["mean"] is not None or estimate["reason"]
    if complete:
        assert found["metrics"][SETS[name].metrics[0]]["mean"] is not None


@pytest.mark.parametrize("shots", [0, 1])
def test_our_own_rows(tools: Tools, tmp_path: Path, shots: int) -> None:
    folder = write_sets(tmp_path)
    for name in SETS:
        plain = name.startswith(("real_toxicity", "winogender", "crows")) or name in ("wikitext", "tinystories")
        if not (shots and plain):
            check(name, Options(folder, shots), tools, complete=not shots and not name.startswith("truthfulqa"))


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
@pytest.mark.parametrize("name", ["squad", "tldr"])
def test_long_real_rows_are_scored(name: str, family: str) -> None:
    """Passages and posts that fit no context of 512."""
    check(name, Options(data(), limit=2), with_judges(random_model(family, context=2048)), complete=True)


@pytest.mark.parametrize("name", sorted(set(SETS) - NOT_AT_HAND))
def test_real_rows(name: str, tools: Tools) -> None:
    check(name, Options(data(), limit=2), tools, complete=False)
