"""Steps that come out the same are made once: one run takes over another's finished step, file by file."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from heedful.config import InputError
from heedful.models.checkpoint import weights_hash
from heedful.pipeline.jobs import Job
from heedful.run import Run


def take_over(job: Job, others: Iterable[Path]) -> None:
    """Where one of the folders holds the job's very step, finished, the job's folder becomes the same.

    The same step: equal stage, settings, seed and hashes of all it read. Finished steps are never written to again, so
    files are shared by hard links where the disk has them, and a sweep's models take their space once.
    """
    if job.folder.exists():
        return
    for other in others:
        if (other / "done.json").exists() and is_same(job, other):
            partial = job.folder.with_name(job.folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(other, partial, ignore=steps_within, copy_function=link_or_copy)
            os.replace(partial, job.folder)
            return


def is_same(job: Job, other: Path) -> bool:
    try:
        job.open(other)
    except InputError:
        return False
    return True


def steps_within(folder: str, names: list[str]) -> list[str]:
    """Steps that stand inside a step's folder are steps of their own."""
    return [name for name in names if (Path(folder) / name / "manifest.json").exists()]


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def content_hash(path: Path) -> str:
    """The hash of a snapshot or of a model folder; a hub name stands for itself."""
    if (path / "snapshot.json").exists():
        return json.loads((path / "snapshot.json").read_text(encoding="utf-8"))["hash"]
    return weights_hash(path) if path.is_dir() else str(path)


def finished(folder: Path) -> dict[str, Any]:
    """The results of a finished run folder."""
    return Run(folder, {}, 0).results
