"""Interchange: an export read into an empty store exports to the same bytes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from heedful.config import InputError
from heedful.ranks import rank_of
from heedful.store.database import Store, open_store
from heedful.store.export import export_snapshot
from heedful.store.jsonl import export_jsonl, import_jsonl
from heedful.store.labels import add_demonstration, add_rating, edit
from heedful.types import Demonstration, Rating
from small_store import fill, ranking


def test_round_trip(filled: Store, new_place: Callable[[], str], tmp_path: Path) -> None:
    add_demonstration(filled, Demonstration(id="d", prompt_id="p2", text="ein\n\u2028Wort", labeler="hal", seconds=0.5))
    add_rating(filled, Rating(id="g", prompt_id="p0", response_id="r01", labeler="ann", overall=5, flags={"x": True}))
    sure = ((0.1, 0.3), (1 / 3, 0.0), (0.5, 0.5))
    edit(filled, ranking("ann-0b", 0, "ann", (2, 1, 1)), "ann-0")
    edit(filled, ranking("bob-0b", 0, "bob", rank_of(sure, 3), preference=sure), "bob-0")
    with open_store(new_place()) as other:
        for kind, number in (("ranking", 9), ("demonstration", 1), ("rating", 1)):
            first, second = tmp_path / f"{kind}.jsonl", tmp_path / f"{kind}-again.jsonl"
            assert export_jsonl(filled, first, kind) == number
            import_jsonl(other, first)
            assert not import_jsonl(other, first)
            export_jsonl(other, second, kind)
            assert first.read_bytes() == second.read_bytes()
        one, two = export_snapshot(filled, heldout="include"), export_snapshot(other, heldout="include")
    assert [r.preference for r in one.rankings if r.preference] == [sure]
    assert (one.rankings, one.demonstrations, one.ratings) == (two.rankings, two.demonstrations, two.ratings)
    assert (one.prompts, one.responses, one.labelers) == (two.prompts, two.responses, two.labelers)


def change(line: dict, path: str, value: object) -> dict:
    *parents, last = path.split(".")
    at = line
    for parent in parents:
        at = at[parent]
    at[last] = value
    return line


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", "ranking/2", "line 2: schema must be one of demonstration/1"),
        ("ranking.rank", [1, 2], "line 2, ranking: rank has 2 entries for 3"),
        ("ranking.responses", ["r00"], "line 2, ranking: responses"),
        ("ranking.colour", 1, r"line 2, ranking: colour"),
        ("prompt.id", "other", "line 2: the ranking is of prompt p1, the line brings other"),
        ("responses", [], "no response r10"),
        ("responses", [{"id": "r10"}], r"line 2, responses\.0: prompt_id"),
        ("labeler.id", "zoe", "no labeler ann"),
        ("round", "one", "line 2: round is a whole number"),
    ],
)
def test_broken_lines_are_named_and_nothing_is_taken(tmp_path: Path, path: str, value: object, message: str) -> None:
    with open_store(tmp_path / "a.db") as store, open_store(tmp_path / "b.db") as other:
        fill(store)
        export_jsonl(store, tmp_path / "r.jsonl", "ranking")
        lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text(encoding="utf-8").split("\n")[:2]]
        if path == "labeler.id":
            lines = lines[1:] * 2
        lines[1] = change(json.loads(json.dumps(lines[1])), path, value)
        if path == "labeler.id":
            lines = [lines[1]]
        (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        with pytest.raises(InputError, match=message):
            import_jsonl(other, tmp_path / "r.jsonl")
        assert export_snapshot(other).prompts == ()


def test_a_line_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('\n{"schema": ', encoding="utf-8")
    with open_store(tmp_path / "s.db") as store, pytest.raises(InputError, match="line 2: not valid JSON"):
        import_jsonl(store, tmp_path / "r.jsonl")
