"""Every shape a row can have, by name: what it reads, what it writes, and how it is recognised."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from heedful.config import InputError, nearest
from heedful.store.formats import argilla, chat, hh, instructions, label_studio, oasst, rankings, trl
from heedful.store.formats.item import Item, Kind, Reading, Tally, Writing

ColumnType = Literal[
    "text", "messages", "turns", "pairs", "texts", "numbers", "integers", "number", "integer", "bool", "json"
]
Reader = Callable[[Mapping[str, Any], Reading, Tally], Iterator[Item]]
Writer = Callable[[Item, Writing, Tally], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Shape:
    """`columns` are those that it reads and writes, `ignored` those that say nothing heedful keeps but are no loss.

    `kinds`: what of a store it can be written from, the usual one first; none where it is only read.
    """

    name: str
    about: str
    columns: Mapping[str, ColumnType]
    read: Reader
    write: Writer | None
    kinds: tuple[Kind, ...]
    fits: Callable[[Mapping[str, Any]], bool]
    ratings: bool = False  # whether it writes marks
    ignored: tuple[str, ...] = ()


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda row: all(row.get(name) is not None for name in names)


def _listed(row: Mapping[str, Any], name: str) -> bool:
    return isinstance(row.get(name), list)


def _is_text(row: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


PAIR: Mapping[str, ColumnType] = {"margin": "number", "group_id": "text"}
ANSWERED: tuple[Kind, ...] = ("demonstration", "ranking")
MARKED: tuple[Kind, ...] = ("rating", "ranking")
SHARED: tuple[Shape, ...] = (
    Shape(
        "trl-messages",
        "TRL and OpenAI: messages of one conversation, its last answer the demonstration",
        {"messages": "messages"},
        chat.read_messages,
        chat.write_messages,
        ANSWERED,
        lambda row: _listed(row, "messages"),
        ignored=("tools",),
    ),
    Shape(
        "trl-completion",
        "TRL: prompt and completion as messages",
        {"prompt": "messages", "completion": "messages"},
        trl.read_completion,
        trl.write_completion,
        ANSWERED,
        lambda row: _listed(row, "prompt") and _listed(row, "completion") and "label" not in row,
        ignored=("tools",),
    ),
    Shape(
        "trl-completion-text",
        "TRL: prompt and completion as plain texts",
        {"prompt": "text", "completion": "text"},
        trl.read_completion,
        trl.write_completion_text,
        ANSWERED,
        lambda row: _is_text(row, "prompt", "completion") and "label" not in row,
    ),
    Shape(
        "trl-preference",
        "TRL: prompt, chosen, rejected as messages, with margin",
        {"prompt": "messages", "chosen": "messages", "rejected": "messages", **PAIR},
        trl.read_preference,
        trl.write_preference,
        ("ranking",),
        lambda row: _listed(row, "prompt") and _listed(row, "chosen") and _listed(row, "rejected"),
        ignored=("tools", "group_id"),
    ),
    Shape(
        "trl-preference-text",
        "TRL: prompt, chosen, rejected as plain texts, with margin",
        {"prompt": "text", "chosen": "text", "rejected": "text", **PAIR},
        trl.read_preference,
        trl.write_preference_text,
        ("ranking",),
        lambda row: _is_text(row, "prompt", "chosen", "rejected"),
        ignored=("group_id",),
    ),
    Shape(
        "trl-preference-implicit",
        "TRL: chosen and rejected, each the whole conversation, with margin",
        {"chosen": "messages", "rejected": "messages", **PAIR},
        trl.read_implicit,
        trl.write_implicit,
        ("ranking",),
        lambda row: _listed(row, "chosen") and _listed(row, "rejected") and not _listed(row, "prompt"),
        ignored=("tools", "group_id"),
    ),
    Shape(
        "trl-unpaired",
        "TRL (KTO): prompt and completion as messages, label true or false",
        {"prompt": "messages", "completion": "messages", "label": "bool"},
        trl.read_unpaired,
        trl.write_unpaired,
        MARKED,
        lambda row: _listed(row, "prompt") and _listed(row, "completion") and "label" in row,
        ratings=True,
    ),
    Shape(
        "trl-unpaired-text",
        "TRL (KTO): prompt and completion as plain texts, label true or false",
        {"prompt": "text", "completion": "text", "label": "bool"},
        trl.read_unpaired,
        trl.write_unpaired_text,
        MARKED,
        lambda row: _is_text(row, "prompt", "completion") and "label" in row,
        ratings=True,
    ),
    Shape(
        "hh",
        "HH-RLHF: chosen and rejected transcripts, Human and Assistant by turns",
        {"chosen": "text", "rejected": "text"},
        hh.read_hh,
        hh.write_hh,
        ("ranking",),
        lambda row: _is_text(row, "chosen", "rejected") and "prompt" not in row and "\n\nHuman:" in row["chosen"],
    ),
    Shape(
        "alpaca",
        "Alpaca: instruction, input, output; system and history as in LLaMA-Factory",
        {"instruction": "text", "input": "text", "output": "text", "system": "text", "history": "pairs"},
        instructions.read_alpaca,
        instructions.write_alpaca,
        ANSWERED,
        lambda row: _is_text(row, "instruction", "output") and "generator" not in row,
    ),
    Shape(
        "sharegpt",
        "ShareGPT: conversations from human and gpt",
        {"conversations": "turns"},
        chat.read_sharegpt,
        chat.write_sharegpt,
        ANSWERED,
        lambda row: _listed(row, "conversations"),
        ignored=("system", "tools"),
    ),
    Shape(
        "openai",
        "OpenAI's fine-tuning: the same rows as trl-messages",
        {"messages": "messages"},
        chat.read_messages,
        chat.write_messages,
        ANSWERED,
        lambda row: False,  # trl-messages is taken
        ignored=("tools",),
    ),
    Shape(
        "self-instruct",
        "Self-Instruct's tasks: instruction and instances with input and output (read only)",
        {"instruction": "text", "instances": "json"},
        instructions.read_tasks,
        None,
        (),
        lambda row: _is_text(row, "instruction") and _listed(row, "instances"),
    ),
    Shape(
        "alpaca-eval",
        "alpaca_eval: instruction, output, generator; responses that nobody judged",
        {"instruction": "text", "output": "text", "generator": "text"},
        instructions.read_outputs,
        instructions.write_outputs,
        ("response", "demonstration", "ranking"),
        lambda row: _is_text(row, "instruction", "output", "generator"),
    ),
    Shape(
        "ultrafeedback",
        "UltraFeedback, distilabel: instruction, K generations and their ratings",
        {"instruction": "text", "generations": "texts", "ratings": "numbers", "generation_models": "texts"},
        rankings.read_ultrafeedback,
        rankings.write_ultrafeedback,
        ("ranking",),
        _has("instruction", "generations", "ratings"),
        ratings=True,
    ),
    Shape(
        "arena",
        "arena battles: model_a, model_b, winner (ties too) and two conversations",
        {
            "question_id": "text",
            "model_a": "text",
            "model_b": "text",
            "winner": "text",
            "judge": "text",
            "conversation_a": "messages",
            "conversation_b": "messages",
            "turn": "integer",
            "group_id": "text",
        },
        rankings.read_arena,
        rankings.write_arena,
        ("ranking",),
        _has("model_a", "model_b", "winner", "conversation_a", "conversation_b"),
        ignored=("question_id", "turn", "group_id"),
    ),
    Shape(
        "ranking",
        "a ranking a row: messages, K responses with their models, ranks, marks, labeler",
        {
            "schema": "text",
            "id": "text",
            "prompt": "messages",
            "responses": "json",
            "ranks": "integers",
            "scores": "json",
            "strength": "integer",
            "both_bad": "bool",
            "preference": "json",
            "presented_order": "integers",
            "labeler": "text",
            "role": "text",
            "guidelines_version": "text",
            "active_seconds": "number",
            "split": "text",
        },
        rankings.read_ranking,
        rankings.write_ranking,
        ("ranking",),
        lambda row: _listed(row, "ranks") and _listed(row, "responses"),
        ratings=True,
        ignored=("schema", "id", "split", "not_rankable"),
    ),
    Shape(
        "oasst",
        "Open-Assistant's trees: every ranked set of replies (read only)",
        {"message_tree_id": "text", "prompt": "json"},
        oasst.read_oasst,
        None,
        (),
        lambda row: "message_tree_id" in row and isinstance(row.get("prompt"), dict),
        ignored=("tree_state", "origin"),
    ),
    Shape(
        "label-studio",
        "Label Studio's JSON export: Ranker and Pairwise (read only)",
        {"data": "json", "annotations": "json"},
        label_studio.read_label_studio,
        None,
        (),
        _has("data", "annotations"),
        ignored=("id",),
    ),
    Shape(
        "argilla",
        "Argilla's exports: rankings, texts and marks by user (read only)",
        {},
        argilla.read_argilla,
        None,
        (),
        argilla.is_argilla,
    ),
)
SHAPES = {shape.name: shape for shape in SHARED}
WRITABLE = tuple(shape.name for shape in SHARED if shape.write)


def shape_named(name: str) -> Shape:
    """Raises InputError, with the known names, where there is no such shape."""
    if name not in SHAPES:
        raise InputError(f"no shape {name!r}{nearest(name, SHAPES)}; known are {', '.join(SHAPES)}")
    return SHAPES[name]


def detect(row: Mapping[str, Any]) -> Shape | None:
    """The one shape that the row can be of; None where none or several fit."""
    found = [shape for shape in SHARED if shape.fits(row)]
    return found[0] if len(found) == 1 else None
