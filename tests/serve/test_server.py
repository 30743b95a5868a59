"""The real server in a process of its own, asked by the official client and by hostile ones."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from heedful.engine.engine import Engine
from heedful.engine.slots import Request
from heedful.models.load import load_decoder, load_tokenizer
from processes import wait_until
from small_server import Server, launch, save_small, stop
from small_tokenizers import byte_tokenizer
from toys import TOKENIZER

KEY = "a secret"
ROWS, WAITING = 8, 56
MESSAGES: Any = [{"role": "user", "content": "the boat"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("serve") / "model", byte_tokenizer(), chat=True)


@pytest.fixture(scope="module")
def servers(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """One of a byte-level model that anyone may ask, and one of a word-level model without chat, behind a key."""
    place = tmp_path_factory.mktemp("servers")
    words = save_small(place / "words", TOKENIZER, chat=False, context=128)
    opened = launch(place / "open", folder, "--name", "small", "--max-batch", ROWS, "--max-waiting", WAITING)
    locked = launch(
        *(place / "locked", words, "--api-key", "other", "--api-key", KEY),
        *("--allow-origin", "http://page.example", "--max-context", 100),
    )
    try:
        yield opened.wait(), locked.wait()
    finally:
        for server in (opened, locked):
            stop(server)


@pytest.fixture(scope="module")
def url(servers: tuple[Server, Server]) -> str:
    return servers[0].url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return load_decoder(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def endless(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """A bias by which no response ends before its limit."""
    return {str(tokenizer.eos_token_id): -100}


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Any = MESSAGES) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def rows(url: str) -> int:
    return httpx.get(url + "/health").json()["rows"]


# Answers.


def test_greedy_text_is_that_of_transformers(
    client: openai.OpenAI, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = chat_ids(tokenizer)
    out = theirs.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=30, pad_token_id=0)[
        0, len(ids) :
    ].tolist()
    asked: Any = {"model": "small", "temperature": 0, "max_tokens": 30}
    answer = client.chat.completions.create(messages=MESSAGES, **asked)
    assert answer.choices[0].message.content == text_of(tokenizer, out)
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), len(out))
    assert answer.usage.total_tokens == len(ids) + len(out)
    assert answer.choices[0].finish_reason == ("stop" if out[-1] == tokenizer.eos_token_id else "length")
    text = client.completions.create(prompt=ids, **asked)
    assert text.choices[0].text == answer.choices[0].message.content


def test_a_seed_decides_the_answer_whatever_else_is_asked(
    client: openai.OpenAI, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, endless: dict[str, int]
) -> None:
    """Fifty requests at once for eight rows, some streamed, some of several samples: each as the engine gives alone."""
    bias = tuple((int(id), number) for id, number in endless.items())
    engine = Engine(model, [tokenizer.eos_token_id])

    def ask(i: int) -> list[str]:
        messages: Any = [{"role": "user", "content": "the boat " * (i % 7)}]
        how: Any = {
            "n": 2 if i % 10 == 0 else 1,
            "seed": i,
            "top_p": 0.9 if i % 3 else 1.0,
            "temperature": 1 + i % 2 / 2,
        }
        more: Any = {"max_tokens": 5 + i, "logit_bias": endless, "extra_body": {"top_k": 20 if i % 4 else -1}}
        if i % 2:
            parts = client.chat.completions.create(model="small", messages=messages, stream=True, **how, **more)
            return ["".join(p.choices[0].delta.content or "" for p in parts)]
        answer = client.chat.completions.create(model="small", messages=messages, **how, **more)
        return [choice.message.content or "" for choice in answer.choices]

    def alone(i: int) -> list[str]:
        ids = chat_ids(tokenizer, [{"role": "user", "content": "the boat " * (i % 7)}])
        request = Request(
            *(ids, 2 if i % 10 == 0 else 1, 5 + i, 1 + i % 2 / 2, 20 if i % 4 else 0, 0.9 if i % 3 else 1.0, i, bias)
        )
        return [
            bytes_of(tokenizer, completion.tokens).decode(errors="replace")
            for completion in engine.generate([request])[0]
        ]

    with ThreadPoolExecutor(50) as pool:
        together = list(pool.map(ask, range(50)))
    assert together == [alone(i) for i in range(50)]
    assert ask(12) == together[12] and ask(13) == together[13]
    assert len({text for texts in together for text in texts}) > 50


def bytes_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> bytes:
    from heedful.engine.spelling import Spelling

    return b"".join(Spelling(tokenizer).of(id, i == 0) for i, id in enumerate(ids))


def test_without_a_seed_equal_requests_differ(client: openai.OpenAI) -> None:
    asked: Any = {"model": "small", "prompt": "the boat", "max_tokens": 20}
    texts = {client.completions.create(**asked).choices[0].text for _ in range(3)}
    several = client.completions.create(n=3, **asked)
    assert len(texts) == 3 and len({choice.text for choice in several.choices}) == 3
    assert [choice.index for choice in several.choices] == [0, 1, 2]


def test_several_prompts_in_one_request(client: openai.OpenAI, tokenizer: PreTrainedTokenizerBase) -> None:
    """Each answered as if asked for alone, in order; text begins behind the begin token, ids are taken as they are."""
    asked: Any = {"model": "small", "max_tokens": 6, "seed": 5, "n": 2}
    both = client.completions.create(prompt=["the", "boats"], **asked)
    first, second = (client.completions.create(prompt=prompt, **asked) for prompt in ("the", "boats"))
    assert [c.text for c in both.choices] == [c.text for c in (*first.choices, *second.choices)]
    assert [c.index for c in both.choices] == [0, 1, 2, 3]
    ids = tokenizer("the", add_special_tokens=False)["input_ids"]
    with_begin = client.completions.create(prompt=[[tokenizer.bos_token_id, *ids], ids], **asked)
    assert [c.text for c in with_begin.choices[:2]] == [c.text for c in first.choices]
    plain = client.completions.create(prompt="the", extra_body={"add_special_tokens": False}, **asked)
    assert [c.text for c in with_begin.choices[2:]] == [c.text for c in plain.choices]


# Streams.


@pytest.mark.parametrize("stop_texts", [None, "never to be seen"])
def test_streams_tell_the_same_as_whole_answers(client: openai.OpenAI, stop_texts: str | None) -> None:
    asked: Any = {"model": "small", "messages": MESSAGES, "seed": 3, "max_tokens": 40, "n": 3, "stop": stop_texts}
    whole = client.chat.completions.create(logprobs=True, top_logprobs=2, **asked)
    parts = list(
        client.chat.completions.create(
            stream=True, stream_options={"include_usage": True}, logprobs=True, top_logprobs=2, **asked
        )
    )
    assert [choice.delta.role for choice in parts[0].choices] == ["assistant"] * 3
    assert parts[-1].choices == [] and parts[-1].usage == whole.usage
    assert len({part.id for part in parts}) == 1 and {part.object for part in parts} == {"chat.completion.chunk"}
    for choice in whole.choices:
        mine = [c for part in parts for c in part.choices if c.index == choice.index]
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine] == [None] * (len(mine) - 1) + [choice.finish_reason]
        told = [token for c in mine if c.logprobs is not None for token in c.logprobs.content or []]
        assert choice.logprobs is not None and told == choice.logprobs.content
    assert len(parts) > 40  # as they are made, not at the end


def test_completions_stream_too(client: openai.OpenAI) -> None:
    asked: Any = {"model": "small", "prompt": "the boat", "seed": 3, "max_tokens": 25, "echo": True, "logprobs": 1}
    whole = client.completions.create(n=2, **asked)
    parts = [part.choices[0] for part in client.completions.create(n=2, stream=True, **asked)]
    for choice in whole.choices:
        mine = [part for part in parts if part.index == choice.index]
        assert "".join(part.text for part in mine) == choice.text and choice.text.startswith("the boat")
        assert choice.logprobs is not None
        for name in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
            streamed = [x for part in mine if part.logprobs for x in getattr(part.logprobs, name) or []]
            assert streamed == getattr(choice.logprobs, name)


def test_the_stream_on_the_wire(url: str) -> None:
    """Events as the format has them, each on its own, the mark of the end last."""
    body = {"model": "small", "messages": MESSAGES, "max_tokens": 9, "stream": True, "seed": 1}
    with httpx.stream("POST", url + "/v1/chat/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    *events, end, rest = text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: {") and "\n" not in event for event in events)
    assert json.loads(events[-1][6:])["choices"][0]["finish_reason"] in ("stop", "length")


# Where a response ends.


def test_stop_texts(client: openai.OpenAI, endless: dict[str, int]) -> None:
    """Cut from a known response, so that they cross tokens; nothing of one is ever told, streamed or not."""
    asked: Any = {"model": "small", "messages": MESSAGES, "seed": 8, "max_tokens": 60, "logit_bias": endless}
    full = client.chat.completions.create(logprobs=True, **asked)
    text = full.choices[0].message.content or ""
    for stop_text in (text[20:25], text[11:13], text[30:47]):
        cut = text.index(stop_text)
        for texts in (stop_text, ["never", stop_text, "nor this"]):
            [choice] = client.chat.completions.create(stop=texts, logprobs=True, **asked).choices
            assert choice.message.content == text[:cut] and choice.finish_reason == "stop"
            told = choice.logprobs.content if choice.logprobs else None
            assert full.choices[0].logprobs is not None and full.choices[0].logprobs.content is not None
            assert told == full.choices[0].logprobs.content[: len(told or [])]
        parts = client.chat.completions.create(stop=stop_text, stream=True, **asked)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == text[:cut]


def test_stopped_rows_are_free(client: openai.OpenAI, url: str, endless: dict[str, int]) -> None:
    asked: Any = {"model": "small", "prompt": "the", "seed": 8, "logit_bias": endless}
    text = client.completions.create(max_tokens=30, **asked).choices[0].text
    with client.completions.create(max_tokens=3000, stream=True, **asked) as other:
        parts = iter(other)  # kept: the client leaves when it is dropped
        next(parts)
        answer = client.completions.create(max_tokens=3000, stop=text[10:14], **asked)
        assert answer.usage is not None and answer.usage.completion_tokens <= 30
        wait_until(lambda: rows(url) == 1, 20)
    wait_until(lambda: rows(url) == 0, 20)


# Log-probabilities.


def plain_logprobs(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    """(T − 1, V): what the model thinks of each token after the first."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1].log_softmax(-1)


