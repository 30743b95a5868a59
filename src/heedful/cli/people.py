"""The labelling app on the command line."""

import gc
import os
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from heedful.cli.common import errors, say
from heedful.cli.data import counted
from heedful.cli.label import label
from heedful.cli.workers import side_by_side
from heedful.config import InputError

if TYPE_CHECKING:
    import uvicorn

Place = Annotated[
    str, typer.Argument(help="A run's folder, or a store (a file or postgresql:// address).", show_default=False)
]
LOCAL = ("127.0.0.1", "localhost", "::1")
THINKING = 75  # seconds a connection stays open unused: a form sent while the server closes it would be lost
MOST_WORKERS = 4
SWITCH = 0.001  # seconds; a page waits so long for another one's thread each time the database has answered it


@label.command("serve")
def serve_labels(
    place: Place,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at.", min=1, max=65535)] = 8200,
    title: Annotated[str, typer.Option(help="What stands at the head of every page.")] = "heedful",
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model server to chat with and to try principles on, as NAME=ADDRESS; may be given again.",
            show_default=False,
        ),
    ] = None,
    secure: Annotated[bool, typer.Option("--secure", help="People come by HTTPS: cookies go no other way.")] = False,
    proxy: Annotated[
        str, typer.Option(help="Proxies whose word on the visitor's address counts, as IPs.", show_default="none")
    ] = "",
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that serve.", min=1, show_default="1; with PostgreSQL one for each core, up to 4"),
    ] = None,
) -> None:
    """Open the labelling app: pages on which people write, rate and rank what a run waits for.

    The first time it prints a link by which you make the first account, an admin's; everybody else is invited from
    inside. Stop it with Ctrl-C; nothing that was acknowledged is ever lost.
    """
    import uvicorn

    from heedful.store.database import open_store
    from heedful.web.app import create_app
    from heedful.web.config import WebConfig
    from heedful.web.first import first_invitation

    store_at = store_of(place)
    models = dict(named(text) for text in model or [])
    config = WebConfig(title=title, secure=secure, models=models, runs=place if store_at != place else "")
    address = f"http{'s' if secure else ''}://{'localhost' if host in LOCAL else host}:{port}"
    with open_store(store_at) as store:
        secret = first_invitation(store)
        if secret is not None:
            say(f"make the first account here: {address}/join/{secret}")
        say(f"labelling app: {address}   (Ctrl-C stops it)")
        app = create_app(store, config)
        gc.freeze()  # modules and routes are never garbage; looking through them would hold every page up
        sys.setswitchinterval(SWITCH)
        settings = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            timeout_keep_alive=THINKING,
            proxy_headers=bool(proxy),
            forwarded_allow_ips=proxy or None,
        )
        listening = settings.bind_socket()
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or a short answer waits 40 ms for the next
        if workers is None:  # a file has one writer at a time, and gains nothing by more processes
            workers = 1 if store.engine.dialect.name == "sqlite" else min(os.cpu_count() or 1, MOST_WORKERS)
        # A fork may not use the connections of the process it comes from.
        side_by_side(workers, lambda: serve(settings, listening), lambda: store.engine.dispose(close=False))


def serve(settings: "uvicorn.Config", listening: socket.socket) -> None:
    """Until a signal ends it; open requests are answered first."""
    import uvicorn

    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises the signal anew once it has ended
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])


@label.command("token")
def make_token(
    place: Place,
    account: Annotated[str, typer.Option(help="Whose token it is; made where new.", show_default=False)],
    role: Annotated[Literal["labeler", "lead", "researcher"], typer.Option(help="Of a new account.")] = "labeler",
    heldout: Annotated[bool, typer.Option("--heldout", help="A new account is of the held-out group.")] = False,
    simulated: Annotated[bool, typer.Option("--simulated", help="A new account is a program's that judges.")] = False,
) -> None:
    """Print a token by which a program uses the labelling app as an account (see heedful.client.Client).

    It is shown this once; whoever has it can do what the account can. Nobody can log in as an account made here until
    a lead gives it a password.
    """
    import secrets

    from heedful.store import accounts
    from heedful.store.database import open_store
    from heedful.types import LabelerGroup, LabelerKind

    with open_store(store_of(place)) as store:
        with store.read() as connection:
            found = accounts.find_account(connection, account)
        if found is None:
            group: LabelerGroup = "heldout" if heldout else "train"
            kind: LabelerKind = "simulated" if simulated else "person"
            found = accounts.add_account(store, account, secrets.token_urlsafe(24), role, group, kind=kind)
            errors.print(f"{account}: a new account, {role}", markup=False, highlight=False)
        say(accounts.add_token(store, found.id, "heedful label token"))


@label.command("simulate")
def simulate(
    address: Annotated[str, typer.Argument(help="The app's, such as http://localhost:8200.", show_default=False)],
    token: Annotated[list[str], typer.Option(help="A labeler's; given again, they work side by side.")],
    likes: Annotated[Literal["sentiment", "brevity"], typer.Option(help="What they judge by.")] = "sentiment",
    noise: Annotated[float, typer.Option(help="Standard deviation of their noise, in units of that.", min=0)] = 0.1,
    answer: Annotated[
        str, typer.Option(help="What they write as a demonstration.", show_default="they write none")
    ] = "",
    limit: Annotated[int | None, typer.Option(help="Items for each, at most.", min=1, show_default="all")] = None,
    pause: Annotated[float, typer.Option(help="Seconds of thinking about each item.", min=0)] = 0,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
) -> None:
    """Let simulated labelers work in a labelling app, through its JSON API: to try it out, or to load it."""
    from concurrent.futures import ThreadPoolExecutor

    from heedful.client import Client
    from heedful.feedback.remote import remote_labeler, work_through

    def one(secret: str) -> str:
        with Client(address, secret) as client:
            labeler = remote_labeler(client, likes, noise, seed)
            done = work_through(client, labeler, answer, limit, pause)
        return f"{labeler.labeler.id}: {counted(done)}"

    with ThreadPoolExecutor(len(token)) as pool:
        for line in pool.map(one, token):
            say(line)


def store_of(place: str) -> str:
    """The store of the run in the folder, or the one that is named.

    Raises:
        InputError: there is none.
    """
    folder = Path(place)
    store_at = str(folder / "store.db") if "://" not in place and folder.is_dir() else place
    if "://" not in store_at and not Path(store_at).exists():
        raise InputError(f"{place}: no run or store there; heedful run makes a run, heedful prompts import a store")
    return store_at


def named(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not equals or not address.startswith(("http://", "https://")):
        raise InputError(f"--model {text}: give it as NAME=ADDRESS, such as sft=http://localhost:8000")
    return name, address.rstrip("/")
