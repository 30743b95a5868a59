"""A recipe: the whole loop's settings as one validated object."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from heedful.config import Config, InputError, parse
from heedful.pipeline.ai_settings import AILabelerConfig, JudgeConfig, check_ai
from heedful.pipeline.lab_settings import LabConfig, check_lab
from heedful.pipeline.principle_rewards import PrincipleRewardConfig, check_principle_rewards
from heedful.pipeline.principle_settings import PrinciplesConfig, check_principles
from heedful.stages.best_of_n import BestOfNConfig
from heedful.stages.distil import DistilConfig
from heedful.stages.dpo import DPOConfig
from heedful.stages.grpo import GRPOConfig
from heedful.stages.nlpo import NLPOConfig
from heedful.stages.ppo import PPOConfig
from heedful.stages.pretrain import PretrainConfig
from heedful.stages.reinforce import ReinforceConfig
from heedful.stages.reward_model import RewardModelConfig
from heedful.stages.rloo import RLOOConfig
from heedful.stages.sft import SFTConfig
from heedful.steps import OPTIMISERS, best_rows
from heedful.store.intake import IntakeConfig
from heedful.text.format import PromptFormat

POOLS = ("sft", "reward_model", "ppo", "evaluation")
# Folders and files of a run that no policy may be named like, by the setting that names policies.
JUDGED = r"judgements|choose_prefix"  # beside each policy's responses in evaluation/
IN_RUN = r"data|demonstrations|judges|principles|lab|pretrain|examples|classic|qualitative|evaluation|round-\d+"
IN_RUN += r"|tables|clock|lock"
IN_ROUND = r"prompts|responses|rankings|labels|principles|reward_model|further|scores|folds|choose_.+"
TAKEN = {
    "start_name": JUDGED,
    "sft.variants": rf"{JUDGED}|{IN_RUN}|.+\.(json|html|db.*)",
    "distil.variants": rf"{JUDGED}|{IN_RUN}|.+\.(json|html|db.*)",
    "multitask.variants": rf"{JUDGED}|{IN_RUN}|.+\.(json|html|db.*)",
} | {f"{stage}.variants": f"{JUDGED}|{IN_ROUND}" for stage in OPTIMISERS}
# of stages that sample
SamplingConfig = PPOConfig | NLPOConfig | ReinforceConfig | RLOOConfig | GRPOConfig | BestOfNConfig
OptimiserConfig = SamplingConfig | DPOConfig


class PoolSizes(Config):
    """How many prompts each pool holds. InstructGPT (table 6): 12,725 SFT, 33,207 reward model, 31,144 PPO."""

    sft: int = Field(default=0, ge=0)
    reward_model: int = Field(default=0, ge=0)
    ppo: int = Field(default=0, ge=0)
    evaluation: int = Field(default=500, ge=2)
    completions: int = Field(default=0, ge=0)  # also evaluated: the world's prompts as sent to a base model


class WorldConfig(Config):
    """The embedded world as the source of prompts, text and labelers."""

    document_tokens: int = Field(default=2_000_000, ge=1)
    valid_document_tokens: int = Field(default=40_000, ge=1)
    classic_share: float = Field(default=0.0, ge=0, lt=1)  # of the text: pages of classic tasks, programs, Chinese
    flawed_demonstrations: float = Field(default=0.35, ge=0, le=1)  # share that is verbose, off or wrong somewhere
    boasting: float = Field(default=0.0, ge=0, le=1)  # of demonstrations: praise of oneself, a planted habit
    calibration_prompts: int = Field(default=150, ge=1)  # on whose responses the labelers' noise is set


class MultitaskConfig(SFTConfig):
    """A fine-tune on the world's classic tasks, in the manner of FLAN or T0: a baseline of InstructGPT's."""

    templates: Literal["flan", "t0"] = "flan"  # how a task is worded, and which tasks there are
    examples: int = Field(default=1000, ge=1)  # that it trains on; InstructGPT: about a million


class StoriesConfig(Config):
    """Prompts cut from a file of stories (Ziegler et al.'s continuation task)."""

    min_words: int = Field(default=8, ge=1)
    max_words: int = Field(default=24, ge=1)
    prompts_per_story: int = Field(default=1, ge=1)  # of training; further ones begin at later sentences of the story
    separator: str = "<|endoftext|>"
    test_stories: int = Field(default=320, ge=0)  # the same for every seed; nothing is trained or tuned on them
    evaluate_on: Literal["test", "valid"] = "test"  # valid: on other stories, for tuning


class LabelersConfig(Config):
    """Who judges. `people`: the labelling store; the others are simulated labelers over an exact utility.

    With people, `train` and `heldout` say how many there are: no prompt waits for more labelers than that.
    """

    judge: Literal["people", "world", "sentiment"] = "people"
    train: int = Field(default=10, ge=1)  # labelers in the training group; with people: how many there are
    heldout: int = Field(default=5, ge=0)  # 0: nobody is held out, and the training group judges the evaluation
    overlap: float = Field(default=0.15, ge=0, le=1)  # share of prompts judged twice, for agreement; with people too
    ratings: bool = False  # training labelers also mark each ranked response, for reward_model.target likert, good_bad
    references: bool = False  # and write a demonstration for each ranked prompt, for reward_model.target bleu, rouge_l
    noise: float = Field(default=0.25, ge=0)  # sd of a sentiment labeler's noise on the utility


class RankingsConfig(Config):
    """Collecting comparisons: K responses per prompt at temperature 1, ranked whole."""

    min_k: int = Field(default=4, ge=2)  # InstructGPT: 4
    max_k: int = Field(default=9, le=9)  # InstructGPT: 9
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, ge=1)
    policy: str = "sft"  # whose responses are ranked in round 1; later rounds sample from the newest policy
    by: Literal["people", "ai", "both"] = "people"  # who ranks: the recipe's labelers, its AI labelers, or both

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_k < self.min_k:
            raise ValueError(f"max_k {self.max_k} is below min_k {self.min_k}")
        return self


