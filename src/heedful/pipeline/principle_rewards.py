"""What RL maximises under written principles (SALMON, arXiv 2310.05910, section 3.4, and the code released with it).

    score(x, y) = scale · (r(x, y | principles) + length bonus + language bonus)

    r(x, y | principles)   under all of them in one list; apart: Σ w_p · r(x, y | p) / Σ w_p over all principles p,
                           which is the mean over draws of one by its weight w_p

    principles      those that are always in force, then some drawn by weight, anew for each prompt of a rollout
    length bonus    length_bonus · min(multiplier · tokens / length_tokens, length_cap)
    language bonus  language_bonus where the response is in the prompt's language

Other principles are another policy, with the same reward model and no new label. What ends without an end token loses
PPO's `no_eos_penalty` (SALMON: 6; its script sets one variable and passes another, so that there it was none). The
released code multiplies each token's reward by 10, KL penalty and all: scale 10 with ten times the kl_coef.

Responses to one request share their principles, so that they can be compared. The principles stand behind the response,
so the prompt is computed once for all of them.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import Field
from transformers import PreTrainedTokenizerBase

from heedful.config import Config, InputError
from heedful.engine.follow import Start
from heedful.engine.sample import Sampled, score_rows
from heedful.feedback.principles.aggregate import draw, may_be_one_language
from heedful.feedback.principles.book import read_principles
from heedful.models.checkpoint import guideline_of
from heedful.models.heads import RewardModel
from heedful.models.load import context_length, load_tokenizer
from heedful.models.optimizer import Precision
from heedful.principles import Language, Principle
from heedful.run import Run
from heedful.snapshot import read_snapshot
from heedful.text.collate import Encoded, Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.text.principles import PrincipleFormat, guideline
from heedful.text.tokenizer import pad_id
from heedful.types import Prompt

if TYPE_CHECKING:
    from heedful.pipeline.recipe import Recipe

ByKind = TypeVar("ByKind")


class PrincipleRewardConfig(Config):
    """A reward under principles. Numbers are those of the code released with SALMON, where it has one."""

    reward_model: str = "reward_model"  # or one of further_reward_models; one that was trained with a guideline
    principles: str = "rl"  # a collection (docs/salmon.md), of which some are drawn for each prompt of a rollout
    number: int = Field(default=3, ge=0)  # how many; SALMON: 3
    always: str | None = None  # a collection in force before them; SALMON: three interventions
    apart: bool = False  # no draw: the mean by weight of the scores under every principle by itself
    language: Language = "en"  # of the principles' texts
    more_weight: dict[str, dict[str, float]] = Field(default_factory=dict)  # see docs/salmon.md; SALMON: 128
    length_bonus: float = 5.0  # SALMON: 5.0
    length_tokens: int = Field(default=1024, ge=1)  # SALMON: 1,024, its longest response
    length_cap: float = 0.8  # SALMON: 0.8
    length_multiplier: dict[str, float] = Field(default_factory=dict)  # by use case; else 1; SALMON: reasoning −0.4
    language_bonus: float = 0.0  # the paper names one without a number, the released code has none
    scale: float = Field(default=1.0, gt=0)  # SALMON: 10


class InForce(Config):
    """The principles of a reward, as they stand in their files now."""

    drawn: tuple[Principle, ...]
    always: tuple[Principle, ...] = ()


def in_force(config: PrincipleRewardConfig) -> InForce:
    """Raises InputError for a collection that is not there, or none with a weight to draw from."""
    always = read_principles(config.always, config.language) if config.always else ()
    ids = {one.id for one in always}
    drawn = tuple(one for one in read_principles(config.principles, config.language) if one.id not in ids)
    if config.apart and not all(one.weight for one in always):
        raise InputError(f"{config.always}: a principle of weight 0, and apart each counts by its weight; give it one")
    if config.apart and not any(one.weight for one in (*always, *drawn)):
        raise InputError(f"{config.principles}: no principle has a weight, and apart each counts by its weight")
    if config.number and not config.apart and not any(one.weight for one in drawn):
        raise InputError(f"{config.principles}: no principle has a weight, and {config.number} are to be drawn")
    known = {one.id for one in drawn}
    for kind, weights in config.more_weight.items():
        if strangers := sorted(weights.keys() - known):
            raise InputError(f"more_weight.{kind}.{strangers[0]}: {config.principles} holds no such principle to draw")
    return InForce(drawn=drawn, always=always)


def check_principle_rewards(recipe: "Recipe") -> None:
    """Raises ValueError where a reward under principles names no model that reads them, or a plain one such a model."""
    models = dict(recipe.further_reward_models)
    models |= {} if recipe.reward_model is None else {"reward_model": recipe.reward_model}
    for name, reward in recipe.principle_rewards.items():
        if name in {*models, *recipe.ai_labelers}:
            raise ValueError(f"principle_rewards: {name!r} also names a reward model or an AI labeler; rename one")
        model = models.get(reward.reward_model)
        if model is None:
            known = ", ".join(models) or "none"
            raise ValueError(f"principle_rewards.{name}.reward_model is {reward.reward_model!r}; there is {known}")
        if model.guideline is None:
            raise ValueError(f"principle_rewards.{name}.reward_model: {reward.reward_model} has no guideline; set one")
    for name, (stage, config) in recipe.sampling().items():
        if config.reward in models and models[config.reward].guideline is not None:
            raise ValueError(
                f"{stage}.reward (of {name}): {config.reward} follows principles; name them in principle_rewards"
            )


def by_weight(prompt: Prompt, principles: InForce, config: PrincipleRewardConfig) -> dict[Principle, float]:
    """Every principle that has one, with its weight on a prompt of this kind."""
    more = of_kind(prompt, config.more_weight, {})
    weights = {one: one.weight + more.get(one.id, 0) for one in (*principles.always, *principles.drawn)}
    return {one: weight for one, weight in weights.items() if weight}


def of_kind(prompt: Prompt, table: Mapping[str, ByKind], other: ByKind) -> ByKind:
    """What the table holds for the prompt's use case, else for its kind."""
    return table.get(prompt.use_case, table.get(prompt.kind, other))


