"""What is in each pool, laid out like InstructGPT's tables 1 (use cases) and 6 (sizes), with lengths."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, quantiles
from typing import get_args

from rich.table import Table

from heedful.store.pools import Pool
from heedful.types import Prompt, PromptKind, Split

Length = Callable[[str], int]
Rows = dict[tuple[str, str], list[Prompt]]


def count_words(text: str) -> int:
    """Words parted by white space."""
    return len(text.split())


def pool_tables(
    prompts: Iterable[tuple[Prompt, Pool | None]], length: Length = count_words, unit: str = "words"
) -> list[Table]:
    """Sizes, use cases, kinds and lengths of the prompts by pool and split.

    Args:
        prompts: each with its pool, as `pools.prompts_with_pool` gives them.
        length: of a prompt's whole text, worked examples included; a tokenizer's, say, and then its `unit`.
    """
    rows: Rows = defaultdict(list)
    for prompt, pool in prompts:
        rows[pool or "no pool", prompt.split].append(prompt)
    places = {name: place for place, name in enumerate((*get_args(Pool), "no pool", *get_args(Split)))}
    ordered = {key: rows[key] for key in sorted(rows, key=lambda key: (places[key[0]], places[key[1]]))}
    return [_sizes(ordered), _use_cases(ordered), _kinds(ordered), _lengths(ordered, length, unit)]


def _sizes(rows: Rows) -> Table:
    table = _table("Prompts by pool and source", "pool", "split", "labeler", "customer", "total", "users", "per user")
    for (pool, split), found in rows.items():
        source = Counter(prompt.source for prompt in found)
        users = len({prompt.user for prompt in found})
        sizes = [source["labeler"], source["customer"], len(found), users]
        table.add_row(pool, split, *(f"{size:,}" for size in sizes), f"{len(found) / users:.2f}")
    return table


def _use_cases(rows: Rows) -> Table:
    return _shares("Use cases (%)", "use case", rows, lambda prompt: prompt.use_case)


def _kinds(rows: Rows) -> Table:
    return _shares("Kinds (%)", "kind", rows, lambda prompt: prompt.kind, get_args(PromptKind))


def _shares(
    title: str, what: str, rows: Rows, value: Callable[[Prompt], str], order: Sequence[str] | None = None
) -> Table:
    """One line per value, one column per pool (its splits together), the most frequent value first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (pool, _), found in rows.items():
        counts[pool].update(map(value, found))
    total = sum(counts.values(), Counter[str]())
    table = _table(title, what, *counts, "all")
    for name in order or sorted(total, key=lambda name: (-total[name], name)):
        columns = [*counts.values(), total]
        table.add_row(name, *(f"{100 * column[name] / max(column.total(), 1):.1f}" for column in columns))
    return table


def _lengths(rows: Rows, length: Length, unit: str) -> Table:
    table = _table(f"Prompt lengths ({unit})", "pool", "split", "mean", "min", "25 %", "50 %", "75 %", "max")
    for (pool, split), found in rows.items():
        lengths = sorted(length(_whole(prompt)) for prompt in found)
        quarters = quantiles(lengths, n=4, method="inclusive") if len(lengths) > 1 else lengths * 3
        numbers = [fmean(lengths), lengths[0], *quarters, lengths[-1]]
        table.add_row(pool, split, f"{numbers[0]:.1f}", *(f"{number:g}" for number in numbers[1:]))
    return table


def _whole(prompt: Prompt) -> str:
    return "\n".join([*(text for pair in prompt.examples for text in pair), prompt.text])


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("pool", "split", "use case", "kind") else "right")
    return table
