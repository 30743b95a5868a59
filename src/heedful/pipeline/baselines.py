"""Steps beside the loop: multitask fine-tunes in the manner of FLAN and T0 (InstructGPT, section 3.5 and appendix C.5),
and what every policy keeps of classic tasks."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from heedful.pipeline.classic import (
    ClassicConfig,
    ExamplesConfig,
    QualitativeConfig,
    classic,
    make_examples,
    qualitative,
)
from heedful.pipeline.jobs import Job
from heedful.pipeline.reuse import finished
from heedful.stages import sft
from heedful.steps import best_rows

if TYPE_CHECKING:
    from heedful.pipeline.loop import Loop


def tuning(loop: "Loop") -> list[Job]:
    """A fine-tune on classic tasks for each multitask variant; its examples are made now."""
    recipe, jobs = loop.recipe, []
    for name, config in recipe.multitask.items():
        made = ExamplesConfig(templates=config.templates, examples=config.examples)
        loop.workers.run([loop.job(f"examples/{name}", "examples", make_examples, made, {})])
        inputs = {
            "model": loop.start(),
            "demonstrations": loop.folder / "examples" / name / "snapshot",
            "format": recipe.format,
            "documents": loop.documents(),
        }
        jobs.append(loop.job(name, "sft", sft.main, config, inputs))
    return jobs


def choosing(loop: "Loop", round: int) -> list[Job]:
    """The epoch of each multitask fine-tune whose validation responses score highest (appendix C.5)."""
    return [
        loop.choosing(
            f"round-{round}/choose_{name}",
            [sft.epoch_folder(loop.folder / name, epoch + 1) for epoch in range(config.epochs)],
            [""],
            round,
        )
        for name, config in loop.recipe.multitask.items()
    ]


def tuned(loop: "Loop", round: int) -> dict[str, Path]:
    """The multitask fine-tunes at the epoch that was chosen."""
    chosen = {name: finished(loop.round_folder(round) / f"choose_{name}") for name in loop.recipe.multitask}
    return {name: sft.epoch_folder(loop.folder / name, found["best_policy"] + 1) for name, found in chosen.items()}


def testing(loop: "Loop", policies: Mapping[str, Path]) -> list[Job]:
    """Classic tasks and the qualitative suite for every policy that is a model of its own, not a way to sample one."""
    wanted, jobs = loop.recipe.evaluate, []
    for name, policy in policies.items():
        if name not in own_models(loop, policies):
            continue
        if wanted.classic:
            asked = ClassicConfig(
                num_items=wanted.classic, shots=wanted.classic_shots, max_new_tokens=wanted.max_new_tokens
            )
            jobs.append(loop.job(f"classic/{name}", "classic", classic, asked, {"policy": policy}))
        if wanted.qualitative:
            suite = QualitativeConfig(num_prompts=wanted.qualitative, max_new_tokens=wanted.max_new_tokens)
            inputs = {"policy": policy, "format": loop.recipe.format}
            jobs.append(loop.job(f"qualitative/{name}", "qualitative", qualitative, suite, inputs))
    return jobs


def own_models(loop: "Loop", policies: Mapping[str, Path]) -> list[str]:
    recipe = loop.recipe
    ways = {f"{recipe.start_name}_prompted", *best_rows(recipe.evaluate.best_of)}
    return [name for name in policies if name not in ways]
