"""Sampling in bulk: what comes back for each request, and where a response ends."""

from collections.abc import Iterator

import pytest
import torch

from heedful.config import InputError
from heedful.engine.sample import (
    CPU_BYTES,
    LEAST_ROWS,
    MOST_ROWS,
    Sampler,
    rows_that_fit,
    score_rows,
    tokens_beginning,
)
from heedful.models.threads import use_threads
from heedful.text.collate import Encoded, to_rows
from heedful.text.tokenizer import word_tokenizer
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


def test_a_line_break_is_found_however_the_tokenizer_writes_it() -> None:
    assert tokens_beginning(TOKENIZER, "\n") == [BREAK]
    tokenizer = byte_tokenizer()
    assert "\n" not in tokenizer.get_vocab()
    assert tokenizer("\n", add_special_tokens=False)["input_ids"] == tokens_beginning(tokenizer, "\n")
    with pytest.raises(InputError, match="no token of the tokenizer begins with"):
        tokens_beginning(word_tokenizer(["a"]), "\n")


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
