"""A line of an intake file: what may be left out, and the prompt that it becomes."""

import hashlib
from collections.abc import Collection, Iterator
from typing import Any, Self

from pydantic import model_validator

from heedful.types import Demonstration, Prompt

GAP = "\n\n"  # between what instructs the model and what is asked
PART = "#"  # a few-shot prompt's examples are stored as id#0, id#1, …


class IncomingPrompt(Prompt):
    """A line of an intake file: a Prompt whose id may be left out (it becomes a hash of user and text).

    `organisation` is needed only where cap and split go by it. A labeler's few-shot prompt gives `instruction` and
    its query / response pairs as `examples` in place of `text`. `system` is what instructed the model in a collected
    chat; the stored prompt opens with it.
    """

    organisation: str = ""
    instruction: str = ""
    system: str = ""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("instruction"):
            if values.get("text") not in (None, values["instruction"]):
                raise ValueError("give text or instruction, not both")
            values["text"] = values["instruction"]
            values = {"kind": "few_shot", "source": "labeler"} | values
        if isinstance(values.get("text"), str) and not values["text"].strip():
            raise ValueError("text is empty; write the prompt, or take its line out")
        if not values.get("id"):
            content = [values.get("user"), values.get("text"), values.get("examples") or []]
            content += [values["system"]] if values.get("system") else []
            values["id"] = "p" + hashlib.sha256(repr(content).encode()).hexdigest()[:19]
        return values

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.instruction and not self.examples:
            raise ValueError("a few-shot prompt needs at least one [query, response] pair in examples")
        if self.instruction and self.system:
            raise ValueError("give system or instruction, not both")
        return self

    def plain(self) -> Prompt:
        """What the store keeps as the prompt; `system` opens its first text."""
        values = {name: getattr(self, name) for name in Prompt.model_fields}
        if self.system and self.examples:
            (query, response), *others = self.examples
            values["examples"] = ((self.system + GAP + query, response), *others)
        elif self.system:
            values["text"] = self.system + GAP + self.text
        return Prompt(**values)


def expand_few_shot(prompt: IncomingPrompt) -> list[tuple[Prompt, Demonstration]]:
    """An instruction with K query / response pairs as K examples, each with the other K − 1 as context.

    The instruction opens the text, whichever piece comes first. The demonstration is the labeler's own response.
    """
    expanded = []
    for k, (query, response) in enumerate(prompt.examples):
        others = [pair for i, pair in enumerate(prompt.examples) if i != k]
        text = query
        if others:
            others[0] = (f"{prompt.instruction}\n\n{others[0][0]}", others[0][1])
        else:
            text = f"{prompt.instruction}\n\n{query}"
        id = f"{prompt.id}{PART}{k}"
        plain = prompt.plain().model_copy(update={"id": id, "text": text, "examples": tuple(others)})
        demonstration = Demonstration(id=f"d{id}", prompt_id=id, text=response, labeler=prompt.user)
        expanded.append((plain, demonstration))
    return expanded


def full_text(prompt: Prompt) -> str:
    """The prompt with its worked pairs where they stand: before its text, or after a labeler's instruction."""
    pairs = [text for pair in prompt.examples for text in pair]
    incoming = isinstance(prompt, IncomingPrompt) and prompt.instruction
    return "\n".join([prompt.text, *pairs] if incoming else [*pairs, prompt.text])


def own_texts(text: str, openings: Collection[str]) -> Iterator[tuple[str, str]]:
    """Every way to part the full text into (one of the openings, what stands behind it)."""
    longest = max(map(len, openings), default=-1)
    end = text.find(GAP)
    while 0 <= end <= longest:
        if text[:end] in openings:
            yield text[:end], text[end + len(GAP) :]
        end = text.find(GAP, end + 1)


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
