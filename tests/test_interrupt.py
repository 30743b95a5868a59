"""Ctrl-C ends the loop even where somebody swallows it."""

import signal
from pathlib import Path

import pytest

from heedful.interrupt import remembered
from heedful.run import Run


def test_a_swallowed_interrupt_ends_the_loop_at_its_next_step(tmp_path: Path) -> None:
    run, steps = Run.open(tmp_path / "run", "sft", {}, seed=0), []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), remembered():
        for step in run.track(range(9), 9):
            steps.append(step)
            try:
                if step == 2:
                    signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                pass  # as a library's bare except would
    assert steps == [0, 1, 2]
    assert signal.getsignal(signal.SIGINT) is before
    assert list(run.track(range(3), 3)) == [0, 1, 2]  # and the next one begins anew
