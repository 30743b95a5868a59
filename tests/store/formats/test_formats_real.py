"""Heads of real files, where they are at hand."""

import gzip
import json
from itertools import islice
from pathlib import Path

import pytest

from heedful.store.database import open_store
from heedful.store.export import export_snapshot
from heedful.store.formats.give_out import export_file
from heedful.store.formats.item import Reading
from heedful.store.formats.reading import Source, shape_of
from heedful.store.formats.shapes import SHAPES
from heedful.store.formats.take_in import import_file

DATA = Path(__file__).parents[4] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets (shared/data) are not on this machine")
HEAD = 60


def head(tmp_path: Path, name: str) -> tuple[Path, list[dict[str, object]]]:
    """The file's first rows as a file of the same kind, and as they are."""
    path, out = DATA / name, tmp_path / Path(name).name
    if name.endswith(".gz"):
        with gzip.open(path, "rb") as file:
            lines = list(islice(file, HEAD))
        out.write_bytes(gzip.compress(b"".join(lines)))
        return out, [json.loads(line) for line in lines]
    text = path.read_text(encoding="utf-8")
    if text.startswith("["):
        rows = json.loads(text)[:HEAD]
        out.write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")
        return out, rows
    rows = [json.loads(line) for line in text.split("\n") if line][:HEAD]
    out.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return out, rows


def test_hh_comes_out_as_it_went_in(tmp_path: Path) -> None:
    path, rows = head(tmp_path, "hh_rlhf/harmless-base_test.jsonl.gz")
    with open_store(tmp_path / "s.db") as store:
        taken = import_file(store, Source(path, shape_of(path, None)))
        export_file(store, tmp_path / "out.jsonl.gz", SHAPES["hh"])
        left_out = taken.read.tally.left_out.total()
        with gzip.open(tmp_path / "out.jsonl.gz", "rb") as file:
            back = {line.strip() for line in file}
        given = {json.dumps(row, ensure_ascii=False).encode() for row in rows}
        assert len(back) == HEAD - left_out > HEAD - 5 and back <= given
        assert any(prompt.examples for prompt in export_snapshot(store).prompts)


@pytest.mark.parametrize("name", ["alpaca_en_demo.json", "alpaca_zh_demo.json", "identity.json"])
def test_alpaca_comes_out_as_it_went_in(tmp_path: Path, name: str) -> None:
    path, rows = head(tmp_path, f"alpaca_demo/{name}")
    with open_store(tmp_path / "s.db") as store:
        taken = import_file(store, Source(path, shape_of(path, None)))
        export_file(store, tmp_path / "out.json", SHAPES["alpaca"])
    back = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert {json.dumps(row) for row in back} == {json.dumps(row) for row in rows}
    assert taken.read.items == HEAD and not +taken.read.tally.left_out


def test_tool_calls_are_left_out_whole(tmp_path: Path) -> None:
    path, _ = head(tmp_path, "alpaca_demo/glaive_toolcall_en_demo.json")
    with open_store(tmp_path / "s.db") as store:
        taken = import_file(store, Source(path, shape_of(path, None)))
    assert not taken.new and taken.read.tally.left_out == {"conversations with tool calls": HEAD}


@pytest.mark.parametrize(
    "name",
    ["self_instruct/seed_tasks.jsonl", "self_instruct/user_oriented_instructions.jsonl", "belle/zh_seed_tasks.json"],
)
def test_tasks_give_demonstrations(tmp_path: Path, name: str) -> None:
    path, rows = head(tmp_path, name)
    with open_store(tmp_path / "s.db") as store:
        taken = import_file(store, Source(path, shape_of(path, None)))
    assert taken.new["demonstrations"] == sum(len(row["instances"]) for row in rows)  # type: ignore[arg-type]


def test_columns_of_other_names(tmp_path: Path) -> None:
    path, rows = head(tmp_path, "belle/eval_set.json")
    names = {"instruction": "question", "output": "std_answer"}
    with open_store(tmp_path / "s.db") as store:
        taken = import_file(store, Source(path, shape_of(path, None, names), Reading(names)))
        answers = {demonstration.text for demonstration in export_snapshot(store).demonstrations}
    assert answers <= {row["std_answer"] for row in rows} and len(answers) > 1
    assert taken.read.rows == HEAD
