"""What whoever judges is given and says, before it is anybody's record."""

from collections.abc import Sequence
from typing import NamedTuple

from heedful.types import Prompt, Record, Response

Item = tuple[Prompt, Sequence[Response]]


class Verdict(NamedTuple):
    """Ranks of an item's responses, 1 = best and equal = tie, in their order; None with the reason why not.

    `preference`: as in `types.Ranking`, of a judge who gives probabilities. `message`: more of the reason, one line.
    """

    rank: tuple[int, ...] | None
    reason: str = ""
    preference: tuple[tuple[float, float], ...] = ()
    message: str = ""


class Unjudged(Record):
    """An item without a verdict: its prompt's and responses' ids, and why."""

    prompt_id: str
    responses: tuple[str, ...]
    reason: str
    message: str = ""
