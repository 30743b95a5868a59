"""Which tests `make test` runs on one database, or on fewer examples, and `make accept` on all."""

import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any
from zlib import crc32

WHOLE = "HEEDFUL_TEST_WHOLE"  # a variable of the environment: every test, on every database
DATABASES = re.compile("sqlite|postgresql")


def is_whole() -> bool:
    """Whether `make accept` runs them."""
    return WHOLE in os.environ


def left_out(items: list[Any], folder: Path) -> list[Any]:
    """The tests of a folder that do not run where each runs on one database only, which its name decides."""
    twins: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        if item.path.is_relative_to(folder) and DATABASES.search(item.name):
            twins[DATABASES.sub("", item.nodeid)].append(item)
    return [two[crc32(name.encode()) % 2] for name, two in twins.items() if len(two) == 2]
