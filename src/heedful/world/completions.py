"""Prompts as people wrote them to a base model: a page begun, or worked pairs and a last one left open.

InstructGPT evaluates on two distributions (arXiv 2203.02155, section 4.1 and figure 3): prompts sent to its own models,
which are instructions, and prompts sent to GPT-3, which are texts to be gone on with. `task["sent_to"]` is "base" of
the latter; the truth beside it is marked like any other.
"""

import itertools
import random

from heedful.types import Prompt, PromptKind, Split
from heedful.world.prompts import (
    FEW_SHOT_USE_CASES,
    USE_CASES,
    draw_request,
    entity_key,
    fits,
    has_room,
    split_of,
    users,
    worked_examples,
)
from heedful.world.stories import random_needs
from heedful.world.tasks import STORY_ABOUT, Task, naming
from heedful.world.town import Town, generator
from heedful.world.words import PLURALS

BASE, INSTRUCT = "base", "instruct"
SHARES = {"generation": 0.6, "brainstorming": 0.15, "few_shot": 0.25}
MOST_OF_A_USER = 20


def sent_to(prompt: Prompt) -> str:
    """Which kind of model the prompt was written for: "base" or "instruct"."""
    return str(prompt.task.get("sent_to", INSTRUCT))


def make_completions(seed: int, town: Town, num: int, split: Split, pool: str) -> list[Prompt]:
    """`num` prompts of one split, by users of their own; a longer list starts with the shorter one."""
    prompts: list[Prompt] = []
    for user in users(split, f"{pool}-base", "customer"):
        rng = generator(seed, "completions", user)
        for i in range(min(MOST_OF_A_USER, int(rng.paretovariate(1.2)))):
            if len(prompts) == num:
                return prompts
            prompts.append(completion(rng, town, f"{user}-{i}", user, split))
    raise AssertionError("users never end")


def completion(rng: random.Random, town: Town, id: str, user: str, split: Split) -> Prompt:
    wanted = rng.choices(list(SHARES), list(SHARES.values()))[0]
    kind: PromptKind = "few_shot" if wanted == "few_shot" else "plain"
    for _ in itertools.count():
        examples: tuple[tuple[str, str], ...] = ()
        use_case = wanted
        if use_case == "few_shot":
            use_case = rng.choices(FEW_SHOT_USE_CASES, [USE_CASES[name] for name in FEW_SHOT_USE_CASES])[0]
            text, truth = draw_request(rng, town, use_case, "plain", harm=False)
            if not fits(text, truth, split):
                continue
            examples = worked_examples(rng, town, use_case, split)
        else:
            begun = page(rng, town) if use_case == "generation" else listing(rng, town)
            text, truth = begun.text, begun.truth | {"constraints": []}
        if split_of(entity_key(text)) == split and has_room(text, examples, split):
            break
    return Prompt(
        id=id,
        text=text,
        user=user,
        kind=kind,
        use_case=use_case,
        split=split,
        examples=examples,
        task=truth | {"sent_to": BASE},
    )


def page(rng: random.Random, town: Town) -> Task:
    """The heading of a story, or of what is known about somebody."""
    if rng.random() < 0.25:
        person = town.someone(rng)
        return Task(f"about {person} :", {"type": "describe", "person": person})
    cast = random_needs(rng, town)
    needs = {name: cast[name] for name in rng.choice(STORY_ABOUT)}
    title = f"{rng.choice(('a story about', 'about'))} {naming(needs)} :"
    return Task(title, {"type": "story", "needs": needs})


def listing(rng: random.Random, town: Town) -> Task:
    """The heading of a list of what somebody needs."""
    plural = rng.choice(sorted(PLURALS))
    return Task(f"{plural} of {town.someone(rng)} :", {"type": "list", "items": PLURALS[plural], "count": 3})
