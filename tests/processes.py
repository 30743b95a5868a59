"""Processes as tests watch and kill them."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

from heedful.run import CHECKPOINT_VARIABLE

HEEDFUL = Path(sys.executable).parent / "heedful"
FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["heedful.cli", "heedful.pipeline.recipe", "heedful.serve.app"])


def start(output: Path, *arguments: object, checkpoint_seconds: float = 0) -> subprocess.Popen[bytes]:
    """A heedful command in a process of its own, which appends what it says to the file; a state after every step."""
    environment = os.environ | {CHECKPOINT_VARIABLE: str(checkpoint_seconds)}
    with output.open("a") as file:
        command = [str(HEEDFUL), *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


class Forked:
    """As `start`, by a fork of a process that has imported torch: most commands wait longest for that."""

    def __init__(
        self, output: Path, *arguments: object, checkpoint_seconds: float = 0, file_limit: int | None = None
    ) -> None:
        """`file_limit` is the longest file that the command may write, in bytes."""
        environment = dict(os.environ) | {CHECKPOINT_VARIABLE: str(checkpoint_seconds)}
        given = (str(output), [str(argument) for argument in arguments], environment, file_limit)
        self._process = FORKS.Process(target=_command, args=given, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        """The exit code: minus the signal where one ended it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"still at work after {seconds} s"
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _command(output: str, arguments: list[str], environment: dict[str, str], file_limit: int | None) -> None:
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    sys.argv = ["heedful", *arguments]
    from heedful.cli import app

    app()


def wait_until(true: Callable[[], bool], seconds: float = 280) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def children(pid: int) -> list[int]:
    """The spawned workers of a process (its resource tracker is none)."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid and b"spawn_main" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            pass  # it ended meanwhile
    return found


def alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
