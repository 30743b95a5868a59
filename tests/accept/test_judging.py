"""Judging at length by a server: how full it is kept, counted where the requests arrive."""

import json
import socket
import time
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from heedful.cli.serving import load
from heedful.feedback.ai.calls import Limits
from heedful.feedback.ai.ledger import Ledger
from heedful.feedback.ai.server import ServedModel
from heedful.serve.app import make_app
from processes import FORKS, wait_until
from public_data import stories_model

pytestmark = pytest.mark.accept
PAIRS, PLACES, FULL = 10_000, 32, 30
LABELS = ("a", "the")  # words that a storyteller has at hand: in twenty likeliest tokens
NOUNS = ("boat", "dog", "cat", "ball", "bird", "tree", "car", "hat", "cake", "toy", "book", "fish", "box", "bed", "cup")
STORY = (
    "They were in the park. His mom said that he may have only one of them. Tom looked at them for a long time. "
    "He was happy, but he was sad too, because he liked both. A little girl came and asked him what he was doing. "
    "She said that she had one at home, and that it was very big. Then the sun went down, and they had to go home. "
)


class Counting:
    """An app, and for how long how many of its answers were on their way."""

    def __init__(self, app: ASGIApp, place: Path) -> None:
        self.app, self.place = app, place
        self.number = self.served = 0
        self.since = 0.0
        self.seconds: dict[int, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        self._change(1)
        try:
            await self.app(scope, receive, send)
        finally:
            self.served += 1
            self._change(-1)

    def _change(self, by: int) -> None:
        now = time.monotonic()
        if self.served:
            self.seconds[self.number] = self.seconds.get(self.number, 0.0) + now - self.since
        self.since = now
        self.number += by
        if not self.number:
            self.place.write_text(json.dumps({"served": self.served, "seconds": self.seconds}))


def serve(folder: str, port: int, place: str) -> None:
    """As `heedful serve` does, but for the counting."""
    options: dict[str, Any] = {"max_batch": PLACES, "max_context": None, "chat_template": None}
    served = load(folder, name="stories", dtype="float32", device="cpu", **options)
    app = Counting(make_app(served, 256, threads=1), Path(place))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", lifespan="on")


def test_a_server_is_kept_full(tmp_path: Path, record_property: Any) -> None:
    record_property(
        "claim",
        f"{PAIRS:,} pairs in both orders, {PLACES} calls in flight, keep a served model busy: {FULL} or more are on "
        "their way most of the time and hardly ever none, and a second run asks nothing",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    counted = tmp_path / "counted.json"
    process = FORKS.Process(target=serve, args=(str(stories_model()), port, str(counted)))
    process.start()
    try:
        wait_until(lambda: listens(port))
        prompts = [
            f"{n} Tom saw a {one} and a {other}. {STORY} He wanted to have"
            for n in range(PAIRS // len(NOUNS) + 1)
            for one, other in permutations(NOUNS, 2)
        ][: 2 * PAIRS]
        with Ledger(tmp_path / "judge.db") as ledger:
            model = ServedModel(f"http://127.0.0.1:{port}", ledger, limits=Limits(in_flight=PLACES))
            wait_until(lambda: counted.exists())
            probed = json.loads(counted.read_text())
            began = time.monotonic()
            found = model.choose(prompts, LABELS)
            seconds = time.monotonic() - began
            wait_until(lambda: json.loads(counted.read_text())["served"] >= probed["served"] + len(prompts))
            told = json.loads(counted.read_text())
            again = model.choose(prompts, LABELS)
            asked = model.caller.counts["asked"]
    finally:
        process.terminate()
        process.join()
    assert again == found and asked == len(prompts) == told["served"] - probed["served"]
    assert {outcome.kind for outcome in found} == {"ok"}
    spent = {int(n): s - probed["seconds"].get(n, 0.0) for n, s in told["seconds"].items()}
    whole = sum(spent.values())
    full = sum(s for n, s in spent.items() if n >= FULL) / whole
    mean = sum(n * s for n, s in spent.items()) / whole
    idle = spent.get(0, 0.0) / whole
    record_property(
        "measured",
        f"{len(prompts):,} calls in {seconds:.0f} s ({len(prompts) / seconds:.0f} a second) on a shared machine; "
        f"{FULL} or more in flight {100 * full:.0f} % of the time, {mean:.1f} on average, none {100 * idle:.1f} %; "
        f"the second run asked {asked - len(prompts)}",
    )
    assert full > 0.5 and mean > 0.8 * PLACES and idle < 0.02


def listens(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0
