"""Several processes that do one thing, all of them gone when the first one is."""

import os
import signal
import threading
from collections.abc import Callable


def side_by_side(number: int, work: Callable[[], None], renew: Callable[[], None]) -> None:
    """Do the work in `number` processes: this one and forks of it, which `renew` what must not be shared first.

    When the work here ends, the others are told to end and waited for; when this process is killed, they end at once.
    """
    watched, held = os.pipe()
    others = []
    for _ in range(number - 1):
        pid = os.fork()
        if pid == 0:
            os.close(held)
            threading.Thread(target=_end_with_the_first, args=(watched,), daemon=True).start()
            try:
                renew()
                work()
            finally:
                os._exit(0)  # what comes behind the fork is the first one's to do
        others.append(pid)
    os.close(watched)
    try:
        work()
    finally:
        for pid in others:
            os.kill(pid, signal.SIGTERM)  # ended ones are still there to be told, until they are waited for
        for pid in others:
            os.waitpid(pid, 0)
        os.close(held)


def _end_with_the_first(watched: int) -> None:
    os.read(watched, 1)  # nothing is ever written: it returns when whoever holds the other end is gone
    os._exit(1)
