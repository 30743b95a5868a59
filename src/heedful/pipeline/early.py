"""What would stop a run only after people have labelled or models have trained, told while its prompts are read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedTokenizerBase

from heedful.config import InputError
from heedful.feedback.ai.template import marks_of, read_template
from heedful.feedback.principles.rulebook import read_rules
from heedful.models.quantized import functional
from heedful.pipeline.principle_settings import worded
from heedful.pipeline.recipe import Recipe
from heedful.pipeline.source import Source
from heedful.stages.distil import prefix_of
from heedful.store.pools import Pool
from heedful.text.collate import Encoder
from heedful.types import Prompt, Split

STEPS = ("pretrain", "sft", "rankings", "reward", "ppo", "evaluate")  # the loop's, by their commands' names
Pools = Mapping[Pool, Sequence[Prompt]]


class Need(NamedTuple):
    """A step that stops without a prompt of the pool; `split` None: of any split."""

    pool: Pool
    split: Split | None
    by: str


class Sampling(NamedTuple):
    """Responses of at most `new` tokens, by the setting `key`, to a pool's prompts behind a prefix of tokens."""

    pool: Pool
    split: Split | None
    key: str
    new: int
    prefix: int = 0


def check_prompts(
    recipe: Recipe,
    source: Source,
    pools: Pools,
    tokenizer: PreTrainedTokenizerBase,
    context: int | None,
    until: str = "evaluate",
) -> None:
    """Every step up to `until` has prompts, and the model's context (None: not known) holds them and their responses.

    Raises:
        InputError: names the setting or file, and the mend; also of AI labelers' templates, and of a missing extra.
    """
    check_templates(recipe)
    if '"base_precision":"nf4"' in recipe.model_dump_json():
        functional()
    reached = STEPS[: STEPS.index(until) + 1] if until in STEPS else ()
    encoder = Encoder(tokenizer, recipe.format)
    for need in needs(recipe, reached):
        check_need(recipe, need, chosen(pools, need), len(pools[need.pool]), encoder)
    if context is not None:
        prefixes = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in source.prefixes()]
        for asked in samplings(recipe, reached, max(prefixes, default=0)):
            check_room(asked, chosen(pools, asked), encoder, context)
        for name, config in recipe.distil.items() if "sft" in reached else ():
            text = prefix_of(config, read_rules(config.rules) if config.rules else None, recipe.format)
            prefix = len(tokenizer(text, add_special_tokens=False)["input_ids"])
            asked = Sampling(config.pool, None, f"distil.max_new_tokens (of {name})", config.max_new_tokens, prefix)
            check_room(asked, chosen(pools, asked), encoder, context)


def check_templates(recipe: Recipe) -> None:
    """Raises InputError where an AI labeler's template will not do, or has no marks and they are a reward."""
    rewards = {config.reward for _, config in recipe.sampling().values()}
    for name, labeler in recipe.ai_labelers.items():
        template = read_template(labeler.template, labeler.shots, labeler.think)
        if (name in rewards or labeler.by == "scores") and not marks_of(template):
            raise InputError(f"{labeler.template}: no score block, which marks by {name} are asked with; write one")
    for judge in recipe.judges.values():
        read_template(judge.template)
    if recipe.principles is not None:
        worded(recipe.principles)
        if recipe.principles.decoded is not None:
            read_template(recipe.principles.decoded.template)


def context_of(recipe: Recipe) -> int | None:
    """Tokens that the recipe's model has positions for; None where only loading or making it tells what is wrong."""
    try:
        if recipe.pretrain is not None:
            config = AutoConfig.for_model(**recipe.pretrain.shape)
        else:
            config = AutoConfig.from_pretrained(str(recipe.model))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, StrictDataclassError):
        return None
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def needs(recipe: Recipe, reached: Sequence[str]) -> Iterator[Need]:
    """Which pools may not be empty."""
    if "sft" in reached and recipe.sft:
        yield Need("sft", "train", "sft")
        yield Need("sft", "valid", "sft")
    if "sft" in reached:
        for pool in {config.pool: None for config in recipe.distil.values()}:
            yield Need(pool, "train", "distil")
    if "rankings" in reached:
        yield Need("reward_model", None, "rankings")
    if "reward" in reached and recipe.reward_model is not None:
        yield Need("reward_model", "train", "reward_model")
        if recipe.rankings.policy in recipe.sft:
            yield Need("reward_model", "valid", "choosing an epoch of sft by score")
        elif recipe.multitask:
            yield Need("reward_model", "valid", "choosing an epoch of multitask by score")
        elif recipe.evaluate.prompted:
            yield Need("reward_model", "valid", "evaluate.prompted")
    if "ppo" in reached and recipe.sampling():
        yield Need("ppo", "train", "ppo")
    if "ppo" in reached and recipe.dpo:
        yield Need("reward_model", "train", "dpo")
    if "evaluate" in reached:
        yield Need("evaluation", None, "evaluate")


