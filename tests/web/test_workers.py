"""The app served by several processes: all of them work, and none outlives the first."""

import os
import signal
import socket
from collections import Counter
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from app_client import Labeler
from heedful.store import accounts
from heedful.store.database import open_store
from heedful.store.progress import Work
from heedful.store.schema import rankings
from heedful.store.slots import offer
from processes import alive, start, wait_until
from small_store import fill

PASSWORD = "a long password"


def forks(pid: int) -> list[int]:
    found = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text()
    return [int(child) for child in found.split()]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_three_processes_serve_one_store_and_end_together(how: signal.Signals, tmp_path: Path) -> None:
    place = tmp_path / "store.db"
    with open_store(place) as store:
        fill(store)
        for name in ("ada", "ben"):
            accounts.add_account(store, name, PASSWORD)
        offer(store, Work("ranking", overlap=4))  # two have judged everything already
        with store.read() as connection:
            before = connection.execute(select(func.count()).select_from(rankings)).scalar_one()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = tmp_path / "said.txt"
    process = start(said, "label", "serve", place, "--port", port, "--workers", 3)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, said.read_text()
        try:
            return httpx.get(f"{address}/login").status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers)
        others = forks(process.pid)
        assert len(others) == 2
        done: Counter[str] = Counter()
        for name in ("ada", "ben"):
            labeler = Labeler(address, name, PASSWORD)
            labeler.log_in()
            page = labeler.next()
            while page.url.path.startswith("/item/"):
                page = labeler.post(*labeler.answer(page))
                done[name] += 1
        with open_store(place) as store, store.read() as connection:
            after = connection.execute(select(func.count()).select_from(rankings)).scalar_one()
        assert done["ada"] and done["ben"] and after - before == done.total()
        process.send_signal(how)
        assert process.wait(20) == (0 if how == signal.SIGTERM else -how)
        wait_until(lambda: not any(map(alive, others)), 10)
    finally:
        for pid in [process.pid, *others]:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
    assert "Traceback" not in said.read_text()