def principles_for(
    prompt: Prompt, principles: InForce, config: PrincipleRewardConfig, rng: random.Random
) -> list[Principle]:
    """Those in force for one request: always the same first, then what is drawn by weight, none twice."""
    more = of_kind(prompt, config.more_weight, {})
    weighed = [one.model_copy(update={"weight": one.weight + more.get(one.id, 0)}) for one in principles.drawn]
    return [*principles.always, *draw(weighed, config.number, rng)]


def length_bonus(prompt: Prompt, tokens: int, config: PrincipleRewardConfig) -> float:
    """Of a response of so many tokens, the end token among them.

    >>> config = PrincipleRewardConfig(length_multiplier={"reasoning": -0.4})
    >>> ask, sum_up = (Prompt(id="p", text="Why?", user="u", use_case=kind) for kind in ("other", "reasoning"))
    >>> length_bonus(ask, 512, config), length_bonus(ask, 1000, config), length_bonus(sum_up, 512, config)
    (2.5, 4.0, -1.0)
    """
    share = of_kind(prompt, config.length_multiplier, 1.0) * tokens / config.length_tokens
    return config.length_bonus * min(share, config.length_cap)


class PrincipleReward:
    """A `Score`: N prompts with their responses → (N,), and the mean of each term beside the loop's log."""

    def __init__(self, scorer: "PrincipleScorer", model: RewardModel, max_tokens: int, precision: Precision) -> None:
        self.form, self.model, self.run = scorer.guideline, model, scorer.run
        self.encoder = Encoder(scorer.tokenizer, scorer.format)
        self.principles, self.config = scorer.principles, scorer.config
        self.max_tokens, self.precision = max_tokens, precision

    def __call__(self, prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
        config = self.config
        lengths = [len(tokens) + done for tokens, done in zip(sampled.tokens, sampled.finished.tolist(), strict=True)]
        terms = {
            "principle_score": self.principled(prompts, sampled),
            "length_bonus": torch.tensor([length_bonus(*each, config) for each in zip(prompts, lengths, strict=True)]),
            "language_bonus": config.language_bonus * self.same_language(prompts, sampled.text),
        }
        self.run.beside(**{name: float(term.mean()) for name, term in terms.items()})
        return config.scale * torch.stack(list(terms.values())).sum(0)

    def principled(self, prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
        """The term r(x, y | principles) of each, (N,)."""
        read = self.read(prompts, sampled)
        rows = to_rows([row for each in read for row in each], pad_id(self.encoder.tokenizer))
        score = score_rows(self.model, rows, self.max_tokens, self.precision).cpu()
        weights = [[1.0] * len(each) for each in read]
        if self.config.apart:
            weights = [list(by_weight(prompt, self.principles, self.config).values()) for prompt in prompts]
        parts = zip(score.split([len(each) for each in read]), map(torch.tensor, weights), strict=True)
        return torch.stack([(part * weight).sum() / weight.sum() for part, weight in parts])

    def read(self, prompts: list[Prompt], sampled: Sampled) -> list[list[Encoded]]:
        """What the model reads: every response between its prompt and the principles drawn for its request; apart,
        before each of all principles, prompt and response shared.

        Whoever's responses nobody sampled has its place for its request.
        """
        found = []
        requests = sampled.seed or range(len(sampled.text))
        finished = sampled.finished.tolist()
        for prompt, tokens, done, request in zip(prompts, sampled.tokens, finished, requests, strict=True):
            ids = self.encoder.prompt(prompt)
            if ids is None:
                raise InputError(f"prompt {prompt.id} is longer than format.max_prompt_tokens; raise it")
            shared = [*ids, *tokens, *[self.encoder.end] * done]
            if self.config.apart:
                lists = [[one] for one in by_weight(prompt, self.principles, self.config)]
            else:
                rng = random.Random(f"{self.run.seed}\x1f{request}")
                lists = [principles_for(prompt, self.principles, self.config, rng)]
            found.append([Encoded(shared, self.behind(each)) for each in lists])
        return found

    def behind(self, chosen: Sequence[Principle]) -> list[int]:
        """The tokens of a guideline with these principles."""
        return self.encoder.under(guideline([one.text() for one in chosen], self.form)).behind

    def check_fits(self, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
        """Before hours of training: every response fits before the longest principles that could be drawn for it.

        Raises:
            InputError: one does not.
        """
        behind, lower = self.longest_behind(), "max_new_tokens" if self.config.apart else "number or max_new_tokens"
        context = context_length(self.model.trunk)
        kept, encoded = self.encoder.prompts(prompts)
        for prompt, ids in zip(kept, encoded, strict=True):
            if len(ids) + max_new_tokens + behind > context:
                raise InputError(
                    f"prompt {prompt.id} has {len(ids)} tokens and its principles may have {behind}, which with "
                    f"max_new_tokens ({max_new_tokens}) exceed the reward model's context of {context}; "
                    f"lower {lower}"
                )

    def longest_behind(self) -> int:
        """The tokens of the longest guideline that a response may stand before."""
        always, drawn = self.principles.always, self.principles.drawn
        if self.config.apart:
            return max(len(self.behind([one])) for one in (*always, *drawn))
        size = {one.id: len(self.encoder.tokenizer(one.text())["input_ids"]) for one in drawn}
        longest = sorted(drawn, key=lambda one: -size[one.id])[: self.config.number]
        return len(self.behind([*always, *longest]))

    def same_language(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> torch.Tensor:
        """(N,): 1 where the letters do not tell that a response is in another language than its prompt."""
        both = zip(prompts, texts, strict=True)
        return torch.tensor([float(may_be_one_language(prompt.text, text)) for prompt, text in both])


@dataclass(frozen=True)
class PrincipleScorer:
    """An `engine.follow.Scorer`: how a reward model's score under principles is made, once the model is open."""

    config: PrincipleRewardConfig
    principles: InForce
    guideline: PrincipleFormat
    tokenizer: PreTrainedTokenizerBase
    format: PromptFormat  # of the policy's prompts
    prompts: Path  # the snapshot of those that are asked
    max_new_tokens: int
    run: Run

    def __call__(
        self, model: RewardModel, max_tokens: int, precision: Precision, start: Start | None = None
    ) -> PrincipleReward:
        """With `start` the model is scaled so that r(x, y | principles) has mean 0, sd 1 there.

        Raises:
            InputError: a prompt could become too long.
        """
        reward = PrincipleReward(self, model, max_tokens, precision)
        reward.check_fits(read_snapshot(self.prompts).prompts_of("train"), self.max_new_tokens)
        if start is not None:
            model.normalize(reward.principled(*start).to(model.device))
        return reward


def guideline_in(folder: Path) -> PrincipleFormat:
    """Raises InputError for a reward model that reads no principles."""
    learned = guideline_of(folder)
    if learned is None:
        raise InputError(f"{folder}: a reward model that reads no principles; train it with a guideline")
    return PrincipleFormat(**learned)


def by_principles(main: Callable[..., None]) -> Callable[..., None]:
    """The stage with a reward under principles as what is maximised."""
    return partial(_with_principles, main)


def _with_principles(
    main: Callable[..., None],
    config: Any,
    run: Run,
    *,
    principle_reward: PrincipleRewardConfig,
    principles: InForce,
    reward_model_folder: Path,
    prompts: Path,
    format: PromptFormat,
    **inputs: Any,
) -> None:
    form, tokenizer = guideline_in(reward_model_folder), load_tokenizer(reward_model_folder)
    scorer = PrincipleScorer(principle_reward, principles, form, tokenizer, format, prompts, config.max_new_tokens, run)
    inputs |= {"reward_model_folder": reward_model_folder, "prompts": prompts, "format": format}
    main(config, run, scorer=scorer, **inputs)
