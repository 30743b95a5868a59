"""Prompts and the store: intake, reports, snapshots, backup, erasing. Nothing here needs torch."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from heedful.cli.common import StorePlace, console, existing_store, intake_of, say, store_place
from heedful.config import InputError, nearest, parse

PoolName = Literal["sft", "reward_model", "ppo", "evaluation"]

StoreArgument = Annotated[
    str, typer.Argument(help="The store: an SQLite file, a run's folder or a postgresql:// URL.", show_default=False)
]

prompts = typer.Typer(help="Take prompts in, and show what each pool holds.", no_args_is_help=True)
store = typer.Typer(help="Back up and restore the labelling store, erase a person's data.", no_args_is_help=True)


def rule(help: str, default: object) -> Any:
    """An option of intake's rules; not given, the run's own rule holds, or the default in a store of no run."""
    return typer.Option(help=help, show_default=f"the run's, else {default}")


@prompts.command("import")
def import_prompts(
    file: Annotated[Path, typer.Argument(help="Prompts: .jsonl, or .txt with one a line.", show_default=False)],
    store: StorePlace,
    pool: Annotated[
        PoolName | None, typer.Option(help="Put them all in this pool instead of sharing them out.")
    ] = None,
    round: Annotated[int, typer.Option(help="The turn of the loop they came in.", min=0)] = 0,
    user: Annotated[str, typer.Option(help="Whose prompts a .txt file holds; else each line has its own user.")] = "",
    prefix: Annotated[int | None, rule("Prompts that agree in so many first characters are one.", 200)] = None,
    cap: Annotated[int | None, rule("Prompts kept per user.", 200)] = None,
    key: Annotated[str | None, rule("What cap and split go by: user or organisation.", "user")] = None,
    split: Annotated[str | None, rule("assign: by user; keep: the file brings each prompt's split.", "assign")] = None,
    valid: Annotated[float | None, rule("Share of users whose prompts are for validation.", 0.1)] = None,
    test: Annotated[float | None, rule("Share of users whose prompts are for the final test.", 0.1)] = None,
    pii: Annotated[
        str | None, rule("Personal data in training prompts: redact, drop (the prompt) or keep.", "redact")
    ] = None,
    names: Annotated[
        str | None, rule("module:function that finds people's names in a text, to redact them too.", "none")
    ] = None,
    salt: Annotated[str | None, rule("Another text gives another split and other pools.", "empty")] = None,
) -> None:
    """Take a file of prompts into the store: de-duplicated, capped, split by user, cleaned, shared out to pools.

    The store of a run's folder takes them by the rules of that run (its intake block); an option given here that
    differs is used, and said. A user who is in the store keeps the split they have there.
    """
    from heedful.store.database import open_store
    from heedful.store.intake import IntakeConfig, few_demonstrations, read_prompts
    from heedful.store.intake import import_prompts as take_in
    from heedful.store.pools import prompts_with_pool

    options = {"prefix": prefix, "cap": cap, "key": key, "split": split, "valid": valid, "test": test}
    options |= {"pii": pii, "names": names, "salt": salt}
    given = {name: value for name, value in options.items() if value is not None}
    rules = intake_of(store_place(store))
    for name, value in given.items():
        if name in rules and rules[name] != value:
            say(f"--{name} {value} is used for this file; the run was begun with intake.{name} = {rules[name]!r}")
    config = parse(IntakeConfig, rules | given, "")
    found = read_prompts(file, user)
    with open_store(store_place(store)) as opened:
        report = take_in(opened, found, config, pool, round)
        # A later round asks for no demonstrations.
        begun = prompts_with_pool(opened, 0) if round == 0 and pool is None else []
        warning = few_demonstrations(begun, "import some with --pool sft")
    for line in report.lines():
        say(line)
    if warning:
        say(warning)


@prompts.command("report")
def report_prompts(
    store: StoreArgument,
    round: Annotated[
        int | None, typer.Option(help="Only prompts of this turn of the loop.", show_default="all")
    ] = None,
) -> None:
    """Show sizes, sources, use cases, kinds and lengths of the prompts in each pool."""
    from heedful.store.database import open_store
    from heedful.store.pool_report import pool_tables
    from heedful.store.pools import prompts_with_pool

    with open_store(existing_store(store)) as opened:
        found = prompts_with_pool(opened, round)
    if not found:
        raise InputError(
            f"{store} holds no prompts yet; take some in with: heedful prompts import FILE --store {store}"
        )
    for table in pool_tables(found):
        console.print(table)


def snapshot(
    store: StoreArgument,
    folder: Annotated[Path, typer.Argument(help="The snapshot's folder, which must be new.", show_default=False)],
    pool: Annotated[list[str] | None, typer.Option(help="Only this pool; may be given again.")] = None,
    round: Annotated[list[int] | None, typer.Option(help="Only this turn of the loop; may be given again.")] = None,
    purpose: Annotated[
        Literal["train", "evaluation", "both"],
        typer.Option(help="Rankings and ratings made for training or evaluation."),
    ] = "train",
    heldout: Annotated[
        Literal["exclude", "validation", "include"],
        typer.Option(help="Held-out labelers: none, those of prompts outside the training split, or all."),
    ] = "exclude",
    as_of: Annotated[
        datetime | None, typer.Option(help="The store as it stood then, in local time.", show_default="now")
    ] = None,
) -> None:
    """Freeze the store into a hashed folder, the only thing training reads."""
    from heedful.snapshot import TABLES, write_snapshot
    from heedful.store.database import open_store
    from heedful.store.export import export_snapshot

    with open_store(existing_store(store)) as opened:
        found = export_snapshot(
            opened,
            as_of=as_of,
            pools=known_pools(pool or []) or None,
            purpose=None if purpose == "both" else purpose,
            rounds=round or None,
            heldout=heldout,
        )
    written = write_snapshot(folder, found)
    say(f"{folder}: {counted({name: len(getattr(written, name)) for name in TABLES})}")
    if written.dropped:
        say(f"left out: {counted(written.dropped)}")
    say(f"hash {written.hash}")


@store.command("backup")
def backup_store(
    store: StoreArgument,
    file: Annotated[Path, typer.Argument(help="The backup to write, such as store.jsonl.gz.", show_default=False)],
) -> None:
    """Write the whole store, history included, into one checked file; it may be in use meanwhile."""
    from heedful.store.backup import backup
    from heedful.store.database import open_store

    with open_store(existing_store(store)) as opened:
        counts = backup(opened, file)
    say(f"{file}: {counted(counts)}")


@store.command("restore")
def restore_store(
    file: Annotated[Path, typer.Argument(help="A backup.", show_default=False)],
    store: Annotated[str, typer.Argument(help="The new store, which must be empty.", show_default=False)],
) -> None:
    """Make a store from a backup, on SQLite or PostgreSQL."""
    from heedful.store.backup import restore

    say(f"{store}: {counted(restore(file, store))}")


@store.command("erase")
def erase_person(
    store: StoreArgument,
    user: Annotated[str | None, typer.Option(help="Erase this user's prompts and all made from them.")] = None,
    labeler: Annotated[str | None, typer.Option(help="Erase this labeler and their judgements.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
) -> None:
    """Erase a person's data on request; a tombstone without content stays. It cannot be undone."""
    from heedful.store.database import open_store
    from heedful.store.erase import erase_labeler, erase_user

    if (user is None) == (labeler is None):
        raise InputError("say whose data to erase: either --user ID or --labeler ID")
    place = existing_store(store)
    if not yes:
        typer.confirm(f"Erase all data of {user or labeler} from {place}? It cannot be undone.", abort=True)
    with open_store(place) as opened:
        erased = erase_user(opened, user) if user is not None else erase_labeler(opened, str(labeler))
    say(f"erased: {counted(erased)}; snapshots, exports and backups written earlier still hold them")


def known_pools(names: list[str]) -> list[PoolName]:
    """The names as pools.

    Raises:
        InputError: a name that is none.
    """
    known: dict[str, PoolName] = {name: name for name in get_args(PoolName)}
    for name in names:
        if name not in known:
            raise InputError(f"--pool {name}: no such pool{nearest(name, known)}; known are {', '.join(known)}")
    return [known[name] for name in names]


def counted(counts: Mapping[str, int]) -> str:
    """3 prompts, 2 rankings."""
    found = [f"{count:,} {name}" for name, count in counts.items() if count]
    return ", ".join(found) or "nothing"
