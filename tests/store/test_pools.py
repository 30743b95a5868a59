"""Pools: shares, stability, the report."""

from collections import Counter
from io import StringIO

import pytest
from rich.console import Console

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.pool_report import pool_tables
from heedful.store.pools import PAPER_SHARES, add_prompt, assign_pools, pool_of, prompts_with_pool
from heedful.types import Prompt


def prompt(number: int, **more: object) -> Prompt:
    return Prompt(**{"id": f"p{number}", "text": f"one two {number}", "user": f"u{number}"} | more)


def test_pools_follow_the_shares() -> None:
    shares = {"customer": {"sft": 1, "reward_model": 2, "ppo": 1}}
    count = Counter(pool_of(prompt(i), shares) for i in range(4000))
    assert count["sft"] / 4000 == pytest.approx(0.25, abs=0.03)
    assert count["reward_model"] / 4000 == pytest.approx(0.5, abs=0.03)
    assert count["ppo"] / 4000 == pytest.approx(0.25, abs=0.03)
    assert pool_of(prompt(1), shares) == pool_of(prompt(1), shares)
    assert [pool_of(prompt(i), shares) for i in range(50)] != [pool_of(prompt(i), shares, "other") for i in range(50)]


def test_the_papers_shares_keep_labelers_out_of_ppo_and_test_prompts_for_evaluation() -> None:
    assert {pool_of(prompt(i, source="labeler")) for i in range(500)} == {"sft", "reward_model"}
    assert {pool_of(prompt(i)) for i in range(500)} == {"sft", "reward_model", "ppo"}
    assert {pool_of(prompt(i, split="test")) for i in range(50)} == {"evaluation"}
    assert sum(PAPER_SHARES["labeler"].values()) == 17918


def test_a_source_without_a_share_is_refused() -> None:
    with pytest.raises(InputError, match="none is positive for labeler prompts"):
        pool_of(prompt(1, source="labeler"), {"customer": {"sft": 1.0}})


def test_assigning_leaves_assigned_prompts_alone(store: Store) -> None:
    add_prompt(store, prompt(0), pool="evaluation")
    add_prompt(store, prompt(1), prompt(2))
    assert assign_pools(store, {"customer": {"ppo": 1.0}}) == 2
    assert [pool for _, pool in prompts_with_pool(store)] == ["evaluation", "ppo", "ppo"]
    assert assign_pools(store) == 0
    assert add_prompt(store, prompt(1)) == 0
    with pytest.raises(InputError, match="p1 is already stored with pool ppo, not sft"):
        add_prompt(store, prompt(1), pool="sft")


def test_the_report_shows_every_number() -> None:
    rows = [(prompt(i, text="word " * (i + 1), use_case="chat" if i else "open_qa"), "ppo") for i in range(4)]
    rows += [(prompt(9, source="labeler", kind="few_shot", examples=[("a b", "c")], user="u0"), "sft")]
    rows += [(prompt(10, split="valid"), None), (prompt(11, user="u0"), "ppo")]
    tables = pool_tables(rows)
    cells = [[list(column.cells) for column in table.columns] for table in tables]
    sizes, use_cases, kinds, lengths = ([list(row) for row in zip(*columns, strict=True)] for columns in cells)
    assert sizes == [
        ["sft", "train", "1", "0", "1", "1", "1.00"],
        ["ppo", "train", "0", "5", "5", "4", "1.25"],
        ["no pool", "valid", "0", "1", "1", "1", "1.00"],
    ]
    assert use_cases == [
        ["chat", "0.0", "60.0", "0.0", "42.9"],
        ["other", "100.0", "20.0", "100.0", "42.9"],
        ["open_qa", "0.0", "20.0", "0.0", "14.3"],
    ]
    assert kinds[1] == ["few_shot", "100.0", "0.0", "0.0", "14.3"]
    assert lengths[0] == ["sft", "train", "6.0", "6", "6", "6", "6", "6"]
    assert lengths[1] == ["ppo", "train", "2.6", "1", "2", "3", "3", "4"]
    by_letter = pool_tables(rows, length=len, unit="characters")[3]
    assert by_letter.title == "Prompt lengths (characters)"
    console = Console(width=100, record=True, file=StringIO())
    for table in (*tables, *pool_tables([])):
        console.print(table)
    assert "Prompts by pool and source" in console.export_text()
