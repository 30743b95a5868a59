"""Ziegler et al.'s task: continue a story so that it reads as a happy one (arXiv 1909.08593, section 3.1).

Prompts are cut from a file of stories; labelers rank continuations by VADER's sentiment with noise.
"""

import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from heedful.config import InputError
from heedful.feedback.sentiment import sentiment
from heedful.feedback.simulated import SimulatedLabeler
from heedful.pipeline.recipe import Recipe, StoriesConfig
from heedful.store.pools import Pool
from heedful.types import Demonstration, Document, Labeler, LabelerGroup, Prompt, Response, Split


class StoriesSource:
    """Prompts of each pool from stories of their own; every story is its own user."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.stories is not None
        self.recipe = recipe
        self.cut = recipe.stories
        self.stories = read_stories(Path(recipe.prompts), recipe.stories)

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return None

    def prompts(self) -> dict[Pool, list[Prompt]]:
        sizes = self.recipe.pools
        wanted: dict[Pool, int] = {"sft": 0, "reward_model": sizes.reward_model, "ppo": sizes.ppo}
        wanted["evaluation"] = sizes.evaluation
        if sum(wanted.values()) > len(self.stories):
            raise InputError(
                f"{self.recipe.prompts}: {len(self.stories)} stories of at least {self.cut.max_words} words "
                f"for {sum(wanted.values())} prompts; lower pools.* or give more stories"
            )
        order = list(self.stories)
        random.Random(self.recipe.seed).shuffle(order)
        found: dict[Pool, list[Prompt]] = {}
        for pool, number in wanted.items():
            taken, order = order[:number], order[number:]
            found[pool] = [self.prompt(story, pool, n / max(1, number)) for n, story in enumerate(taken)]
        return found

    def prompt(self, story: str, pool: Pool, place: float) -> Prompt:
        """The first words of a story; `place` in the pool decides the split, the last quarter of rankings held out."""
        key = hashlib.sha256(story.encode()).hexdigest()[:16]
        draw = random.Random(f"{self.recipe.seed} {key}")
        words = draw.randint(self.cut.min_words, self.cut.max_words)
        split: Split = "train"
        if pool == "evaluation":
            split = "test"
        elif pool == "reward_model" and place >= 0.75:
            split = "test" if place >= 0.8 else "valid"
        text = " ".join(story.split(" ")[:words])
        return Prompt(id=f"story-{key}", text=text, user=f"story-{key}", use_case="generation", split=split)

    def documents(self) -> list[Document]:
        return []

    def demonstrations(self, prompts: Sequence[Prompt]) -> list[Demonstration]:
        return []

    def labelers(self, group: LabelerGroup) -> list[SimulatedLabeler]:
        settings = self.recipe.labelers
        number = settings.train if group == "train" else settings.heldout
        return [
            SimulatedLabeler(Labeler(id=f"{group}-{n}", group=group, kind="simulated"), sentiment, settings.noise)
            for n in range(number)
        ]

    def calibrate(self, responses: Sequence[tuple[Prompt, Sequence[Response]]]) -> None:
        pass

    def prefixes(self) -> list[str]:
        return []

    def utility(self, prompt: Prompt, text: str) -> float | None:
        return sentiment(prompt, text)


def read_stories(path: Path, config: StoriesConfig) -> list[str]:
    """The different stories long enough to be cut, with single spaces.

    Raises:
        InputError: a missing or unreadable file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"prompts: {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"prompts: {path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    stories = [" ".join(story.split()) for story in text.split(config.separator)]
    return list(dict.fromkeys(story for story in stories if len(story.split(" ")) > config.max_words))
