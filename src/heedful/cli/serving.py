"""Loading the model that is served, and serving until a signal ends it."""

import signal
import socket
import time
from pathlib import Path

import torch
import uvicorn
from starlette.applications import Starlette

from heedful.cli.common import say
from heedful.config import InputError
from heedful.engine.engine import Engine
from heedful.engine.spelling import Spelling
from heedful.export import model as exported
from heedful.models.load import compute_device, context_length
from heedful.serve.served import Served, end_tokens


def load(
    model: str,
    name: str,
    max_batch: int,
    max_context: int | None,
    chat_template: Path | None,
    dtype: str,
    device: str | None = None,
) -> Served:
    """The model, its chat template that of the run it lies in, where the run trained without one.

    Raises:
        InputError: no such model, device or template.
    """
    decoder, tokenizer = exported.load(Path(model))
    run = exported.run_of(Path(model))
    if chat_template is not None:
        try:
            tokenizer.chat_template = chat_template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{chat_template}: cannot be read; name a Jinja file in UTF-8") from None
    elif run is not None and exported.trained_format(run).style == "plain":
        begins = tokenizer.bos_token is not None
        tokenizer.chat_template = exported.chat_template(exported.trained_format(run), begins)
    device = device or str(compute_device())
    try:
        decoder = decoder.to(device=device, dtype=getattr(torch, dtype))
    except (RuntimeError, AssertionError) as error:
        line = str(error).splitlines()[0]
        raise InputError(f"--device {device}: {line}; heedful doctor shows what there is") from None
    context = min(context_length(decoder), max_context or context_length(decoder))
    engine = Engine(decoder, end_tokens(decoder, tokenizer), max_batch)
    return Served(name, engine, tokenizer, Spelling(tokenizer), context, int(time.time()))


def run(app: Starlette, listening: socket.socket, grace: int) -> None:
    """Serve until SIGTERM, which ends the command well, or Ctrl-C; open requests are answered first."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, lifespan="on", ws="none", timeout_graceful_shutdown=grace
    )
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises the signal anew once it has ended
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)
    say("ended")
