"""Jobs that sample from models and measure them; each reads model folders and snapshots, and writes a run folder."""

import random
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field

from heedful.batch import Rows
from heedful.config import Config, InputError
from heedful.engine.sample import Sampled, Sampler, mean_language_loss, score_rows
from heedful.evaluate.diversity import distinct_n
from heedful.evaluate.policy import response_kl
from heedful.losses.best_of_n import best_of_n_kl
from heedful.models.checkpoint import load_policy, load_reward_model
from heedful.models.heads import Policy
from heedful.models.load import context_length
from heedful.models.optimizer import Precision
from heedful.pipeline.recipe import RankingsConfig
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.text.collate import Encoded, Encoder, texts, to_rows
from heedful.text.format import PromptFormat
from heedful.text.prefix import with_prefix
from heedful.text.tokenizer import fingerprint, pad_id
from heedful.types import Prompt, Response


class SampleConfig(Config):
    """K responses to each prompt, K drawn evenly from min_k … max_k."""

    min_k: int = Field(ge=1)
    max_k: int = Field(le=64)
    temperature: float = Field(gt=0)
    max_new_tokens: int = Field(ge=1)
    model: str  # the name the responses carry


def sampling_of(wanted: RankingsConfig, model: str) -> SampleConfig:
    """How `model`'s responses are drawn where they are to be ranked."""
    return SampleConfig(
        min_k=wanted.min_k,
        max_k=wanted.max_k,
        temperature=wanted.temperature,
        max_new_tokens=wanted.max_new_tokens,
        model=model,
    )


class MeasureConfig(Config):
    """One response to each prompt (or the best of n by the reward model), and what can be measured of them."""

    name: str
    temperature: float = Field(gt=0)
    max_new_tokens: int = Field(ge=1)
    best_of: int = Field(default=1, ge=1)
    prefix: str = ""  # few-shot prefix before every prompt
    stop: tuple[str, ...] = ()  # texts that end a response, besides the end token
    window: int = 256
    precision: Precision = "auto"
    max_tokens: int = 8192


def to_responses(prompts: Sequence[Prompt], sampled: Sampled, model: str, tokenizer: str) -> list[Response]:
    """Records of sampled responses, one prompt per row; empty ones included."""
    return [
        Response(
            id=f"{model}/{prompt.id}/{n}",
            prompt_id=prompt.id,
            text=text,
            model=model,
            finished=bool(finished),
            tokens=tuple(tokens),
            tokenizer=tokenizer,
        )
        for n, (prompt, text, tokens, finished) in enumerate(
            zip(prompts, sampled.text, sampled.tokens, sampled.finished, strict=True)
        )
    ]


def fitting(encoder: Encoder, prompts: Sequence[Prompt], where: Path) -> tuple[list[Prompt], list[list[int]]]:
    """The prompts that fit, and their tokens.

    Raises:
        InputError: none does.
    """
    kept, tokens = encoder.prompts(prompts)
    if not kept:
        limit = encoder.format.max_prompt_tokens
        raise InputError(
            f"{where}: none of {len(prompts)} prompts to answer is within format.max_prompt_tokens ({limit}); "
            "raise it, or give this pool prompts of validation users"
        )
    return kept, tokens


