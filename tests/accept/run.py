"""Run the long proofs and write what they measured into docs/acceptance.md.

    python tests/accept/run.py            all of them
    python tests/accept/run.py -k kill    some of them; the other rows of the table stay as they are

A proof records its claim, what it measured and perhaps a figure (SVG) by `record_property`; one that cannot run here
says so in its row. HEEDFUL_RUNS names a folder in which runs of the shipped recipes are looked for and kept.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "acceptance.md"
FIGURES = PAGE.parent / "img"
HEAD = """# Acceptance

`make accept` writes this page: the long proofs (tests under `tests/accept`), what each claims, what was measured, and
whether it holds. A commit with + had changes; rows of proofs that were not run again stay as they were, and those that
were never run say so.

| claim | measured | holds | commit | minutes | test |
|---|---|---|---|---|---|
"""
OUTCOMES = {"passed": "yes", "failed": "**no**", "skipped": "not measured"}
SAID = {"passed": "every check of the test", "failed": "nothing: it ended before", "skipped": "nothing"}


class Row(NamedTuple):
    claim: str
    measured: str
    holds: str
    commit: str
    minutes: str
    test: str

    def line(self) -> str:
        return "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in self) + " |\n"

    def figure(self) -> Path:
        """Where the proof's figure lies, if it has one."""
        name = self.test.strip("`").split("::")[-1].removeprefix("test_")
        return FIGURES / f"accept_{name}.svg"


class Collector:
    """Gathers one row per test, and its figure."""

    def __init__(self, commit: str) -> None:
        self.commit = commit
        self.rows: list[Row] = []
        self.left: list[Row] = []
        self.figures: dict[Path, str] = {}

    def pytest_deselected(self, items: list[Any]) -> None:
        names = [item.nodeid.rsplit("/", 1)[-1] for item in items if item.get_closest_marker("accept")]
        self.left += [Row(name, "nothing", "not run", "", "", f"`{name}`") for name in names]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        told = dict(report.user_properties)
        name = report.nodeid.rsplit("/", 1)[-1]
        why = str(report.longrepr[2]) if report.skipped and isinstance(report.longrepr, tuple) else ""
        self.rows.append(
            Row(
                told.get("claim", name),
                told.get("measured", why or SAID[report.outcome]),
                OUTCOMES[report.outcome],
                self.commit,
                f"{report.duration / 60:.1f}",
                f"`{name}`",
            )
        )
        if "figure" in told:
            self.figures[self.rows[-1].figure()] = told["figure"]


def read_rows(page: Path) -> list[Row]:
    """The rows of an earlier run."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.exists() else []
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")][2:]
    return [Row(*row) for row in cells]


def pictures(rows: list[Row]) -> str:
    """The figures there are, each under its claim."""
    shown = [row for row in rows if row.figure().exists()]
    return "".join(f"\n![{row.claim}]({row.figure().relative_to(PAGE.parent)})\n" for row in shown)


def merged(old: list[Row], new: list[Row], left: list[Row]) -> list[Row]:
    """The old rows with the new ones in their places, further ones behind them, then proofs that were never run."""
    fresh = {row.test: row for row in new}
    ran = [fresh.pop(row.test, row) for row in old] + [row for row in new if row.test in fresh]
    there = {row.test for row in ran}
    return ran + [row for row in left if row.test not in there]


def commit() -> str:
    """The commit measured, with + where files differ from it."""
    git = ["git", "-C", str(HERE)]
    head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
    changed = subprocess.run([*git, "status", "--porcelain", "-uno", "--", "../../src"], capture_output=True, text=True)
    return head + ("+" if changed.stdout.strip() else "")


def main(arguments: list[str]) -> int:
    collector = Collector(commit())
    folders = [str(HERE), str(HERE.parent / "web")]  # there, the further languages and colours of browser tests
    code = pytest.main(["-m", "accept", "--timeout", "7200", *folders, *arguments], plugins=[collector])
    rows = merged(read_rows(PAGE), collector.rows, collector.left)
    for path, svg in collector.figures.items():
        path.write_text(svg, encoding="utf-8")
    PAGE.write_text(HEAD + "".join(row.line() for row in rows) + pictures(rows), encoding="utf-8")
    print("".join(row.line() for row in collector.rows))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
