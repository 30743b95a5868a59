"""A run folder: what was run, what it logged, and its whole state, written so that a kill at any moment costs nothing.

    manifest.json   stage, config, seed, parents (hashes of what it read), versions, commit
    metrics.jsonl   one line per step; keys are explained in docs/metrics.md
    samples.jsonl   responses worth reading later
    state-*.pt      the two newest states of the loop; gone when the run is done
    progress.json   step and total of the loop at work; gone when the run is done
    done.json       results, counts of everything dropped, seconds; its presence means the run is complete

A resumed run ends with the same bytes as one never interrupted, apart from the wall-clock fields: the state holds
every part's state_dict, the random generators, the counts, and how long each log was, so that half-written lines are
cut away.
"""

import json
import os
import random
import struct
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from heedful.config import InputError
from heedful.environment import environment
from heedful.interrupt import stop_if_asked

WALL_CLOCK = ("seconds", "tokens_per_second")
LOGS = ("metrics.jsonl", "samples.jsonl")
CHECKPOINT_SECONDS = 60.0
CHECKPOINT_VARIABLE = "HEEDFUL_CHECKPOINT_SECONDS"  # another pace for whole runs; 0: a state after every step
PROGRESS_SECONDS = 1.0
console = Console(stderr=True)
draw_bars = True  # whoever draws the progress of several runs together turns this off


class Diverged(Exception):
    """A loss or gradient stopped being a finite number; the last state that went on well is kept, if one was saved."""


class Inexact(Exception):
    """Two computations that must agree to the bit do not: a mistake of the program, not of its input."""


class Waiting(Exception):
    """People have not judged enough yet; the same command goes on later. `missing` says what is wanted still, "" when
    nothing is."""

    def __init__(self, message: str, missing: Callable[[], str]) -> None:
        super().__init__(message)
        self.missing = missing


