"""Conversations: OpenAI and TRL messages ({"role", "content"}), ShareGPT ({"from", "value"}).

A conversation becomes a prompt (system, earlier turns, what is asked last) and the answer that ends it. What has no
place in that (tools, images, turns that do not alternate) is left out whole, never in part.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from heedful.store.formats.item import BadRow, Item, LeftOut, Reading, Tally, Writing, best_answer, list_of

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
SHAREGPT = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
SHAREGPT |= {"chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
TOOLS = ("tool", "function", "function_call", "observation", "tool_call", "tool_response", "ipython")
NAME_OF = {"system": "system", "user": "human", "assistant": "gpt"}


class Turn(NamedTuple):
    role: str  # system, user, assistant
    text: str


class Talk(NamedTuple):
    """A conversation taken apart; `answer` is None where it ends with the user."""

    system: str
    examples: tuple[tuple[str, str], ...]
    text: str
    answer: str | None


def turns_of(messages: Any, name: str, tally: Tally) -> list[Turn]:
    """The {"role", "content"} messages as turns.

    Raises:
        BadRow: they are no such list. LeftOut: tools or images among them.
    """
    if not isinstance(messages, list) or not messages:
        raise BadRow(f"{name}: no list of messages")
    return [_turn(message, f"{name}.{number}", tally) for number, message in enumerate(messages)]


def _turn(message: Any, where: str, tally: Tally) -> Turn:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise BadRow(f"{where}: a message has a role and a content")
    role, content = message["role"], message.get("content")
    if role in TOOLS or message.get("tool_calls") or message.get("function_call"):
        raise LeftOut("conversations with tool calls")
    if role not in ROLES:
        raise BadRow(f"{where}.role: {role!r} is none of {', '.join(ROLES)}")
    if isinstance(content, list):
        content = _joined(content, where)
    if not isinstance(content, str):
        raise BadRow(f"{where}.content: no text")
    for key, value in message.items():
        if key not in ("role", "content") and value not in (None, [], {}):
            tally.changed[f"messages whose {key} was not read"] += 1
    return Turn(ROLES[role], content)


def _joined(parts: list[Any], where: str) -> str:
    kinds = {part.get("type") if isinstance(part, dict) else None for part in parts}
    if kinds != {"text"}:
        raise LeftOut("conversations with images or other parts that are no text")
    if len(parts) > 1:
        raise LeftOut("messages of several text parts")
    if not isinstance(parts[0].get("text"), str):
        raise BadRow(f"{where}.content: no text")
    return str(parts[0]["text"])


def talk_of(turns: Sequence[Turn]) -> Talk:
    """Raises LeftOut where the turns do not alternate, or do not begin with the user."""
    system = turns[0].text if turns and turns[0].role == "system" else ""
    rest = turns[1:] if turns and turns[0].role == "system" else turns
    if any(turn.role == "system" for turn in rest):
        raise LeftOut("conversations with a system message in the middle")
    if not rest or any(turn.role != ("user", "assistant")[i % 2] for i, turn in enumerate(rest)):
        raise LeftOut("conversations in which user and assistant do not alternate, the user first")
    texts = [turn.text for turn in rest]
    answer = texts.pop() if len(texts) % 2 == 0 else None
    return Talk(system, tuple(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1], answer)


def prompt_turns(item: Item) -> list[Turn]:
    """The prompt as turns, the user's last."""
    turns = [Turn("system", item.system)] if item.system else []
    for query, answer in item.examples:
        turns += [Turn("user", query), Turn("assistant", answer)]
    return [*turns, Turn("user", item.text)]


def messages_of(turns: Iterable[Turn]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.text} for turn in turns]


def demonstration_of(talk: Talk, tally: Tally) -> Item:
    """The last answer as a demonstration, what stands before it as its prompt."""
    if talk.answer is None:
        raise LeftOut("conversations that end with the user (heedful prompts import takes prompts)")
    if talk.examples:
        tally.changed["conversations whose earlier answers stand as history, only the last as a demonstration"] += 1
    return Item(talk.text, talk.examples, talk.system, demonstration=talk.answer)


def read_messages(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"messages": [{"role", "content"}, …]}: TRL's language modelling, OpenAI's fine-tuning."""
    if row.get("tools"):
        raise LeftOut("conversations with tool calls")
    yield demonstration_of(talk_of(turns_of(row.get("messages"), "messages", tally)), tally)


def write_messages(item: Item, how: Writing, tally: Tally) -> Iterator[dict[str, Any]]:
    answer = best_answer(item, tally)
    yield {"messages": messages_of([*prompt_turns(item), Turn("assistant", answer)])}


def read_sharegpt(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    """{"conversations": [{"from", "value"}, …]}, and the "system" column that LLaMA-Factory adds."""
    if row.get("tools"):
        raise LeftOut("conversations with tool calls")
    turns = [_spoken(said, f"conversations.{number}") for number, said in enumerate(list_of(row, "conversations"))]
    if row.get("system"):
        if turns and turns[0].role == "system":
            raise BadRow("system: the conversation has a system message as well; keep one of them")
        turns = [Turn("system", str(row["system"])), *turns]
    yield demonstration_of(talk_of(turns), tally)


def _spoken(said: Any, where: str) -> Turn:
    if not isinstance(said, dict) or not isinstance(said.get("from"), str) or not isinstance(said.get("value"), str):
        raise BadRow(f'{where}: a turn has "from" and "value", both texts')
    if said["from"] in TOOLS:
        raise LeftOut("conversations with tool calls")
    if said["from"] not in SHAREGPT:
        raise BadRow(f"{where}.from: {said['from']!r} is none of {', '.join(SHAREGPT)}")
    return Turn(SHAREGPT[said["from"]], said["value"])


def write_sharegpt(item: Item, how: Writing, tally: Tally) -> Iterator[dict[str, Any]]:
    turns = [*prompt_turns(item), Turn("assistant", best_answer(item, tally))]
    yield {"conversations": [{"from": NAME_OF[turn.role], "value": turn.text} for turn in turns]}