def samplings(recipe: Recipe, reached: Sequence[str], prefix: int) -> Iterator[Sampling]:
    """What is sampled; `prefix` is the longest of the few-shot prefixes."""
    ranked, judged = recipe.rankings.max_new_tokens, recipe.evaluate.max_new_tokens
    prompted = recipe.evaluate.prompted
    if "rankings" in reached:
        yield Sampling("reward_model", None, "rankings.max_new_tokens", ranked)
    if "reward" in reached and prompted:
        yield Sampling("reward_model", "valid", "rankings.max_new_tokens", ranked, prefix)
    if "ppo" in reached:
        for name, (stage, config) in recipe.sampling().items():
            yield Sampling("ppo", "train", f"{stage}.max_new_tokens (of {name})", config.max_new_tokens)
    if "evaluate" in reached:
        yield Sampling("evaluation", None, "evaluate.max_new_tokens", judged, prefix if prompted else 0)


def chosen(pools: Pools, asked: Need | Sampling) -> list[Prompt]:
    return [prompt for prompt in pools[asked.pool] if asked.split in (None, prompt.split)]


def check_need(recipe: Recipe, need: Need, prompts: Sequence[Prompt], size: int, encoder: Encoder) -> None:
    """Raises InputError where none of the prompts is short enough; `size` is the pool's, of every split."""
    if any(encoder.prompt(prompt) is not None for prompt in prompts):
        return
    limit = encoder.format.max_prompt_tokens
    if prompts:
        raise InputError(
            f"none of the {len(prompts)} prompts of the {need.pool} pool that {need.by} needs is within "
            f"format.max_prompt_tokens ({limit}); raise it"
        )
    kind = {None: "", "train": "training ", "valid": "validation ", "test": "test "}[need.split]
    found = f"{need.by} needs {kind}prompts, and of the {size} in the {need.pool} pool none is one"
    if not size:
        found = f"{need.by} needs {kind}prompts, and the {need.pool} pool has none"
    if recipe.prompts == "world" or (recipe.stories is not None and need.pool != "sft"):
        raise InputError(f"pools.{need.pool} is {getattr(recipe.pools, need.pool)}: {found}; raise it")
    if recipe.stories is not None:
        mend = "set distil.pool=ppo" if need.by == "distil" else "take the sft block out"
        raise InputError(f"{recipe.prompts}: {found}, since nobody demonstrates stories; {mend}")
    share = "intake.test" if need.pool == "evaluation" else "intake.shares"
    also = " or intake.valid" if need.split == "valid" else ""
    mark = ', mark those of labelers with "source": "labeler"' if need.pool == "sft" else ""
    raise InputError(f"{recipe.prompts}: {found}; give prompts of more users{mark}, or change {share}{also}")


def check_room(asked: Sampling, prompts: Sequence[Prompt], encoder: Encoder, context: int) -> None:
    """Raises InputError where the longest prompt leaves too little of the context for its responses."""
    room = context - asked.prefix - asked.new
    if room >= encoder.format.max_prompt_tokens:
        return
    lengths = {prompt.id: len(ids) for prompt in prompts if (ids := encoder.prompt(prompt)) is not None}
    longest = max(lengths, key=lengths.__getitem__, default=None)
    if longest is None or lengths[longest] <= room:
        return
    left = context - asked.prefix - lengths[longest]
    mends = [f"lower {asked.key} to {left}"] if left > 0 else []
    mends += [f"lower format.max_prompt_tokens to {room}, which leaves longer prompts out"] if room > 0 else []
    behind = f" behind a prefix of {asked.prefix}" if asked.prefix else ""
    raise InputError(
        f"{asked.key} is {asked.new}: with the {lengths[longest]} tokens of prompt {longest} ({asked.pool} pool)"
        f"{behind} that exceeds the model's context of {context}; "
        + (" or ".join(mends) or f"lower both {asked.key} and format.max_prompt_tokens")
    )
