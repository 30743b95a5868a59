"""What a recipe would do: the work of its steps, and how fast this machine does it.

Prompts are counted and encoded as the run would; a response counts as long as it may become, so tokens and times are
upper ends. Times follow from a few seconds of training, scoring and sampling with the recipe's own model, here and now.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.cli.plan_ai import ai_amounts
from heedful.cli.plan_lab import lab_amounts
from heedful.cli.plan_principles import principle_amounts
from heedful.cli.work import ACTIVATION, TRAINED, WEIGHT, Rates, Sizes, Work
from heedful.engine.engine import Engine
from heedful.engine.slots import Request
from heedful.feedback.principles.rulebook import read_rules
from heedful.models.heads import Policy
from heedful.models.load import compute_device, context_length, from_scratch, load_decoder, load_tokenizer
from heedful.models.lora import check_rank, parameters_per_rank
from heedful.models.optimizer import autocast
from heedful.models.quantized import adapted_linears
from heedful.pipeline.early import check_prompts
from heedful.pipeline.measure import ChooseConfig
from heedful.pipeline.recipe import Recipe
from heedful.pipeline.source import Source
from heedful.pipeline.start import source_of
from heedful.stages.best_of_n import BestOfNConfig
from heedful.stages.distil import DistilConfig, prefix_of
from heedful.stages.dpo import DPOConfig
from heedful.stages.grpo import GRPOConfig
from heedful.stages.nlpo import NLPOConfig
from heedful.stages.ppo import PPOConfig
from heedful.stages.reinforce import ReinforceConfig
from heedful.stages.rloo import RLOOConfig
from heedful.stages.sft import SFTConfig
from heedful.steps import best_rows, planned_steps
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.types import Prompt
from heedful.world import KINDS, TASKS

SAMPLE = 200  # prompts encoded to know a pool's mean length
SOME_TEXT = 20_000  # tokens of pretraining text made to know a text's mean length
CLASSIC_TOKENS = 45  # of a classic item with its answer, about
ROWS, LENGTH, NEW = 32, 128, 16  # of the passes that are timed


class Plan(NamedTuple):
    """A recipe's steps in order with their work, and how fast its model goes here."""

    about: str
    work: dict[str, Work]
    rates: Rates
    warning: str

    @property
    def seconds(self) -> float:
        return sum(self.rates.seconds(step) for step in self.work.values())


def plan(recipe: Recipe, until: str = "evaluate") -> Plan:
    """Count the recipe's work and time its model; that it would run is checked up to the last step `until`.

    Raises:
        InputError: a source or model that is not there, or what would stop the run.
    """
    source = source_of(recipe)
    tokenizer = source.tokenizer() or load_tokenizer(str(recipe.model))
    if recipe.pretrain is not None:
        model = from_scratch(recipe.pretrain.shape | {"vocab_size": len(tokenizer)}, recipe.seed)
    else:
        model = load_decoder(str(recipe.model))
    sizes = measure_sizes(recipe, source, tokenizer, model, until)
    found = dict(amounts(recipe, sizes))
    work = {name: found[name] for name in planned_steps(recipe.model_dump(mode="json"))}
    about = f"{recipe.name or 'recipe'}: {model.config.model_type}, {sizes.parameters:,} parameters"
    return Plan(about, work, measure_rates(model), source.warning)


def measure_sizes(
    recipe: Recipe, source: Source, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, until: str = "evaluate"
) -> Sizes:
    """Count and encode the recipe's prompts; count the model's parameters.

    Raises:
        InputError: prompts or settings that would stop the run later.
    """
    pools = source.prompts()
    check_prompts(recipe, source, pools, tokenizer, context_length(model), until)
    encoder = Encoder(tokenizer, recipe.format)
    counts: dict[str, dict[str, int]] = {}
    lengths: dict[str, float] = {}
    demonstration = float(recipe.format.max_response_tokens)
    for pool, prompts in pools.items():
        counts[pool] = {split: sum(p.split == split for p in prompts) for split in ("train", "valid", "test")}
        shown = every_so_many(prompts, SAMPLE)
        lengths[pool] = mean([len(ids) for ids in encoder.prompts(shown)[1]])
        if pool == "sft" and (written := source.demonstrations(shown)):
            demonstration = mean([len(tokenizer(d.text, add_special_tokens=False)["input_ids"]) + 1 for d in written])
    text = model.config.get_text_config()
    trunk = sum(p.numel() for p in model.get_decoder().parameters())
    kept = ACTIVATION * text.hidden_size * text.num_hidden_layers
    prefixes = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in source.prefixes()]
    total = sum(p.numel() for p in model.parameters())
    document, heldout, marks = measure_documents(recipe, tokenizer)
    adapted = [*recipe.sft.values(), *(config for _, config in recipe.optimised().values())]
    ranks = [config.lora_rank for config in adapted]
    check_rank(model, max([recipe.reward_model.lora_rank if recipe.reward_model else 0, *ranks]))
    linear = sum(module.weight.numel() for _, module in adapted_linears(model))
    of_texts = (demonstration, len(prefixes), mean(prefixes), document, heldout, marks)
    return Sizes(counts, lengths, *of_texts, total, trunk, kept, parameters_per_rank(model), linear)


