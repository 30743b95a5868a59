"""The command line. Bad input is one clear line and exit code 2; waiting for people exits 3; success 0."""

from heedful.cli.main import app

__all__ = ["app"]
