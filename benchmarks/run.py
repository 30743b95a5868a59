"""Measure heedful beside its peers and write docs/benchmarks.md.

    python benchmarks/run.py                          every row, with profiles
    python benchmarks/run.py reward_k9 ppo_1_epoch    these rows; those of earlier runs stay in the table
    python benchmarks/run.py --quick                  the timed rows alone

Each side works in a process of its own; the peer's runs in an environment made for it, .venv-bench. Without one, and
without a network to make it, heedful's side is measured alone.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
import venv
from functools import cache
from importlib import metadata
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

from page import write_page
from quickstart import seconds, trial
from rich.console import Console
from rows import FLAT, MEMORY, ROWS, TIMED, WHOLE, Row, met, target_text
from timing import Worker, WorkerFailed, choose, environment, interleave, lean, rate, result

HERE = Path(__file__).parent
ROOT = HERE.parent
PEER = ROOT / ".venv-bench"
RESULTS, SESSION = "results.json", "session.json"
TOKENS = ("tokens_ours", "tokens_peer")
AGREE = 1e-3  # how far apart what both sides compute of the same data may be, relatively
FAR = 4  # standard errors between the sides' mean lengths of sampled responses
MEMORY_REPEATS = 3  # a peak hardly varies: the processes do the same work in the same order


class Session:
    """One call: what was asked for, and what holds for all of its rows."""

    def __init__(self, args: argparse.Namespace, names: list[str]) -> None:
        self.repeats, self.threads, self.profile = args.repeats, args.threads, not (args.quick or args.no_profile)
        self.folder = args.out
        self.peer_python = peer_environment() if any(ROWS[name].needs_trl for name in names) else None
        self.peak = matmul_peak(self.threads)
        self.about = {
            "cpu": cpu_name(),
            "threads": self.threads,
            "system": platform.platform(),
            "python": platform.python_version(),
            "commit": here()["commit"].removesuffix("+changes") + ("+changes" if changed_code() else ""),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "peak_flops": self.peak,
            "versions": {name: here()["versions"][name] for name in ("torch", "transformers", "heedful")},
        }

    def worker(self, side: str, row: Row, threads: int | None = None) -> Worker | None:
        """A side's process; None for a peer that cannot be had here."""
        python = sys.executable if side == "ours" or not row.needs_trl else self.peer_python
        base = row.name.removeprefix("memory_")
        return None if python is None else Worker(python, side, base, threads or self.threads)

    def keep(self, entries: dict[str, dict[str, Any]], details: dict[str, dict[str, Any]]) -> None:
        """Add to the files of results, and write the page anew."""
        for name, new in ((RESULTS, entries), (SESSION, details)):
            path = self.folder / name
            found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            found = {key: value for key, value in (found | new).items() if key in ROWS}
            ordered = {key: found[key] for key in ROWS if key in found}
            path.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        page = ROOT / "docs" / "benchmarks.md" if self.folder == HERE else self.folder / "benchmarks.md"
        write_page(self.folder / RESULTS, self.folder / SESSION, page)


def timed(session: Session, row: Row) -> tuple[dict[str, Any], dict[str, Any]]:
    """The row's entry of results.json, and what stands beside it in session.json."""
    ours, peer = session.worker("ours", row), session.worker("peer", row)
    sides = [side for side in (ours, peer) if side is not None]
    with Console(stderr=True).status(row.name) as status:

        def say(what: str) -> None:
            status.update(f"{row.name}: {what}")

        try:
            told = [side.ask(do="layouts") for side in sides]
            say("what both must agree on")
            checks = [side.ask(do="check")["check"] for side in sides]
            chosen = [choose(side, about["layouts"], say) for side, about in zip(sides, told, strict=True)]
            layouts = [best for best, _ in chosen]
            mine, theirs = interleave(sides[0], peer, (layouts[0], layouts[-1]), session.repeats, say)
        finally:
            for side in sides:
                side.close()
    entry = result(
        [rate(done) for done in mine],
        [rate(done) for done in theirs],
        row.unit,
        row.target,
        [median_of(mine, "tokens"), median_of(theirs, "tokens") if theirs else 0],
    )
    reached = median([done["flops"] / done["seconds"] for done in mine])
    notes = [mean_notes(mine), mean_notes(theirs)]
    detail = session.about | {
        "versions": told[0]["versions"] | told[-1]["versions"],
        "waiting": [about["waiting"] for about in told],
        "layouts": layouts,
        "tried": [tried for _, tried in chosen],
        "checks": checks,
        "agree": agree(*checks) and same_lengths(notes[0], notes[1], session.repeats) if peer is not None else None,
        "notes": notes,
        "seconds": [[done["seconds"] for done in side] for side in (mine, theirs)],
        "pairs": [rate(a) / rate(b) for a, b in zip(mine, theirs, strict=False)],
        "flops": reached,
        "share_of_peak": reached / session.peak,
        "arithmetic": work_per_unit(theirs) / work_per_unit(mine) if theirs else None,
        "peer_share_of_peak": median([done["flops"] / done["seconds"] for done in theirs]) / session.peak
        if theirs
        else None,
    }
    return entry, detail


