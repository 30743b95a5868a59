"""The world's version speaks for all that the world makes: whoever changes a word of it raises the version."""

import hashlib
import json
from typing import Any

from heedful.types import Prompt
from heedful.world import USE_CASES, WORLD_HASH, WORLD_VERSION, World

MEND = (
    f"the world makes something else than version {WORLD_VERSION} did: raise WORLD_VERSION in "
    "heedful/world/__init__.py and set WORLD_HASH to {found!r}; where no change was meant, find what shifted a draw"
)
POOLS: Any = (("sft", "labeler"), ("rm", "customer"), ("ppo", "customer"), ("eval", "customer"))


def verdict(world: World, prompt: Prompt, text: str) -> list[Any]:
    """What the rater says, in digits that another order of adding floats leaves alone (Python 3.12 adds otherwise)."""
    found = world.rate(prompt, text)
    numbers = {"utility": found.utility, "evaluation": found.evaluation_utility} | found.parts
    return [found.overall, found.flags, {name: round(value * 10_000) for name, value in numbers.items()}]


def sample(world: World) -> dict[str, Any]:
    """Some of everything, as plain values."""
    prompts = [
        prompt
        for pool, source in POOLS
        for split in ("train", "valid", "test")
        for prompt in world.prompts(2 * len(USE_CASES), split, pool, source, harm_share=0.1)
    ]
    answers = [
        [world.demonstrate(prompt, i, flaw_rate) for i, flaw_rate in enumerate((0.0, 1.0))] for prompt in prompts
    ]
    shifted = [*answers[1:], answers[0]]  # another prompt's answer, which nobody asked for
    return {
        "facts": {person: {kind: c.slots for kind, c in facts.items()} for person, facts in world.town.facts.items()},
        "vocabulary": world.vocabulary,
        "documents": [d.text for split in ("train", "valid") for d in world.documents(6000, split)],
        "prompts": [[p.id, p.text, p.user, p.kind, p.source, p.use_case, p.split, p.examples, p.task] for p in prompts],
        "answers": answers,
        "prefixes": world.few_shot_prefixes(2),
        "verdicts": [
            [verdict(world, prompt, text) for text in (*own, *other, "")]
            for prompt, own, other in zip(prompts, answers, shifted, strict=True)
        ],
    }


def hash_of(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def test_what_the_world_makes_is_what_its_version_says() -> None:
    found = hash_of(sample(World(0)))
    assert found == WORLD_HASH, MEND.format(found=found)


def test_the_hash_sees_every_part() -> None:
    values = sample(World(0))
    assert {len(part) > 1 for part in values.values()} == {True}
    assert hash_of(values) == hash_of(json.loads(json.dumps(values)))
    for name in values:
        assert hash_of(values | {name: "other"}) != WORLD_HASH
