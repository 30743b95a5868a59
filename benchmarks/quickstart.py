"""The whole quickstart, with heedful's ways of saving work and without them (see plain/sitecustomize.py)."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PLAIN = Path(__file__).parent / "plain"
COMMAND = "from heedful.cli import app; app()"


def seconds(plain: bool) -> dict[str, float]:
    """Seconds of one run by stage, and its `total`."""
    with tempfile.TemporaryDirectory(prefix="heedful-bench-") as folder:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        if plain:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLAIN), os.environ.get("PYTHONPATH")]))
        arguments = [sys.executable, "-c", COMMAND, "quickstart", "--dir", folder + "/run"]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"the quickstart failed:\n{done.stderr[-3000:]}")
        return json.loads(Path(folder, "run", "results.json").read_text(encoding="utf-8"))["seconds"]
