"""The tables of docs/rlaif.md, from the over_seeds.json of a finished run and never by hand.

    python docs/fill_rlaif.py runs/rlaif/over_seeds.json

Each table stands between `<!-- rlaif:NAME -->` and `<!-- /rlaif -->`.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.report.rlaif_shapes import shapes

PAGE = Path(__file__).parent / "rlaif.md"
Json = dict[str, Any]

LABELERS = {
    "alignment": "alignment",
    "alignment_one_order": "of one order",
    "same_position": "same position",
    "alignment_same_position": "alignment there",
    "first_of_same": "of those the first",
    "calibration_error": "calibration error",
    "prefers_longer": "prefers longer",
}
MODELS = {
    "accuracy_heldout": "held-out labelers",
    "accuracy_train": "training labelers",
    "calibration_error": "calibration error",
}
POLICIES = {
    "win_rate": "win rate",
    "win_rate_at_equal_length": "at equal length",
    "gold": "exact utility",
    "likert": "Likert",
    "kl": "KL",
    "harmful_advice": "harmful advice",
}


def with_interval(row: Json | None, percent: bool) -> str:
    if row is None or row["mean"] is None:
        return "–"
    scale, digits = (100, 1) if percent else (1, 3)
    mean = f"{scale * row['mean']:.{digits}f}"
    if row["low"] is None or row["low"] == row["high"]:
        return mean
    return f"{mean} ({scale * row['low']:.{digits}f}…{scale * row['high']:.{digits}f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def table(rows: Sequence[Json], name: str, columns: dict[str, str], plain: Sequence[str] = ()) -> str:
    """A line for each name; columns in `plain` are no percentages."""
    found = {(row["name"], row["measure"]): row for row in rows if row["table"] == name}
    names = list(dict.fromkeys(of for of, _ in found))
    lines = [
        [of.replace("_", " "), *(with_interval(found.get((of, measure)), measure not in plain) for measure in columns)]
        for of in names
    ]
    return markdown(["", *columns.values()], lines)


def pairwise(rows: Sequence[Json]) -> str:
    found = {(row["name"], row["measure"]): row for row in rows if row["table"] == "pairwise"}
    names = list(dict.fromkeys(of for of, _ in found))
    lines = [[of, *(with_interval(found.get((of, other)), True) for other in names)] for of in names]
    return markdown(["", *names], lines)


def verdicts(rows: Sequence[Json]) -> str:
    words = {True: "yes", False: "**no**", None: "open"}
    lines = [[s.figure, s.claim, s.paper, s.ours, words[s.holds]] for s in shapes(rows)]
    return markdown(["table", "shape", "paper", "here", "comes out"], lines)


def tables(found: Json) -> dict[str, str]:
    """Of the sweep's last group, where its matrix makes several; their cells share steps, so time is counted in all."""
    group = found["groups"][-1]
    rows, seconds = group["rows"], sum(sum(each["seconds"]) for each in found["groups"])
    seeds, commits = ", ".join(map(str, group["seeds"])), ", ".join(f"`{commit}`" for commit in group["commits"])
    about = f"Seeds {seeds}; {seconds / 60:.0f} min for all of them; commit {commits}."
    return {
        "run": about,
        "shapes": verdicts(rows),
        "labelers": table(rows, "ai_labelers", LABELERS),
        "models": table(rows, "reward_models", MODELS),
        "policies": table(rows, "policies", POLICIES, plain=("gold", "likert", "kl")),
        "pairwise": pairwise(rows),
    }


def filled(page: str, found: Json) -> str:
    """The page with every table written anew.

    Raises:
        LookupError: the page has no marker for a table.
    """
    for name, text in tables(found).items():
        pattern = rf"(<!-- rlaif:{name} -->\n).*?(<!-- /rlaif -->)"
        page, number = re.subn(pattern, lambda m, t=text: f"{m[1]}{t}\n{m[2]}", page, flags=re.DOTALL)
        if not number:
            raise LookupError(f"no <!-- rlaif:{name} --> on the page")
    return page


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    PAGE.write_text(
        filled(PAGE.read_text(encoding="utf-8"), json.loads(Path(sys.argv[1]).read_text())), encoding="utf-8"
    )
