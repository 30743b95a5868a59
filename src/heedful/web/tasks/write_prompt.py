"""Write prompts: plain, few-shot (an instruction with query / response pairs), user-based (for an application that
somebody described): the three kinds of InstructGPT's labelers (arXiv 2203.02155, section 3.2 and appendix A.1).

The items are slots "new/0", "new/1", …; the work is offered with `number` of them and, if you like, `kinds` (kind →
share) and `applications` (descriptions, for user-based prompts; without them one of table 1's use cases stands there).
What is written passes the rules of intake (`store.intake`, by the project's rules), except the most prompts
of one user: that rule is for customers, and labelers are asked for as many as are wanted. Personal data is shown to the
writer, who takes it out or says that it is made up. The writer is the prompt's user, whose split all their prompts are
of.
"""

import hashlib
import sys
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection

from heedful.store import accounts
from heedful.store.database import Store
from heedful.store.incoming import IncomingPrompt
from heedful.store.intake import import_into
from heedful.store.pii import find_pii, redact
from heedful.store.pools import unit
from heedful.store.records import select_records
from heedful.store.schema import prompts
from heedful.store.slots import finish
from heedful.store.written import take_back
from heedful.types import Prompt
from heedful.web.tasks.base import Item, Problem, Problems, believed
from heedful.web.tasks.rank import whole
from heedful.web.words import N_

TEMPLATE = "write_prompt.html"
GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, fill an interval more evenly than chance
FIRST_PAIRS, LEAST_PAIRS, MOST_PAIRS = 3, 2, 20
KINDS = {"plain": 1, "few_shot": 1, "user_based": 1}  # the paper does not give the shares
USE_CASES = {  # of InstructGPT's table 1, in its order
    "generation": N_("Generation: write something new"),
    "open_qa": N_("Open question: the answer stands in no given text"),
    "brainstorming": N_("Brainstorming: ideas, lists"),
    "chat": N_("Chat: go on with a conversation"),
    "rewrite": N_("Rewrite: change a given text"),
    "summarization": N_("Summarization: shorten a given text"),
    "classification": N_("Classification: say which class a thing is of"),
    "other": N_("Other: none of these"),
    "closed_qa": N_("Closed question: the answer stands in a given text"),
    "extract": N_("Extract: take facts out of a given text"),
}


def kind_of(item: Item) -> str:
    """The slot's kind: as many of each as its share says, evenly mixed."""
    kinds = {kind: share for kind, share in item.options.get("kinds", KINDS).items() if kind in KINDS and share > 0}
    number = int(item.slot.item.removeprefix("new/"))
    point = number * GOLDEN % 1 * sum(kinds.values())
    upper = zip(kinds, accumulate(kinds.values()), strict=True)
    return next((kind for kind, bound in upper if point < bound), "plain")


def application_of(item: Item) -> str:
    """What a user-based prompt is for; "" where nobody described anything."""
    described = [str(text) for text in item.options.get("applications", []) if str(text).strip()]
    return described[int(unit(item.slot.item, "application") * len(described))] if described else ""


def use_case_of(item: Item) -> str:
    """A use case to write for, where there is no application."""
    return list(USE_CASES)[int(unit(item.slot.item, "use case") * len(USE_CASES))]


def show(connection: Connection, item: Item) -> dict[str, Any]:
    asked = {"kind": kind_of(item), "application": application_of(item), "asked": use_case_of(item)}
    return asked | {"use_cases": USE_CASES, "first_pairs": FIRST_PAIRS, "most_pairs": MOST_PAIRS}


def number_of_pairs(fields: Mapping[str, Any]) -> int:
    return min(MOST_PAIRS, max(1, whole(fields.get("pairs")) or FIRST_PAIRS))


def pressed(item: Item, fields: Mapping[str, Any]) -> dict[str, Any]:
    """One more pair ("add"), one less ("remove-3"), or the one that went last in its place again ("back")."""
    pairs = [(str(fields.get(f"query-{n}", "")), str(fields.get(f"response-{n}", ""))) for n in _pairs(fields)]
    rest = {name: value for name, value in fields.items() if not name.startswith(("query-", "response-", "gone-"))}
    what, _, which = str(fields.get("press")).partition("-")
    gone = {}
    if what == "add" and len(pairs) < MOST_PAIRS:
        pairs.append(("", ""))
    elif what == "remove" and 1 <= whole(which) <= len(pairs) and len(pairs) > 1:
        query, response = pairs.pop(whole(which) - 1)
        gone = {"gone-at": str(whole(which)), "gone-query": query, "gone-response": response}
    elif what == "back" and "gone-at" in fields and len(pairs) < MOST_PAIRS:
        pairs.insert(whole(fields["gone-at"]) - 1, (str(fields.get("gone-query")), str(fields.get("gone-response"))))
    for n, (query, response) in enumerate(pairs, start=1):
        rest |= {f"query-{n}": query, f"response-{n}": response}
    return rest | gone | {"pairs": str(len(pairs))}


def _pairs(fields: Mapping[str, Any]) -> range:
    return range(1, number_of_pairs(fields) + 1)


