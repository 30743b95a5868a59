"""Open-Assistant's message trees: {"message_tree_id", "prompt": {"text", "role", "replies": [{…, "rank"}]}}.

Every prompter's message whose assistant replies are ranked (0 is best) is a ranking, with the way from the root to it
as its prompt. The rank is what the labelers agreed on, so it has no labeler of its own. All of a tree is one user's, so
that it stands in one split.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from heedful.ranks import dense
from heedful.store.formats.item import Answer, BadRow, Item, Reading, Tally, name_of

ROLES = ("prompter", "assistant")


def read_oasst(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    root, tree = row.get("prompt"), name_of(row.get("message_tree_id"))
    if not isinstance(root, dict):
        raise BadRow("prompt: no message; the file of trees (.trees.jsonl.gz) is read, not that of single messages")
    waiting: list[tuple[Mapping[str, Any], tuple[str, ...]]] = [(root, ())]
    ranked = 0
    while waiting:
        message, before = waiting.pop()
        text, replies = _text(message, len(before)), message.get("replies") or []
        if not isinstance(replies, list):
            raise BadRow("replies: no list of messages")
        path = (*before, text)
        kept = [reply for reply in replies if not (isinstance(reply, dict) and reply.get("deleted"))]
        tally.left_out["deleted messages"] += len(replies) - len(kept)
        waiting += [(reply, path) for reply in reversed(kept)]
        if len(path) % 2 == 1 and (item := _ranking(path, kept, tree, tally)):
            ranked += 1
            yield item
    tally.left_out["trees without a ranking"] += ranked == 0


def _text(message: Any, depth: int) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("text"), str):
        raise BadRow("a message of the tree has no text")
    if message.get("role") != ROLES[depth % 2]:
        raise BadRow(f"a message's role is {message.get('role')!r} where {ROLES[depth % 2]} comes")
    return str(message["text"])


def _ranking(path: tuple[str, ...], replies: list[Any], tree: str, tally: Tally) -> Item | None:
    ranked = [reply for reply in replies if isinstance(reply, dict) and type(reply.get("rank")) is int]
    if len(ranked) < 2:
        tally.left_out["prompts with fewer than two ranked replies"] += bool(replies)
        return None
    tally.left_out["replies without a rank"] += len(replies) - len(ranked)
    answers = tuple(Answer(_text(reply, len(path)), name_of(reply.get("model_name"))) for reply in ranked)
    examples = tuple(zip(path[:-1:2], path[1::2], strict=True))
    return Item(path[-1], examples, answers=answers, rank=dense([reply["rank"] for reply in ranked]), user=tree)
