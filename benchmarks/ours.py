"""What heedful's side of every benchmark begins with."""

import tempfile
from itertools import count
from pathlib import Path

from common import SHAPE
from transformers import PreTrainedModel

from heedful.models.load import from_scratch
from heedful.run import Run, read_jsonl

_folder = tempfile.TemporaryDirectory(prefix="heedful-bench-")
_number = count()


class Logged(Run):
    """A run whose log can be asked for what it began with."""

    def first(self, *names: str) -> dict[str, float]:
        row = read_jsonl(self.folder / "metrics.jsonl")[0]
        return {name: row[name] for name in names}


def new_run(stage: str) -> Logged:
    """An empty run folder; nothing is saved on the way, as the peer saves nothing either."""
    folder = Path(_folder.name) / f"{stage}-{next(_number)}"
    run = Logged.open(folder, stage, {}, seed=0, checkpoint_seconds=1e9)
    assert isinstance(run, Logged)
    return run


def of_scratch() -> PreTrainedModel:
    return from_scratch({"model_type": "llama", **SHAPE})
