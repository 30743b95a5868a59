"""The tables and charts of docs/overoptimization.md, from the results.json of a finished run and never by hand.

python docs/fill_overoptimization.py runs/lab/results.json
"""

import json
import sys
from pathlib import Path
from typing import Any

from pictures import picture
from tables import filled, markdown, number

from heedful.report.folder import RunFolder
from heedful.report.lab import panels
from heedful.report.lab_shapes import NEAR, inside, shapes

PAGE = Path(__file__).parent / "overoptimization.md"
PICTURE = PAGE.parent / "img" / "overoptimization.svg"
FORMS = {"best_of_n": "best of n", "rl": "RL"}
Json = dict[str, Any]


def with_interval(row: Json, key: str) -> str:
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return number(row[key]) + (f" ({number(low)}…{number(high)})" if low is not None else "")


def laws(lab: Json) -> str:
    lines = []
    for row in lab["laws"]:
        seen = f"{number(row['observed_kl'], 2)}{'' if inside(row) else ' (its end)'}"
        near = {None: "–", True: "yes", False: "**no**"}[None if row["off"] is None else row["off"] <= NEAR]
        coefficients = [with_interval(row, "alpha"), with_interval(row, "beta")]
        peaks = [seen, number(row["observed_gold"]), number(row["predicted_kl"], 2), near]
        lines.append([row["proxy"], FORMS[row["form"]], *coefficients, number(row["kl_reached"], 2), *peaks])
    head = ["proxy", "by", "α", "β", "KL reached", "peak seen at", "gold there", "predicted at", "within 1 nat"]
    return markdown(head, lines)


def findings(lab: Json) -> str:
    words = {True: "yes", False: "**no**", None: "–"}
    lines = [[s.figure, s.claim, s.paper, s.ours, words[s.holds]] for s in shapes(lab)]
    return markdown(["figure", "finding", "paper", "here", "comes out"], lines)


def run(results: Json) -> str:
    minutes = results["seconds"]["total"] / 60
    return f"Seed {results['seed']}; {minutes:.0f} min; commit `{results['commit']}`. KL in nats, gold in utility."


def texts(results: Json) -> dict[str, str]:
    return {"run": run(results), "laws": laws(results["lab"]), "findings": findings(results["lab"])}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = texts(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    exact = [panel for panel in panels(RunFolder(Path(sys.argv[1]).parent)) if "exact utility" in panel.title]
    PICTURE.write_text(picture(exact), encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "lab", found), encoding="utf-8")
