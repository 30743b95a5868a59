"""Replies as servers write them, read by hand-counted sums and by brute force."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heedful.feedback.ai.reading import (
    Chances,
    chosen,
    places_in,
    read_chances,
    read_echo,
    read_label,
    said_in,
    spellings,
    verdict,
)

Json = dict[str, Any]
LABELS = ["1", "2"]
MARKS = [str(n) for n in range(1, 11)]


def named(token: str, probability: float) -> Json:
    return {"token": token, "logprob": math.log(probability), "bytes": list(token.encode())}


def chat(*rows: tuple[str, dict[str, float]], content: str | None = None, **message: Any) -> Json:
    """A chat's choice: of each place the token that came and the probabilities listed there."""
    told = []
    for token, odds in rows:
        listed = [
            {"token": name, "logprob": math.log(value), "bytes": list(name.encode())} for name, value in odds.items()
        ]
        told.append(
            {"token": token, "logprob": math.log(odds[token]), "bytes": list(token.encode()), "top_logprobs": listed}
        )
    text = "".join(token for token, _ in rows) if content is None else content
    return {"message": {"content": text, **message}, "finish_reason": "stop", "logprobs": {"content": told}}


def text(*rows: tuple[str, dict[str, float]]) -> Json:
    """The same as a completion's choice."""
    return {
        "text": "".join(token for token, _ in rows),
        "logprobs": {
            "tokens": [token for token, _ in rows],
            "token_logprobs": [math.log(odds[token]) for token, odds in rows],
            "top_logprobs": [{name: math.log(value) for name, value in odds.items()} for _, odds in rows],
        },
    }


def read(choice: Json, labels: list[str] = LABELS, complete: bool = True) -> list[float]:
    return read_chances(places_in(choice), labels, complete).told


def test_spellings() -> None:
    assert spellings("1") == ["1", " 1", "１"] and spellings("是") == ["是", " 是"]


@pytest.mark.parametrize("form", [chat, text])
def test_spellings_are_pooled(form: Any) -> None:
    odds = {
        "1": 0.3,
        " 1": 0.1,
        "１": 0.05,
        "▁1": 0.01,
        "2": 0.2,
        "\n2": 0.02,
        "**": 0.1,
        "12": 0.1,
        "1st": 0.01,
        "2.": 0.03,
    }
    one, two = read(form(("1", odds)))
    assert one == pytest.approx(0.46) and two == pytest.approx(0.25)


@given(
    st.dictionaries(
        st.sampled_from(["1", " 1", "１", "\t1", "2", " 2", "２", "(2", "3", " x", "1a", "zwei"]),
        st.floats(0.001, 1.0),
        min_size=1,
    )
)
def test_pooling_is_a_sum_over_every_listed_spelling(weights: dict[str, float]) -> None:
    total = sum(weights.values()) * 1.01
    odds = {token: weight / total for token, weight in weights.items()}
    brute = [
        sum(odds.get(token, 0.0) for token in group) for group in (("1", " 1", "１", "\t1"), ("2", " 2", "２", "(2"))
    ]
    assert read(chat((next(iter(odds)), odds))) == pytest.approx(brute)


def test_two_tokens_that_are_spelled_alike_are_summed() -> None:
    choice = chat(("1", {"1": 0.3, "2": 0.2}))
    rivals = choice["logprobs"]["content"][0]["top_logprobs"]
    rivals.append({"token": "1", "logprob": math.log(0.25), "bytes": [49]})
    assert read(choice) == pytest.approx([0.55, 0.2])


def test_a_label_of_several_tokens_is_followed_and_taken_off_the_shorter() -> None:
    rows = (("1", {"1": 0.6, "2": 0.3, "3": 0.05}), ("0", {"0": 0.7, ".": 0.2, "5": 0.1}))
    told = read(chat(*rows), MARKS)
    assert told[9] == pytest.approx(0.42) and told[0] == pytest.approx(0.18) and told[1] == pytest.approx(0.3)
    off_the_path = read_chances(places_in(chat(("2", rows[0][1]))), MARKS, complete=True)
    assert off_the_path.told[0] == pytest.approx(0.6) and off_the_path.untold[9] == pytest.approx(0.6)
    whole = read_chances(places_in(chat(("2", {"1": 0.4, "2": 0.5, "10": 0.1}))), MARKS, complete=True)
    assert whole.told[9] == pytest.approx(0.1) and not any(whole.untold)


def test_a_character_of_several_tokens_is_followed() -> None:
    """A full-width digit that the tokenizer has only as bytes, in both forms of the API."""
    first, last = "１".encode()[:2], "１".encode()[2:]
    parts = [(first, {first: 0.8, b"2": 0.2}), (last, {last: 0.9, "２".encode()[2:]: 0.1})]
    content = [
        {
            "token": "\ufffd",
            "logprob": math.log(odds[token]),
            "bytes": list(token),
            "top_logprobs": [{"token": "\ufffd", "logprob": math.log(v), "bytes": list(k)} for k, v in odds.items()],
        }
        for token, odds in parts
    ]
    expected = [0.72, 0.28]
    assert read({"message": {"content": "１"}, "logprobs": {"content": content}}) == pytest.approx(expected)

    def name(token: bytes) -> str:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token) if token > b"\x7f" else token.decode()

    told = {
        "tokens": [name(token) for token, _ in parts],
        "token_logprobs": [math.log(odds[token]) for token, odds in parts],
        "top_logprobs": [{name(k): math.log(v) for k, v in odds.items()} for _, odds in parts],
    }
    assert read({"text": "１", "logprobs": told}) == pytest.approx(expected)


