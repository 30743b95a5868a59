"""Ctrl-C ends a loop in any case.

Python raises KeyboardInterrupt wherever the main thread happens to be, and a library may swallow it there (a bare
`except`, a finaliser). So the interrupt is also remembered, and the loop asks at its next step.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


@contextmanager
def remembered() -> Iterator[None]:
    """Within, Ctrl-C is remembered as well as raised. It only ever arrives in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _asked.clear()


def stop_if_asked() -> None:
    """Raises KeyboardInterrupt after a Ctrl-C that something swallowed."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    raise KeyboardInterrupt
