"""Every test of the app's pages on both databases; `make test` draws one for each."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from matrix import WHOLE

pytestmark = pytest.mark.accept
TESTS = Path(__file__).parent.parent


def test_every_page_holds_on_both_databases(record_property: Any) -> None:
    record_property("claim", "every test of the labelling app's pages holds on SQLite and on PostgreSQL")
    command = [sys.executable, "-m", "pytest", "-n", "2", "-m", "not accept", "-k", "sqlite or postgresql or no_input"]
    where = {"cwd": TESTS.parent, "env": os.environ | {WHOLE: "1"}}
    found = subprocess.run([*command, str(TESTS / "web")], capture_output=True, text=True, **where)
    last = found.stdout.splitlines()[-1]
    if "skipped" in last:
        pytest.skip("no PostgreSQL server is installed")
    record_property("measured", last.split(" in ")[0])
    assert found.returncode == 0, found.stdout[-5000:]
    assert int(re.search(r"(\d+) passed", last)[1]) > 400
