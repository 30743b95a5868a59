"""One side of one benchmark in a process of its own, told over its standard input what to do.

    python benchmarks/worker.py ours reward_k9 2

Each line in is a JSON object with `do`, each line out its answer; everything else that is printed goes to stderr.
"""

import importlib
import json
import os
import sys
from importlib import metadata
from typing import Any

from rows import ROWS
from timing import THREADING


def main() -> None:
    side, name, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever libraries print
    answer: dict[str, Any]
    work = None
    for line in sys.stdin:
        asked = json.loads(line)
        if work is None:
            imported, work = build(side, name, threads)
        if asked["do"] == "layouts":
            answer = {"layouts": choices(side, work.layouts, threads), "versions": versions(), "waiting": waiting()}
        else:
            answer = respond(work, asked, side) | {"imported": imported}
        print(json.dumps(answer), file=answers, flush=True)


def build(side: str, name: str, threads: int) -> tuple[float, Any]:
    """Memory in MB after the imports, and the work."""
    if side == "ours":
        importlib.import_module("heedful")  # before torch, as in every command of heedful: it says how threads wait
    import torch
    from common import resident

    torch.set_num_threads(threads)
    family = importlib.import_module(ROWS[name].family)
    if side == "ours" or ROWS[name].needs_trl:
        importlib.import_module(side)
    return resident(), getattr(family, side)(name)


def choices(side: str, layouts: Any, threads: int) -> list[dict[str, Any]]:
    """Layouts in order of size; the peer may also do with one thread. heedful decides itself about its threads."""
    counts = (threads,) if side == "ours" else sorted({1, threads})
    return [{"layout": layout, "threads": number} for layout in layouts for number in counts]


def waiting() -> dict[str, str]:
    """What the thread libraries of this process are told; nothing: they wait as they do by default."""
    return {key: value for key, value in os.environ.items() if key.startswith(THREADING)}


def respond(work: Any, asked: dict[str, Any], side: str) -> dict[str, Any]:
    import torch
    from common import peak

    if asked["do"] == "check":
        return {"check": work.check()}
    if asked["do"] == "profile":
        from profiling import profile

        return profile(lambda: work.run(asked["layout"], 0, False))
    if side == "peer":
        torch.set_num_threads(asked["threads"])
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
