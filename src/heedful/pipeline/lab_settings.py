"""The over-optimisation lab in a recipe: which proxies there are, and how far each is maximised."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from heedful.config import Config, parse
from heedful.stages.ppo import PPOConfig

if TYPE_CHECKING:
    from heedful.pipeline.recipe import Recipe

Number = Annotated[int, Field(ge=2)]
SMOOTH = 3  # iterations whose mean is one point of an RL curve
PPO_SAMPLES = 2  # of each prompt that PPO learns on, by the policy that it begins from: what RL gains is counted from


class LabConfig(Config):
    """Proxies of several sizes, taught on several numbers of gold rankings; each maximised by best-of-n and by PPO.

    The last proxy, of the last size and most rankings, is maximised in further ways too.
    """

    sizes: Mapping[str, Mapping[str, Any]] = {
        "own": {}
    }  # name → what is laid over the pretrain block; {}: the policy's
    rankings: tuple[Number, ...] = (150, 600)  # a proxy of each size learns from the first so many
    samples: int = Field(default=64, ge=2)  # of each evaluation prompt, by the start policy: n goes up to this
    ppo: Mapping[str, Any] = {}  # laid over PPO's defaults, by proxy; its KL coefficient is 0
    kl_coefs: tuple[float, ...] = ()  # further runs on the last proxy, with these KL coefficients
    policies: Mapping[str, Mapping[str, Any]] = {}  # further policies on it: name → laid over the pretrain block
    rounds: int = Field(default=1, ge=1)  # 2 or more: also one whose proxy is taught anew on its responses so often


def check_lab(recipe: "Recipe") -> None:
    """Raises ValueError where the lab lacks what it needs."""
    lab = recipe.lab
    if lab is None:
        return
    if recipe.prompts != "world" or recipe.pretrain is None or recipe.reward_model is None:
        raise ValueError(
            "lab: its gold is the world's rater; it needs prompts: world, a pretrain and a reward_model block"
        )
    if list(lab.rankings) != sorted(set(lab.rankings)):
        raise ValueError("lab.rankings: give different numbers, the smallest first")
    if lab.policies and recipe.ppo_start not in recipe.sft:
        raise ValueError("lab.policies are fine-tuned as ppo_start is; let that name an sft variant")
    for name in (*lab.sizes, *lab.policies):
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"lab: {name!r} cannot name a size; use letters, digits and _")
    if ppo_of(recipe).iterations < 2 * lab.rounds:
        raise ValueError("lab.rounds share lab.ppo.iterations: give two or more for each round")
    if ppo_of(recipe).iterations < SMOOTH:
        raise ValueError(f"lab.ppo.iterations: a point of an RL curve is the mean of {SMOOTH}; give as many or more")


def ppo_of(recipe: "Recipe", kl_coef: float = 0.0, rounds: int = 1) -> PPOConfig:
    """How the lab's policies are optimised, `rounds` of them sharing the iterations.

    Raises:
        InputError: a key of `lab.ppo` that PPO does not have, or an impossible value.
    """
    assert recipe.lab is not None
    whole = parse(PPOConfig, {**recipe.lab.ppo, "kl_coef": kl_coef, "ptx_coef": 0.0}, "lab.ppo")
    return whole.model_copy(update={"iterations": whole.iterations // rounds})


def last_proxy(lab: LabConfig) -> str:
    """The proxy of the last size and most rankings."""
    return "{}-{}".format(*proxies_of(lab)[-1])


def proxies_of(lab: LabConfig) -> list[tuple[str, int]]:
    """(size, number of rankings) of every proxy, in the order of the settings."""
    return [(size, number) for size in lab.sizes for number in lab.rankings]