def test_what_is_not_listed_is_bounded() -> None:
    """Of the second label two spellings are missing, of the first one: each at most as likely as the least listed."""
    found = read_chances(places_in(chat(("1", {"1": 0.9, "The": 0.05, "so": 0.01}))), LABELS)
    assert found.told == pytest.approx([0.9, 0.0]) and found.untold == pytest.approx([0.01, 0.02])
    assert found.doubt == pytest.approx(0.03 / 0.93)
    assert found.logprobs() == pytest.approx((math.log(0.9), math.log(0.02)))
    nearly_all = read_chances(places_in(chat(("1", {"1": 0.6, "2": 0.3995}))), LABELS)
    assert nearly_all.untold == pytest.approx([0.0005, 0.0005])
    assert Chances([0.0, 0.0], [0.1, 0.1]).doubt == 1.0
    assert Chances([0.0, 0.5], [0.0, 0.0]).logprobs()[0] == -math.inf


def test_an_answer_is_read_behind_the_thoughts() -> None:
    """The first token, and labels within the thoughts, say the opposite."""
    at_once = {"1": 0.9, "2": 0.1}
    rows = [("1", at_once), (" beats", {" beats": 1.0}), (" 2", {" 2": 1.0}), ("</think>", {"</think>": 1.0})]
    rows += [("\n\n", {"\n\n": 1.0}), ("2", {"1": 0.2, "2": 0.8})]
    parsed = chat(*rows, content="2", reasoning_content="1 beats 2")
    raw = chat(("<think>", {"<think>": 1.0}), *rows)
    for choice in (parsed, raw, chat(*rows, content="\n\n2", reasoning="1 beats 2")):
        found = read_label(choice, LABELS, 0.05, complete=True)
        assert isinstance(found, Chances) and found.told == pytest.approx([0.2, 0.8])
    cut = chat(("<think>", {"<think>": 1.0}), *rows[:3]) | {"finish_reason": "length"}
    assert read_label(cut, LABELS, 0.05) == "its limit ended it while it was thinking"
    hidden = chat(*rows, content="", reasoning_content="1 beats 2")
    assert read_label(hidden, LABELS, 0.05) == "no answer behind what it thought"


def test_an_answer_in_words_is_read_where_it_names_the_label() -> None:
    said = [(token, {token: 0.99, "1": 0.009, "2": 0.001}) for token in ("The", " better", " is")]
    found = read_label(chat(*said, (" 2", {" 1": 0.3, " 2": 0.7}), (".", {".": 1.0})), LABELS, 0.05, complete=True)
    assert isinstance(found, Chances) and found.told == pytest.approx([0.3, 0.7])
    both = read_label(chat(*said, (" both", {" both": 1.0})), LABELS, 0.05, complete=True)
    assert isinstance(both, Chances) and both.told == pytest.approx([0.009, 0.001])  # at the first token, as in RLAIF


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (None, "no log-probabilities"),
        ({"content": None}, "no log-probabilities"),
        ({"content": []}, "no log-probabilities"),
        ({"content": [{"token": "1", "logprob": float("nan"), "top_logprobs": []}]}, "nan is no log-probability"),
        ({"content": [{"token": "1", "logprob": 0.7}]}, "0.7 is no log-probability"),
        ({"content": [{"token": "1", "logprob": None}]}, "None is no log-probability"),
        ({"content": [{"token": "1"}]}, "no known form"),
        ({"content": ["1"]}, "no known form"),
        ({"content": [{"token": "1", "logprob": 0.0, "top_logprobs": [{"token": "2", "logprob": 0.0}]}]}, "sum to 2"),
        ({"tokens": ["1"], "token_logprobs": [-0.1], "top_logprobs": [{"2": -0.7}]}, "sum to 1.4"),
        ({"tokens": ["1"], "token_logprobs": [], "top_logprobs": []}, "shorter"),
        ({"tokens": ["1"], "token_logprobs": ["x"], "top_logprobs": [{}]}, "is no log-probability"),
    ],
)
def test_what_is_no_log_probability_is_said(told: Any, why: str) -> None:
    found = read_label({"message": {"content": "1"}, "logprobs": told}, LABELS, 0.05)
    assert isinstance(found, str) and why in found


def test_rounding_above_certainty_is_certainty() -> None:
    choice = {"logprobs": {"content": [{"token": "1", "logprob": 5e-4, "top_logprobs": []}]}}
    assert read(choice) == [1.0, 0.0]


def echoed(*rows: tuple[list[str], list[float | None]]) -> list[Json]:
    return [{"logprobs": {"tokens": tokens, "token_logprobs": logprobs}} for tokens, logprobs in rows]


