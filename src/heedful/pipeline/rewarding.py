"""A round's reward models: trained on all rankings so far, then asked which prefix and which SFT epoch to take."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.config import Config
from heedful.pipeline import baselines, principle_steps
from heedful.pipeline.folds import FoldsConfig, deal
from heedful.stages import reward_model

if TYPE_CHECKING:
    from heedful.pipeline.loop import Loop


def rewarding(loop: "Loop", round: int) -> None:
    """The reward model and the further ones, side by side; the first chooses a prefix and an epoch; all give scores."""
    recipe = loop.recipe
    if recipe.reward_model is None:
        return
    rankings = loop.round_folder(round) / "rankings" / "snapshot"
    inputs: dict[str, Any] = {
        "model": loop.start() if recipe.reward_model.init == "pretrained" else loop.newest_policy(1),
        "rankings": rankings,
        "demonstrations": loop.folder / "demonstrations" / "snapshot" if recipe.sft else None,
        "format": recipe.format,
    }
    labels = principle_steps.labelling(loop, round) if recipe.principles else None
    models = {"reward_model": recipe.reward_model}
    models |= {f"further/{name}": config for name, config in recipe.further_reward_models.items()}
    training = []
    for name, config in models.items():
        read = inputs if config.guideline is None else inputs | principled(loop, labels)
        training.append(loop.job(f"round-{round}/{name}", "reward_model", reward_model.main, config, read))
    loop.workers.run(training + (principle_steps.decoding(loop, round, labels) if labels else []))
    jobs = [loop.scoring(f"round-{round}/scores", loop.reward_model(round), rankings)]
    for name, config in recipe.further_reward_models.items():
        if config.guideline is None:
            jobs.append(loop.scoring(f"round-{round}/scores-{name}", loop.reward_model(round, name), rankings))
    if labels:
        jobs.append(principle_steps.measuring(loop, round, labels))
    if recipe.rankings.policy in recipe.sft:
        jobs.insert(0, loop.choose_epoch(round))
    if recipe.evaluate.prompted and round == recipe.rounds:
        jobs.insert(0, loop.choose_prefix(round))  # the longest first, beside all others
    if round == recipe.rounds:
        jobs += baselines.choosing(loop, round)
    loop.workers.run(jobs)
    if recipe.reward_model_folds and round == recipe.rounds:
        cross_validate(loop, round, recipe.reward_model, inputs)


def principled(loop: "Loop", labels: Path | None) -> dict[str, Any]:
    """What a reward model with a guideline reads instead: labels by principles, and where it begins."""
    settings = loop.recipe.principles
    assert labels is not None and settings is not None
    found: dict[str, Any] = {"rankings": labels, "demonstrations": None}
    if settings.from_judge:
        found["model"] = principle_steps.scorer(loop)
    if settings.preference:
        found["model"] = loop.folder / "principles" / "preference" / "model"
    return found


def cross_validate(loop: "Loop", round: int, config: Config, inputs: Mapping[str, Any]) -> None:
    """A reward model without each group of labelers, and its scores of held-out prompts (section 4.1)."""
    place, rankings = f"round-{round}/folds", inputs["rankings"]
    dealing = FoldsConfig(num_folds=loop.recipe.reward_model_folds)
    loop.workers.run([loop.job(place, "folds", deal, dealing, {"rankings": rankings})])
    dealt = {n: loop.folder / place / f"fold-{n}" for n in range(1, dealing.num_folds + 1)}
    jobs = [
        loop.job(f"{place}/model-{n}", "reward_model", reward_model.main, config, {**inputs, "rankings": fold})
        for n, fold in dealt.items()
    ]
    loop.workers.run(jobs)
    models = {n: loop.folder / place / f"model-{n}" / "model" for n in dealt}
    loop.workers.run([loop.scoring(f"{place}/scores-{n}", model, rankings) for n, model in models.items()])
