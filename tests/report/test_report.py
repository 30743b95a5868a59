"""The report of a real tiny run: valid, alone, and every number where results.json has it."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heedful.config import InputError
from heedful.report import write_report
from heedful.report.episodes import episode_trace
from heedful.report.folder import RunFolder, pointer
from heedful.report.page import render
from heedful.report.trace import ranking_trace
from heedful.run import read_jsonl
from heedful.snapshot import read_snapshot
from report.page import Page


@pytest.fixture(scope="module")
def page(tiny_run: Path) -> Page:
    return Page(render(RunFolder(tiny_run)))


@pytest.fixture(scope="module")
def results(tiny_run: Path) -> dict[str, Any]:
    return json.loads((tiny_run / "results.json").read_text())


def leaves(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*place, key))
    else:
        yield place, value


def test_the_file_is_written_whole_small_and_the_same_every_time(tiny_copy: Path) -> None:
    path = write_report(tiny_copy)
    first = path.read_bytes()
    assert path == tiny_copy / "report.html" and not (tiny_copy / "report.html.partial").exists()
    assert len(first) < 1_000_000
    assert write_report(tiny_copy).read_bytes() == first


def test_nothing_is_loaded_from_elsewhere(page: Page) -> None:
    for element in page.elements:
        assert element.tag not in ("link", "img", "iframe", "object", "embed", "video", "audio", "base", "form")
        assert not {"src", "srcset", "data", "action", "xlink:href"} & element.attributes.keys()
        assert not any(name.startswith("on") for name in element.attributes)
    style = "".join(element.text for element in page.all("style"))
    script = "".join(element.text for element in page.all("script"))
    assert "url(" not in style and "@import" not in style
    assert not any(word in script for word in ("fetch", "import(", "XMLHttpRequest", "http", "eval", "innerHTML"))
    policy = next(e.attributes["content"] for e in page.all("meta") if "http-equiv" in e.attributes)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_links_within_the_page_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    inner = [str(e.attributes["href"])[1:] for e in page.all("a") if str(e.attributes["href"]).startswith("#")]
    assert len(inner) >= 11 and set(inner) <= set(ids)
    outer = {str(e.attributes["href"]) for e in page.all("a")} - {f"#{id}" for id in inner}
    assert all(href.startswith("https://arxiv.org/abs/") for href in outer)


def test_every_number_shown_is_the_one_in_results_json(page: Page, tiny_run: Path) -> None:
    run = RunFolder(tiny_run)
    shown = [e for e in page.elements if "data-key" in e.attributes]
    assert len(shown) > 150
    for element in shown:
        value = run.at(str(element.attributes["data-key"]))
        text = element.text.replace("−", "-").replace("\u2009", "")
        if value is None:
            assert text == "–", element
            continue
        digits = len(text.removesuffix(" %").partition(".")[2])
        factor = 100 if text.endswith(" %") else 1
        assert abs(float(text.removesuffix(" %")) - factor * value) <= 0.5000001 * 10**-digits, element
        assert float(str(element.attributes["data-exact"])) == value


def test_every_number_of_results_json_is_shown(page: Page, results: dict[str, Any]) -> None:
    shown = {e.attributes["data-key"] for e in page.elements if "data-key" in e.attributes}
    for place, value in leaves(results):
        if not isinstance(value, int | float) or place == ("seed",):
            continue
        beside = str(place[-2]).endswith("_interval") or (len(place) > 2 and str(place[-3]).endswith("_interval"))
        if beside and place[-1] == "mean":
            continue  # the same number stands in the table without its interval
        if place[:3] == ("policies", results["baseline"], "win_rate") and place[-1] in (
            "low",
            "high",
            "wins",
            "losses",
            "ties",
        ):
            continue  # the baseline against itself
        assert pointer(*place) in shown, place


def test_every_null_is_said_with_its_reason(page: Page, results: dict[str, Any]) -> None:
    text = page.section("dropped")
    nulls = [place for place, value in leaves(results) if value is None]
    assert ("policies", "gpt_prompted", "kl") in nulls
    for place in nulls:
        assert ".".join(str(part) for part in place) in text
    assert "no reason given" not in text


def test_every_count_of_the_steps_is_shown_once(page: Page, tiny_run: Path) -> None:
    rows = [[cell.text for cell in row.children] for row in page.all("tr")]
    for path in tiny_run.rglob("done.json"):
        place = str(path.parent.relative_to(tiny_run))
        for reason, number in json.loads(path.read_text())["counts"].items():
            assert rows.count([place, reason.replace("_", " "), f"{number:,}".replace(",", "\u2009")]) == 1


def test_every_policy_and_every_ppo_variant_has_its_place(page: Page, results: dict[str, Any]) -> None:
    for name in results["policies"]:
        assert name in page.section("results") and name in page.section("samples")
    lines = {str(e.attributes["data-name"]) for e in page.all("polyline")}
    assert {"ppo", "ppo_ptx", "training", "training rankings"} <= lines
    assert "Score" in page.section("curves") and "Engine mismatch" in page.section("curves")
    assert page.section("configuration").count("data/ppo") >= 2


def test_every_rate_says_how_many_ratings_answered_its_box(results: dict[str, Any], tiny_run: Path) -> None:
    judged = tiny_run / "evaluation/judgements"
    given = {(row["policy"], row["prompt_id"]): row["response_id"] for row in read_jsonl(judged / "samples.jsonl")}
    ratings = read_snapshot(judged / "snapshot").ratings
    for name, found in results["policies"].items():
        own = [r for r in ratings if given[name, r.prompt_id] == r.response_id]
        assert own and found["metadata"].keys() == found["metadata_interval"].keys()
        for flag, rate in found["metadata"].items():
            answers = [r.flags[flag] for r in own if flag in r.flags]
            assert found["metadata_interval"][flag]["num_ratings"] == len(answers)
            assert rate == pytest.approx(sum(answers) / len(answers))


def test_several_rounds_are_said_to_count_together(page: Page, tiny_copy: Path) -> None:
    assert "rounds" not in page.section("reward-model") + page.section("labelers")
    shutil.copytree(tiny_copy / "round-1", tiny_copy / "round-2")
    later = Page(render(RunFolder(tiny_copy)))
    assert "the rankings of all 2 rounds together" in later.section("reward-model")
    assert "All 2 rounds' rankings count together, here and in agreement" in later.section("labelers")


def test_the_followed_ranking_is_the_logged_one(tiny_run: Path) -> None:
    trace = ranking_trace(RunFolder(tiny_run))
    assert trace is not None and trace.loss is not None and not trace.reason
    row = read_jsonl(tiny_run / "round-1/reward_model/samples.jsonl")[0]
    assert trace.ranking.id == row["ranking_id"] and trace.labeler.group == "train" and trace.prompt.split == "train"
    assert [one.text for one in trace.shown] == [texts(tiny_run)[id] for id in trace.ranking.order]
    pairs = [
        (row["after"][i] - row["after"][j], row["before"][i] - row["before"][j])
        for i, a in enumerate(row["rank"])
        for j, b in enumerate(row["rank"])
        if a < b
    ]
    assert [p.after for p in trace.pairs] == pytest.approx([after for after, _ in pairs])
    assert [p.before for p in trace.pairs] == pytest.approx([before for _, before in pairs])
    for shown, margins in zip(trace.loss, ([b for _, b in pairs], [a for a, _ in pairs]), strict=True):
        assert shown == pytest.approx(-sum(math.log(1 / (1 + math.exp(-m))) for m in margins) / len(margins))


def texts(folder: Path) -> dict[str, str]:
    return {row["id"]: row["text"] for row in read_jsonl(folder / "round-1/rankings/snapshot/responses.jsonl")}


def test_the_followed_episode_obeys_the_formulas(tiny_run: Path) -> None:
    """The logged tokens: reward is score and penalty, returns are GAE's, the advantage is whitened (one line)."""
    for variant in ("ppo", "ppo_ptx"):
        metrics = read_jsonl(tiny_run / f"round-1/{variant}/metrics.jsonl")
        rows = read_jsonl(tiny_run / f"round-1/{variant}/samples.jsonl")
        assert [row["iteration"] for row in rows] == [m["step"] for m in metrics]
        row, kl_coef = rows[-1], metrics[-1]["kl_coef"]
        penalty = [-kl_coef * (a - b) for a, b in zip(row["logprob"], row["ref_logprob"], strict=True)]
        expected = [*penalty[:-1], penalty[-1] + row["score"]]
        assert row["reward"] == pytest.approx(expected, abs=1e-5)
        value, raw = [*row["value"], 0.0], [0.0] * (len(penalty) + 1)
        for t in reversed(range(len(penalty))):
            raw[t] = row["reward"][t] + value[t + 1] - value[t] + 0.95 * raw[t + 1]
        assert row["returns"] == pytest.approx([a + v for a, v in zip(raw[:-1], row["value"], strict=True)], abs=1e-4)
        slope = (row["advantage"][0] - row["advantage"][-1]) / (raw[0] - raw[-2])
        assert slope > 0
        lined = [row["advantage"][-1] + slope * (a - raw[-2]) for a in raw[:-1]]
        assert row["advantage"] == pytest.approx(lined, abs=1e-3)


