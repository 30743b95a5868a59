"""One side of one benchmark in a process of its own, told over its standard input what to do.

    python benchmarks/worker.py ours reward_k9

Each line in is a JSON object with `do`, each line out its answer; everything else that is printed goes to stderr.
"""

import importlib
import json
import os
import sys
from importlib import metadata
from typing import Any

from rows import ROWS


def main() -> None:
    side, name = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print
    threads = int(os.environ["OMP_NUM_THREADS"])
    answer: dict[str, Any]
    work = None
    for line in sys.stdin:
        asked = json.loads(line)
        if work is None:
            imported, work = build(side, name, threads)
        answer = respond(work, asked) | {"imported": imported}
        print(json.dumps(answer), file=answers, flush=True)


def build(side: str, name: str, threads: int) -> tuple[float, Any]:
    """Memory in MB after the imports, and the work."""
    import torch
    from common import resident

    torch.set_num_threads(threads)
    family = importlib.import_module(ROWS[name].family)
    if side == "ours" or ROWS[name].needs_trl:
        importlib.import_module(side)
    return resident(), getattr(family, side)(name)


def respond(work: Any, asked: dict[str, Any]) -> dict[str, Any]:
    from common import peak

    if asked["do"] == "layouts":
        return {"layouts": work.layouts, "versions": versions()}
    if asked["do"] == "check":
        return {"check": work.check()}
    if asked["do"] == "profile":
        from profiling import profile

        return profile(lambda: work.run(asked["layout"], 0, False))
    done = work.run(asked["layout"], asked["seed"], asked["trial"])
    return done._asdict() | {"peak": peak()}


def versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "transformers", "trl", "heedful", "accelerate"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