def memory(session: Session, row: Row, layouts: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Peaks of fresh processes that do one repeat each."""
    peaks, grown, tokens, versions = [], [], [], session.about["versions"]
    for side, layout in (("ours", layouts[0]), ("peer", layouts[-1])):
        done = []
        for _ in range(MEMORY_REPEATS):
            if (worker := session.worker(side, row)) is None:
                break
            try:
                versions = versions | worker.ask(do="layouts")["versions"]
                done.append(worker.run(layout, 0))
            finally:
                worker.close()
        if done:
            peaks.append([each["peak"] for each in done])
            grown.append(median([each["peak"] - each["imported"] for each in done]))
            tokens.append(done[0]["tokens"])
    entry = result(peaks[0], peaks[1] if len(peaks) > 1 else [], row.unit, row.target, [*tokens, 0])
    return entry, session.about | {"versions": versions, "layouts": layouts, "grown": grown, "peaks": peaks}


def flat(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both rows of the long run: what they are compared with is the run's own beginning."""
    worker = Worker(sys.executable, "ours", "flat_cost", session.threads)
    try:
        done = worker.run({"layout": None, "threads": session.threads}, 0)
    finally:
        worker.close()
    entries = {}
    for row, what in zip(FLAT, ("cost", "memory"), strict=True):
        early, late = done["notes"][f"{what}_1000"], done["notes"][f"{what}_100000"]
        entries[row.name] = result([late], [early], row.unit, row.target, [done["tokens"], done["tokens"]])
    return entries, {row.name: session.about | {"notes": [done["notes"], {}]} for row in FLAT}


def quickstart(session: Session) -> tuple[dict[str, Any], dict[str, Any]]:
    """One run of each kind; both sides' seconds by stage stand beside the entry."""
    with Console(stderr=True).status("quickstart"):
        tried = {number: trial(number) for number in sorted({1, session.threads})}
        chosen = min(tried, key=lambda number: tried[number])
        by_stage = seconds(None), seconds(chosen)
    mine, theirs = ([side["total"]] for side in by_stage)
    entry = result(mine, theirs, WHOLE.unit, WHOLE.target, [None, None])  # no side's tokens are counted
    said = ", ".join(f"{number} {took:.0f} s" for number, took in tried.items())
    plain = (
        "responses from transformers' generate in batches of 256 rows, threads that wait as torch's do by default, "
        f"at most {chosen} (seconds of a short pretraining by threads: {said})"
    )
    return entry, session.about | {"notes": by_stage, "plain": plain}


def profiled(session: Session, row: Row, layout: Any) -> dict[str, Any]:
    """Where one repeat of ours spends its time, on one thread: the profiler follows only the one it runs on."""
    worker = session.worker("ours", row, threads=1)
    assert worker is not None
    try:
        found = worker.ask(do="profile", layout=layout["layout"])
    finally:
        worker.close()
    return {key: found[key] for key in ("seconds", "kinds", "operations")}


def agree(ours: dict[str, float], peer: dict[str, float]) -> bool:
    """Whether what both sides compute of the same data is the same."""
    return all(abs(ours[key] - peer[key]) <= AGREE * max(abs(ours[key]), 1e-2) for key in ours)


def same_lengths(ours: dict[str, float], peer: dict[str, float], repeats: int) -> bool:
    """Whether sampled responses are equally long on average, as far as so many of them can tell."""
    if "length_mean" not in ours:
        return True
    error = sqrt(sum(side["length_sd"] ** 2 / (side["responses"] * repeats) for side in (ours, peer)))
    return abs(ours["length_mean"] - peer["length_mean"]) <= FAR * error


def median_of(runs: list[dict[str, Any]], key: str) -> int:
    return int(median(done[key] for done in runs))


def work_per_unit(runs: list[dict[str, Any]]) -> float:
    """Floating-point operations in products with weights."""
    return median([done["flops"] / done["units"] for done in runs])


def mean_notes(runs: list[dict[str, Any]]) -> dict[str, float]:
    return {key: sum(done["notes"][key] for done in runs) / len(runs) for key in (runs[0]["notes"] if runs else ())}


def peer_environment() -> str | None:
    """The python of .venv-bench with TRL and this environment's torch and transformers, made where it is missing."""
    python = PEER / "bin" / "python"
    want = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in ("torch", "transformers")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    want += project["project"]["optional-dependencies"]["bench"]
    mark = PEER / "installed"
    if mark.exists() and mark.read_text(encoding="utf-8") == "\n".join(want):
        return str(python)
    print(f"making {PEER.name}: {', '.join(want)}", flush=True)
    venv.create(PEER, with_pip=True, clear=True, symlinks=True)
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", *want], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        print(f"TRL cannot be installed here ({last}): rows against it are measured on heedful's side alone")
        return None
    mark.write_text("\n".join(want), encoding="utf-8")
    return str(python)


def changed_code() -> str:
    """The first file of what is measured that differs from the last commit; "" where none does.

    Results of earlier rows are no such file.
    """
    git = ["git", "-C", str(ROOT), "diff", "--name-only", "HEAD", "--", "src", "benchmarks/*.py", "pyproject.toml"]
    found = subprocess.run(git, capture_output=True, text=True)
    return (found.stdout.splitlines() or [""])[0]


def matmul_peak(threads: int) -> float:
    """In a process of its own, so that this one never holds torch's threads."""
    code = f"from profiling import matmul_peak; print(matmul_peak({threads}))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, env=environment(), capture_output=True, text=True, check=True
    )
    return float(found.stdout)


