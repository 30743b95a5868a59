"""What every test has: quick passwords and commits, and one finished tiny run, shared by all that read its folder."""

import shutil
from pathlib import Path

import pytest

from stores import quick_disk, quick_hashes
from tiny import TINY

__all__ = ["quick_disk", "quick_hashes"]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of tests/tiny.yaml with its results.json. Read it; change only a `tiny_copy`."""
    from heedful.config import read_recipe
    from heedful.pipeline.recipe import build
    from heedful.pipeline.results import write_results
    from heedful.pipeline.start import at_work

    folder = tmp_path_factory.mktemp("tiny") / "run"
    recipe = build(read_recipe(str(TINY)))
    with at_work(recipe, folder, cores=1) as loop:  # one core: no time goes into starting workers
        loop.run()
        write_results(recipe, folder)
    return folder


@pytest.fixture
def tiny_copy(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))
