"""Instructions with one answer: Alpaca, Self-Instruct's tasks, the outputs that alpaca_eval compares."""

from collections.abc import Iterator, Mapping
from typing import Any

from heedful.store.formats.item import (
    Answer,
    BadRow,
    Item,
    LeftOut,
    Reading,
    Tally,
    Writing,
    best_answer,
    list_of,
    name_of,
    single_text,
    text_of,
)
from heedful.store.incoming import GAP


def read_alpaca(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"instruction", "input", "output"}, and the "system" and "history" that LLaMA-Factory adds."""
    history = row.get("history") or []
    if not isinstance(history, list) or any(not _is_pair(turn) for turn in history):
        raise BadRow("history: no list of [query, answer]")
    text, input = _asked(row)
    examples = tuple((query, answer) for query, answer in history)
    yield Item(text, examples, name_of(row.get("system")), input, demonstration=text_of(row, "output"))


def _is_pair(turn: Any) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)


def _asked(row: Mapping[str, Any]) -> tuple[str, str]:
    """Instruction and input as one text, and the input alone."""
    instruction, input = text_of(row, "instruction"), row.get("input") or ""
    if not isinstance(input, str):
        raise BadRow("input: no text")
    return (instruction + GAP + input if input else instruction), input


def write_alpaca(item: Item, how: Writing, tally: Tally) -> Iterator[dict[str, Any]]:
    answer = best_answer(item, tally)
    instruction = item.text.removesuffix(GAP + item.input) if item.input else item.text
    row: dict[str, Any] = {"instruction": instruction, "input": item.input, "output": answer}
    if item.system:
        row["system"] = item.system
    if item.examples:
        row["history"] = [list(pair) for pair in item.examples]
    yield row


def read_tasks(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"instruction", "instances": [{"input", "output"}, …]}: a demonstration for each instance."""
    instances = list_of(row, "instances")
    if not instances:
        raise LeftOut("tasks without an instance")
    for instance in instances:
        if not isinstance(instance, dict):
            raise BadRow('instances: each has "input" and "output"')
        text, input = _asked({"instruction": row.get("instruction"), "input": instance.get("input")})
        yield Item(text, input=input, demonstration=text_of(instance, "output"))


def read_outputs(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"instruction", "output", "generator"}: a response that nobody has judged."""
    yield Item(text_of(row, "instruction"), answers=(Answer(text_of(row, "output"), text_of(row, "generator")),))


def write_outputs(item: Item, how: Writing, tally: Tally) -> Iterator[dict[str, Any]]:
    instruction = single_text(item, tally)
    if item.demonstration:
        yield {"instruction": instruction, "output": item.demonstration, "generator": item.labeler or "labeler"}
    if not item.answers and not item.demonstration:
        raise LeftOut("items without a response")
    if item.rank:
        tally.changed["rankings of which only the responses were written"] += 1
    for answer in item.answers:
        yield {"instruction": instruction, "output": answer.text, "generator": answer.model or "unknown"}