def read(item: Item, fields: Mapping[str, Any]) -> list[IncomingPrompt]:
    """The prompt, without the personal data that its writer wants out.

    Raises:
        Problems: something is missing, or the writer has not said what to do with personal data.
    """
    kind, problems = kind_of(item), []
    main = "instruction" if kind == "few_shot" else "text"
    texts = [str(fields.get(main, "")).strip()]
    if not texts[0]:
        problems.append(Problem(main, N_("Write the prompt first."), {}))
    if fields.get("use_case") not in USE_CASES:
        problems.append(Problem("use_case", N_("Choose what the prompt is for."), {}))
    for n in _pairs(fields) if kind == "few_shot" else ():
        query, response = (str(fields.get(f"{part}-{n}", "")).strip() for part in ("query", "response"))
        if query and response:
            texts += [query, response]
        elif query or response:
            part = "response" if query else "query"
            problems.append(Problem(f"{part}-{n}", N_("Pair %(number)s is only half written."), {"number": n}))
    if kind == "few_shot" and not problems and len(texts) < 1 + 2 * LEAST_PAIRS:
        problems.append(Problem("query-1", N_("Write %(number)s pairs at least."), {"number": LEAST_PAIRS}))
    if problems:
        raise Problems(problems)
    first, *rest = _without_personal_data(texts, fields)
    pairs = tuple(zip(rest[::2], rest[1::2], strict=True))
    written: dict[str, Any] = {"id": id_of(item), "user": item.labeler, "source": "labeler", "kind": kind}
    written |= {"use_case": fields["use_case"], "examples": pairs}
    if kind == "few_shot":
        # As it was written: the store expands it, and its writer may want to correct it.
        task = {"instruction": first, "pairs": [list(pair) for pair in pairs]}
        return [IncomingPrompt(**written, instruction=first, task=task)]
    task = {"application": application_of(item)} if kind == "user_based" and application_of(item) else {}
    return [IncomingPrompt(**written, text=first, task=task)]


def id_of(item: Item) -> str:
    work = item.slot.work
    name = f"{work.purpose}\n{work.round}\n{work.group}\n{item.slot.item}\n{item.labeler}"
    return "w" + hashlib.sha256(name.encode()).hexdigest()[:19]


def _without_personal_data(texts: Sequence[str], fields: Mapping[str, Any]) -> list[str]:
    spans = [find_pii(text) for text in texts]
    found = [text[span.start : span.end] for text, of in zip(texts, spans, strict=True) for span in of]
    digest = hashlib.sha256(repr(found).encode()).hexdigest()[:16]
    if not found or (fields.get("pii") == "keep" and fields.get("pii-of") == digest):
        return list(texts)
    if fields.get("pii") == "redact":
        return [redact(text, of) for text, of in zip(texts, spans, strict=True)]
    said = N_("This looks like personal data: %(found)s. Say what to do with it.")
    raise Problems([Problem("pii", said, {"found": " · ".join(found), "digest": digest})])


def save(store: Store, item: Item, made: Sequence[IncomingPrompt], guideline: str, seconds: float | None) -> bool:
    """Take the prompt in and fill the slot, or put it in place of the one written before; True where new.

    Raises:
        Taken: as `base.save`.
        Problems: an earlier prompt begins alike, or others work with the one that is to be corrected.
    """
    (prompt,) = made
    work = item.slot.work

    def put(connection: Connection) -> bool:
        same = stored(connection, item) == _fields_of(prompt)
        new = finish(connection, work, item.slot.item, item.labeler, believed(seconds), not same)
        if not new and same:
            return False
        if not new and not take_back(connection, prompt.id):
            raise Problems([Problem("main", N_("Others work with this prompt already; it stays as it is."), {})])
        config = item.rules.model_copy(update={"pii": "keep", "cap": sys.maxsize})
        report = import_into(connection, [prompt], config, None, work.round)
        if not report.kept:
            raise Problems([Problem("main", N_("A prompt that begins alike is there already; write another one."), {})])
        detail = {"key": item.slot.key, "task": work.task, "item": item.slot.item, "guideline": guideline}
        accounts.note(connection, item.labeler, "submitted" if new else "revised", **detail)
        return new

    return store.write(put)


def stored(connection: Connection, item: Item) -> dict[str, str]:
    """What was written, with what was taken out still out."""
    own = (prompts.c.id == id_of(item)) | (prompts.c.id == f"{id_of(item)}#0")
    found = select_records(connection, Prompt, own)
    return _fields_of(found[0]) if found else {}


def _fields_of(prompt: Prompt) -> dict[str, str]:
    fields = {"use_case": prompt.use_case}
    if prompt.kind != "few_shot":
        return fields | {"text": prompt.text}
    pairs = prompt.task.get("pairs", [])
    fields |= {"instruction": prompt.task.get("instruction", ""), "pairs": str(len(pairs))}
    for n, (query, response) in enumerate(pairs, start=1):
        fields |= {f"query-{n}": query, f"response-{n}": response}
    return fields
