"""Parts hold every row once, within their budget, and are as few and as even as can be."""

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from heedful.batch import Rows
from heedful.text.collate import Encoded, to_rows
from heedful.text.parts import by_length, by_prompt, by_width, shuffled

lengths_and_budget = given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 80))


def check_order(groups: list[torch.Tensor], length: torch.Tensor) -> None:
    """Every row once, the longest first."""
    assert sorted(i for group in groups for i in group.tolist()) == list(range(len(length)))
    one_after_the_other = length[torch.cat(groups)].tolist() if groups else []
    assert one_after_the_other == sorted(one_after_the_other, reverse=True)


@lengths_and_budget
def test_by_width_counts_padding(lengths: list[int], max_tokens: int) -> None:
    length = torch.tensor(lengths, dtype=torch.long)
    groups = by_width(length, max_tokens)
    check_order(groups, length)
    for group in groups:
        assert len(group) == 1 or len(group) * int(length[group].max()) <= max_tokens
    # as few as a budget allows: a group ends only where one more row would not have fitted
    assert all((len(group) + 1) * int(length[group].max()) > max_tokens for group in groups[:-1])


@lengths_and_budget
def test_by_length_counts_real_tokens(lengths: list[int], max_tokens: int) -> None:
    length = torch.tensor(lengths, dtype=torch.long)
    groups = by_length(length, max_tokens)
    check_order(groups, length)
    for group in groups:
        assert len(group) == 1 or int(length[group].sum()) <= max_tokens
    if sum(lengths) <= max_tokens:
        assert len(groups) <= 1


@given(st.integers(2, 9), st.integers(1, 40), st.integers(40, 400))
def test_equal_rows_make_even_parts(length: int, rows: int, max_tokens: int) -> None:
    sizes = [len(group) for group in by_length(torch.full((rows,), length), max_tokens)]
    fewest = -(-rows // (max_tokens // length))
    assert max(sizes) == -(-rows // (fewest if fewest == 1 else fewest + fewest % 2))


def test_two_threads_get_the_same_work() -> None:
    length = torch.randint(8, 257, (32,), generator=torch.Generator().manual_seed(0))
    parts = [int(length[group].sum()) for group in by_length(length, 2048)]
    assert len(parts) % 2 == 0 and max(parts) - min(parts) <= 256


rows_of_few_prompts = st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9)), min_size=1, max_size=14)


def rows_of(drawn: list[tuple[int, int]]) -> Rows:
    """Rows of (prompt, response length); prompt p is p + 1 tokens long."""
    return to_rows([Encoded([p + 1] * (p + 1), [9] * number) for p, number in drawn], 0)


@given(rows_of_few_prompts, st.integers(1, 60))
def test_rows_of_one_prompt_stay_together_and_count_it_once(drawn: list[tuple[int, int]], max_tokens: int) -> None:
    rows = rows_of(drawn)
    parts = by_prompt(rows, max_tokens)
    assert sorted(i for part in parts for i in part.tolist()) == list(range(len(drawn)))
    for part in parts:
        prompts = {drawn[i][0] for i in part.tolist()}
        tokens = sum(p + 1 for p in prompts) + sum(drawn[i][1] for i in part.tolist())
        assert tokens <= max_tokens or len(part) == 1
    for p in {p for p, _ in drawn}:
        mine = [i for i, (other, _) in enumerate(drawn) if other == p]
        if p + 1 + sum(drawn[i][1] for i in mine) <= max_tokens:
            assert sum(any(i in part.tolist() for i in mine) for part in parts) == 1


@given(rows_of_few_prompts, st.integers(0, 9))
def test_a_shuffle_keeps_rows_of_one_prompt_side_by_side(drawn: list[tuple[int, int]], seed: int) -> None:
    order = shuffled(rows_of(drawn), seed).tolist()
    assert sorted(order) == list(range(len(drawn)))
    prompts = [drawn[i][0] for i in order]
    assert sum(a != b for a, b in pairwise(prompts)) == len(set(prompts)) - 1
