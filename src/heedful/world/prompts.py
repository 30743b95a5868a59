"""Prompts from many users: InstructGPT's mix of use cases (table 1), three kinds, and a split nothing leaks through.

A user's name decides the split (appendix A.2: by user, never by prompt). The entities a prompt names decide, by their
own hash, which split may use them; a user draws again until both agree. So no user, no set of entities and hence no
filled-in template stands in two splits.
"""

import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Any

from heedful.config import InputError
from heedful.types import Prompt, PromptKind, Source, Split
from heedful.world import tasks
from heedful.world.constraints import draw as draw_constraints
from heedful.world.constraints import wording
from heedful.world.demonstrate import answer
from heedful.world.tasks import Task
from heedful.world.town import Town, generator
from heedful.world.words import entities

# Table 1 of InstructGPT: share of use cases in percent.
USE_CASES = {
    "generation": 45.6,
    "open_qa": 12.4,
    "brainstorming": 11.2,
    "chat": 8.4,
    "rewrite": 6.6,
    "summarization": 4.2,
    "classification": 3.5,
    "other": 3.5,
    "closed_qa": 2.6,
    "extract": 1.9,
}
KIND_SHARES: dict[Source, tuple[float, float]] = {
    "labeler": (0.25, 0.25),
    "customer": (0.1, 0.15),
}  # few-shot, user-based
SPLIT_SHARES: dict[Split, float] = {"train": 0.6, "valid": 0.15, "test": 0.25}
HARM_SHARE = 0.03
MAX_FEW_SHOT_WORDS = 110
FEW_SHOT_USE_CASES = ("classification", "open_qa", "brainstorming", "extract", "other", "closed_qa")


def split_of(key: str) -> Split:
    """The split a user or a set of entities belongs to, by its hash."""
    point = int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) / 16**12
    for split, share in SPLIT_SHARES.items():
        point -= share
        if point < 0:
            return split
    return "test"


def entity_key(text: str) -> str:
    return "+".join(entities(text))


def draw_task(rng: random.Random, town: Town, use_case: str, kind: str) -> Task:
    if use_case == "generation":
        return rng.choices((tasks.story, tasks.describe, tasks.note), (0.7, 0.15, 0.15))[0](rng, town, kind)
    builders = {
        "open_qa": tasks.fact_question,
        "brainstorming": tasks.brainstorm,
        "chat": tasks.chat,
        "rewrite": tasks.rewrite,
        "summarization": tasks.summary,
        "classification": tasks.classification,
        "closed_qa": tasks.closed_question,
        "extract": tasks.extract,
        "other": tasks.other,
    }
    return builders[use_case](rng, town, kind)


def draw_request(rng: random.Random, town: Town, use_case: str, kind: str, harm: bool) -> tuple[str, dict[str, Any]]:
    """A request with its constraints written behind it, and its truth."""
    task = tasks.harmful(rng, town, kind) if harm else draw_task(rng, town, use_case, kind)
    constraints = draw_constraints(rng, town, task)
    text = f"{task.text} {wording(constraints)}".strip()
    return text, task.truth | {"constraints": constraints}


def make_prompts(
    seed: int, town: Town, num: int, split: Split, pool: str, source: Source, harm_share: float
) -> list[Prompt]:
    prompts: list[Prompt] = []
    texts: set[str] = set()
    for user in users(split, pool, source):
        rng = generator(seed, "prompts", user)
        # Pareto: most users ask once or twice, a few ask dozens of times.
        for i in range(min(60, int(rng.paretovariate(1.2)))):
            if len(prompts) == num:
                return prompts
            prompt = _prompt(rng, town, f"{user}-{i}", user, split, source, harm_share, texts)
            texts.add(prompt.text)
            prompts.append(prompt)
    raise AssertionError("users never end")


def users(split: Split, pool: str, source: Source) -> Iterator[str]:
    number = 0
    while True:
        user = f"{source}-{pool}-{number}"
        if split_of(user) == split:
            yield user
        number += 1


def _prompt(
    rng: random.Random, town: Town, id: str, user: str, split: Split, source: Source, harm_share: float, taken: set[str]
) -> Prompt:
    use_case = rng.choices(list(USE_CASES), list(USE_CASES.values()))[0]
    harm = rng.random() < harm_share
    kind = _kind(rng, source, use_case, harm)
    for attempt in itertools.count():
        text, truth = draw_request(rng, town, use_case, "user_based" if kind == "user_based" else "plain", harm)
        # Few things can be asked in some use cases, so a long search may take a text again.
        if not fits(text, truth, split) or (text in taken and attempt < 300):
            continue
        examples = worked_examples(rng, town, use_case, split) if kind == "few_shot" else ()
        if has_room(text, examples, split):
            break
    return Prompt(
        id=id,
        text=text,
        user=user,
        kind=kind,
        source=source,
        use_case=use_case,
        split=split,
        examples=examples,
        task=truth,
    )


def has_room(text: str, examples: tuple[tuple[str, str], ...], split: Split) -> bool:
    """Whether a context holds the request behind its examples, and what they all ask belongs to the split."""
    asked = [text, *(question for question, _ in examples)]
    words = sum(len(part.split()) + 1 for part in asked + [reply for _, reply in examples])
    return words <= MAX_FEW_SHOT_WORDS and split_of(entity_key(" ".join(asked))) == split


def _kind(rng: random.Random, source: Source, use_case: str, harm: bool) -> PromptKind:
    """Worked examples come only with the use cases that have room for them, more often there, so the share holds."""
    few_shot, user_based = KIND_SHARES[source]
    room = sum(USE_CASES[name] for name in FEW_SHOT_USE_CASES) / sum(USE_CASES.values())
    if use_case in FEW_SHOT_USE_CASES and not harm and rng.random() < few_shot / room:
        return "few_shot"
    return "user_based" if rng.random() < user_based / (1 - few_shot) else "plain"


def fits(text: str, truth: dict[str, Any], split: Split) -> bool:
    """Whether a request may stand in the split: as it is, and without the constraints written behind it."""
    bare = text.removesuffix(wording(truth["constraints"])).strip()
    return split_of(entity_key(text)) == split_of(entity_key(bare)) == split


def worked_examples(rng: random.Random, town: Town, use_case: str, split: Split) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[str, str]] = []
    while len(pairs) < 2:
        text, truth = draw_request(rng, town, use_case, "plain", harm=False)
        if fits(text, truth, split):
            pairs.append((text, answer(rng, town, truth, truth["constraints"])))
    return tuple(pairs)


def check_disjoint(prompts: Iterable[Prompt]) -> None:
    """Prove from the prompts themselves that splits share no user, no prompt and no set of entities.

    Raises:
        InputError: names what stands in two splits.
    """
    seen: dict[tuple[str, str], str] = {}
    for prompt in prompts:
        asked = [prompt.text, *(question for question, _ in prompt.examples)]
        keys = [("user", prompt.user)] + [("prompt", text) for text in asked]
        keys += [("set of entities", entity_key(text)) for text in [*asked, " ".join(asked)]]
        for key in keys:
            if seen.setdefault(key, prompt.split) != prompt.split:
                raise InputError(f"{key[0]} {key[1]!r} stands in both {seen[key]} and {prompt.split}")
