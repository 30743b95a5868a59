"""Every kind of server, each asked as it can be asked: the shares that come out are those that went in."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from heedful.config import InputError
from heedful.feedback.ai.calls import Limits, address_of
from heedful.feedback.ai.labeler import Outcome, share_of_first
from heedful.feedback.ai.ledger import Ledger, Spent
from heedful.feedback.ai.server import ServedModel, in_the_open, read_key
from judge_servers import NAME, Json, Judge, chance, running, spread

PROMPTS = [f"Q{n}: which is better, {n} or 2?\nPreferred Response=" for n in range(12)]
LABELS = ["1", "2"]
QUICK = Limits(tries=3, first_wait=0.01, longest_wait=0.02)


def shares(outcomes: Sequence[Outcome]) -> list[float]:
    assert [outcome.kind for outcome in outcomes] == ["ok"] * len(outcomes), outcomes
    return [share_of_first(outcome.logprobs) for outcome in outcomes]


TRUE = [chance(prompt) for prompt in PROMPTS]
SERVERS = {
    "vLLM": (("chat", "text", "logprobs", "token_ids", "echo", "structured_outputs", "many", "draws"), "token_ids"),
    "a chat": (("chat", "logprobs", "many", "draws"), "top"),
    "texts": (("text", "logprobs", "echo", "draws"), "top"),
    "one that thinks": (("chat", "logprobs", "thinks", "many", "draws"), "top"),
    "one that talks": (("chat", "logprobs", "wordy", "many", "draws"), "top"),
    "texts that think": (("text", "logprobs", "thinks", "draws"), "top"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_shares_are_the_servers_own(kind: str) -> None:
    """Its labels' pooled probabilities, to what its list leaves untold."""
    can, way = SERVERS[kind]
    judge = Judge(*can)
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK, thinking_tokens=64)
        assert model.able.way == way and model.able.thinks == ("thinks" in can) and model.model == NAME
        assert model.able.echoes == ("echo" in can and "chat" not in can)
        found = model.choose(PROMPTS, LABELS)
    assert shares(found) == pytest.approx(TRUE, abs=1e-9)
    assert len(judge.asked) == len(PROMPTS)
    sums = [sum(math.exp(x) for x in outcome.logprobs) for outcome in found]
    assert sums == pytest.approx([0.9] * len(PROMPTS))  # what went elsewhere is not the labels'
    assert [outcome.prompt_tokens for outcome in found] == [len(prompt) for prompt in PROMPTS]
    limits = {body.get("max_tokens") for body in judge.asked}
    assert limits == {64} if "thinks" in can else max(limits) <= (24 if "chat" in can else 1)


@pytest.mark.parametrize("words", [("The", " better", " one", " is"), ("Pre", "ferred", " Response", "=")])
def test_a_sentence_is_given_room_and_one_that_is_cut_is_no_label(words: tuple[str, ...]) -> None:
    """The server heeds its limit; of the place where a sentence begins 6 % are labels', and they say the opposite."""
    for said, kind in ((words, "ok"), (("Well", ",") * 20 + words, "parse")):
        with running(Judge("chat", "logprobs", "wordy", words=said)) as address, Ledger() as ledger:
            found = ServedModel(address, ledger, limits=QUICK).choose(PROMPTS, LABELS)
        assert {outcome.kind for outcome in found} == {kind}
        if kind == "ok":
            assert shares(found) == pytest.approx(TRUE, abs=1e-9)
        else:
            assert found[0].message == "its limit ended it before it named a label"


@pytest.mark.parametrize("others", [0.0, -9999.0])
def test_lists_that_are_no_probabilities_are_not_taken_for_a_feature(others: float) -> None:
    """All certain, or all impossible but one: the answers are counted as votes."""

    class Pretends(Judge):
        def listed(self, body: Json, tokens: Sequence[str], first: float) -> Json:
            told = super().listed(body, tokens, first)
            for place in told["content"]:
                for one in (place, *place["top_logprobs"]):
                    one["logprob"] = 0.0 if one["token"] == place["token"] else others
            return told

    with running(Pretends("chat", "logprobs", "draws")) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK)
        assert model.able.way == "votes" and model.told == "shares of 8 votes: answers in words (chat)"


def test_only_the_first_tokens_of_labels_are_asked_for_by_their_ids() -> None:
    judge = Judge("chat", "logprobs", "token_ids")
    with running(judge) as address, Ledger() as ledger:
        ServedModel(address, ledger, limits=QUICK).choose(PROMPTS[:1], LABELS)
    known = list(spread(0.5))
    assert [known[id] for id in judge.asked[0]["logprob_token_ids"]] == ["1", " 1", "１", "2", " 2", "２"]


