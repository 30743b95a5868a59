"""What every command shares: consoles, options, and how an error becomes one line and an exit code.

0 success · 1 the training diverged, or `doctor` found a problem · 2 bad input · 3 waiting for people · 130 Ctrl-C.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from heedful.config import InputError
from heedful.run import Diverged, Inexact, Waiting

BAD_INPUT, WAITING, INTERRUPTED = 2, 3, 130

# What the system says when a place cannot be written or read, with the mend.
FULL = {
    errno.ENOSPC: "free some space and run the same command again; finished steps are kept",
    errno.EDQUOT: "free some space and run the same command again; finished steps are kept",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the same command again",
}
SYSTEM_ERRORS = FULL | {
    errno.EACCES: "give yourself the right to it, or choose another place",
    errno.EPERM: "give yourself the right to it, or choose another place",
    errno.EROFS: "choose a place that can be written",
    errno.ENOTDIR: "choose another place: a file stands where a folder is needed",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOENT: "name a place that exists, or bring the file back",
    errno.ENAMETOOLONG: "choose a shorter name",
}

console = Console()
errors = Console(stderr=True)

RunFolder = Annotated[Path, typer.Argument(help="A run's folder.", show_default=False)]
Recipe = Annotated[
    str, typer.Argument(help="A shipped recipe's name (see heedful recipes), or a YAML file.", show_default=False)
]
Into = Annotated[Path, typer.Option("--dir", help="The run's folder: made, or gone on with.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change one setting, such as ppo.kl_coef=0.05; may be given again.", metavar="KEY=VALUE"
    ),
]
StorePlace = Annotated[
    str,
    typer.Option(
        "--store", help="The store: an SQLite file, a run's folder or a postgresql:// URL.", show_default=False
    ),
]


class Commands(TyperGroup):
    """The whole command line; whatever goes wrong in a command ends here."""

    def invoke(self, ctx: Any) -> Any:
        with friendly():
            return super().invoke(ctx)


@contextmanager
def friendly() -> Iterator[None]:
    """Turn what people can mend into one line and its exit code."""
    try:
        yield
    except InputError as error:
        fail(str(error), BAD_INPUT)
    except Diverged as error:
        fail(str(error), 1, "stopped")
    except Inexact as error:
        fail(f"{error}: a mistake of heedful or of this machine, not of your settings; please report it", 1, "stopped")
    except Waiting as error:
        say(str(error))
        raise typer.Exit(WAITING) from None
    except KeyboardInterrupt:
        fail("by Ctrl-C", INTERRUPTED, "stopped")
    except OSError as error:
        if error.errno not in SYSTEM_ERRORS:
            raise
        fail(f"{error.filename or 'writing'}: {error.strerror}; {SYSTEM_ERRORS[error.errno]}", BAD_INPUT)
    except Exception as error:
        if (line := storage_line(error)) is None:
            raise
        fail(line, BAD_INPUT)


def storage_line(error: Exception) -> str | None:
    """One line for a database, a model or a state that could not be written; None for anything else."""
    database = sys.modules.get("sqlalchemy.exc")
    if database is not None and isinstance(error, database.OperationalError):
        return f"the store: {' '.join(str(error.orig).split())}; mend that and run the same command again"
    text = " ".join(str(error).split())
    for code, mend in FULL.items():
        # Writers of weights tell the number in their text; torch.save loses it, but fails while handling it.
        behind = isinstance(error.__context__, OSError) and error.__context__.errno == code
        if behind or f"os error {code}" in text:
            return f"a model or state could not be written: {os.strerror(code)}; {mend}"
    if "inline_container" in text:  # torch.save in another process: what it was handling does not come along
        return f"a state could not be written ({text}); {FULL[errno.ENOSPC]}"
    return None


def fail(message: str, code: int, what: str = "error") -> None:
    """One line on stderr, whatever characters it holds, and the end of the command."""
    errors.print(f"[red]{what}:[/red] ", end="")
    errors.print(" ".join(message.split()), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def say(message: str) -> None:
    """One line on stdout, not wrapped and not coloured."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def store_place(place: str | Path) -> str:
    """The store's place; that of the run in it where a folder is named."""
    return str(Path(place) / "store.db") if "://" not in str(place) and Path(place).is_dir() else str(place)


def intake_of(place: str) -> dict[str, Any]:
    """The intake block of the run that the store belongs to; empty for a store of its own.

    Raises:
        InputError: the run's recipe.json is broken.
    """
    folder = Path(place).parent
    if Path(place).name != "store.db" or not (folder / "recipe.json").exists():
        return {}
    from heedful.steps import existing_run

    found: dict[str, Any] = existing_run(folder).get("intake", {})
    return found


def existing_store(place: str | Path) -> str:
    """The store's place, or that of the run in a folder.

    Raises:
        InputError: no store is there: reading must not make an empty one.
    """
    if "://" in str(place):
        return str(place)
    path = Path(store_place(place))
    if not path.exists():
        raise InputError(f"{path}: no store is there; name an existing store, or heedful prompts import makes one")
    return str(path)