def sample(config: SampleConfig, run: Run, policy: Path, prompts: Path, format: PromptFormat) -> None:
    """Sample responses for ranking; empty responses and repeats within a prompt are dropped and counted.

    A prompt left with fewer than two different responses cannot be ranked and is dropped, counted too.
    """
    model, tokenizer = load_policy(policy)
    encoder = Encoder(tokenizer, format)
    kept, tokens = fitting(encoder, read_snapshot(prompts).prompts, prompts)
    draw = random.Random(f"{run.seed} {config.model}")
    number = [draw.randint(config.min_k, config.max_k) for _ in kept]
    seeds = [draw.getrandbits(62) for _ in kept]
    sampled = Sampler(model.decoder, tokenizer, config.max_new_tokens, config.temperature)(tokens, seeds, number)
    asked = [prompt for prompt, k in zip(kept, number, strict=True) for _ in range(k)]
    chosen: dict[str, dict[str, Response]] = {prompt.id: {} for prompt in kept}
    for response in to_responses(asked, sampled, config.model, fingerprint(tokenizer)):
        if not response.text.strip():
            run.count("empty_response")
        elif response.text in chosen[response.prompt_id]:
            run.count("response_repeated")
        else:
            chosen[response.prompt_id][response.text] = response
    rankable = {id: list(texts.values()) for id, texts in chosen.items() if len(texts) >= 2}
    run.count("prompt_with_one_response", len(chosen) - len(rankable))
    for reason, count in encoder.dropped.items():
        run.count(reason, count)
    responses = [response for group in rankable.values() for response in group]
    write_snapshot(
        run.folder / "responses",
        Snapshot(prompts=tuple(p for p in kept if p.id in rankable), responses=tuple(responses), dropped=run.counts),
    )
    run.finish(num_prompts=len(rankable), num_responses=len(responses))


def measure(
    config: MeasureConfig,
    run: Run,
    policy: Path,
    reference: Path,
    reward_model: Path | None,
    prompts: Path,
    documents: Path | None,
    format: PromptFormat,
) -> None:
    """Sample one response per prompt; KL from the reference, scores, diversity, held-out language loss."""
    model, tokenizer = load_policy(policy)
    encoder = Encoder(tokenizer, format)
    kept, tokens = fitting(encoder, read_snapshot(prompts).prompts, prompts)
    asked = with_prefix(tokens, config.prefix, encoder) if config.prefix else tokens
    seeds = [random.Random(f"{run.seed} {prompt.id}").getrandbits(62) for prompt in kept]
    sampler = Sampler(model.decoder, tokenizer, config.max_new_tokens, config.temperature, config.stop)
    sampled = sampler(asked, seeds, [config.best_of] * len(kept))
    results: dict[str, float | None] = {}
    results["sampled_per_answer"] = float(sampled.rows.response_length.sum() / len(kept))
    scored = None
    if reward_model is not None:
        rows = without_prefix(tokens, sampled, encoder) if config.prefix else sampled.rows
        scored = score_rows(load_reward_model(reward_model)[0], rows, config.max_tokens, config.precision)
    if config.best_of > 1 and scored is not None:
        best = scored.reshape(-1, config.best_of).argmax(1).cpu() + torch.arange(len(kept)) * config.best_of
        sampled, scored = pick(sampled, best), scored[best]
    results["score"] = None if scored is None else float(scored.mean())
    ref_policy, _ = load_policy(reference)
    kl = response_kl(model, ref_policy, sampled.rows, config.temperature, config.max_tokens, config.precision)
    results["kl"] = None if config.prefix or config.best_of > 1 else float(kl.mean())
    results |= {"kl_bound": float(best_of_n_kl(config.best_of))} if config.best_of > 1 and not config.prefix else {}
    results["distinct_2"] = distinct_n(sampled.tokens)
    results["length"] = float(sampled.rows.response_length.float().mean())
    results["unfinished"] = float((~sampled.finished).float().mean())
    results["lm_loss"] = heldout_loss(model, documents, encoder, config)
    for reason, count in encoder.dropped.items():
        run.count(reason, count)
    responses = to_responses(kept, sampled, config.name, fingerprint(tokenizer))
    for n, response in enumerate(responses):
        run.sample(prompt_id=response.prompt_id, text=response.text, score=None if scored is None else float(scored[n]))
    write_snapshot(run.folder / "responses", Snapshot(prompts=tuple(kept), responses=tuple(responses)))
    run.finish(**results)


def heldout_loss(model: Policy, documents: Path | None, encoder: Encoder, config: MeasureConfig) -> float | None:
    """Nats per held-out pretraining token, however little of it there is; None where there is none."""
    if documents is None:
        return None
    width = min(config.window, context_length(model.decoder))
    data = texts(read_snapshot(documents).documents_of("valid"), encoder, width, rest=True)
    if not len(data.length):
        return None
    return mean_language_loss(model, data, config.max_tokens, config.precision)