class Run:
    """One stage's folder. Open it, restore, loop (log, save), finish."""

    def __init__(self, folder: Path, manifest: dict[str, Any], checkpoint_seconds: float) -> None:
        self.folder = folder
        self.manifest = manifest
        self.counts: Counter[str] = Counter()
        self._checkpoint_seconds = checkpoint_seconds
        self._seconds_before = 0.0
        self._started = self._saved = time.monotonic()
        self._save_cost = 0.0
        self._beside: dict[str, Any] = {}

    @classmethod
    def open(
        cls,
        folder: Path,
        stage: str,
        config: Mapping[str, Any],
        seed: int,
        parents: Mapping[str, str] | None = None,
        checkpoint_seconds: float | None = None,
    ) -> "Run":
        """Start the run, or go on with an unfinished one of the same configuration.

        Without `checkpoint_seconds` the environment's HEEDFUL_CHECKPOINT_SECONDS is the pace, else a minute.

        Raises:
            InputError: the folder holds a run with another stage, configuration, seed or parents, or its manifest or
                results are damaged.
        """
        identity = {"stage": stage, "config": dict(config), "seed": seed, "parents": dict(parents or {})}
        identity = json.loads(json.dumps(identity))
        path = folder / "manifest.json"
        if path.exists():
            manifest = _read_whole(path, identity)
            for key, value in identity.items():
                if manifest[key] != value and key == "parents":
                    raise InputError(f"{folder}: {_changed(manifest[key], value)}; bring it back, or use another --dir")
                if manifest[key] != value:
                    raise InputError(f"{folder} holds a run with another {key}{_difference(manifest[key], value)}")
        else:
            manifest = identity | {"environment": environment()}
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, json.dumps(manifest, indent=2) + "\n")
        run = cls(folder, manifest, _checkpoint_seconds() if checkpoint_seconds is None else checkpoint_seconds)
        if run.done:
            run._seconds_before = read_done(folder)["seconds"]  # read before what could stand in for it goes
            run._clear()  # a kill can come between the results and the end of the states
        elif not run._states():
            run._cut_logs(dict.fromkeys(LOGS, 0))  # a step that saves no state begins again, and so does its log
        return run

    @property
    def seed(self) -> int:
        return self.manifest["seed"]

    @property
    def done(self) -> bool:
        return (self.folder / "done.json").exists()

    @property
    def results(self) -> dict[str, Any]:
        """What `finish` was given."""
        return read_done(self.folder)["results"]

    def log(self, step: int, **metrics: Any) -> None:
        """Append one line to metrics.jsonl; tensors of one element become numbers."""
        row = {"step": step} | {key: _plain(value) for key, value in (metrics | self._beside).items()}
        self._beside = {}
        self._append("metrics.jsonl", row)

    def beside(self, **metrics: Any) -> None:
        """Add to the next line of metrics.jsonl: for what a loop calls and of which it knows the result alone."""
        self._beside |= metrics

    def sample(self, **row: Any) -> None:
        """Append one line to samples.jsonl."""
        self._append("samples.jsonl", row)

    def count(self, reason: str, number: int = 1) -> None:
        """Count what was dropped, cut or skipped; shown in done.json and the report."""
        if number:
            self.counts[reason] += number

    def check_finite(self, step: int, **values: Any) -> None:
        """Stop on the first number that is not finite, naming it and the step; nothing is skipped in silence.

        Raises:
            Diverged: with the place and what to do.
        """
        for name, value in values.items():
            number = float(value.detach() if hasattr(value, "detach") else value)
            if number != number or number in (float("inf"), float("-inf")):
                stage = self.manifest["stage"]
                or_else = " or raise kl_coef" if stage == "ppo" else ""
                raise Diverged(
                    f"{stage}: {name} became {number} at step {step}; {self._kept(step)}. "
                    f"Lower the learning rate{or_else}, and run into another folder."
                )

    def _kept(self, step: int) -> str:
        # A state of n steps is what step n begins with, and can itself be what diverged.
        good = [path for path in self._states() if int(path.stem.removeprefix("state-")) < step]
        return f"the last good state is kept in {good[-1]}" if good else "no good state had been saved yet"

    def track(self, steps: Iterable[int], total: int, label: str = "") -> Iterator[int]:
        """Pass the steps through while showing progress and time left: on a terminal, and in progress.json."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown, told = draw_bars and console.is_terminal, 0.0
        with Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as progress:
            task = progress.add_task(label or self.folder.name, total=total)
            for step in steps:
                stop_if_asked()
                progress.update(task, completed=step)
                if time.monotonic() - told >= PROGRESS_SECONDS:
                    told = time.monotonic()
                    self._tell({"step": step, "total": total})
                yield step
            progress.update(task, completed=total)

    def save(self, step: int, **parts: Any) -> None:
        """Save the loop's whole state after `step` steps: each part has state_dict(), or is plain data.

        The new state is written aside, flushed and renamed; the one before it stays until then.
        """
        import torch

        began = time.monotonic()
        for name in LOGS:
            if (self.folder / name).exists():
                _flush(self.folder / name)  # a state that knows of lines which a power cut took would pad with zeros
        state = {
            "step": step,
            "parts": {k: v.state_dict() if hasattr(v, "state_dict") else v for k, v in parts.items()},
            "random": (random.getstate(), torch.get_rng_state(), [g.cpu() for g in torch.cuda.get_rng_state_all()]),
            "counts": dict(self.counts),
            "log_bytes": {name: _size(self.folder / name) for name in LOGS},
            "seconds": self._seconds_before + began - self._started,
        }
        path = self.folder / f"state-{step:09d}.pt"
        partial = path.with_suffix(".partial")
        try:
            with partial.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        os.replace(partial, path)
        _flush(self.folder)
        states = self._states()
        here = states.index(path)
        torn = states[here + 1 :]  # `restore` passed them over
        for old in [*states[: max(0, here - 1)], *torn]:
            old.unlink()
        self._saved = time.monotonic()
        self._save_cost = self._saved - began

    def save_if_due(self, step: int, **parts: Any) -> None:
        """`save`, at most once every checkpoint_seconds and never more than a twentieth of the time; 0 saves always."""
        pace = max(self._checkpoint_seconds, 20 * self._save_cost) if self._checkpoint_seconds else 0.0
        if time.monotonic() - self._saved >= pace:
            self.save(step, **parts)

    def restore(self, **parts: Any) -> tuple[int, dict[str, Any]]:
        """Load the newest whole state into the parts; returns its step (0: nothing saved) and the plain data.

        A torn state is passed over for the one before it; nothing is deleted. Logs are cut back to where they stood.

        Raises:
            InputError: there are states, but every one is torn.
        """
        import torch

        states = self._states()
        for path in reversed(states):
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # a torn file can fail in any way the unpickler knows
                if _is_whole(path):
                    raise  # too little memory, say: the state is good
                console.print(f"[yellow]{path} is torn ({type(error).__name__}); going back to the state before it")
                continue
            plain = {}
            for name, value in state["parts"].items():
                if name in parts:
                    parts[name].load_state_dict(value)
                else:
                    plain[name] = value
            python_state, torch_state, cuda_states = state["random"]
            random.setstate(python_state)
            torch.set_rng_state(torch_state)
            if cuda_states:
                torch.cuda.set_rng_state_all(cuda_states)
            self.counts = Counter(state["counts"])
            self._seconds_before = state["seconds"]
            self._cut_logs(state["log_bytes"])
            return state["step"], plain
        if states:
            raise InputError(
                f"{self.folder}: every saved state is torn ({', '.join(path.name for path in states)}); put one back "
                "from a backup, or delete them to begin this step again from its start"
            )
        self._cut_logs(dict.fromkeys(LOGS, 0))
        return 0, {}

    def finish(self, **results: Any) -> None:
        """Mark the run complete; its saved states are no longer needed."""
        seconds = self._seconds_before + time.monotonic() - self._started
        done = {"results": results, "counts": dict(self.counts), "seconds": round(seconds, 2)}
        write_atomic(self.folder / "done.json", json.dumps(done, indent=2) + "\n")
        self._clear()

    def reopen(self, step: int, **parts: Any) -> None:
        """A finished run is unfinished again, after `step` steps and with this state."""
        self.save(step, **parts)
        (self.folder / "done.json").unlink()

    def _clear(self) -> None:
        """Remove what only an unfinished run needs, half-written files of killed processes included."""
        for pattern in ("state-*", "progress.json*", "*.json.partial"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)

    def _tell(self, progress: Mapping[str, int]) -> None:
        """For readers in other processes: renamed into place, but not worth a flush to disk."""
        partial = self.folder / "progress.json.partial"
        partial.write_text(json.dumps(progress), encoding="utf-8")
        os.replace(partial, self.folder / "progress.json")

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*.pt"))

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _cut_logs(self, sizes: Mapping[str, int]) -> None:
        for name, size in sizes.items():
            path = self.folder / name
            if path.exists():
                os.truncate(path, size)


def _checkpoint_seconds() -> float:
    found = os.environ.get(CHECKPOINT_VARIABLE, "")
    try:
        seconds = float(found or CHECKPOINT_SECONDS)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise InputError(f"{CHECKPOINT_VARIABLE} is {found!r}; give seconds between checkpoints, such as 60")
    return seconds


def write_atomic(path: Path, text: str) -> None:
    """Write the file aside, flush it to disk and rename it, so that a reader sees the old or the new, never half."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, path)
    _flush(path.parent)


