"""Requests that come and go: tokens as they are made, rows freed at once, odds and biases, nobody disturbed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.config import InputError
from heedful.engine import engine as engine_module
from heedful.engine import odds as odds_module
from heedful.engine import slots
from heedful.engine.engine import Engine, Session
from heedful.engine.slots import Completion, NewToken, Request
from small_models import VOCAB, small_model

END = 2
MODEL = small_model("mistral").double()
MODELS = {"mistral": MODEL, "gemma3_text": small_model("gemma3_text").double()}  # every layer, and some, with a window


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return torch.randint(3, VOCAB, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def alone(request: Request, ends: tuple[int, ...] = (END,), family: str = "mistral") -> list[Completion]:
    return Engine(MODELS[family], ends).generate([request])[0]


def run_down(session: Session) -> tuple[dict[tuple[int, int], list[NewToken]], dict[tuple[int, int], Completion]]:
    tokens: dict[tuple[int, int], list[NewToken]] = {}
    finished = {}
    while session.busy:
        session.step()
        for token in session.newest():
            tokens.setdefault((token.order, token.sample), []).append(token)
        finished |= {(order, sample): completion for order, sample, completion in session.collect()}
    return tokens, finished


@settings(deadline=None, max_examples=25)
@given(
    asked=st.lists(
        st.tuples(st.integers(1, 20), st.integers(1, 3), st.integers(1, 12), st.integers(0, 9)), min_size=1, max_size=8
    ),
    gone=st.dictionaries(st.integers(0, 7), st.integers(0, 14), max_size=4),
    max_rows=st.integers(1, 6),
    family=st.sampled_from(sorted(MODELS)),
)
def test_whoever_comes_and_goes_each_gets_what_it_gets_alone(
    asked: list[tuple[int, int, int, int]], gone: dict[int, int], max_rows: int, family: str
) -> None:
    """Requests join at given steps and some are cancelled at others; the rest are answered as if alone."""
    requests = [
        Request(prompt_of(length, i), k, n, temperature=i % 3 / 2, seed=i) for i, (length, k, n, _) in enumerate(asked)
    ]
    tokens: dict[tuple[int, int], list[int]] = {}
    completions: dict[tuple[int, int], Completion] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "BLOCK", 4)
        patch.setattr(engine_module, "FIRST_ROWS", 1)
        with Engine(MODELS[family], [END], max_rows=max_rows).session() as session:
            step = 0
            while session.busy or step <= max([when for *_, when in asked]):
                for i, (*_, when) in enumerate(asked):
                    if when == step:
                        session.add(i, requests[i])
                for i in (i for i, when in gone.items() if when == step):
                    session.cancel(i)
                if session.busy:
                    session.step()
                    for token in session.newest():
                        tokens.setdefault((token.order, token.sample), []).append(token.token)
                    completions |= {(order, sample): found for order, sample, found in session.collect()}
                step += 1
            assert session.alive == 0
    for i, request in enumerate(requests):
        for k, expected in enumerate(alone(request, family=family)):
            if i not in gone:
                assert completions[i, k].tokens == tokens[i, k] == expected.tokens
                assert completions[i, k].logprob == pytest.approx(expected.logprob, abs=1e-10)
                assert completions[i, k].finished == expected.finished
            else:
                assert tokens.get((i, k), []) == expected.tokens[: len(tokens.get((i, k), []))]


def test_the_last_token_says_so_and_an_end_token_too() -> None:
    with Engine(MODEL, [END]).session() as session:
        for seed in range(20):
            session.add(seed, Request(prompt_of(5), 1, 9, seed=seed))
        tokens, finished = run_down(session)
    assert {completion.finished for completion in finished.values()} == {True, False}
    for who, said in tokens.items():
        assert [token.last for token in said] == [False] * (len(said) - 1) + [True]
        assert [token.ends for token in said] == [False] * (len(said) - 1) + [finished[who].finished]


def test_a_cancelled_row_is_free_at_once_and_its_place_is_taken() -> None:
    first, second, third = (Request(prompt_of(6, i), 1, 20, seed=i) for i in range(3))
    with Engine(MODEL, [], max_rows=2).session() as session:
        for i, request in enumerate((first, second, third)):
            session.add(i, request)
        for _ in range(4):
            session.step()
            session.collect()
        assert session.alive == 2
        session.cancel(0)
        assert session.alive == 1
        session.step()
        assert session.alive == 2 and [token.order for token in session.newest()] == [2]
        session.collect()
        _, finished = run_down(session)
    assert {order for order, _ in finished} == {1, 2}
    assert finished[1, 0].tokens == alone(second, ())[0].tokens
    assert finished[2, 0].tokens == alone(third, ())[0].tokens


def test_one_sample_may_leave_and_its_sisters_stay() -> None:
    request = Request(prompt_of(6), 3, 10, seed=1)
    with Engine(MODEL, []).session() as session:
        session.add(7, request)
        session.step()
        session.cancel(7, 1)
        session.collect()
        _, finished = run_down(session)
    expected = alone(request, ())
    assert {sample: c.tokens for (_, sample), c in finished.items()} == {k: expected[k].tokens for k in (0, 2)}


def test_prompts_that_come_without_end_do_not_stop_those_before_them() -> None:
    with Engine(MODEL, [], max_rows=4).session() as session:
        session.add(0, Request(prompt_of(6), 1, 12))
        done, order = False, 0
        while not done:
            order += 1
            session.add(order, Request(prompt_of(3), 1, 1, seed=order))
            session.step()
            done = any(who == 0 for who, _, _ in session.collect())
            assert order < 30


def test_a_request_of_many_samples_does_not_hold_up_those_behind_it() -> None:
    """It takes the rows there are, and the next one comes when its last sample has a row, not when all had one."""
    with Engine(MODEL, [], max_rows=4).session() as session:
        session.add(0, Request(prompt_of(6), 1, 30))
        session.step()
        session.collect()
        session.add(1, Request(prompt_of(5, 1), 4, 3, seed=1))
        session.add(2, Request(prompt_of(3, 2), 1, 2, seed=2))
        _, finished = run_down(session)
    assert [c.tokens for c in alone(Request(prompt_of(5, 1), 4, 3, seed=1), ())] == [
        finished[1, k].tokens for k in range(4)
    ]
    order = list(finished)
    assert order[-1] == (0, 0) and set(order[:5]) == {(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)}
    assert session._slots._kept is None


def test_a_request_that_leaves_takes_its_waiting_samples_along() -> None:
    with Engine(MODEL, [], max_rows=2).session() as session:
        session.add(0, Request(prompt_of(5), 5, 9))
        session.add(1, Request(prompt_of(3, 1), 2, 4, seed=1))
        session.step()
        session.collect()
        session.cancel(0)
        assert session._slots._kept is None and session.alive == 0
        _, finished = run_down(session)
    assert [finished[1, k].tokens for k in range(2)] == [
        c.tokens for c in alone(Request(prompt_of(3, 1), 2, 4, seed=1), ())
    ]


def test_storage_grows_with_what_is_in_use() -> None:
    """A long prompt in a session for many rows takes the room of a few."""
    with Engine(MODEL, [], max_rows=512).session() as session:
        session.add(0, Request(prompt_of(40), 1, 4))
        session.step()
        cache = session._slots._cache
        assert cache.rows == engine_module.FIRST_ROWS
        session.collect()
        session.add(1, Request(prompt_of(3), 9, 4))
        session.step()  # nobody is admitted twice on end
        session.collect()
        session.step()
        assert 10 <= cache.rows <= 20 and cache.key[0].shape[0] == cache.rows
        run_down(session)


def test_odds_are_the_models_own() -> None:
    """At temperature 1 and before bias and truncation, whatever the request samples by; also for the prompt."""
    biased = Request(prompt_of(9), 2, 6, 0.4, top_k=3, seed=2, bias=((5, 4.0),), logprobs=4, prompt_logprobs=2)
    greedy = Request(prompt_of(30, 1), 1, 6, 0.0, logprobs=0)
    silent = Request(prompt_of(5, 2), 1, 6, seed=4)
    for request, found in zip(
        (biased, greedy, silent), Engine(MODEL, []).generate([biased, greedy, silent]), strict=True
    ):
        for completion in found:
            whole = request.prompt + completion.tokens
            with torch.no_grad():
                expected = MODEL(input_ids=torch.tensor([whole]), use_cache=False).logits[0].log_softmax(-1)
            start = len(request.prompt)
            checks = [(completion.odds, request.logprobs, start), (completion.prompt_odds, request.prompt_logprobs, 1)]
            for odds, number, first in checks:
                if number is None:
                    assert odds == []
                    continue
                assert len(odds) == (len(completion.tokens) if first == start else start - 1)
                for t, one in enumerate(odds, first):
                    row = expected[t - 1]
                    assert one.logprob == pytest.approx(row[whole[t]].item(), abs=1e-9)
                    assert one.rank == (row > row[whole[t]] + 1e-12).sum().item() + 1
                    top = row.topk(number) if number else None
                    assert [token for token, _ in one.likeliest] == (top.indices.tolist() if top else [])
                    assert [p for _, p in one.likeliest] == pytest.approx(top.values.tolist() if top else [], abs=1e-9)


def test_a_prompts_odds_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(prompt_of(20), 1, 1, prompt_logprobs=3)
    [whole] = alone(request)
    monkeypatch.setattr(odds_module, "MAX_LOGITS", 3 * VOCAB)
    [pieces] = alone(request)
    assert [odds.rank for odds in pieces.prompt_odds] == [odds.rank for odds in whole.prompt_odds]
    for one, other in zip(pieces.prompt_odds, whole.prompt_odds, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-12)


def test_a_bias_moves_the_draws_of_its_own_row_only() -> None:
    plain = Request(prompt_of(6), 200, 1, seed=3)
    certain = Request(prompt_of(6), 200, 1, seed=3, bias=((17, 100.0),))
    never = Request(prompt_of(6), 200, 1, seed=3, bias=((alone(plain)[0].tokens[0], -math.inf),))
    mixed = Engine(MODEL, []).generate([plain, certain, never])
    assert {c.tokens[0] for c in mixed[1]} == {17}
    assert never.bias[0][0] not in {c.tokens[0] for c in mixed[2]}
    assert [c.tokens for c in mixed[0]] == [c.tokens for c in alone(plain)]
    longer = Request(prompt_of(6), 2, 8, bias=((17, 100.0),))  # in steps as in the prefill
    assert all(c.tokens == [17] * 8 for c in alone(longer))


def test_a_prompt_that_fills_the_context_is_scored_without_an_answer() -> None:
    context = MODEL.config.max_position_embeddings
    [only] = alone(Request(prompt_of(context), 1, 0, prompt_logprobs=0))
    assert only.tokens == [] and not only.finished and len(only.prompt_odds) == context - 1
    with pytest.raises(InputError, match="max_new_tokens must be at least 1"):
        alone(Request(prompt_of(3), 1, 0))
    with pytest.raises(InputError, match="a bias is for a token outside"):
        alone(Request(prompt_of(3), 1, 1, bias=((VOCAB, 1.0),)))
