"""Two real servers, ours and that of transformers, with a real language model: what comes back is what it computes."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from heedful.feedback.ai.calls import Limits
from heedful.feedback.ai.labeler import Outcome, expected_score, share_of_first
from heedful.feedback.ai.ledger import Ledger
from heedful.feedback.ai.local import CHAT, LocalAsk
from heedful.feedback.ai.server import ServedModel
from heedful.models.load import load_decoder, load_tokenizer
from processes import wait_until
from public_data import stories_model
from small_server import launch, save_small, stop
from small_tokenizers import byte_tokenizer

LABELS = ["1", "2"]
MARKS = [str(mark) for mark in range(1, 11)]
STORIES = ("a red boat", "one big dog", "the two cats and Tom", "a ball, 1 2 3", "her mom")
PROMPTS = [
    f"Which story about {what} is better?\nStory 1 - Once there was {what}. It was {how}.\n"
    f"Story 2 - {how.capitalize()} {what}.\nPreferred Story={end}"
    for what in STORIES
    for how, end in (("happy", ""), ("very sad", " "), ("sleepy", "\n"))
]
LIMITS = Limits(in_flight=8, answer=120)


@pytest.fixture(scope="module")
def stories() -> LocalAsk:
    folder = stories_model()
    return LocalAsk(load_decoder(folder), load_tokenizer(folder))


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`heedful serve` with stories260K, which has no chat template: texts."""
    server = launch(tmp_path_factory.mktemp("ours") / "said", stories_model(), "--name", "stories", "--max-batch", 8)
    try:
        yield server.wait().url
    finally:
        stop(server)


def shares(outcomes: Sequence[Outcome]) -> list[float]:
    assert {outcome.kind for outcome in outcomes} == {"ok"}, outcomes
    return [share_of_first(outcome.logprobs) for outcome in outcomes]


def test_our_server_says_what_the_model_computes_here(ours: str, stories: LocalAsk) -> None:
    with Ledger() as ledger:
        model = ServedModel(ours, ledger, limits=LIMITS)
        assert (model.model, model.able.route, model.able.way, model.able.echoes) == (
            "stories",
            "completions",
            "top",
            True,
        )
        assert (model.able.rivals, model.able.many, model.able.samples, model.able.thinks) == (20, True, True, False)
        assert shares(model.choose(PROMPTS, LABELS)) == pytest.approx(shares(stories.choose(PROMPTS, LABELS)), abs=1e-4)
        marks = [expected_score(outcome.logprobs) for outcome in model.choose(PROMPTS[:4], MARKS)]
        own = [expected_score(outcome.logprobs) for outcome in stories.choose(PROMPTS[:4], MARKS)]
        assert marks == pytest.approx(own, abs=1e-3)
        [[greedy]] = model.write(PROMPTS[:1], 1, 0.0, 12, 0)
        [[here]] = stories.write(PROMPTS[:1], 1, 0.0, 12, 0)
        assert greedy.text.strip() == here.text.strip() and greedy.cut == here.cut
        long = model.choose(["once " * 600, PROMPTS[0]], LABELS)
        assert [outcome.kind for outcome in long] == ["long", "ok"] and "context" in long[0].message


def test_our_server_chats(tmp_path: Path) -> None:
    """A small random model behind a chat template: asked as the user's turn, it is of the same mind as here."""
    tokenizer = byte_tokenizer()
    folder = save_small(tmp_path / "m", tokenizer, chat=True)
    local = LocalAsk(load_decoder(folder), load_tokenizer(folder), CHAT)
    server = launch(
        tmp_path / "said", folder, "--name", "small", "--api-key", "k", "--max-waiting", 0, "--max-batch", 2
    )
    try:
        url = server.wait().url
        with Ledger() as ledger:
            model = ServedModel(url, ledger, key="k", limits=Limits(in_flight=6, first_wait=0.05))
            assert (model.able.route, model.able.way, model.able.rivals) == ("chat/completions", "top", 20)
            found = model.choose(PROMPTS, LABELS)
            counts = model.caller.counts
    finally:
        stop(server)
    kinds = Counter(outcome.kind for outcome in found)
    assert set(kinds) <= {"ok", "parse"} and counts["429"] > 0  # two rows for six callers: the others come again
    for outcome, here in zip(found, local.choose(PROMPTS, LABELS), strict=True):
        if outcome.kind == "ok":
            assert share_of_first(outcome.logprobs) == pytest.approx(share_of_first(here.logprobs), abs=0.06)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`transformers serve` with stories260K, set to sample: its address, and the model's name there."""
    place = tmp_path_factory.mktemp("theirs")
    folder = place / "stories"
    shutil.copytree(stories_model(), folder)
    settings = json.loads((folder / "generation_config.json").read_text()) | {"do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = "from transformers.cli.transformers import app; app()"
    command = [sys.executable, "-c", program, "serve", str(folder), "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_HOME": str(place)}
    with (place / "said").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health", process, place / "said"))
        yield f"http://127.0.0.1:{port}", str(folder)
    finally:
        process.terminate()
        process.wait()


def answers(url: str, process: subprocess.Popen[bytes], said: Path) -> bool:
    assert process.poll() is None, said.read_text()[-3000:]
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_the_server_of_transformers_is_asked_for_votes(theirs: tuple[str, str]) -> None:
    """It takes logprobs, n and response_format and heeds none of them; a chat without a template is a failure of it."""
    address, name = theirs
    with Ledger() as ledger:
        model = ServedModel(address, ledger, name, limits=LIMITS, votes=5)
        assert (model.able.route, model.able.way, model.able.many) == ("completions", "votes", False)
        assert model.able.samples and model.told == "shares of 5 votes: answers in words (text)"
        found = model.choose(PROMPTS[:3], LABELS)
        assert {outcome.kind for outcome in found} <= {"ok", "parse"}  # a storyteller names no label but by chance
        assert model.caller.counts["asked"] == 15
        [texts] = model.write(PROMPTS[:1], 3, 1.0, 10, 0)
        assert [text.kind for text in texts] == ["ok"] * 3 and {text.new_tokens for text in texts} == {10}
        before = model.caller.counts["asked"]
        assert model.choose(PROMPTS[:3], LABELS) == found and model.caller.counts["asked"] == before
