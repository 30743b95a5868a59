"""Models' responses to the same prompts compared outside a run: by the rankings on record, or by another judge."""

import importlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from heedful.config import InputError
from heedful.evaluate.judges import FunctionJudge, Judge, RewardModelJudge, Score, ask
from heedful.evaluate.preference import Judged, Row, Tables, by_model, tables
from heedful.evaluate.tables import write_tables
from heedful.evaluate.win_rate import Given
from heedful.export.model import run_of, trained_format
from heedful.feedback.simulated import Purpose
from heedful.feedback.verdict import Item
from heedful.models.checkpoint import load_reward_model
from heedful.run import read_jsonl, write_atomic
from heedful.snapshot import Snapshot, read_snapshot
from heedful.store.database import open_store
from heedful.store.export import export_snapshot
from heedful.text.format import PromptFormat
from heedful.types import Prompt


class Material(NamedTuple):
    """Prompts, responses and judgements; `given` tells whose the responses are, `gold` their exact scores, by id."""

    snapshot: Snapshot
    given: Given
    gold: Mapping[str, float]
    counts: Mapping[str, int]  # what was left out


class Compared(NamedTuple):
    tables: Tables
    judge: str
    baseline: str
    unscored: Mapping[str, int]  # prompts without a verdict, and what was left out, by reason


def material(place: str, ranked: bool, purpose: Purpose = "evaluation") -> Material:
    """What a finished run's folder, a snapshot's folder or a store (its place) holds.

    `ranked`: of a snapshot or store only responses that somebody ranked. `purpose`: of a store, judgements made for it.

    Raises:
        InputError: nothing of these is there, or a model has several responses to one prompt.
    """
    judged = Path(place) / "evaluation" / "judgements"
    if (judged / "done.json").exists():
        rows = read_jsonl(judged / "samples.jsonl")
        given: dict[str, dict[str, str]] = {}
        for row in rows:
            given.setdefault(row["policy"], {})[row["prompt_id"]] = row["response_id"]
        gold = {row["response_id"]: row["gold"] for row in rows if row["gold"] is not None}
        return Material(read_snapshot(judged / "snapshot"), given, gold, {})
    if (Path(place) / "snapshot.json").exists():
        found = read_snapshot(Path(place))
    else:
        with open_store(place) as store:
            found = export_snapshot(store, purpose=purpose, heldout="include")
    known = {id for ranking in found.rankings for id in ranking.responses} if ranked else None
    chosen = [response for response in found.responses if known is None or response.id in known]
    counts = Counter({"responses that nobody ranked": len(found.responses) - len(chosen)})
    counts["responses of no named model"] = sum(not response.model for response in chosen)
    return Material(found, by_model(chosen), {}, +counts)


def compare(place: str, baseline: str, by: str, purpose: Purpose = "evaluation", style: bool = False) -> Compared:
    """Every table of preference; `by`: "people" (the rankings there), "gold", a reward model, or module:function.

    Raises:
        InputError: as `material` and `judge_named`; a baseline that gave no response; no prompt with two responses.
    """
    found = material(place, by == "people", purpose)
    if by == "people":
        unscored: Counter[str] = Counter()
        snapshot = found.snapshot
    else:
        judge = judge_named(by, found)
        asked = ask(judge, items(found))
        unscored = asked.unscored
        snapshot = replace(found.snapshot, rankings=tuple(asked.rankings), ratings=(), labelers=(judge.labeler,))
    judged = Judged.of(snapshot, found.given, baseline)
    if not judged.others() or not judged.rankings:
        raise InputError(f"{place} holds nothing to compare with {baseline}: no ranking of two models' responses")
    made = tables(judged, two_way=by == "people", style=style)
    return Compared(made, by, baseline, dict(unscored) | dict(found.counts))


def items(found: Material) -> list[Item]:
    """Each prompt with the different responses of all models."""
    by_id = {response.id: response for response in found.snapshot.responses}
    return [
        (prompt, [by_id[id] for id in dict.fromkeys(of[prompt.id] for of in found.given.values() if prompt.id in of)])
        for prompt in found.snapshot.prompts
    ]


def judge_named(name: str, found: Material) -> Judge:
    """The judge that --by names.

    Raises:
        InputError: no exact scores are on record, no such function, or no such reward model.
    """
    if name == "gold":
        if not found.gold:
            raise InputError("--by gold needs a finished run whose responses have exact scores; name another judge")
        text = {response.id: response.text for response in found.snapshot.responses}
        score = {(prompt, text[id]): found.gold.get(id) for of in found.given.values() for prompt, id in of.items()}
        return FunctionJudge("gold", lambda prompt, text: score[prompt.id, text])
    if Path(name).is_dir():
        run = run_of(Path(name))
        return RewardModelJudge(name, *load_reward_model(Path(name)), trained_format(run) if run else PromptFormat())
    return function_judge(name)


def function_judge(name: str) -> FunctionJudge:
    """`module:function` of prompt and text, which returns a number (higher is better) or None."""
    module, colon, function = name.partition(":")
    if not colon:
        raise InputError(
            f"--by {name}: no such judge; name people, gold, a reward model's folder, or a function as module:function"
        )
    try:
        called = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--by {name}: {error}; PYTHONPATH must hold the module's folder") from None

    def score(prompt: Prompt, text: str) -> Score:
        try:
            value = called(prompt, text)
            return None if value is None else float(value)
        except Exception as error:  # somebody else's function raises whatever it likes
            raise InputError(f"--by {name}: prompt {prompt.id}: {type(error).__name__}: {error}") from error

    return FunctionJudge(name, score)


def write(found: Compared, folder: Path) -> None:
    """tables/ as JSON and CSV, and compared.json: the judge, and what has no verdict."""
    write_tables(folder / "tables", found.tables)
    about = {"judge": found.judge, "baseline": found.baseline, "unscored": found.unscored}
    write_atomic(folder / "compared.json", json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def headline_rows(found: Compared) -> Sequence[Row]:
    """Win rates over all prompts by the group that judged, held-out labelers where both did."""
    rows = [row for row in found.tables["win_rates"] if row["distribution"] == "all" and row["num"]]
    groups = {row["group"] for row in rows}
    return [row for row in rows if row["group"] == ("heldout" if "heldout" in groups else "train")]
