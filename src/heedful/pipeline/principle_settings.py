"""Labels by written principles in a recipe: who scores, how labels are made, and what learns from them.

The reward model that follows principles is a further reward model with a `guideline`; what RL maximises under them
stands in `principle_rewards`.
"""

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from heedful.config import Config
from heedful.feedback.principles.book import read_principles
from heedful.feedback.principles.collect import read_form
from heedful.pipeline.principle_labels import AggregateConfig
from heedful.principles import Principle
from heedful.stages.judge import TeachConfig
from heedful.stages.reward_model import RewardModelConfig
from heedful.stages.sft import SFTConfig
from heedful.text.principles import PrincipleFormat

if TYPE_CHECKING:
    from heedful.pipeline.recipe import Recipe


class PrincipleJudgeConfig(TeachConfig):
    """The world's pretrained model, taught to say which of two answers keeps to a principle better."""

    prompts: int = Field(default=2000, ge=20)  # of users of their own, on whose answers it is taught
    answers: int = Field(default=4, ge=2)  # to each prompt; every pair is compared, by every principle


class PreferenceConfig(RewardModelConfig):
    """Preference pretraining: a reward model on plain comparisons, from which the next one begins."""

    comparisons: str | None = None  # a snapshot folder of them, such as HH-RLHF's; null: the world's
    prompts: int = Field(default=2000, ge=20)  # of users of their own, on whose answers it learns
    answers: int = Field(default=4, ge=2)  # to each prompt; half of their ordered pairs are compared


class DecodedConfig(SFTConfig):
    """The other form: a language model reads principles, prompt and both responses, and names the better one."""

    guideline: PrincipleFormat = PrincipleFormat()  # how principles stand behind the responses
    template: str = "instruct.base.en"  # how the two responses are shown (docs/rlaif.md)
    epochs: int = Field(default=1, ge=1)  # over the labels, each in one order


class PrinciplesConfig(Config):
    """Labels by principles of the responses that are ranked for the reward model (docs/salmon.md)."""

    collection: str = "preference"  # the principles by which responses are compared
    template: str = "principle.en"  # how it is asked which of two responses keeps to one better
    model: str | None = None  # who is asked: a hub name or a folder; or else
    policy: str | None = None  # a policy of the run: an SFT or distil variant or the start, as SALMON's judges; or else
    judge: PrincipleJudgeConfig | None = None  # a model of the world's that is taught it
    style: Literal["auto", "plain", "chat"] = "auto"  # auto: chat where the tokenizer has a chat template
    min_characters: int = Field(default=0, ge=0)  # of a response, else its pairs are left out; SALMON: 16
    labels: AggregateConfig = AggregateConfig()  # what is made of the scores; its seed is the recipe's
    preference: PreferenceConfig | None = None  # preference pretraining of the reward models with a guideline
    from_judge: bool = False  # reward models with a guideline begin as the taught judge, not as the pretrained model
    decoded: DecodedConfig | None = None  # the other form, beside them
    measured: int = Field(default=600, ge=1)  # labels of held-out prompts by which both are measured, at most

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if sum(given is not None for given in (self.model, self.policy, self.judge)) != 1:
            raise ValueError("give either model (a hub name or a folder), policy (of the run) or judge (a block)")
        if self.from_judge and (self.judge is None or self.preference is not None):
            raise ValueError("from_judge: reward models begin as it; give a judge block, and no preference block")
        if self.preference is not None and not self.preference.fixed_principles:
            raise ValueError("preference.fixed_principles: plain comparisons need a text or more to stand under")
        return self


class Worded(Config):
    """Principles as they stand in their file now."""

    principles: tuple[Principle, ...]


def worded(settings: PrinciplesConfig) -> Worded:
    """Raises InputError for a collection or a template that is not there, or will not do."""
    return Worded(principles=read_principles(settings.collection, read_form(settings.template).language))


def check_principles(recipe: "Recipe") -> None:
    """Raises ValueError where labels by principles and what learns from them do not fit together."""
    further = {name: one for name, one in recipe.further_reward_models.items() if one.guideline is not None}
    if recipe.reward_model is not None and recipe.reward_model.guideline is not None:
        raise ValueError(
            "reward_model.guideline: the first reward model chooses epochs and scores the evaluation, where no "
            "principles stand; put it into further_reward_models"
        )
    if recipe.principles is None:
        if further:
            raise ValueError(
                f"further_reward_models.{next(iter(further))} learns from labels by principles; give a principles block"
            )
        return
    before = recipe.principles.preference
    if (recipe.principles.judge or (before and not before.comparisons)) and recipe.pretrain is None:
        raise ValueError(
            "principles.judge, and principles.preference without comparisons of its own, are taught on the world's "
            "text: they need prompts: world and a pretrain block"
        )
    judges = {recipe.start_name, *recipe.sft, *recipe.distil}
    if recipe.principles.policy is not None and recipe.principles.policy not in judges:
        raise ValueError(f"principles.policy is {recipe.principles.policy!r}; there is {', '.join(sorted(judges))}")
    for name, config in further.items():
        if before is not None and before.guideline != config.guideline:
            raise ValueError(f"further_reward_models.{name}.guideline is not that of principles.preference; use one")
