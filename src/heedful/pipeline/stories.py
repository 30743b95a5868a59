"""Ziegler et al.'s task: continue a story so that it reads as a happy one (arXiv 1909.08593, section 3.1).

Prompts are cut from a file of stories; labelers rank continuations by VADER's sentiment with noise.
"""

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from heedful.config import InputError
from heedful.feedback.sentiment import sentiment
from heedful.feedback.simulated import SimulatedLabeler
from heedful.pipeline.people import read_documents, with_validation
from heedful.pipeline.recipe import Recipe, StoriesConfig
from heedful.store.pools import Pool
from heedful.types import Demonstration, Document, Labeler, LabelerGroup, Prompt, Response, Split


class StoriesSource:
    """Prompts of each pool from stories of their own; every story is its own user."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.stories is not None
        self.recipe = recipe
        self.cut = recipe.stories
        self.stories, self.unfit = read_stories(Path(recipe.prompts), recipe.stories)
        self.dropped: dict[str, int] = {}
        self.warning = ""

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return None

    def shares(self) -> tuple[list[str], list[str], list[str], list[str]]:
        """The stories of evaluation, rankings and PPO, and those that no prompt is cut from.

        Raises:
            InputError: there are too few.
        """
        sizes = self.recipe.pools
        by_hash = sorted(self.stories, key=story_key)
        test, rest = by_hash[: self.cut.test_stories], by_hash[self.cut.test_stories :]
        random.Random(self.recipe.seed).shuffle(rest)
        if self.cut.evaluate_on == "valid":
            test, rest = rest[: sizes.evaluation], rest[sizes.evaluation :]
        ranked_stories, trained_stories = (
            -(-size // self.cut.prompts_per_story) for size in (sizes.reward_model, sizes.ppo)
        )
        wanted = ranked_stories + trained_stories
        if wanted > len(rest) or sizes.evaluation > len(test):
            raise InputError(
                f"{self.recipe.prompts}: {len(rest)} stories of over {self.cut.max_words} words, {wanted} are wanted; "
                f"{len(test)} for {sizes.evaluation} of evaluation; lower pools.*, raise stories.prompts_per_story or "
                "give more stories"
            )
        return test[: sizes.evaluation], rest[:ranked_stories], rest[ranked_stories:wanted], rest[wanted:]

    def prompts(self) -> dict[Pool, list[Prompt]]:
        tested, ranked, trained, _ = self.shares()
        self.dropped = self.unfit | {"stories not needed": len(self.stories) - len(tested) - len(ranked) - len(trained)}
        evaluation = self.cut_all(tested, "test", 1)
        split_at = round(0.8 * len(ranked)), round(0.85 * len(ranked))
        number = self.cut.prompts_per_story
        rankable = [
            *self.cut_all(ranked[split_at[1] :], "test", number),
            *self.cut_all(ranked[split_at[0] : split_at[1]], "valid", number),
            *self.cut_all(ranked[: split_at[0]], "train", number),
        ]
        ppo = self.cut_all(trained, "train", number)
        kept = unlike([*evaluation, *rankable, *ppo], len(evaluation))
        self.dropped["begins like a prompt of another split"] = len(evaluation) + len(rankable) + len(ppo) - len(kept)
        return {
            "sft": [],
            "reward_model": [prompt for prompt in rankable if prompt.id in kept],
            "ppo": [prompt for prompt in ppo if prompt.id in kept],
            "evaluation": evaluation,
        }

    def cut_all(self, stories: Sequence[str], split: Split, number: int) -> list[Prompt]:
        """The first words of each story, how many is drawn anew for each; further prompts begin at later sentences."""
        prompts = []
        for story in stories:
            key, words = story_key(story), story.split(" ")
            draw = random.Random(f"{self.recipe.seed} {key}")
            lengths = [draw.randint(self.cut.min_words, self.cut.max_words) for _ in range(number)]
            begins = later_sentences(words, self.cut.max_words)
            starts = [0, *draw.sample(begins, min(number - 1, len(begins)))]
            for n, (start, length) in enumerate(zip(starts, lengths, strict=False)):
                text, id = " ".join(words[start : start + length]), f"{key}-{n}" if n else key
                prompts.append(Prompt(id=id, text=text, user=key, use_case="generation", split=split))
        return prompts

    def documents(self) -> list[Document]:
        """Of the file of prompts itself the stories that no prompt is cut from, else the file's."""
        if self.recipe.documents != self.recipe.prompts:
            return read_documents(self.recipe.documents)
        return with_validation([Document(text=story) for story in self.shares()[3]])

    def demonstrations(self, prompts: Sequence[Prompt]) -> list[Demonstration]:
        return []

    def labelers(self, group: LabelerGroup) -> list[SimulatedLabeler]:
        settings = self.recipe.labelers
        if settings.judge == "people":
            return []
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


def unlike(prompts: Sequence[Prompt], fixed: int) -> set[str]:
    """The ids of the prompts of which none continues, or is continued by, an earlier one of another split.

    Stories begin alike ("Once upon a time there was a"), so two may give the same prompt. The first `fixed` stay.
    """
    beginnings: dict[str, set[Split]] = defaultdict(set)  # the splits of prompts that begin so, by whole words
    whole: dict[str, set[Split]] = defaultdict(set)
    kept = set()
    for place, prompt in enumerate(prompts):
        words = prompt.text.split(" ")
        own = [" ".join(words[:n]) for n in range(1, len(words) + 1)]
        near = beginnings[prompt.text].union(*(whole[text] for text in own)) - {prompt.split}
        if near and place >= fixed:
            continue
        kept.add(prompt.id)
        whole[prompt.text].add(prompt.split)
        for text in own:
            beginnings[text].add(prompt.split)
    return kept


def later_sentences(words: Sequence[str], room: int) -> list[int]:
    """Where sentences after the first begin with at least `room` words left."""
    ends = (n for n, word in enumerate(words) if word.rstrip("\"'”’").endswith((".", "!", "?")))
    return [n + 1 for n in ends if n + 1 + room <= len(words)]


def story_key(story: str) -> str:
    return "story-" + hashlib.sha256(story.encode()).hexdigest()[:16]


def read_stories(path: Path, config: StoriesConfig) -> tuple[list[str], dict[str, int]]:
    """The different stories long enough to be cut, with single spaces; and how many others there are, by reason.

    Raises:
        InputError: a missing or unreadable file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise InputError(f"prompts: {path}: no such file; name a text file of stories: --set prompts=FILE") from None
    except UnicodeDecodeError as error:
        raise InputError(f"prompts: {path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    stories = [" ".join(story.split()) for story in text.split(config.separator) if story.strip()]
    long = [story for story in stories if len(story.split(" ")) > config.max_words]
    different = list(dict.fromkeys(long))
    return different, {"stories too short": len(stories) - len(long), "stories repeated": len(long) - len(different)}
