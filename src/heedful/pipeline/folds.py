"""Reward models that some labelers had no part in: k-fold cross-validation over groups of labelers.

InstructGPT (arXiv 2203.02155), section 4.1 and appendix E.2: labelers are dealt into five groups, a reward model is
trained on the rankings of every four, and asked about the fifth. What it loses on people it never learned from is how
far it fits its own labelers.
"""

from pathlib import Path

from pydantic import Field

from heedful.config import Config, InputError
from heedful.evaluate.statistics import kfold_groups
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.types import Labeler


class FoldsConfig(Config):
    """Into how many groups the training labelers are dealt."""

    num_folds: int = Field(ge=2)


def deal(config: FoldsConfig, run: Run, rankings: Path) -> None:
    """A snapshot per fold, `fold-1` and on: the training labelers' rankings without that fold's labelers.

    The results name each fold's labelers. Folds hold whole labelers and about equally many rankings.

    Raises:
        InputError: fewer training labelers have ranked than there are folds.
    """
    data = read_snapshot(rankings)
    labelers = data.labeler_by_id()
    ours = [ranking for ranking in data.rankings if labelers[ranking.labeler].group == "train"]
    who = sorted({ranking.labeler for ranking in ours})
    if len(who) < config.num_folds:
        raise InputError(
            f"reward_model_folds is {config.num_folds}, but {len(who)} training labelers have ranked; lower it"
        )
    numbers = kfold_groups([ranking.labeler for ranking in ours], config.num_folds, run.seed)
    fold_of = {ranking.labeler: int(fold) for ranking, fold in zip(ours, numbers, strict=True)}
    for fold in range(config.num_folds):
        kept = only(data, [labelers[id] for id in who if fold_of[id] != fold])
        write_snapshot(run.folder / f"fold-{fold + 1}", kept)
    groups = [[id for id in who if fold_of[id] == fold] for fold in range(config.num_folds)]
    run.finish(num_folds=config.num_folds, folds=groups)


def only(data: Snapshot, labelers: list[Labeler]) -> Snapshot:
    """The rankings of these labelers alone, with what they speak of, their marks of it, and demonstrations of it."""
    ids = {labeler.id for labeler in labelers}
    rankings = tuple(ranking for ranking in data.rankings if ranking.labeler in ids)
    asked = {ranking.prompt_id for ranking in rankings}
    shown = {id for ranking in rankings for id in ranking.responses}
    return Snapshot(
        prompts=tuple(prompt for prompt in data.prompts if prompt.id in asked),
        responses=tuple(response for response in data.responses if response.id in shown),
        labelers=tuple(labelers),
        demonstrations=tuple(d for d in data.demonstrations if d.prompt_id in asked),
        rankings=rankings,
        ratings=tuple(rating for rating in data.ratings if rating.labeler in ids and rating.response_id in shown),
    )
