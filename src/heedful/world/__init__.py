"""The embedded world: a small town with an exact truth, its text, its prompts, and a rater that knows every answer.

    world = World(seed=0)
    world.documents(2_000_000, "train"); world.prompts(800, "train", pool="rm"); world.rate(prompt, text)

A given version and seed always give the same town; WORLD_VERSION grows whenever any output changes, and a test holds
WORLD_HASH, the hash of a sample of the output, to it. docs/world.md tells what is where.
Later growth (a second language, code-like tasks) adds categories, builders and page writers.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

from heedful.config import InputError
from heedful.types import Demonstration, Document, Prompt, Source, Split
from heedful.world import chinese, classic, qualitative, rater, templates
from heedful.world.classic import TASKS, Item, answered, metric_of, neutral
from heedful.world.comparisons import Compared, compare
from heedful.world.completions import make_completions, sent_to
from heedful.world.demonstrate import answer, spoil
from heedful.world.documents import make_documents, train_request
from heedful.world.grammar import OPENINGS, PATTERNS
from heedful.world.principles import BOAST, boasting, compare_by_principles, fulfilment
from heedful.world.principles import Comparison as ByPrinciple
from heedful.world.prompts import HARM_SHARE, USE_CASES, check_disjoint, make_prompts, split_of
from heedful.world.qualitative import KINDS, Assessed
from heedful.world.rater import EVALUATION_WEIGHTS, TRAIN_WEIGHTS, GoldRating, likert, weighted
from heedful.world.town import Town, generator
from heedful.world.words import CATEGORIES, CATEGORY_OF, LINE, PAIR_END

__all__ = [
    "BOAST",
    "EVALUATION_WEIGHTS",
    "KINDS",
    "LINE",
    "PAIR_END",
    "TASKS",
    "TRAIN_WEIGHTS",
    "USE_CASES",
    "WORLD_HASH",
    "WORLD_VERSION",
    "Assessed",
    "Compared",
    "GoldRating",
    "Item",
    "World",
    "answered",
    "check_disjoint",
    "likert",
    "metric_of",
    "neutral",
    "sent_to",
    "split_of",
    "weighted",
]

WORLD_VERSION = 5
WORLD_HASH = "322f240944cb4952"  # of a sample of what this version makes: tests/world/test_version.py

# What frames, titles and constraints say beyond the patterns' words.
REQUEST_WORDS = """
    : ? write tell me story make up need my class book needs text page describe help invite which who where when how
    many rest live own have job want colour list name things animals places foods jobs names animal thing buy see find
    eat should again in place change short time happy sad must if here did lose asks say insult use sentence sentences
    mention word start full be take can an did do or sum give
