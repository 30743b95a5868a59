"""kill -9 at random moments, workers at work or not: the run ends with the bytes of one never interrupted."""

import functools
import random
import signal
import subprocess
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
GROWTH = 1.15  # of the longest life after one that finished no step: starting workers alone may take longer than it
# Parts of more than a thousand tokens in fp32: two threads round their products otherwise than one does.
ALONE = ("sft.variants={sft: {epochs: 4}}", "sft.residual_dropout=0.3", "sft.precision=fp32", "ppo_start=sft")
ALONE += ("pools.sft=384", "sft.batch_size=64", "sft.max_tokens=1600")
ALONE += ("ppo.variants={ppo: {ptx_coef: 0}}", "evaluate.prompted=false", "world.document_tokens=6000")
DROPOUT = ("--cores", 2, *(word for setting in ALONE for word in ("--set", setting)))
DROPOUT_KILLS = 6


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
    with_workers = done = 0
    longest = 2 * seconds / (KILLS + 8)
    while True:
        code, workers = one_life(output, folder, arguments, draw.uniform(0, longest))
        if code != -signal.SIGKILL:
            break
        wait_until(functools.partial(nobody_alive, workers), 3600)
        before, done = done, len(list(folder.rglob("done.json")))
        longest *= 1.0 if done > before else GROWTH
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


def test_kills_under_dropout_on_two_threads_change_no_byte(tmp_path: Path, record_property: Any) -> None:
    """The stage is alone, so that both threads are its own. Training draws for dropout, one part after the other, and
    validation goes over several parts side by side: a new process has to take up the same threads and draws."""
    record_property("claim", f"{DROPOUT_KILLS} kills -9 in SFT under dropout, alone on two threads, change no byte")
    output, folder, whole = tmp_path / "output.txt", tmp_path / "run", tmp_path / "whole"
    arguments, log = ("run", TINY, *DROPOUT, "--dir"), folder / "sft" / "metrics.jsonl"
    assert start(output, *arguments, whole).wait() == 0, output.read_text()[-3000:]
    draw = random.Random(2)
    at: list[int] = []
    for _ in range(DROPOUT_KILLS):
        goal = lines(log) + draw.randint(1, 3)
        process = start(output, *arguments, folder)
        wait_until(functools.partial(ended_or_logged, process, log, goal), 3600)
        time.sleep(draw.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, output.read_text()[-3000:]
        assert at_work(folder) == "sft"
        at.append(lines(log))
    assert start(output, *arguments, folder).wait() == 0, output.read_text()[-3000:]
    found = list(differences(folder, whole))
    record_property(
        "measured",
        f"kills after steps {', '.join(map(str, at))} of {lines(log)}; {len(files(whole))} files compared, "
        f"{len(found)} differ",
    )
    assert found == []


def ended_or_logged(process: subprocess.Popen[bytes], log: Path, goal: int) -> bool:
    return process.poll() is not None or lines(log) >= goal


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def nobody_alive(pids: list[int]) -> bool:
    return not any(map(alive, pids))
