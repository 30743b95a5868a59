"""Draws follow the exact probabilities, and depend on nothing but the row's own logits, seed and position."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.engine.draw import COLDEST, Sampling, draw, sampling, stream_key, truncate, uniforms


def same_for(n: int, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Sampling:
    return sampling(torch.full((n,), temperature), torch.full((n,), top_k), torch.full((n,), top_p))


def grid(n: int) -> torch.Tensor:
    """n numbers that divide (0, 1) evenly."""
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_an_even_grid_of_uniforms_gives_the_exact_distribution(temperature: float) -> None:
    logits = torch.randn(17, generator=torch.Generator().manual_seed(0)) * 3
    n = 20000
    drawn = draw(logits.expand(n, -1), same_for(n, temperature), grid(n))
    share = torch.bincount(drawn.token, minlength=17) / n
    torch.testing.assert_close(share, (logits / temperature).softmax(0), atol=1.5 / n, rtol=0)
    expected = (logits / temperature).log_softmax(0)[drawn.token]
    torch.testing.assert_close(drawn.logprob, expected, atol=1e-5, rtol=1e-5)


def test_hashed_uniforms_are_uniform_and_independent() -> None:
    keys = torch.tensor([stream_key(seed, sample) for seed in range(40) for sample in range(25)])
    u = uniforms(keys[:, None], torch.arange(50))
    assert u.unique().numel() == u.numel()
    n = u.numel()
    assert 0 < u.min() < 1e-3 and 1 - 1e-3 < u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * n)
    counts = torch.histc(u.float(), 64, 0, 1).double()
    assert ((counts - n / 64) ** 2 / (n / 64)).sum() < 63 + 5 * math.sqrt(2 * 63)
    centred = u - 0.5
    neighbours = [(centred[:, 1:], centred[:, :-1]), (centred[1:], centred[:-1])]
    for one, two in neighbours:
        assert abs((one * two).mean() * 12) < 4 / math.sqrt(one.numel())


def test_known_hash() -> None:
    """splitmix64 with seed 0: its first outputs as published with the reference implementation."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    u = uniforms(torch.zeros(3, dtype=torch.int64), torch.arange(3))
    assert [int(x * 2**50) for x in u.tolist()] == [x >> 14 for x in published]


def test_greedy_rows_take_the_likeliest_at_temperature_one() -> None:
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(0))
    temperature = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.0, 1.0])
    drawn = draw(logits, sampling(temperature, torch.zeros(6, dtype=torch.int64), torch.ones(6)), grid(6))
    greedy = temperature == 0
    assert torch.equal(drawn.token[greedy], logits.argmax(-1)[greedy])
    logprob = (logits / torch.where(greedy, 1.0, temperature)[:, None]).log_softmax(-1)
    torch.testing.assert_close(drawn.logprob, logprob.gather(1, drawn.token[:, None]).squeeze(1))


def naive_kept(probability: torch.Tensor, top_k: int, top_p: float) -> set[int]:
    order = sorted(range(len(probability)), key=lambda i: (-probability[i].item(), i))
    kept, total = [], 0.0
    for i in order[: top_k or None]:
        if kept and total >= top_p:
            break
        kept.append(i)
        total += probability[i].item()
    return set(kept)


@given(
    values=st.lists(st.integers(0, 6), min_size=1, max_size=9).filter(any),
    top_k=st.integers(0, 10),
    top_p=st.sampled_from([0.1, 0.35, 0.5, 0.8, 0.99, 1.0]),
)
def test_truncation_keeps_the_top_k_and_the_nucleus(values: list[int], top_k: int, top_p: float) -> None:
    weight = torch.tensor([values], dtype=torch.float64)
    probability = weight[0] / weight.sum()
    boundary = (probability.sort(descending=True).values.cumsum(0) - top_p).abs().min()
    if boundary < 1e-9 and top_p < 1:
        return  # whether the boundary token counts is a matter of rounding
    how = same_for(1, top_k=top_k, top_p=top_p)
    kept = truncate(weight, how)[0] if how.top_k is not None or how.top_p is not None else weight
    expected = {i for i in naive_kept(probability, top_k, top_p) if values[i]}
    assert set(kept[0].nonzero().flatten().tolist()) == expected


def test_truncated_draws_stay_inside_and_report_the_whole_distribution() -> None:
    logits = torch.randn(13, generator=torch.Generator().manual_seed(1)) * 2
    drawn = draw(logits.expand(5000, -1), same_for(5000, 0.8, top_k=4), grid(5000))
    kept = (logits / 0.8).topk(4)
    assert set(drawn.token.tolist()) == set(kept.indices.tolist())
    share = torch.bincount(drawn.token, minlength=13)[kept.indices] / 5000
    torch.testing.assert_close(share, kept.values.softmax(0), atol=4e-4, rtol=0)
    torch.testing.assert_close(drawn.logprob, (logits / 0.8).log_softmax(0)[drawn.token], atol=1e-5, rtol=1e-5)


