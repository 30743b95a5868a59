"""The whole quickstart, with heedful's ways of saving work and without them (see plain/sitecustomize.py)."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import environment

PLAIN = Path(__file__).parent / "plain"
COMMAND = "from heedful.cli import app; app()"


SHORT = "world.document_tokens=100000"  # a tenth of the pretraining


def seconds(plain_threads: int | None) -> dict[str, float]:
    """Seconds of one run by stage, and its `total`; on so many threads where it is written plainly."""
    with tempfile.TemporaryDirectory(prefix="heedful-bench-") as folder:
        run(["quickstart", "--dir", folder + "/run"], plain_threads)
        return json.loads(Path(folder, "run", "results.json").read_text(encoding="utf-8"))["seconds"]


def trial(plain_threads: int) -> float:
    """Seconds of data and a short pretraining, written plainly."""
    with tempfile.TemporaryDirectory(prefix="heedful-bench-") as folder:
        began = time.perf_counter()
        run(["pretrain", "quickstart", "--dir", folder + "/run", "--set", SHORT], plain_threads)
        return time.perf_counter() - began


def run(arguments: list[str], plain_threads: int | None) -> None:
    about = environment()
    if plain_threads is not None:
        about["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLAIN), os.environ.get("PYTHONPATH")]))
        about["PLAIN_THREADS"] = str(plain_threads)
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], env=about, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"heedful {arguments[0]} failed:\n{done.stderr[-3000:]}")
