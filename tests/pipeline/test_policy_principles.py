"""What results tell of policies' responses: how far they keep to the world's principles."""

from pathlib import Path

import pytest
import yaml

from heedful.pipeline.policy_principles import principles_kept
from heedful.pipeline.recipe import build
from heedful.snapshot import Snapshot, write_snapshot
from heedful.types import Response
from heedful.world import World
from heedful.world.principles import BOAST, PRINCIPLES
from tiny import TINY

REWARDS = {"plain": {"reward_model": "principled", "principles": "world_rl"}}


def test_each_policy_has_every_principle_s_mean_and_its_share_of_self_praise(tmp_path: Path) -> None:
    raw = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    assert principles_kept(build(raw), tmp_path, ["answers"]) is None
    raw |= {
        "principles": {"collection": "world", "template": "world", "judge": {}},
        "principle_rewards": REWARDS,
        "further_reward_models": {"principled": {"guideline": {}}},
    }
    recipe, world = build(raw), World(0)
    prompts = world.prompts(8, "test", "eval")
    answers = {prompt.id: world.demonstrate(prompt) for prompt in prompts}
    said = {"answers": answers, "praise": {id: f"{text} {BOAST}" for id, text in answers.items()}}
    said["half"] = {id: said["praise" if n % 2 else "answers"][id] for n, id in enumerate(answers)}
    for name, texts in said.items():
        responses = tuple(Response(id=f"{id}-{name}", prompt_id=id, text=text) for id, text in texts.items())
        write_snapshot(tmp_path / "evaluation" / name / "responses", Snapshot(tuple(prompts), responses))
    rows = principles_kept(recipe, tmp_path, list(said))
    assert rows is not None
    found = {(row["policy"], row["figure"]): row for row in rows}
    assert set(found) == {(name, figure) for name in said for figure in (*PRINCIPLES, "boasts")}
    assert [found[name, "boasts"]["mean"] for name in said] == [0, 1, 0.5]
    assert [found[name, "humble"]["mean"] for name in said] == [0, -4, -2]
    exact = [world.fulfilment(prompt, answers[prompt.id])["concise"] for prompt in prompts]
    concise = found["answers", "concise"]
    assert concise["mean"] == pytest.approx(sum(exact) / 8) and concise["low"] < concise["mean"] < concise["high"]
    assert concise["num"] == 8 and found["praise", "concise"]["mean"] < concise["mean"]
