"""Two processes that take turns, and what their times amount to."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
Say = Callable[[str], None]  # tells whoever waits what is being done
NEAR = 0.9  # of the fastest: what nobody would pay twice the memory for
PAUSE = 0.3  # seconds between repeats, in which the other side's threads stop spinning


class WorkerFailed(Exception):
    """A side could not do its work; the message ends with what it printed last."""


class Worker:
    """One side of one benchmark, running in a process of its own."""

    def __init__(self, python: str, side: str, name: str, threads: int) -> None:
        self.side, self.name = side, name
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py"), side, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | quiet | {"OMP_NUM_THREADS": str(threads)},
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

    def run(self, layout: Any, seed: int, trial: bool = False) -> dict[str, Any]:
        time.sleep(PAUSE)
        return self.ask(do="run", layout=layout, seed=seed, trial=trial)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def rate(done: dict[str, Any]) -> float:
    """Units per second."""
    return done["units"] / done["seconds"]


def choose(worker: Worker, told: dict[str, Any], say: Say) -> tuple[Any, dict[str, float]]:
    """The fastest of the layouts the side may choose from, each tried once; and what each reached."""
    if len(told["layouts"]) > 1:
        say(f"{worker.side} warms up")
        worker.run(told["layouts"][0], 0, trial=True)  # what only the first pass costs is no layout's fault
    tried = []
    for layout in told["layouts"]:
        say(f"{worker.side} tries layout {layout}")
        tried.append((rate(worker.run(layout, 0, trial=True)), layout))
    best = max(tried, key=lambda pair: pair[0])[1]
    return best, {json.dumps(layout): round(reached, 2) for reached, layout in tried}


def lean(tried: dict[str, float]) -> Any:
    """The first (they come in order of size) of the layouts that are about as fast as the fastest."""
    return next(json.loads(layout) for layout, reached in tried.items() if reached >= NEAR * max(tried.values()))


def interleave(
    ours: Worker, peer: Worker | None, layouts: tuple[Any, Any], repeats: int, say: Say
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A B A B …: repeat r of both sides on the data of seed r."""
    mine, theirs = [], []
    for seed in range(repeats):
        say(f"repeat {seed + 1} of {repeats}")
        mine.append(ours.run(layouts[0], seed))
        if peer is not None:
            theirs.append(peer.run(layouts[1], seed))
    return mine, theirs


def ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """The median over pairs of repeats of ours / peer."""
    return median(a / b for a, b in zip(ours, peer, strict=True))


def result(
    ours: Sequence[float], peer: Sequence[float], unit: str, target: float, tokens: Sequence[int]
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
