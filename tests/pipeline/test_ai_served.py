"""Judging by a server from the command line: estimate first, ledger after, and what a dead server costs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from heedful import run as runs
from heedful.pipeline import ai_labels
from heedful.run import read_done
from heedful.snapshot import read_snapshot
from heedful.store.database import open_store
from heedful.store.export import export_snapshot
from heedful.store.labels import add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt
from heedful.types import Labeler, Prompt, Ranking
from heedful.types import Response as Answer
from judge_servers import NAME, Judge, hurry, prompt_of, running
from tiny import refuse, succeed

SETS = 12


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's comparisons; what a server failed at is asked again at once."""
    hurry(monkeypatch)
    with open_store(tmp_path / "store.db") as opened:
        add_labeler(opened, Labeler(id="ann"))
        for n in range(SETS):
            add_prompt(opened, Prompt(id=f"p{n}", text=f"Say {n}", user=f"u{n}"), pool="reward_model")
            pair = [Answer(id=f"r{n}{k}", prompt_id=f"p{n}", text=text) for k, text in enumerate(("yes", "oh no"))]
            add_response(opened, *pair)
            ids = (pair[0].id, pair[1].id)
            add_ranking(opened, Ranking(id=f"j{n}", prompt_id=f"p{n}", labeler="ann", responses=ids, rank=(1, 2)))
    return tmp_path / "store.db"


def arguments(store: Path, out: Path, address: str, *more: object) -> tuple[object, ...]:
    common = ("--labeler", address, "--template", "helpful.base.en", "--dir", out)
    quick = ("--server", "tries=2", "--server", "in_flight=4")
    return ("judge", "label", store, *common, *quick, *more)


