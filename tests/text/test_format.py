"""How a prompt is written for a model."""

import pytest
from pydantic import ValidationError

from heedful.config import InputError
from heedful.text.format import PromptFormat, prompt_tokens, write_prompt
from heedful.text.tokenizer import word_tokenizer
from heedful.types import Prompt

TOKENIZER = word_tokenizer(["Q:", "A:", "one", "two", "three", "uno", "dos", "\n", "<user>", "<bot>", "{x}"])
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)


def prompt(text: str = "three", **fields: object) -> Prompt:
    return Prompt(id="p", text=text, user="u", **fields)


def test_the_template_surrounds_the_prompt_and_examples_come_first() -> None:
    format = PromptFormat(template="Q: {prompt} A:", example="Q: {prompt} A: {response} \n ")
    shots = prompt(kind="few_shot", examples=(("one", "uno"), ("two", "dos")))
    assert write_prompt(shots, format, TOKENIZER) == "Q: one A: uno \n Q: two A: dos \n Q: three A:"
    assert write_prompt(prompt(), format, TOKENIZER) == "Q: three A:"


def test_braces_in_what_people_wrote_are_text() -> None:
    format = PromptFormat(template="Q: {prompt} A:", example="{prompt} {response} ")
    braces = prompt("{x}", examples=(("{prompt}", "{0}"),))
    assert write_prompt(braces, format, TOKENIZER) == "{prompt} {0} Q: {x} A:"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("template", "no field", r"write \{prompt\} in it and no other field"),
        ("template", "{prompt} {name}", "no other field"),
        ("template", "{prompt.text}", "no other field"),
        ("example", "{prompt}", r"write \{prompt\} and \{response\} in it"),
    ],
)
def test_a_template_names_its_fields_and_no_other(field: str, value: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PromptFormat(**{field: value})


def test_the_chat_template_is_the_tokenizers_own() -> None:
    tokenizer = word_tokenizer(["one", "uno", "three", "<user>", "<assistant>", "<bot>"])
    tokenizer.chat_template = TEMPLATE
    chat = PromptFormat(style="chat")
    shots = prompt(examples=(("one", "uno"),))
    assert write_prompt(shots, chat, tokenizer) == "<user> one <assistant> uno <user> three <bot>"
    ids = prompt_tokens(shots, chat, tokenizer)
    assert tokenizer.decode(ids) == "<user> one <assistant> uno <user> three <bot>"
    assert tokenizer.bos_token_id not in ids  # a chat template writes its own


def test_a_plain_prompt_opens_with_the_begin_token_where_there_is_one() -> None:
    format = PromptFormat(template="{prompt} A:")
    ids = prompt_tokens(prompt(), format, TOKENIZER)
    assert ids[0] == TOKENIZER.bos_token_id and TOKENIZER.decode(ids[1:]) == "three A:"
    without = word_tokenizer(["three", "A:"])
    without.bos_token = None
    assert without.decode(prompt_tokens(prompt(), format, without)) == "three A:"


def test_chat_without_a_chat_template_names_the_mend() -> None:
    with pytest.raises(InputError, match="no chat template; use style: plain"):
        write_prompt(prompt(), PromptFormat(style="chat"), TOKENIZER)
