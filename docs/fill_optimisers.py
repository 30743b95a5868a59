"""The tables and charts of docs/optimisers.md, from the over_seeds.json of finished runs and never by hand.

    python docs/fill_optimisers.py runs/optimisers/over_seeds.json runs/optimisers_stories/over_seeds.json

Each recipe fills its own half of the page; whatever a number may contradict is said by that number.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pictures import picture
from tables import filled, markdown, number

from heedful.evaluate.statistics import clustered_mean
from heedful.report.over_seeds import BEST, frontier

PAGE = Path(__file__).parent / "optimisers.md"
PICTURES = PAGE.parent / "img"
HALVES = {"optimisers": "world", "optimisers_stories": "stories"}  # by recipe
Json = dict[str, Any]


class Found:
    """One group of over_seeds.json: its rows by table, name and measure."""

    def __init__(self, group: Json) -> None:
        self.group = group
        self._rows = {(row["table"], row["name"], row["measure"]): row for row in group["rows"]}
        self.names = list(dict.fromkeys(name for table, name, _ in self._rows if table == "over_start"))

    def row(self, table: str, name: str, measure: str) -> Json | None:
        row = self._rows.get((table, name, measure))
        return None if row is None or row["mean"] is None else row

    def mean(self, table: str, name: str, measure: str) -> float | None:
        row = self.row(table, name, measure)
        return row["mean"] if row else None

    def group_of(self, table: str) -> list[str]:
        """The policies that the table has rows of."""
        return [name for name in self.names if any((of, who) == (table, name) for of, who, _ in self._rows)]

    def gains(self) -> dict[str, float]:
        """Gold gained over the start, mean over seeds, of every policy that has it."""
        found = {name: self.mean("over_start", name, "gold") for name in self.names}
        return {name: gain for name, gain in found.items() if gain is not None}


def with_interval(row: Json | None, scale: float = 1, digits: int = 3) -> str:
    if row is None:
        return "–"
    mean = number(scale * row["mean"], digits)
    if row["low"] is None or row["low"] == row["high"]:
        return mean
    return f"{mean} ({number(scale * row['low'], digits)}…{number(scale * row['high'], digits)})"


def about(found: Found) -> str:
    group = found.group
    seeds, commits = ", ".join(map(str, group["seeds"])), ", ".join(f"`{commit}`" for commit in group["commits"])
    minutes = ", ".join(f"{seconds / 60:.0f}" for seconds in group["seconds"])
    return f"Seeds {seeds}; {minutes} min; commit {commits}."


def gained(found: Found) -> str:
    """What every method made of the start, and how far it went."""
    lines = []
    for name in found.names:
        wins = found.row("over_start", name, "win_rate")
        above = None if wins is None or wins["low"] is None else wins["low"] > 0.5
        lines.append(
            [
                name,
                with_interval(found.row("over_start", name, "gold")),
                with_interval(wins, 100, 1),
                {True: "yes", False: "**no**", None: "–"}[above],
                with_interval(found.row("over_start", name, "sqrt_kl"), digits=2),
                number(found.mean("policies", name, "distinct_2")),
                number(found.mean("policies", name, "lm_loss")),
            ]
        )
    start = found.group["start"]
    head = ["", f"gold gained over {start}", f"win rate over {start}, %", "beats it", "√KL", "distinct-2", "LM loss"]
    return markdown(head, lines)


def cost(found: Found) -> str:
    lines = [
        [
            name,
            *(number(found.mean("optimised", name, key), 0) for key in ("episodes", "sampled_tokens", "seconds")),
            number(found.mean("policies", name, "sampled_per_answer"), 1),
        ]
        for name in found.names
    ]
    return markdown(["", "episodes", "sampled tokens", "seconds", "tokens for an answer"], lines)


def behind(found: Found, best: str, other: str) -> bool | None:
    """Whether the best gained more gold than the other over the seeds: 95 % interval of their differences above 0."""
    rows = [found.row("over_start", name, "gold") for name in (best, other)]
    if rows[0] is None or rows[1] is None or len(rows[0]["seeds"]) != len(rows[1]["seeds"]):
        return None
    differences = [a - b for a, b in zip(rows[0]["seeds"], rows[1]["seeds"], strict=True)]
    low = clustered_mean(differences, range(len(differences))).low
    return None if low is None else low > 0


def undominated(found: Found) -> list[str]:
    """Policies that no other betters: none gained as much gold nearer to the start."""
    gain = found.gains()
    root = {name: found.mean("over_start", name, "sqrt_kl") for name in gain}
    known = {name: value for name, value in root.items() if value is not None}
    return [
        name for name in known if not any(gain[o] >= gain[name] and known[o] < known[name] for o in known if o != name)
    ]


def told(found: Found) -> str:
    """What the numbers say of when to use which."""
    gain = found.gains()
    if not gain:
        return "No policy has a gold score."
    best = max(gain, key=gain.__getitem__)
    verdicts = {name: behind(found, best, name) for name in gain if name != best}
    level = [name for name, verdict in verdicts.items() if verdict is False]
    wins = {name: found.row("over_start", name, "win_rate") for name in found.names}
    failing = [name for name, row in wins.items() if row is None or row["low"] is None or row["low"] <= 0.5]
    lines = [f"Most gold: {best} ({number(gain[best])})."]
    if None in verdicts.values():
        lines.append("Of one seed nothing is told apart from it.")
    else:
        lines.append(f"Not told apart from it by these seeds: {', '.join(level) or 'none'}.")
    lines.append(f"No other gains as much with less KL than {', '.join(undominated(found))}.")
    lines.append(f"Do not surely beat their start: {', '.join(failing) or 'none'}.")
    lines += [*costed(found, [best, *level]), *beside(found)]
    return "\n".join(f"- {line}" for line in lines)


def costed(found: Found, names: Sequence[str]) -> list[str]:
    """Of these the cheapest to train."""
    lines = []
    for key, words in (("sampled_tokens", "sampled tokens"), ("seconds", "seconds")):
        costs = {name: found.mean("optimised", name, key) for name in names}
        known = {name: value for name, value in costs.items() if value is not None}
        if known:
            cheapest = min(known, key=known.__getitem__)
            lines.append(f"Of those with the most gold, fewest {words} to train: {cheapest} ({known[cheapest]:,.0f}).")
    return lines


def beside(found: Found) -> list[str]:
    """What some methods come to beside others: sampling alone and PPO, gold by distance, rankings alone, diversity."""
    gain, trained = found.gains(), found.group_of("optimised")
    root = {name: found.mean("over_start", name, "sqrt_kl") for name in trained}
    lines = []
    chosen = [name for name in gain if BEST.fullmatch(name)]
    most = max(chosen, key=lambda name: int(name.rpartition("_")[2]), default=None)
    if most and "ppo" in gain:
        roots = [found.mean("over_start", name, "sqrt_kl") for name in (most, "ppo")]
        share, apart = 100 * gain[most] / gain["ppo"], told_apart(found, "ppo", most)
        nats = " against ".join("–" if root is None else f"{root**2:.1f}" for root in roots)
        lines.append(f"Without training, {most} gains {share:.0f} % of PPO's gold at {nats} nats, {apart}.")
    efficiency = {name: gain[name] / far for name, far in root.items() if name in gain and far}
    if len(efficiency) > 1:
        order = sorted(efficiency, key=efficiency.__getitem__)
        ends = ", ".join(f"{name} {efficiency[name]:.2f}" for name in (order[-1], order[0]))
        lines.append(f"Gold for each unit of √KL, of those that train, most and least: {ends}.")
    best = max((name for name in trained if name in gain and name != "dpo"), key=gain.__getitem__, default=None)
    if "dpo" in gain and best:
        share = f"{100 * gain['dpo'] / gain[best]:.0f} % of what {best} does"
        lines.append(f"DPO, which samples nothing, gains {share}, the most of those that train by sampling.")
    start = found.mean("policies", found.group["start"], "distinct_2")
    spread = {name: found.mean("policies", name, "distinct_2") for name in trained}
    known = {name: value for name, value in spread.items() if value is not None}
    if start is not None and known:
        fewer = sorted((name for name in known if known[name] < start), key=known.__getitem__)
        rest = f", the most with {fewer[0]} ({known[fewer[0]]:.3f})" if fewer else ""
        lines.append(f"Distinct-2 falls below the start's {start:.3f} with {len(fewer)} of {len(known)}{rest}.")
    return lines


def told_apart(found: Found, best: str, other: str) -> str:
    above, below = behind(found, best, other), behind(found, other, best)
    if above is None:
        return "of one seed"
    return "which these seeds tell apart" if above or below else "which these seeds do not tell apart"


def texts(over_seeds: Json) -> dict[str, str]:
    group = over_seeds["groups"][0]
    half, found = HALVES[group["recipe"]], Found(group)
    parts = {"run": about(found), "gained": gained(found), "cost": cost(found), "told": told(found)}
    parts["frontier"] = f"![Gold gained and win rate against √KL, intervals over seeds](img/frontier_{half}.svg)"
    return {f"{half}-{name}": text for name, text in parts.items()}


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for path in sys.argv[1:]:
        measured = json.loads(Path(path).read_text(encoding="utf-8"))
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "optimisers", texts(measured)), encoding="utf-8")
        group = measured["groups"][0]
        drawn = PICTURES / f"frontier_{HALVES[group['recipe']]}.svg"
        drawn.write_text(picture(frontier(group["rows"], group["start"])), encoding="utf-8")