def test_chat_logprobs_are_the_models(
    client: openai.OpenAI, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, endless: dict[str, int]
) -> None:
    """At temperature 1 and without bias, whatever the request samples by."""
    asked: Any = {"model": "small", "messages": MESSAGES, "max_tokens": 12, "seed": 2, "temperature": 0.3, "top_p": 0.8}
    answer = client.chat.completions.create(logprobs=True, top_logprobs=5, logit_bias=endless, **asked)
    told = answer.choices[0].logprobs.content if answer.choices[0].logprobs else None
    assert told is not None and len(told) == 12
    prompt = chat_ids(tokenizer)
    request = Request(prompt, 1, 12, 0.3, 0, 0.8, 2, tuple((int(i), x) for i, x in endless.items()))
    [[completion]] = Engine(model, [tokenizer.eos_token_id]).generate([request])
    expected = plain_logprobs(model, prompt + completion.tokens)[len(prompt) - 1 :]
    assert b"".join(bytes(t.bytes or []) for t in told) == bytes_of(tokenizer, completion.tokens)
    for token, id, row in zip(told, completion.tokens, expected, strict=True):
        assert token.logprob == pytest.approx(row[id].item(), abs=1e-4)
        top = row.topk(5).values.tolist()
        assert [rival.logprob for rival in token.top_logprobs] == pytest.approx(top, abs=1e-4)


