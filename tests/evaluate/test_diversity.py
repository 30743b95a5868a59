"""Diversity and the KL of a policy, against counting by hand and enumeration."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from heedful.evaluate.diversity import distinct_n
from heedful.evaluate.policy import response_kl
from heedful.text.collate import Encoded, to_rows
from toys import BEGIN, PAD, make_policy, make_rows, plain_logprob


def test_distinct_pairs_by_hand() -> None:
    assert distinct_n([[1, 2, 3], [1, 2], [4]]) == 2 / 3
    assert distinct_n([[1, 2, 3], [1, 2], [4]], n=1) == 4 / 6
    assert distinct_n([[1, 2, 3], [1, 2, 3]], n=3) == 1 / 2
    assert distinct_n([]) == distinct_n([[], [7]]) == 0.0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=6), st.integers(1, 3))
def test_saying_it_twice_adds_no_diversity(responses: list[list[int]], n: int) -> None:
    once = distinct_n(responses, n)
    assert 0 <= once <= 1
    assert distinct_n(responses * 2, n) == pytest.approx(once / 2)
    assert distinct_n(responses[::-1], n) == once


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("max_tokens", [1, 30, 1000])
def test_the_kl_of_a_response_is_the_sum_over_its_tokens(temperature: float, max_tokens: int) -> None:
    policy, ref_policy, rows = make_policy(), make_policy(1), make_rows(7)
    found = response_kl(policy, ref_policy, to_rows(rows, PAD), temperature, max_tokens, "fp32")
    for row, kl in zip(rows, found.tolist(), strict=True):
        logprob, ref = (plain_logprob(model, row, temperature) for model in (policy, ref_policy))
        assert kl == pytest.approx(float((logprob - ref).sum().detach()), abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_its_mean_over_samples_at_the_temperature_is_the_kl_at_the_temperature(temperature: float) -> None:
    policy, ref_policy = make_policy(), make_policy(1)
    every = to_rows([Encoded([BEGIN], [token]) for token in range(13)], PAD)
    logprob, ref = (
        torch.stack([plain_logprob(m, Encoded([BEGIN], [t]), temperature)[0] for t in range(13)])
        for m in (policy, ref_policy)
    )
    exact = float((logprob.exp() * (logprob - ref)).sum().detach())
    kl = response_kl(policy, ref_policy, every, temperature, 1000, "fp32")
    assert float((logprob.exp().detach() * kl).sum()) == pytest.approx(exact, abs=1e-5)
    assert exact > 0
