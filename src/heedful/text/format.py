"""How a prompt is written for a model: plain template, worked examples, or the tokenizer's own chat template."""

from string import Formatter
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from transformers import PreTrainedTokenizerBase

from heedful.config import Config, InputError
from heedful.types import Prompt


class PromptFormat(Config):
    """`template` surrounds the prompt; `example` writes one worked pair of a few-shot prompt."""

    template: str = "{prompt}\n"
    example: str = "{prompt}\n{response}\n\n"
    style: Literal["plain", "chat"] = "plain"  # chat: the tokenizer's chat template instead of `template`
    pack_documents: bool = True  # pretraining text as one stream in full rows; False: a row of its own per document
    max_prompt_tokens: int = Field(default=1000, ge=1)  # longer ones are dropped and counted; InstructGPT: 1,000
    max_response_tokens: int = Field(default=1000, ge=1)  # InstructGPT: 1,000

    @field_validator("template", "example")
    @classmethod
    def _names_its_fields(cls, value: str, info: ValidationInfo) -> str:
        wanted = {"prompt"} if info.field_name == "template" else {"prompt", "response"}
        found = {name for _, name, _, _ in Formatter().parse(value) if name is not None}
        if found != wanted:
            raise ValueError(f"write {' and '.join(f'{{{name}}}' for name in sorted(wanted))} in it and no other field")
        return value


def write_prompt(prompt: Prompt, format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text a model is given for the prompt.

    Raises:
        InputError: a chat style for a tokenizer without a chat template.
    """
    if format.style == "chat":
        messages = []
        for question, answer in prompt.examples:
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": prompt.text})
        try:
            return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except ValueError:
            raise InputError("format.style is chat, but the tokenizer has no chat template; use style: plain") from None
    shots = "".join(format.example.format(prompt=question, response=answer) for question, answer in prompt.examples)
    return shots + format.template.format(prompt=prompt.text)


def prompt_tokens(prompt: Prompt, format: PromptFormat, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The prompt's token ids, with the tokenizer's own begin token where it has one (chat templates write theirs)."""
    text = write_prompt(prompt, format, tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if format.style == "plain" and tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    return ids
