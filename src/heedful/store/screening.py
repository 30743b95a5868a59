"""Screening of new labelers as in InstructGPT (arXiv 2203.02155, appendix B.1), in four parts.

(1) agreement with the researchers on what is sensitive, (2) agreement with them on rankings, (3) demonstrations on
sensitive prompts, graded 1-7, (4) for which groups and topics they say they can tell sensitive speech. Cut-offs are
soft: 75 %, 75 % and 6; a lead decides. Held-out labelers are not screened.

(1) and (2) come out of the same items: candidates and leads rate and rank them on the ordinary page. All of it has the
purpose "screening" and trains nothing. What candidates get is a slot of their own for each item of the test.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, func, select

from heedful.config import InputError
from heedful.store.accounts import Account, note
from heedful.store.agreement import Agreement, Clusters
from heedful.store.database import Store, timestamp
from heedful.store.gold import right_of
from heedful.store.progress import Work
from heedful.store.records import SCREENED, is_current, select_records
from heedful.store.schema import (
    accounts,
    demonstrations,
    grades,
    labelers,
    prompts,
    rankings,
    ratings,
    responses,
    skips,
    slots,
    works,
)
from heedful.store.settings import read_number, read_setting
from heedful.store.slots import Slot, own_slot
from heedful.types import Demonstration, Ranking, Rating

CUT_OFFS = ("pass_agreement", "pass_grade")  # settings: 75 % and 6 of 7 unless the project wants otherwise
SENSITIVE = ("sexual", "violent", "encourages_harm", "denigrates_protected", "harmful_advice")
TASKS = ("ranking", "demonstration")
VERDICTS = ("invited", "passed", "failed")


class Part(NamedTuple):
    """How far somebody is with one task of the test."""

    task: str
    done: int
    skipped: int
    total: int

    @property
    def left(self) -> int:
        return self.total - self.done - self.skipped


class Result(NamedTuple):
    """A candidate's figures; an agreement is with each reference, clustered by prompt, `grade` the mean of `graded`."""

    sensitive: Agreement
    ranking: Agreement
    grade: float | None
    graded: int
    parts: list[Part]
    answers: dict[str, Any]


def is_candidate(account: Account) -> bool:
    """Whether the account gets nothing but the test: it was invited to it and has not passed."""
    screened = account.role == "labeler" and account.group == "train"
    return screened and account.screening in ("invited", "failed")


def shown_work(account: Account, work: Work) -> Work:
    """The work as its page shows it: to labelers a gold item looks like any other."""
    open_to = account.leads or is_candidate(account)
    return work if open_to or work.purpose != "screening" else replace(work, purpose="train")


def plan(connection: Connection) -> dict[str, list[tuple[int, str]]]:
    """The test's items: task → (round, prompt), without prompts that were erased since."""
    kept = read_setting(connection, "screening", {})
    there = {item for of_task in kept.values() for _, item in of_task}
    there &= set(connection.execute(select(prompts.c.id).where(prompts.c.id.in_(there))).scalars())
    return {task: [(round, item) for round, item in kept.get(task, []) if item in there] for task in TASKS}


def check_plan(connection: Connection, wanted: Mapping[str, Sequence[str]]) -> dict[str, list[tuple[int, str]]]:
    """The items in the newest round that they have responses of.

    Raises:
        InputError: a prompt that is not there, or to rank with fewer than two responses.
    """
    found: dict[str, list[tuple[int, str]]] = {task: [] for task in TASKS}
    for task, ids in wanted.items():
        for id in dict.fromkeys(ids):
            round = connection.execute(select(prompts.c.round).where(prompts.c.id == id)).scalar()
            if round is None:
                raise InputError("no prompt %(id)s in the store; take ids of prompts that are there", id=id)
            if task == "ranking":
                own = select(responses.c.round).where(responses.c.prompt_id == id).group_by(responses.c.round)
                own = own.having(func.count() > 1).order_by(responses.c.round.desc())
                round = connection.execute(own).scalars().first()
                if round is None:
                    raise InputError("prompt %(id)s has fewer than two responses; there is nothing to rank", id=id)
            found[task].append((round, id))
    return found


def cut_offs(connection: Connection) -> dict[str, float]:
    """From which agreement and grade on a figure is called enough."""
    return {name: read_number(connection, name) for name in CUT_OFFS}


def some_prompts(connection: Connection, task: str, number: int) -> list[str]:
    """So many prompts that the test could take: to rank, those with the most responses; the same ones every time."""
    asked = select(prompts.c.id).order_by(prompts.c.id)
    if task == "ranking":
        asked = select(prompts.c.id).join(responses).group_by(prompts.c.id, responses.c.round)
        asked = asked.having(func.count() > 1).order_by(func.count().desc(), prompts.c.id)
    return list(dict.fromkeys(connection.execute(asked.limit(number)).scalars()))


