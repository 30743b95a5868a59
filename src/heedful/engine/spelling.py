"""Tokens into text as they are made: the bytes each token stands for, and where a response ends by a stop text.

Text is the tokens' bytes side by side, read as UTF-8. So a character that two tokens make up appears with the second,
a token has one spelling wherever it is named, and a stop text is found across token borders.
"""

import codecs
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from heedful.engine.odds import Odds

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
PRINTABLE = (*range(33, 127), *range(161, 173), *range(174, 256))  # bytes that byte-level tokenizers write as they are


def byte_alphabet() -> dict[str, int]:
    """The byte behind each character of a byte-level token: GPT-2 writes the others as characters from 256 on."""
    others = [byte for byte in range(256) if byte not in PRINTABLE]
    return {chr(byte): byte for byte in PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(others)}


class Spelling:
    """What each token of a tokenizer adds to a text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._added = {id: token.content for id, token in tokenizer.added_tokens_decoder.items()}
        self._special = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._special.update(tokenizer.all_special_ids)
        self._size = len(tokenizer)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = json.dumps(json.loads(backend.to_str())["decoder"]) if backend is not None else ""
        self._alphabet = byte_alphabet() if '"ByteLevel"' in decoder else None
        self._fallback = '"ByteFallback"' in decoder
        self._anchor = self._find_anchor()
        self._known: dict[tuple[int, bool], bytes] = {}

    def special(self, id: int) -> bool:
        """Whether the token is markup, or beyond the tokenizer (models often have rows to spare): no part of a text."""
        return id in self._special or id >= self._size

    def of(self, id: int, first: bool) -> bytes:
        """The bytes that the token adds to a text; `first`: the text begins with it. Special tokens add none."""
        if self.special(id):
            return b""
        if (id, first) not in self._known:
            self._known[id, first] = self._spell(id, first)
        return self._known[id, first]

    def text(self, ids: Sequence[int]) -> str:
        """The text that the tokens make up."""
        bare = [id for id in ids if not self.special(id)]
        return b"".join(self.of(id, n == 0) for n, id in enumerate(bare)).decode(errors="replace")

    def name(self, id: int, first: bool) -> bytes:
        """What the token is called where it is listed: its bytes, and a special token's own name."""
        if id in self._special:
            return (self._added.get(id) or str(self._tokenizer.convert_ids_to_tokens(id))).encode()
        return self.of(id, first)

    def _spell(self, id: int, first: bool) -> bytes:
        if id in self._added:
            return self._added[id].encode()
        token = self._tokenizer.convert_ids_to_tokens(id)
        if self._alphabet is not None and all(c in self._alphabet for c in token):
            return bytes(self._alphabet[c] for c in token)
        byte = BYTE_TOKEN.fullmatch(token)
        if self._fallback and byte and int(byte[1], 16) > 127:  # a part of a character, which cannot be decoded alone
            return bytes([int(byte[1], 16)])
        if first:
            return self._decode([id]).encode()
        return self._decode([self._anchor, id])[len(self._decode([self._anchor])) :].encode()

    def _find_anchor(self) -> int:
        """An ordinary token, behind which others are spelled as they are within a text."""
        for id in range(len(self._tokenizer)):
            if id not in self._added and id not in self._special and self._decode([id]).isalnum():
                return id
        return 0

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class Told(NamedTuple):
    """One token of a response as it is told."""

    id: int
    first: bool  # the response's text begins with it
    start: int  # characters of the response before it
    odds: Odds | None


def told_of(spelling: Spelling, ids: Sequence[int], odds: Sequence[Odds | None], text: str) -> list[Told]:
    """The tokens of a text that was given, special ones where the text spells them, by their places in it.

    What the tokenizer lost of the text, such as blanks, belongs to no token; a token that is not found stands where the
    one before it ends.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    told, end, first, lost = [], 0, True, False
    for id, one in zip(ids, odds, strict=True):
        special = spelling.special(id)
        piece = spelling.name(id, first).decode() if special else decoder.decode(spelling.of(id, first))
        start = end if text.startswith(piece, end) else text.find(piece := piece.strip(), end)
        lost = start < 0 or (bool(text[end:start].strip()) and not lost)
        told.append(Told(id, first, end if lost else start, one))
        end = end if lost else start + len(piece)
        first = first and special
    return told


class Piece(NamedTuple):
    """What can be told at once: no later token changes it."""

    text: str
    tokens: list[Told]
    finish: str | None  # "stop" or "length" with the last one


class Writer:
    """The text of one response, token by token."""

    def __init__(self, spelling: Spelling, stop: Sequence[str] = (), follows: bool = False) -> None:
        """`follows`: other text stands before the response, so its first word begins as any other does."""
        self._spelling, self._stop, self._follows = spelling, stop, follows
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._told = 0  # characters
        self._half: list[Told] = []  # tokens whose characters are not complete
        self._waiting: list[tuple[int, Told]] = []  # tokens not told yet, behind the characters up to their end
        self._finish: str | None = None

    def add(self, id: int, ends: bool, last: bool, odds: Odds | None = None) -> bool:
        """One more token; says whether the response is finished. `ends`: an end token, which is no part of it; `last`:
        nothing comes after it."""
        start = len(self._text)
        if not ends:
            first = not self._follows
            self._follows = self._follows or not self._spelling.special(id)
            self._text += self._decoder.decode(self._spelling.of(id, first))
            self._half.append(Told(id, first, start, odds))
        if last:
            self._text += self._decoder.decode(b"", final=True)
            self._finish = "stop" if ends else "length"
        if not self._decoder.getstate()[0]:
            self._waiting += [(len(self._text), told) for told in self._half]
            self._half = []
        cut = self._find_stop(start) if self._stop else None
        if cut is not None:
            self._text = self._text[:cut]
            self._waiting = [(min(end, cut), told) for end, told in self._waiting if told.start < cut]
            self._finish = "stop"
        return self._finish is not None

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def take(self) -> Piece:
        """What can be told since the last time."""
        end = len(self._text)
        if self._finish is None and self._stop:
            end -= self._held()
        number = len(self._waiting)
        while number and self._waiting[number - 1][0] > end:
            number -= 1
        tokens = [told for _, told in self._waiting[:number]]
        del self._waiting[:number]
        text = self._text[self._told : end]
        self._told = end
        return Piece(text, tokens, self._finish)

    def _find_stop(self, start: int) -> int | None:
        """Where the first stop text begins that has just been completed."""
        found = [self._text.find(stop, max(0, start - len(stop) + 1)) for stop in self._stop]
        return min((place for place in found if place >= 0), default=None)

    def _held(self) -> int:
        """Characters at the end that may turn out to be the beginning of a stop text."""
        longest = max(len(stop) - 1 for stop in self._stop)
        for length in range(min(longest, len(self._text)), 0, -1):
            tail = self._text[-length:]
            if any(stop.startswith(tail) for stop in self._stop):
                return length
        return 0
