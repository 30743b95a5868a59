"""What a run's AI labelers and its reward models came to, as rows of results.json."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heedful.evaluate.reward_model import accuracy_by_group, calibration, comparisons
from heedful.run import read_done, read_jsonl
from heedful.snapshot import Snapshot
from heedful.types import Ranking

Json = dict[str, Any]


def ai_labelers(round_folder: Path) -> list[Json] | None:
    """A row for each figure of each AI labeler that ranked (docs/rlaif.md); None where none did."""
    rows = [
        {"labeler": place.parent.name, "figure": figure, **estimate_of(found)}
        for place in sorted((round_folder / "labels").glob("*/done.json"))
        for figure, found in read_done(place.parent)["results"]["figures"].items()
    ]
    return rows or None


def estimate_of(found: Json) -> Json:
    """With the reason where there is no number."""
    told = {key: found[key] for key in ("mean", "low", "high", "num")}
    return told | ({"reason": found["reason"]} if found["mean"] is None else {})


def reward_models(round_folder: Path, snapshot: Snapshot, asked: Sequence[Ranking]) -> list[Json] | None:
    """Each reward model's accuracy on people's held-out comparisons, by group, and its calibration error.

    `asked` are people's rankings of held-out prompts. None where there is but one reward model.
    """
    scored = {place.parent.name.removeprefix("scores-") for place in round_folder.glob("scores-*/done.json")}
    further = [one for one in sorted((round_folder / "further").glob("*/done.json")) if one.parent.name in scored]
    if not further:
        return None
    length = {response.id: len(response.text) for response in snapshot.responses}
    places = {"reward_model": round_folder / "scores"}
    places |= {done.parent.name: round_folder / f"scores-{done.parent.name}" for done in further}
    rows = []
    for name, place in places.items():
        score = {row["response_id"]: row["score"] for row in read_jsonl(place / "samples.jsonl")}
        items = comparisons(asked, score, length)
        error = calibration(items)[1] if items else None
        for group, found in accuracy_by_group(items, snapshot.labeler_by_id()).items():
            told = {"mean": found.mean, "low": found.low, "high": found.high, "num": found.num}
            rows.append({"reward_model": name, "labelers": group, **told, "calibration_error": error})
    return rows


def followed(round_folder: Path) -> list[Json] | None:
    """How well each reward model with a guideline follows its principles, and who scored; None where there is none."""
    place = round_folder / "principles" / "measured"
    return read_done(place)["results"]["rows"] if (place / "done.json").exists() else None


def of_people(snapshot: Snapshot) -> Snapshot:
    """The snapshot without AI labelers' rankings, where anybody else has ranked."""
    who = snapshot.labeler_by_id()
    rankings = tuple(ranking for ranking in snapshot.rankings if who[ranking.labeler].kind != "ai")
    return replace(snapshot, rankings=rankings or snapshot.rankings)
