"""The labelling app on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from heedful.cli.common import say
from heedful.cli.label import label
from heedful.config import InputError

LOCAL = ("127.0.0.1", "localhost", "::1")


@label.command("serve")
def serve_labels(
    place: Annotated[
        str, typer.Argument(help="A run's folder, or a store (a file or postgresql:// address).", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen at.", min=1, max=65535)] = 8200,
    title: Annotated[str, typer.Option(help="What stands at the head of every page.")] = "heedful",
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model server to chat with, as NAME=ADDRESS; may be given again.", show_default=False),
    ] = None,
    secure: Annotated[bool, typer.Option("--secure", help="People come by HTTPS: cookies go no other way.")] = False,
    proxy: Annotated[
        str, typer.Option(help="Proxies whose word on the visitor's address counts, as IPs.", show_default="none")
    ] = "",
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

    folder = Path(place)
    is_run = "://" not in place and folder.is_dir()
    store_at = str(folder / "store.db") if is_run else place
    if "://" not in store_at and not Path(store_at).exists():
        raise InputError(f"{place}: no run or store there; heedful run makes a run, heedful prompts import a store")
    models = dict(named(text) for text in model or [])
    config = WebConfig(title=title, secure=secure, models=models, runs=place if is_run else "")
    address = f"http{'s' if secure else ''}://{'localhost' if host in LOCAL else host}:{port}"
    with open_store(store_at) as store:
        secret = first_invitation(store)
        if secret is not None:
            say(f"make the first account here: {address}/join/{secret}")
        say(f"labelling app: {address}   (Ctrl-C stops it)")
        uvicorn.run(
            create_app(store, config),
            host=host,
            port=port,
            log_level="warning",
            proxy_headers=bool(proxy),
            forwarded_allow_ips=proxy or None,
        )


def named(text: str) -> tuple[str, str]:
    name, equals, address = text.partition("=")
    if not equals or not address.startswith(("http://", "https://")):
        raise InputError(f"--model {text}: give it as NAME=ADDRESS, such as sft=http://localhost:8000")
    return name, address.rstrip("/")
