"""The policies that a round makes better by what is preferred: a job for each, by the stage that its recipe names."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.pipeline.jobs import Job
from heedful.pipeline.judges import by_marks, model_of, template_of
from heedful.pipeline.principle_rewards import by_principles, in_force
from heedful.stages import best_of_n, dpo, grpo, nlpo, ppo, reinforce, rloo

if TYPE_CHECKING:
    from heedful.pipeline.loop import Loop

BODIES: dict[str, Callable[..., None]] = {
    "ppo": ppo.main,
    "nlpo": nlpo.main,
    "reinforce": reinforce.main,
    "rloo": rloo.main,
    "grpo": grpo.main,
    "best_of_n": best_of_n.main,
    "dpo": dpo.main,
}


def optimising(loop: "Loop", round: int) -> list[Job]:
    """Jobs that begin from one policy and learn from one round's rankings, most of them by its reward model."""
    found = []
    for name, (stage, config) in loop.recipe.optimised().items():
        reward = getattr(config, "reward", "reward_model")
        inputs, body = inputs_of(loop, round, stage, reward), BODIES[stage]
        if labeler := loop.recipe.ai_labelers.get(reward):
            inputs |= {"labeler": labeler, "labeler_model": model_of(loop, labeler)}
            inputs["labeler_template"] = template_of(labeler)
            body = by_marks(body)
        if principled := loop.recipe.principle_rewards.get(reward):
            inputs |= {"principle_reward": principled, "principles": in_force(principled)}
            body = by_principles(body)
        found.append(loop.job(f"round-{round}/{name}", stage, body, config, inputs))
    return found


def inputs_of(loop: "Loop", round: int, stage: str, reward: str) -> dict[str, Any]:
    """What the stage reads; behind an AI labeler's marks the value model starts from the reward model all the same.

    Under principles no ranking is followed through: it was made under others, or none.
    """
    inputs: dict[str, Any] = {"policy_folder": loop.ppo_start(), "format": loop.recipe.format}
    if stage == "dpo":
        return inputs | {"rankings": loop.round_folder(round) / "rankings" / "snapshot"}
    principled = loop.recipe.principle_rewards.get(reward)
    model = principled.reward_model if principled else reward
    inputs |= {"reward_model_folder": loop.reward_model(round, model), "prompts": loop.prompts("ppo", round)}
    if stage == "ppo":
        followed: Path = loop.round_folder(round) / "reward_model" / "followed"
        inputs |= {
            "documents": loop.documents(),
            "followed": followed if followed.exists() and not principled else None,
        }
    return inputs
