"""Prompts that people let a server keep: which, in what form, and that intake reads them."""

import time
from pathlib import Path
from typing import Any

import openai
import pytest

from heedful.engine.engine import Engine
from heedful.engine.spelling import Spelling
from heedful.models.load import load_decoder, load_tokenizer
from heedful.serve.app import make_app
from heedful.serve.collect import Collector, as_prompt
from heedful.serve.errors import ApiError
from heedful.serve.requests import Message
from heedful.serve.served import Served
from heedful.store.database import open_store
from heedful.store.intake import read_prompts
from heedful.store.pools import prompts_with_pool
from small_server import save_small
from small_tokenizers import byte_tokenizer
from threaded import threaded
from tiny import cli, refuse

Talk = list[tuple[Any, str]]


@pytest.fixture
def served(tmp_path: Path) -> Served:
    folder = save_small(tmp_path / "m", byte_tokenizer(), chat=True)
    model, tokenizer = load_decoder(folder), load_tokenizer(folder)
    return Served("m", Engine(model, [], 4), tokenizer, Spelling(tokenizer), 4096, int(time.time()))


def said(talk: Talk) -> list[Message]:
    return [Message(role=role, content=text) for role, text in talk]


@pytest.mark.parametrize(
    ("talk", "text", "examples", "use_case"),
    [
        ([("user", "a")], "a", [], "other"),
        ([("user", "a"), ("assistant", "b"), ("user", "c")], "c", [("a", "b")], "chat"),
        (
            [("user", "a"), ("assistant", "b"), ("assistant", "b2"), ("user", "c"), ("assistant", "d"), ("user", "e")],
            "e",
            [("a", "b\n\nb2"), ("c", "d")],
            "chat",
        ),
        ([("assistant", "hello"), ("user", "a"), ("user", "b")], "a\n\nb", [], "other"),
        ([("system", "s")], "s", [], "other"),
        ([("user", "a"), ("system", "s"), ("user", "b")], "a\n\ns\n\nb", [], "other"),
    ],
)
def test_a_chat_is_a_prompt_with_the_exchanges_before_it(
    talk: Talk, text: str, examples: list[tuple[str, str]], use_case: str
) -> None:
    assert as_prompt(said(talk)) == {"text": text, "examples": examples, "use_case": use_case}


@pytest.mark.parametrize(
    ("talk", "text", "examples"),
    [
        ([("system", "s"), ("user", "a")], "a", []),
        ([("system", "s"), ("assistant", "hello"), ("user", "a")], "a", []),
        ([("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")], "c", [("a", "b")]),
    ],
)
def test_what_instructs_the_model_stands_apart(talk: Talk, text: str, examples: list[tuple[str, str]]) -> None:
    found = as_prompt([*said([("developer", "be kind")]), *said(talk)])
    use_case = "chat" if examples else "other"
    assert found == {"text": text, "examples": examples, "use_case": use_case, "system": "be kind\n\ns"}


@pytest.mark.parametrize(
    "talk", [[("user", "a"), ("assistant", "b"), ("user", " ")], [("system", "s"), ("user", " ")], [("system", "")]]
)
def test_an_empty_prompt_is_not_kept(talk: Talk) -> None:
    with pytest.raises(ApiError, match="empty"):
        as_prompt(said(talk))


def test_chats_under_one_long_instruction_are_all_kept(served: Served, tmp_path: Path) -> None:
    path, store = tmp_path / "asked.jsonl", tmp_path / "store.db"
    system = "You answer as the harbour master of a small town would. " * 6
    with threaded(make_app(served, 4, collector=Collector(path)), "on") as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client:
            for user, text in (
                ("ada", "where is the boat?"),
                ("kim", "who has the key?"),
                ("bob", "WHERE is the boat?"),
            ):
                turns: Any = [{"role": "system", "content": system}, {"role": "user", "content": text}]
                client.chat.completions.create(model="m", max_tokens=2, messages=turns, user=user, store=True)
    shown = cli("prompts", "import", path, "--store", store).stdout
    assert "3 prompts read, 2 kept" in shown and "an earlier prompt: 1" in shown
    with open_store(store) as opened:
        stored = {prompt.user: prompt.text for prompt, _ in prompts_with_pool(opened)}
    assert stored == {"ada": f"{system}\n\nwhere is the boat?", "kim": f"{system}\n\nwho has the key?"}