class EvaluateConfig(Config):
    """Final evaluation on prompts of users nobody trained on, by held-out labelers under the evaluation guideline."""

    baseline: str = "sft"
    labelers_per_prompt: int = Field(default=2, ge=1)
    training_labelers: bool = False  # as many training labelers rank them too: the other half of figure 3
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=256, ge=1)
    prefixes: tuple[str, ...] = ()  # few-shot prefixes for `prompted`, where the source of the prompts brings none
    prefix_stop: str = "\n"  # what ends a response behind a prefix, besides the end token
    prompted: bool = False  # also the pretrained model behind a few-shot prefix chosen by reward-model score
    best_of: int | tuple[int, ...] | None = None  # also the best of n (or several n) of the start, by the reward model
    classic: int = Field(default=0, ge=0)  # items of each classic task that every policy is tested on; 0: none
    classic_shots: int = Field(default=3, ge=1)  # worked items before each, in the few-shot half of that test
    qualitative: int = Field(default=0, ge=0)  # prompts of each kind of the qualitative suite; 0: none

    @model_validator(mode="after")
    def _chooses(self) -> Self:
        numbers = [self.best_of] if isinstance(self.best_of, int) else self.best_of or ()
        if any(n < 2 for n in numbers) or len(set(numbers)) < len(numbers):
            raise ValueError("best_of: give a number of 2 or more, or different ones")
        return self