class Found(NamedTuple):
    """A prompt that the test could take; `rankable`: a round has two responses to it."""

    id: str
    text: str
    rankable: bool


def find_prompts(connection: Connection, text: str, pool: str, limit: int) -> list[Found]:
    """The first so many prompts with this in their text, of the pool where one is named."""
    enough = select(responses.c.prompt_id).group_by(responses.c.prompt_id, responses.c.round).having(func.count() > 1)
    asked = select(prompts.c.id, prompts.c.text, prompts.c.id.in_(enough).label("rankable"))
    asked = asked.where(prompts.c.text.icontains(text, autoescape=True))
    if pool:
        asked = asked.where(prompts.c.pool == pool)
    return [Found(*row) for row in connection.execute(asked.order_by(prompts.c.id).limit(limit))]


def _work(account: Account, task: Any, round: int) -> Work:
    return Work(task, round=round, group=account.group, purpose="screening")


def parts_of(connection: Connection, account: Account) -> list[Part]:
    """How far the account is: done, passed over, of how many."""
    found = []
    for task, items in plan(connection).items():
        done, skipped = _done(connection, account, task), _skipped(connection, account, task)
        in_plan = set(items)
        found.append(Part(task, len(done & in_plan), len((skipped - done) & in_plan), len(items)))
    return found


def _done(connection: Connection, account: Account, task: str) -> set[tuple[int, str]]:
    own = and_(slots.c.labeler == account.id, slots.c.task == task, slots.c.purpose == "screening")
    return {
        tuple(row)
        for row in connection.execute(select(slots.c.round, slots.c.item).where(own, slots.c.done.is_not(None)))
    }


def _skipped(connection: Connection, account: Account, task: str) -> set[tuple[int, str]]:
    own = and_(skips.c.labeler == account.id, skips.c.task == task, skips.c.purpose == "screening")
    return {tuple(row) for row in connection.execute(select(skips.c.round, skips.c.item).where(own))}


def next_slot(store: Store, account: Account, minutes: float, task: str = "") -> Slot | None:
    """The next item of the test, or of one task of it, leased; None when nothing is left."""
    if account.screening == "failed":
        return None
    expires = timestamp(datetime.now(UTC) + timedelta(minutes=minutes))

    def take(connection: Connection) -> Slot | None:
        store.take_turns(connection, works)
        for name, items in plan(connection).items():
            over = _done(connection, account, name) | _skipped(connection, account, name)
            for round, item in items:
                if (round, item) not in over and task in ("", name):
                    return own_slot(connection, _work(account, name, round), item, account.id, expires)
        return None

    return store.write(take)


def candidates(connection: Connection) -> list[Account]:
    """Everybody who was invited to the test, those still at it first."""
    asked = select(accounts, labelers.c.group).join(labelers, labelers.c.id == accounts.c.id)
    asked = asked.where(accounts.c.screening != "none", accounts.c.role == "labeler", accounts.c.closed.is_(None))
    found = [
        Account(row.id, row.role, row.group, tuple(row.languages), row.locale, row.screening)
        for row in connection.execute(asked.where(labelers.c.group == "train").order_by(accounts.c.id))
    ]
    return sorted(found, key=lambda account: VERDICTS.index(account.screening))


def references(connection: Connection) -> set[str]:
    """Those whose judgements the candidates' are compared with."""
    return set(connection.execute(select(accounts.c.id).where(accounts.c.role != "labeler")).scalars())


def judged_by(connection: Connection) -> dict[str, int]:
    """Who of them has judged how many of the test's ranking items."""
    items = [item for _, item in plan(connection)["ranking"]]
    made = select(rankings.c.labeler, func.count()).where(*_of_test(rankings, items, references(connection)))
    made = made.where(rankings.c.id.not_like("comparison/%")).group_by(rankings.c.labeler).order_by(rankings.c.labeler)
    return {who: number for who, number in connection.execute(made)}


def result(connection: Connection, account: Account) -> Result:
    """The candidate's figures so far."""
    items = {item for _, item in plan(connection)["ranking"]}
    experts = references(connection)
    boxes = set(read_setting(connection, "sensitive_boxes", SENSITIVE))
    own_grades = select(grades.c.grade).join(demonstrations, demonstrations.c.id == grades.c.demonstration_id)
    given = list(connection.execute(own_grades.where(demonstrations.c.labeler == account.id)).scalars())
    answers = connection.execute(select(accounts.c.answers).where(accounts.c.id == account.id)).scalar() or {}
    who = [account.id, *experts]
    ranked = select_records(
        connection, Ranking, *_of_test(rankings, items, who), rankings.c.id.not_like("comparison/%")
    )
    rated = select_records(connection, Rating, *_of_test(ratings, items, who))
    return Result(
        sensitive=_same_flags([r for r in rated if r.labeler == account.id], rated, boxes, experts),
        ranking=_same_order([r for r in ranked if r.labeler == account.id], ranked, experts),
        grade=sum(given) / len(given) if given else None,
        graded=len(given),
        parts=parts_of(connection, account),
        answers=answers,
    )


