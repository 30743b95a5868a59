"""Written principles by the command line: a store scored here or by a server, gone on with, and made into labels."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.responses import JSONResponse
from starlette.responses import Response as HTTPResponse

from heedful import run as runs
from heedful.config import InputError
from heedful.feedback.principles import collect
from heedful.pipeline import principle_scores
from heedful.pipeline.principle_labels import texts_of
from heedful.principles import PrincipleScore
from heedful.run import read_done
from heedful.snapshot import Snapshot, read_records, read_snapshot
from heedful.store.database import open_store
from heedful.store.labels import add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt
from heedful.types import Labeler, Prompt, Ranking, Response
from judge_servers import Judge, hurry, running
from public_data import stories_model
from tiny import refuse, succeed

SHORT = ("a cat", "the dog ran", "a red ball lay there")
BOOK = {
    "principles": {
        name: {"en": {"title": name.title(), "definition": f"It is {name}.", "negative": f"It is not {name}."}}
        for name in ("short", "kind", "true", "merry")
    },
    "collections": {"mine": {"short": 1, "kind": 1, "true": 1, "merry": 0}},
}
FORM = {
    "task": "short",
    "language": "en",
    "preamble": "Which is better?",
    "example": ">>>",
    "follow": ">>>",
    "turn": "{prompt} {response} ",
    "sample": "{history}{prompt} 1: {first} 2: {second}",
    "ending": "{title}: {definition} Better:",
}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """A store of four prompts with three responses each, of which one prompt's first two are equal; how it is asked."""
    hurry(monkeypatch)
    with open_store(tmp_path / "store.db") as store:
        add_labeler(store, Labeler(id="ann"))
        for number in range(4):
            prompt = Prompt(id=f"p{number}", text=f"Say {number}", user=f"u{number}")
            add_prompt(store, prompt, pool="reward_model")
            texts = ("a cat", "a cat", "no") if number == 3 else SHORT
            ids = tuple(f"r{number}{k}" for k in range(3))
            add_response(
                store, *(Response(id=id, prompt_id=prompt.id, text=text) for id, text in zip(ids, texts, strict=True))
            )
            if number == 1:
                common: dict[str, Any] = {"prompt_id": "p1", "labeler": "ann"}
                add_ranking(store, Ranking(id="k", responses=ids, rank=(1, 2, 3), **common))
                add_ranking(store, Ranking(id="l", responses=ids[:2], rank=(1, 2), **common))
    for name, values in (("book", BOOK), ("form", FORM)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    how = ("--principles", tmp_path / "book.yaml", "--template", tmp_path / "form.yaml")
    return ("judge", "principles", tmp_path / "store.db", *how)


def scores_of(folder: Path) -> list[PrincipleScore]:
    return read_records(folder / "scores.jsonl", PrincipleScore)


def test_a_store_is_scored(asked: tuple[object, ...], tmp_path: Path) -> None:
    mine = (*asked, "--dir", tmp_path / "out", "--labeler", stories_model())
    said = succeed(*mine, "--estimate")
    assert "11 pairs by 4 principles, 80 questions" in said and not (tmp_path / "out" / "scores.jsonl").exists()
    said = succeed(*mine)
    scores = scores_of(tmp_path / "out")
    assert "44 of 44 scores of 11 pairs" in said and "1 equal" in said and len(scores) == 44
    assert {score.responses for score in scores if score.prompt_id == "p3"} == {("r30", "r32"), ("r31", "r32")}
    assert {score.principle for score in scores} == set(BOOK["principles"])
    done = read_done(tmp_path / "out")
    assert done["counts"] == {"equal": 1} and done["results"]["asked"]["ok"] == 80
    found = done["results"]["principles"]["kind"]
    own = [score for score in scores if score.principle == "kind"]
    assert found["num"] == 11 and found["gap"] == pytest.approx(sum(abs(score.gap) for score in own) / 11)
    assert found["orders_agree"] == sum(a * b > 0 for a, b in (score.orders for score in own)) / 11
    before = (tmp_path / "out" / "done.json").read_bytes()
    succeed(*mine)
    assert (tmp_path / "out" / "done.json").read_bytes() == before


def test_short_responses_are_left_out_and_counted(asked: tuple[object, ...], tmp_path: Path) -> None:
    where = ("--dir", tmp_path / "out", "--labeler", stories_model())
    said = succeed(*asked, *where, "--min-characters", 6)
    texts = ["a cat", "a cat", "no"], SHORT, SHORT, SHORT
    pairs = [min(map(len, both)) >= 6 for of in texts for both in combinations(of, 2) if both[0] != both[1]]
    assert f"{4 * sum(pairs)} of {4 * sum(pairs)} scores of {sum(pairs)} pairs" in said and sum(pairs) > 1
    assert read_done(tmp_path / "out")["counts"] == {"short": len(pairs) - sum(pairs), "equal": 1}


def test_the_sets_beyond_a_limit_are_counted(asked: tuple[object, ...], tmp_path: Path) -> None:
    """Five sets: three prompts' responses, and a prompt's as two people ranked them."""
    succeed(*asked, "--dir", tmp_path / "out", "--labeler", stories_model(), "--limit", 4)
    assert read_done(tmp_path / "out")["counts"]["beyond_limit"] == 1


def test_stopped_and_gone_on_with_it_says_the_same(
    asked: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principle_scores, "CHUNK", 4)
    monkeypatch.setenv(runs.CHECKPOINT_VARIABLE, "0")
    succeed(*asked, "--dir", tmp_path / "whole", "--labeler", stories_model())
    calls: list[int] = []
    score_pairs = collect.score_pairs

    def dies(labeler: Any, principles: Any, pairs: Any) -> Any:
        calls.append(len(pairs))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score_pairs(labeler, principles, pairs)

    monkeypatch.setattr(principle_scores, "score_pairs", dies)
    cut = (*asked, "--dir", tmp_path / "cut", "--labeler", stories_model())
    refuse(*cut, code=130)
    assert "holds no scores" in refuse("judge", "aggregate", tmp_path / "cut", tmp_path / "labels")
    succeed(*cut)
    assert calls == [4, 4, 4, 3]
    one, two = (tmp_path / name for name in ("whole", "cut"))
    assert (one / "scores.jsonl").read_bytes() == (two / "scores.jsonl").read_bytes()
    assert (
        read_done(one)["results"] == read_done(two)["results"] and read_done(one)["counts"] == read_done(two)["counts"]
    )


def test_other_texts_need_another_folder(asked: tuple[object, ...], tmp_path: Path) -> None:
    mine = (*asked, "--dir", tmp_path / "out", "--labeler", stories_model())
    succeed(*mine)
    changed = yaml.safe_load((tmp_path / "book.yaml").read_text(encoding="utf-8"))
    changed["principles"]["kind"]["en"]["definition"] = "It is very kind."
    (tmp_path / "book.yaml").write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
    assert "was begun with other texts" in refuse(*mine)


def test_what_does_not_fit_is_counted_and_no_score(asked: tuple[object, ...], tmp_path: Path) -> None:
    """The shipped Chinese template is too long for this model's 512 tokens by some of the shipped principles."""
    chinese = ("--template", "principle.zh", "--limit", 2)
    said = succeed(*asked[:3], *chinese, "--dir", tmp_path / "out", "--labeler", stories_model())
    counts, results = (read_done(tmp_path / "out")[key] for key in ("counts", "results"))
    assert results["num_scores"] + counts["long"] == 11 * results["num_pairs"] and "by 11 principles" in said
    assert results["num_scores"] and f"{results['asked']['long']} questions exceed the model's context" in said
    assert len(scores_of(tmp_path / "out")) == results["num_scores"]


def test_labels_of_both_ways(asked: tuple[object, ...], tmp_path: Path) -> None:
    succeed(*asked, "--dir", tmp_path / "out", "--labeler", stories_model())
    said = succeed("judge", "aggregate", tmp_path / "out", tmp_path / "paper", "--seed", 3)
    assert "11 rankings under principles of 4 prompts" in said and "decided by: " in said
    paper = read_snapshot(tmp_path / "paper")
    assert paper.labelers == (Labeler(id="stories260K form.yaml, principles by 3, seed 3", kind="principles"),)
    assert [one.id for one in paper.principles] == ["short", "kind", "true", "merry"] and not paper.rankings
    gap = {(score.responses, score.principle): score.gap for score in scores_of(tmp_path / "out")}
    for ranking in paper.principle_rankings:
        assert sorted(id for id, _ in ranking.principles) == ["kind", "short", "true"]
        size = {id: abs(gap[ranking.responses, id]) for id, _ in ranking.principles}
        assert size[ranking.decided_by] == max(size.values())
        likes = (gap[ranking.responses, ranking.decided_by] > 0) != dict(ranking.principles)[ranking.decided_by]
        assert ranking.rank == ((1, 2) if likes else (2, 1))
    succeed("judge", "aggregate", tmp_path / "out", tmp_path / "two", "--number", 2)
    assert {len(one.principles) for one in read_snapshot(tmp_path / "two").principle_rankings} == {2}
    for way, idle in (("sets", "--number"), ("sets", "--passes"), ("paper", "--least-gap"), ("released", "--number")):
        mine = ("judge", "aggregate", tmp_path / "out", tmp_path / "idle", "--as", way, idle, 2)
        assert f"does nothing where way is {way}" in refuse(*mine) and not (tmp_path / "idle").exists()
    again = read_snapshot(tmp_path / "paper").hash
    succeed("judge", "aggregate", tmp_path / "out", tmp_path / "paper", "--seed", 3)
    assert read_snapshot(tmp_path / "paper").hash == again
    assert "another snapshot" in refuse("judge", "aggregate", tmp_path / "out", tmp_path / "paper", "--seed", 4)
    released_way = ("judge", "aggregate", tmp_path / "out", tmp_path / "released", "--as", "released")
    assert "no label came of it (undecided 44)" in refuse(*released_way)  # this model minds the place alone
    minded = [score.model_copy(update={"orders": (score.gap, 2 * score.gap)}) for score in scores_of(tmp_path / "out")]
    minded = [one.model_copy(update={"orders": (1.0, -1.0)}) if one.prompt_id == "p0" else one for one in minded]
    lines = "".join(score.model_dump_json() + "\n" for score in minded)
    (tmp_path / "out" / "scores.jsonl").write_text(lines, encoding="utf-8")
    assert "turned round as noise" in succeed(*released_way)
    released_at = tmp_path / "released"
    released = read_snapshot(released_at)
    assert len(released.principle_rankings) + sum(released.dropped.values()) == 4 * 11
    assert released.labelers[0].id.endswith("principles as released, seed 0")
    assert released.dropped["undecided"] >= 12 and "p0" not in {one.id for one in released.prompts}
    other = tmp_path / "other"
    succeed(*released_way[:3], other, "--as", "released", "--seed", 1)
    orders = [[one.principles for one in read_snapshot(place).principle_rankings] for place in (released_at, other)]
    assert orders[0] != orders[1]


def test_no_label_without_a_weight(asked: tuple[object, ...], tmp_path: Path) -> None:
    nothing = BOOK | {"collections": {"none": {"short": 0}}}
    (tmp_path / "book.yaml").write_text(yaml.safe_dump(nothing, sort_keys=False), encoding="utf-8")
    succeed(*asked, "--dir", tmp_path / "out", "--labeler", stories_model())
    line = refuse("judge", "aggregate", tmp_path / "out", tmp_path / "labels")
    assert "no label came of it (unscored 11)" in line and not (tmp_path / "labels").exists()


def test_a_server_scores_and_is_not_asked_twice(asked: tuple[object, ...], tmp_path: Path) -> None:
    judge = Judge("chat", "logprobs")
    quick = ("--server", "tries=2", "--server", "in_flight=4")
    with running(judge) as address:
        mine = (*asked, "--dir", tmp_path / "out", "--labeler", address, *quick)
        assert "80 questions: 80 calls, about " in succeed(*mine, "--estimate") and not judge.asked
        said = succeed(*mine)
        assert "44 of 44 scores" in said and "80 calls answered" in said
        assert "0 calls answered" in succeed(*mine) and len(judge.asked) == 80
    assert read_done(tmp_path / "out")["results"]["how"].startswith("log-probabilities")
    assert all(json.loads(line)["orders"] for line in (tmp_path / "out" / "scores.jsonl").read_text().splitlines())


def test_a_server_that_dies_is_gone_on_with(asked: tuple[object, ...], tmp_path: Path) -> None:
    """What failed is no score of 0: nothing is written before the server is back, and nothing is asked twice."""

    def dead(body: object, number: int) -> HTTPResponse | None:
        return JSONResponse({"error": {"message": "planted"}}, 500) if number >= 30 else None

    judge = Judge("chat", "logprobs", bad=dead)
    quick = ("--server", "tries=2", "--server", "in_flight=4")
    with running(judge) as address:
        mine = (*asked, "--dir", tmp_path / "out", "--labeler", address, *quick)
        assert "run the same command again" in refuse(*mine) and not (tmp_path / "out" / "scores.jsonl").exists()
        seen, judge.bad = len(judge.asked), None
        assert "44 of 44 scores" in succeed(*mine)
        assert len(judge.asked) == seen + 80 - 30 and len({*judge.prompts()}) == 80


def test_one_question_that_a_server_refuses_is_no_score(asked: tuple[object, ...], tmp_path: Path) -> None:
    def refuses(body: Any, number: int) -> HTTPResponse | None:
        wrong = {"error": {"message": "flagged", "code": "content_filter"}}
        return JSONResponse(wrong, 400) if "It is kind. " in str(body) and "Say 2" in str(body) else None

    judge = Judge("chat", "logprobs", bad=refuses)
    with running(judge) as address:
        succeed(*asked, "--dir", tmp_path / "out", "--labeler", address, "--server", "tries=2")
    assert read_done(tmp_path / "out")["counts"] == {"refusal": 3, "equal": 1}
    scores = scores_of(tmp_path / "out")
    assert len(scores) == 41 and ("p2", "kind") not in {(score.prompt_id, score.principle) for score in scores}


def test_what_a_failing_server_lost_is_asked_for_again(asked: tuple[object, ...], tmp_path: Path) -> None:
    """And what it refused is not: of one pair, by one principle, an order fails, and by another one is filtered."""

    def bad(body: Any, number: int) -> HTTPResponse | None:
        said = str(body)
        if "Say 2 1: a cat 2: the dog" not in said or "It is true" in said or "It is short" in said:
            return None
        wrong = {"error": {"message": "planted", "code": "content_filter" if "It is merry" in said else ""}}
        return JSONResponse(wrong, 400 if "It is merry" in said else 500)

    judge = Judge("chat", "logprobs", bad=bad)
    with running(judge) as address:
        mine = (*asked, "--dir", tmp_path / "out", "--labeler", address, "--server", "tries=2")
        said = succeed(*mine)
        assert "42 of 44 scores" in said and "api, 1: 2 tries: 500: planted" in said and "asks again" in said
        seen, judge.bad = len(judge.asked), None
        assert "43 of 44 scores" in succeed(*mine)
        [again] = judge.prompts()[seen:]
        assert "It is kind." in again and read_done(tmp_path / "out")["counts"] == {"refusal": 1, "equal": 1}
        succeed(*mine)
        assert len(judge.asked) == seen + 1
        succeed(*asked, "--dir", tmp_path / "whole", "--labeler", address, "--server", "tries=2")
    out, whole = scores_of(tmp_path / "out"), scores_of(tmp_path / "whole")
    assert out == [score for score in whole if (score.responses, score.principle) != (("r20", "r21"), "merry")]


def test_a_server_of_votes_is_refused(asked: tuple[object, ...], tmp_path: Path) -> None:
    with running(Judge("chat", "words")) as address:
        line = refuse(*asked, "--dir", tmp_path / "out", "--labeler", address, "--server", "tries=2")
    assert "gives no log-probabilities" in line and not (tmp_path / "out" / "items").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--principles", "preferences"), "did you mean preference?"),
        (("--template", "principle.fr"), "no template 'principle.fr'"),
        (("--template", "principle.zh"), "short has no text in 'zh'"),
    ],
)
def test_mistakes_are_said_before_a_model_is_loaded(
    asked: tuple[object, ...], tmp_path: Path, more: tuple[str, ...], says: str
) -> None:
    line = refuse(*asked, *more, "--dir", tmp_path / "out", "--labeler", tmp_path / "no-model")
    assert says in line and not (tmp_path / "out").exists()


def test_a_prompt_and_a_response_of_one_id_cannot_be_told_apart() -> None:
    response = Response(id="x", prompt_id="x", text="yes")
    with pytest.raises(InputError, match="x is the id of a prompt and of a response"):
        texts_of(Snapshot((Prompt(id="x", text="no", user="u"),), (response,)))