def cpu_name() -> str:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    name = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    return f"{name}, {os.cpu_count()} cores"


@cache
def here() -> dict[str, Any]:
    """What heedful's manifests say of the place they were made in."""
    from heedful.environment import environment as of_heedful

    return of_heedful()


def tell(row: Row, entry: dict[str, Any], detail: dict[str, Any]) -> None:
    """A line or two on the terminal."""
    if entry["peer"] is None:
        print(f"{row.name}: ours {entry['ours']:.4g} {row.unit}; {row.peer}: not measured")
        return
    verdict = "met" if met(row, entry["ratio"]) and detail.get("agree") is not False else "not met"
    tokens = " and ".join("not counted" if entry[key] is None else f"{entry[key]:,}" for key in TOKENS)
    print(
        f"{row.name}: ours {entry['ours']:.4g}, peer {entry['peer']:.4g} {row.unit}; ratio {entry['ratio']:.2f}, "
        f"target {target_text(row)}, {verdict}; tokens {tokens}"
    )
    if "flops" in detail:
        share = detail["share_of_peak"]
        print(f"  {detail['flops'] / 1e9:.1f} GFLOP/s, {share:.0%} of a measured {detail['peak_flops'] / 1e9:.0f}")
        print(
            f"  versions {detail['versions']}, commit {detail['commit']}, {detail['cpu']}, {detail['threads']} threads"
        )
        print(
            f"  layouts {detail['layouts']}, tried {detail['tried']}; told to the thread libraries {detail['waiting']}"
        )
        print(f"  both sides agree: {detail['agree']} {detail['checks']}")
        print(f"  {detail['notes']}")
    sys.stdout.flush()


def measure(session: Session, names: list[str]) -> None:
    details = json.loads(path.read_text(encoding="utf-8")) if (path := session.folder / SESSION).exists() else {}
    for row in TIMED:
        if row.name in names:
            entry, detail = timed(session, row)
            if session.profile:
                detail["profile"] = profiled(session, row, detail["layouts"][0])
            details[row.name] = detail
            session.keep({row.name: entry}, {row.name: detail})
            tell(row, entry, detail)
    for row in MEMORY:
        if row.name in names:
            timed_row = row.name.removeprefix("memory_")
            if timed_row not in details:
                sys.exit(f"{row.name} takes layouts that were tried for speed; measure {timed_row} first")
            entry, detail = memory(session, row, [lean(tried) for tried in details[timed_row]["tried"]])
            session.keep({row.name: entry}, {row.name: detail})
            tell(row, entry, detail)
    if WHOLE.name in names:
        entry, detail = quickstart(session)
        session.keep({WHOLE.name: entry}, {WHOLE.name: detail})
        tell(WHOLE, entry, detail)
    if any(row.name in names for row in FLAT):
        entries, found = flat(session)
        session.keep(entries, found)
        for row in FLAT:
            tell(row, entries[row.name], found[row.name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help=f"rows; all of them when none is named: {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved pairs of repeats (5)")
    parser.add_argument("--threads", type=int, default=2, help="for each side (2)")
    parser.add_argument("--quick", action="store_true", help="neither memory nor the long run nor profiles")
    parser.add_argument("--no-profile", action="store_true", help="without profiles")
    parser.add_argument("--out", type=Path, default=HERE, help="where results.json goes (benchmarks/)")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in ROWS]
    if unknown:
        parser.error(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    names = args.names or [row.name for row in (TIMED if args.quick else ROWS.values())]
    args.out.mkdir(parents=True, exist_ok=True)
    if args.out == HERE and (changed := changed_code()):
        sys.exit(f"{changed} differs from the commit that the page would name: commit it, or give --out")
    try:
        measure(Session(args, names), names)
    except WorkerFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
