"""Principles behind a response: what a reward model reads that follows them."""

import doctest

import pytest

from heedful.config import InputError, parse
from heedful.text import principles
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.text.principles import PrincipleFormat, guideline
from heedful.types import Prompt, Ranking, Response
from toys import BEGIN, END, TOKENIZER

FORM = PrincipleFormat(item="{text} ", template=" \n {principles}")
FORMAT = PromptFormat(template="{prompt} \n", max_prompt_tokens=4)
PROMPT = Prompt(id="p", text="w0 w1", user="u")
RESPONSES = [
    Response(id="r0", prompt_id="p", text="w2"),
    Response(id="r1", prompt_id="p", text="w3 w4", finished=False),
]


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(principles).attempted == 1 and doctest.testmod(principles).failed == 0


def test_braces_in_a_text_are_no_placeholders() -> None:
    head = "\n\nA good response keeps to all of these:\n"
    assert guideline(["{be} brief"], PrincipleFormat()) == f"{head}- {{be}} brief\n"
    assert guideline([], PrincipleFormat()) == head


def test_a_row_is_prompt_response_and_guideline_and_responses_share_their_prompt() -> None:
    encoder = Encoder(TOKENIZER, FORMAT)
    under = encoder.under(guideline(["w5", "w6 w7"], FORM))
    found = under.responses(PROMPT, RESPONSES)
    assert found is not None
    assert [row.prompt for _, row in found] == [[BEGIN, *ids_of("w0 w1 \n")]] * 2
    behind = [*ids_of("\n w5 w6 w7"), END]
    assert [row.response for _, row in found] == [[*ids_of("w2"), END, *behind], [*ids_of("w3 w4"), *behind]]
    plain = encoder.responses(PROMPT, RESPONSES)  # the encoder itself is as it was
    assert plain is not None and [row.response for _, row in plain] == [[*ids_of("w2"), END], ids_of("w3 w4")]
    ranking = Ranking(id="k", prompt_id="p", labeler="l", responses=("r0", "r1"), rank=(1, 2))
    ranked = under.ranking(PROMPT, RESPONSES, ranking)
    assert ranked is not None and ranked.rows == [row for _, row in found]


def test_what_a_guideline_makes_longer_than_the_context_is_left_out_and_counted() -> None:
    encoder = Encoder(TOKENIZER, FORMAT, context=10)  # prompt 4, response 2, guideline and end 4
    found = encoder.under(guideline(["w5", "w6"], FORM)).responses(PROMPT, RESPONSES)
    assert found is not None and len(found) == 2 and not encoder.dropped
    assert encoder.under(guideline(["w5", "w6", "w7"], FORM)).responses(PROMPT, RESPONSES) == []
    assert encoder.dropped == {"longer_than_context": 2}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("item", "no place"),
        ("item", "{text} {text}"),
        ("template", "no place"),
        ("template", "{prompt} {principles}"),
        ("template", "{principles} {principles}"),
    ],
)
def test_a_guideline_without_its_place_is_refused(key: str, value: str) -> None:
    with pytest.raises(InputError, match=f"guideline.{key}"):
        parse(PrincipleFormat, {key: value}, "guideline")
