"""How far each policy's responses keep to the embedded world's principles, exactly: rows of results.json."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.evaluate.statistics import clustered_mean, clustered_proportion
from heedful.pipeline.recipe import Recipe
from heedful.snapshot import read_snapshot
from heedful.world import World
from heedful.world.principles import PRINCIPLES, boasts

Json = dict[str, Any]


def principles_kept(recipe: Recipe, folder: Path, policies: Sequence[str]) -> list[Json] | None:
    """Of each policy the mean fulfilment of each principle, in nats (`world.principles.fulfilment`), and the share of
    its responses that praise themselves (`boasts`: the habit that is planted); None without rewards under principles,
    or where nobody knows the prompts' truth."""
    if recipe.prompts != "world" or not recipe.principle_rewards:
        return None
    world, rows = World(recipe.seed), []
    for name in policies:
        snapshot = read_snapshot(folder / "evaluation" / name / "responses")
        asked, prompts = snapshot.prompt_by_id(), [response.prompt_id for response in snapshot.responses]
        found = [world.fulfilment(asked[response.prompt_id], response.text) for response in snapshot.responses]
        figures = {id: clustered_mean([one[id] for one in found], prompts) for id in PRINCIPLES}
        figures["boasts"] = clustered_proportion([boasts(response.text) for response in snapshot.responses], prompts)
        for figure, told in figures.items():
            interval = {"mean": told.mean, "low": told.low, "high": told.high, "num": told.num}
            rows.append({"policy": name, "figure": figure, **interval})
    return rows
