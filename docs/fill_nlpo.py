"""The result of "increasing numbers" in docs/nlpo.md, from what the benchmark wrote and never by hand.

python docs/fill_nlpo.py increasing_numbers.json
"""

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from tables import filled, markdown, number

from heedful.evaluate.statistics import clustered_mean

PAGE = Path(__file__).parent / "nlpo.md"
HALF = 5  # iterations whose mean reward is compared along the way
Json = dict[str, Any]


def over_seeds(values: list[float], digits: int = 3) -> str:
    found = clustered_mean(values, range(len(values)))
    if found.low is None or found.high is None:
        return number(found.mean, digits)
    return f"{number(found.mean, digits)} ({number(found.low, digits)}…{number(found.high, digits)})"


def half_way(row: Json) -> float:
    """Mean reward of the iterations around the middle."""
    middle = len(row["curve"]) // 2
    part = row["curve"][max(0, middle - HALF) : middle + HALF]
    return float(sum(part) / len(part))


def table(found: Json) -> str:
    lines = [["start", "–", over_seeds([row["reward"] for row in found["start"]]), "0", "–", "–"]]
    for name in ("ppo", "nlpo"):
        rows = found[name]
        columns = [over_seeds([half_way(row) for row in rows]), over_seeds([row["reward"] for row in rows])]
        columns += [over_seeds([row[key] for row in rows], 1) for key in ("kl", "allowed")]
        lines.append([name.upper(), *columns, over_seeds([row["seconds"] for row in rows], 0)])
    return markdown(["", "reward half-way", "reward at the end", "KL", "tokens allowed", "seconds"], lines)


def verdict(found: Json) -> str:
    gained = [n["reward"] - p["reward"] for n, p in zip(found["nlpo"], found["ppo"], strict=True)]
    over = clustered_mean(gained, range(len(gained)))
    seeds = ", ".join(map(str, found["seeds"]))
    about = f"Seeds {seeds}, {found['iterations']} iterations. NLPO ends higher in {sum(g > 0 for g in gained)} of "
    further = mean(row["kl"] for row in found["nlpo"]) - mean(row["kl"] for row in found["ppo"])
    about += f"{len(gained)} seeds, {further:+.1f} nats further from the start. NLPO's reward less PPO's: "
    about += f"{over_seeds(gained)}: "
    if over.low is None or over.high is None:
        return about + "of one seed, which says nothing of another."
    if over.low > 0:
        return about + "NLPO gains more."
    return about + ("PPO gains more." if over.high < 0 else "these seeds do not tell the two apart.")


def texts(found: Json) -> dict[str, str]:
    return {"result": f"{table(found)}\n\n{verdict(found)}"}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    new = texts(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "numbers", new), encoding="utf-8")
