"""Gold items: those whose answer is known. Labelers get some among their other items, and do not see which.

A gold item is a slot of its labeler's own, of a work with the purpose "screening": what is judged there never trains
anything, and is compared with the answer. Only works of the purpose train and of the same round get them, so that
guideline and responses are like those of the items around.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, or_, select

from heedful.config import InputError
from heedful.store.agreement import Agreement, Clusters
from heedful.store.database import Store, timestamp
from heedful.store.language import language_to_read, readable
from heedful.store.pools import unit
from heedful.store.progress import Work
from heedful.store.records import is_current, select_entries, select_records
from heedful.store.schema import accounts, gold, prompts, rankings, ratings, skips, slots
from heedful.store.settings import read_number
from heedful.types import Ranking, Rating


class Gold(NamedTuple):
    """An item and its answer: response → rank, response → box → ticked."""

    task: str
    item: str
    round: int
    rank: dict[str, int]
    flags: dict[str, dict[str, bool]]
    author: str
    note: str
    created: str


def read_gold(connection: Connection) -> list[Gold]:
    """All gold items, the newest first."""
    rows = connection.execute(select(gold).order_by(gold.c.created.desc(), gold.c.item))
    return [
        Gold(row.task, row.item, row.answer["round"], row.answer["rank"], row.answer["flags"], *row[3:]) for row in rows
    ]


def mark(store: Store, ranking: str, author: str, note: str = "") -> None:
    """Make the ranked prompt a gold item, answered by the ranking and its labeler's boxes; any answer before goes.

    Raises:
        InputError: no such ranking, one that was replaced, or one that puts no response before another.
    """

    def put(connection: Connection) -> None:
        found = select_entries(connection, Ranking, rankings.c.id == ranking, is_current(rankings))
        if not found or ranking.startswith(("comparison/", "toxicity/", "chat/")):
            raise InputError(
                "no current ranking %(id)s; a gold item's answer is the ranking of all responses", id=ranking
            )
        record, row = found[0]
        if len(set(record.rank)) == 1:
            raise InputError("this ranking ties all responses: there is nothing to measure by; choose another item")
        own = [ratings.c.labeler == record.labeler, ratings.c.prompt_id == record.prompt_id, is_current(ratings)]
        marks = select_records(connection, Rating, *own, ratings.c.purpose == record.purpose)
        answer = {
            "round": row["round"],
            "rank": dict(zip(record.responses, record.rank, strict=True)),
            "flags": {rating.response_id: rating.flags for rating in marks},
        }
        key = {"task": "ranking", "item": record.prompt_id}
        connection.execute(delete(gold).where(gold.c.task == key["task"], gold.c.item == key["item"]))
        said = {"answer": answer, "author": author, "note": note, "created": timestamp()}
        connection.execute(gold.insert().values(key | said))

    store.write(put)


def unmark(store: Store, task: str, item: str) -> None:
    """The item is gold no more; what labelers judged stays."""
    store.write(lambda connection: connection.execute(delete(gold).where(gold.c.task == task, gold.c.item == item)))


def is_measured(connection: Connection, labeler: str) -> bool:
    """Whether the labeler gets gold items: leads, who know the answers, do not."""
    role = connection.execute(select(accounts.c.role).where(accounts.c.id == labeler)).scalar()
    return role in (None, "labeler")


def due(connection: Connection, work: Work, labeler: str, languages: Sequence[str] = ()) -> str | None:
    """The gold item that the labeler is to get now in place of another; mostly none.

    What they judged, hold or passed over never comes again.
    """
    if work.purpose != "train" or random.random() >= read_number(connection, "gold_rate"):
        return None
    seen = [
        select(table.c.item).where(table.c.task == work.task, table.c.round == work.round, table.c.labeler == labeler)
        for table in (slots, skips)
    ]
    asked = select(gold.c.item, gold.c.answer, prompts.c.text, prompts.c.task).join(
        prompts, prompts.c.id == gold.c.item
    )
    asked = asked.where(
        gold.c.task == work.task, gold.c.author != labeler, *(gold.c.item.not_in(them) for them in seen)
    )
    if work.pool:
        asked = asked.where(prompts.c.pool == work.pool)
    fits = [
        item
        for item, answer, text, task in connection.execute(asked)
        if answer["round"] == work.round and (not languages or language_to_read(text, task) in readable(languages))
    ]
    return min(fits, key=lambda item: unit(item, f"gold {labeler}"), default=None)


def right_of(answer: Mapping[str, int], rank: Mapping[str, int]) -> tuple[float, int]:
    """Of the answer's untied pairs: how many the ranking has in the same order, a tie by half; of how many.

    By half, because who ties everything should do no better than who guesses.
    """
    pairs = [(a, b) for a, b in combinations(sorted(answer.keys() & rank.keys()), 2) if answer[a] != answer[b]]
    right = 0.0
    for a, b in pairs:
        same = (answer[a] - answer[b]) * (rank[a] - rank[b])
        right += 1 if same > 0 else 0.5 if same == 0 else 0
    return right, len(pairs)


def gold_rankings(connection: Connection, items: Mapping[str, Gold]) -> list[Ranking]:
    """What labelers other than its author made of each gold ranking item."""
    asked = [rankings.c.purpose == "screening", is_current(rankings), rankings.c.prompt_id.in_(select(gold.c.item))]
    found = select_records(connection, Ranking, *asked)
    return [r for r in found if r.prompt_id in items and items[r.prompt_id].author != r.labeler]


class GoldResults(NamedTuple):
    """Share of the answers' pairs that were put right, by labeler and by item."""

    by_labeler: dict[str, Agreement]
    by_item: dict[str, Agreement]


def gold_results(connection: Connection) -> GoldResults:
    """How well gold items were judged; a labeler's figure is clustered by item, an item's by labeler."""
    items = {each.item: each for each in read_gold(connection) if each.task == "ranking"}
    of_labeler: defaultdict[str, Clusters] = defaultdict(Clusters)
    of_item: defaultdict[str, Clusters] = defaultdict(Clusters)
    for ranking in gold_rankings(connection, items):
        judged = right_of(items[ranking.prompt_id].rank, dict(zip(ranking.responses, ranking.rank, strict=True)))
        of_labeler[ranking.labeler].add(*judged)
        of_item[ranking.prompt_id].add(*judged)
    return GoldResults(
        {id: clusters.agreement() for id, clusters in of_labeler.items()},
        {id: clusters.agreement() for id, clusters in of_item.items()},
    )


def own_rankings(connection: Connection, author: str, limit: int = 50) -> list[Any]:
    """The author's newest rankings that could become gold: (id, prompt's id and text, when), with those that are."""
    asked = select(rankings.c.id, rankings.c.prompt_id, prompts.c.text, rankings.c.created)
    asked = asked.join(prompts, prompts.c.id == rankings.c.prompt_id).where(rankings.c.labeler == author)
    plain = or_(*(rankings.c.id.like(f"{task}/%") for task in ("comparison", "toxicity", "chat")))
    asked = asked.where(is_current(rankings), ~plain).order_by(rankings.c.created.desc(), rankings.c.id)
    return list(connection.execute(asked.limit(limit)))
