"""A program's judgement as the fields of the page's form; what no form has is told and not dropped."""

from collections.abc import Mapping, Sequence

from heedful.web.routes.api_models import Submission
from heedful.web.tasks.base import Item, Problem
from heedful.web.tasks.toxicity import QUESTIONS
from heedful.web.tasks.write_prompt import kind_of, number_of_pairs
from heedful.web.words import N_

OF_ANY = {"shown", "seconds", "press"}  # as pages keep them in drafts
OF_PROMPT = {"use_case", "pii", "pii-of"}


def fields_of(judged: Submission, task: str) -> dict[str, str]:
    """As the page's form names them; where one response is rated, it has no letter."""
    fields = {"text": judged.text} if judged.text is not None else {}
    if judged.shown:
        fields["shown"] = judged.shown
    for letter, mark in judged.marks.items():
        end, middle = ("", "") if task == "rating" and letter == "A" else (f"-{letter}", f"{letter}-")
        for name in ("rank", "overall"):
            value = getattr(mark, name)
            fields |= {f"{name}{end}": str(value)} if value is not None else {}
        fields |= {f"box-{middle}{box}": "yes" for box in mark.boxes}
    return fields | judged.fields


def strange(item: Item, fields: Mapping[str, str]) -> Sequence[Problem]:
    """The fields that the task's form does not have, for this item."""
    known = OF_ANY | names_of(item, fields)
    said = N_("Nothing here is called %(name)s.")
    return [Problem(name, said, {"name": name}) for name in fields if name not in known]


def names_of(item: Item, fields: Mapping[str, str]) -> set[str]:
    """The names of the form's fields."""
    task = item.slot.work.task
    letters = [letter for letter, _ in item.lettered]
    if task == "ranking":
        boxes = {f"box-{letter}-{box}" for letter in letters for box in item.boxes}
        return boxes | {f"{name}-{letter}" for name in ("rank", "overall") for letter in letters}
    if task == "rating":
        return {"overall", *(f"box-{box}" for box in item.boxes)}
    if task == "toxicity":
        return {f"{name}-{letter}" for name in QUESTIONS for letter in letters}
    if task == "prompt" and kind_of(item) == "few_shot":
        numbers = range(1, number_of_pairs(fields) + 1)
        pairs = {f"{part}-{n}" for part in ("query", "response") for n in numbers}
        return OF_PROMPT | pairs | {"instruction", "pairs", "gone-at", "gone-query", "gone-response"}
    return {"comparison": {"choice"}, "prompt": OF_PROMPT | {"text"}}.get(task, {"text"})
