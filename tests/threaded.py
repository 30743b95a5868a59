"""Apps that a thread of this process serves."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import uvicorn
from starlette.applications import Starlette

LOOK = 0.005  # seconds between two looks at whether it should stop; uvicorn's own tenth, twice, is most of a short test


class Threaded(uvicorn.Server):
    """The app on a free port of its own, from now until `close`."""

    def __init__(self, app: Starlette, lifespan: Literal["on", "off"] = "off", log_level: str = "critical") -> None:
        super().__init__(uvicorn.Config(app, log_level=log_level, lifespan=lifespan))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.thread = threading.Thread(target=self.run, args=([listening],), daemon=True)
        self.thread.start()
        while not self.started:
            assert self.thread.is_alive(), "the app does not start"
            time.sleep(LOOK)

    def close(self) -> None:
        self.should_exit = True
        self.thread.join()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # it makes the header Date
        while not self.should_exit:
            await asyncio.sleep(LOOK)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for closing in (*self.servers, *(sockets or ())):
            closing.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(LOOK)
        await self.lifespan.shutdown()


@contextmanager
def threaded(app: Starlette, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """The app's address while it is served."""
    server = Threaded(app, lifespan)
    try:
        yield server.address
    finally:
        server.close()