def read_done(folder: Path) -> dict[str, Any]:
    """The done.json of a finished step: results, counts, seconds.

    Raises:
        InputError: it is damaged.
    """
    return _read_whole(folder / "done.json", ("results", "counts", "seconds"))


def _read_whole(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not (isinstance(found, dict) and found.keys() >= set(keys)):
        raise InputError(
            f"{path} is damaged; put it back from a backup, or delete {path.parent} and run the same command again: "
            "the step is then made anew"
        )
    return found


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; an absent log has none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    # Not splitlines: a response may hold one of Unicode's other line separators.
    return [json.loads(line) for line in text.split("\n") if line]


def _flush(path: Path) -> None:
    """Have the file or folder on disk, not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(path: Path) -> bool:
    """The file is a zip archive to its end and all in it matches its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, zlib.error, struct.error, NotImplementedError, ValueError):
        return False


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return round(value, 9) if isinstance(value, float) else value


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Which of the things a step was made from are not what they were."""
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    told = [f"{name} ({old.get(name, 'none')[:12]} then, {new.get(name, 'none')[:12]} now)" for name in names]
    return f"what this step was made from changed or is damaged since: {', '.join(told)}"


def _difference(old: Any, new: Any) -> str:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f": {old!r} there, {new!r} now"
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    first = keys[0]
    return f": {first} is {old.get(first)!r} there and {new.get(first)!r} now; use another --dir"
