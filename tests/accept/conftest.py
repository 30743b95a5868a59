"""One quickstart run up to its reward model, shared by every study."""

from pathlib import Path

import pytest
import torch

from heedful.pipeline.start import at_work
from stores import sqlite_copy
from studies import Prepared, finished_run, kept_runs, new_folder, recipe_of
from web.conftest import chromium

# One browser for all: imported into each module it would be as many, and a second one cannot start beside the first.
__all__ = [
    "chromium",
    "sqlite_copy",
]  # what the tests of pages in a browser take from the app's other tests asks for it


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The same sums in the same order on every machine with these processors."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def quick_hashes() -> None:
    """Passwords are hashed as an operator's server hashes them."""


@pytest.fixture(scope="module", autouse=True)
def quick_disk() -> None:
    """Commits reach the disk, as an operator's do."""


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs are kept."""
    return kept_runs() or tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def prepared(runs: Path) -> Prepared:
    """Seed 0 of the quickstart, run until its reward model stands. Read it only."""
    recipe = recipe_of("quickstart", 0)
    folder = finished_run(recipe, runs)
    if folder is None:
        folder = new_folder(recipe, runs / "prepared")
        with at_work(recipe, folder, cores=1) as loop:
            loop.run(until="reward")
    return Prepared(recipe, folder)
