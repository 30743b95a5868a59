"""AI labelers in a recipe, and the world's own language models that are taught to judge."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from heedful.config import Config
from heedful.stages.sft import SFTConfig

if TYPE_CHECKING:
    from heedful.pipeline.recipe import Recipe


OF_RATIONALES = ("rationales", "temperature", "rationale_tokens")


class AskingConfig(Config):
    """How an AI labeler is asked; with its model this decides its verdicts."""

    template: str  # a shipped one or a file (docs/rlaif.md)
    shots: int = Field(default=0, ge=0)  # of the template's exemplars
    think: bool = False  # it writes a rationale first
    rationales: int = Field(default=1, ge=1)  # whose probabilities are averaged; RLAIF: 1
    temperature: float = Field(default=0.0, ge=0)  # of rationales; RLAIF: 0
    rationale_tokens: int = Field(default=512, ge=1)  # at most; RLAIF: 512
    by: Literal["pairs", "scores"] = "pairs"  # scores: a mark each instead of comparisons
    style: Literal["auto", "plain", "chat"] = "auto"  # auto: chat where the tokenizer has a chat template

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        if self.by == "scores" and (idle := self._set(("shots", "think", *OF_RATIONALES))):
            raise ValueError(
                f"{idle} does nothing with by: scores, which asks for marks; leave it out, or judge by pairs"
            )
        if not self.think and (idle := self._set(OF_RATIONALES)):
            raise ValueError(
                f"{idle} is of rationales, and there are none without think; leave it out, or let it think"
            )
        if self.rationales > 1 and self.temperature == 0:
            raise ValueError("rationales: at temperature 0 all would be the same; set a temperature, such as 0.7")
        return self

    def _set(self, keys: Sequence[str]) -> str:
        """The first of the keys that is not at its default."""
        return next((key for key in keys if getattr(self, key) != type(self).model_fields[key].default), "")


class AILabelerConfig(AskingConfig):
    """A language model that labels in a run; its name there is its name in the store."""

    template: str = "helpful.base.en"  # a shipped one or a file (docs/rlaif.md)
    model: str | None = None  # a hub name or a folder; or else
    judge: str | None = None  # a judge of the recipe's own
    rankings: bool = True  # it ranks what is ranked for the reward model; else it only marks, as a `reward`

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.model is None) == (self.judge is None):
            raise ValueError("give either model (a hub name or a folder) or judge (a name of judges), one of the two")
        if not self.rankings and (idle := self._set(("shots", "think", "by"))):
            raise ValueError(f"{idle} does nothing with rankings: false, which leaves it marks alone; leave it out")
        return self


class JudgeConfig(SFTConfig):
    """A language model of the world's that is taught to judge on answers people compared and marked."""

    pretrain: Mapping[str, Any] | None = None  # laid over the pretrain block: another size; null: the same model
    prompts: int = Field(default=8000, ge=20)  # of users of their own, on whose answers it is taught
    answers: int = Field(default=4, ge=2)  # to each prompt; half of their ordered pairs are compared, all are marked
    policy: str | None = None  # whose answers: an `sft` variant's; null: people's own, right or flawed
    template: str = "world"  # the pages it is taught on
    epochs: int = Field(default=1, ge=1)  # over the pages


def check_ai(recipe: "Recipe") -> None:
    """Raises ValueError where a name of a judge, an AI labeler or a reward stands for nothing."""
    if recipe.judges and recipe.pretrain is None:
        raise ValueError("judges are taught on the world's text: they need prompts: world and a pretrain block")
    for name, judge in recipe.judges.items():
        if judge.policy is not None and judge.policy not in recipe.sft:
            known = ", ".join(recipe.sft) or "none"
            raise ValueError(f"judges.{name}.policy is {judge.policy!r}, and sft holds {known}")
    for name, labeler in recipe.ai_labelers.items():
        if labeler.judge is not None and labeler.judge not in recipe.judges:
            known = ", ".join(recipe.judges) or "none"
            raise ValueError(f"ai_labelers.{name}.judge is {labeler.judge!r}, and judges holds {known}")
    by, ranking = recipe.rankings.by, [name for name, labeler in recipe.ai_labelers.items() if labeler.rankings]
    if by != "people" and not ranking:
        raise ValueError(f"rankings.by is {by}, and no AI labeler ranks; name one in ai_labelers")
    if by == "people" and ranking:
        raise ValueError(f"ai_labelers.{ranking[0]} ranks, and rankings.by is people; set it to ai or both")
    rewards = {"reward_model", *recipe.further_reward_models, *recipe.ai_labelers, *recipe.principle_rewards}
    if clash := set(recipe.further_reward_models) & set(recipe.ai_labelers):
        raise ValueError(f"{clash.pop()!r} names both a further reward model and an AI labeler; rename one")
    if recipe.further_reward_models and recipe.reward_model is None:
        raise ValueError("further_reward_models are laid over the reward_model block; give one")
    for name, (stage, config) in recipe.sampling().items():
        if config.reward not in rewards:
            raise ValueError(
                f"{stage}.reward (of {name}) is {config.reward!r}, which is none of {', '.join(sorted(rewards))}"
            )


def own_shapes(recipe: "Recipe") -> dict[str, Mapping[str, Any]]:
    """The judges that are pretrained on their own, and what each lays over the pretrain block."""
    return {name: judge.pretrain for name, judge in recipe.judges.items() if judge.pretrain is not None}
