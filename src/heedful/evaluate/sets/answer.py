"""Generated answers: temperature 0, cut at the first line break (InstructGPT, appendix E.3), or samples, all by the
engine. A prompt that leaves no room for the longest answer is counted as too long."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from heedful.engine.requests import Request
from heedful.engine.sample import Sampler
from heedful.evaluate.sets.choose import Track
from heedful.evaluate.sets.item import Item, Model
from heedful.text.tokenizer import end_id

AT_ONCE = 256  # prompts handed to the engine together


class Answers(NamedTuple):
    """What was answered to the items that fit, in their order; the others counted by reason."""

    items: list[Item]
    texts: list[list[str]]  # of each item its samples
    tokens: list[list[list[int]]]  # the same as they were sampled, without what ended them
    missing: Counter[str]


class Wish(NamedTuple):
    """How answers are to be generated."""

    max_new_tokens: int
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    one_line: bool = True  # ends before the first line break


def prompts(model: Model, items: Sequence[Item]) -> list[list[int]]:
    """Token ids of the items' prompts, never empty."""
    return [begun(model, ids) for ids in model.encode([item.prompt for item in items])]


def begun(model: Model, ids: list[int]) -> list[int]:
    """A prompt's tokens behind the begin token; the end token where that leaves none."""
    return model.begin + ids or [end_id(model.tokenizer)]


def answers(
    model: Model, items: Sequence[Item], tokens: Sequence[list[int]], wish: Wish, seed: int, track: Track
) -> Answers:
    kept = [n for n, ids in enumerate(tokens) if fits(model, ids, wish)]
    missing = Counter({"too_long": len(tokens) - len(kept)})
    track(missing["too_long"])
    stop = ("\n",) if wish.one_line else ()
    sampler = Sampler(model.decoder, model.tokenizer, wish.max_new_tokens, wish.temperature, stop)
    texts: list[list[str]] = []
    said: list[list[list[int]]] = []
    for start in range(0, len(kept), AT_ONCE):
        part = kept[start : start + AT_ONCE]
        requests = [
            Request(
                *(tokens[n], wish.samples, wish.max_new_tokens, wish.temperature),
                top_p=wish.top_p,
                seed=seed + n,
                stop=stop,
            )
            for n in part
        ]
        for group in sampler.generate(requests):
            said.append(list(map(sampler.response, group)))
            found = model.tokenizer.batch_decode(said[-1], skip_special_tokens=True)
            texts.append([text.strip() if wish.one_line else text for text in found])
        track(len(part))
    return Answers([items[n] for n in kept], texts, said, +missing)


def fits(model: Model, ids: list[int], wish: Wish) -> bool:
    return len(ids) + wish.max_new_tokens <= model.context
