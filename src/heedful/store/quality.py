"""How well the labelling goes, in figures: one pass over the judgements of one purpose, prompt by prompt.

Rankings of different purposes follow different guidelines and are never compared. Nothing here holds more than one
prompt's judgements at a time, and of every ranking its seconds.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from itertools import combinations, groupby
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, func, select

from heedful.store.agreement import Agreement, Clusters, agreed_of, preferences_of
from heedful.store.database import timestamp
from heedful.store.records import SCREENED, is_current
from heedful.store.reliability import (
    Alpha,
    Reliability,
    best_share,
    concordance,
    quartiles,
    tau_b,
    wilson,
)
from heedful.store.schema import demonstrations, labelers, ranking_items, rankings, ratings, skips
from heedful.types import Purpose

AT_ONCE = 5000  # rows that the database hands over together


class Ranked(NamedTuple):
    """A ranking as it is measured: response → rank, in the order shown."""

    id: str
    labeler: str
    round: int
    seconds: float | None
    rank: dict[str, int]
    first: str | None  # the response shown first, where that was recorded


class Reading(NamedTuple):
    """Agreement on preferences, and the mean tau-b of two labelers' rankings of one prompt."""

    agreement: Agreement
    tau: Agreement


class Speed(NamedTuple):
    """Seconds per ranking of K responses."""

    k: int
    number: int
    lower: float
    median: float
    upper: float

    @property
    def per_pair(self) -> float:
        """Seconds that one comparison costs: K (K − 1) / 2 come out of a ranking."""
        return self.median / (self.k * (self.k - 1) / 2)


class Habit(NamedTuple):
    """How often the response shown first was placed best, out of `number` rankings; `expected` is the mean of 1/K."""

    share: float
    low: float
    high: float
    expected: float
    number: int


class Person(NamedTuple):
    """A labeler's line."""

    labeler: str
    group: str
    kind: str
    items: int
    hours: float | None
    reading: Reading
    skip_rate: float | None
    ties: float | None
    habit: Habit | None


class Likert(NamedTuple):
    """Whether a better place goes with a higher overall mark: share among pairs in different places with different
    marks; `same_mark` is the share of all pairs in different places that have the same mark."""

    concordant: Agreement
    same_mark: float | None


class Quality(NamedTuple):
    """Everything the page shows. Names of `groups` are train, heldout, across and all; of `alphas` overall and the
    boxes, each with a figure for its level of measurement."""

    at: str
    number: int
    groups: dict[str, Reading]
    tasks: dict[str, Reading]
    people: list[Person]
    alphas: dict[str, dict[str, Alpha]]
    same_box: dict[str, Agreement]
    likert: Likert
    speed: list[Speed]


def task_of(id: str) -> str:
    """Which task made the ranking: ids begin with the task's name in all but plain rankings."""
    name = id.partition("/")[0]
    return name if name in ("comparison", "toxicity", "chat") else "ranking"


def by_prompt(connection: Connection, purpose: Purpose, *conditions: Any) -> Iterator[tuple[str, list[Ranked]]]:
    """Every ranked prompt with the rankings of it that stand."""
    columns = (rankings.c.id, rankings.c.prompt_id, rankings.c.labeler, rankings.c.round, rankings.c.seconds)
    items = (ranking_items.c.response_id, ranking_items.c.rank, ranking_items.c.presented)
    asked = select(*columns, *items).join(ranking_items, ranking_items.c.ranking_id == rankings.c.id)
    asked = asked.where(rankings.c.purpose == purpose, is_current(rankings), *conditions)
    order = rankings.c.prompt_id, rankings.c.id, ranking_items.c.position
    rows = connection.execute(asked.execution_options(yield_per=AT_ONCE).order_by(*order))
    for prompt, of_prompt in groupby(rows, lambda row: row[1]):
        found = []
        for id, lines in groupby(of_prompt, lambda row: row[0]):
            all_of = list(lines)
            first = next((row[5] for row in all_of if row[7] == 0), None)
            rank = {row[5]: row[6] for row in all_of}
            found.append(Ranked(id, all_of[0][2], all_of[0][3], all_of[0][4], rank, first))
        yield prompt, found


class _Pair:
    """Agreement and tau-b over clusters."""

    def __init__(self) -> None:
        self.same, self.tau = Clusters(), Clusters()

    def add(self, agreed: float, compared: int, tau: float, rankings: int) -> None:
        self.same.add(agreed, compared)
        self.tau.add(tau, rankings)

    def reading(self) -> Reading:
        return Reading(self.same.agreement(), self.tau.agreement())


