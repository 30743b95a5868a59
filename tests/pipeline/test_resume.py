"""kill -9 while the loop works: the same command goes on and ends with the bytes of an uninterrupted run."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

from processes import Forked
from same_run import differences, files
from tiny import TINY

# When each life ends: in the middle of a training loop, between two iterations of PPO, while somebody judges.
MOMENTS: list[tuple[str, Callable[[Path], bool]]] = [
    ("fine-tuning", lambda run: len(lines(run / "sft" / "metrics.jsonl")) >= 3),
    ("PPO", lambda run: (run / "round-1" / "ppo_ptx" / "state-000000001.pt").exists()),
    ("evaluation", lambda run: (run / "evaluation" / "judgements" / "manifest.json").exists()),
]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def run_until_killed(folder: Path, when: Callable[[Path], bool] | None) -> int:
    """Run the tiny recipe; kill it once `when` is true; returns its exit code."""
    process = Forked(folder.parent / "output.txt", "run", TINY, "--dir", folder, "--cores", 1)
    while process.poll() is None:
        if when is not None and when(folder):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    return process.wait()


def test_a_run_killed_again_and_again_ends_like_one_never_interrupted(tiny_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for name, moment in MOMENTS:
        assert run_until_killed(folder, when=moment) == -signal.SIGKILL, f"ended before {name}"
        assert not (folder / "results.json").exists()
    assert run_until_killed(folder, when=None) == 0, (tmp_path / "output.txt").read_text()[-3000:]
    assert list(differences(folder, tiny_run)) == []
    assert sum(name.endswith(".safetensors") for name in files(folder)) == 8
    assert not [name for name in files(folder) if "partial" in name or "state-" in name]


def test_the_comparison_notices_a_single_bit(tiny_run: Path, tiny_copy: Path) -> None:
    assert list(differences(tiny_run, tiny_copy)) == []
    weights = tiny_copy / "sft" / "epoch-02" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    log = tiny_copy / "round-1" / "ppo" / "metrics.jsonl"
    log.write_text(log.read_text().replace('"step": 1', '"step": 2'))
    (tiny_copy / "left.partial").touch()
    found = list(differences(tiny_run, tiny_copy))
    assert found == ["only in one of them: left.partial", "round-1/ppo/metrics.jsonl", "sft/epoch-02/model.safetensors"]
