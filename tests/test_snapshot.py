"""Snapshots: equal data has an equal hash, and a file that was changed or broken is never trained on."""

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from heedful.config import InputError
from heedful.principles import Principle, PrincipleRanking
from heedful.snapshot import Snapshot, read_lines, read_records, read_snapshot, write_snapshot
from heedful.types import Demonstration, Document, Labeler, Prompt, Ranking, Rating, Response


def snapshot() -> Snapshot:
    prompts = tuple(
        Prompt(id=f"p{s}", text="\u2028 naïve 你好\n", user=f"u{s}", split=s) for s in ("train", "valid", "test")
    )
    responses = tuple(
        Response(id=f"{p.id}-{k}", prompt_id=p.id, text="x", tokens=(3, 1, 4)) for p in prompts for k in range(3)
    )
    rankings = tuple(
        Ranking(id=f"k{p.id}-{l}", prompt_id=p.id, labeler=l, responses=(f"{p.id}-2", f"{p.id}-0"), rank=(2, 1))
        for p in prompts
        for l in ("in", "out")
    )
    return Snapshot(
        prompts=prompts,
        responses=responses,
        labelers=(Labeler(id="in"), Labeler(id="out", group="heldout")),
        demonstrations=tuple(Demonstration(id=f"d{p.id}", prompt_id=p.id, text="y", labeler="in") for p in prompts),
        rankings=rankings,
        ratings=(Rating(id="r", prompt_id="ptrain", response_id="ptrain-0", labeler="in", overall=5),),
        documents=(Document(text="a"), Document(text="b", split="valid")),
        dropped={"empty": 2},
    )


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    written = write_snapshot(tmp_path / "s", snapshot())
    read = read_snapshot(tmp_path / "s")
    assert read == written and read.hash and read.dropped == {"empty": 2}
    assert json.loads((tmp_path / "s" / "snapshot.json").read_text())["rows"]["rankings"] == 6
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_equal_data_has_an_equal_hash_and_any_change_another(tmp_path: Path) -> None:
    base = write_snapshot(tmp_path / "base", snapshot())
    again = write_snapshot(tmp_path / "again", snapshot())
    assert base.hash == again.hash
    other = Snapshot(**{**vars(snapshot()), "documents": (Document(text="a"), Document(text="b"))})
    assert write_snapshot(tmp_path / "other", other).hash != base.hash


def test_rankings_under_principles_come_back_and_count(tmp_path: Path) -> None:
    base = write_snapshot(tmp_path / "base", snapshot())
    concise = Principle(id="concise", language="en", title="Concise", definition="Short.", negative="Long.", weight=2)
    ranking = PrincipleRanking(
        id="k",
        prompt_id="pvalid",
        labeler="in",
        language="en",
        principles=(("concise", True),),
        responses=("pvalid-1", "pvalid-0"),
        rank=(2, 1),
        decided_by="concise",
    )
    data = replace(snapshot(), principles=(concise,), principle_rankings=(ranking,))
    written = write_snapshot(tmp_path / "s", data)
    read = read_snapshot(tmp_path / "s")
    assert read == written and read.principles == (concise,) and len({base.hash, read.hash}) == 2
    ((prompt, responses, found),) = read.principle_rankings_of("valid")
    assert (prompt.id, [one.id for one in responses], found) == ("pvalid", ["pvalid-1", "pvalid-0"], ranking)
    assert read.principle_rankings_of("train") == []


def test_tables_that_came_later_leave_the_hashes_of_before(tmp_path: Path) -> None:
    data = snapshot()
    before = ("prompts", "responses", "labelers", "demonstrations", "rankings", "ratings", "documents")
    lines = {name: [row.model_dump_json() + "\n" for row in getattr(data, name)] for name in before}
    whole = "".join(f"{name}\n{''.join(rows)}" for name, rows in lines.items())
    assert write_snapshot(tmp_path / "s", data).hash == hashlib.sha256(whole.encode()).hexdigest()


def test_what_is_trained_on_is_joined_by_split_and_group(tmp_path: Path) -> None:
    data = snapshot()
    assert [p.id for p in data.prompts_of("valid")] == ["pvalid"]
    assert [(p.id, d.id) for p, d in data.demonstrations_of("train")] == [("ptrain", "dptrain")]
    assert data.documents_of("valid") == ["b"]
    assert len(data.rankings_of("test")) == 2
    ((prompt, responses, ranking),) = data.rankings_of("train", "heldout")
    assert (prompt.id, [r.id for r in responses], ranking.labeler) == ("ptrain", ["ptrain-2", "ptrain-0"], "out")


def test_a_folder_is_written_once(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "s", snapshot())
    write_snapshot(tmp_path / "s", snapshot())  # a resumed step writes it again
    with pytest.raises(InputError, match="holds another snapshot; choose a new folder"):
        write_snapshot(tmp_path / "s", Snapshot())


def test_a_killed_write_leaves_no_snapshot_and_is_written_over(tmp_path: Path) -> None:
    partial = tmp_path / "s.partial"
    partial.mkdir()
    (partial / "prompts.jsonl").write_text('{"id":')
    (partial / "left.jsonl").write_text("over")
    write_snapshot(tmp_path / "s", snapshot())
    assert read_snapshot(tmp_path / "s").hash
    assert not partial.exists() and not (tmp_path / "s" / "left.jsonl").exists()


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    write_snapshot(folder, snapshot())
    draw = random.Random(0)
    for path in sorted(folder.glob("*.jsonl")):
        whole = path.read_bytes()
        place = draw.randrange(len(whole))
        for broken in (
            whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
            whole[: len(whole) // 2],
            whole + whole.splitlines(keepends=True)[0],
        ):
            path.write_bytes(broken)
            with pytest.raises(InputError, match=path.parent.name):
                read_snapshot(folder)
        path.unlink()
        with pytest.raises(InputError, match="does not match its hash"):
            read_snapshot(folder)
        path.write_bytes(whole)
    assert read_snapshot(folder).rankings


@pytest.mark.parametrize("about", [None, "", "[]", "{}", '{"hash": "x"}', "not json"])
def test_what_is_no_snapshot_is_said_so(about: str | None, tmp_path: Path) -> None:
    if about is not None:
        (tmp_path / "snapshot.json").write_text(about)
    with pytest.raises(InputError, match=r"is not a snapshot: snapshot.json is missing or broken"):
        read_snapshot(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"text": "a"}\n\n{"text": 3}\n', "line 3: text: must be a valid string"),
        (b'{"text": "a"}\n{"txt": "a"}\n', "line 2: text: is missing"),
        (b'{"text": "a"\n', "line 1: not valid JSON"),
        (b'{"text": "a"}\n{"text": "\xe9"}\n', "line 2: not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_broken_line_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        read_records(path, Document)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_lines_end_at_line_feeds_alone_and_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes('\ufeff{"text": "a\u2028b\u0085c"}\r\n{"text": "d"}'.encode())
    assert [document.text for document in read_records(path, Document)] == ["a\u2028b\u0085c", "d"]
    assert len(read_lines(path)) == 2
    with pytest.raises(InputError, match="no such file"):
        read_lines(tmp_path / "none")