class Recipe(Config):
    """Top level of a recipe file."""

    name: str = ""
    model: str | None = None  # a hub name or a folder; None: the pretrain block makes one
    start_name: str = "start"  # what results call the pretrained model
    prompts: str = "world"  # "world", or a file of people's prompts (.jsonl, .txt) or of stories (text)
    documents: str | None = None  # a file of pretraining text (.jsonl, .txt); the world brings its own
    seed: int = Field(default=0, ge=0)
    rounds: int = Field(default=1, ge=1)
    new_prompts: int = Field(default=0, ge=0)  # people's prompts that each later round waits for (docs/serve.md)
    format: PromptFormat = PromptFormat()
    pools: PoolSizes = PoolSizes()
    world: WorldConfig = WorldConfig()
    stories: StoriesConfig | None = None
    intake: IntakeConfig = IntakeConfig()  # filters, split and pools of prompts that come from a file
    labelers: LabelersConfig = LabelersConfig()
    pretrain: PretrainConfig | None = None
    sft: Mapping[str, SFTConfig] = {}
    distil: Mapping[str, DistilConfig] = {}
    multitask: Mapping[str, MultitaskConfig] = {}  # baselines tuned on classic tasks; `variants` lists several
    judges: Mapping[str, JudgeConfig] = {}  # language models of the world's, taught to judge; `variants` lists several
    ai_labelers: Mapping[str, AILabelerConfig] = {}  # language models that label: name → which, and how it is asked
    rankings: RankingsConfig = RankingsConfig()
    principles: PrinciplesConfig | None = None  # labels by written principles of what is ranked (docs/salmon.md)
    reward_model: RewardModelConfig | None = None
    further_reward_models: Mapping[str, RewardModelConfig] = {}  # each laid over the block; a `reward` to choose
    principle_rewards: Mapping[str, PrincipleRewardConfig] = {}  # rewards under principles; a `reward` to choose
    reward_model_folds: int = Field(default=0, ge=0)  # cross-validation over groups of labelers; InstructGPT: 5; 0: off
    ppo_start: str = (
        "sft"  # which SFT or distil variant (or "start", the given model) PPO begins from and is compared with
    )
    ppo: Mapping[str, PPOConfig] = {}
    nlpo: Mapping[str, NLPOConfig] = {}
    reinforce: Mapping[str, ReinforceConfig] = {}
    rloo: Mapping[str, RLOOConfig] = {}
    grpo: Mapping[str, GRPOConfig] = {}
    best_of_n: Mapping[str, BestOfNConfig] = {}
    dpo: Mapping[str, DPOConfig] = {}
    lab: LabConfig | None = None  # the over-optimisation lab (docs/overoptimization.md)
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.model is not None and self.pretrain is not None:
            raise ValueError(
                f"model {self.model} and a pretrain block are both given; to start from the model take the block out: "
                "--set pretrain=null"
            )
        if self.model is None and self.pretrain is None:
            raise ValueError("give either model (a hub name or a folder) or a pretrain block, not neither")
        starts = {self.start_name, *self.sft, *self.distil}
        for key, value in (("ppo_start", self.ppo_start), ("rankings.policy", self.rankings.policy)):
            if value not in starts and (self.optimised() or self.reward_model):
                raise ValueError(f"{key} is {value!r}, which is none of {', '.join(sorted(starts))}")
        for stage in OPTIMISERS:
            if getattr(self, stage) and self.reward_model is None and stage != "dpo":
                raise ValueError(f"{stage} needs a reward_model block")
        if self.new_prompts and (self.rounds == 1 or self.prompts == "world"):
            raise ValueError("new_prompts are for rounds: 2 or more and prompts from a file, not prompts: world")
        self._names()
        self._folds()
        self._has_marks()
        if self.pretrain is not None and self.prompts != "world":
            raise ValueError(
                f"a pretrain block needs prompts: world, found prompts: {self.prompts}; name a model instead: "
                "--set model=FOLDER --set pretrain=null"
            )
        self._evaluates()
        self._has_classic()
        self._has_text()
        check_ai(self)
        check_principles(self)
        check_principle_rewards(self)
        check_lab(self)
        return self

    def _names(self) -> None:
        """Every policy has a folder and a row of results of its own, so no two may have one name."""
        stages = ("sft", "distil", "multitask", *OPTIMISERS)
        blocks: dict[str, Mapping[str, Config]] = {f"{stage}.variants": getattr(self, stage) for stage in stages}
        named = [("start_name", self.start_name), *((block, name) for block in blocks for name in blocks[block])]
        for block, name in named:
            if not re.fullmatch(r"\w[\w .+-]*", name):
                raise ValueError(f"{block}: {name!r} cannot name a folder; use letters, digits, _ and -")
            if re.fullmatch(TAKEN[block], name):
                raise ValueError(f"{block}: {name!r} is what a run's own folder is called; choose another name")
        rows = [*named, ("evaluate.prompted", f"{self.start_name}_prompted")]
        rows += [("evaluate.best_of", name) for name in best_rows(self.evaluate.best_of)]
        begun = self.optimised() and self.start_row() == "ppo_start"
        rows += [("the last epoch of ppo_start", "ppo_start")] if begun else []
        for name, number in Counter(name for _, name in rows).items():
            if number > 1:
                where = " and ".join(block for block, other in rows if other == name)
                raise ValueError(f"two policies have one name: {name}, of {where}; choose another for one of them")

    def _folds(self) -> None:
        folds, labelers = self.reward_model_folds, self.labelers
        if folds and self.reward_model is None:
            raise ValueError("reward_model_folds needs a reward_model block")
        if folds == 1:
            raise ValueError(
                "reward_model_folds is 1, which leaves nobody to learn from; give 2 or more, or 0 for none"
            )
        if labelers.judge != "people" and folds > labelers.train:
            raise ValueError(f"reward_model_folds is {folds} for {labelers.train} labelers.train; lower it")

    def _has_marks(self) -> None:
        reward = self.reward_model
        if reward is None or reward.objective != "regression":
            return
        judged = reward.target in ("likert", "good_bad")
        name, what = ("ratings", "labelers' ratings") if judged else ("references", "demonstrations for ranked prompts")
        if not getattr(self.labelers, name):
            raise ValueError(f"reward_model.target {reward.target} needs {what}; set labelers.{name}=true")

    def _evaluates(self) -> None:
        wanted = self.evaluate
        for key in ("prompted", "best_of"):
            if getattr(wanted, key) and self.reward_model is None:
                raise ValueError(f"evaluate.{key} chooses by the reward model's score: it needs a reward_model block")
        if wanted.prompted and self.prompts != "world" and not wanted.prefixes:
            raise ValueError("evaluate.prompted needs evaluate.prefixes, a list of few-shot prefixes to choose from")
        extra = [f"{self.start_name}_prompted"] if wanted.prompted else []
        known = [
            self.start_name,
            *self.sft,
            *self.distil,
            *self.multitask,
            *self.optimised(),
            *extra,
            *best_rows(wanted.best_of),
        ]
        if wanted.baseline not in known:
            raise ValueError(f"evaluate.baseline is {wanted.baseline!r}, which is none of {', '.join(known)}")

    def _has_classic(self) -> None:
        """What knows classic tasks needs a model whose vocabulary and text hold them."""
        asked = {"multitask": self.multitask, "evaluate.classic": self.evaluate.classic}
        asked["evaluate.qualitative"] = self.evaluate.qualitative
        needs = [key for key, wanted in asked.items() if wanted]
        if needs and (self.prompts != "world" or not self.world.classic_share):
            raise ValueError(f"{needs[0]} needs prompts: world with its classic tasks; set world.classic_share=0.2")
        if self.multitask and self.reward_model is None:
            raise ValueError("multitask chooses an epoch by the reward model's score: it needs a reward_model block")
        if self.pools.completions and self.prompts != "world":
            raise ValueError("pools.completions are prompts of the world's; with prompts from a file leave it 0")

    def _has_text(self) -> None:
        """Whoever needs pretraining text is told now, not after all the labelling."""
        if self.prompts == "world" or self.documents is not None:
            return
        needs = [f"sft.pretraining_mix (of {name})" for name, sft in self.sft.items() if sft.pretraining_mix]
        needs += [f"ppo.ptx_coef (of {name})" for name, ppo in self.ppo.items() if ppo.ptx_coef]
        if needs:
            raise ValueError(f"{needs[0]} needs pretraining text; name a file in documents, or set it to 0")

    def optimised(self) -> dict[str, tuple[str, OptimiserConfig]]:
        """Every policy that a stage of `OPTIMISERS` makes: its name, the stage and its settings there."""
        return {name: (stage, config) for stage in OPTIMISERS for name, config in getattr(self, stage).items()}

    def sampling(self) -> dict[str, tuple[str, SamplingConfig]]:
        """Those of them whose stage samples responses and has them scored."""
        found = self.optimised().items()
        return {name: (stage, config) for name, (stage, config) in found if not isinstance(config, DPOConfig)}

    def start_row(self) -> str:
        """What results call the model that is optimised: its name, unless that row is the epoch of the best score."""
        again = self.ppo_start in self.sft and self.ppo_start == self.evaluate.baseline
        return "ppo_start" if again else self.ppo_start

    def plain_of(self) -> dict[str, str | None]:
        """Each PPO variant with a pretraining mix, and the one without that differs from it in fewest settings."""
        plain = [name for name, config in self.ppo.items() if not config.ptx_coef]

        def nearest(mixed: PPOConfig) -> str | None:
            differing = {n: sum(getattr(self.ppo[n], key) != value for key, value in mixed) for n in plain}
            return min(plain, key=differing.__getitem__, default=None)

        return {name: nearest(config) for name, config in self.ppo.items() if config.ptx_coef}

    def data_config(self) -> "DataConfig":
        return DataConfig(**{key: getattr(self, key) for key in DataConfig.model_fields})


