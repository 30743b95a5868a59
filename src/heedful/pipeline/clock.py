"""How long a run has been worked on, by the wall clock, over all the calls that worked on it."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BEAT_SECONDS = 1.0  # a killed call loses no more than this


@contextmanager
def clocked(path: Path) -> Iterator[None]:
    """Add the block's seconds to those in the file, again and again while it runs, so that a kill loses none of them.

    One small write in place: renaming a new file into place every second would only wear the disk.
    """
    before, began = seconds_worked(path), time.monotonic()
    ended = threading.Event()
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)

    def write() -> None:
        os.pwrite(file, f"{before + time.monotonic() - began:12.1f}\n".encode(), 0)

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            write()

    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        write()
        os.close(file)


def seconds_worked(path: Path) -> float:
    """Seconds in the file; 0 where nobody has worked yet, or was killed before writing a number."""
    text = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    return float(text or 0)
