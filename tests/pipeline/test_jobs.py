"""Jobs: the same work whoever does it, and no process that outlives its run."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from heedful.config import Config, InputError
from heedful.pipeline.jobs import Job, Workers
from heedful.run import CHECKPOINT_VARIABLE, Run, read_jsonl
from processes import alive, children, wait_until


class Toy(Config):
    number: int = 1


def draw(config: Toy, run: Run, **inputs: Any) -> None:
    """Whatever the process drew before, a job draws the same numbers."""
    run.sample(number=config.number)
    run.finish(torch=torch.rand(3).tolist(), python=random.random(), threads=torch.get_num_threads(), pid=os.getpid())


def sleep(config: Toy, run: Run, **inputs: Any) -> None:
    (run.folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def fail(config: Toy, run: Run, **inputs: Any) -> None:
    run.sample(seen=1)
    raise InputError("no")


def job(folder: Path, body: Any, number: int = 1, seed: int = 5) -> Job:
    return Job(folder / f"job-{number}", "toy", body, Toy(number=number), seed)


@pytest.fixture(scope="module")
def four() -> Iterator[Workers]:
    """Started once for the tests that only use them."""
    with Workers(4) as workers:
        yield workers


def without_process(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.results.items() if key not in ("pid", "threads")}


def test_side_by_side_or_in_turn_a_job_draws_the_same(four: Workers, tmp_path: Path) -> None:
    torch.manual_seed(99)
    jobs = [[job(tmp_path / name, draw, n) for n in (1, 2)] for name in ("here", "there")]
    with Workers(1) as workers:
        here = workers.run(jobs[0])
    there = four.run(jobs[1])
    assert [without_process(run) for run in here] == [without_process(run) for run in there]
    assert {run.results["pid"] for run in here} == {os.getpid()}
    assert os.getpid() not in {run.results["pid"] for run in there}


def test_a_finished_job_is_not_done_again_and_one_left_of_two_has_the_threads_it_had(
    four: Workers, tmp_path: Path
) -> None:
    both = [job(tmp_path, draw, 1), job(tmp_path, draw, 2)]
    first = [run.results for run in four.run(both)]
    assert [results["threads"] for results in first] == [2, 2]
    (tmp_path / "job-2" / "done.json").unlink()
    again = [run.results for run in four.run(both)]
    assert again[0] == first[0]
    assert again[1].pop("pid") == os.getpid() != first[1].pop("pid")
    assert again[1] == first[1]
    assert len(read_jsonl(tmp_path / "job-2" / "samples.jsonl")) == 1  # its log began again with it


def test_what_a_worker_refuses_reaches_the_command(four: Workers, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no"):
        four.run([job(tmp_path, fail, 1), job(tmp_path, draw, 2)])
    assert not Run.open(tmp_path / "job-1", "toy", {"number": 1}, 5).done


@pytest.mark.parametrize("moment", ["starting", "working"])
def test_a_killed_run_takes_its_workers_along(moment: str, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from pipeline.test_jobs import Workers, job, sleep\n"
        "if __name__ == '__main__':\n"
        f"    Workers(2).run([job(Path({str(tmp_path)!r}), sleep, n) for n in (1, 2)])"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    parent = subprocess.Popen([sys.executable, script], env=environment)
    pids = [tmp_path / f"job-{n}" / "pid" for n in (1, 2)]
    ready = (lambda: all(p.exists() for p in pids)) if moment == "working" else (lambda: len(children(parent.pid)) >= 2)
    wait_until(lambda: ready() or parent.poll() is not None)
    assert parent.poll() is None
    workers = children(parent.pid)
    assert len(workers) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not any(alive(pid) for pid in workers))
    assert moment == "working" or not any(path.exists() for path in pids)  # nobody took up the killed run's work


# Run folders: what only whole runs show.


def test_a_killed_step_without_states_begins_its_log_again(tmp_path: Path) -> None:
    for _ in range(2):
        run = Run.open(tmp_path, "toy", {}, 0)
        run.sample(text="one")
        run.log(0, loss=1.0)
    assert len(read_jsonl(tmp_path / "samples.jsonl")) == len(read_jsonl(tmp_path / "metrics.jsonl")) == 1
    run.finish()
    assert len(read_jsonl(Run.open(tmp_path, "toy", {}, 0).folder / "samples.jsonl")) == 1


def test_what_a_kill_left_behind_goes_when_the_run_is_done(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "toy", {}, 0)
    run.save(1)
    (tmp_path / "state-000000002.partial").write_bytes(b"half")
    (tmp_path / "progress.json.partial").write_bytes(b"{")
    states = {path.name: path.read_bytes() for path in tmp_path.glob("state-*")}
    run.finish()
    for name, content in states.items():  # a kill between the results and the end of the states
        (tmp_path / name).write_bytes(content)
    Run.open(tmp_path, "toy", {}, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done.json", "manifest.json"]


def test_the_environment_sets_the_pace_of_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def saved(pace: str) -> list[str]:
        monkeypatch.setenv(CHECKPOINT_VARIABLE, pace)
        run = Run.open(tmp_path / pace, "toy", {}, 0)
        for step in (1, 2, 3):
            run.save_if_due(step, weights=torch.zeros(1000))
        return sorted(path.name for path in run.folder.glob("state-*"))

    assert saved("0") == ["state-000000002.pt", "state-000000003.pt"]
    assert saved("1000") == []
    for wrong in ("often", "-1", "nan"):
        with pytest.raises(InputError, match=f"{CHECKPOINT_VARIABLE} is '{wrong}'"):
            saved(wrong)


class Grown(Toy):
    """As `Toy` in a later version."""

    more: tuple[int, ...] = ()


def test_a_step_goes_on_where_settings_came_after_it_unless_they_are_set(tmp_path: Path) -> None:
    job(tmp_path, draw).open()
    begun = (tmp_path / "job-1" / "manifest.json").read_text(encoding="utf-8")
    for config in (Grown(), Grown(more=(1,)), Grown(number=2)):
        grown = Job(tmp_path / "job-1", "toy", draw, config, 5)
        if config == Grown():
            assert grown.open().folder == tmp_path / "job-1"
            continue
        with pytest.raises(InputError, match=r"another config: (more|number) is"):
            grown.open()
    assert (tmp_path / "job-1" / "manifest.json").read_text(encoding="utf-8") == begun
    other = Job(tmp_path / "new", "toy", draw, Grown(more=(1,)), 5).open().folder
    with pytest.raises(InputError, match="another config: more is"):
        Job(other, "toy", draw, Toy(), 5).open()


def test_manifests_record_the_parents(tmp_path: Path) -> None:
    made = Job(tmp_path, "toy", draw, Toy(), 1, parents={"data": "abc"})
    with Workers(1) as workers:
        workers.run([made])
    assert json.loads((tmp_path / "manifest.json").read_text())["parents"] == {"data": "abc"}
