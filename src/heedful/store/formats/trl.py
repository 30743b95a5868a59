"""TRL's dataset types: prompt-completion, preference (explicit and implicit prompt), unpaired preference.

Each in TRL's standard form (plain texts; the completion keeps the space it begins with) and its conversational form
(lists of messages); either is read whatever the file is said to be. `margin` is the column that TRL's reward trainer
takes. Pairs of one ranking stand one behind another and share `group_id`, an extra column that TRL leaves alone: a
batch that holds a prompt's pairs together trains as InstructGPT's section 3.5 does.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from heedful.store.formats.chat import Talk, Turn, demonstration_of, messages_of, prompt_turns, talk_of, turns_of
from heedful.store.formats.item import (
    Answer,
    BadRow,
    Item,
    LeftOut,
    Reading,
    Tally,
    Writing,
    best_answer,
    margin_of,
    pairs_of,
    single_text,
    strength_of,
    text_of,
)

Rows = Iterator[dict[str, Any]]
PART_EARLY = "pairs whose conversations part before the last answer"


def read_completion(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"prompt", "completion"}."""
    asked = _asked(row, tally)
    yield demonstration_of(asked._replace(answer=_completed(row, "completion", tally)), tally)


def write_completion(item: Item, how: Writing, tally: Tally) -> Rows:
    answer = best_answer(item, tally)
    yield {"prompt": messages_of(prompt_turns(item)), "completion": _said(answer)}


def write_completion_text(item: Item, how: Writing, tally: Tally) -> Rows:
    answer = best_answer(item, tally)
    yield {"prompt": single_text(item, tally), "completion": answer}


def read_preference(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"prompt", "chosen", "rejected"}, "margin" where it is there."""
    asked = _asked(row, tally)
    yield _pair(row, asked, _completed(row, "chosen", tally), _completed(row, "rejected", tally), how, tally)


def write_preference(item: Item, how: Writing, tally: Tally) -> Rows:
    prompt = messages_of(prompt_turns(item))
    for chosen, rejected, more in _pairs(item, how, tally):
        yield {"prompt": prompt, "chosen": _said(chosen), "rejected": _said(rejected)} | more


def write_preference_text(item: Item, how: Writing, tally: Tally) -> Rows:
    prompt = single_text(item, tally)
    for chosen, rejected, more in _pairs(item, how, tally):
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected} | more


def read_implicit(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"chosen", "rejected"}: two conversations that are equal up to their last answer."""
    chosen, rejected = (turns_of(row.get(name), name, tally) for name in ("chosen", "rejected"))
    if len(chosen) != len(rejected) or chosen[:-1] != rejected[:-1]:
        raise LeftOut(PART_EARLY)
    better, worse = talk_of(chosen), talk_of(rejected)
    if better.answer is None or worse.answer is None:
        raise BadRow("chosen and rejected end with the assistant")
    yield _pair(row, better, better.answer, worse.answer, how, tally)


def write_implicit(item: Item, how: Writing, tally: Tally) -> Rows:
    prompt = messages_of(prompt_turns(item))
    for chosen, rejected, more in _pairs(item, how, tally):
        yield {"chosen": prompt + _said(chosen), "rejected": prompt + _said(rejected)} | more


def read_unpaired(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"prompt", "completion", "label"}: good or bad becomes the two marks of `how`."""
    if how.marks is None:
        raise BadRow("label says good or bad, and a rating is a mark from 1 to 7: name the two, as in --marks 6,2")
    if not isinstance(row.get("label"), bool):
        raise BadRow("label: neither true nor false")
    asked = _asked(row, tally)
    mark = how.marks[0] if row["label"] else how.marks[1]
    answer = Answer(_completed(row, "completion", tally), overall=mark)
    yield Item(asked.text, asked.examples, asked.system, answers=(answer,))


def write_unpaired(item: Item, how: Writing, tally: Tally) -> Rows:
    prompt = messages_of(prompt_turns(item))
    for answer, good in _labels(item, how, tally):
        yield {"prompt": prompt, "completion": _said(answer), "label": good}


def write_unpaired_text(item: Item, how: Writing, tally: Tally) -> Rows:
    prompt = single_text(item, tally)
    for answer, good in _labels(item, how, tally):
        yield {"prompt": prompt, "completion": answer, "label": good}


def _asked(row: Mapping[str, Any], tally: Tally) -> Talk:
    """The row's prompt."""
    if row.get("tools"):
        raise LeftOut("conversations with tool calls")
    if not isinstance(row.get("prompt"), list):
        return Talk("", (), text_of(row, "prompt"), None)
    talk = talk_of(turns_of(row["prompt"], "prompt", tally))
    if talk.answer is not None:
        raise LeftOut("prompts that end with the assistant")
    return talk


def _completed(row: Mapping[str, Any], name: str, tally: Tally) -> str:
    if isinstance(row.get("prompt"), str):
        return text_of(row, name)
    turns = turns_of(row.get(name), name, tally)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise LeftOut("completions of several turns")
    return turns[0].text


def _said(answer: str) -> list[dict[str, str]]:
    return messages_of([Turn("assistant", answer)])


def _pair(row: Mapping[str, Any], asked: Talk, chosen: str, rejected: str, how: Reading, tally: Tally) -> Item:
    rank, margin, strength = (1, 2), row.get("margin"), None
    if how.strength and margin is not None:
        strength = strength_of(margin, rank)
        if strength is None:
            raise BadRow(f"margin: {margin!r} is no strength (1, 2 or 3); import without --strength")
    elif margin is not None:
        tally.changed["pairs whose margin was not kept (--strength keeps 1, 2 and 3)"] += 1
    answers = (Answer(chosen), Answer(rejected))
    return Item(asked.text, asked.examples, asked.system, answers=answers, rank=rank, strength=strength)


def _pairs(item: Item, how: Writing, tally: Tally) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for chosen, rejected in pairs_of(item, tally):
        margin = margin_of(item, chosen, rejected, how, tally)
        if margin is not None:
            yield item.answers[chosen].text, item.answers[rejected].text, {"margin": margin, "group_id": item.id}


def _labels(item: Item, how: Writing, tally: Tally) -> Iterator[tuple[str, bool]]:
    """Each marked answer with whether it is good; of a pair without marks the better one is."""
    for position, answer in enumerate(item.answers):
        if answer.overall is not None:
            yield answer.text, answer.overall >= how.threshold
        elif len(item.rank) == 2 and len(set(item.rank)) == 2:
            yield answer.text, item.rank[position] == 1
        else:
            tally.left_out["responses without a mark"] += 1
    if not item.answers:
        raise LeftOut("items without a response")
