"""The one thread that generates: all requests of all clients share its steps.

Handlers put a job in and wait for its pieces; between two steps the thread takes in what has come, and frees the rows
of those who left. Everything but `_run` and what it calls is for the event loop's thread.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from heedful.engine.engine import FAILED, Engine, Session
from heedful.engine.odds import Odds
from heedful.engine.slots import NewToken, Request
from heedful.engine.spelling import Piece, Spelling, Writer
from heedful.serve.errors import ApiError, bad

log = logging.getLogger("heedful.serve")


class Heard(NamedTuple):
    """A piece of one of a job's responses. Its choice counts samples first, then requests."""

    choice: int
    piece: Piece
    num_tokens: int  # made since the last piece of this choice, whether they are told or not
    prompt_odds: list[Odds]


@dataclass(eq=False)
class Job:
    """Requests of one client, answered together."""

    requests: Sequence[Request]
    stop: Sequence[str] = ()
    follows: Sequence[bool] = (False,)  # of each request: the response goes on from the prompt's text
    streams: bool = False  # wants pieces as they are made, not once when a choice is finished
    heard: asyncio.Queue[Heard | ApiError] = field(default_factory=asyncio.Queue)
    open: int = 0  # choices not finished

    async def pieces(self) -> AsyncIterator[Heard]:
        """Until every choice is finished.

        Raises:
            ApiError: generating failed, or the server ends.
        """
        while self.open:
            heard = await self.heard.get()
            if isinstance(heard, ApiError):
                raise heard
            self.open -= heard.piece.finish is not None
            yield heard


class _Choice:
    """One response as the thread writes it."""

    def __init__(self, writer: Writer) -> None:
        self.writer = writer
        self.num_tokens = 0  # not told yet


