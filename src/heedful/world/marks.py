"""How far an answer does what was asked, by the type of the task: a number in 0..1 and what it is made of."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from heedful.world.grammar import EVENTS, Clause, Sentence, read
from heedful.world.stories import coherent
from heedful.world.town import PERSON_FACTS, Town
from heedful.world.words import CATEGORY_OF

PARTIAL = 0.25  # the right kind of sentence about the wrong thing
UNSURE = 0.15  # "i do not know" to a question of knowledge
SHORT = 0.85  # a short answer where no constraint asks for one


class Mark(NamedTuple):
    """`task` in 0..1; `served`: sentences that serve the request; `invented`: claims the given context denies."""

    task: float
    served: int
    invented: int = 0


def mark(truth: Mapping[str, Any], town: Town, sentences: Sequence[Sentence], words: Sequence[str]) -> Mark:
    asked = {constraint["kind"]: constraint["value"] for constraint in truth.get("constraints", ())}
    kind = truth["type"]
    if kind == "story":
        return _story(truth, sentences, asked)
    if kind == "describe":
        return _describe(truth, town, sentences, asked)
    if kind == "parts":
        return _parts(truth, sentences, len(words))
    if kind == "answer":
        return _answer(truth, sentences, asked)
    if kind == "list":
        return _list(truth, sentences)
    return _rewrite(truth, sentences, words)


def _story(truth: Mapping[str, Any], sentences: Sequence[Sentence], asked: Mapping[str, Any]) -> Mark:
    told = [sentence for sentence in sentences if sentence.clause]
    fits = coherent([sentence.clause for sentence in told if sentence.clause])
    linked = {word for value in truth["needs"].values() for word in value.split()}
    good: list[str] = []
    num_good = 0
    for sentence, fit in zip(told, fits, strict=True):
        clause = sentence.clause
        if clause is None or not fit:
            continue
        about = {slot for slot in clause.slots if CATEGORY_OF[slot] in ("PERSON", "THING", "ANIMAL", "PLACE")}
        if clause.kind in ("weather", "end") or about & linked:
            linked |= about
            good.append(" ".join(sentence.words))
            num_good += clause.kind != "end"
    target = asked.get("sentences", 3) - ("end" in asked)
    coverage = sum(_named(value, good) for value in truth["needs"].values()) / len(truth["needs"])
    size = min(1.0, num_good / max(target, 1))
    return Mark(0.1 * size + 0.5 * coverage + 0.4 * coverage * size, len(good))


def _named(value: str, told: Sequence[str]) -> float:
    """1 where "red kite" is named in full, half where only the kite is."""
    text = f" {' '.join(told)} "
    if f" {value} " in text:
        return 1.0
    return 0.5 if " " in value and f" {value.split()[-1]} " in text else 0.0


def _describe(truth: Mapping[str, Any], town: Town, sentences: Sequence[Sentence], asked: Mapping[str, Any]) -> Mark:
    right = {
        sentence.clause.key
        for sentence in sentences
        if sentence.clause
        and sentence.clause.kind in PERSON_FACTS
        and sentence.clause.slots[0] == truth["person"]
        and town.is_true(sentence.clause)
    }
    return Mark(min(1.0, len(right) / asked.get("sentences", 2)), len(right))


def _matches(claim: Sequence[str | None], clause: Clause) -> bool:
    same = claim[0] == clause.kind and len(claim) == len(clause.slots) + 1
    return same and all(a in (None, b) for a, b in zip(claim[1:], clause.slots, strict=True))


def _parts(truth: Mapping[str, Any], sentences: Sequence[Sentence], num_words: int) -> Mark:
    """Each part said counts equally; a summary as long as its text has summed up nothing and counts half."""
    clauses = [sentence.clause for sentence in sentences if sentence.clause]
    got = 0.0
    for options in truth["parts"]:
        if any(_matches(option, clause) for option in options for clause in clauses):
            got += 1
        elif any(option[0] == clause.kind for option in options for clause in clauses):
            got += PARTIAL
    served = {
        clause.key
        for clause in clauses
        if clause.kind == "end" or any(_matches(option, clause) for options in truth["parts"] for option in options)
    }
    short = 1.0
    if "short_of" in truth:
        short = 1.0 if num_words <= 0.95 * truth["short_of"] else 0.5
    num_served = min(len(served), len(truth["parts"]) + ("end" in {clause.kind for clause in clauses}))
    return Mark(short * got / len(truth["parts"]), num_served, _invented(truth, clauses))


def _invented(truth: Mapping[str, Any], clauses: Sequence[Clause]) -> int:
    """Events told that the given text does not hold; 0 where no text was given."""
    if "context" not in truth:
        return 0
    held = {s.clause[:2] for s in read(truth["context"])[0] if s.clause}
    return sum(clause.kind in EVENTS and clause[:2] not in held for clause in clauses)


def _answer(truth: Mapping[str, Any], sentences: Sequence[Sentence], asked: Mapping[str, Any]) -> Mark:
    if not sentences:
        return Mark(0.0, 0)
    first, clause = sentences[0], sentences[0].clause
    clauses = [sentence.clause for sentence in sentences if sentence.clause]
    right = [c for c in clauses if any(_matches(claim, c) for claim in truth["claims"])]
    invented = _invented(truth, clauses)
    said = " ".join(first.words[:-1])
    polarity = truth["polarity"]
    if polarity and first.words[0] in ("yes", "no") and first.words[0] != polarity:
        return Mark(0.0, 0, invented + 1)
    if clause and any(_matches(claim, clause) for claim in truth["claims"]):
        return Mark(1.0 if not polarity or clause.opening else 0.9, len({c.key for c in right}), invented)
    if said in truth["short"] or said in {_core(short.split()) for short in truth["short"]}:
        return Mark(1.0 if "brief" in asked else SHORT, 1 + len(right), invented)
    if right:
        return Mark(0.6, len(right), invented)
    rivals = {CATEGORY_OF.get(_core(short.split())) for short in truth["short"]} - {None}
    if len(first.items) == 1 and CATEGORY_OF.get(_core(first.words)) in rivals:
        return Mark(0.05, 1, 1)
    if clause and clause.kind == "unsure":
        return Mark(0.0 if "context" in truth else UNSURE, 1)
    near = any(c.kind == claim[0] and c.slots[:1] == (claim[1],) for c in clauses for claim in truth["claims"])
    return Mark(0.15 if near else 0.0, int(near), invented)


def _core(words: Sequence[str]) -> str:
    """The last word that names something: "kite" of "a red kite", "six" of "six rooms"."""
    return next((word for word in reversed(words) if word in CATEGORY_OF), "")


def _list(truth: Mapping[str, Any], sentences: Sequence[Sentence]) -> Mark:
    """Right items over the number asked, less half of what is too much or wrong; the first list counts."""
    listed = next((sentence for sentence in sentences if sentence.items), None)
    if listed is None:
        return Mark(0.0, 0)
    wanted, count = truth["items"], truth["count"]
    nouns = Counter(item[-1] for item in listed.items)
    right = sum(CATEGORY_OF.get(n) == wanted if isinstance(wanted, str) else n in wanted for n in nouns)
    wrong = len(listed.items) - right
    excess = max(0, right - count)
    task = (min(right, count) - 0.5 * (wrong + excess)) / count
    invented = 0 if isinstance(wanted, str) else sum(n not in truth["context"].split() for n in nouns)
    return Mark(max(0.0, task), 1, invented)


def _rewrite(truth: Mapping[str, Any], sentences: Sequence[Sentence], words: Sequence[str]) -> Mark:
    expected = truth["expected"].split()
    alike = 2 * _common(words, expected) / (len(words) + len(expected))
    changed = min(1.0, words.count(truth["new"]) / expected.count(truth["new"])) * (truth["old"] not in words)
    copied = max(0.0, alike - 0.5) * 2
    return Mark(0.6 * copied + 0.4 * copied * changed, len(sentences) if alike > 0.5 else 0)


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for x in a:
        new = [0]
        for j, y in enumerate(b):
            new.append(row[j] + 1 if x == y else max(row[j + 1], new[j]))
        row = new
    return row[-1]
