"""Context distillation: a model learns to say by itself what it says behind a prefix (Askell et al., arXiv 2112.00861).

    minimise  E_{x, y ~ p}[ Σₜ KL( p(·|C, x, y₍<ₜ₎) ‖ π(·|x, y₍<ₜ₎) ) ] = E_x[ KL( p(·|C, x) ‖ π(·|x) ) ]

C is the prefix, p the model as it was, π the same model in training. So the assistant of Bai et al. (arXiv 2204.05862)
began, before any RLHF. Tokens are compared over the whole vocabulary, not over the 50 likeliest; responses are fresh
ones of the prompted model, so that the sum over tokens is the divergence of whole responses.

A pretrained model behind worked examples goes on with the next one: what `stop` begins, ends a response. There the
prompted model's distribution gives to the end token what it gives to all tokens that begin so.

Symbols: N responses, R response tokens; kl, mask (N, R). A micro-batch is what one forward pass takes.
Command: heedful run RECIPE, for a recipe with a block `distil`
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from transformers import PreTrainedTokenizerBase

from heedful.batch import Rows
from heedful.config import Config, InputError
from heedful.engine.sample import Sampler, prompt_order
from heedful.feedback.principles.rulebook import RuleBook, written
from heedful.losses.masked import masked_mean
from heedful.models.checkpoint import load_policy, save_policy
from heedful.models.distilled import token_kl
from heedful.models.heads import Policy
from heedful.models.load import context_length
from heedful.models.lora import LoraAlpha, LoraRank, prepare
from heedful.models.optimizer import Precision, adam, autocast, linear_warmup, set_lr
from heedful.models.quantized import BasePrecision
from heedful.models.threads import accumulate, in_order
from heedful.run import Run
from heedful.snapshot import read_snapshot
from heedful.text.collate import Encoded, Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.text.parts import by_length
from heedful.text.prefix import with_prefix
from heedful.text.tokenizer import end_id, pad_id

CHECKS = 4  # validations in a run, evenly from its beginning; the last one is a result


class DistilConfig(Config):
    prefix: str = ""  # C: what stands before every prompt of the prompted model, and is to be learned; or else
    rules: str | None = None  # an assistant's rules with examples as the prefix: self_align.en, self_align.zh, a file
    shots: int = Field(default=6, ge=0)  # of the rules' examples; SELF-ALIGN: 6
    stop: str = ""  # tokens that begin with it end a response, such as a line break behind worked examples; "": none
    pool: Literal["sft", "ppo"] = "sft"  # whose prompts are answered; the evaluation's are never seen
    iterations: int = Field(default=200, ge=1)  # batches of fresh responses, and updates
    batch_size: int = Field(default=64, ge=1)  # responses per update
    valid_prompts: int = Field(default=64, ge=1)  # on whose responses the divergence is measured, of those there are
    lr: float = Field(default=1e-5, gt=0)
    warmup_iterations: int = Field(default=10, ge=0)  # linear from warmup_start, then constant; 0: none
    warmup_start: float = Field(default=0.1, ge=0, le=1)  # share of the peak at which the warm-up begins
    weight_decay: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=256, ge=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    lora_rank: LoraRank = 0  # low-rank adapters on every linear module; 0: all weights train
    lora_alpha: LoraAlpha = None  # null: 2 · lora_rank
    base_precision: BasePrecision = "full"  # of the weights under adapters: full, fp32; nf4, 4 bits (QLoRA)
    activation_checkpointing: bool = False  # recompute layers in the backward pass: less memory, a third more time
    max_tokens: int = Field(default=16384, ge=1)  # per forward pass, prefix included; more memory, same result
    precision: Precision = "auto"

    @model_validator(mode="after")
    def _one_prefix(self) -> Self:
        if bool(self.prefix) == bool(self.rules):
            raise ValueError("give either prefix (a text) or rules (a name), one of the two")
        return self


class Pairs(NamedTuple):
    """The same responses behind the prompts alone, and behind prefix and prompts."""

    rows: Rows
    prefixed: Rows

    def select(self, index: torch.Tensor) -> Self:
        return type(self)(self.rows.select(index), self.prefixed.select(index))


Respond = Callable[[Sequence[int], int], Pairs]  # prompt indices, number of the first response


def end_tokens(tokenizer: PreTrainedTokenizerBase, stop: str) -> torch.Tensor:
    """The tokens that end a response (E,): the end token, and behind it those that begin with `stop`.

    Raises:
        InputError: no token begins so.
    """
    end = end_id(tokenizer)
    if not stop:
        return torch.tensor([end])
    spelled = tokenizer.batch_decode([[id] for id in range(len(tokenizer))])
    others = [id for id, text in enumerate(spelled) if text.startswith(stop) and id != end]
    if not others:
        raise InputError(f"distil.stop is {stop!r}, and no token of the model's begins so; leave it out, or change it")
    return torch.tensor([end, *others])


def prompted_by(teacher: Sampler, tokens: Sequence[list[int]], encoder: Encoder, prefix: str, seed: int) -> Respond:
    """One response of the prompted model to each prompt (token ids); its number decides its draws."""
    end, pad = encoder.end, pad_id(encoder.tokenizer)
    behind = with_prefix(tokens, prefix, encoder)

    def respond(index: Sequence[int], first: int) -> Pairs:
        sampled = teacher([behind[i] for i in index], [(seed << 32) + first + n for n in range(len(index))])
        said = [
            response + [end] * finished
            for response, finished in zip(sampled.tokens, sampled.finished.tolist(), strict=True)
        ]
        found = (
            to_rows([Encoded(asked[i], response) for i, response in zip(index, said, strict=True)], pad)
            for asked in (tokens, behind)
        )
        return Pairs(*(rows.to(sampled.rows.tokens.device) for rows in found))

    return respond


def micro_batches(pairs: Pairs, max_tokens: int) -> list[Pairs]:
    """Responses in parts of like length within max_tokens, by what the prompted model reads."""
    return [pairs.select(index) for index in by_length(pairs.prefixed.length, max_tokens)]


def update(policy: Policy, teacher: Policy, pairs: Pairs, ends: torch.Tensor, config: DistilConfig) -> dict[str, float]:
    """Accumulate the gradient of the mean divergence over response tokens; returns that mean."""
    total = pairs.rows.response_length.sum()

    def mean_kl(part: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(policy.device, config.precision):
            kl = token_kl(policy, part.rows, teacher, part.prefixed, ends)
        loss = masked_mean(kl, part.rows.mask, total)
        return loss, loss.detach()

    return {"loss": float(torch.stack(accumulate(policy, mean_kl, micro_batches(pairs, config.max_tokens))).sum())}


def response_kl(policy: Policy, teacher: Policy, pairs: Pairs, ends: torch.Tensor, config: DistilConfig) -> float:
    """KL from the prompted model in nats per response: the mean over responses of the sum over their tokens."""

    def sum_of(part: Pairs) -> float:
        with autocast(policy.device, config.precision):
            return float(token_kl(policy, part.rows, teacher, part.prefixed, ends).sum())

    return sum(in_order(policy, sum_of, micro_batches(pairs, config.max_tokens))) / len(pairs.rows.length)


def train(
    config: DistilConfig,
    policy: Policy,
    teacher: Policy,
    num_prompts: int,
    respond: Respond,
    valid: Pairs | None,
    ends: torch.Tensor,
    run: Run,
) -> None:
    """Teach the policy in place; `teacher` stays. The divergence on `valid` is logged CHECKS times."""
    optimizer = adam(policy.parameters(), config.lr, config.weight_decay)
    done, _ = run.restore(policy=policy, optimizer=optimizer)
    check_every = -(-config.iterations // CHECKS)
    for iteration in run.track(range(done, config.iterations), config.iterations, run.folder.name):
        began = time.monotonic()
        lr = config.lr * linear_warmup(iteration, config.warmup_iterations, config.warmup_start)
        set_lr(optimizer, lr)
        metrics: dict[str, float] = {}
        if valid is not None and iteration % check_every == 0:
            metrics["valid_kl"] = response_kl(policy, teacher, valid, ends, config)
        # 1. the prompted model answers
        first = iteration * config.batch_size
        pairs = respond(prompt_order(num_prompts, first, config.batch_size, run.seed), first)
        # 2. one update towards its distribution at every token
        metrics |= update(policy, teacher, pairs, ends, config)
        metrics["gradient_norm"] = float(torch.nn.utils.clip_grad_norm_(policy.parameters(), config.max_grad_norm))
        run.check_finite(iteration, **metrics)
        optimizer.step()
        optimizer.zero_grad()
        # 3. log, save
        seconds, tokens = time.monotonic() - began, int(pairs.prefixed.length.sum())
        metrics |= {"lr": lr, "length": float(pairs.rows.response_length.float().mean())}
        run.log(iteration, **metrics, seconds=seconds, tokens_per_second=tokens / seconds)
        run.save_if_due(iteration + 1, policy=policy, optimizer=optimizer)


def prefix_of(config: DistilConfig, rules: RuleBook | None, format: PromptFormat) -> str:
    """The prefix itself, or the rules (those that `config.rules` names) with their examples in the format."""
    return config.prefix if rules is None else written(rules, format, config.shots)


def main(
    config: DistilConfig,
    run: Run,
    model: Path | str,
    prompts: Path,
    format: PromptFormat,
    rules: RuleBook | None = None,
) -> None:
    """Read the model and the prompts, teach it what it says behind the prefix, write `model/`.

    `rules`: see `prefix_of`.

    Raises:
        InputError: no training prompt fits, or prefix, prompt and response do not fit the model's context.
    """
    prefix = prefix_of(config, rules, format)
    policy, tokenizer = load_policy(model, config.base_precision)
    teacher = load_policy(model)[0].requires_grad_(False)
    encoder, snapshot = Encoder(tokenizer, format), read_snapshot(prompts)
    train_on, validate_on = (encoder.prompts(snapshot.prompts_of(split))[1] for split in ("train", "valid"))
    if not train_on:
        raise InputError(f"{prompts}: no training prompt within format.max_prompt_tokens ({format.max_prompt_tokens})")
    longest = max(map(len, with_prefix([*train_on, *validate_on], prefix, encoder)))
    if longest + config.max_new_tokens > context_length(teacher.decoder):
        raise InputError(
            f"distil.prefix: with it, the longest prompt and {config.max_new_tokens} new tokens come to "
            f"{longest + config.max_new_tokens}, above the model's context of {context_length(teacher.decoder)}; "
            "shorten the prefix (fewer shots of rules), or lower max_new_tokens"
        )
    ends = end_tokens(tokenizer, config.stop).to(policy.device)
    sampler = Sampler(teacher.decoder, tokenizer, config.max_new_tokens, precision=config.precision)
    sampler.ends |= set(ends.tolist())
    respond = prompted_by(sampler, train_on, encoder, prefix, run.seed)
    valid = None
    if chosen := validate_on[: config.valid_prompts]:
        valid = prompted_by(sampler, chosen, encoder, prefix, run.seed + 1)(range(len(chosen)), 0)
    prepare(policy.decoder, config, run.seed)
    train(config, policy, teacher, len(train_on), respond, valid, ends, run)
    save_policy(run.folder / "model", policy, tokenizer, run.manifest["parents"])
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    valid_kl = None if valid is None else response_kl(policy, teacher, valid, ends, config)
    run.finish(num_prompts=len(train_on), valid_kl=valid_kl)
