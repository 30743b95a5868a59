"""Prompts of people who chat with the served model and agree that they be kept: a file that intake reads.

The API's own field says so: `store: true`. It needs `user`, because prompts are capped, split and erased by person.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.config import InputError
from heedful.serve.errors import bad
from heedful.serve.requests import ChatRequest, Message

GAP = "\n\n"  # between texts of one role in a row


class Collector:
    """Appends to a file of JSON lines, one prompt a chat request; `heedful prompts import` takes it in."""

    def __init__(self, path: Path) -> None:
        """Raises InputError where the file cannot be written."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise InputError(f"--collect {path}: {error.strerror}; choose another file") from None

    def keep(self, line: bytes) -> None:
        """Append a line of `as_line`."""
        os.write(self._file.fileno(), line)  # one write: lines of several servers do not mix


def as_line(asked: ChatRequest) -> bytes:
    """The line that keeps the prompt of a request that agrees to it.

    Raises:
        ApiError: it does not say whose the prompt is, or asks nothing.
    """
    if any("\0" in text for text in (asked.user or "", *(message.content for message in asked.messages))):
        raise bad("store: true keeps the prompt, which holds a NUL character", "messages")
    if not asked.user:
        raise bad("store: true keeps the prompt for training, which needs user: whose it is", "user")
    return (json.dumps(as_prompt(asked.messages) | {"user": asked.user}, ensure_ascii=False) + "\n").encode()


def as_prompt(messages: Sequence[Message]) -> dict[str, Any]:
    """The last user's text as the prompt, the exchanges before it as its examples, in the fields of an intake file.

    What instructs the model (system, developer) before anybody asks is `system`, apart from the user's own text, by
    which intake knows a repeated prompt; where nothing else is said, it is the prompt. Texts of one role in a row are
    joined by a blank line; an answer before anybody asked is left out.

    Raises:
        ApiError: the user's text is empty.
    """
    first = next((i for i, message in enumerate(messages) if message.role in ("user", "assistant")), 0)
    system = GAP.join(message.content for message in messages[:first])
    turns: list[tuple[bool, list[str]]] = []  # (the model's own, texts)
    for message in messages[first:]:
        answered = message.role == "assistant"
        if not turns and answered:
            continue
        if not turns or turns[-1][0] != answered:
            turns.append((answered, []))
        turns[-1][1].append(message.content)
    said = [GAP.join(texts) for _, texts in turns]
    if not said[-1].strip():
        raise bad("store: true keeps the prompt, which is empty", "messages")
    pairs = list(zip(said[:-1:2], said[1::2], strict=True))
    prompt = {"text": said[-1], "examples": pairs, "use_case": "chat" if pairs else "other"}
    return prompt | ({"system": system} if system.strip() else {})
