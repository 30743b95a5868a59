"""100,000 rankings of four out of a store, in heedful's own lines and as pairs: time and memory of the command."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from heedful.store.database import open_store, timestamp
from heedful.store.schema import labelers, prompts, ranking_items, rankings, responses

pytestmark = pytest.mark.accept
RANKINGS, LABELERS, K, CHUNK = 100_000, 20, 4, 1000
SECONDS, MEGABYTES = 60, 300
PAIRS = RANKINGS * K * (K - 1) // 2
# Linux tells a process's own peak there; getrusage tells its parent's where that was higher.
COMMAND = """
import sys
from heedful.cli import app
try:
    app(sys.argv[1:])
finally:
    lines = open("/proc/self/status").read().splitlines()
    print("peak", next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024)
"""
WRITTEN = {
    "own.jsonl": (RANKINGS, []),
    "pairs.jsonl": (PAIRS, ["--as", "trl-preference"]),
    "pairs.parquet": (PAIRS, ["--as", "trl-preference"]),
}


def fill(connection: Connection) -> None:
    """Half as many prompts as rankings, each ranked by two labelers, inserted as they lie."""
    entered = {"round": 0, "created": timestamp()}
    people = [{"id": f"l{n}", "group": "train", "kind": "person"} | entered for n in range(LABELERS)]
    connection.execute(labelers.insert(), people)
    for start in range(0, RANKINGS // 2, CHUNK):
        numbers = range(start, min(start + CHUNK, RANKINGS // 2))
        # Ids in another order than the rows, as hashes are.
        id_of = {n: f"p{n * 7919 % 1_000_003:07d}" for n in numbers}
        connection.execute(prompts.insert(), [prompt(n, id_of[n]) | entered for n in numbers])
        connection.execute(responses.insert(), [r | entered for n in numbers for r in answers(n, id_of[n])])
        judged = [(n, turn) for n in numbers for turn in range(2)]
        connection.execute(rankings.insert(), [ranking(n, turn, id_of[n]) | entered for n, turn in judged])
        connection.execute(ranking_items.insert(), [item for n, turn in judged for item in items(n, turn)])


def prompt(n: int, id: str) -> dict[str, Any]:
    words = {"text": f"Tell me about thing {n}. " * 8, "user": f"u{n}", "kind": "plain", "source": "customer"}
    return words | {"id": id, "use_case": "other", "split": "train", "task": {}, "pool": "reward_model"}


def answers(n: int, prompt_id: str) -> Iterator[dict[str, Any]]:
    for k in range(K):
        text = f"Answer {k} to {n}, of some length. " * 15
        more = {"model": "sft", "finished": True, "tokens": [], "tokenizer": ""}
        yield {"id": f"r{n}-{k}", "prompt_id": prompt_id, "text": text} | more


def ranking(n: int, turn: int, prompt_id: str) -> dict[str, Any]:
    who = {"labeler": f"l{(n + turn) % LABELERS}", "guideline": "v1", "seconds": 60.0, "purpose": "train"}
    return {"id": f"k{n}-{turn}", "prompt_id": prompt_id} | who


def items(n: int, turn: int) -> Iterator[dict[str, Any]]:
    for k in range(K):
        place = {"position": k, "rank": (k + turn) % K + 1, "presented": k}
        yield {"ranking_id": f"k{n}-{turn}", "response_id": f"r{n}-{k}"} | place


def test_a_hundred_thousand_rankings_stream(tmp_path: Path, record_property: Any) -> None:
    record_property(
        "claim",
        f"exporting {RANKINGS:,} rankings of {K} takes at most {SECONDS} s and {MEGABYTES} MB, in heedful's own lines "
        "and as pairs in JSON lines or Parquet",
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell a process's peak of memory")
    with open_store(tmp_path / "store.db") as store:
        store.write(fill)
    told, taken, peaks = [], [], []
    for name, (rows, more) in WRITTEN.items():
        start = time.monotonic()
        command = ["label", "export", str(tmp_path / name), "--store", str(tmp_path / "store.db"), *more]
        run = subprocess.run([sys.executable, "-c", COMMAND, *command], check=True, capture_output=True, text=True)
        taken.append(time.monotonic() - start)
        peaks.append(int(run.stdout.split("peak ")[1]))
        told.append(f"{name} {rows:,} rows {taken[-1]:.0f} s {peaks[-1]} MB")
        if name.endswith(".jsonl"):
            with (tmp_path / name).open(encoding="utf-8", newline="\n") as file:
                first, number = json.loads(next(file)), 1 + sum(1 for _ in file)
            assert number == rows and set(first) >= ({"ranking"} if name == "own.jsonl" else {"chosen", "group_id"})
        else:
            assert f"{rows:,} rows" in run.stdout
        (tmp_path / name).unlink()
    record_property("measured", "; ".join(told))
    assert max(taken) <= SECONDS and max(peaks) <= MEGABYTES
