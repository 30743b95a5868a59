"""The wall clock of a run: calls add up, a killed one keeps what it had."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heedful.pipeline.clock import clocked, seconds_worked

WORK = """
import sys, time
from pathlib import Path
from heedful.pipeline import clock
clock.BEAT_SECONDS = 0.02
with clock.clocked(Path(sys.argv[1])):
    time.sleep(60)
"""


def test_calls_add_up_however_they_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, now = tmp_path / "clock", [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert seconds_worked(path) == 0
    with clocked(path):
        now[0] += 12.5
    assert seconds_worked(path) == 12.5
    now[0] += 1000  # between two calls nobody works
    with pytest.raises(KeyError), clocked(path):
        now[0] += 30
        raise KeyError
    assert seconds_worked(path) == 42.5


def test_a_killed_call_keeps_what_it_had_written(tmp_path: Path) -> None:
    path = tmp_path / "clock"
    path.write_text("      7000.0\n")
    process = subprocess.Popen([sys.executable, "-c", WORK, str(path)])
    while seconds_worked(path) < 7000.1:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = seconds_worked(path)
    assert 7000.1 <= kept < 7060
    with clocked(path):
        pass
    assert kept <= seconds_worked(path) < kept + 60


def test_a_call_killed_before_its_first_word_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "clock").touch()
    assert seconds_worked(tmp_path / "clock") == 0
