r"""Anthropic's HH-RLHF lines: {"chosen", "rejected"}, two transcripts "\n\nHuman: …\n\nAssistant: …".

The prompt is their longest common beginning that ends with "\n\nAssistant:". The transcripts have no escape: a text
that holds one of the marks cannot be told from a turn, so it is not written, and counted.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from heedful.store.formats.chat import Turn, prompt_turns, talk_of
from heedful.store.formats.item import (
    Answer,
    BadRow,
    Item,
    LeftOut,
    Reading,
    Tally,
    Writing,
    folded,
    pairs_of,
    text_of,
)

MARK = re.compile(r"\n\n(Human|Assistant):")
ROLE = {"Human": "user", "Assistant": "assistant"}
NAME = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}


def read_hh(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    chosen, rejected = text_of(row, "chosen"), text_of(row, "rejected")
    start = chosen[: _alike(chosen, rejected)].rfind(NAME["assistant"])
    if start < 0:
        raise BadRow(r'chosen and rejected do not begin alike with "\n\nHuman: …\n\nAssistant:"')
    end = start + len(NAME["assistant"])
    answers = [transcript[end:] for transcript in (chosen, rejected)]
    if any(MARK.search(answer) for answer in answers):
        raise LeftOut("pairs whose conversations part before the last answer")
    talk = talk_of(_turns(chosen[:start]))
    if talk.answer is not None:
        raise LeftOut("conversations in which user and assistant do not alternate, the user first")
    better, worse = (Answer(answer.removeprefix(" ")) for answer in answers)
    yield Item(talk.text, talk.examples, answers=(better, worse), rank=(1, 2))


def _alike(one: str, other: str) -> int:
    """How many characters the two begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _turns(transcript: str) -> list[Turn]:
    before, *pieces = MARK.split(transcript)
    if before:
        raise BadRow('text before the first "Human:"')
    names, texts = pieces[::2], pieces[1::2]
    return [Turn(ROLE[name], text.removeprefix(" ")) for name, text in zip(names, texts, strict=True)]


def write_hh(item: Item, how: Writing, tally: Tally) -> Iterator[dict[str, Any]]:
    item = folded(item, tally)
    prompt = "".join(f"{NAME[turn.role]} {turn.text}" for turn in prompt_turns(item))
    for chosen, rejected in pairs_of(item, tally):
        better, worse = (item.answers[position].text for position in (chosen, rejected))
        row = {name: f"{prompt}{NAME['assistant']} {text}" for name, text in (("chosen", better), ("rejected", worse))}
        if _reads_back(row, item, better, worse):
            yield row
        else:
            tally.left_out['pairs with "Human:" or "Assistant:" at the start of a paragraph'] += 1


def _reads_back(row: dict[str, str], item: Item, better: str, worse: str) -> bool:
    try:
        (read,) = read_hh(row, Reading(), Tally())
    except (BadRow, LeftOut):
        return False
    found = (read.text, read.examples, tuple(answer.text for answer in read.answers))
    return found == (item.text, item.examples, (better, worse))
