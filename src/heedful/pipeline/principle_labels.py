"""Scores by principles made into what a reward model learns from: a snapshot of rankings under principles.

Nothing is asked here, so the same scores may be made into labels in any way, with any seed, as often as wished.

Command: heedful judge aggregate SCORED FOLDER --as paper
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from heedful.config import Config, InputError
from heedful.feedback.principles.aggregate import Aggregated, rankings_by_paper, rankings_by_released, rankings_by_sets
from heedful.pipeline.principle_scores import read_scores
from heedful.run import read_done
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.types import Labeler

# Settings that not every way heeds.
OF_WAY: dict[str, tuple[str, tuple[str, ...]]] = {
    "principles": ("how many are drawn", ("paper",)),
    "passes": ("labels of each pair", ("released", "paper")),
    "least_gap": ("who shares a rank", ("sets",)),
    "negated": ("how many rankings stand turned round too", ("sets",)),
}


class AggregateConfig(Config):
    """How labels are made of scores, see `feedback.principles.aggregate`."""

    way: Literal["paper", "released", "sets"] = "paper"  # the paper's, that of the code released with it, or ours
    principles: int = Field(default=3, ge=1)  # drawn for each label by the paper's way; SALMON: 3
    passes: int = Field(default=1, ge=1)  # labels of each pair; SALMON's released code: 4
    least_gap: float = Field(default=0.0, ge=0)  # of way sets, in nats: who is less behind the best of a rank shares it
    negated: float = Field(default=1.0, ge=0, le=1)  # of way sets: the share of rankings that stand turned round too
    seed: int = 0  # of principles, negations and noise; in a recipe the recipe's own

    @model_validator(mode="after")
    def _nothing_idle(self) -> Self:
        for key, (what, ways) in OF_WAY.items():
            if self.way not in ways and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} ({what}) does nothing where way is {self.way}, but where it is {ways[0]}")
        return self

    def labeler(self, scorer: str) -> str:
        """Whose name the rankings bear: that of who scored, and how labels came of it."""
        if self.way == "sets":
            how = f"each by itself, least gap {self.least_gap:g}, negated {self.negated:g}"
            return f"{scorer}, principles {how}, seed {self.seed}"
        how = f"by {self.principles}" if self.way == "paper" else "as released"
        return f"{scorer}, principles {how}, seed {self.seed}"


def aggregate(scored: Path, folder: Path, config: AggregateConfig) -> Snapshot:
    """Write the snapshot: prompts, responses, principles, rankings under them, and how often there was no label.

    Raises:
        InputError: no finished scores there, no label came of them, or another snapshot in the folder.
    """
    scores, items = read_scores(scored), read_snapshot(scored / "items")
    labeler = config.labeler(read_done(scored)["results"]["labeler"])
    if config.way == "paper":
        found = rankings_by_paper(scores, items.principles, labeler, config.seed, config.passes, config.principles)
    elif config.way == "sets":
        found = rankings_by_sets(scores, items.principles, labeler, config.seed, config.least_gap, config.negated)
    else:
        found = rankings_by_released(scores, items.principles, texts_of(items), labeler, config.seed, config.passes)
    if not found.rankings:
        why = ", ".join(f"{reason} {number:,}" for reason, number in found.left_out.items()) or "there are no scores"
        raise InputError(f"{scored}: no label came of it ({why}); score more pairs, or by principles with a weight")
    return write_snapshot(folder, _snapshot(items, found, labeler))


def texts_of(items: Snapshot) -> dict[str, str]:
    """The texts of prompts and responses, by id.

    Raises:
        InputError: a prompt and a response share an id.
    """
    prompts = {prompt.id: prompt.text for prompt in items.prompts}
    responses = {response.id: response.text for response in items.responses}
    if both := sorted(prompts.keys() & responses.keys()):
        raise InputError(f"{both[0]} is the id of a prompt and of a response; give them ids of their own")
    return prompts | responses


def _snapshot(items: Snapshot, found: Aggregated, labeler: str) -> Snapshot:
    prompts = {ranking.prompt_id for ranking in found.rankings}
    responses = {id for ranking in found.rankings for id in ranking.responses}
    return Snapshot(
        prompts=tuple(one for one in items.prompts if one.id in prompts),
        responses=tuple(one for one in items.responses if one.id in responses),
        labelers=(Labeler(id=labeler, kind="principles"),),
        principles=items.principles,
        principle_rankings=tuple(found.rankings),
        dropped=dict(found.left_out),
    )
