"""What whoever judges is given and says, before it is anybody's record."""

from collections.abc import Sequence
from typing import NamedTuple

from heedful.types import Prompt, Response

Item = tuple[Prompt, Sequence[Response]]


class Verdict(NamedTuple):
    """Ranks of an item's responses, 1 = best and equal = tie, in their order; None with the reason why not.

    `preference`: as in `types.Ranking`, of a judge who gives probabilities.
    """

    rank: tuple[int, ...] | None
    reason: str = ""
    preference: tuple[tuple[float, float], ...] = ()