def test_a_label_that_is_not_listed_is_read_from_an_echoed_prompt() -> None:
    """Of a server that lists few tokens; where it does not echo, that is an answer that cannot be read."""
    first = {PROMPTS[0]: 0.95, PROMPTS[1]: 0.5}
    for can, kinds in ((("text", "logprobs", "echo"), ["ok", "ok"]), (("text", "logprobs"), ["parse", "ok"])):
        judge = Judge(*can, first=lambda prompt: first.get(prompt, 0.5), most_listed=4)
        with running(judge) as address, Ledger() as ledger:
            model = ServedModel(address, ledger, limits=QUICK)
            found = model.choose(PROMPTS[:2], LABELS)
        assert [outcome.kind for outcome in found] == kinds
        assert share_of_first(found[1].logprobs) == pytest.approx(0.5)
        if "echo" in can:
            assert share_of_first(found[0].logprobs) == pytest.approx(0.95)
            assert found[0].prompt_tokens > 6 * len(PROMPTS[0])  # its list, then six spellings
            assert [body.get("echo", False) for body in judge.asked] == [False, False, True]
        else:
            assert "not among the likeliest" in found[0].message


@pytest.mark.parametrize("forcing", ["json_schema", "structured_outputs", "guided_choice"])
@pytest.mark.parametrize("many", [True, False])
def test_forced_choices_are_counted_as_votes(forcing: str, many: bool) -> None:
    judge = Judge("chat", "wordy", forcing, "draws", *(["many"] if many else []), first=lambda prompt: 0.75)
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK, votes=200 if many else 20)
        assert (model.able.way, model.able.forcing) == ("forced", forcing)
        assert model.told == f"shares of {model.votes} votes: choices forced by {forcing} (chat)"
        found = shares(model.choose(PROMPTS[:2], LABELS))
    assert found == pytest.approx([0.75] * 2, abs=4 * math.sqrt(0.75 * 0.25 / model.votes))
    assert len(judge.asked) == (2 if many else 2 * 20)
    assert len({str(body) for body in judge.asked}) == len(judge.asked)


def test_votes_in_words() -> None:
    judge = Judge("text", "wordy", "draws", first=lambda prompt: 0.75)
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK, votes=50)
        assert model.told == "shares of 50 votes: answers in words (text)"
        found = shares(model.choose(PROMPTS[:2], LABELS))
        assert found == pytest.approx([0.75] * 2, abs=0.25)
        assert [share * 50 for share in found] == pytest.approx([round(share * 50) for share in found])


def test_a_server_that_does_not_sample_gives_one_verdict() -> None:
    """It takes a seed, a temperature and n, and heeds none of them."""
    judge = Judge("text", first=lambda prompt: 0.75)
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK)
        assert not model.able.samples and model.told == "one verdict, no probability: answers in words (text)"
        assert shares(model.choose(PROMPTS[:2], LABELS)) == [1.0, 1.0]
    assert len(judge.asked) == 2


def test_fields_that_a_server_refuses_are_left_out() -> None:
    judge = Judge("chat", "logprobs", "modern")
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK)
        assert (model.able.length, model.able.greedy, model.able.seeded) == ("max_completion_tokens", False, False)
        assert shares(model.choose(PROMPTS, LABELS)) == pytest.approx(TRUE, abs=1e-9)
    assert set(judge.asked[0]) == {"model", "messages", "max_completion_tokens", "logprobs", "top_logprobs"}


def test_the_route_may_be_chosen_and_fields_added() -> None:
    judge = Judge("chat", "text", "logprobs")
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK, route="text", extra={"temperature": 0.3, "own": [1]})
        model.choose(PROMPTS[:1], LABELS)
        assert "(text)" in model.told
        assert (judge.asked[0]["temperature"], judge.asked[0]["own"], "prompt" in judge.asked[0]) == (0.3, [1], True)
        with pytest.raises(InputError, match="does not answer as judge-8"):
            ServedModel(address.replace("/v1", "/v2"), ledger, "judge-8", limits=QUICK)


