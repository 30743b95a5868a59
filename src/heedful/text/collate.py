"""Records → rows of tokens. Whatever does not fit is counted by reason, never cut in silence."""

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from heedful.batch import RankedRows, Rows, Texts, repeated
from heedful.principles import PrincipleRanking
from heedful.ranks import untied_pairs
from heedful.text.format import PromptFormat, prompt_tokens
from heedful.text.tokenizer import end_id, fingerprint
from heedful.types import Demonstration, Prompt, Ranking, Response

Ordered = Ranking | PrincipleRanking


class Encoded(NamedTuple):
    """A prompt and a response as token ids; a finished response ends with the end token, and so does a guideline
    behind it."""

    prompt: list[int]
    response: list[int]


class EncodedRanking(NamedTuple):
    """One labeler's ranking; `rank[i]` belongs to `rows[i]`. The other fields stand for themselves in RankedRows."""

    rows: list[Encoded]
    rank: tuple[int, ...]
    id: str
    responses: tuple[str, ...] = ()  # the ids of the rows' responses
    target: tuple[float, ...] = ()
    share: tuple[tuple[float, ...], ...] = ()
    weight: tuple[tuple[float, ...], ...] = ()


class Encoder:
    """A tokenizer with a prompt format; `dropped` counts what did not fit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, format: PromptFormat, context: int | None = None) -> None:
        """`context`: the most tokens the model has positions for, prompt and response together; None: not known."""
        self.tokenizer = tokenizer
        self.format = format
        self.context = context
        self.end = end_id(tokenizer)
        self.dropped: Counter[str] = Counter()
        self.behind: list[int] = []
        self._fingerprint = fingerprint(tokenizer)

    def under(self, guideline: str) -> "Encoder":
        """The same encoder, counter and all, with the guideline and an end token behind every response."""
        found = copy.copy(self)
        found.behind = [*self._words(guideline), self.end]
        return found

    def prompt(self, prompt: Prompt) -> list[int] | None:
        """None, counted, when it is longer than the format allows."""
        ids = prompt_tokens(prompt, self.format, self.tokenizer)
        if len(ids) > self.format.max_prompt_tokens:
            self.dropped["prompt_too_long"] += 1
            return None
        return ids

    def prompts(self, prompts: Iterable[Prompt]) -> tuple[list[Prompt], list[list[int]]]:
        """The prompts that fit, and their token ids."""
        kept = [(prompt, ids) for prompt in prompts if (ids := self.prompt(prompt)) is not None]
        return [prompt for prompt, _ in kept], [ids for _, ids in kept]

    def demonstrations(self, pairs: Iterable[tuple[Prompt, Demonstration]]) -> list[Encoded]:
        return [row for p, d in pairs if (row := self._encode(self.prompt(p), self._words(d.text), True)) is not None]

    def response(self, prompt: Prompt, response: Response) -> Encoded | None:
        """A sampled response by its own tokens where this tokenizer wrote them, else by its text."""
        return self._response(self.prompt(prompt), response)

    def ranking(
        self, prompt: Prompt, responses: Sequence[Response], ranking: Ordered, keep_tied: bool = False
    ) -> EncodedRanking | None:
        """None, counted, when the prompt does not fit or no two comparable responses are left (keep_tied: ties are)."""
        found = self.responses(prompt, responses)
        if found is None:
            return None
        rank = tuple(ranking.rank[i] for i, _ in found)
        if not (untied_pairs(rank) or (keep_tied and len(rank) > 1)):
            self.dropped["ranking_without_untied_pair"] += 1
            return None
        return EncodedRanking([row for _, row in found], rank, ranking.id, tuple(responses[i].id for i, _ in found))

    def responses(self, prompt: Prompt, responses: Sequence[Response]) -> list[tuple[int, Encoded]] | None:
        """The place and the row of each response that fits; None, counted, when the prompt does not."""
        ids = self.prompt(prompt)
        if ids is None:
            return None
        found = ((i, self._response(ids, response)) for i, response in enumerate(responses))
        return [(i, row) for i, row in found if row is not None]

    def rankings(
        self, items: Iterable[tuple[Prompt, list[Response], Ordered]], keep_tied: bool = False
    ) -> list[EncodedRanking]:
        return [encoded for item in items if (encoded := self.ranking(*item, keep_tied)) is not None]

    def _words(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _response(self, prompt: list[int] | None, response: Response) -> Encoded | None:
        own = response.tokenizer == self._fingerprint
        ids = list(response.tokens) if own else self._words(response.text)
        return self._encode(prompt, ids, response.finished)

    def _encode(self, prompt: list[int] | None, response: list[int], finished: bool) -> Encoded | None:
        """The pair, the end token behind a finished response; None, counted, when it does not fit."""
        if prompt is None:
            return None
        row = Encoded(prompt, response + [self.end] * finished + self.behind)
        if not response:
            self.dropped["empty_response"] += 1
        elif len(response) > self.format.max_response_tokens:
            self.dropped["response_too_long"] += 1
        elif self.context is not None and len(row.prompt) + len(row.response) > self.context:
            self.dropped["longer_than_context"] += 1
        else:
            return row
        return None


def to_rows(items: Sequence[Encoded], pad: int) -> Rows:
    """Right-padded rows, in the items' order, grouped where prompts are equal."""
    length = torch.tensor([len(item.prompt) + len(item.response) for item in items])
    tokens = torch.full((len(items), int(length.max())), pad)
    for i, item in enumerate(items):
        tokens[i, : length[i]] = torch.tensor(item.prompt + item.response)
    number: dict[tuple[int, ...], int] = {}
    group = torch.tensor([number.setdefault(tuple(item.prompt), len(number)) for item in items])
    return Rows(tokens, torch.tensor([len(item.prompt) for item in items]), length, repeated(group))