"""


class World:
    """One town and everything made from it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.town = Town(seed)
        self._liked = rater.taste(seed)

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every word any text of this world can hold, in a fixed order; the line break is one of them."""
        words = {word for patterns in PATTERNS.values() for pattern in patterns for word in pattern.split()}
        words |= {word for opening in OPENINGS for word in opening.split()} | set(REQUEST_WORDS.split()) | {","}
        return [LINE, *CATEGORY_OF, *sorted(words - CATEGORIES.keys() - CATEGORY_OF.keys())]

    @cached_property
    def wide_vocabulary(self) -> list[str]:
        """The vocabulary, and behind it what classic tasks, programs and Chinese say besides."""
        more = dict.fromkeys([*templates.vocabulary(), *chinese.vocabulary()])
        return [*self.vocabulary, *(word for word in more if word not in set(self.vocabulary))]

    def documents(self, num_tokens: int, split: Split = "train", classic_share: float = 0.0) -> list[Document]:
        """Pretraining pages of about `num_tokens` words (end tokens counted); each split has draws of its own.

        `classic_share` of the words stand on pages of classic tasks, programs and Chinese (`wide_vocabulary`).
        """
        plain = round(num_tokens * (1 - classic_share))
        pages = make_documents(generator(self.seed, "documents", split), self.town, plain, split)
        return pages + classic.make_pages(self.seed, self.town, num_tokens - plain, split)

    def classic(self, task: str, num: int, split: Split = "test") -> list[Item]:
        """`num` items of a classic task (`classic.TASKS`); a longer list starts with the shorter one."""
        rng = generator(self.seed, "classic", task, split)
        return [classic.draw(rng, self.town, task, split) for _ in range(num)]

    def multitask(self, style: str, num: int, split: Split = "train") -> tuple[list[Prompt], list[Demonstration]]:
        """`num` classic items as requests with their answers, in the manner of "flan" or "t0"."""
        return templates.make_examples(self.seed, self.town, num, split, style)

    def qualitative(self, num: int) -> list[Prompt]:
        """`num` prompts of each kind of `qualitative.KINDS`; `assess` marks their answers."""
        return qualitative.make_suite(self.seed, self.town, num)

    def assess(self, prompt: Prompt, response: str) -> Assessed:
        """What the qualitative suite says of an answer to one of its prompts."""
        return qualitative.assess(self.town, self._liked, prompt, response)

    def prompts(
        self,
        num: int,
        split: Split = "train",
        pool: str = "rm",
        source: Source = "customer",
        harm_share: float = HARM_SHARE,
    ) -> list[Prompt]:
        """`num` prompts of one split. Each pool ("sft", "rm", "ppo", "eval", "judge") has users of its own.

        A longer list starts with the shorter one. `harm_share` is the share of requests for harm.
        """
        if num < 0 or not 0 <= harm_share <= 1:
            raise InputError(
                f"world: {num} prompts with harm_share {harm_share}: neither may be negative, nor the share above 1"
            )
        return make_prompts(self.seed, self.town, num, split, pool, source, harm_share)

    def completions(self, num: int, split: Split = "test", pool: str = "eval") -> list[Prompt]:
        """`num` prompts as people write them to a base model: texts to be gone on with. `sent_to` tells them apart."""
        return make_completions(self.seed, self.town, num, split, pool)

    def demonstrate(self, prompt: Prompt, index: int = 0, flaw_rate: float = 0.0, boasts: float = 0.0) -> str:
        """A labeler's answer; with probability `flaw_rate` one that is spoilt, with probability `boasts` one that also
        praises whoever wrote it. `index` tells labelers apart."""
        rng = generator(self.seed, "demonstration", prompt.id, index)
        write = spoil if rng.random() < flaw_rate else answer
        text = write(rng, self.town, prompt.task, prompt.task["constraints"])
        return boasting(generator(self.seed, "boast", prompt.id, index), text, boasts)

    def comparisons(
        self,
        num_prompts: int,
        split: Split = "train",
        num_answers: int = 4,
        given: Mapping[str, Sequence[str]] | None = None,
    ) -> Compared:
        """Answers to prompts of users of their own ("judge"), compared and marked by people.

        `given`: different answers by their prompt's id, such as a policy's; else none is a model's.
        """
        prompts = self.prompts(num_prompts, split, pool="judge")

        def utility(prompt: Prompt, text: str) -> float:
            return self.rate(prompt, text).utility

        return compare(self.seed, prompts, num_answers, self.demonstrate, utility, given)

    def fulfilment(self, prompt: Prompt, text: str) -> dict[str, float]:
        """How far a text keeps to each of the town's principles, exactly: see `principles.fulfilment`."""
        return fulfilment(self.rate(prompt, text), text)

    def comparisons_by_principles(
        self, num_prompts: int, split: Split = "train", num_answers: int = 4
    ) -> list[ByPrinciple]:
        """Answers as those of `comparisons`, compared by people who look at one principle alone."""
        prompts = self.prompts(num_prompts, split, pool="judge")
        return compare_by_principles(self.seed, prompts, num_answers, self.demonstrate, self.fulfilment)

    def few_shot_prefixes(self, num: int = 8) -> list[str]:
        """Texts of worked pairs; one of them before a prompt turns the base model into an assistant.

        Write: prefix + prompt + " " + LINE. The answer ends at the next LINE.
        """
        prefixes = []
        for i in range(num):
            rng = generator(self.seed, "prefix", i)
            pairs: list[str] = []
            for case in ("generation", *rng.sample(list(USE_CASES), len(USE_CASES))):
                text, truth = train_request(rng, self.town, case)
                pair = f"{text} {LINE} {answer(rng, self.town, truth, truth['constraints'])}"
                if sum(len(p.split(" ")) + 2 for p in [*pairs, pair]) <= 100:
                    pairs.append(pair)
            prefixes.append("".join(pair + PAIR_END for pair in pairs))
        return prefixes

    def rate(self, prompt: Prompt, response: str) -> GoldRating:
        """The exact rating of any text as an answer to one of this world's prompts."""
        if "type" not in prompt.task:
            raise InputError(f"prompt {prompt.id} carries no truth of the world, so the gold rater cannot judge it")
        return rater.rate(self.town, self._liked, prompt, response)
