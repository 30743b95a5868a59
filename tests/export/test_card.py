"""The model card's account of the data: every round's prompts, in the order in which they came."""

from pathlib import Path

from heedful.export.card import data
from heedful.snapshot import Snapshot, write_snapshot
from heedful.types import Prompt


def prompts(*names: str) -> Snapshot:
    return Snapshot(prompts=tuple(Prompt(id=name, text=name, user=name) for name in names))


def test_later_rounds_prompts_are_told_with_what_is_new(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "data" / "ppo", prompts("a", "b"))
    for round, names in ((2, "abc"), (3, "abc"), (10, "abcdef")):
        write_snapshot(tmp_path / f"round-{round}" / "prompts" / "ppo", prompts(*names))
    told = [line.split(" (")[0] for line in data(tmp_path)]
    assert told == [
        "- ppo: 2 prompts",
        "- ppo, in round-2: 3 prompts, 1 of them new",
        "- ppo, in round-3: 3 prompts, 0 of them new",
        "- ppo, in round-10: 6 prompts, 3 of them new",
    ]


def test_a_run_without_prompts_says_so(tmp_path: Path) -> None:
    assert list(data(tmp_path)) == ["Not recorded in this run."]