def test_an_echo_is_read_from_where_the_texts_part() -> None:
    """Whether the blank is a token of its own, or the label joined to what stands before it."""
    log = math.log
    forms = [(0, "1"), (0, " 1"), (1, "2"), (1, " 2")]
    choices = echoed(
        (["A", "=", "1"], [None, -9.0, log(0.3)]),
        (["A", "=", " ", "1"], [None, -9.0, log(0.4), log(0.5)]),
        (["A", "=", "2"], [None, -9.0, log(0.1)]),
        (["A", "=", " ", "2"], [None, -9.0, log(0.4), log(0.25)]),
    )
    found = read_echo(choices, forms, 2)
    assert isinstance(found, Chances) and found.told == pytest.approx([0.5, 0.2])
    joined = echoed((["A", "=1"], [None, log(0.3)]), (["A", "=2"], [None, log(0.1)]))
    found = read_echo(joined, [(0, "1"), (1, "2")], 2)
    assert isinstance(found, Chances) and found.told == pytest.approx([0.3, 0.1])


def test_an_echo_tells_labels_from_longer_ones_and_unknown_ones_from_none() -> None:
    log = math.log
    choices = echoed(
        (["A", "1"], [None, log(0.5)]),
        (["A", "<unk>"], [None, log(0.1)]),
        (["A", "1", "0"], [None, log(0.5), log(0.4)]),
        (["A", "<unk>"], [None, log(0.1)]),
    )
    found = read_echo(choices, [(0, "1"), (0, "１"), (1, "10"), (1, "１０")], 2)
    assert isinstance(found, Chances) and found.told == pytest.approx([0.3, 0.2])
    assert read_echo(choices[:3], [(0, "1"), (0, "１"), (1, "10"), (1, "１０")], 2) == "3 texts echoed of 4"
    assert read_echo([{}] * 2, [(0, "1"), (1, "2")], 2) == "the reply holds no log-probabilities of its prompt"
    alike = echoed((["A"], [None]), (["A"], [None]))
    assert read_echo(alike, [(0, "1"), (1, "2")], 2) == "the echoed texts are all alike"


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("1", 0), (" 2.", 1), ("**2**", 1), ("１", 0), ("Preferred Response=1", 0), ("更好的是：２", 1), ("(1)", 0),
        ("Response 2 is better.", 1), ("1 is short, 2 is not.\n2", 1), ("1 and 2 are alike, so: 1", 0),
        ("Both 1 and 2 are fine.", None), ("neither", None), ("", None), ("12", None), ("1.5", None), ("a1", None),
        ("**Response 2**", 1), ("The better one is 2", 1), ("I prefer Response 1 because it is kind", 0),
        ("Response 2 is better than the other.", 1), ("回答2更好", 1), ("更好的是2", 1), ("Summary 1 wins", 0),
        ("I'm sorry, but I can't choose between these 2 responses.", None),
        ("As an AI, I have no preference between 1 of them.", None), ("I cannot compare the two.\n1", None),
        ("抱歉，我无法对这2个回答作出判断。", None), ("Between the 2 responses, the first is better.", None),
        ("Not 1", None), ("Not this: 1", None), ("I would not choose 1", None), ("Neither is better than 1", None),
        ("Response 1 is worse", None), ("Response 1 isn't better", None),
        ("The other is better than Response 1.", None), ("I prefer the other over Response 1.", None),
        ("1/10 for the first", None), ("Response 1/10", None),
        ("2 reasons why the first is better", None), ("The answer is 2 sentences long.", None), ("回答1不好", None),
    ],
)  # fmt: skip
def test_verdicts(said: str, label: int | None) -> None:
    found = verdict(said, LABELS)
    assert (None if found is None else found[0]) == label
    if found is not None:
        assert said[found[1]] in "12１２"


def test_verdicts_of_marks_prefer_the_longer() -> None:
    assert verdict("10", MARKS) == (9, 0) and verdict("I give it a 10.", MARKS) == (9, 12)


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ('{"label": "2"}', 1),
        ("2", 1),
        (" 1\n", 0),
        ('"1"', 0),
        ("1", 0),
        ('{"label": "3"}', None),
        ("[1]", None),
        ("", None),
    ],
)
def test_forced_choices(said: str, label: int | None) -> None:
    assert chosen(said, LABELS) == label


def test_what_is_said_is_the_answer_alone() -> None:
    parts = {"message": {"content": [{"type": "text", "text": "on"}, {"type": "text", "text": "e\0\ud800"}]}}
    assert said_in(parts).text == "one\ufffd?"
    assert said_in({"text": "<think>two</think>one"})[:2] == ("one", True)
    assert said_in({"text": "so <think> is a tag"})[:2] == ("so <think> is a tag", False)
    assert said_in({"message": {"content": None, "refusal": "I can't"}}).refusal == "I can't"
    assert (
        said_in({"message": {"content": ""}, "finish_reason": "content_filter"}).refusal
        == "the server's content filter"
    )
    assert said_in({"message": "what"}).text == "" and said_in({"text": 3}).text == "" and said_in({}).text == ""