def _of_test(table: Any, items: Iterable[str], who: Iterable[str]) -> list[Any]:
    at = [table.c.purpose == "screening", table.c.prompt_id.in_(list(items)), table.c.labeler.in_(list(who))]
    return [*at, is_current(table)]


def _same_order(own: Sequence[Ranking], all_of: Sequence[Ranking], experts: set[str]) -> Agreement:
    """Share of the experts' untied pairs that the candidate puts in the same order, a tie by half."""
    clusters = Clusters()
    for mine in own:
        rank = dict(zip(mine.responses, mine.rank, strict=True))
        judged = [
            right_of(dict(zip(theirs.responses, theirs.rank, strict=True)), rank)
            for theirs in all_of
            if theirs.labeler in experts and theirs.prompt_id == mine.prompt_id
        ]
        clusters.add(sum(right for right, _ in judged), sum(pairs for _, pairs in judged))
    return clusters.agreement()


def _same_flags(own: Sequence[Rating], all_of: Sequence[Rating], boxes: set[str], experts: set[str]) -> Agreement:
    """Share of responses that both call sensitive (by any of the boxes) or both do not."""
    said: defaultdict[str, list[bool]] = defaultdict(list)
    for rating in all_of:
        if rating.labeler in experts:
            said[rating.response_id].append(_sensitive(rating, boxes))
    of_prompt: defaultdict[str, list[bool]] = defaultdict(list)
    for rating in own:
        of_prompt[rating.prompt_id] += [_sensitive(rating, boxes) == theirs for theirs in said[rating.response_id]]
    clusters = Clusters()
    for same in of_prompt.values():
        clusters.add(sum(same), len(same))
    return clusters.agreement()


def _sensitive(rating: Rating, boxes: set[str]) -> bool:
    return any(ticked for box, ticked in rating.flags.items() if box in boxes)


def written(connection: Connection, labeler: str) -> list[Demonstration]:
    """The candidate's demonstrations of the test."""
    own = [demonstrations.c.labeler == labeler, demonstrations.c.id.like(f"{SCREENED}%")]
    return select_records(connection, Demonstration, *own, is_current(demonstrations))


def grade(store: Store, demonstration: str, grader: str, mark: int) -> None:
    """Grade a demonstration of the test 1-7, in place of the grader's grade before.

    Raises:
        InputError: a grade out of range, or no such demonstration.
    """
    if not 1 <= mark <= 7:
        raise InputError("a grade is a whole number from 1 to 7")

    def put(connection: Connection) -> None:
        known = select(demonstrations.c.id).where(demonstrations.c.id == demonstration, is_current(demonstrations))
        if not demonstration.startswith(SCREENED) or connection.execute(known).first() is None:
            raise InputError("no such demonstration of the test")
        own = and_(grades.c.demonstration_id == demonstration, grades.c.grader == grader)
        connection.execute(delete(grades).where(own))
        values = {"demonstration_id": demonstration, "grader": grader, "grade": mark, "created": timestamp()}
        connection.execute(grades.insert().values(values))

    store.write(put)


def decide(store: Store, candidate: str, verdict: str, author: str) -> None:
    """Let the candidate pass or fail, or take the test again; what they hold of it and have not done is taken back.

    Raises:
        InputError: nobody of that name was invited to the test, or no such verdict.
    """
    if verdict not in VERDICTS:
        raise InputError(
            "%(verdict)s is no verdict; choose one of %(known)s", verdict=verdict, known=", ".join(VERDICTS)
        )

    def put(connection: Connection) -> None:
        store.take_turns(connection, works)
        own = and_(accounts.c.id == candidate, accounts.c.role == "labeler", accounts.c.screening != "none")
        if not connection.execute(accounts.update().where(own).values(screening=verdict)).rowcount:
            raise InputError("%(name)s was not invited to the screening", name=candidate)
        held = and_(slots.c.labeler == candidate, slots.c.purpose == "screening", slots.c.done.is_(None))
        connection.execute(delete(slots).where(held))
        note(connection, author, "screened", candidate=candidate, verdict=verdict)

    store.write(put)


def keep_answers(store: Store, account: str, answers: Mapping[str, Any]) -> None:
    """The candidate's self-assessment, in place of the one before."""
    store.write(lambda c: c.execute(accounts.update().where(accounts.c.id == account).values(answers=dict(answers))))