@pytest.mark.parametrize("many", [True, False])
def test_texts_are_written_in_their_order(many: bool) -> None:
    judge = Judge("chat", "thinks", "draws", *(["many"] if many else []), first=lambda prompt: 0.5)
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK)
        found = model.write(PROMPTS[:5], 8, 0.7, 40, 3)
        again = model.write(PROMPTS[:5], 8, 0.7, 40, 3)
        other = model.write(PROMPTS[:5], 8, 0.7, 40, 4)
        [[greedy]] = model.write(PROMPTS[:1], 1, 0.0, 40, 0)
    assert [len(group) for group in found] == [8] * 5
    assert all(outcome.kind == "ok" and outcome.text in LABELS for group in found for outcome in group)
    assert len({tuple(o.text for o in group) for group in found}) > 1  # samples of different prompts differ
    assert again == found and other != found and greedy.text == "1"
    drawn = {(body["temperature"], body["seed"], body.get("n")) for body in judge.asked[:5]}
    assert (drawn == {(0.7, 3, 8)}) if many else ({seed for _, seed, _ in drawn} <= set(range(3, 11)))
    assert len(judge.asked) == (5 + 5 + 1 if many else 40 + 40 + 1 - 35)
    total = sum(outcome.new_tokens for group in found for outcome in group)
    assert total == 5 * 8 * 3  # a call's tokens are counted once


def test_an_estimate_is_what_is_asked_then() -> None:
    judge = Judge("chat", "logprobs")
    with running(judge) as address, Ledger() as ledger:
        model = ServedModel(address, ledger, limits=QUICK)
        before = model.estimate_choose(PROMPTS + PROMPTS[:3], LABELS)
        assert (before.calls, before.kept, before.new_tokens) == (12, 0, 12 * (1 + 16 + 19 // 3))
        assert before.prompt_tokens == sum(map(len, PROMPTS)) / 4  # English, until the server has counted
        spent = model.spent
        model.choose(PROMPTS[:4], LABELS)
        after = model.estimate_choose(PROMPTS, LABELS)
        assert (after.calls, after.kept) == (8, 4)
        assert after.prompt_tokens == sum(map(len, PROMPTS[4:]))  # it counts a token a character
        assert model.spent == spent.plus(Spent(4, sum(map(len, PROMPTS[:4])), 12))
        assert ledger.spent() == Spent(4, sum(map(len, PROMPTS[:4])), 12)
        assert model.estimate_write(PROMPTS, 2, 0.7, 100, 0).new_tokens == 12 * 2 * 100


def test_a_server_that_cannot_be_asked_is_named() -> None:
    with running(Judge()) as address, Ledger() as ledger:
        with pytest.raises(InputError, match="does not answer as judge-7: 404"):
            ServedModel(address, ledger, limits=QUICK)
    with Ledger() as ledger, pytest.raises(InputError, match="is it a model server"):
        ServedModel(address, ledger, limits=QUICK)  # it is gone
    with Ledger() as ledger, pytest.raises(InputError, match="no reply"):
        ServedModel(address, ledger, "m", limits=QUICK)


def test_addresses() -> None:
    assert address_of("http://host:1/") == address_of("http://host:1") == "http://host:1/v1"
    assert address_of("https://host/api/v2/") == "https://host/api/v2"
    for wrong in ("host:1", "ftp://host", "http://", "http://[::1", ""):
        with pytest.raises(InputError, match="give the server's address"):
            address_of(wrong)
    for told in ("http://:secret@host/v1", "https://host/v1?key=secret"):
        with pytest.raises(InputError, match="not in the address") as refused:
            address_of(told)
        assert "secret" not in str(refused.value)


def test_a_key_leaves_the_machine_encrypted_or_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    inside = ("http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:1/v1", "https://host/v1")
    assert in_the_open("http://host/v1", "k") and not in_the_open("http://host/v1", "")
    assert not any(in_the_open(address, "k") for address in inside)
    with Ledger() as ledger, pytest.raises(InputError):
        ServedModel("http://no-such-host.invalid/v1", ledger, key="k", limits=QUICK)
    assert "http://no-such-host.invalid/v1: the key goes there unencrypted" in caplog.text


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEEDFUL_JUDGE_KEY", raising=False)
    assert read_key() == ""
    monkeypatch.setenv("HEEDFUL_JUDGE_KEY", "one\n")
    monkeypatch.setenv("MINE", "two")
    (tmp_path / "key").write_text("three\n")
    assert [read_key(), read_key("MINE"), read_key(str(tmp_path / "key"))] == ["one", "two", "three"]
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "words").write_text("no key")
    with pytest.raises(InputError, match="neither a variable") as refused:
        read_key("sk-4711")
    assert "sk-4711" not in str(refused.value)
    for name in ("empty", "words"):
        with pytest.raises(InputError, match="holds no key, which is one word of ASCII"):
            read_key(str(tmp_path / name))