class _Tally:
    """What is counted of one labeler."""

    def __init__(self) -> None:
        self.rankings = self.pairs = self.tied = self.shown = 0
        self.first = self.expected = 0.0

    def add(self, ranked: Ranked) -> None:
        k = len(ranked.rank)
        self.rankings += 1
        self.pairs += k * (k - 1) // 2
        self.tied += sum(n * (n - 1) // 2 for n in Counter(ranked.rank.values()).values())
        if ranked.first is not None:
            self.shown += 1
            self.first += best_share(ranked.rank, ranked.first)
            self.expected += 1 / k

    def habit(self) -> Habit | None:
        if not self.shown:
            return None
        share = self.first / self.shown
        return Habit(share, *wilson(share, self.shown), self.expected / self.shown, self.shown)


def measure(connection: Connection, purpose: Purpose = "train") -> Quality:
    """The figures of all judgements made for the purpose."""
    group_of = {row.id: (row.group, row.kind) for row in connection.execute(select(labelers))}
    readings: defaultdict[tuple[str, str], _Pair] = defaultdict(_Pair)
    tallies: defaultdict[str, _Tally] = defaultdict(_Tally)
    seconds: defaultdict[int, list[float]] = defaultdict(list)
    number = 0
    for _, found in by_prompt(connection, purpose):
        for ranked in found:
            number += 1
            tallies[ranked.labeler].add(ranked)
            if ranked.seconds is not None and task_of(ranked.id) == "ranking":
                seconds[len(ranked.rank)].append(ranked.seconds)
        for name, sums in _compared(found, {id: group for id, (group, _) in group_of.items()}).items():
            readings[name].add(*sums)
    alphas, same_box = _alphas(connection, purpose)
    return Quality(
        at=timestamp(),
        number=number,
        groups={name: readings["group", name].reading() for name in ("train", "heldout", "across", "all")},
        tasks={name: pair.reading() for (kind, name), pair in sorted(readings.items()) if kind == "task"},
        people=_people(connection, purpose, group_of, readings, tallies),
        alphas=alphas,
        same_box=same_box,
        likert=_likert(connection, purpose),
        speed=[Speed(k, len(of_k), *quartiles(of_k)) for k, of_k in sorted(seconds.items())],
    )


Sums = tuple[float, int, float, int]


def _compared(found: list[Ranked], group_of: Mapping[str, str]) -> dict[tuple[str, str], Sums]:
    """What each two labelers of one prompt say of each other, summed under every name it counts for.

    A labeler who ranked the same two responses more than once is heard by the last ranking.
    """
    by_task: defaultdict[str, defaultdict[str, dict[tuple[str, str], int]]] = defaultdict(lambda: defaultdict(dict))
    for ranked in found:
        by_task[task_of(ranked.id)][ranked.labeler].update(preferences_of(ranked.rank))
    sums: dict[tuple[str, str], Sums] = {}
    for task, of_labeler in by_task.items():
        for (one, first), (other, second) in combinations(of_labeler.items(), 2):
            agreed, compared = agreed_of(first, second)
            tau = tau_b(first, second)
            groups = {group_of[one], group_of[other]}
            within = groups.pop() if len(groups) == 1 else "across"
            names = [("group", within), ("group", "all"), ("task", task), ("labeler", one), ("labeler", other)]
            for name in names:
                a, n, t, r = sums.get(name, (0.0, 0, 0.0, 0))
                sums[name] = (a + agreed, n + compared, t + (tau or 0.0), r + (tau is not None))
    return sums


def _people(
    connection: Connection,
    purpose: Purpose,
    group_of: Mapping[str, tuple[str, str]],
    readings: Mapping[tuple[str, str], _Pair],
    tallies: Mapping[str, _Tally],
) -> list[Person]:
    items, hours = _items_and_hours(connection, purpose)
    asked = select(skips.c.labeler, func.count()).where(skips.c.purpose == purpose, skips.c.final.is_(False))
    skipped = dict(tuple(row) for row in connection.execute(asked.group_by(skips.c.labeler)))
    people = []
    for id in sorted({*items, *skipped}):
        tally, done, passed = tallies.get(id, _Tally()), items.get(id, 0), skipped.get(id, 0)
        people.append(
            Person(
                labeler=id,
                group=group_of[id][0],
                kind=group_of[id][1],
                items=done,
                hours=hours.get(id),
                reading=readings.get(("labeler", id), _Pair()).reading(),
                skip_rate=passed / (passed + done) if passed + done else None,
                ties=tally.tied / tally.pairs if tally.pairs else None,
                habit=tally.habit(),
            )
        )
    return people


def _items_and_hours(connection: Connection, purpose: Purpose) -> tuple[Counter[str], dict[str, float]]:
    """Labeler → rankings, single ratings and demonstrations that stand; → hours of work on all versions of them."""
    items: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    for table in (rankings, ratings, demonstrations):
        made = [_made_for(purpose, table)]
        for id, total in connection.execute(
            select(table.c.labeler, func.sum(table.c.seconds)).where(*made).group_by(table.c.labeler)
        ):
            if total is not None:
                spent[id] += total
        if table is not ratings:  # those of a ranking's page are part of one item
            counted = select(table.c.labeler, func.count()).where(*made, is_current(table)).group_by(table.c.labeler)
            items.update(dict(tuple(row) for row in connection.execute(counted)))
    return items, {id: total / 3600 for id, total in spent.items()}


def _made_for(purpose: Purpose, table: Any) -> Any:
    if "purpose" in table.c:
        return table.c.purpose == purpose
    screening = table.c.id.like(f"{SCREENED}%")
    if purpose == "screening":
        return screening
    return ~screening if purpose == "train" else screening & ~screening


def _alphas(connection: Connection, purpose: Purpose) -> tuple[dict[str, dict[str, Alpha]], dict[str, Agreement]]:
    """Of the overall mark and each box: Krippendorff's alpha, and the share of pairs of labelers who said the same."""
    often = select(ratings.c.response_id).where(ratings.c.purpose == purpose, is_current(ratings))
    often = often.group_by(ratings.c.response_id).having(func.count() > 1)
    asked = select(ratings.c.prompt_id, ratings.c.response_id, ratings.c.labeler, ratings.c.overall, ratings.c.flags)
    asked = asked.where(ratings.c.purpose == purpose, is_current(ratings), ratings.c.response_id.in_(often))
    asked = asked.where(ratings.c.id.not_like("toxicity/%"))
    rows = connection.execute(asked.execution_options(yield_per=AT_ONCE).order_by(ratings.c.prompt_id, ratings.c.id))
    overall = Reliability()
    boxes: defaultdict[str, Reliability] = defaultdict(Reliability)
    same: defaultdict[str, Clusters] = defaultdict(Clusters)
    for _, of_prompt in groupby(rows, lambda row: row[0]):
        marks: defaultdict[str, dict[str, int]] = defaultdict(dict)
        ticks: defaultdict[str, defaultdict[str, dict[str, bool]]] = defaultdict(lambda: defaultdict(dict))
        for _, response, labeler, mark, flags in of_prompt:
            marks[response][labeler] = mark
            for box, ticked in flags.items():
                ticks[box][response][labeler] = ticked
        overall.add([Counter(of.values()) for of in marks.values()])
        for box, of_box in ticks.items():
            units = [Counter(map(int, of.values())) for of in of_box.values()]
            boxes[box].add(units)
            pairs = [(n := sum(unit.values())) * (n - 1) // 2 for unit in units]
            equal = [sum(n * (n - 1) // 2 for n in unit.values()) for unit in units]
            same[box].add(sum(equal), sum(pairs))
    found = {"overall": {"ordinal": overall.alpha("ordinal"), "interval": overall.alpha("interval")}}
    found |= {box: {"nominal": kept.alpha("nominal")} for box, kept in boxes.items()}
    return found, {box: clusters.agreement() for box, clusters in same.items()}


def _likert(connection: Connection, purpose: Purpose) -> Likert:
    """Marks beside places, of labelers who gave both."""
    own = and_(
        ratings.c.response_id == ranking_items.c.response_id,
        ratings.c.labeler == rankings.c.labeler,
        ratings.c.purpose == purpose,
    )
    asked = select(
        rankings.c.prompt_id, rankings.c.id, ranking_items.c.response_id, ranking_items.c.rank, ratings.c.overall
    )
    asked = asked.join(ranking_items, ranking_items.c.ranking_id == rankings.c.id).join(ratings, own)
    asked = asked.where(rankings.c.purpose == purpose, is_current(rankings), is_current(ratings))
    asked = asked.where(rankings.c.id.not_like("toxicity/%"), ratings.c.id.not_like("toxicity/%"))
    rows = connection.execute(asked.execution_options(yield_per=AT_ONCE).order_by(rankings.c.prompt_id, rankings.c.id))
    clusters, same, pairs = Clusters(), 0, 0
    for _, of_prompt in groupby(rows, lambda row: row[0]):
        agreed = compared = 0
        for _, lines in groupby(of_prompt, lambda row: row[1]):
            all_of = list(lines)
            found = concordance({row[2]: row[3] for row in all_of}, {row[2]: row[4] for row in all_of})
            agreed += found.concordant
            compared += found.concordant + found.discordant
            same += found.same_mark
        pairs += compared
        clusters.add(agreed, compared)
    return Likert(clusters.agreement(), same / (pairs + same) if pairs + same else None)
