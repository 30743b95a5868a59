"""Scores by principles: a labeler is asked about each pair of responses, by each principle, in both orders.

SALMON (arXiv 2310.05910), section 3.2, and its released code:

    preamble | instruction, response 1, response 2 | one principle: its definition | "… ="

    s12 = log P("1") − log P("2")      behind the prompt that shows the first response first
    s21 = log P("2") − log P("1")      behind the one that shows the second first

A difference of log-probabilities is that of logits. The pair stands before the principle, so one order of a pair is
computed once for all principles (`engine.prefixes`).

A score has both orders or is none. What failed has a reason and is counted, never a 0. A label that the labeler says is
impossible has no logarithm, and is no score either (`infinite`).
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from string import Formatter
from typing import NamedTuple

from heedful.config import InputError, nearest
from heedful.feedback.ai.labeler import AILabeler, Answer, missing
from heedful.feedback.ai.template import Template, read_template, write
from heedful.feedback.verdict import Item
from heedful.principles import Principle, PrincipleScore
from heedful.types import Prompt, Record, Response

FOLDER = Path(__file__).parent / "templates"
PLACES = {"title", "definition"}  # of a principle, in a template's ending


class Pair(NamedTuple):
    """Two responses to a prompt."""

    prompt: Prompt
    first: Response
    second: Response


class Unscored(Record):
    """A pair that has no score by a principle, and why: a kind of outcome, or `infinite`."""

    prompt_id: str
    principle: str
    responses: tuple[str, str]
    reason: str
    message: str = ""


class Scored(NamedTuple):
    """Scores, and what there are none of."""

    scores: list[PrincipleScore]
    lost: list[Unscored]

    @property
    def unscored(self) -> Counter[str]:
        """How many there are none of, by reason."""
        return Counter(one.reason for one in self.lost)


def templates() -> list[str]:
    """The names of the templates that come with heedful: principle.language."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_form(name: str) -> Template:
    """The template of that name, or in that file: an AI labeler's whose ending holds {title} and {definition}.

    Raises:
        InputError: there is none, the ending has other placeholders, or whatever `ai.template.check` finds.
    """
    known = templates()
    if name not in known and not Path(name).is_file():
        raise InputError(f"no template {name!r}{nearest(name, known)}; name a YAML file or one of {', '.join(known)}")
    template = read_template(str(FOLDER / f"{name}.yaml") if name in known else name)
    try:
        found = {field for _, field, _, _ in Formatter().parse(template.ending) if field is not None}
    except ValueError as error:
        raise InputError(f"{name}: ending: {error}; write a brace that is no placeholder twice") from None
    if not {"definition"} <= found <= PLACES:
        raise InputError(f"{name}: ending: it holds {{definition}}, may hold {{title}}, and no other placeholder")
    return template


def pairs_of(items: Sequence[Item]) -> list[Pair]:
    """Every pair of every item's responses, once, however many items it stands in."""
    found: dict[tuple[str, frozenset[str]], Pair] = {}
    for prompt, responses in items:
        for first, second in combinations(responses, 2):
            found.setdefault((prompt.id, frozenset((first.id, second.id))), Pair(prompt, first, second))
    return list(found.values())


def questions(template: Template, principles: Sequence[Principle], pair: Pair) -> list[tuple[str, str]]:
    """The prompts in both orders, by principle."""
    forms = [asking(template, principle) for principle in principles]
    prompt, first, second = pair
    texts = first.text, second.text
    return [(write(form, prompt, *texts), write(form, prompt, *texts[::-1])) for form in forms]


def asking(template: Template, principle: Principle) -> Template:
    """The template with an ending that asks by this principle."""
    ending = template.ending.format(title=principle.title, definition=principle.definition)
    return template.model_copy(update={"ending": ending})


def score_pairs(labeler: AILabeler, principles: Sequence[Principle], pairs: Sequence[Pair]) -> Scored:
    """Scores of the pairs by the principles, in their order; equal prompts are asked once."""
    asked = [questions(labeler.template, principles, pair) for pair in pairs]
    different = dict.fromkeys(text for both in asked for texts in both for text in texts)
    found = labeler.asked(list(different), labeler.template.labels, margin)
    turn = -1 if labeler.template.asks_for == "worse" else 1
    scores, lost = [], []
    for pair, by_principle in zip(pairs, asked, strict=True):
        for principle, (one, other) in zip(principles, by_principle, strict=True):
            what = {"prompt_id": pair.prompt.id, "principle": principle.id}
            ids = (pair.first.id, pair.second.id)
            s = _orders(found[one], found[other])
            if isinstance(s, Answer):
                lost.append(Unscored(**what, responses=ids, reason=s.reason, message=s.message))
                continue
            orders = (turn * s[0], turn * s[1])
            scores.append(PrincipleScore(**what, labeler=labeler.labeler.id, responses=ids, orders=orders))
    return Scored(scores, lost)


def margin(logprobs: Sequence[float]) -> float:
    """log P(first label) − log P(second), in nats; infinite where one of them cannot be.

    >>> margin([-0.5, -2.0])
    1.5
    """
    first, second = logprobs
    return first - second


def _orders(one: Answer, other: Answer) -> tuple[float, float] | Answer:
    """s12 and s21, or what is missing."""
    if failed := missing((one, other)):
        return failed
    first, second = (answer.value for answer in (one, other) if answer.value is not None)
    return (first, -second) if math.isfinite(first) and math.isfinite(second) else Answer(None, "infinite")
