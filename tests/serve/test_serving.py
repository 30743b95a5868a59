"""What is loaded, what cannot be served, and a server whose engine fails."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from heedful.cli.serve import bind
from heedful.cli.serving import load
from heedful.engine.engine import Engine
from heedful.engine.slots import Slots
from heedful.engine.spelling import Spelling
from heedful.models.checkpoint import save_policy
from heedful.models.load import load_decoder, load_tokenizer
from heedful.serve.app import make_app
from heedful.serve.requests import ChatRequest
from heedful.serve.served import Served, end_tokens
from heedful.text.format import PromptFormat, prompt_tokens
from heedful.types import Prompt
from processes import wait_until
from small_server import save_small
from small_tokenizers import byte_tokenizer
from threaded import threaded
from tiny import refuse
from toys import BEGIN, END, TOKENIZER, make_policy

OPTIONS: dict[str, Any] = {
    "name": "m",
    "max_batch": 2,
    "max_context": None,
    "chat_template": None,
    "dtype": "float32",
    "device": "cpu",
}


def idle(url: str) -> bool:
    health = httpx.get(url + "/health").json()
    return (health["status"], health["rows"], health["asked"]) == ("ok", 0, 0)


def served_from(folder: Path, **changes: Any) -> Served:
    return load(str(folder), **OPTIONS | changes)


def test_a_policy_is_asked_as_its_run_asked_it(tmp_path: Path) -> None:
    """The chat template is the run's own format: the tokens are those of training."""
    format = PromptFormat(template="w0 {prompt} w1", example="{prompt} w2 {response} w3 ")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({"format": format.model_dump()}), encoding="utf-8")
    save_policy(tmp_path / "run" / "ppo" / "model", make_policy(), TOKENIZER, {})
    served = served_from(tmp_path / "run" / "ppo" / "model")
    messages = [("user", "w4"), ("assistant", "w5 w6"), ("user", "w7")]
    asked = ChatRequest(model="m", messages=[{"role": role, "content": text} for role, text in messages])  # type: ignore[list-item]
    prompt = Prompt(id="p", text="w7", user="u", examples=(("w4", "w5 w6"),))
    ids = prompt_tokens(prompt, format, TOKENIZER)
    assert ids[0] == BEGIN and served.chat(asked).prompts == [ids]
    [request] = served.chat(asked).job.requests
    assert request.prompt == ids and request.max_new_tokens == served.context - len(ids)


def test_the_models_own_end_tokens_count_too(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "m", TOKENIZER, chat=False)
    settings = json.loads((folder / "generation_config.json").read_text())
    more = [END, 5, 6, 10**6]  # the last is no token of this model
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": more}))
    assert end_tokens(load_decoder(folder), TOKENIZER) == sorted([END, 5, 6])


def test_a_template_of_ones_own_and_half_precision(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "m", byte_tokenizer(), chat=False, context=64)
    (tmp_path / "t.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8")
    served = served_from(folder, chat_template=tmp_path / "t.jinja", dtype="bfloat16", max_context=50)
    assert served.context == 50 and str(served.engine.model.dtype) == "torch.bfloat16"
    with threaded(make_app(served, 4), "on") as url, openai.OpenAI(base_url=url + "/v1", api_key="x") as client:
        asked: Any = {"model": "m", "messages": [{"role": "user", "content": "the boat"}], "seed": 1}
        first, second = (client.chat.completions.create(logprobs=True, **asked) for _ in range(2))
    assert first.choices == second.choices and first.usage is not None and first.usage.total_tokens <= 50


def test_what_cannot_be_served_is_one_line(tmp_path: Path) -> None:
    folder = save_small(tmp_path / "m", byte_tokenizer(), chat=False)
    assert "no such folder" in refuse("serve", tmp_path / "none", "--port", 0)
    assert "cannot be read" in refuse("serve", folder, "--port", 0, "--chat-template", tmp_path / "none")
    assert "--device nowhere" in refuse("serve", folder, "--port", 0, "--device", "nowhere")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "choose another --host or --port" in refuse("serve", folder, "--port", taken.getsockname()[1])
    assert "choose another --host" in refuse("serve", folder, "--host", "no.such.host.invalid")
    with bind("127.0.0.1", 0) as loading:  # as a server that still loads its model
        assert "choose another --host or --port" in refuse("serve", folder, "--port", loading.getsockname()[1])


@pytest.fixture
def served(tmp_path: Path) -> Served:
    folder = save_small(tmp_path / "m", byte_tokenizer(), chat=True)
    model, tokenizer = load_decoder(folder), load_tokenizer(folder)
    return Served("m", Engine(model, [], 4), tokenizer, Spelling(tokenizer), 4096, int(time.time()))