class DataConfig(Config):
    """The part of a recipe that decides what the data is."""

    prompts: str
    documents: str | None
    intake: IntakeConfig
    pools: PoolSizes
    world: WorldConfig
    stories: StoriesConfig | None


BLOCKS: tuple[tuple[str, type[Config]], ...] = (
    ("sft", SFTConfig),
    ("distil", DistilConfig),
    ("multitask", MultitaskConfig),
    ("judges", JudgeConfig),
    ("ppo", PPOConfig),
    ("nlpo", NLPOConfig),
    ("reinforce", ReinforceConfig),
    ("rloo", RLOOConfig),
    ("grpo", GRPOConfig),
    ("best_of_n", BestOfNConfig),
    ("dpo", DPOConfig),
)  # that may list variants


def build(raw: Mapping[str, Any]) -> Recipe:
    """A validated recipe from a raw mapping; a stage block may list `variants`, each laid over the block.

    `sft: {epochs: 2, variants: {sft: {}, mixed: {pretraining_mix: 0.1}}}` trains two; without variants a block trains
    one policy, named like the block.

    Raises:
        InputError: one line naming each wrong key.
    """
    if "matrix" in raw:
        raise InputError("matrix: heedful run RECIPE sweeps a recipe's matrix; this runs one recipe, so take it out")
    values = dict(raw)
    for stage, model in BLOCKS:
        if stage in values:
            values[stage] = _variants(stage, values[stage], model)
    further = _mapping("further_reward_models", values.pop("further_reward_models", {}))
    for stage, block in (("pretrain", PretrainConfig), ("reward_model", RewardModelConfig)):
        if values.get(stage) is not None:
            values[stage] = parse(block, _mapping(stage, values[stage]), stage)
    if further:
        base = raw.get("reward_model") or {}
        values["further_reward_models"] = {
            name: parse(RewardModelConfig, {**base, **_mapping(f"further_reward_models.{name}", extra or {})}, name)
            for name, extra in further.items()
        }
    return parse(Recipe, values, "")


def _variants(stage: str, block: Any, model: type[Config]) -> dict[str, Config]:
    block = dict(_mapping(stage, block))
    variants = _mapping(f"{stage}.variants", block.pop("variants", {stage: {}}))
    return {name: parse(model, block | _mapping(name, extra or {}), stage) for name, extra in variants.items()}


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{key}: a block of settings is needed, found {value!r}")
    return value
