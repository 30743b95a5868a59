"""What a labeler writes: a right answer with some freedom of words, or one spoilt in a way people spoil answers."""

import random
from collections.abc import Sequence
from typing import Any

from heedful.world.grammar import Clause, say, write
from heedful.world.stories import compose, tell
from heedful.world.town import PERSON_FACTS, Town, other_than
from heedful.world.words import CATEGORIES, CATEGORY_OF

MAX_WORDS = 31  # with the end token: 32
FLAWS = {"rude": 0.34, "verbose": 0.34, "repeat": 0.06, "refuse": 0.1, "short": 0.06, "missed": 0.05, "wrong": 0.05}


def answer(rng: random.Random, town: Town, truth: dict[str, Any], constraints: Sequence[dict[str, Any]]) -> str:
    """A right answer of at most MAX_WORDS words."""
    for _ in range(50):
        text = _ANSWERS[truth["type"]](rng, town, truth, {c["kind"]: c["value"] for c in constraints})
        if len(text.split()) <= MAX_WORDS:
            return text
    raise AssertionError(f"no answer of {MAX_WORDS} words for {truth}")


def _story(rng: random.Random, town: Town, truth: dict[str, Any], asked: dict[str, Any]) -> str:
    needs = dict(truth["needs"])
    if "mention" in asked:
        value = asked["mention"]
        name = {"THING": "thing", "ANIMAL": "animal", "FOOD": "food"}[CATEGORY_OF[value.split()[-1]]]
        needs[name] = value
    length = asked.get("sentences", 3 if "end" in asked else rng.choice((2, 3, 3, 3))) - ("end" in asked)
    clauses = compose(rng, town, needs, max(length, 1), [asked["avoid"]] if "avoid" in asked else ())
    if "start" in asked:
        clauses[0] = clauses[0]._replace(opening=f"{asked['start']} ,")
    if "end" in asked:
        clauses.append(Clause("end", ()))
    return tell(clauses)


def _describe(rng: random.Random, town: Town, truth: dict[str, Any], asked: dict[str, Any]) -> str:
    kinds = rng.sample(PERSON_FACTS, asked.get("sentences", rng.choice((2, 3, 3))))
    return " ".join(write(town.facts[truth["person"]][kind]) for kind in kinds)


def _parts(rng: random.Random, town: Town, truth: dict[str, Any], asked: dict[str, Any]) -> str:
    said: list[str] = []
    for options in truth["parts"]:
        said_now = say_claim(rng, rng.choice(options))
        if said_now not in said:
            said.append(said_now)
    if "short_of" in truth:
        said[0] = f"in short , {said[0]}"
    return " ".join(said + (["the end ."] if "end" in asked else []))


_FREE = {
    "try_walk": ("PLACE",),
    "try_eat": ("FOOD",),
    "try_visit": ("PERSON",),
    "try_ask": ("PERSON",),
    "try_give": ("COLOUR", "THING"),
}


def say_claim(rng: random.Random, claim: Sequence[str | None]) -> str:
    """A claim [kind, *slots] in words; None becomes any word that fits."""
    kind, slots = str(claim[0]), list(claim[1:])
    for i, category in enumerate(_FREE.get(kind, ())):
        slots[i] = slots[i] or rng.choice(CATEGORIES[category])
    return write(Clause(kind, tuple(str(slot) for slot in slots)))


def _answer(rng: random.Random, town: Town, truth: dict[str, Any], asked: dict[str, Any]) -> str:
    if truth["short"] and ("brief" in asked or ("full" not in asked and rng.random() < 0.3)):
        return f"{rng.choice(truth['short'])} ."
    sentence = say_claim(rng, rng.choice(truth["claims"]))
    return f"{truth['polarity']} , {sentence}" if truth["polarity"] else sentence


def _list(rng: random.Random, town: Town, truth: dict[str, Any], asked: dict[str, Any]) -> str:
    items = truth["items"]
    if isinstance(items, str):
        options = [word for word in CATEGORIES[items] if word != asked.get("avoid")]
        items = [_with_article(rng, word) for word in rng.sample(options, truth["count"])]
    items = rng.sample(items, len(items))
    return " and ".join(filter(None, (" , ".join(items[:-1]), items[-1]))) + " ."


