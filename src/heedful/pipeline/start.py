"""Running a recipe in a folder: start it, go on with it, finish it with results and a report."""

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from heedful.config import InputError, read_recipe
from heedful.models.load import load_tokenizer
from heedful.pipeline.jobs import Workers
from heedful.pipeline.loop import Loop
from heedful.pipeline.people import PeopleSource
from heedful.pipeline.recipe import Recipe, build
from heedful.pipeline.results import write_results
from heedful.pipeline.source import Source
from heedful.pipeline.stories import StoriesSource
from heedful.pipeline.world import WorldSource
from heedful.report import write_report
from heedful.run import write_atomic
from heedful.store.database import Store, open_store


def run_recipe(name: str, folder: Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The whole loop; on an unfinished folder of the same configuration it goes on. Returns the results.

    Raises:
        InputError: a wrong recipe, or a folder that holds another one.
        Waiting: people have not judged enough yet.
    """
    recipe = build(read_recipe(name, overrides))
    with at_work(recipe, folder) as loop:
        loop.run()
        results = write_results(recipe, folder)
        write_report(folder)
        return results


@contextmanager
def at_work(recipe: Recipe, folder: Path, cores: int | None = None) -> Iterator[Loop]:
    """The recipe's loop in the folder, which belongs to this process meanwhile.

    Raises:
        InputError: a source or model that is not there, a folder that holds another run, or one whose store is gone;
            nothing was written.
    """
    source = source_of(recipe)
    if recipe.model is not None:
        load_tokenizer(recipe.model)  # a misspelt model is noticed now, not after the steps before its first use
    with locked(folder), kept_store(folder) as store, Workers(cores) as workers:
        keep_recipe(recipe, folder)
        yield Loop(recipe, folder, store, source, workers)


def kept_store(folder: Path) -> Store:
    """The run's store, made where the run begins.

    Raises:
        InputError: it is gone, though finished steps wrote into it.
    """
    place = folder / "store.db"
    if (folder / "data" / "done.json").exists() and not place.exists():
        raise InputError(
            f"{place} is gone, though finished steps of this run wrote into it; put it back (heedful store restore "
            "brings a backup), or begin anew in another --dir"
        )
    return open_store(place)


def source_of(recipe: Recipe) -> Source:
    """Where the recipe's prompts and judgements come from.

    Raises:
        InputError: a file that is not there, or a source that nothing fits.
    """
    asked = "world" if recipe.prompts == "world" else "sentiment" if recipe.stories is not None else "people"
    if recipe.labelers.judge not in (asked, "people"):
        raise InputError(
            f"labelers.judge is {recipe.labelers.judge}, who knows nothing of prompts: {recipe.prompts}; "
            f"set labelers.judge={asked}"
        )
    if asked == "world":
        return WorldSource(recipe)
    return StoriesSource(recipe) if asked == "sentiment" else PeopleSource(recipe)


def keep_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe into a new folder; an old one must hold the same.

    Raises:
        InputError: names the first setting that differs.
    """
    if (folder / "sweep.json").exists():
        raise InputError(f"{folder} holds a sweep; use another --dir")
    path = folder / "recipe.json"
    now = recipe.model_dump(mode="json")
    if path.exists():
        for key, there, here in differences(as_now(json.loads(path.read_text(encoding="utf-8"))), now):
            raise InputError(f"{folder} holds a run with {key} = {there!r}, now {here!r}; use another --dir")
    else:
        write_atomic(path, json.dumps(now, indent=2) + "\n")


def as_now(old: Any) -> Any:
    """A kept recipe with the settings that came after it at their defaults; what is no recipe any more as it is."""
    try:
        return Recipe.model_validate(old).model_dump(mode="json")
    except ValidationError:
        return old


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every setting that differs, as (key, old, new)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}".lstrip("."))
    elif old != new:
        yield key, old, new


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one process at a time; the lock goes with the process, however it ends.

    Raises:
        InputError: another process works in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--dir {folder}: {error.strerror}; choose another folder") from None
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another heedful is at work there; wait for it or stop it") from None
        yield
