"""The embedded world as a source: its text, prompts in the paper's mix, demonstrations and calibrated labelers."""

import hashlib
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from heedful.feedback.simulated import (
    HELDOUT_AGREEMENT,
    TRAIN_AGREEMENT,
    SimulatedLabeler,
    calibrate_noise,
    world_labelers,
)
from heedful.pipeline.recipe import Recipe
from heedful.store.pools import Pool
from heedful.text.tokenizer import word_tokenizer
from heedful.types import Demonstration, Document, LabelerGroup, Prompt, Response, Source, Split
from heedful.world import World

# Each split's size as a share of the pool's, which counts training prompts.
SPLIT_SHARES: dict[Pool, dict[Split, float]] = {
    "sft": {"train": 1.0, "valid": 0.125},
    "reward_model": {"train": 1.0, "valid": 0.1, "test": 0.2},
    "ppo": {"train": 1.0},
}
POOL_NAME: dict[Pool, str] = {"sft": "sft", "reward_model": "rm", "ppo": "ppo", "evaluation": "eval"}


class WorldSource:
    """One town per seed."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.dropped: dict[str, int] = {}
        self.warning = ""
        self.world = World(recipe.seed)
        settings = recipe.labelers
        self.all_labelers: list[SimulatedLabeler] = []
        if settings.judge != "people":
            self.all_labelers = world_labelers(self.world, settings.train, settings.heldout, seed=recipe.seed)

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        wide = self.recipe.world.classic_share > 0
        return word_tokenizer(self.world.wide_vocabulary if wide else self.world.vocabulary)

    def prompts(self) -> dict[Pool, list[Prompt]]:
        sizes = self.recipe.pools
        found: dict[Pool, list[Prompt]] = {}
        for pool, shares in SPLIT_SHARES.items():
            source: Source = "labeler" if pool == "sft" else "customer"
            found[pool] = []
            for split, share in shares.items():
                number = round(getattr(sizes, pool) * share)
                found[pool] += self.world.prompts(number, split, POOL_NAME[pool], source)
        name = POOL_NAME["evaluation"]
        found["evaluation"] = self.world.prompts(sizes.evaluation, "test", name)
        found["evaluation"] += self.world.completions(sizes.completions, "test", name)
        return found

    def documents(self) -> list[Document]:
        tokens = self.recipe.world
        return [
            *self.world.documents(tokens.document_tokens, "train", tokens.classic_share),
            *self.world.documents(tokens.valid_document_tokens, "valid", tokens.classic_share),
        ]

    def demonstrations(self, prompts: Sequence[Prompt]) -> list[Demonstration]:
        labelers = self.labelers("train")
        written: list[Demonstration] = []
        for prompt in prompts if labelers else ():
            number = int(hashlib.sha256(prompt.id.encode()).hexdigest()[:8], 16) % len(labelers)
            settings = self.recipe.world
            text = self.world.demonstrate(prompt, number, settings.flawed_demonstrations, settings.boasting)
            labeler = labelers[number].labeler.id
            written.append(Demonstration(id=f"{prompt.id}-demo", prompt_id=prompt.id, text=text, labeler=labeler))
        return written

    def labelers(self, group: LabelerGroup) -> list[SimulatedLabeler]:
        return [labeler for labeler in self.all_labelers if labeler.labeler.group == group]

    def calibrate(self, responses: Sequence[tuple[Prompt, Sequence[Response]]]) -> None:
        """Noise such that each group of two or more agrees as the paper's did, on prompts such as it judges."""
        groups: list[tuple[LabelerGroup, Split, float]] = [
            ("train", "train", TRAIN_AGREEMENT),
            ("heldout", "test", HELDOUT_AGREEMENT),
        ]
        calibrated: list[SimulatedLabeler] = []
        for group, split, target in groups:
            labelers = self.labelers(group)
            judged = [item for item in responses if item[0].split == split] or responses
            sample = judged[:: max(1, len(judged) // self.recipe.world.calibration_prompts)]
            calibrated += calibrate_noise(labelers, sample, target) if len(labelers) > 1 else labelers
        self.all_labelers = calibrated

    def prefixes(self) -> list[str]:
        return self.world.few_shot_prefixes()

    def utility(self, prompt: Prompt, text: str) -> float | None:
        return self.world.rate(prompt, text).evaluation_utility
