"""What a policy keeps of its classic tasks, and how it fares on the qualitative suite: jobs on a model folder."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from pydantic import Field

from heedful.config import Config
from heedful.engine.sample import Sampler
from heedful.evaluate.classic import asked, chosen, generated, score
from heedful.evaluate.statistics import Estimate, clustered_proportion
from heedful.models.checkpoint import load_policy
from heedful.models.load import context_length
from heedful.pipeline.measure import fitting
from heedful.run import Run
from heedful.snapshot import Snapshot, write_snapshot
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.world import TASKS, World, metric_of


class ClassicConfig(Config):
    """Table 14 in small: every classic task without and behind worked examples."""

    num_items: int = Field(ge=1)  # of each task
    shots: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)


class QualitativeConfig(Config):
    """The qualitative suite, answered at temperature 0."""

    num_prompts: int = Field(ge=1)  # of each kind
    max_new_tokens: int = Field(ge=1)


class ExamplesConfig(Config):
    """Examples for a multitask fine-tune."""

    templates: str
    examples: int = Field(ge=1)


def make_examples(config: ExamplesConfig, run: Run) -> None:
    """Classic items as requests with their answers: a snapshot that `stages.sft` trains on. One in nine validates."""
    world = World(run.seed)
    prompts, demonstrations = world.multitask(config.templates, config.examples, "train")
    more = world.multitask(config.templates, max(1, config.examples // 8), "valid")
    write_snapshot(
        run.folder / "snapshot",
        Snapshot(prompts=(*prompts, *more[0]), demonstrations=(*demonstrations, *more[1])),
    )
    run.finish(num_examples=len(prompts))


def classic(config: ClassicConfig, run: Run, policy: Path) -> None:
    """Each task's score, zero- and few-shot; an item that does not fit the model's context is counted.

    A task of which less than half fits has no score.
    """
    model, tokenizer = load_policy(policy)
    world = World(run.seed)
    context = context_length(model.decoder)
    begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for task in TASKS:
        items = world.classic(task, config.num_items)
        shown = world.classic(task, config.shots, "train")
        results[task] = {}
        for name, shots in (("zero_shot", shown[:0]), ("few_shot", shown)):
            tokens = [begin + tokenizer(asked(item, shots), add_special_tokens=False)["input_ids"] for item in items]
            fit = [n for n, ids in enumerate(tokens) if len(ids) + config.max_new_tokens <= context]
            run.count(f"{task}_{name}_too_long", len(items) - len(fit))
            kept, prompts = [items[n] for n in fit], [tokens[n] for n in fit]
            if metric_of(task) == "accuracy":
                texts = chosen(model.decoder, tokenizer, prompts, kept)
            else:
                texts = generated(model.decoder, tokenizer, prompts, config.max_new_tokens)
            results[task][name] = told(score(task, texts, kept), len(kept), len(items))
            for item, text in zip(kept[:3], texts, strict=False):
                run.sample(task=task, shots=name, text=item.text, question=item.question, answer=text)
    run.finish(**results)


def told(found: Estimate, scored: int, num_items: int) -> dict[str, Any]:
    """The estimate as done.json holds it, beside what was left out; none where less than half was scored."""
    if 2 * scored < num_items:
        why = f"only {scored} of {num_items} items fit the model's context"
        found = Estimate(None, None, None, None, scored, 0, why)
    return {
        "mean": found.mean,
        "low": found.low,
        "high": found.high,
        "num": found.num,
        "num_clusters": found.num_clusters,
        "unscored": num_items - scored,
        "reason": found.reason,
    }


def qualitative(config: QualitativeConfig, run: Run, policy: Path, format: PromptFormat) -> None:
    """Each kind's mean mark and the share of plain mistakes; every answer stands in samples.jsonl.

    A kind of which less than half of the prompts fit has neither.
    """
    model, tokenizer = load_policy(policy)
    world = World(run.seed)
    encoder = Encoder(tokenizer, format)
    prompts = world.qualitative(config.num_prompts)
    kept, tokens = fitting(encoder, prompts, run.folder)
    sampled = Sampler(model.decoder, tokenizer, config.max_new_tokens, 0.0)(tokens, [0] * len(kept))
    marks: dict[str, list[float]] = defaultdict(list)
    mistakes: dict[str, list[float]] = defaultdict(list)
    for prompt, text in zip(kept, sampled.text, strict=True):
        found = world.assess(prompt, text)
        marks[prompt.use_case].append(found.task)
        mistakes[prompt.use_case].append(float(found.mistake))
        run.sample(kind=prompt.use_case, prompt=prompt.text, text=text, task=found.task, mistake=found.mistake)
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    asked_of = Counter(prompt.use_case for prompt in prompts)
    results = {
        kind: {
            name: told(clustered_proportion(values[kind], range(len(values[kind]))), len(values[kind]), number)
            for name, values in (("task", marks), ("mistake", mistakes))
        }
        for kind, number in asked_of.items()
    }
    run.finish(**results)
