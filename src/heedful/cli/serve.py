"""Serving a model over HTTP: the command."""

import socket
from pathlib import Path
from typing import Annotated, Literal

import typer

from heedful.cli.common import errors, say
from heedful.config import InputError

Model = Annotated[str, typer.Argument(help="A model's folder, or a hub name.", show_default=False)]
LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model; otherwise MODEL as written.", show_default=False)
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Responses generated side by side.", min=1)] = 32,
    max_waiting: Annotated[
        int, typer.Option(help="Responses that may wait for their turn; more are refused (429).", min=0)
    ] = 256,
    max_context: Annotated[
        int | None,
        typer.Option(help="Tokens of prompt and response together; otherwise the model's.", min=2, show_default=False),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(help="A key that clients must give; may be given again.", envvar="HEEDFUL_API_KEY"),
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="A web page's origin that browsers may let in; may be given again.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option(help="A Jinja file, for a model without a chat template.", show_default=False)
    ] = None,
    collect: Annotated[
        Path | None,
        typer.Option(
            help="Keep chat prompts whose sender agrees (store: true, with user) in this file, for prompts import.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="The numbers the weights are held in.")
    ] = "float32",
    device: Annotated[
        str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1, …", show_default="a GPU where there is one")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads that compute on a CPU; otherwise all cores.", min=1, show_default=False)
    ] = None,
    grace: Annotated[int, typer.Option(help="Seconds that open requests may go on when the server ends.", min=0)] = 30,
) -> None:
    """Serve a model over an OpenAI-compatible API: chat and text completions, streaming, log-probabilities."""
    listening = bind(host, port)
    from heedful.cli.serving import load, run
    from heedful.serve.app import make_app
    from heedful.serve.collect import Collector

    collector = None if collect is None else Collector(collect)
    served = load(model, name or model, max_batch, max_context, chat_template, dtype, device)
    keys = [key for key in api_key or [] if key]
    app = make_app(served, max_waiting, keys, allow_origin or [], threads, collector)
    if host not in LOCAL and not keys:
        errors.print(f"{host} is open to other machines: set --api-key", style="yellow", highlight=False)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/v1"
    say(f"{url} serves {served.name} ({served.context} tokens, {max_batch} rows)")
    run(app, listening, grace)


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at the address: whoever comes while the model is being loaded waits for it.

    Raises:
        InputError: the address cannot be had.
    """
    try:
        [family, _, _, _, address] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or a short answer waits 40 ms for the next
        found.bind(address)
        found.listen(2048)  # two sockets may be bound to one address, but only one may listen
    except OSError as error:
        raise InputError(f"{host}:{port}: {error.strerror}; choose another --host or --port") from None
    return found