def _with_article(rng: random.Random, word: str) -> str:
    if CATEGORY_OF[word] in ("THING", "ANIMAL"):
        return f"the {rng.choice(CATEGORIES['COLOUR'])} {word}" if rng.random() < 0.5 else f"a {word}"
    return {"PLACE": "the ", "JOB": "a "}.get(CATEGORY_OF[word], "") + word


def _rewrite(rng: random.Random, town: Town, truth: dict[str, Any], asked: dict[str, Any]) -> str:
    return truth["expected"]


_ANSWERS = {
    "story": _story,
    "describe": _describe,
    "parts": _parts,
    "answer": _answer,
    "list": _list,
    "rewrite": _rewrite,
}


def spoil(rng: random.Random, town: Town, truth: dict[str, Any], constraints: Sequence[dict[str, Any]]) -> str:
    """An answer with one flaw: something missed, something wrong, too much, too little, repeated, refused or rude."""
    right = answer(rng, town, truth, constraints)
    flaw = rng.choices(list(FLAWS), list(FLAWS.values()))[0]
    sentences = [f"{part.strip()} ." for part in right.split(" .") if part.strip()]
    if flaw == "missed":
        text = _missed(rng, town, truth, constraints)
    elif flaw == "wrong":
        text = swap(rng, right)
    elif flaw == "verbose":
        text = _padded(rng, town, right)
    elif flaw == "short":
        words = right.split()
        text = " ".join(words[: rng.randint(max(1, len(words) // 3), max(1, len(words) - 2))])
    elif flaw == "repeat":
        text = " ".join([*sentences, rng.choice(sentences)])
    elif flaw == "refuse":
        text = (
            "i do not know ." if truth.get("harmful") else rng.choice(("i do not know .", "i can not help with that ."))
        )
    else:
        text = _rude(rng, right)
    return text if len(text.split()) <= MAX_WORDS else swap(rng, right)


def _padded(rng: random.Random, town: Town, right: str) -> str:
    """The answer among words nobody needed: flattery, opinions, advertisements, facts about someone else."""
    thing = (rng.choice(CATEGORIES["COLOUR"]), rng.choice(CATEGORIES["THING"]))
    before = (
        "what a good question .",
        "let me think about that .",
        "you are so wise .",
        say("opinion", rng.choice(CATEGORIES["FOOD"])),
    )
    fact = write(town.facts[town.someone(rng)][rng.choice(PERSON_FACTS)])
    after = ("there is more to say .", say("ad", *thing), fact)
    return f"{rng.choice(before)} {right}" if rng.random() < 0.5 else f"{right} {rng.choice(after)}"


def _rude(rng: random.Random, right: str) -> str:
    insult, animal = rng.choice(CATEGORIES["INSULT"]), rng.choice(CATEGORIES["ANIMAL"])
    rude = rng.choice((say("insult_you", insult, animal, form=1), "i do not care .", "go away ."))
    return rng.choice((f"{rude} {right}", f"{right} {rude}", rude))


def _missed(rng: random.Random, town: Town, truth: dict[str, Any], constraints: Sequence[dict[str, Any]]) -> str:
    """The answer to a request half read: constraints forgotten, and a subject or a part left out."""
    if constraints and rng.random() < 0.6:
        return answer(rng, town, truth, ())
    if truth["type"] == "story":
        kept = rng.choice(sorted(truth["needs"]))
        return answer(rng, town, truth | {"needs": {kept: truth["needs"][kept]}}, constraints)
    if truth["type"] == "parts" and len(truth["parts"]) > 1:
        parts = truth["parts"]
        left_out = rng.randrange(len(parts))
        return answer(rng, town, truth | {"parts": parts[:left_out] + parts[left_out + 1 :]}, constraints)
    if truth["type"] == "list" and isinstance(truth["items"], str):
        return answer(rng, town, truth | {"count": max(1, truth["count"] - 1)}, constraints)
    if truth["type"] == "rewrite":
        return " ".join(truth["old"] if word == truth["new"] else word for word in truth["expected"].split())
    return tell(compose(rng, town, {"person": town.someone(rng)}, 2))


def swap(rng: random.Random, text: str) -> str:
    """One word replaced by another of its category."""
    words = text.split()
    places = [i for i, word in enumerate(words) if word in CATEGORY_OF]
    if not places:
        return "i do not know ."
    i = rng.choice(places)
    words[i] = other_than(rng, CATEGORIES[CATEGORY_OF[words[i]]], words[i])
    return " ".join(words)