class Worker:
    """Runs an engine in a thread of its own."""

    def __init__(self, engine: Engine, spelling: Spelling, max_waiting: int, threads: int | None = None) -> None:
        """`max_waiting`: responses that may wait for a row. `threads` of torch; None: torch's own choice."""
        self._engine, self._spelling, self._max_waiting, self._threads = engine, spelling, max_waiting, threads
        self._changed = threading.Condition()
        self._new: list[Job] = []
        self._left: list[Job] = []
        self._ending = False
        self._jobs: dict[Job, int] = {}  # to the responses it still takes room for
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        self.alive = 0  # rows at the last step

    @property
    def asked(self) -> int:
        """Responses being generated or waiting."""
        return sum(self._jobs.values())

    def submit(self, job: Job) -> None:
        """Put a job in, behind those that wait.

        Raises:
            ApiError: there are too many.
        """
        number = sum(request.num_samples for request in job.requests)
        most = self._engine.max_rows + self._max_waiting
        if number > most:
            param = "n" if len(job.requests) == 1 else "prompt"
            raise bad(f"{number} responses at once are more than the {most} that this server takes", param)
        if self.asked + number > most:
            message = f"{self.asked} responses are being generated or wait; try again in a moment"
            raise ApiError(429, message, None, "rate_limit_exceeded", "rate_limit_error", {"Retry-After": "1"})
        job.open = self._jobs[job] = number
        with self._changed:
            if self._ending:
                raise ApiError(503, "the server is shutting down", type="server_error")
            self._new.append(job)
            self._changed.notify()

    def leave(self, job: Job) -> None:
        """The job's client wants no more; nothing happens where it is finished."""
        if self._jobs.pop(job, 0):
            with self._changed:
                self._left.append(job)

    async def close(self) -> None:
        """End the thread after its present step; jobs that are open get an error."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        error = ApiError(503, "the server is shutting down", type="server_error")
        self._hand_over(0, [(job, error) for job in self._jobs])

    def _hand_over(self, alive: int, batch: Sequence[tuple[Job, Heard | ApiError]]) -> None:
        self.alive = alive
        for job, heard in batch:
            if job in self._jobs:
                job.heard.put_nowait(heard)
                if isinstance(heard, ApiError):
                    self._jobs[job] = 0
                elif heard.piece.finish is not None:
                    self._jobs[job] -= 1
        self._jobs = {job: number for job, number in self._jobs.items() if number}

    def _run(self) -> None:
        """The thread: sleep until there is work, work until there is none."""
        if self._threads is not None:
            torch.set_num_threads(self._threads)  # counts for the thread that calls it
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._new or self._ending)
                if self._ending:
                    return
            busy = _Busy(self._spelling)
            try:
                with self._engine.session() as session:
                    busy.until_idle(self, session)
            except Exception:  # such as memory that ran out: its requests fail, the server goes on
                log.exception("generating failed")
                error = ApiError(500, "generating failed; the server's log says why", type="server_error")
                self.tell(0, [(job, error) for job in busy.jobs() + self.take()[0]])

    def take(self) -> tuple[list[Job], list[Job], bool]:
        """For the thread: (jobs that came, jobs that left, whether to end) since the last call."""
        with self._changed:
            new, left = self._new, self._left
            self._new, self._left = [], []
            return new, left, self._ending

    def tell(self, alive: int, batch: Sequence[tuple[Job, Heard | ApiError]]) -> None:
        """For the thread: hand pieces, and errors that end a job, over to the event loop."""
        self._loop.call_soon_threadsafe(self._hand_over, alive, batch)


class _Busy:
    """A time of work between two rests: what is known of a session's requests."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._next = 0  # the session's number for the next request
        self._owner: dict[int, tuple[Job, int]] = {}  # number → job and its first choice
        self._choices: dict[tuple[int, int], _Choice] = {}  # number and sample

    def jobs(self) -> list[Job]:
        """Those that are open."""
        return list({job for job, _ in self._owner.values()})

    def until_idle(self, worker: Worker, session: Session) -> None:
        alive = 0
        while True:
            new, left, ending = worker.take()
            for job in new:
                self._take_in(session, job)
            for job in left:
                self._drop(session, job)
            if ending or not session.busy:
                worker.tell(session.alive, [])
                return
            session.step()
            batch = [heard for token in session.newest() for heard in self._hear(session, token)]
            session.collect()
            if batch or session.alive != alive:
                worker.tell(session.alive, batch)
            alive = session.alive

    def _take_in(self, session: Session, job: Job) -> None:
        first = 0
        for request, follows in zip(job.requests, job.follows, strict=True):
            session.add(self._next, request)
            self._owner[self._next] = (job, first)
            for sample in range(request.num_samples):
                self._choices[self._next, sample] = _Choice(Writer(self._spelling, job.stop, follows))
            first += request.num_samples
            self._next += 1

    def _drop(self, session: Session, job: Job) -> None:
        for number in [number for number, (owner, _) in self._owner.items() if owner is job]:
            session.cancel(number)
            del self._owner[number]
            for who in [who for who in self._choices if who[0] == number]:
                del self._choices[who]

    def _hear(self, session: Session, token: NewToken) -> Sequence[tuple[Job, Heard | ApiError]]:
        """What the token lets us tell."""
        if token.order not in self._owner:  # another of the job's responses has just failed
            return []
        job, first = self._owner[token.order]
        if token.failed:
            self._drop(session, job)
            return [(job, ApiError(500, FAILED, type="server_error"))]
        who = (token.order, token.sample)
        choice = self._choices[who]
        finished = True
        if job.requests[0].max_new_tokens:
            finished = choice.writer.add(token.token, token.ends, token.last, token.odds)
            choice.num_tokens += 1
        if not (finished or job.streams):
            return []
        piece = choice.writer.take() if choice.num_tokens else Piece("", [], "length")
        if not (finished or piece.text or piece.tokens):
            return []
        heard = Heard(first + token.sample, piece, choice.num_tokens, token.prompt_odds)
        choice.num_tokens = 0
        if finished:
            if not token.last:
                session.cancel(*who)
            del self._choices[who]
            if not any(number == token.order for number, _ in self._choices):
                del self._owner[token.order]
        return [(job, heard)]