def test_prompts_are_scored_without_an_answer(
    client: openai.OpenAI, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """echo with max_tokens 0, as harnesses score texts; the log-probabilities are those of a plain forward pass."""
    text = "the boat, the boats é"
    asked: Any = {"model": "small", "prompt": [text, "boat"], "max_tokens": 0, "echo": True, "logprobs": 2}
    answer = client.completions.create(**asked)
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    [first, second] = answer.choices
    assert (first.text, second.text, first.finish_reason) == (text, "boat", "length")
    assert answer.usage is not None and answer.usage.completion_tokens == 0
    found = first.logprobs
    assert found is not None and found.token_logprobs and found.tokens and found.text_offset and found.top_logprobs
    expected = plain_logprobs(model, ids)
    chosen = expected.gather(1, torch.tensor(ids[1:])[:, None]).squeeze(1).tolist()
    assert found.token_logprobs[0] is None and found.top_logprobs[0] is None
    assert found.token_logprobs[1:] == pytest.approx(chosen, abs=1e-4)
    for rivals, row, mine in zip(found.top_logprobs[1:], expected, chosen, strict=True):
        assert 2 <= len(rivals) <= 3 and max(rivals.values()) == pytest.approx(row.max().item(), abs=1e-4)
        assert min(abs(x - mine) for x in rivals.values()) < 1e-4
    assert found.tokens[0] == "<s>"
    for token, offset in zip(found.tokens[1:], found.text_offset[1:], strict=True):
        assert token.startswith("bytes:") or text[offset : offset + len(token)] == token


@pytest.mark.parametrize("text", ["<s> the </s>boat", "the boat é</s>", " the  boat", "</s>", ""])
def test_offsets_count_the_echoed_text(client: openai.OpenAI, text: str) -> None:
    """Special tokens that the text spells take up its characters; the begin token that was added takes up none."""
    asked: Any = {"model": "small", "max_tokens": 4, "echo": True, "logprobs": 0, "temperature": 0}
    [choice] = client.completions.create(prompt=text, **asked).choices
    found = choice.logprobs
    assert found is not None and found.tokens and found.text_offset and choice.text.startswith(text)
    spelled = 0
    for token, offset in zip(found.tokens, found.text_offset, strict=True):
        if offset < len(text) and token in ("<s>", "</s>"):
            assert choice.text.startswith(token, offset) or offset == 0
        elif not token.startswith("bytes:") and token not in ("<s>", "</s>"):
            assert choice.text.startswith(token, offset)
        spelled += len(token) * (choice.text.startswith(token, offset) and not token.startswith("bytes:"))
    assert found.text_offset == sorted(found.text_offset)
    assert spelled >= len(text) - 2  # all but a character of several tokens


def test_ids_that_are_no_text_are_echoed_as_their_bytes(client: openai.OpenAI, tokenizer: Any) -> None:
    ids = [tokenizer.convert_tokens_to_ids(c) for c in ("Ã", "b")]  # the first half of é, and a letter
    [choice] = client.completions.create(model="small", prompt=ids, max_tokens=0, echo=True, logprobs=0).choices
    assert choice.text == "\ufffdb" and choice.logprobs is not None
    assert choice.logprobs.tokens == ["bytes:\\xc3", "b"] and choice.logprobs.text_offset == [0, 0]


def test_prompt_logprobs_of_chats_and_completions(
    client: openai.OpenAI, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    asked: Any = {"model": "small", "max_tokens": 1, "extra_body": {"prompt_logprobs": 1}}
    ids = chat_ids(tokenizer)
    chat: Any = client.chat.completions.create(messages=MESSAGES, **asked)
    text: Any = client.completions.create(prompt=ids, n=2, **asked)
    expected = plain_logprobs(model, ids)
    assert chat.prompt_logprobs == text.choices[0].prompt_logprobs == text.choices[1].prompt_logprobs
    assert chat.prompt_logprobs[0] is None and len(chat.prompt_logprobs) == len(ids)
    for listed, id, row in zip(chat.prompt_logprobs[1:], ids[1:], expected, strict=True):
        assert listed[str(id)]["logprob"] == pytest.approx(row[id].item(), abs=1e-4)
        assert listed[str(id)]["rank"] == (row > row[id]).sum().item() + 1
        assert listed[str(row.argmax().item())]["rank"] == 1


# Many at once.


def test_who_leaves_frees_a_row(url: str, client: openai.OpenAI, endless: dict[str, int]) -> None:
    """Three ask for equally long responses; two leave, one in mid-stream and one who waits for the whole. Their rows
    are free while the third is still being answered."""
    body = {"model": "small", "prompt": "the", "max_tokens": 3500, "logit_bias": endless, "seed": 1}
    with client.completions.create(stream=True, **body) as stays:  # type: ignore[call-overload]
        parts = iter(stays)
        next(parts)
        with httpx.stream("POST", url + "/v1/completions", json=body | {"stream": True}) as leaves:
            lines = leaves.iter_lines()
            next(lines)
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url + "/v1/completions", json=body, timeout=0.3)
            wait_until(lambda: rows(url) == 2, 20)
        wait_until(lambda: rows(url) == 1, 20)
        assert next(parts).choices[0].finish_reason is None
    wait_until(lambda: rows(url) == 0, 20)


def test_too_many_are_told_to_come_again(url: str, client: openai.OpenAI, endless: dict[str, int]) -> None:
    body: Any = {"model": "small", "prompt": "the", "max_tokens": 3000, "logit_bias": endless, "n": ROWS + WAITING - 4}
    with client.completions.create(stream=True, **body) as many:
        parts = iter(many)
        next(parts)
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(**body | {"n": 5, "max_tokens": 1})
        assert refused.value.response.headers["retry-after"] == "1"
        assert refused.value.code == "rate_limit_exceeded"
    wait_until(lambda: httpx.get(url + "/health").json()["asked"] == 0, 20)
    client.completions.create(**body | {"n": 5, "max_tokens": 1})
    with pytest.raises(openai.BadRequestError, match="65 responses at once are more than the 64"):
        client.completions.create(**body | {"n": ROWS + WAITING + 1})
    with pytest.raises(openai.BadRequestError, match="65 responses at once") as many_prompts:
        client.completions.create(**body | {"n": 1, "prompt": ["the"] * (ROWS + WAITING + 1)})
    assert (refused.value.param, many_prompts.value.param) == (None, "prompt")


# What is refused.

OPEN, CLOSE = b'{"model": "small", "prompt": "the", ', b"}"


@pytest.mark.parametrize(
    ("body", "says", "param", "code"),
    [
        (b"", "not JSON", None, None),
        (b"{", "not JSON", None, None),
        (b"[]", "not a JSON object", None, None),
        (b'"\xff"', "not JSON", None, None),
        (b'{"a": ' * 5000, "not JSON", None, None),
        (b'{"prompt": "\\ud800", "model": "small"}', "not JSON", None, None),
        (b'{"prompt": "the"}', "model is missing", "model", "missing_required_parameter"),
        (b'{"model": "small"}', "prompt is missing", "prompt", "missing_required_parameter"),
        (b'{"model": "small", "prompt": []}', "at least one", "prompt", "invalid_value"),
        (b'{"model": "small", "prompt": [[]]}', "no tokens", "prompt", None),
        (b'{"model": "small", "prompt": [1, true]}', "a string or a list of token ids", "prompt", "invalid_value"),
        (b'{"model": "small", "prompt": [1, 99999]}', "outside the model's vocabulary", "prompt", None),
        (b'{"model": "small", "prompt": [1, -1]}', "outside the model's vocabulary", "prompt", None),
        (OPEN + b'"temperature": 2.5' + CLOSE, "temperature: ", "temperature", "invalid_value"),
        (OPEN + b'"temperature": "1"' + CLOSE, "temperature: ", "temperature", "invalid_value"),
        (OPEN + b'"temperature": NaN' + CLOSE, "not JSON", None, None),
        (OPEN + b'"top_p": 0' + CLOSE, "top_p: ", "top_p", "invalid_value"),
        (OPEN + b'"n": 0' + CLOSE, "n: ", "n", "invalid_value"),
        (OPEN + b'"n": 1000000000000000000000000' + CLOSE, "n: ", "n", "invalid_value"),
        (OPEN + b'"max_tokens": -1' + CLOSE, "max_tokens: ", "max_tokens", "invalid_value"),
        (OPEN + b'"max_tokens": 0' + CLOSE, "only with echo", "max_tokens", None),
        (OPEN + b'"max_tokens": 4096' + CLOSE, "exceed this server's context", "max_tokens", "context_length_exceeded"),
        (OPEN + b'"stop": ["a", "b", "c", "d", "e"]' + CLOSE, "stop: ", "stop", "invalid_value"),
        (OPEN + b'"stop": ""' + CLOSE, "stop[0]: ", "stop[0]", "invalid_value"),
        (OPEN + b'"logprobs": 21' + CLOSE, "logprobs: ", "logprobs", "invalid_value"),
        (OPEN + b'"logit_bias": {"x": 1}' + CLOSE, "logit_bias maps", "logit_bias", None),
        (OPEN + b'"logit_bias": {"5": 101}' + CLOSE, "logit_bias maps", "logit_bias", None),
        (OPEN + b'"logit_bias": {"99999": 1}' + CLOSE, "outside the model's vocabulary", "logit_bias", None),
        (OPEN + b'"temprature": 1' + CLOSE, "temprature is not a field", "temprature", "unknown_parameter"),
        (OPEN + b'"best_of": 4' + CLOSE, "best_of is not done", "best_of", "unsupported_parameter"),
        (
            OPEN + b'"presence_penalty": 1' + CLOSE,
            "presence_penalty is not",
            "presence_penalty",
            "unsupported_parameter",
        ),
        (OPEN + b'"stream_options": {}' + CLOSE, "stream_options are for", "stream_options", None),
        (OPEN + b'"stream": true, "prompt_logprobs": 1' + CLOSE, "leave out stream", "prompt_logprobs", None),
    ],
)
def test_bad_completions_are_named(url: str, body: bytes, says: str, param: str | None, code: str | None) -> None:
    response = httpx.post(url + "/v1/completions", content=body, headers={"Content-Type": "application/json"})
    check_refusal(response, 400, says, param, code)


@pytest.mark.parametrize(
    ("changes", "says", "param"),
    [
        ({"messages": []}, "messages: ", "messages"),
        ({"messages": "hello"}, "messages: ", "messages"),
        ({"messages": [5]}, "messages[0]: ", "messages[0]"),
        ({"messages": [{"role": "king", "content": "hi"}]}, "messages[0].role: ", "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content is missing", "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "reads text", "messages[0].content"),
        (
            {"messages": [*MESSAGES, {"role": "assistant", "content": "hi"}]},
            "end with what it shall answer",
            "messages",
        ),
        ({"messages": [*MESSAGES, {"role": "system", "content": "x"}]}, "system messages stand first", "messages"),
        ({"top_logprobs": 2}, "needs logprobs", "top_logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "differ", "max_tokens"),
        ({"max_tokens": 0}, "at least 1", "max_tokens"),
        ({"max_tokens": 4095}, "exceed this server's context", "max_tokens"),
        ({"max_completion_tokens": 4095}, "exceed this server's context", "max_completion_tokens"),
        ({"tools": [{"type": "function"}]}, "tools is not done", "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format is not done", "response_format"),
        ({"messages": [{"role": "user", "content": "the " * 5000}]}, "exceed this server's context", "messages"),
    ],
)
def test_bad_chats_are_named(url: str, changes: dict[str, Any], says: str, param: str) -> None:
    body = {"model": "small", "messages": MESSAGES} | changes
    check_refusal(httpx.post(url + "/v1/chat/completions", json=body), 400, says, param)


def check_refusal(
    response: httpx.Response, status: int, says: str, param: str | None = None, code: str | None = None
) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert says in error["message"] and error["param"] == param, error
    assert code is None or error["code"] == code
    assert error["type"] == "invalid_request_error"


def test_what_changes_no_answer_is_accepted(client: openai.OpenAI) -> None:
    more: Any = {"user": "me", "metadata": {"a": "b"}, "presence_penalty": 0, "response_format": {"type": "text"}}
    seen: Any = [
        {"role": "developer", "content": [{"type": "text", "text": "the"}, {"type": "text", "text": "boat"}]},
        {"role": "user", "content": "the", "name": "ada"},
        {"role": "assistant", "content": "boat", "tool_calls": None, "refusal": None},
        *MESSAGES,
    ]
    asked: Any = {"model": "small", "seed": 1, "max_completion_tokens": 5, "extra_body": {"top_k": None}}
    plain: Any = [
        {"role": "system", "content": "the\nboat"},
        *({k: m[k] for k in ("role", "content")} for m in seen[1:]),
    ]
    answer = client.chat.completions.create(messages=seen, **asked, **more)
    other = client.chat.completions.create(messages=plain, **asked)
    assert answer.choices[0].message == other.choices[0].message and answer.usage == other.usage


def test_other_models_routes_methods_and_bodies(url: str, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="large", prompt="the")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("large")
    check_refusal(httpx.get(url + "/v1/nothing"), 404, "/v1/nothing: not found")
    check_refusal(httpx.get(url + "/v1/completions"), 405, "method not allowed")
    plain = httpx.post(url + "/v1/completions", content=OPEN + b'"n": 1}', headers={"Content-Type": "text/plain"})
    check_refusal(plain, 415, "application/json")
    large = json.dumps({"model": "small", "prompt": "x" * 5_000_000})
    headers = {"Content-Type": "application/json"}
    check_refusal(httpx.post(url + "/v1/completions", content=large, headers=headers), 413, "exceeds")
    in_parts = (large[i : i + 100_000].encode() for i in range(0, len(large), 100_000))
    check_refusal(httpx.post(url + "/v1/completions", content=in_parts, headers=headers), 413, "exceeds")


def test_a_body_that_breaks_off_is_no_mistake_of_ours(servers: tuple[Server, Server]) -> None:
    host, port = servers[0].url.removeprefix("http://").split(":")
    for end in (b"", b"{", b"{}\r\n\r\n" * 3):
        with socket.create_connection((host, int(port))) as client:
            lines = ["POST /v1/completions HTTP/1.1", "Host: a", "Content-Type: application/json", "Content-Length: 99"]
            client.sendall("\r\n".join([*lines, "", ""]).encode() + end)
    wait_until(lambda: httpx.get(servers[0].url + "/health").status_code == 200, 20)
    assert "Traceback" not in servers[0].said()


def test_models_and_health(url: str, client: openai.OpenAI) -> None:
    [only] = client.models.list().data
    assert (only.id, only.object, only.owned_by) == ("small", "model", "heedful")
    assert client.models.retrieve("small") == only
    health = httpx.get(url + "/health").json()
    assert health.pop("close_draws") >= 0 and health == {"status": "ok", "rows": 0, "asked": 0}
    assert (
        "access-control-allow-origin" not in httpx.get(url + "/health", headers={"Origin": "http://a.example"}).headers
    )


# The server behind a key.


def test_only_keys_open_a_locked_server(servers: tuple[Server, Server]) -> None:
    url = servers[1].url
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
        response = httpx.get(url + "/v1/models", headers=headers)
        check_refusal(response, 401, "give the API key", code="invalid_api_key")
        assert httpx.post(url + "/v1/completions", headers=headers).status_code == 401
    assert httpx.get(url + "/health").status_code == 200
    for key in (KEY, "other"):
        assert openai.OpenAI(base_url=url + "/v1", api_key=key).models.list().data[0].id.endswith("words")


def test_a_named_origin_is_let_in(servers: tuple[Server, Server]) -> None:
    url = servers[1].url
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin, allowed in (("http://page.example", "http://page.example"), ("http://other.example", None)):
        response = httpx.options(url + "/v1/completions", headers=asks | {"Origin": origin})
        assert response.headers.get("access-control-allow-origin") == allowed


def test_words_go_on_from_the_prompt_and_chat_needs_a_template(servers: tuple[Server, Server]) -> None:
    client = openai.OpenAI(base_url=servers[1].url + "/v1", api_key=KEY, max_retries=0)
    name = client.models.list().data[0].id
    bias = {str(TOKENIZER.convert_tokens_to_ids("w3")): 100}
    answer = client.completions.create(model=name, prompt="w1 w2", max_tokens=2, logit_bias=bias, echo=True, logprobs=0)
    assert answer.choices[0].text == "w1 w2 w3 w3"
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.text_offset == [0, 0, 2, 5, 8]
    assert logprobs.tokens == ["<bos>", "w1", " w2", " w3", " w3"]
    with pytest.raises(openai.BadRequestError, match="has no chat template"):
        client.chat.completions.create(model=name, messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="context of 100"):
        client.completions.create(model=name, prompt="w1 w2", max_tokens=98)


def test_a_server_that_is_told_to_end_answers_first(servers: tuple[Server, Server]) -> None:
    """Last, because it ends the locked server."""
    server = servers[1]
    client = openai.OpenAI(base_url=server.url + "/v1", api_key=KEY, max_retries=0)
    name = client.models.list().data[0].id
    bias = {str(TOKENIZER.eos_token_id): -100}
    asked: Any = {"model": name, "prompt": "w1", "max_tokens": 90, "logit_bias": bias, "seed": 1}
    expected = client.completions.create(**asked).choices[0].text
    parts = iter(client.completions.create(stream=True, **asked))
    text = next(parts).choices[0].text
    server.process.terminate()
    assert text + "".join(part.choices[0].text for part in parts) == expected
    assert server.process.wait(60) == 0
    assert server.said().rstrip().endswith("ended") and "Traceback" not in server.said()
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
