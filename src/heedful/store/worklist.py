"""The works of a project as its leads see and change them: how far each is, at which pace, what was passed over."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, case, delete, func, or_, select

from heedful.config import InputError
from heedful.store.accounts import note
from heedful.store.database import Store, timestamp
from heedful.store.progress import NEW, Work, is_of, is_set_aside, wanted
from heedful.store.records import chunks
from heedful.store.schema import skips, slots, works
from heedful.store.slots import in_pool, key_of, offer, options_of, withdraw

TIMED = 1000  # judgements, the newest, whose seconds make the median
PURPOSES: dict[str, tuple[str, ...]] = {
    "ranking": ("train", "evaluation"),
    "demonstration": ("train",),
    "rating": ("train", "evaluation"),
    "comparison": ("train", "evaluation"),
    "toxicity": ("evaluation",),
    "prompt": ("train",),
    "red_team": ("train", "evaluation"),
    "chat": ("train", "evaluation"),
}


class Standing(NamedTuple):
    """A work and how it stands. Counts are of slots: an item that three are to judge counts three times."""

    work: Work
    number: int  # of items, where labelers make them
    closed: str | None
    done: int
    total: int  # without what was set aside
    leased: int
    workers: tuple[str, ...]  # who holds an item right now
    skipped: int  # times that somebody passed an item over
    cannot: int  # times that somebody said that it cannot be judged
    aside: int  # items that nobody else is asked
    last_day: int  # filled in the last 24 hours
    seconds: float | None  # the median of an item's, on its page

    @property
    def left(self) -> int:
        return self.total - self.done

    @property
    def days_left(self) -> float | None:
        """At the pace of the last 24 hours; None where nothing was done in them."""
        return self.left / self.last_day if self.last_day else None

    @property
    def hours_left(self) -> float | None:
        """Of people's time, at the median seconds; None where nothing was timed."""
        return None if self.seconds is None else self.left * self.seconds / 3600


def standings(connection: Connection) -> list[Standing]:
    """Every work there is or was, those on offer first, in the order they came in."""
    rows = connection.execute(select(works).order_by(works.c.created, works.c.task)).all()
    found = [_standing(connection, work_at(row), row.options.get("number", 0), row.closed) for row in rows]
    return sorted(found, key=lambda standing: standing.closed is not None)


def work_at(row: Any) -> Work:
    """The work of a row of `works`."""
    return Work(row.task, row.round, row.pool or None, row.overlap, row.group, row.purpose)


def _standing(connection: Connection, work: Work, number: int, closed: str | None) -> Standing:
    now = datetime.now(UTC)
    own = and_(is_of(slots, work), in_pool(work))
    held = and_(slots.c.done.is_(None), slots.c.labeler.is_not(None), slots.c.expires > timestamp(now))
    lately = slots.c.done > timestamp(now - timedelta(days=1))
    counted = or_(slots.c.done.is_not(None), ~is_set_aside(connection, work))
    asked = select(
        func.count(slots.c.done),
        func.count(case((counted, 1))),
        func.count(case((held, 1))),
        func.count(case((lately, 1))),
    )
    done, total, leased, last_day = connection.execute(asked.where(own)).one()
    workers = select(slots.c.labeler).where(own, held).distinct().order_by(slots.c.labeler)
    of_work = select(slots.c.item).where(own)
    passed = select(func.count(case((~skips.c.final, 1))), func.count(case((skips.c.final, 1))))
    skipped, cannot = connection.execute(passed.where(is_of(skips, work), skips.c.item.in_(of_work))).one()
    aside = select(func.count(slots.c.item.distinct())).where(own, is_set_aside(connection, work))
    timed = select(slots.c.seconds).where(own, slots.c.seconds.is_not(None)).order_by(slots.c.done.desc()).limit(TIMED)
    seconds = connection.execute(timed).scalars().all()
    return Standing(
        *(work, number, closed, done, total, leased, tuple(connection.execute(workers).scalars())),
        *(skipped, cannot, connection.execute(aside).scalar_one(), last_day),
        statistics.median(seconds) if seconds else None,
    )


def find_work(connection: Connection, task: str, purpose: str, round: int, group: str, pool: str) -> Any:
    """The row of `works` of these names, open or withdrawn; None where there is none."""
    named = {"task": task, "purpose": purpose, "round": round, "group": group, "pool": pool}
    return connection.execute(select(works).where(*(works.c[name] == value for name, value in named.items()))).first()


def put_on_offer(store: Store, author: str, work: Work, options: Mapping[str, Any]) -> int:
    """Offer new work, or work withdrawn before, or bring it up to date: its overlap and its options (see
    `slots.offer`). Slots that nobody holds and nobody needs any more go.

    Returns:
        The number of slots nobody has filled.

    Raises:
        InputError: the task has no such purpose, the same prompts are on offer by another name, or work that
            labelers make has no number of items, a pool or several labelers per item.
    """
    if work.purpose not in PURPOSES[work.task]:
        fits = {"task": work.task, "purposes": " / ".join(PURPOSES[work.task]), "purpose": work.purpose}
        raise InputError("%(task)s is for %(purposes)s, not for %(purpose)s", **fits)
    if work.task in NEW and "number" not in options:
        raise InputError("%(task)s: say the number of items, which labelers make", task=work.task)
    if work.task in NEW and (work.pool is not None or work.overlap != 1):
        raise InputError("%(task)s: who makes an item is its only labeler, and it is of no pool", task=work.task)
    with store.read() as connection:
        same = and_(is_of(works, work), works.c.closed.is_(None), works.c.pool != (work.pool or ""))
        for pool in connection.execute(select(works.c.pool).where(same)).scalars():
            if not pool or work.pool is None:
                if pool:
                    raise InputError(
                        "prompts of the pool %(pool)s are on offer for this already; withdraw that first", pool=pool
                    )
                raise InputError("prompts of any pool are on offer for this already; withdraw that first")
    left = offer(store, work, options)

    def tidy(connection: Connection) -> int:
        store.take_turns(connection, works)
        gone = trim(connection, work)
        details = {**key_of(work), "pool": work.pool or "", "overlap": work.overlap}
        note(connection, author, "put on offer", **details, **({"options": options} if options else {}))
        return gone

    return left - store.write(tidy)


def trim(connection: Connection, work: Work) -> int:
    """Delete the open slots beyond what is wanted; how many there were."""
    number = options_of(connection, work).get("number", 0)
    held: dict[str, list[Any]] = defaultdict(list)
    asked = select(slots.c.item, slots.c.key, slots.c.labeler).where(is_of(slots, work), in_pool(work))
    for row in connection.execute(asked.order_by(slots.c.number.desc())):
        held[row.item].append(row)
    gone: list[str] = []
    for item, rows in held.items():
        keep = wanted(work, item)
        if work.task in NEW and int(item.partition("/")[2]) >= number:
            keep = 0
        gone += [row.key for row in rows if row.labeler is None][: max(0, len(rows) - keep)]
    for chunk in chunks(gone):
        connection.execute(delete(slots).where(slots.c.key.in_(chunk)))
    return len(gone)


def take_off_offer(store: Store, author: str, work: Work) -> None:
    """`slots.withdraw`, written down."""
    withdraw(store, work)
    details = {**key_of(work), "pool": work.pool or ""}
    store.write(lambda connection: note(connection, author, "withdrew", **details))
