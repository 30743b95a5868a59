"""Sampling in bulk: what comes back for each request, and where a response ends."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from heedful.config import InputError
from heedful.engine.engine import Engine
from heedful.engine.requests import Request
from heedful.engine.sample import (
    CPU_BYTES,
    LEAST_ROWS,
    MOST_ROWS,
    Sampler,
    rows_that_fit,
    score_rows,
)
from heedful.engine.spelling import Piece, Spelling
from heedful.models.load import from_scratch
from heedful.models.threads import use_threads
from heedful.text.collate import Encoded, to_rows
from small_tokenizers import byte_tokenizer
from toys import (
    BEGIN,
    END,
    FIRST,
    PAD,
    TOKENIZER,
    make_policy,
    make_reward_model,
    make_rows,
    plain_logprob,
    plain_score,
)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    use_threads(3)
    yield
    use_threads(before)


PROMPTS = [[BEGIN, FIRST], [BEGIN, FIRST, FIRST + 3, FIRST + 1], [BEGIN]]
BREAK = TOKENIZER.convert_tokens_to_ids("\n")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_each_request_gets_its_responses_side_by_side(temperature: float) -> None:
    policy = make_policy()
    sampled = Sampler(policy.decoder, TOKENIZER, 6, temperature)(PROMPTS, [5, 6, 7], [2, 1, 3])
    asked = [PROMPTS[i] for i in (0, 0, 1, 2, 2, 2)]
    assert len(sampled.text) == len(sampled.tokens) == len(sampled.finished) == len(sampled.logprob) == 6
    assert sampled.seed == (5, 5, 6, 7, 7, 7)
    for n, prompt in enumerate(asked):
        length, begin = int(sampled.rows.length[n]), len(prompt)
        row = sampled.rows.tokens[n, :length].tolist()
        assert row[:begin] == prompt and int(sampled.rows.prompt_length[n]) == begin
        assert row[begin:] == sampled.tokens[n] + [END] * bool(sampled.finished[n])
        assert sampled.text[n] == TOKENIZER.decode(sampled.tokens[n], skip_special_tokens=True)
        assert length - begin <= 6 and (sampled.finished[n] or length - begin == 6)
        logprob = plain_logprob(policy, Encoded(prompt, row[begin:]), temperature)
        torch.testing.assert_close(sampled.logprob[n, : length - begin], logprob, atol=1e-5, rtol=1e-5)
        assert (sampled.logprob[n, length - begin :] == 0).all()


def test_sampling_computes_in_the_precision_that_is_asked_for() -> None:
    policy = make_policy()
    exact, rounded = (
        Sampler(policy.decoder, TOKENIZER, 6, precision=how)(PROMPTS, [5, 6, 7]) for how in ("fp32", "bf16")
    )
    engine = Engine(policy.decoder, [END], precision="bf16")
    expected = engine.generate(
        [Request(prompt, 1, 6, seed=seed) for prompt, seed in zip(PROMPTS, (5, 6, 7), strict=True)]
    )
    for n, [completion] in enumerate(expected):
        assert rounded.logprob[n, : len(completion.logprob)].tolist() == pytest.approx(completion.logprob, abs=1e-6)
    assert not torch.equal(rounded.logprob[:, 0], exact.logprob[:, 0])


def test_equal_seeds_give_equal_responses_whatever_else_is_asked() -> None:
    sampler = Sampler(make_policy().decoder, TOKENIZER, 6)
    together = sampler(PROMPTS, [5, 6, 7])
    alone = [sampler([prompt], [seed]).tokens[0] for prompt, seed in zip(PROMPTS, (5, 6, 7), strict=True)]
    assert together.tokens == alone
    assert sampler(PROMPTS, [8, 9, 10]).tokens != alone


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_threads_side_by_side_give_what_one_gives(temperature: float, three_threads: None) -> None:
    sampler = Sampler(make_policy().decoder, TOKENIZER, 9, temperature)
    asked = PROMPTS * 40, list(range(120)), [1 + n % 4 for n in range(120)]
    together = sampler(*asked)
    use_threads(1)
    alone = sampler(*asked)
    assert together.tokens == alone.tokens and together.text == alone.text
    assert torch.equal(together.finished, alone.finished) and torch.equal(together.rows.tokens, alone.rows.tokens)
    torch.testing.assert_close(together.logprob, alone.logprob, atol=1e-5, rtol=1e-5)


def test_a_stop_text_ends_a_response_and_is_not_part_of_it() -> None:
    policy = make_policy()
    plain = Sampler(policy.decoder, TOKENIZER, 30)(PROMPTS * 8, list(range(24)))
    stopped = Sampler(policy.decoder, TOKENIZER, 30, stop=["\n"])(PROMPTS * 8, list(range(24)))
    assert any(BREAK in tokens for tokens in plain.tokens)
    for mine, theirs, finished in zip(stopped.tokens, plain.tokens, stopped.finished, strict=True):
        cut = theirs.index(BREAK) if BREAK in theirs else len(theirs)
        assert mine == theirs[:cut] and (finished or BREAK not in theirs)


def test_stop_texts_are_found_within_and_across_tokens() -> None:
    """Every piece of a known response: its text ends where the server would end it, and its tokens are that text's."""
    tokenizer = byte_tokenizer()
    shape = {"model_type": "gpt2", "vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = from_scratch(shape | {"n_positions": 64, "initializer_range": 0.5, "eos_token_id": tokenizer.eos_token_id})
    letters = {id for text, id in tokenizer.get_vocab().items() if text.strip("ĠtheboaÃ©") == ""}
    never = tuple((id, -100.0) for id in range(len(tokenizer)) if id not in letters)
    asked = {"temperature": 0.8, "max_new_tokens": 24, "bias": never}
    plain = Sampler(model, tokenizer, 24)
    [group] = plain.generate([Request([5], 3, seed=1, **asked)])
    text = Spelling(tokenizer).text(group[1].tokens)
    cuts = set()
    for start, length in ((2, 1), (3, 2), (5, 4), (9, 3), (12, 1)):
        stop = text[start : start + length]
        sampler = Sampler(model, tokenizer, 24, stop=["never to be seen", stop])
        [found] = sampler.generate([Request([5], 3, seed=1, stop=sampler.stop, **asked)])
        for one, whole in zip(found, group, strict=True):
            full = Spelling(tokenizer).text(whole.tokens)
            before = full.split(stop)[0]
            assert one.piece is not None and one.piece.text == before and one.finished == (stop in full)
            assert one.tokens == whole.tokens[: len(one.tokens)] and one.logprob == whole.logprob[: len(one.tokens)]
            assert sampler.spelling is not None and sampler.spelling.text(sampler.response(one)) == before
            assert stop not in full or stop in Spelling(tokenizer).text(one.tokens)
            cuts.add(sampler.response(one) == one.tokens[: len(sampler.response(one))])
    assert cuts == {True, False}  # some cut between tokens, some within one


def test_a_response_ends_with_the_token_that_completes_a_stop_text() -> None:
    """In a session too, where its row is free at once; an engine that cannot spell refuses."""
    request = Request([BEGIN, FIRST], 1, 30, seed=2, bias=((BREAK, 100.0),), stop=("\n",))
    model = make_policy().decoder
    engine = Engine(model, [END], spelling=Spelling(TOKENIZER))
    with engine.session() as session:
        session.add(0, request)
        session.step()
        assert [token.last for token in session.newest()] == [True]
        [(_, _, completion)] = session.collect()
        assert not session.busy
    assert completion.tokens == [BREAK] and completion.finished and completion.piece == Piece("", [], "stop")
    with pytest.raises(InputError, match="prompt 0: a stop text"):
        Engine(model, [END]).generate([request])
    with pytest.raises(InputError, match="prompt 0: a stop text"):
        engine.generate([replace(request, stop=("",))])


@pytest.mark.parametrize("max_tokens", [1, 30, 1000])
def test_scores_come_in_the_rows_order(max_tokens: int) -> None:
    model, rows = make_reward_model(), make_rows(9)
    found = score_rows(model, to_rows(rows, PAD), max_tokens, "fp32")
    plain = torch.stack([plain_score(model, row) for row in rows])
    torch.testing.assert_close(found, plain.detach(), atol=1e-5, rtol=1e-5)


def test_rows_are_as_many_as_their_memory_allows() -> None:
    model = make_policy().decoder
    config = model.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4  # bytes in fp32
    assert rows_that_fit(model, 10, 1) == MOST_ROWS
    tokens = CPU_BYTES // token // 100
    assert rows_that_fit(model, tokens, 1) == 100 and rows_that_fit(model, tokens, 2) == 50
    assert rows_that_fit(model, 10**9, 1) == LEAST_ROWS
