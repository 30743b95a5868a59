"""What every format speaks of: a prompt, answers to it, and what one labeler said of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, Literal, NamedTuple, get_args

from heedful.store.incoming import GAP
from heedful.types import LabelerGroup, LabelerKind, Split

Kind = Literal["demonstration", "rating", "ranking", "response"]
Margin = Literal["rank", "rating", "strength"]
STRENGTHS = (1, 2, 3)
MARKS = range(1, 8)  # of Rating.overall


class BadRow(Exception):
    """The row is not of the shape: what is wrong with it, and the mend."""


class LeftOut(Exception):
    """The row is whole, but heedful (or the shape to write) has no place for it: the reason, as it is counted."""


class Answer(NamedTuple):
    text: str
    model: str = ""
    overall: int | None = None  # the labeler's mark, 1-7


@dataclass(frozen=True, slots=True)
class Item:
    """One judgement with all that it speaks of, without the store's ids.

    `text` is what is asked last, `examples` are the (query, answer) turns before it, `system` what instructs the model.
    `input` is the end of `text` where a format keeps it apart (Alpaca). `rank[i]` belongs to `answers[i]`: 1 is best,
    equal ranks tie, and empty means not ranked. `order` lists positions in `answers` as they were presented. An empty
    `labeler` or `user`, and None, say that the row does not tell. `id` is the stored judgement's; it groups its pairs.
    """

    text: str
    examples: tuple[tuple[str, str], ...] = ()
    system: str = ""
    input: str = ""
    answers: tuple[Answer, ...] = ()
    rank: tuple[int, ...] = ()
    strength: int | None = None
    both_bad: bool = False
    preference: tuple[tuple[float, float], ...] = ()  # as Ranking's
    demonstration: str = ""
    order: tuple[int, ...] = ()
    labeler: str = ""
    group: LabelerGroup | None = None
    kind: LabelerKind | None = None
    user: str = ""
    split: Split | None = None
    seconds: float | None = None
    guideline: str = ""
    id: str = ""
    prompt_id: str = ""


@dataclass
class Tally:
    """What did not come through (`left_out`) and what came through changed (`changed`), by reason."""

    left_out: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """One fact a line, the most frequent first."""
        return [f"left out, {reason}: {number:,}" for reason, number in self.left_out.most_common()] + [
            f"changed, {reason}: {number:,}" for reason, number in self.changed.most_common()
        ]


@dataclass(frozen=True)
class Reading:
    """What a row does not say itself.

    `names`: the shape's name of a column → the file's. `overall`: ratings are marks from 1 to 7 as heedful's are.
    `strength`: margins are strengths, 1 slightly, 2 clearly, 3 much. `marks`: what good and bad of an unpaired row are
    worth from 1 to 7. `unescape_formulas`: a CSV was written with `Writing.escape_formulas`.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    overall: bool = False
    strength: bool = False
    marks: tuple[int, int] | None = None
    unescape_formulas: bool = False


@dataclass(frozen=True)
class Writing:
    """`margin`: what a pair's margin is; `threshold`: marks from it on are good; `escape_formulas`: a CSV has no text
    that is a formula to a spreadsheet."""

    margin: Margin = "rank"
    threshold: int = 5
    escape_formulas: bool = False


def text_of(row: Mapping[str, Any], name: str) -> str:
    """Raises BadRow where the column is missing or no text."""
    value = row.get(name)
    if not isinstance(value, str):
        raise BadRow(f"{name}: {'missing' if value is None else 'no text'}")
    return value


def list_of(row: Mapping[str, Any], name: str) -> list[Any]:
    """Raises BadRow where the column is missing or no list."""
    value = row.get(name)
    if not isinstance(value, list):
        raise BadRow(f"{name}: {'missing' if value is None else 'no list'}")
    return value


def name_of(value: Any) -> str:
    """A name or number as a text; empty for nothing."""
    if value is None or isinstance(value, dict | list):
        return ""
    return str(value)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and neither true nor false."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def is_seconds(value: Any) -> bool:
    return is_number(value) and value >= 0


def mark_of(value: Any) -> int | None:
    """The value as a mark from 1 to 7, None where it is none."""
    return int(value) if is_number(value) and value in MARKS else None


def strength_of(value: Any, rank: Sequence[int]) -> int | None:
    """A margin as a strength, where it is one."""
    return int(value) if is_number(value) and value in STRENGTHS and len(rank) == 2 and rank[0] != rank[1] else None


def folded(item: Item, tally: Tally) -> Item:
    """The item with its system message at the start of its first text, for shapes that have no other place for it."""
    if not item.system:
        return item
    tally.changed["system messages that open the first user text"] += 1
    return with_system(item)


def with_system(item: Item) -> Item:
    """As `folded`, uncounted."""
    opening = item.system + GAP
    if item.examples:
        (query, answer), *others = item.examples
        return replace(item, examples=((opening + query, answer), *others), system="")
    return replace(item, text=opening + item.text, system="")


def single_text(item: Item, tally: Tally) -> str:
    """The prompt as one text.

    Raises:
        LeftOut: it has earlier turns.
    """
    if item.examples:
        raise LeftOut("prompts of several turns, for which this shape has no place")
    return folded(item, tally).text


def pairs_of(item: Item, tally: Tally) -> list[tuple[int, int]]:
    """Positions (chosen, rejected) of the untied pairs; tied ones are counted.

    Raises:
        LeftOut: there is no ranking.
    """
    if not item.rank:
        raise LeftOut("items without a ranking")
    places = range(len(item.rank))
    tally.left_out["tied pairs"] += sum(item.rank[i] == item.rank[j] for i in places for j in places if i < j)
    return [(i, j) for i in places for j in places if item.rank[i] < item.rank[j]]


def margin_of(item: Item, chosen: int, rejected: int, how: Writing, tally: Tally) -> float | None:
    """How much better the chosen one is, in the unit asked for; None (and counted) where the labeler did not say."""
    if how.margin == "rank":
        return float(item.rank[rejected] - item.rank[chosen])
    if how.margin == "strength":
        margin = item.strength
    else:
        better, worse = item.answers[chosen].overall, item.answers[rejected].overall
        margin = None if better is None or worse is None else better - worse
    if margin is None:
        tally.left_out[f"pairs without a {how.margin} to take the margin from"] += 1
        return None
    if margin < 0:
        tally.changed["pairs whose ratings contradict the ranking: their margin is negative"] += 1
    return float(margin)


def best_answer(item: Item, tally: Tally) -> str:
    """The demonstration; else the ranking's best response.

    Raises:
        LeftOut: neither is there, or all responses tie.
    """
    if item.demonstration:
        return item.demonstration
    if not item.rank:
        raise LeftOut("items with neither a demonstration nor a ranking")
    if len(set(item.rank)) == 1:
        raise LeftOut("rankings without a best response: all tie")
    best = [position for position, rank in enumerate(item.rank) if rank == min(item.rank)]
    tally.changed["rankings with several best responses, of which the first was taken"] += len(best) > 1
    return item.answers[best[0]].text


def split_named(name: str) -> Split | None:
    """The split that a file's or folder's name speaks of."""
    found: dict[str, Split] = {split: split for split in get_args(Split)} | {"validation": "valid", "dev": "valid"}
    words = name.lower().replace("_", "-").replace(".", "-").split("-")
    return next((found[word] for word in words if word in found), None)
