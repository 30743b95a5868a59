"""Jobs: one stage's work in one run folder, here or side by side in processes of their own.

Small models leave cores idle, so jobs that do not wait for each other run at the same time, each with its share of the
threads. The number of threads is part of a job's identity: the same run uses the same number wherever it goes on.
"""

import ctypes
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, Self

import torch

from heedful import run as runs
from heedful.config import Config
from heedful.models.threads import use_threads
from heedful.run import Run

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """`body(config, run, **inputs)` in `folder`; parents are the hashes of what it reads."""

    folder: Path
    stage: str
    body: Callable[..., None]
    config: Config
    seed: int
    parents: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)

    def open(self, folder: Path | None = None) -> Run:
        """The step in its folder, or in one that may hold the same step."""
        place = folder or self.folder
        return Run.open(place, self.stage, self._identity(place), self.seed, self.parents)

    def _identity(self, folder: Path) -> dict[str, Any]:
        """The configuration as the folder's manifest has it, if only settings at their defaults came after it."""
        now = self.config.model_dump(mode="json")
        try:
            begun = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["config"]
            return begun if type(self.config).model_validate_json(json.dumps(begun)) == self.config else now
        except (OSError, ValueError, KeyError, TypeError):  # none yet, damaged, or settings that are gone: Run tells
            return now


def prepare_worker() -> None:
    """A killed run leaves no worker behind that would go on writing into its folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = parent_process()
    if parent is None or os.getppid() != parent.pid:
        os._exit(1)  # killed while this process was starting: too early for the signal
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run itself is interrupted, and then ends its workers
    runs.draw_bars = False  # two progress bars would write over each other


def work(job: Job, threads: int) -> None:
    """Do the job unless it is done."""
    use_threads(threads)
    run = job.open()
    if not run.done:
        torch.manual_seed(job.seed)  # dropout draws from the process's generator, whatever that did before
        random.seed(job.seed)
        job.body(job.config, run, **job.inputs)


class Workers:
    """Runs jobs; processes are started when first needed and kept for the next jobs."""

    def __init__(self, cores: int | None = None) -> None:
        self.cores = cores or len(os.sched_getaffinity(0))
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            if kind is KeyboardInterrupt:
                for worker in active_children():
                    worker.kill()
            self._pool.shutdown(cancel_futures=True)

    def run(self, jobs: Sequence[Job]) -> list[Run]:
        """All jobs, side by side where there are cores for it; returns their finished runs in order."""
        side_by_side = min(len(jobs), self.cores)
        threads = max(1, self.cores // max(1, side_by_side))
        unfinished = [job for job in jobs if not job.open().done]
        if side_by_side > 1 and len(unfinished) > 1 and not torch.cuda.is_available():
            if self._pool is None:
                self._pool = ProcessPoolExecutor(self.cores, get_context("spawn"), prepare_worker)
            for future in [self._pool.submit(work, job, threads) for job in unfinished]:
                future.result()
        else:
            for job in unfinished:
                work(job, threads)
        return [job.open() for job in jobs]
