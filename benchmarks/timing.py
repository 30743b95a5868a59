"""Two processes that take turns, and what their times amount to."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

HERE = Path(__file__).parent
Say = Callable[[str], None]  # tells whoever waits what is being done
NEAR = 0.9  # of the fastest: what nobody would pay twice the memory for
TRIALS = 2  # of each layout, taking turns; the two best are tried once more
HOPELESS = 2 / 3  # of the fastest: a layout that comes to less at first is not tried again
THREADING = ("OMP_", "GOMP_", "KMP_", "MKL_")
PAUSE = 0.3  # seconds between repeats, in which the other side's threads stop spinning


class WorkerFailed(Exception):
    """A side could not do its work; the message ends with what it printed last."""


def environment() -> dict[str, str]:
    """What somebody's process has who installed a package and runs it: nothing told to the thread libraries.

    Importing heedful sets OMP_WAIT_POLICY for its own process, and this process imports it; a peer's must not have it.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith(THREADING)}
    return kept | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}


class Worker:
    """One side of one benchmark, running in a process of its own."""

    def __init__(self, python: str, side: str, name: str, threads: int) -> None:
        self.side, self.name = side, name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py"), side, name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(),
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises WorkerFailed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._process.wait()
            self._log.seek(0)
            raise WorkerFailed(f"{self.side} of {self.name} failed:\n" + self._log.read()[-3000:])
        return json.loads(line)

    def run(self, choice: dict[str, Any], seed: int, trial: bool = False) -> dict[str, Any]:
        """`choice`: one of those that the side offers, a layout and on how many threads."""
        time.sleep(PAUSE)
        return self.ask(do="run", seed=seed, trial=trial, **choice)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def rate(done: dict[str, Any]) -> float:
    """Units per second."""
    return done["units"] / done["seconds"]


def choose(
    worker: Worker, choices: Sequence[dict[str, Any]], say: Say
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """What the side is fastest with, each choice by its best trial; and what all trials reached, units per second."""
    tried: dict[str, list[float]] = {json.dumps(choice): [] for choice in choices}

    def trial(key: str) -> None:
        say(f"{worker.side} tries {key}")
        tried[key].append(round(rate(worker.run(json.loads(key), 0, trial=True)), 2))

    say(f"{worker.side} warms up")
    worker.run(choices[0], 0, trial=True)  # what only the first pass costs is no layout's fault
    for number in range(TRIALS if len(choices) > 1 else 0):
        fastest = max((max(reached) for reached in tried.values() if reached), default=0.0)
        for key, reached in tried.items():
            if number == 0 or max(reached) >= HOPELESS * fastest:
                trial(key)
    by_best = sorted(tried, key=lambda key: -max(tried[key], default=0.0))
    for key in by_best[:2] if len(choices) > 1 else ():
        trial(key)
    best = max(tried, key=lambda key: max(tried[key], default=0.0))
    return json.loads(best), tried


def lean(tried: dict[str, list[float]]) -> dict[str, Any]:
    """The first (they come in order of size) of the choices that are about as fast as the fastest."""
    reached = {key: max(trials, default=0.0) for key, trials in tried.items()}
    return next(json.loads(key) for key, rate in reached.items() if rate >= NEAR * max(reached.values()))


def interleave(
    ours: Worker, peer: Worker | None, chosen: Sequence[dict[str, Any]], repeats: int, say: Say
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A B A B …: repeat r of both sides on the data of seed r."""
    mine, theirs = [], []
    for seed in range(repeats):
        say(f"repeat {seed + 1} of {repeats}")
        mine.append(ours.run(chosen[0], seed))
        if peer is not None:
            theirs.append(peer.run(chosen[1], seed))
    return mine, theirs


def ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """The median over pairs of repeats of ours / peer."""
    return median(a / b for a, b in zip(ours, peer, strict=True))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The lower and the upper one; of a single value, itself twice."""
    if len(values) == 1:
        return values[0], values[0]
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    return lower, upper


def result(
    ours: Sequence[float], peer: Sequence[float], unit: str, target: float, tokens: Sequence[int | None]
) -> dict[str, Any]:
    """One entry of results.json; a side that was not measured is None. `tokens`: both sides', of one repeat."""
    return {
        "ours": median(ours),
        "peer": median(peer) if peer else None,
        "unit": unit,
        "ratio": ratio(ours, peer) if peer else None,
        "target": target,
        "tokens_ours": tokens[0],
        "tokens_peer": tokens[1] if peer else None,
    }
