"""What labelers disagree about, the worst first, for a lead to decide.

The lead's own ranking has the purpose "screening": it trains nothing, so an item that was looked at twice weighs no
more than others. It can become a gold item's answer (`heedful.store.gold`).
"""

import heapq
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from heedful.store.agreement import preferences_of
from heedful.store.quality import Ranked, by_prompt, task_of
from heedful.store.records import chunks, is_current
from heedful.store.reliability import distance, mean_rank
from heedful.store.schema import accounts, prompts, rankings
from heedful.types import Purpose


class Dispute(NamedTuple):
    """An item that several labelers ranked; `distance` is the mean of Kendall's, 0 to 1, over each two of them."""

    prompt: str
    round: int
    distance: float
    labelers: int
    decided: bool


def disagreement(found: Sequence[Ranked]) -> float | None:
    """The mean distance of each two rankings; None where no two of them compare the same responses."""
    preferences = [preferences_of(ranked.rank) for ranked in found]
    apart = [distance(one, other) for one, other in combinations(preferences, 2)]
    defined = [far for far in apart if far is not None]
    return sum(defined) / len(defined) if defined else None


def disputes(connection: Connection, purpose: Purpose = "train", limit: int = 100) -> list[Dispute]:
    """The items that two or more labelers ranked, those in dispute most first."""
    leads = select(accounts.c.id).where(accounts.c.role.in_(["lead", "admin"]))
    own = select(rankings.c.prompt_id, rankings.c.round)
    own = own.where(rankings.c.purpose == "screening", rankings.c.labeler.in_(leads), is_current(rankings))
    decided = {tuple(row) for row in connection.execute(own)}
    found = []
    several = select(rankings.c.prompt_id).where(rankings.c.purpose == purpose)
    several = several.group_by(rankings.c.prompt_id).having(func.count() > 1)
    for prompt, all_of in by_prompt(connection, purpose, rankings.c.prompt_id.in_(several)):
        of_round: defaultdict[int, list[Ranked]] = defaultdict(list)
        for ranked in all_of:
            if task_of(ranked.id) == "ranking":
                of_round[ranked.round].append(ranked)
        for round, of_item in of_round.items():
            far = disagreement(of_item) if len(of_item) > 1 else None
            if far is not None:
                found.append(Dispute(prompt, round, far, len({r.labeler for r in of_item}), (prompt, round) in decided))
    return heapq.nsmallest(limit, found, key=lambda dispute: (dispute.decided, -dispute.distance, dispute.prompt))


def rankings_of(connection: Connection, prompt: str, round: int, purpose: Purpose = "train") -> list[Ranked]:
    """The rankings of one item that stand."""
    asked = by_prompt(connection, purpose, rankings.c.prompt_id == prompt, rankings.c.round == round)
    return [ranked for _, found in asked for ranked in found if task_of(ranked.id) == "ranking"]


def consensus(found: Sequence[Ranked]) -> dict[str, int]:
    """What the labelers' places say on average: the rankings that cover all the responses, by their mean ranks."""
    most = max((len(ranked.rank) for ranked in found), default=0)
    return mean_rank([ranked.rank for ranked in found if len(ranked.rank) == most])


def texts_of(connection: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Prompts' texts."""
    found: dict[str, str] = {}
    for chunk in chunks(ids):
        rows = connection.execute(select(prompts.c.id, prompts.c.text).where(prompts.c.id.in_(chunk)))
        found.update((row.id, row.text) for row in rows)
    return found