def test_a_failure_is_told_and_survived(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted where memory would run out: all who were being answered hear of it, the next are answered."""
    step, calls = Slots.step, 0

    def failing(slots: Slots) -> None:
        nonlocal calls
        calls += 1
        if calls == 20:
            raise RuntimeError("planted")
        step(slots)

    monkeypatch.setattr(Slots, "step", failing)
    body = {"model": "m", "prompt": "the boat", "max_tokens": 60, "seed": 1}
    with threaded(make_app(served, 4), "on") as url:
        text = ""
        with httpx.stream("POST", url + "/v1/completions", json=body | {"stream": True}) as response:
            text = "".join(response.iter_text())
        last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["error"]["type"] == "server_error" and "[DONE]" not in text
        whole = httpx.post(url + "/v1/completions", json=body)
        assert whole.status_code == 200 and whole.json()["usage"]["completion_tokens"] == 60
        calls = 15
        failed = httpx.post(url + "/v1/completions", json=body)
        assert failed.status_code == 500 and failed.json()["error"]["type"] == "server_error"
        assert idle(url)
        assert httpx.post(url + "/v1/completions", json=body).json()["choices"] == whole.json()["choices"]


def test_each_of_several_prompts_is_spelled_as_if_alone(tmp_path: Path) -> None:
    """Behind an empty prompt a response begins its text, behind words it goes on: each as asked for alone."""
    words = served_from(save_small(tmp_path / "words", TOKENIZER, chat=False))
    asked: Any = {
        "model": "m",
        "max_tokens": 3,
        "seed": 1,
        "logit_bias": {str(TOKENIZER.convert_tokens_to_ids("w3")): 100},
    }
    with threaded(make_app(words, 4), "on") as url, openai.OpenAI(base_url=url + "/v1", api_key="x") as client:
        texts = [
            [choice.text for choice in client.completions.create(prompt=prompt, **asked).choices]
            for prompt in ("", "w1", ["", "w1"], ["w1", ""])
        ]
    assert texts == [["w3 w3 w3"], [" w3 w3 w3"], ["w3 w3 w3", " w3 w3 w3"], [" w3 w3 w3", "w3 w3 w3"]]


def test_logits_that_are_no_numbers_cost_one_client_its_answer(served: Served) -> None:
    """Planted in one token's embedding: its client hears of it, all others are answered as if it had not asked."""
    bad = served.tokenizer("z", add_special_tokens=False)["input_ids"]
    served.engine.model.get_input_embeddings().weight.data[bad] = float("nan")
    never = {str(id): -100 for id in (*bad, *served.tokenizer.all_special_ids)}
    body = {"model": "m", "prompt": "the boat", "max_tokens": 1500, "seed": 1, "logit_bias": never}
    with threaded(make_app(served, 8), "on") as url, ThreadPoolExecutor(2) as pool:

        def ask(**changes: Any) -> httpx.Response:
            return httpx.post(url + "/v1/completions", json=body | changes, timeout=60)

        others = [pool.submit(ask, seed=seed) for seed in (1, 2)]
        wait_until(lambda: httpx.get(url + "/health").json()["rows"] == 2)
        for wrong in ({"prompt": ["a", "z"]}, {"prompt": "z", "n": 2}):
            response = ask(**wrong)
            assert response.status_code == 500 and "logits are not finite" in response.json()["error"]["message"]
        with httpx.stream("POST", url + "/v1/completions", json=body | {"prompt": "z", "stream": True}) as events:
            assert "logits are not finite" in "".join(events.iter_text())
        assert (
            ask(temperature=1e-39, max_tokens=9).json()["choices"] == ask(temperature=0, max_tokens=9).json()["choices"]
        )
        answers = [other.result() for other in others]
        wait_until(lambda: idle(url))
        for seed, answer in zip((1, 2), answers, strict=True):
            assert answer.status_code == 200 and answer.json()["choices"] == ask(seed=seed).json()["choices"]


def test_a_mistake_of_ours_is_told_in_the_apis_form(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Served, "complete", lambda *_: 1 / 0)
    with threaded(make_app(served, 4), "on") as url:
        response = httpx.post(url + "/v1/completions", json={"model": "m", "prompt": "the"})
    assert response.status_code == 500 and response.json()["error"]["type"] == "server_error"


def test_a_stream_that_is_full_of_nothing_still_ends(served: Served) -> None:
    """Every text is held back as a stop text's beginning until the end shows that it was none."""
    boat = served.tokenizer("b", add_special_tokens=False)["input_ids"]
    with threaded(make_app(served, 4), "on") as url, openai.OpenAI(base_url=url + "/v1", api_key="x") as client:
        bias = {str(boat[0]): 100}
        parts = client.completions.create(
            model="m", prompt="the", max_tokens=9, stop="b" * 10, stream=True, logit_bias=bias
        )
        found = [part.choices[0] for part in parts]
    assert [(choice.text, choice.finish_reason) for choice in found] == [("b" * 9, "length")]


def test_short_answers_do_not_wait_for_longer_ones() -> None:
    """Without the option an answer in two parts takes 40 ms more: its second part waits for the first one's receipt."""
    with bind("127.0.0.1", 0) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            accepted.close()