def test_what_is_refused_leaves_no_trace(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"
    endless = {str(id): -100 for id in served.tokenizer.all_special_ids}
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "the boat"}], "store": True}
    with threaded(make_app(served, 0, collector=Collector(path)), "on") as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client:
            ask = client.chat.completions.create
            with ask(user="ada", n=4, stream=True, max_tokens=3000, logit_bias=endless, **asked) as many:
                next(iter(many))
                with pytest.raises(openai.RateLimitError):
                    ask(user="eve", max_tokens=2, **asked)
            with pytest.raises(openai.BadRequestError, match="more than the 4"):
                ask(user="eve", n=5, **asked)
    assert [prompt.user for prompt in read_prompts(path)] == ["ada"]


def test_a_prompt_that_cannot_be_written_ends_its_request(served: Served, tmp_path: Path) -> None:
    with threaded(make_app(served, 0, collector=Collector(Path("/dev/full"))), "on") as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client:
            for _ in range(2):  # the second finds the rows free again
                with pytest.raises(openai.InternalServerError, match="its log says why"):
                    client.chat.completions.create(
                        model="m", messages=[{"role": "user", "content": "the boat"}], user="ada", store=True, n=4
                    )


def test_only_those_who_agree_are_kept_and_intake_takes_them_in(served: Served, tmp_path: Path) -> None:
    path, store = tmp_path / "collected" / "asked.jsonl", tmp_path / "store.db"
    turns: Any = [
        {"role": "user", "content": "tell me of the boat, jo@ex.com"},
        {"role": "assistant", "content": "it is red"},
        {"role": "user", "content": "and the café?"},
    ]
    asked: Any = {"model": "m", "max_tokens": 3}
    with threaded(make_app(served, 4, collector=Collector(path)), "on") as url:
        with openai.OpenAI(base_url=url + "/v1", api_key="x", max_retries=0) as client:
            ask = client.chat.completions.create
            ask(messages=turns, user="ada", store=True, **asked)
            ask(messages=turns[:1], user="eve", **asked)  # did not agree
            ask(messages=turns[:1], user="bob", store=False, **asked)
            list(ask(messages=[{"role": "user", "content": "stream on"}], user="kim", store=True, stream=True, **asked))
            for wrong in ({"messages": turns}, {"messages": turns, "user": ""}):
                with pytest.raises(openai.BadRequestError, match="needs user"):
                    ask(store=True, **wrong, **asked)
            with pytest.raises(openai.BadRequestError, match="context"):  # was not answered, so it is not kept
                long: Any = [{"role": "user", "content": "the " * 5000}]
                ask(messages=long, user="ada", store=True, **asked)
    kept = read_prompts(path)
    assert [(prompt.user, prompt.text, prompt.use_case) for prompt in kept] == [
        ("ada", "and the café?", "chat"),
        ("kim", "stream on", "other"),
    ]
    wanted: Any = (*("--round", 2, "--pool", "ppo"), *("--valid", 0, "--test", 0))
    assert cli("prompts", "import", path, "--store", store, *wanted).exit_code == 0
    with open_store(store) as opened:
        stored = {prompt.user: (prompt, pool) for prompt, pool in prompts_with_pool(opened, round=2)}
    assert {user: pool for user, (_, pool) in stored.items()} == {"ada": "ppo", "kim": "ppo"}
    assert stored["ada"][0].examples == (("tell me of the boat, [email]", "it is red"),)


def test_a_server_that_keeps_nothing_refuses_consent(served: Served) -> None:
    with threaded(make_app(served, 4), "on") as url, openai.OpenAI(base_url=url + "/v1", api_key="x") as client:
        with pytest.raises(openai.BadRequestError, match="keeps no prompts"):
            client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "the boat"}], store=True, user="ada"
            )


def test_a_file_that_cannot_be_written_is_named(served: Served, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "m"
    assert f"--collect {tmp_path}" in refuse("serve", folder, "--port", 0, "--collect", tmp_path)
    assert "--collect" in refuse("serve", folder, "--port", 0, "--collect", tmp_path / "file" / "x.jsonl")
