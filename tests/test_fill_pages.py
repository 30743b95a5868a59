"""Pages that scripts fill from results: every marker is there, the words follow the numbers, twice is once."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Json = dict[str, Any]
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of docs/ by its name."""
    monkeypatch.syspath_prepend(str(DOCS))

    def load(name: str) -> ModuleType:
        for own in (name, "tables"):
            sys.modules.pop(own, None)
        return importlib.import_module(name)

    return load


def row(table: str, name: str, measure: str, seeds: list[float], room: float) -> Json:
    mean = sum(seeds) / len(seeds)
    about = {"table": table, "name": name, "measure": measure, "mean": mean, "seeds": seeds, "num_seeds": len(seeds)}
    return about | {"low": mean - room, "high": mean + room, "reason": ""}


# gold by seed, win rate, √KL, sampled tokens
POLICIES: dict[str, tuple[list[float], float, float, float | None]] = {
    "best_of_4": ([0.8, 0.9, 0.7], 0.6, 0.8, None),
    "ppo": ([1.0, 1.2, 1.1], 0.62, 1.2, 60_000),
    "dpo": ([0.99, 1.21, 1.06], 0.61, 1.5, 0),
    "grpo": ([0.1, 0.0, -0.1], 0.51, 1.0, 70_000),
}


def group(recipe: str, **changed: Any) -> Json:
    rows = []
    for name, (gold, wins, root, tokens) in (POLICIES | changed).items():
        rows += [row("over_start", name, "gold", gold, 0.1), row("over_start", name, "win_rate", [wins] * 3, 0.02)]
        rows += [row("over_start", name, "sqrt_kl", [root] * 3, 0.1)]
        if tokens is not None:
            rows += [row("optimised", name, key, [tokens] * 3, 0) for key in ("sampled_tokens", "seconds", "episodes")]
    about = {"settings": {}, "seeds": [0, 1, 2], "seconds": [600.0, 660.0, 540.0], "commits": ["abc"]}
    return {"groups": [about | {"recipe": recipe, "baseline": "sft", "start": "ppo_start", "rows": rows}]}


def test_optimisers_are_told_apart_by_their_numbers(script: Any) -> None:
    module = script("fill_optimisers")
    told = module.texts(group("optimisers"))["world-told"]
    assert "Most gold: ppo (1.100)." in told
    assert "Not told apart from it by these seeds: dpo." in told
    assert "less KL than best_of_4, ppo." in told
    assert "Do not surely beat their start: grpo." in told
    assert "fewest sampled tokens to train: dpo (0)" in told
    better = module.texts(group("optimisers", grpo=([2.0, 2.1, 1.9], 0.7, 0.5, 10)))["world-told"]
    assert "Most gold: grpo (2.000)." in better and "by these seeds: none." in better
    assert "less KL than grpo." in better and "beat their start: none." in better


def test_the_page_of_optimisers_is_filled_by_halves(script: Any) -> None:
    module = script("fill_optimisers")
    page = (DOCS / "optimisers.md").read_text(encoding="utf-8")
    world = module.filled(page, "optimisers", module.texts(group("optimisers")))
    both = module.filled(world, "optimisers", module.texts(group("optimisers_stories")))
    assert "| ppo | 1.100 (1.000…1.200) | 62.0 (60.0…64.0) | yes | 1.20 (1.10…1.30) | – | – |" in world
    assert "| grpo | 0.000 (-0.100…0.100) | 51.0 (49.0…53.0) | **no** |" in world
    assert "Not measured yet" not in both and both.count("Seeds 0, 1, 2; 10, 11, 9 min; commit `abc`.") == 2
    assert module.filled(both, "optimisers", module.texts(group("optimisers"))) == both
    with pytest.raises(LookupError, match="world-run"):
        module.filled("", "optimisers", module.texts(group("optimisers")))
