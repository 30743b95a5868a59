"""The labelling app under load, and killed at random."""

import os
import random
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app_client import Labeler
from heedful.store import accounts
from heedful.store.database import Store, open_store
from heedful.store.labels import add_response
from heedful.store.pools import add_prompt
from heedful.store.progress import Work
from heedful.store.schema import rankings, ratings, slots
from heedful.store.slots import offer
from heedful.types import Prompt, Response
from processes import start, wait_until
from stores import new_place, postgres_server

pytestmark = pytest.mark.accept
__all__ = ["new_place", "postgres_server"]
PASSWORD = "a long password"
LABELERS, THINKING, MINUTES = 50, 5.0, 1.25
SUBMISSIONS, KILLS = 1000, 8


def fill(store: Store, prompts: int, responses: int, labelers: int, overlap: float) -> None:
    """Prompts to rank, and labelers to do it."""
    text = "It was a windy day by the harbour, and nobody had seen the red boat. " * 8
    add_prompt(store, *(Prompt(id=f"p{n:05}", text=f"Ask {n}", user=f"u{n}") for n in range(prompts)), pool="ppo")
    add_response(
        store,
        *(
            Response(id=f"p{n:05}/{i}", prompt_id=f"p{n:05}", text=f"{n}, {i}: {text}")
            for n in range(prompts)
            for i in range(responses)
        ),
    )
    for n in range(labelers):
        accounts.add_account(store, f"labeler{n}", PASSWORD)
    offer(store, Work("ranking", overlap=overlap))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """`heedful label serve` as a process that can be killed and started again on the same port."""

    def __init__(self, place: str, output: Path) -> None:
        self.place, self.output, self.port = place, output, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        self.process = start(self.output, "label", "serve", self.place, "--port", self.port)
        wait_until(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()[-3000:]
        try:
            return httpx.get(self.address + "/login").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait()


@pytest.fixture
def server(new_place: Callable[[], str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    place = new_place()
    prompts, responses, labelers, overlap = request.param
    with open_store(place) as store:
        fill(store, prompts, responses, labelers, overlap)
    running = Server(place.replace("postgresql+psycopg://", "postgresql://"), tmp_path / "server.txt")
    yield running
    running.stop()


def in_threads(number: int, work: Callable[[int], None]) -> None:
    failures: list[BaseException] = []

    def careful(n: int) -> None:
        try:
            work(n)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=careful, args=(n,)) for n in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("server", [(200, 4, 20, 2)], indirect=True)
def test_twenty_at_once_judge_everything_exactly_twice(server: Server, record_property: Any) -> None:
    record_property("claim", "20 labelers at once, 200 items, overlap 2, over HTTP: exactly 400 rankings")
    acknowledged: Counter[str] = Counter()

    def work(n: int) -> None:
        labeler = Labeler(server.address, f"labeler{n}", PASSWORD)
        labeler.log_in()
        page = labeler.next()
        while page.url.path.startswith("/item/"):
            page = labeler.post(*labeler.answer(page))
            acknowledged[labeler.name] += 1

    in_threads(20, work)
    with open_store(server.place) as store, store.read() as connection:
        number = connection.execute(select(func.count()).select_from(rankings)).scalar()
        by_item = Counter(connection.execute(select(rankings.c.prompt_id)).scalars())
        marks = connection.execute(select(func.count()).select_from(ratings)).scalar()
    database = server.place.partition(":")[0] if "://" in server.place else "sqlite"
    record_property(
        "measured", f"{database}: {number} rankings, {marks} ratings; labelers did {sorted(acknowledged.values())}"
    )
    assert number == 400 == acknowledged.total() and set(by_item.values()) == {2} and marks == 1600


@pytest.mark.parametrize("server", [(SUBMISSIONS, 4, 8, 1)], indirect=True)
def test_kills_during_submissions_lose_and_double_nothing(server: Server, record_property: Any) -> None:
    claim = f"kill -9 of the server during {SUBMISSIONS:,} submissions loses no acknowledged judgement, doubles none"
    record_property("claim", claim)
    acknowledged: set[str] = set()
    interrupted: Counter[str] = Counter()
    over = threading.Event()

    def kill_now_and_then() -> None:
        draw = random.Random(0)
        for _ in range(KILLS):
            if over.wait(draw.uniform(0.5, 4)):
                return
            server.stop(signal.SIGKILL)
            interrupted["kills"] += 1
            server.start()

    def patiently(labeler: Labeler, ask: Callable[[], httpx.Response]) -> httpx.Response:
        for _ in range(600):
            try:
                return ask()
            except httpx.TransportError:
                interrupted["requests"] += 1
                time.sleep(0.1)
        raise AssertionError(f"{labeler.name} waited in vain")

    def work(n: int) -> None:
        labeler = Labeler(server.address, f"labeler{n}", PASSWORD)
        patiently(labeler, labeler.log_in)
        page = patiently(labeler, labeler.next)
        while page.url.path.startswith("/item/"):
            path, fields = labeler.answer(page)
            page = patiently(labeler, lambda path=path, fields=fields: labeler.post(path, fields))
            assert page.status_code == 200
            acknowledged.add(path.rsplit("/")[-1])
            if not page.url.path.startswith("/item/"):  # a correction of what had come through leads home
                page = patiently(labeler, labeler.next)

    killer = threading.Thread(target=kill_now_and_then)
    killer.start()
    in_threads(8, work)
    over.set()
    killer.join()
    with open_store(server.place) as store, store.read() as connection:
        filled = set(connection.execute(select(slots.c.key).where(slots.c.done.is_not(None))).scalars())
        prompts = Counter(connection.execute(select(rankings.c.prompt_id)).scalars())
    record_property(
        "measured",
        f"{interrupted['kills']} kills, {interrupted['requests']} requests cut off; {len(acknowledged)} acknowledged, "
        f"{prompts.total()} rankings of {len(prompts)} items",
    )
    assert acknowledged <= filled and set(prompts.values()) == {1} and len(prompts) == SUBMISSIONS
    assert interrupted["kills"] >= 3


@pytest.mark.parametrize("server", [(3000, 4, LABELERS, 1)], indirect=True)
def test_fifty_labelers_never_wait(server: Server, record_property: Any) -> None:
    """A page is the answer to one request: to a form that is sent, or to the redirect to the next item."""
    claim = f"{LABELERS} labelers at once with {THINKING:.0f} s of thinking: p95 of a page at most 100 ms on 2 cores"
    record_property("claim", claim)
    sent: list[float] = []
    shown: list[float] = []
    all_in = threading.Barrier(LABELERS)  # logging in hashes passwords, which is slow on purpose

    def work(n: int) -> None:
        draw = random.Random(n)
        labeler = Labeler(server.address, f"labeler{n}", PASSWORD)
        labeler.log_in()
        all_in.wait()
        end = time.monotonic() + 60 * MINUTES
        time.sleep(draw.uniform(0, THINKING))
        page = labeler.next()
        while time.monotonic() < end:
            time.sleep(draw.uniform(0.5, 1.5) * THINKING)
            page = labeler.post(*labeler.answer(page))
            assert page.status_code == 200
            (submitted,) = page.history
            sent.append(submitted.elapsed.total_seconds())
            shown.append(page.elapsed.total_seconds())

    began = cpu_seconds(server.process.pid), time.process_time(), time.monotonic()
    in_threads(LABELERS, work)
    used = cpu_seconds(server.process.pid) - began[0], time.process_time() - began[1]
    server_cores, own_cores = (seconds / (time.monotonic() - began[2]) for seconds in used)
    both = [one + other for one, other in zip(sent, shown, strict=True)]
    record_property(
        "measured",
        f"{len(sent)} submissions. A page: {told([*sent, *shown])}. A submission: {told(sent)}; the next item: "
        f"{told(shown)}; one after the other: {told(both)}. Cores busy: server {server_cores:.2f}, labelers "
        f"{own_cores:.2f}",
    )
    assert statistics.quantiles([*sent, *shown], n=100)[94] <= 0.1


def told(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100)
    return f"median {1000 * cuts[49]:.0f} ms, p95 {1000 * cuts[94]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms"


def cpu_seconds(pid: int) -> float:
    """What the process has used so far."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