def test_the_followed_episode_is_the_last_one_of_the_last_variant(tiny_run: Path) -> None:
    trace = episode_trace(RunFolder(tiny_run))
    row = read_jsonl(tiny_run / "round-1/ppo_ptx/samples.jsonl")[-1]
    assert trace is not None and (trace.variant, trace.iteration) == ("ppo_ptx", row["iteration"])
    assert trace.prompt is not None and trace.prompt.id == row["prompt_id"]
    assert [t.advantage for t in trace.tokens] == row["advantage"]
    assert " ".join(t.text.strip() for t in trace.tokens[: len(row["tokens"])]).split() == row["text"].split()


@pytest.mark.parametrize(
    ("hole", "said"),
    [
        ("results.json", "This run is not finished"),
        ("recipe.json", "recipe.json"),
        ("pretrain", "No pretraining here"),
        ("sft/metrics.jsonl", "sft/metrics.jsonl: not there"),
        ("round-1/choose_epoch/done.json", "round-1/choose_epoch"),
        ("round-1/reward_model/samples.jsonl", "margins are missing"),
        ("round-1/ppo_ptx/trace.json", "it was written by an earlier version"),
        ("round-1/ppo_ptx/done.json", "An episode of PPO's own"),
        ("round-1/scores", "Fewer than two scored comparisons"),
        ("round-1/rankings", "No rankings were collected yet"),
        ("round-1/ppo_ptx/samples.jsonl", "One judgement followed"),
        ("round-1", "No policy was optimised in this run yet"),
        ("evaluation/judgements", "there are no responses to compare"),
        ("evaluation/ppo/samples.jsonl", "evaluation/ppo/samples.jsonl: not there"),
        ("data/ppo", "the prompt is not in data/ppo"),
    ],
)
def test_a_hole_is_said_and_spoils_nothing_else(tiny_run: Path, tmp_path: Path, hole: str, said: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder, ignore=shutil.ignore_patterns("*.safetensors", "store.db", "documents.jsonl"))
    place = folder / hole
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    assert said in " ".join(page.all("body")[0].text.split())


