"""Argilla's exports: a column for each field, and for each question what people answered.

A question's columns are `<question>.responses`, `.responses.users` and `.responses.status` (2.x), or one column of
{"user_id", "value", "status"} (1.x). What is answered says what it is: a ranking of fields' names, a text written for
the prompt, a mark of the field `response`. Answers that were not submitted are counted; users keep their ids.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from heedful.ranks import dense
from heedful.store.formats.item import Answer, BadRow, Item, Reading, Tally, mark_of, name_of

PROMPTS = ("prompt", "instruction", "question", "query")


class Said(NamedTuple):
    question: str
    value: Any
    user: str


def is_argilla(row: Mapping[str, Any]) -> bool:
    return any(name.endswith(".responses") for name in row) or any(_old_answers(value) for value in row.values())


def read_argilla(row: Mapping[str, Any], how: Reading, tally: Tally) -> Iterator[Item]:
    answers = list(_answers(row, tally))
    tally.left_out["records without a submitted answer"] += not answers
    for said in answers:
        item = _item(said, row, how, tally)
        if item is not None:
            yield item


def _answers(row: Mapping[str, Any], tally: Tally) -> Iterator[Said]:
    for name, values in row.items():
        if name.endswith(".responses") and values:
            question = name.removesuffix(".responses")
            users = row.get(f"{name}.users") or row.get(f"{question}.users") or [""] * len(values)
            states = row.get(f"{name}.status") or row.get(f"{question}.status") or ["submitted"] * len(values)
            if not len(values) == len(users) == len(states):
                raise BadRow(f"{name}: {len(values)} answers, {len(users)} users, {len(states)} states")
            for value, user, state in zip(values, users, states, strict=True):
                yield from _submitted(Said(question, value, name_of(user)), state, tally)
        elif _old_answers(values):
            for answer in values:
                said = Said(name, answer["value"], name_of(answer.get("user_id")))
                yield from _submitted(said, answer.get("status", "submitted"), tally)


def _old_answers(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(value, dict) and {"user_id", "value"} <= value.keys() for value in values)
    )


def _submitted(said: Said, state: Any, tally: Tally) -> Iterator[Said]:
    if state == "submitted" and said.value is not None:
        yield said
    else:
        tally.left_out[f"answers that are {state if state != 'submitted' else 'empty'}"] += 1


def _item(said: Said, row: Mapping[str, Any], how: Reading, tally: Tally) -> Item | None:
    prompt = _prompt(row, how)
    value = said.value
    if isinstance(value, str):
        if "label" in said.question:
            tally.left_out[f"answers to {said.question}, a label"] += 1
            return None
        return Item(prompt, demonstration=value, labeler=said.user)
    if isinstance(value, dict) and isinstance(value.get("value"), list):
        value = [{"value": v, "rank": r} for v, r in zip(value["value"], value.get("rank") or [], strict=True)]
    if isinstance(value, list):
        return _ranking(value, said, prompt, row, how, tally)
    mark, field = mark_of(value), how.names.get("response", "response")
    if mark is None or not how.overall or not isinstance(row.get(field), str):
        tally.left_out[f"answers to {said.question}: kept as marks of {field!r} with --overall, from 1 to 7"] += 1
        return None
    return Item(prompt, answers=(Answer(row[field], overall=mark),), labeler=said.user)


def _ranking(
    value: list[Any], said: Said, prompt: str, row: Mapping[str, Any], how: Reading, tally: Tally
) -> Item | None:
    """The names stand in their order, or each with its rank."""
    if value and all(isinstance(place, str) for place in value):
        ranked = [(place, number) for number, place in enumerate(value, start=1)]
    elif value and all(isinstance(place, dict) and isinstance(place.get("value"), str) for place in value):
        ranked = [(place["value"], place.get("rank")) for place in value if place.get("rank") is not None]
        tally.left_out["ranked fields without a rank"] += len(value) - len(ranked)
    else:
        ranked = []
    if len(ranked) < 2 or any(type(rank) is not int for _, rank in ranked):
        tally.left_out[f"answers to {said.question} that are no ranking"] += 1
        return None
    texts = [row.get(how.names.get(name, name)) for name, _ in ranked]
    missing = [name for (name, _), text in zip(ranked, texts, strict=True) if not isinstance(text, str)]
    if missing:
        raise BadRow(f"{said.question} ranks {missing[0]!r}, which is no field; --column {missing[0]}=FIELD names it")
    answers = tuple(Answer(str(text)) for text in texts)
    return Item(prompt, answers=answers, rank=dense([rank for _, rank in ranked]), labeler=said.user)


def _prompt(row: Mapping[str, Any], how: Reading) -> str:
    names = (how.names["prompt"],) if "prompt" in how.names else PROMPTS
    for name in names:
        if isinstance(row.get(name), str):
            return str(row[name])
    raise BadRow(f"no text in {', '.join(names)}; --column prompt=FIELD names the prompt's field")
