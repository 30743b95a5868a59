"""Principles behind a response: what a reward model reads that follows them (SALMON, arXiv 2310.05910, section 3.3).

    prompt      as ever
    response    as ever
    guideline   one line for each principle, a negated one by its negative definition; the score is read at its end

What stands before the guideline is the same under all principles, and read with none of them in mind. The released code
ends with the guideline too, and has the response before the prompt.
"""

from collections.abc import Sequence
from string import Formatter

from pydantic import ValidationInfo, field_validator

from heedful.config import Config


class PrincipleFormat(Config):
    """The guideline: `item` writes one principle, `template` what stands behind the response with all of them in it."""

    item: str = "- {text}\n"  # one principle
    template: str = "\n\nA good response keeps to all of these:\n{principles}"  # all of them, behind the response

    @field_validator("item", "template")
    @classmethod
    def _names_its_field(cls, value: str, info: ValidationInfo) -> str:
        wanted = "text" if info.field_name == "item" else "principles"
        if [name for _, name, _, _ in Formatter().parse(value) if name is not None] != [wanted]:
            raise ValueError(f"write {{{wanted}}} in it, once")
        return value


def guideline(texts: Sequence[str], format: PrincipleFormat) -> str:
    """What stands behind a response where these texts are in force: `principles.Principle.text` of each.

    Without texts it stands there empty.

    >>> guideline(["Be brief.", "Be rude."], PrincipleFormat(item="{text} ", template=" | {principles}"))
    ' | Be brief. Be rude. '
    """
    return format.template.format(principles="".join(format.item.format(text=text) for text in texts))