def test_a_server_judges_beside_people(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-4711")
    judge = Judge("chat", "logprobs")
    more = ("--server", "price=1/1000", "--server", "key_from=MY_KEY", "--server", "fields.top_k=5")
    with running(judge) as address:
        before = succeed(*arguments(store, tmp_path / "out", address, *more, "--estimate"))
        assert f"{SETS} sets, {2 * SETS} questions: {2 * SETS} calls, about " in before
        assert f"at most {2 * SETS * (1 + 16 + 19 // 3)} written, " in before and not judge.asked
        said = succeed(*arguments(store, tmp_path / "out", address, *more))
        assert f"{SETS} of {SETS} sets judged" in said
        assert "labels: log-probabilities of the 20 likeliest tokens (chat)" in said
        written = 2 * SETS * 3
        assert f"{2 * SETS:,} calls answered" in said and f"the ledger holds {2 * SETS} replies of {NAME}: " in said
        again = succeed(*arguments(store, tmp_path / "out", address, *more))
        assert "0 calls answered" in again and len(judge.asked) == 2 * SETS
        other = succeed(
            *arguments(store, tmp_path / "other", address, *more, "--name", "twin"),
            *("--server", f"ledger={tmp_path / 'out' / 'replies.db'}"),
        )
        assert f"{2 * SETS} more were answered before" in other and len(judge.asked) == 2 * SETS
    results = read_done(tmp_path / "out")["results"]
    assert results["labeler"].startswith(f"{NAME} helpful.base.en ") and results["asked"]["ok"] == 2 * SETS
    assert results["how"].startswith("log-probabilities") and results["asked"]["new_tokens"] == written
    assert all(body["top_k"] == 5 for body in judge.asked) and set(judge.headers) == {"Bearer sk-4711"}
    assert not any(b"sk-4711" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_server_that_dies_is_gone_on_with(store: Path, tmp_path: Path) -> None:
    """Nothing is finished, nothing that was answered is asked again, and in the end it is as if it had never died."""

    def dead(body: object, number: int) -> Response | None:
        return JSONResponse({"error": {"message": "planted"}}, 500) if number >= 9 else None

    judge = Judge("chat", "logprobs", bad=dead)
    with running(judge) as address:
        line = refuse(*arguments(store, tmp_path / "out", address))
        assert "calls all failed" in line and "run the same command again" in line
        assert not (tmp_path / "out" / "done.json").exists()
        answered, judge.bad = set(judge.prompts()[:9]), None
        seen = len(judge.asked)
        succeed(*arguments(store, tmp_path / "out", address))
        later = judge.prompts()[seen:]
        assert len(later) == 2 * SETS - 9 and not answered & set(later)
        succeed(*arguments(store, tmp_path / "whole", address, "--name", "unhurt"))
    results = [read_done(tmp_path / name)["results"] for name in ("out", "whole")]
    assert results[0]["figures"] == results[1]["figures"] and results[0]["asked"] == results[1]["asked"]


def test_what_a_failing_server_lost_is_asked_for_again_and_nothing_else(store: Path, tmp_path: Path) -> None:
    """Of p1 one order fails, of p2 it is filtered, of p3 unreadable; asked again it fails again, then not."""
    failing = {"Say 1": 500, "Say 2": 400, "Say 3": 200}

    def bad(body: Any, number: int) -> Response | None:
        [prompt] = [
            line.removeprefix("User: ") for line in prompt_of(body).splitlines() if line.startswith("User: Say")
        ]
        said = {"error": {"message": f"planted {prompt}", "code": "content_filter" if prompt == "Say 2" else ""}}
        if prompt not in failing or "Response 1 - yes" not in prompt_of(body):
            return None
        return JSONResponse({"choices": [{}]} if failing[prompt] == 200 else said, failing[prompt])

    judge = Judge("chat", "logprobs", bad=bad)
    with running(judge) as address:
        said = succeed(*arguments(store, tmp_path / "out", address))
        assert f"{SETS - 3} of {SETS} sets judged" in said and "api, 1: 2 tries: 500: planted Say 1" in said
        assert "refusal, 1: 400: planted Say 2" in said and "the same command asks again" in said
        assert read_done(tmp_path / "out")["counts"] == {"api": 1, "refusal": 1, "parse": 1}
        rows = [json.loads(line) for line in (tmp_path / "out" / "unjudged.jsonl").read_text().splitlines()]
        assert [(row["prompt_id"], row["reason"]) for row in rows] == [
            ("p1", "api"),
            ("p2", "refusal"),
            ("p3", "parse"),
        ]
        assert all(row["message"] for row in rows)
        for left in (1, 0):
            failing = failing if left else {}
            seen = len(judge.asked)
            said = succeed(*arguments(store, tmp_path / "out", address))
            again = judge.prompts()[seen:]
            assert (
                len(again) == 1 + left and all("User: Say 1\n" in prompt for prompt in again) and len(set(again)) == 1
            )
            assert f"{SETS - 2 - left} of {SETS} sets judged" in said and ("asks again" in said) == bool(left)
        seen = len(judge.asked)
        assert "refusal, 1: 400: planted" in succeed(*arguments(store, tmp_path / "out", address))
        assert "refusal, 1: 400: planted" in succeed("judge", "report", tmp_path / "out") and len(judge.asked) == seen
        judge.bad = None
        succeed(*arguments(store, tmp_path / "whole", address, "--name", "unhurt"))
    out, whole = (read_snapshot(tmp_path / name / "snapshot").rankings for name in ("out", "whole"))
    found = {ranking.prompt_id: ranking.preference for ranking in out if ranking.preference}
    assert len(found) == SETS - 2 and found.items() <= {one.prompt_id: one.preference for one in whole}.items()
    with open_store(store) as opened:
        stored = export_snapshot(opened, purpose=None).rankings
    assert sum(ranking.labeler == out[-1].labeler for ranking in stored) == SETS - 2


def test_a_run_that_was_stopped_asks_again_for_what_was_lost_before(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ai_labels, "SERVED_CHUNK", 6)
    monkeypatch.setenv(runs.CHECKPOINT_VARIABLE, "0")

    def bad(body: Any, number: int) -> Response | None:
        if "User: Say 1\n" in prompt_of(body):
            return JSONResponse({}, 500)
        return JSONResponse({"error": {"message": "no money"}}, 402) if number >= 16 else None

    judge = Judge("chat", "logprobs", bad=bad)
    with running(judge) as address:
        refuse(*arguments(store, tmp_path / "out", address))
        judge.bad = None
        assert f"{SETS} of {SETS} sets judged" in succeed(*arguments(store, tmp_path / "out", address))
    assert read_done(tmp_path / "out")["counts"] == {} and max(Counter(judge.prompts()).values()) <= 2 + 1


def test_settings_that_change_answers_need_another_folder_and_others_do_not(store: Path, tmp_path: Path) -> None:
    judge = Judge("chat", "draws", root="/models/seven")
    mine = ("--server", "votes=4", "--limit", 2)
    with running(judge) as address, running(judge) as moved:
        succeed(*arguments(store, tmp_path / "out", address, *mine))
        seen = len(judge.asked)
        free = ("--server", "price=1/2", "--server", "in_flight=2", "--server", "timeout=9")
        assert "2 of 2 sets judged" in succeed(*arguments(store, tmp_path / "out", moved, *mine, *free))
        assert len(judge.asked) == seen
        for more, said in (
            (("--server", "votes=5"), "server.labels is 'shares of 4 votes"),
            (("--server", "fields.top_k=3"), "server.fields is {} there and {'top_k': 3} now"),
        ):
            assert said in refuse(*arguments(store, tmp_path / "out", address, *mine, *more))
        judge.root = "/models/eight"
        line = refuse(*arguments(store, tmp_path / "out", address, *mine))
        assert "server.root is '/models/seven' there and '/models/eight' now" in line


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--server", "vots=3"), "--server.vots: unknown key, did you mean votes?"),
        (("--server", "votes=0"), "--server.votes: must be greater than or equal to 1"),
        (("--server", "votes"), "write --server key=value"),
        (("--server", "price=cheap"), "such as 0.15/0.60"),
        (("--server", "key_from=NOT_THERE"), "neither a variable of the environment nor a file"),
        (("--server", "model=judge-8"), "does not answer as judge-8"),
    ],
)
def test_settings_that_will_not_do_are_said(store: Path, tmp_path: Path, more: tuple[object, ...], said: str) -> None:
    with running(Judge()) as address:
        assert said in refuse(*arguments(store, tmp_path / "out", address, *more))
    assert not (tmp_path / "out" / "items").exists()


def test_settings_of_a_server_are_not_for_a_model_that_is_here(store: Path, tmp_path: Path) -> None:
    assert "--server is for a labeler behind a server" in refuse(*arguments(store, tmp_path / "out", "some/model"))