def pick(sampled: Sampled, index: torch.Tensor) -> Sampled:
    """Some of the sampled responses."""
    chosen = index.tolist()
    return Sampled(
        sampled.rows.select(index),
        [sampled.tokens[i] for i in chosen],
        [sampled.text[i] for i in chosen],
        sampled.finished[index],
        sampled.logprob[index],
    )


def without_prefix(tokens: Sequence[list[int]], sampled: Sampled, encoder: Encoder) -> Rows:
    """One response to each prompt as labelers and the reward model know them: the prompt alone before it."""
    ends = [[encoder.end] * finished for finished in sampled.finished.int().tolist()]
    items = zip(tokens, sampled.tokens, ends, strict=True)
    return to_rows([Encoded(prompt, response + end) for prompt, response, end in items], pad_id(encoder.tokenizer))


class ScoreConfig(Config):
    """Scoring every response of a snapshot with a reward model."""

    precision: Precision = "auto"
    max_tokens: int = 8192


def score_snapshot(config: ScoreConfig, run: Run, reward_model: Path, snapshot: Path, format: PromptFormat) -> None:
    """One line {response_id, score} per response of a validation or test prompt, in samples.jsonl."""
    model, tokenizer = load_reward_model(reward_model)
    encoder = Encoder(tokenizer, format, context_length(model.trunk))
    data = read_snapshot(snapshot)
    prompts = data.prompt_by_id()
    chosen = [r for r in data.responses if prompts[r.prompt_id].split != "train"]
    encoded = [(r, row) for r in chosen if (row := encoder.response(prompts[r.prompt_id], r)) is not None]
    if encoded:
        rows = to_rows([row for _, row in encoded], pad_id(tokenizer))
        score = score_rows(model, rows, config.max_tokens, config.precision).tolist()
        for (response, _), number in zip(encoded, score, strict=True):
            run.sample(response_id=response.id, score=number)
    for reason, count in encoder.dropped.items():
        run.count(reason, count)
    run.finish(num_responses=len(encoded))


class ChooseConfig(Config):
    """Choosing among candidates (epochs of a policy, few-shot prefixes) by mean reward-model score."""

    temperature: float = Field(gt=0)
    max_new_tokens: int = Field(ge=1)
    num_prompts: int = Field(default=100, ge=1)
    stop: tuple[str, ...] = ()  # texts that end a response behind a prefix, besides the end token
    precision: Precision = "auto"
    max_tokens: int = 8192


def choose(
    config: ChooseConfig,
    run: Run,
    policies: Sequence[Path],
    prefixes: Sequence[str],
    reward_model: Path,
    prompts: Path,
    format: PromptFormat,
) -> None:
    """Mean score of every policy with every prefix on validation prompts; the results name the best of both.

    Raises:
        InputError: no validation prompt fits.
    """
    scorer, _ = load_reward_model(reward_model)
    scores: list[list[float]] = []
    for policy in policies:
        model, tokenizer = load_policy(policy)
        encoder = Encoder(tokenizer, format)
        asked = read_snapshot(prompts).prompts_of("valid")[: config.num_prompts]
        kept, tokens = fitting(encoder, asked, prompts)
        seeds = [random.Random(f"{run.seed} {prompt.id}").getrandbits(62) for prompt in kept]
        scores.append([])
        for prefix in prefixes:
            stop = config.stop if prefix else ()
            sampler = Sampler(model.decoder, tokenizer, config.max_new_tokens, config.temperature, stop)
            sampled = sampler(with_prefix(tokens, prefix, encoder) if prefix else tokens, seeds)
            rows = without_prefix(tokens, sampled, encoder) if prefix else sampled.rows
            scores[-1].append(float(score_rows(scorer, rows, config.max_tokens, config.precision).mean()))
        dropped = encoder.dropped  # of one policy: the others are asked the same prompts
    for reason, number in dropped.items():
        run.count(reason, number)
    best = max((score, -i, -j) for i, row in enumerate(scores) for j, score in enumerate(row))
    run.finish(scores=scores, best_policy=-best[1], best_prefix=-best[2], num_prompts=len(kept))
