"""The engine's pieces in the API's words: whole answers and the events of a stream."""

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from heedful.engine.odds import Odds
from heedful.engine.spelling import Told, told_of
from heedful.serve.requests import ChatRequest, CompletionRequest
from heedful.serve.served import Asked, Served
from heedful.serve.worker import Heard

Json = dict[str, Any]


@dataclass
class Answer:
    """What is common to all parts of one answer; counts tokens as they come."""

    served: Served
    asked: Asked
    request: ChatRequest | CompletionRequest
    num_tokens: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def chat(self) -> bool:
        return isinstance(self.request, ChatRequest)

    def envelope(self, choices: list[Json], part: bool = False) -> Json:
        kind = "chat.completion" if self.chat else "text_completion"
        prefix = "chatcmpl-" if self.chat else "cmpl-"
        name = kind + (".chunk" if part and self.chat else "")
        return {
            "id": prefix + self.id,
            "object": name,
            "created": self.created,
            "model": self.served.name,
            "choices": choices,
        }

    def usage(self) -> Json:
        prompt = sum(map(len, self.asked.prompts))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.num_tokens,
            "total_tokens": prompt + self.num_tokens,
        }

    async def whole(self) -> Json:
        """The answer when every choice is finished.

        Raises:
            ApiError: generating failed.
        """
        choices: dict[int, Json] = {}
        prompt_odds: list[Json | None] | None = None
        async for heard in self.asked.job.pieces():
            self.num_tokens += heard.num_tokens
            choices[heard.choice] = self._whole_choice(heard)
            if self.request.prompt_logprobs is not None:
                listed = self._prompt_logprobs(heard)
                if self.chat:
                    prompt_odds = listed
                else:
                    choices[heard.choice]["prompt_logprobs"] = listed
        found = self.envelope([choices[i] for i in sorted(choices)]) | {"usage": self.usage()}
        return found | ({"prompt_logprobs": prompt_odds} if prompt_odds is not None else {})

    async def events(self) -> AsyncIterator[Json]:
        """The parts of a streamed answer, but for the mark of its end.

        Raises:
            ApiError: generating failed.
        """
        begun: set[int] = set()
        length: dict[int, int] = {}
        if self.chat:  # says at once that the request was taken
            empty = {"role": "assistant", "content": ""}
            number = range(self.request.n)
            yield self._part([{"index": i, "delta": empty, "logprobs": None, "finish_reason": None} for i in number])
        async for heard in self.asked.job.pieces():
            self.num_tokens += heard.num_tokens
            first = heard.choice not in begun
            begun.add(heard.choice)
            yield self._part([self._piece(heard, first, length)])
        if self.request.stream_options is not None and self.request.stream_options.include_usage:
            yield self.envelope([], part=True) | {"usage": self.usage()}

    def _part(self, choices: list[Json]) -> Json:
        options = self.request.stream_options
        return self.envelope(choices, part=True) | ({"usage": None} if options and options.include_usage else {})

    def _whole_choice(self, heard: Heard) -> Json:
        choice: Json = {"index": heard.choice, "finish_reason": heard.piece.finish}
        if self.chat:
            choice["message"] = {"role": "assistant", "content": heard.piece.text, "refusal": None}
            choice["logprobs"] = self._chat_logprobs(heard.piece.tokens)
            return choice
        text, tokens, offset = self._before(heard)
        choice["text"] = text + heard.piece.text
        choice["logprobs"] = self._logprobs([*tokens, *_moved(heard.piece.tokens, offset)])
        return choice

    def _piece(self, heard: Heard, first: bool, length: dict[int, int]) -> Json:
        choice: Json = {"index": heard.choice, "finish_reason": heard.piece.finish}
        if self.chat:
            choice["delta"] = {"content": heard.piece.text} if heard.piece.text else {}
            choice["logprobs"] = self._chat_logprobs(heard.piece.tokens) if heard.piece.tokens else None
            return choice
        text, tokens, offset = self._before(heard) if first else ("", [], length[heard.choice])
        length[heard.choice] = offset
        choice["text"] = text + heard.piece.text
        tokens = [*tokens, *_moved(heard.piece.tokens, offset)]
        choice["logprobs"] = self._logprobs(tokens) if tokens else None
        return choice

    def _before(self, heard: Heard) -> tuple[str, list[Told], int]:
        """What stands before a completion: the prompt's text and tokens where it is echoed, and that text's length."""
        assert isinstance(self.request, CompletionRequest)
        if not self.request.echo:
            return "", [], 0
        prompt = heard.choice // self.request.n
        text = self.asked.texts[prompt]
        if self.request.logprobs is None:
            return text, [], len(text)
        odds: list[Odds | None] = [None]
        odds += [one._replace(likeliest=one.likeliest[: self.request.logprobs]) for one in heard.prompt_odds]
        return text, told_of(self.served.spelling, self.asked.prompts[prompt], odds, text), len(text)

    def _chat_logprobs(self, tokens: list[Told]) -> Json | None:
        if not self.request.logprobs:
            return None
        content = []
        for told in tokens:
            assert told.odds is not None
            rivals = [self._spelled(id, told.first, logprob) for id, logprob in told.odds.likeliest]
            content.append(self._spelled(told.id, told.first, told.odds.logprob) | {"top_logprobs": rivals})
        return {"content": content, "refusal": None}

    def _spelled(self, id: int, first: bool, logprob: float) -> Json:
        name = self.served.spelling.name(id, first)
        return {"token": name.decode(errors="replace"), "logprob": finite(logprob), "bytes": list(name)}

    def _logprobs(self, tokens: list[Told]) -> Json | None:
        if self.request.logprobs is None:
            return None
        return {
            "tokens": [self._label(told.id, told.first) for told in tokens],
            "token_logprobs": [told.odds and finite(told.odds.logprob) for told in tokens],
            "top_logprobs": [told.odds and self._rivals(told, told.odds) for told in tokens],
            "text_offset": [told.start for told in tokens],
        }

    def _rivals(self, told: Told, odds: Odds) -> dict[str, float]:
        """The likeliest tokens and the one that was taken, by their text; of two spelled alike, the likelier."""
        found: dict[str, float] = {}
        for id, logprob in (*odds.likeliest, (told.id, odds.logprob)):
            found.setdefault(self._label(id, told.first), finite(logprob))
        return found

    def _label(self, id: int, first: bool) -> str:
        name = self.served.spelling.name(id, first)
        try:
            return name.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in name)

    def _prompt_logprobs(self, heard: Heard) -> list[Json | None]:
        """Of each of the prompt's tokens: id → its rivals and itself; nothing for the first, which none predicts."""
        prompt = self.asked.prompts[heard.choice // self.request.n]
        number = self.request.prompt_logprobs or 0
        return [None, *(self._ranked(id, odds, number) for id, odds in zip(prompt[1:], heard.prompt_odds, strict=True))]

    def _ranked(self, id: int, odds: Odds, number: int) -> Json:
        def entries() -> Iterator[tuple[int, float, int]]:
            yield id, finite(odds.logprob), odds.rank
            for place, (rival, logprob) in enumerate(odds.likeliest[:number], 1):
                if rival != id:
                    yield rival, finite(logprob), place

        name = self.served.spelling.name
        return {
            str(token): {"logprob": logprob, "rank": rank, "decoded_token": name(token, False).decode(errors="replace")}
            for token, logprob, rank in entries()
        }


def _moved(tokens: list[Told], offset: int) -> list[Told]:
    return [told._replace(start=told.start + offset) for told in tokens]


def finite(logprob: float) -> float:
    """JSON has no infinity; the API writes −9999 for it."""
    return max(logprob, -9999.0)
