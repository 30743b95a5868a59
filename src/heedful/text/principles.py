"""Principles before a prompt: what a reward model reads that follows them (SALMON, arXiv 2310.05910, section 3.3).

    guideline   one line for each principle; a negated one by its negative definition
    prompt      as ever
    response    as ever, behind both

So the guided prompt is an ordinary prompt of the same id: K responses share it, and rows, ranks, losses and scores are
those of any ranking. The released code puts the response first, and principles and prompt behind it.
"""

from collections.abc import Sequence
from string import Formatter

from pydantic import Field, ValidationInfo, field_validator

from heedful.config import Config
from heedful.text.format import PromptFormat
from heedful.types import Prompt


class PrincipleFormat(Config):
    """The guideline: `item` writes one principle, `template` all of them and the prompt."""

    item: str = "- {text}\n"  # one principle
    template: str = "A good response keeps to all of these:\n{principles}\n{prompt}"  # all of them, then the prompt
    max_prompt_tokens: int = Field(default=1512, ge=1)  # of principles and prompt; longer ones are dropped and counted

    @field_validator("item", "template")
    @classmethod
    def _names_its_fields(cls, value: str, info: ValidationInfo) -> str:
        wanted = ["text"] if info.field_name == "item" else ["principles", "prompt"]
        if [name for _, name, _, _ in Formatter().parse(value) if name is not None] != wanted:
            raise ValueError(f"write {' and then '.join(f'{{{name}}}' for name in wanted)} in it, each once")
        return value


def guided(prompt: Prompt, texts: Sequence[str], guideline: PrincipleFormat) -> Prompt:
    """The prompt behind the principles, whose texts are in force: `principles.Principle.text` of each.

    Worked examples of a few-shot prompt stay before it. Without texts the guideline stands there empty.

    >>> ask = Prompt(id="p", text="Say no.", user="u")
    >>> guided(ask, ["Be brief.", "Be rude."], PrincipleFormat(item="{text} ", template="{principles}: {prompt}")).text
    'Be brief. Be rude. : Say no.'
    """
    principles = "".join(guideline.item.format(text=text) for text in texts)
    text = guideline.template.format(principles=principles, prompt=prompt.text)
    return prompt.model_copy(update={"text": text})


def guided_format(format: PromptFormat, guideline: PrincipleFormat | None) -> PromptFormat:
    """The format that an `Encoder` of guided prompts has: with the guideline's own limit; None: there is none."""
    if guideline is None:
        return format
    return format.model_copy(update={"max_prompt_tokens": guideline.max_prompt_tokens})
