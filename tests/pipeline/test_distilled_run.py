"""A run whose start policy is the pretrained model, distilled from behind a prefix: no demonstrations, no SFT."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from heedful.config import InputError, read_recipe
from heedful.models.checkpoint import weights_hash
from heedful.pipeline.early import needs
from heedful.pipeline.recipe import build
from heedful.run import read_jsonl
from heedful.snapshot import read_snapshot
from heedful.steps import planned_steps
from report.page import Page
from tiny import TINY, refuse, succeed

SETTINGS = (
    "sft.variants={}",
    'distil={prefix: "what is the boat \\n the boat is red . \\n ", stop: "\\n", iterations: 30, batch_size: 16, '
    "max_new_tokens: 8, lr: 3.0e-3, warmup_iterations: 0, valid_prompts: 6, precision: fp32}",
    "ppo_start=distil",
    "rankings.policy=distil",
    "evaluate.baseline=distil",
    "evaluate.prompted=false",
    "world.document_tokens=6000",
    "ppo.variants={ppo: {ptx_coef: 0}}",
)


def overrides(settings: tuple[str, ...]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def recipe_of(*more: str) -> Any:
    return build(read_recipe(str(TINY), [*SETTINGS, *more]))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distilled") / "run"
    succeed("run", TINY, "--dir", folder, *overrides(SETTINGS), "--cores", "1")
    return folder


def test_the_distilled_model_is_where_everything_begins(finished: Path) -> None:
    begun = {str(p.parent.relative_to(finished)): p.stat().st_mtime_ns for p in finished.rglob("manifest.json")}
    assert planned_steps(read(finished / "recipe.json")) == sorted(begun, key=begun.__getitem__)
    assert not {"demonstrations", "evaluation/ppo_start"} & set(begun)
    made = weights_hash(finished / "distil" / "model")
    parents = read(finished / "distil" / "manifest.json")["parents"]
    assert parents["model"] == weights_hash(finished / "pretrain" / "model") != made
    assert parents["prompts"] == read_snapshot(finished / "data" / "sft").hash
    for place, key in (
        ("round-1/responses", "policy"),
        ("round-1/ppo", "policy_folder"),
        ("evaluation/ppo", "reference"),
    ):
        assert read(finished / place / "manifest.json")["parents"][key] == made, place
    assert list(read(finished / "results.json")["policies"]) == ["gpt", "distil", "ppo"]
    assert read(finished / "results.json")["alignment_tax"]["start"] == "distil"


def test_it_comes_nearer_to_the_prompted_model(finished: Path) -> None:
    log = read_jsonl(finished / "distil" / "metrics.jsonl")
    valid = [row["valid_kl"] for row in log if "valid_kl" in row]
    result = read(finished / "distil" / "done.json")["results"]["valid_kl"]
    assert len(valid) == 4 and result < valid[0] and log[-1]["loss"] < log[0]["loss"]
    shown = succeed("status", finished)
    assert re.search(rf"distil .*KL from the prompted model {result:.3f}", " ".join(shown.split()))
    curves = Page((finished / "report.html").read_text(encoding="utf-8")).section("curves")
    assert "Context distillation" in curves


def test_a_dry_run_counts_it(tmp_path: Path) -> None:
    shown = succeed("run", TINY, "--dir", tmp_path / "run", *overrides(SETTINGS), "--dry-run")
    [row] = [line for line in shown.splitlines() if line.strip().startswith("distil ")]
    assert "480 responses, 30 updates" in " ".join(row.split())


def test_it_needs_prompts_a_prefix_and_room(tmp_path: Path) -> None:
    assert ("sft", "train", "distil") in [tuple(need) for need in needs(recipe_of(), ["sft"])]
    assert ("ppo", "train", "distil") in [tuple(need) for need in needs(recipe_of("distil.pool=ppo"), ["sft"])]
    with pytest.raises(InputError, match=r"distil\.prefix"):
        recipe_of("distil.prefix=")
    with pytest.raises(InputError, match="ppo_start is 'other', which is none of distil, gpt"):
        recipe_of("ppo_start=other")
    with pytest.raises(InputError, match=r"distil.variants: 'evaluation' is what a run's own folder is called"):
        recipe_of("distil.variants={distil: {}, evaluation: {}}")
    long = overrides((*SETTINGS, "distil.prefix=" + "the boat " * 120))
    line = refuse("run", TINY, "--dir", tmp_path / "run", *long)
    assert "distil.max_new_tokens (of distil) is 8" in line and "behind a prefix of 240" in line
