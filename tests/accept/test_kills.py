"""kill -9 at random moments, workers at work or not: the run ends with the bytes of one never interrupted."""

import functools
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from processes import alive, children, start, wait_until
from same_run import differences, files
from tiny import TINY

pytestmark = pytest.mark.accept
SETTINGS = ("rounds=2", "ppo.iterations=4", "ppo.normalize_score=true", "ppo.kl_target=0.5")
TWO_ROUNDS = ("--cores", 2, *(word for setting in SETTINGS for word in ("--set", setting)))
KILLS = 10


def at_work(folder: Path) -> str:
    """The steps that were begun and not done, or where the run stood otherwise."""
    begun = {path.parent for path in folder.rglob("manifest.json")}
    open_steps = sorted(path.name for path in begun if not (path / "done.json").exists())
    return "+".join(open_steps) or "between steps"


def one_life(output: Path, folder: Path, arguments: tuple[object, ...], seconds: float) -> tuple[int, list[int]]:
    """Run on and be killed so many seconds after getting to work; the exit code, and the workers there were."""
    opened, lock = time.time(), folder / "lock"
    process = start(output, *arguments, folder)
    wait_until(lambda: process.poll() is not None or (lock.exists() and lock.stat().st_mtime > opened), 3600)
    end = time.time() + seconds
    while process.poll() is None and time.time() < end:
        time.sleep(0.002)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    return process.wait(), workers


@pytest.mark.parametrize("seed", [0, 1])
def test_random_kills_of_a_run_with_workers_change_no_byte(seed: int, tmp_path: Path, record_property: Any) -> None:
    claim = f"{KILLS} and more kills -9 at random moments of two rounds on two cores (seed {seed}) change no byte"
    record_property("claim", claim)
    output, folder, whole = tmp_path / "output.txt", tmp_path / "run", tmp_path / "whole"
    arguments = ("run", TINY, *TWO_ROUNDS, "--dir")
    began = time.time()
    assert start(output, *arguments, whole).wait() == 0, output.read_text()[-3000:]
    seconds = time.time() - began

    draw = random.Random(seed)
    moments: Counter[str] = Counter()
    with_workers = 0
    while True:
        code, workers = one_life(output, folder, arguments, draw.uniform(0, 2 * seconds / (KILLS + 8)))
        if code != -signal.SIGKILL:
            break
        wait_until(functools.partial(nobody_alive, workers), 3600)
        moments[at_work(folder)] += 1
        with_workers += bool(workers)
    assert code == 0, output.read_text()[-3000:]
    found = list(differences(folder, whole))
    record_property(
        "measured",
        f"{moments.total()} kills, {with_workers} with workers alive, at: {', '.join(sorted(moments))}; "
        f"{len(files(whole))} files compared, {len(found)} differ",
    )
    assert found == []
    assert moments.total() >= KILLS and with_workers >= 1


def nobody_alive(pids: list[int]) -> bool:
    return not any(map(alive, pids))
