"""An AI labeler behind a server: its settings, what it will cost, and did.

Command: heedful judge label PLACE --labeler http://HOST:PORT/v1 --server KEY=VALUE …
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from heedful.config import Config, InputError, parse, set_value
from heedful.feedback.ai.calls import Limits
from heedful.feedback.ai.labeler import AILabeler
from heedful.feedback.ai.ledger import Estimate, Ledger, Prices, read_prices
from heedful.feedback.ai.server import Route, ServedModel, read_key
from heedful.feedback.ai.template import marks_of
from heedful.feedback.verdict import Item

QUIET = ("asked", "kept", "probed")  # counts that are no failed tries
ROUTE: Mapping[str, Route] = {"auto": "", "plain": "text", "chat": "chat"}


class ServerConfig(Config):
    """How a server is asked. Times in seconds."""

    model: str = ""  # its name there; needed where the server has several
    key_from: str = ""  # the environment's variable or the file that holds the API key
    price: str = ""  # of a million tokens read and written, such as 0.15/0.60
    in_flight: int = Field(default=32, ge=1, le=1000)
    tries: int = Field(default=8, ge=1)
    timeout: float = Field(default=600.0, gt=0)
    votes: int = Field(default=8, ge=1)  # samples that make a share where there are no log-probabilities
    thinking_tokens: int = Field(default=4096, ge=1)  # the longest reply of a model that thinks
    ledger: Path | None = None  # where replies are kept; replies.db in the folder
    probe: bool = False  # find out anew what the server can do
    fields: dict[str, Any] = Field(default={})  # for every request, such as chat_template_kwargs.enable_thinking

    @property
    def prices(self) -> Prices | None:
        return read_prices(self.price) if self.price else None


def read_settings(written: Sequence[str]) -> ServerConfig:
    """Settings as they are given on the command line: votes=4, fields.top_k=20.

    Raises:
        InputError: one is unknown, or impossible.
    """
    values: dict[str, Any] = {}
    for one in written:
        key, equals, text = one.partition("=")
        if not (equals and key):
            raise InputError(f"--server {one}: write --server key=value")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise InputError(f"--server {one}: {text!r} is not a YAML value") from None
        set_value(values, key, value, f"--server {one}")
    settings = parse(ServerConfig, values, "--server")
    _ = settings.prices  # said at once where it is none
    return settings


def is_address(labeler: str) -> bool:
    return labeler.startswith(("http://", "https://"))


@contextmanager
def served_ask(
    address: str, style: Literal["auto", "plain", "chat"], settings: ServerConfig, folder: Path
) -> Iterator[ServedModel]:
    """The model behind the server, its replies kept while it is asked.

    Raises:
        InputError: nothing answers there, the key is not taken, or the model's name is not known.
    """
    limits = Limits(in_flight=settings.in_flight, tries=settings.tries, answer=settings.timeout)
    with Ledger(settings.ledger or folder / "replies.db") as ledger:
        yield ServedModel(
            address,
            ledger,
            settings.model,
            read_key(settings.key_from),
            limits,
            settings.votes,
            settings.thinking_tokens,
            ROUTE[style],
            settings.fields,
            settings.probe,
        )


def estimate(labeler: AILabeler, asked: ServedModel, items: Sequence[Item]) -> Estimate:
    """At most, but for labels that need an echoed prompt: rationales that nobody knows yet count with all their
    tokens, and the labels behind them as not asked for before."""
    questions = labeler.questions(items)
    labels = marks_of(labeler.template) if labeler.by == "scores" else labeler.template.labels
    label = asked.estimate_choose(questions, labels)
    if labeler.template.rationale_ending is None or labeler.by == "scores":
        return label
    number = labeler.rationales
    first = asked.estimate_write(questions, number, labeler.temperature, labeler.max_tokens, labeler.seed)
    calls = number * label.calls
    read = number * label.prompt_tokens + calls * labeler.max_tokens
    return first.plus(Estimate(calls, 0, read, number * label.new_tokens))


def said_before(labeler: AILabeler, asked: ServedModel, items: Sequence[Item], prices: Prices | None) -> str:
    """An estimate in one line."""
    found = estimate(labeler, asked, items)
    said = f"{len(items):,} sets, {len(labeler.questions(items)):,} questions: {found.calls:,} calls, about "
    said += f"{found.prompt_tokens:,.0f} tokens read, at most {found.new_tokens:,} written"
    said += f", {money(prices, found.prompt_tokens, found.new_tokens)}" if prices else ""
    return said + (f"; {found.kept:,} more were answered before" if found.kept else "")


def said_after(asked: ServedModel, prices: Prices | None) -> list[str]:
    """How labels were got, what was spent, what failed on the way, and what the ledger holds, one line each."""
    spent, counts, ever = asked.spent, asked.caller.counts, asked.caller.ledger.spent(asked.model)
    line = f"{spent.calls:,} calls answered, {spent.prompt_tokens:,} tokens read, {spent.new_tokens:,} written"
    line += f", {money(prices, spent.prompt_tokens, spent.new_tokens)}" if prices else ""
    line += f"; of {spent.uncounted:,} the server told no tokens" if spent.uncounted else ""
    line += f"; {counts['kept']:,} more were in the ledger" if counts["kept"] else ""
    failed = ", ".join(f"{reason} {number:,}" for reason, number in failed_tries(counts).items())
    whole = f"the ledger holds {ever.calls:,} replies of {asked.model}: {ever.prompt_tokens:,} tokens read, "
    whole += f"{ever.new_tokens:,} written"
    whole += f", {money(prices, ever.prompt_tokens, ever.new_tokens)} in all" if prices else ""
    return [f"labels: {asked.told}", line, *([f"failed on the way: {failed}"] if failed else []), whole]


def failed_tries(counts: Mapping[str, int]) -> dict[str, int]:
    return {reason: number for reason, number in sorted(counts.items()) if number and reason not in QUIET}


def money(prices: Prices, prompt_tokens: float, new_tokens: float) -> str:
    return f"{prices.cost(prompt_tokens, new_tokens):,.4g}"
