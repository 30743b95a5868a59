"""The tiny recipe, and the command line as a test calls it."""

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

TINY = Path(__file__).parent / "tiny.yaml"


def cli(*arguments: object, input: str | None = None) -> Any:
    """Run a command in this process: result.exit_code, result.stdout, result.stderr."""
    from heedful.cli import app

    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)


def succeed(*arguments: object, input: str | None = None) -> str:
    """Run a command that must succeed; returns what it printed on stdout."""
    result = cli(*arguments, input=input)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def refuse(*arguments: object, code: int = 2, input: str | None = None) -> str:
    """Run a command that must end with the code after one line on stderr; returns that line."""
    result = cli(*arguments, input=input)
    assert result.exit_code == code, result.output + repr(result.exception)
    lines = [line for line in result.stderr.splitlines() if line.startswith(("error:", "stopped:"))]
    assert len(lines) == 1 and lines[0] == result.stderr.splitlines()[-1], result.stderr
    return lines[0]
