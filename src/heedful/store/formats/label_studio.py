"""Label Studio's JSON export: tasks with `data` and `annotations`; its Ranker and Pairwise controls.

The export does not say which of a task's data is the prompt and which are the responses: `prompt`, `answer1` and
`answer2` (pairwise) are looked for, or what `--column` names; the Ranker's list is the one that holds the ranked ids.
Neither control can say that two responses tie.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from heedful.store.formats.item import Answer, BadRow, Item, Reading, Tally, is_seconds, list_of, name_of

SIDES = {"left": (1, 2), "right": (2, 1)}
UNPLACED = "_"


def read_label_studio(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    data = row.get("data")
    if not isinstance(data, dict):
        raise BadRow("data: missing; export the project as JSON (not JSON_MIN)")
    annotations = list_of(row, "annotations")
    tally.left_out["tasks that nobody annotated"] += not annotations
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise BadRow("annotations: no list of annotations")
        if annotation.get("was_cancelled"):
            tally.left_out["annotations that were skipped or cancelled"] += 1
            continue
        results = [result for result in annotation.get("result") or [] if isinstance(result, dict)]
        judged = [result for result in results if result.get("type") in ("ranker", "pairwise")]
        tally.left_out["results of other controls than Ranker and Pairwise"] += len(results) - len(judged)
        tally.left_out["annotations without a ranking or comparison"] += not judged
        for result in judged:
            yield from _item(result, annotation, data, how, tally)


def _item(
    result: Mapping[str, Any], annotation: Mapping[str, Any], data: Mapping[str, Any], how: Reading, tally: Tally
) -> Iterator[Item]:
    value = result.get("value")
    if not isinstance(value, dict):
        raise BadRow("annotations: a result without a value")
    found = _ranked(value, data, tally) if result["type"] == "ranker" else _compared(value, data, how, tally)
    if found is None:
        return
    answers, rank = found
    seconds = annotation.get("lead_time")
    yield Item(
        _text(data, "prompt", how),
        answers=answers,
        rank=rank,
        labeler=_labeler(annotation.get("completed_by")),
        seconds=seconds if is_seconds(seconds) else None,
    )


def _ranked(
    value: Mapping[str, Any], data: Mapping[str, Any], tally: Tally
) -> tuple[tuple[Answer, ...], tuple[int, ...]] | None:
    """The ranker's value is a list of ids, or lists by name: that of its control, and "_" for what was not placed."""
    found = value.get("ranker")
    lists = {"": found} if isinstance(found, list) else found
    if not isinstance(lists, dict):
        raise BadRow("value.ranker: no list of ids")
    placed = [ids for name, ids in lists.items() if name != UNPLACED and ids]
    if len(placed) > 1:
        tally.left_out["rankings into several buckets"] += 1
        return None
    ids = placed[0] if placed else []
    tally.left_out["ranked items that were not placed"] += len(lists.get(UNPLACED) or [])
    if len(ids) < 2:
        tally.left_out["rankings of fewer than two placed items"] += 1
        return None
    texts = _items_with(data, ids)
    return tuple(Answer(texts[name_of(id)]) for id in ids), tuple(range(1, len(ids) + 1))


def _items_with(data: Mapping[str, Any], ids: list[Any]) -> dict[str, str]:
    """The texts by id, from the list in the task's data that holds all of the ids."""
    for items in data.values():
        if isinstance(items, list) and all(isinstance(item, dict) for item in items):
            texts = {
                name_of(item.get("id")): item.get("body") or item.get("html") or item.get("title") for item in items
            }
            if all(isinstance(texts.get(name_of(id)), str) for id in ids):
                return {id: text for id, text in texts.items() if isinstance(text, str)}
    raise BadRow("data: no list of items holds all of the ranked ids with their texts")


def _compared(
    value: Mapping[str, Any], data: Mapping[str, Any], how: Reading, tally: Tally
) -> tuple[tuple[Answer, ...], tuple[int, ...]] | None:
    if value.get("selected") not in SIDES:
        tally.left_out["comparisons without a choice"] += 1
        return None
    answers = tuple(Answer(_text(data, name, how)) for name in ("answer1", "answer2"))
    return answers, SIDES[value["selected"]]


def _text(data: Mapping[str, Any], name: str, how: Reading) -> str:
    text = data.get(how.names.get(name, name))
    if not isinstance(text, str):
        known = ", ".join(key for key, value in data.items() if isinstance(value, str))
        raise BadRow(f"data: no text {how.names.get(name, name)!r}; --column {name}=NAME names it, one of {known}")
    return text


def _labeler(who: Any) -> str:
    """The account's number, or its e-mail address where the export tells it."""
    return name_of(who.get("email") or who.get("id")) if isinstance(who, dict) else name_of(who)
