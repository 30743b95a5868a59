"""Files stay within 400 lines, functions within 60; a training loop, a function named `train`, within 80.

Files of tests have names of their own: pytest imports two of one name as one, and collects neither.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "heedful"
MAX_FILE, MAX_FUNCTION, MAX_LOOP = 400, 60, 80


def too_long(source: Path = SOURCE) -> Iterator[str]:
    """One line for each file or function over its limit."""
    for path in sorted(source.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        lines = text.count("\n")
        if lines > MAX_FILE:
            yield f"{path}: {lines} lines, the limit is {MAX_FILE}"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                limit = MAX_LOOP if node.name == "train" else MAX_FUNCTION
                if length > limit:
                    yield f"{path}:{node.lineno} {node.name}: {length} lines, the limit is {limit}"


def same_names(tests: Path = TESTS) -> Iterator[str]:
    """One line for each name that several files of tests have."""
    for name, number in Counter(path.name for path in tests.rglob("test_*.py")).items():
        if number > 1:
            yield f"{tests}: {number} files are called {name}"


if __name__ == "__main__":
    complaints = [*too_long(), *same_names()]
    print("\n".join(complaints) or "sizes: every file and function is within its limit")
    sys.exit(bool(complaints))