@pytest.mark.parametrize(
    "key",
    ["seconds", "agreement", "reward_model", "policies", "baseline", "/policies/ppo/win_rate", "/policies/ppo/score"],
)
def test_results_without_a_key_are_shown_without_it(tiny_run: Path, key: str) -> None:
    run = RunFolder(tiny_run)
    run.results = json.loads((tiny_run / "results.json").read_text())
    *path, last = key.strip("/").split("/")
    block = run.results
    for part in path:
        block = block[part]
    del block[last]
    assert "Configuration and parents" in Page(render(run)).all("main")[0].text


def test_a_torn_log_is_named(tiny_copy: Path) -> None:
    with (tiny_copy / "round-1/ppo/metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "sco')
    text = Page(render(RunFolder(tiny_copy))).section("dropped")
    assert "round-1/ppo/metrics.jsonl: holds a broken line" in text


def test_numbers_that_are_not_finite_are_left_out_and_counted(tiny_copy: Path) -> None:
    with (tiny_copy / "round-1/ppo/metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "score": NaN}\n')
    text = Page(render(RunFolder(tiny_copy))).section("curves")
    assert "1 points are not finite numbers and left out" in text


def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_report_starts_without_torch_and_without_sql() -> None:
    code = (
        "import sys, heedful.report; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'sqlalchemy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
