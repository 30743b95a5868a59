"""Processes as tests watch and kill them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from heedful.run import CHECKPOINT_VARIABLE

HEEDFUL = Path(sys.executable).parent / "heedful"


def start(output: Path, *arguments: object, checkpoint_seconds: float = 0) -> subprocess.Popen[bytes]:
    """A heedful command in a process of its own, which appends what it says to the file; a state after every step."""
    environment = os.environ | {CHECKPOINT_VARIABLE: str(checkpoint_seconds)}
    with output.open("a") as file:
        command = [str(HEEDFUL), *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


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