def to_ranked_rows(items: Sequence[EncodedRanking], pad: int) -> RankedRows:
    """B rankings of mixed K as one batch: one row per response, Kmax the largest K; each ranking shares its prompt."""
    kmax = max(len(item.rank) for item in items)
    rank = torch.zeros(len(items), kmax, dtype=torch.long)
    valid = torch.zeros(len(items), kmax, dtype=torch.bool)
    for i, item in enumerate(items):
        rank[i, : len(item.rank)] = torch.tensor(item.rank)
        valid[i, : len(item.rank)] = True
    slot = valid.flatten().nonzero().squeeze(1)
    rows = to_rows([row for item in items for row in item.rows], pad)
    more = (_grids([getattr(item, name) for item in items], kmax) for name in ("target", "share", "weight"))
    return RankedRows(rows, slot, rank, valid, *more)


def _grids(values: Sequence[Sequence[Any]], width: int) -> torch.Tensor | None:
    """B vectors or square tables of mixed size as one (B, width, ...), zeros behind; None where nobody brings one."""
    if not any(values):
        return None
    found = [torch.tensor(value, dtype=torch.float) for value in values]
    return torch.stack([torch.nn.functional.pad(x, [0, width - len(x)] * x.dim()) for x in found])


def texts(documents: Sequence[str], encoder: Encoder, width: int, rest: bool = False) -> Texts:
    """Pretraining text in rows of at most `width` tokens, every document between its begin and end token.

    `format.pack_documents` joins them into one stream cut into full rows; what is left over is counted or, with `rest`,
    the last, shorter row: measured text should count whole. Otherwise each document has a row of its own, and a longer
    one goes on in the next.
    """
    begin = [] if encoder.tokenizer.bos_token_id is None else [encoder.tokenizer.bos_token_id]
    encoded = encoder.tokenizer(list(documents), add_special_tokens=False)["input_ids"] if documents else []
    pieces = [begin + ids + [encoder.end] for ids in encoded]
    packed = encoder.format.pack_documents
    if packed:
        pieces = [[id for ids in pieces for id in ids]]
    cut = [ids[start : start + width] for ids in pieces for start in range(0, len(ids), width)]
    shortest = width if packed and not rest else 2  # a lone token has nothing before it to be predicted from
    rows = [row for row in cut if len(row) >= shortest]
    encoder.dropped["pretraining_tokens_left_over"] += sum(map(len, cut)) - sum(map(len, rows))
    length = torch.tensor([len(row) for row in rows], dtype=torch.long)
    tokens = torch.full((len(rows), max(map(len, rows), default=width)), encoder.end)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    return Texts(tokens, length)
