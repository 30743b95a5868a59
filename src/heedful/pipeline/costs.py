"""What each optimised policy cost: how much it sampled to learn from."""

from pathlib import Path
from typing import Any

from heedful.pipeline.recipe import Recipe
from heedful.run import read_jsonl

Json = dict[str, Any]


def costs(recipe: Recipe, folder: Path) -> dict[str, Json] | None:
    """{policy: {stage, episodes, sampled_tokens}} over all rounds; None where nothing is optimised.

    Sampled tokens are those of the responses it learned from, end tokens included; DPO samples none.
    """
    found = {}
    for name, (stage, config) in recipe.optimised().items():
        steps = [folder / f"round-{n}" / name for n in range(1, recipe.rounds + 1)]
        batch = 0 if stage == "dpo" else config.batch_size
        lengths = [row["length"] for step in steps for row in read_jsonl(step / "metrics.jsonl") if batch]
        found[name] = {
            "stage": stage,
            "episodes": batch * len(lengths),
            "sampled_tokens": round(batch * sum(lengths)),
        }
    return found or None