def test_forbidden_tokens_are_never_drawn_even_at_the_ends() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 1.0, float("-inf")]]).expand(4, -1)
    u = torch.tensor([2.0**-51, 0.2, 0.9, 1 - 2.0**-51], dtype=torch.float64)
    assert set(draw(logits, same_for(4), u).token.tolist()) == {1, 3}


@pytest.mark.parametrize("temperature", [COLDEST, COLDEST / 2, 1e-39, 1e-45])
def test_the_coldest_rows_are_greedy(temperature: float) -> None:
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(2)) * 1000
    drawn = draw(logits, same_for(5, temperature), grid(5))
    assert torch.equal(drawn.token, logits.argmax(-1)) and drawn.logprob.isfinite().all() and not drawn.failed.any()


def test_a_row_that_is_no_distribution_fails_alone() -> None:
    """Whatever its settings; the others get what they get without it."""
    good = torch.randn(1, 70, generator=torch.Generator().manual_seed(3)).expand(4, -1).clone()
    bad = good.clone()
    bad[0, 5], bad[1, 69], bad[2] = math.nan, math.inf, -math.inf
    temperature, top_k = torch.tensor([1.0, 0.0, 1.0, 0.7]), torch.tensor([0, 0, 3, 3])
    for top_p in (1.0, 0.9):
        how = sampling(temperature, top_k, torch.full((4,), top_p))
        drawn, expected = draw(bad, how, grid(4)), draw(good, how, grid(4))
        assert drawn.failed.tolist() == [True, True, True, False] and drawn.token[:3].tolist() == [0, 0, 0]
        assert drawn.token[3] == expected.token[3] and drawn.logprob[3] == expected.logprob[3]
        assert not expected.failed.any()


def test_close_draws_are_counted() -> None:
    logits = torch.zeros(4, 4)
    u = torch.tensor([0.25 + 1e-6, 0.5 - 1e-6, 0.6, 0.25 + 1e-4], dtype=torch.float64)
    assert draw(logits, same_for(4), u).close.tolist() == [True, True, False, False]
    apart = torch.tensor([[0.0, 1.0, 2.0, 2.0 + 1e-4]])
    assert not draw(apart, same_for(1, temperature=0.0), u[2:3]).close.any()
    assert draw(logits, same_for(4, temperature=0.0), u).close.all()  # four equally likely ones
    assert draw(logits, same_for(4, top_p=0.5), u).close.all() and draw(logits, same_for(4, top_k=2), u).close.all()
    assert not draw(apart, same_for(1, top_k=2), u[2:3]).close.any()


@settings(deadline=None)
@given(
    grid_logits=st.lists(st.integers(-12, 3), min_size=2, max_size=12),
    seed=st.integers(0, 2**32),
    where=st.integers(-3, 3),
    cold=st.booleans(),
    top_k=st.sampled_from([0, 0, 1, 2, 5]),
    top_p=st.sampled_from([1.0, 0.25, 0.5, 0.9]),
)
def test_what_rounding_can_change_is_counted(
    grid_logits: list[int], seed: int, where: int, cold: bool, top_k: int, top_p: float
) -> None:
    """Logits with many ties, draws on the very boundaries, and noise as rounding makes it: the token stays, or the draw
    was counted."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.tensor(grid_logits, dtype=torch.float64) * math.log(2)
    u = (torch.cat([logits.softmax(0).cumsum(0), grid(12) + 1 / 24]) + where * 1e-6).clamp(2.0**-51, 1 - 2.0**-51)
    how, every = same_for(len(u), float(not cold), top_k, top_p), logits.expand(len(u), -1)
    exact = draw(every, how, u)
    for _ in range(3):
        noise = (torch.rand(every.shape, generator=generator, dtype=torch.float64) - 0.5) * 4e-6
        assert ((draw(every + noise, how, u).token == exact.token) | exact.close).all()


@given(st.integers(1, 400), st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 0.97]))
def test_blocks_find_the_token_that_one_long_sum_finds(vocabulary: int, seed: int, forbidden: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(vocabulary, generator=generator) * 6
    logits[torch.rand(vocabulary, generator=generator) < forbidden] = float("-inf")
    logits[seed % vocabulary] = 0.0
    weight = (logits - logits.max()).exp()
    exact = weight.double().cumsum(0) / weight.double().sum()
    edges = torch.cat([exact, exact - 1e-9, exact + 1e-9])  # at every boundary, where rounding could go astray
    u = torch.cat([edges.clamp(2.0**-51, 1 - 2.0**-51), grid(97)])
    drawn = draw(logits.expand(len(u), -1), same_for(len(u)), u)
    assert (weight[drawn.token] > 0).all()
    below = torch.cat([torch.zeros(1, dtype=torch.float64), exact])[drawn.token]
    assert (u >= below - 1e-6).all() and (u <= exact[drawn.token] + 1e-6).all()
    torch.testing.assert_close(drawn.logprob, logits.log_softmax(0)[drawn.token], atol=1e-5, rtol=1e-5)
