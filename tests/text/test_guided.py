"""Principles before a prompt: what a reward model reads that follows them."""

import doctest

import pytest

from heedful.config import InputError, parse
from heedful.text import principles
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.text.principles import PrincipleFormat, guided, guided_format
from heedful.types import Prompt, Response
from toys import BEGIN, TOKENIZER

GUIDELINE = PrincipleFormat(item="{text} ", template="{principles}\n {prompt}", max_prompt_tokens=9)
FORMAT = PromptFormat(template="{prompt} \n", max_prompt_tokens=3)


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(principles).attempted == 2 and doctest.testmod(principles).failed == 0


def test_it_is_the_same_prompt_in_all_but_its_text() -> None:
    prompt = Prompt(id="p", text="say {this}", user="u", split="test", examples=(("a", "b"),), task={"type": "x"})
    found = guided(prompt, ["{be} brief"], PrincipleFormat())
    assert found.model_copy(update={"text": prompt.text}) == prompt
    head = "A good response keeps to all of these:\n"
    assert found.text == f"{head}- {{be}} brief\n\nsay {{this}}"  # braces in a text are no placeholders


def test_an_encoder_reads_principles_then_prompt_then_response_and_responses_share_both() -> None:
    encoder = Encoder(TOKENIZER, guided_format(FORMAT, GUIDELINE))
    prompt = guided(Prompt(id="p", text="w0 w1", user="u"), ["w5", "w6 w7"], GUIDELINE)
    responses = [Response(id=f"r{n}", prompt_id="p", text=text) for n, text in enumerate(("w2", "w3 w4"))]
    found = encoder.responses(prompt, responses)
    assert found is not None
    words = TOKENIZER("w5 w6 w7 \n w0 w1 \n", add_special_tokens=False)["input_ids"]
    assert [row.prompt for _, row in found] == [[BEGIN, *words]] * 2


def test_the_limit_is_the_guideline_s_own() -> None:
    prompt = guided(Prompt(id="p", text="w0", user="u"), ["w1"], GUIDELINE)  # five tokens with the begin token
    encoder = Encoder(TOKENIZER, guided_format(FORMAT, GUIDELINE))
    assert encoder.prompt(prompt) is not None and not encoder.dropped
    assert encoder.prompt(guided(prompt, ["w1 " * 9], GUIDELINE)) is None
    assert encoder.dropped == {"prompt_too_long": 1}
    assert guided_format(FORMAT, GUIDELINE).template == FORMAT.template


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("item", "no place"),
        ("item", "{text} {text}"),
        ("template", "{principles}"),
        ("template", "{prompt} {principles}"),
        ("template", "{principles} {prompt} {title}"),
    ],
)
def test_a_guideline_without_its_places_is_refused(key: str, value: str) -> None:
    with pytest.raises(InputError, match=f"guideline.{key}"):
        parse(PrincipleFormat, {key: value}, "guideline")