def measure_documents(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> tuple[float, float, int]:
    """Tokens of a pretraining text on average and of all held-out text, marks around texts included; marks of a text.

    Of the world's text only a little is made to know its length.
    """
    few = recipe.world.model_copy(update={"document_tokens": SOME_TEXT, "valid_document_tokens": 1})
    documents = source_of(recipe.model_copy(update={"world": few})).documents()
    marks = 1 if tokenizer.bos_token_id is None else 2
    lengths = [len(tokenizer(d.text, add_special_tokens=False)["input_ids"]) + marks for d in documents]
    if recipe.prompts == "world":
        return mean(lengths), recipe.world.valid_document_tokens * around(mean(lengths), marks), marks
    held_out = [length for length, document in zip(lengths, documents, strict=True) if document.split == "valid"]
    return mean(lengths), sum(held_out), marks


def around(document: float, marks: int) -> float:
    """What a word of a document comes to with the marks around it."""
    return document / max(1, document - marks)


def text_row(recipe: Recipe, sizes: Sizes, window: int) -> float:
    """Tokens in a row of pretraining text."""
    return window if recipe.format.pack_documents else min(window, sizes.document)


def amounts(recipe: Recipe, sizes: Sizes) -> Iterator[tuple[str, Work]]:
    """Every step's work, by the name of its folder."""
    yield "data", Work(", ".join(f"{pool} {sizes.total(pool):,}" for pool in sizes.number) + " prompts")
    if recipe.pretrain is not None:
        trained = int(recipe.world.document_tokens * around(sizes.document, sizes.marks)) * recipe.pretrain.epochs
        batch = recipe.pretrain.batch_tokens
        size = TRAINED * sizes.parameters + sizes.kept * batch
        yield "pretrain", Work(f"about {several(trained // batch, 'step')}", trained=trained, size=size)
    yield "demonstrations", Work(f"{several(sizes.total('sft'), 'demonstration')} by {recipe.labelers.judge}")
    for name, config in recipe.sft.items():
        yield name, fine_tuning(config, sizes, text_row(recipe, sizes, config.window))
    for name, teaching in recipe.distil.items():
        yield name, distilling(teaching, sizes)
    for round in range(1, recipe.rounds + 1):
        yield from round_amounts(recipe, sizes, round)
    yield from baseline_amounts(recipe, sizes)
    yield from ai_amounts(recipe, sizes)
    yield from principle_amounts(recipe, sizes)
    yield from lab_amounts(recipe, sizes)
    yield from evaluation_amounts(recipe, sizes)


def baseline_amounts(recipe: Recipe, sizes: Sizes) -> Iterator[tuple[str, Work]]:
    """Multitask fine-tunes, and the suites that every policy goes through."""
    wanted, new = recipe.evaluate, recipe.evaluate.max_new_tokens
    for name, config in recipe.multitask.items():
        yield f"examples/{name}", Work(several(config.examples, "example"))
        yield name, fine_tuning(config, sizes, 0, config.examples)
        yield f"round-{recipe.rounds}/choose_{name}", choosing(config.epochs, "epoch", new, sizes)
    for name in planned_steps(recipe.model_dump(mode="json")):
        suite = name.split("/")[0]
        if suite == "classic":
            number = 2 * len(TASKS) * wanted.classic  # zero- and few-shot
            forward = number * (wanted.classic_shots / 2 + 1) * CLASSIC_TOKENS
            yield name, Work(several(number, "item"), forward, sampled=number * new, size=WEIGHT * sizes.parameters)
        elif suite == "qualitative":
            number = len(KINDS) * wanted.qualitative
            forward = number * sizes.prompt["evaluation"]
            yield name, Work(several(number, "response"), forward, sampled=number * new, size=WEIGHT * sizes.parameters)


def fine_tuning(config: SFTConfig, sizes: Sizes, text: float, number: int | None = None) -> Work:
    """`text`: tokens in a row of pretraining text; `number` of examples: the demonstrations unless given."""
    examples = number or sizes.number["sft"]["train"]
    mixed = round(examples * config.pretraining_mix / (1 - config.pretraining_mix))
    row = sizes.prompt["sft"] + sizes.demonstration
    trained = config.epochs * (examples * row + mixed * text)
    kept = sizes.kept * min(config.max_tokens, config.batch_size * row)
    size = sizes.training(config.lora_rank, sizes.parameters, kept, config.base_precision)
    steps = config.epochs * -(-(examples + mixed) // config.batch_size)
    return Work(epochs_and_steps(config.epochs, steps), trained=trained, size=size)


def distilling(config: DistilConfig, sizes: Sizes) -> Work:
    """Responses behind the prefix, whose words count as tokens; the prompted model reads them, the other trains."""
    number, prompt = config.iterations * config.batch_size, sizes.prompt[config.pool]
    rules = read_rules(config.rules) if config.rules else None
    row, behind = prompt + config.max_new_tokens, prompt + len(prefix_of(config, rules, PromptFormat()).split())
    kept = sizes.kept * min(config.max_tokens, config.batch_size * row)
    size = sizes.training(config.lora_rank, sizes.parameters, kept, config.base_precision) + WEIGHT * sizes.parameters
    what = f"{several(number, 'response')}, {several(config.iterations, 'update')}"
    new = number * config.max_new_tokens
    return Work(what, 2 * number * behind + new, number * row, new, size)


def round_amounts(recipe: Recipe, sizes: Sizes, round: int) -> Iterator[tuple[str, Work]]:
    """Responses, rankings, the reward model on all rounds so far, PPO."""
    here, wanted, config = f"round-{round}", recipe.rankings, recipe.reward_model
    prompts, split = sizes.total("reward_model"), sizes.number["reward_model"]
    k, new, row = (wanted.min_k + wanted.max_k) / 2, wanted.max_new_tokens, sizes.prompt["reward_model"]
    if round > 1:
        came = f"at least {recipe.new_prompts:,} new" if recipe.new_prompts else "with what came in"
        yield f"{here}/prompts", Work(f"prompts of the rounds before, {came}")
    what = f"{several(prompts, 'prompt')}, {wanted.min_k} to {wanted.max_k} responses each"
    sampling = WEIGHT * sizes.parameters
    yield f"{here}/responses", Work(what, prompts * row, sampled=prompts * k * new, size=sampling)
    number = split["train"] * (1 + recipe.labelers.overlap)
    by = {"people": recipe.labelers.judge, "ai": "AI labelers", "both": f"{recipe.labelers.judge} and AI labelers"}
    yield f"{here}/rankings", Work(f"at least {several(prompts, 'ranking')} by {by[wanted.by]}")
    if config is not None:
        trained = round * config.epochs * number * k * (row + new)
        steps = config.epochs * -(-int(round * number) // config.batch_size)
        kept = sizes.kept * min(config.max_tokens, config.batch_size * k * (row + new))
        size = sizes.training(config.lora_rank, sizes.trunk, kept, config.base_precision)
        yield f"{here}/reward_model", Work(epochs_and_steps(config.epochs, steps), trained=trained, size=size)
        held_out = round * (split["valid"] + split["test"]) * k * (row + new)
        yield f"{here}/scores", Work("responses to held-out prompts", held_out, size=WEIGHT * sizes.trunk)
        folds = recipe.reward_model_folds if round == recipe.rounds else 0
        yield f"{here}/folds", Work(f"{folds} groups of labelers")
        for fold in range(1, 1 + folds):
            yield f"{here}/folds/model-{fold}", Work("without a group", trained=trained * (1 - 1 / folds), size=size)
            yield f"{here}/folds/scores-{fold}", Work("as above", held_out, size=WEIGHT * sizes.trunk)
        if wanted.policy in recipe.sft:
            epochs = recipe.sft[wanted.policy].epochs
            yield f"{here}/choose_epoch", choosing(epochs, "epoch", new, sizes)
    for name, ppo in recipe.ppo.items():
        yield f"{here}/{name}", optimising(ppo, sizes, text_row(recipe, sizes, ppo.window))
    for name, (_, optimiser) in recipe.optimised().items():
        if isinstance(optimiser, DPOConfig):
            yield f"{here}/{name}", preferring(optimiser, sizes, round * number, k, row + new)
        elif isinstance(optimiser, BestOfNConfig):
            yield f"{here}/{name}", imitating(optimiser, sizes)
        elif not isinstance(optimiser, PPOConfig):
            yield f"{here}/{name}", reinforcing(optimiser, sizes)


def choosing(candidates: int, what: str, new: int, sizes: Sizes, prefix: float = 0) -> Work:
    """Sampling and scoring one response of every candidate to each validation prompt, behind a prefix."""
    prompts = min(sizes.number["reward_model"]["valid"], ChooseConfig.model_fields["num_prompts"].default) * candidates
    forward = prompts * (2 * (prefix + sizes.prompt["reward_model"]) + new)
    size = WEIGHT * (sizes.parameters + sizes.trunk)
    return Work(several(candidates, what), forward, sampled=prompts * new, size=size)


def optimising(config: PPOConfig, sizes: Sizes, text: float) -> Work:
    """Each episode is sampled; read by the reward model, the reference, the policy and the value model; trained on.

    `text`: tokens in a row of pretraining text.
    """
    episodes = config.iterations * config.batch_size
    row = sizes.prompt["ppo"] + config.max_new_tokens
    passes = 4 if config.logprobs == "trainer" else 3
    updates = config.iterations * config.inner_epochs * -(-config.batch_size // config.minibatch_size)
    texts = max(1, round(config.ptx_examples * config.minibatch_size)) if config.ptx_coef else 0
    forward = episodes * (sizes.prompt["ppo"] + passes * row)
    trained = 2 * config.inner_epochs * episodes * row + updates * texts * text
    rank, precision = config.lora_rank, config.base_precision
    kept = sizes.kept * min(config.max_tokens, max(config.minibatch_size * row, texts * text))
    size = sizes.training(rank, sizes.parameters, kept, precision)
    size += sizes.held(rank, sizes.trunk, precision) + sizes.frozen(sizes.trunk, precision)  # value and reward model
    # Average and reference; of adapters the average is theirs alone, and the policy without them is the reference.
    size += WEIGHT * (rank * sizes.adapters if rank else 2 * sizes.parameters)
    what = f"{several(episodes, 'episode')}, {several(updates, 'update')}"
    return Work(what, forward, trained, episodes * config.max_new_tokens, size)


def reinforcing(config: NLPOConfig | ReinforceConfig | RLOOConfig | GRPOConfig, sizes: Sizes) -> Work:
    """Each episode is sampled; read by the reward model, the reference and a value model where there is one; trained
    on. NLPO samples from two models, whose masks and log-probabilities are read too."""
    episodes = config.iterations * config.batch_size
    row = sizes.prompt["ppo"] + config.max_new_tokens
    rank, epochs, batch, models = config.lora_rank, 1, config.batch_size, 1
    has_value = isinstance(config, NLPOConfig | ReinforceConfig)
    if isinstance(config, NLPOConfig | GRPOConfig):
        epochs, batch = config.inner_epochs, config.minibatch_size
    if isinstance(config, NLPOConfig):
        models = 2
    updates = config.iterations * epochs * -(-config.batch_size // batch)
    kept = sizes.kept * min(config.max_tokens, batch * row)
    precision = "full" if isinstance(config, NLPOConfig) else config.base_precision
    size = sizes.training(rank, sizes.parameters, kept, precision) + WEIGHT * sizes.trunk  # policy, reward model
    size += sizes.held(rank, sizes.trunk, precision) * has_value + WEIGHT * sizes.parameters * (not rank)  # reference
    size += (models - 1) * WEIGHT * (sizes.parameters + rank * sizes.adapters)  # mask policy
    what = f"{several(episodes, 'episode')}, {several(updates, 'update')}"
    passes = 2 + has_value + 2 * (models - 1)
    forward = episodes * (models * sizes.prompt["ppo"] + passes * row)
    sampled = models * episodes * config.max_new_tokens
    return Work(what, forward, (1 + has_value) * epochs * episodes * row, sampled, size)


def imitating(config: BestOfNConfig, sizes: Sizes) -> Work:
    """Each episode is sampled, and read by the reward model and the reference; the best of each prompt's are trained
    on, as many as a threshold leaves at most."""
    episodes = config.iterations * config.batch_size
    row = sizes.prompt["ppo"] + config.max_new_tokens
    kept = config.batch_size // config.responses_per_prompt * min(config.keep, config.responses_per_prompt)
    updates = config.iterations * config.inner_epochs * -(-kept // config.minibatch_size)
    trained = config.iterations * config.inner_epochs * kept * row
    activations = sizes.kept * min(config.max_tokens, config.minibatch_size * row)
    size = sizes.training(config.lora_rank, sizes.parameters, activations, config.base_precision)
    size += WEIGHT * (sizes.trunk + sizes.parameters * (not config.lora_rank))  # reward model, reference
    what = f"{several(episodes, 'episode')}, {several(updates, 'update')}"
    forward = episodes * (sizes.prompt["ppo"] + 2 * row)
    return Work(what, forward, trained, episodes * config.max_new_tokens, size)


def preferring(config: DPOConfig, sizes: Sizes, number: float, k: float, row: float) -> Work:
    """`number` rankings of `k` responses each, read once by the reference and trained on."""
    tokens = number * k * row
    steps = config.epochs * -(-int(number) // config.batch_size)
    kept = sizes.kept * min(config.max_tokens, config.batch_size * k * row)
    size = sizes.training(config.lora_rank, sizes.parameters, kept, config.base_precision)
    return Work(epochs_and_steps(config.epochs, steps), tokens, config.epochs * tokens, size=size)


def evaluation_amounts(recipe: Recipe, sizes: Sizes) -> Iterator[tuple[str, Work]]:
    wanted, prompts = recipe.evaluate, sizes.total("evaluation")
    row = sizes.prompt["evaluation"] + wanted.max_new_tokens
    names = [name for name in planned_steps(recipe.model_dump(mode="json")) if name.startswith("evaluation/")]
    for name in names:
        number = float(prompts)
        number *= best_rows(wanted.best_of).get(name.partition("/")[2], 1)
        forward = number * (sizes.prompt["evaluation"] + row) + 2 * prompts * row + sizes.heldout
        size = WEIGHT * (2 * sizes.parameters + sizes.trunk)
        yield name, Work(several(number, "response"), forward, sampled=number * wanted.max_new_tokens, size=size)
    judges = several(wanted.labelers_per_prompt, "held-out labeler") + wanted.training_labelers * " and as many others"
    judged = f"{several(prompts, 'prompt')}, {judges} each"
    yield "evaluation/judgements", Work(judged)
    if "evaluation/choose_prefix" in names:
        new = recipe.rankings.max_new_tokens
        yield "evaluation/choose_prefix", choosing(sizes.prefixes, "few-shot prefix", new, sizes, sizes.prefix)


def measure_rates(model: PreTrainedModel) -> Rates:
    """Time a few passes of the model in the precision that the stages use by default."""
    policy = Policy(model).to(compute_device())
    vocabulary = model.config.get_text_config().vocab_size
    rows = torch.randint(vocabulary, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0)).to(policy.device)
    length = torch.full((ROWS,), LENGTH, device=policy.device)

    def forward() -> torch.Tensor:
        with autocast(rows.device, "auto"):
            return policy.language_loss(rows, length)[0].mean()

    def train() -> None:
        forward().backward()
        policy.zero_grad()

    def sample() -> None:
        prompts = [Request(row[: LENGTH // 4].tolist(), 4, NEW, seed=i) for i, row in enumerate(rows)]
        Engine(model, eos_ids=[]).generate(prompts)

    with torch.no_grad():
        scored = seconds_of(forward)
    return Rates(rows.numel() / scored, rows.numel() / seconds_of(train), 4 * ROWS * NEW / seconds_of(sample))


def seconds_of(work: Callable[[], object], times: int = 2) -> float:
    """The fastest of a few calls; the first, which makes buffers, does not count."""
    found = []
    for _ in range(times + 1):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return min(found[1:])


def every_so_many(prompts: Sequence[Prompt], most: int) -> Sequence[Prompt]:
    """At most so many of them, evenly from first to last."""
    return prompts[:: -(-len(prompts) // most) or 1]


def epochs_and_steps(epochs: int, steps: int) -> str:
    return f"{several(epochs, 'epoch')}, {several(steps, 'step')}"


def several(amount: float, what: str) -> str:
    """1 epoch, 2 epochs."""
    ending = "es" if what.endswith("x") else "s"
    return f"{amount:,.0f} {what}" + ("" if round(amount) == 1 else ending)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
