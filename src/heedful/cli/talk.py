"""A conversation with a model over our engine, written as the prompts it was trained on were."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from heedful.cli.best import Chooser
from heedful.cli.common import errors
from heedful.config import InputError
from heedful.engine.engine import Engine, Request
from heedful.export.model import run_of, trained_format
from heedful.models.checkpoint import load_policy
from heedful.models.load import context_length
from heedful.text.format import PromptFormat, prompt_tokens
from heedful.text.tokenizer import end_id
from heedful.types import Prompt

PIECE = 4  # tokens generated before they are shown
MOST_ROWS = 64  # answers that are made side by side
LONGEST = 256  # tokens of an answer where no --max-new-tokens is given and the context leaves as many


@dataclass
class Talker:
    """A model, how it samples, and what was said so far."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    format: PromptFormat
    temperature: float
    top_p: float
    max_new_tokens: int | None  # None: LONGEST, or what the context leaves beside the prompt
    seed: int
    chooser: Chooser | None = None  # answers with the best of several
    said: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def load(cls, name: str, temperature: float, top_p: float, max_new_tokens: int | None, seed: int) -> "Talker":
        """The policy in its run's format; a model of no run in its tokenizer's chat template where it has one.

        Raises:
            InputError: no such model, or none that can be sampled from.
        """
        policy, tokenizer = load_policy(name)
        run = run_of(Path(name))
        format = PromptFormat(style="chat") if tokenizer.chat_template else PromptFormat()
        if run is not None:
            format = trained_format(run)
        return cls(policy.decoder, tokenizer, format, temperature, top_p, max_new_tokens, seed)

    def answer(self, text: str) -> str:
        """Print the answer as it is made (the best of several once it is found), remember and return it."""
        ids = self.fit(text)
        pieces = []
        for piece in self.pieces(ids) if self.chooser is None else [self.best(self.chooser, text, ids)]:
            print(piece, end="", flush=True)
            pieces.append(piece)
        print()
        self.said.append((text, "".join(pieces)))
        return "".join(pieces)

    def best(self, chooser: Chooser, text: str, ids: list[int]) -> str:
        """Of several answers the one that scores highest; all are shown on stderr, the highest first, if wanted."""
        engine = Engine(self.model, eos_ids=[end_id(self.tokenizer)], max_rows=min(chooser.number, MOST_ROWS))
        seed = (self.seed << 32) + (len(self.said) << 20)
        number, longest = chooser.number, self.longest(ids)
        made = engine.generate([Request(ids, number, longest, self.temperature, top_p=self.top_p, seed=seed)])[0]
        score = chooser.scores(self.prompt(text), made, self.tokenizer)
        told = [self.tokenizer.decode(one.tokens, skip_special_tokens=True) for one in made]
        order = sorted(range(number), key=lambda n: -score[n])
        for n in order if chooser.shows_all else ():
            errors.print(f"{score[n]:.3f}  {told[n]}", markup=False, highlight=False, soft_wrap=True)
        return told[order[0]]

    def prompt(self, text: str) -> Prompt:
        return Prompt(id="chat", text=text, user="chat", examples=tuple(self.said))

    def longest(self, ids: list[int]) -> int:
        """Tokens that the answer to the prompt may have."""
        return self.max_new_tokens or min(LONGEST, context_length(self.model) - len(ids))

    def fit(self, text: str) -> list[int]:
        """The conversation's tokens; the oldest exchanges are forgotten, and it is said, where the context is full.

        Without `max_new_tokens` it is full where an answer would have less than LONGEST and less than half of it.

        Raises:
            InputError: the prompt is empty, or too long alone.
        """
        if not text.strip():
            raise InputError("the prompt is empty; write what the model is to answer")
        context = context_length(self.model)
        wanted = self.max_new_tokens or min(LONGEST, context // 2)
        forgotten = 0
        while True:
            ids = prompt_tokens(self.prompt(text), self.format, self.tokenizer)
            if len(ids) <= context - wanted or not self.said:
                break
            self.said.pop(0)
            forgotten += 1
        if len(ids) > context - (self.max_new_tokens or 1):
            raise self.too_long(len(ids), context)
        if forgotten:
            errors.print(f"(the context is full: the oldest {forgotten} exchanges are forgotten)", highlight=False)
        return ids

    def too_long(self, number: int, context: int) -> InputError:
        if self.max_new_tokens is None:
            return InputError(
                f"the prompt has {number} tokens, which fill the context of {context}; shorten the prompt"
            )
        return InputError(
            f"the prompt has {number} tokens; the context of {context} leaves {context - self.max_new_tokens} "
            f"beside --max-new-tokens {self.max_new_tokens}; shorten the prompt or lower --max-new-tokens"
        )

    def pieces(self, ids: list[int]) -> Iterator[str]:
        """The answer's text, a few tokens at a time."""
        end = end_id(self.tokenizer)
        engine = Engine(self.model, eos_ids=[end], max_rows=1)
        made: list[int] = []
        shown = ""
        finished = False
        longest = self.longest(ids)
        while not finished and len(made) < longest:
            number = min(PIECE, longest - len(made))
            seed = (self.seed << 32) + (len(self.said) << 20) + len(made)
            request = Request(ids + made, 1, number, self.temperature, top_p=self.top_p, seed=seed)
            completion = engine.generate([request])[0][0]
            made += completion.tokens
            finished = completion.finished
            text = self.tokenizer.decode([id for id in made if id != end], skip_special_tokens=True)
            if not text.endswith("\ufffd"):  # half of a character: wait for the other half
                yield text[len(shown) :]
                shown = text


def converse(talker: Talker) -> None:
    """Read a line, answer it, until the end of input."""
    errors.print("/new starts afresh, /quit or Ctrl-D ends", style="dim", highlight=False)
    while True:
        try:
            text = input("> ").strip()
        except EOFError:
            return
        if text == "/quit":
            return
        if text == "/new":
            talker.said.clear()
        elif text:
            try:
                talker.answer(text)
            except InputError as error:  # too long: said, and the next line may be shorter
                errors.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
