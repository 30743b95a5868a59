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

    def take(self, asked: ChatRequest) -> None:
        """Keep the prompt of a request that agrees to it.

        Raises:
            ApiError: it does not say whose the prompt is, or asks nothing.
        """
        if not asked.store:
            return
        if any("\0" in text for text in (asked.user or "", *(message.content for message in asked.messages))):
            raise bad("store: true keeps the prompt, which holds a NUL character", "messages")
        if not asked.user:
            raise bad("store: true keeps the prompt for training, which needs user: whose it is", "user")
        line = json.dumps(as_prompt(asked.messages) | {"user": asked.user}, ensure_ascii=False) + "\n"
        os.write(self._file.fileno(), line.encode())  # one write: lines of several servers do not mix


def as_prompt(messages: Sequence[Message]) -> dict[str, Any]:
    """The last user's text as the prompt, the exchanges before it as its examples, in the fields of an intake file.

    What instructs the model (system, developer) opens the first user's text; texts of one role in a row are joined by
    a blank line; an answer before anybody asked is left out.

    Raises:
        ApiError: the user's text is empty.
    """
    turns: list[tuple[bool, list[str]]] = []  # (the model's own, texts)
    for message in messages:
        answered = message.role == "assistant"
        if not turns and answered:
            continue
        if not turns or turns[-1][0] != answered:
            turns.append((answered, []))
        turns[-1][1].append(message.content)
    said = ["\n\n".join(texts) for _, texts in turns]
    if not said[-1].strip():
        raise bad("store: true keeps the prompt, which is empty", "messages")
    pairs = list(zip(said[:-1:2], said[1::2], strict=True))
    return {"text": said[-1], "examples": pairs, "use_case": "chat" if pairs else "other"}
