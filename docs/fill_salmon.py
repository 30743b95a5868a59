"""The tables of docs/salmon.md, from the over_seeds.json of a finished run and never by hand.

    python docs/fill_salmon.py runs/salmon/over_seeds.json

A claim holds where it does in every seed, fails where it does in none or by the mean, and is open in between.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from fill_optimisers import Found, about, with_interval
from tables import filled, markdown, number

from heedful.world.principles import PRINCIPLES

PAGE = Path(__file__).parent / "salmon.md"
MODEL = "salmon"  # the reward model that follows principles
POLICIES = ("sft", "ppo_init", "principled", "plain", "steered", "mended")
FLIPS = 0.85  # of held-out pairs, at least
Json = dict[str, Any]


def seeds(found: Found, table: str, name: str, measure: str) -> list[float]:
    row = found.row(table, name, measure)
    return [] if row is None else row["seeds"]


def followed(found: Found) -> str:
    """Accuracy and flips of the reward model, and what the judge is worth, by principle."""
    lines = []
    for principle in ("all", *PRINCIPLES):
        own = [found.row("principles_followed", f"{MODEL}/{principle}", figure) for figure in ("accuracy", "flips")]
        exact = [found.row("principles_followed", f"{name}/{principle}", "exact") for name in (MODEL, "judge")]
        lines.append([principle, *(with_interval(row, 100, 1) for row in (*own, *exact))])
    return markdown(["", "accuracy, %", "flips, %", "exact, %", "the judge's exact, %"], lines)


def policies(found: Found) -> str:
    lines = []
    for name in POLICIES:
        kept = [found.mean("principles_kept", name, figure) for figure in ("vivid", "concise", "truthful", "pleasing")]
        lines.append(
            [
                name,
                with_interval(found.row("policies", name, "win_rate"), 100, 1),
                with_interval(found.row("policies", name, "gold"), digits=2),
                with_interval(found.row("principles_kept", name, "boasts"), 100, 1),
                *(number(value, 1) for value in kept),
                number(found.mean("policies", name, "kl"), 1),
            ]
        )
    head = ["", "win rate over SFT, %", "exact utility", "praises itself, %", "vivid", "concise", "truthful"]
    return markdown([*head, "pleasing", "KL"], lines)


def verdict(right: Sequence[bool], by_mean: bool) -> str:
    return "yes" if all(right) else "**no**" if not any(right) or not by_mean else "open"


def above(what: str, paper: str, low: Sequence[float], high: Sequence[float], scale: float = 1) -> list[str]:
    """A claim that of every seed the second number is above the first."""
    if not low or len(low) != len(high):
        return [what, paper, "–", "–"]
    right = [b > a for a, b in zip(low, high, strict=True)]
    ours = f"{scale * mean(low):.2f} → {scale * mean(high):.2f}, {sum(right)} of {len(right)} seeds"
    return [what, paper, ours, verdict(right, mean(high) > mean(low))]


def claims(found: Found) -> str:
    """Each claim beside the paper's, and whether it holds."""

    def kept(policy: str, figure: str) -> list[float]:
        return seeds(found, "principles_kept", policy, figure)

    def gold(policy: str) -> list[float]:
        return seeds(found, "policies", policy, "gold")

    flips = seeds(found, "principles_followed", f"{MODEL}/all", "flips")
    wins = seeds(found, "policies", "principled", "win_rate")
    lines = [
        above(
            f"the choice flips where the deciding principle is negated, in {FLIPS:.0%} of held-out pairs",
            "trained for it, no figure",
            [FLIPS] * len(flips),
            flips,
        ),
        above(
            "RL finds a habit that the reward model likes: the share that praises itself, from `ppo_init` to `plain`",
            "self-praise, among three habits",
            kept("ppo_init", "boasts"),
            kept("plain", "boasts"),
        ),
        above(
            "a principle against it, no new label, and it is rarer than before RL: from `mended` to `ppo_init`",
            "principles added by hand mend all three",
            kept("mended", "boasts"),
            kept("ppo_init", "boasts"),
        ),
        above("and exact utility rises, from `plain` to `mended`", "not told", gold("plain"), gold("mended")),
        above(
            "other principles, other behaviour, no new label: `vivid`, nats, from `plain` to `steered`",
            "told, no figure",
            kept("plain", "vivid"),
            kept("steered", "vivid"),
        ),
        above(
            "no comparison of the policy's responses by people, and better than SFT: win rate of `principled`",
            "MT-Bench 6.91 → 7.37",
            [0.5] * len(wins),
            wins,
        ),
    ]
    return markdown(["claim", "SALMON", "here", "holds"], lines)


def texts(sweep: Json) -> dict[str, str]:
    """The text of every marker.

    Raises:
        SystemExit: there are no salmon runs among them.
    """
    groups = [group for group in sweep["groups"] if group["recipe"] == "salmon"]
    if not groups:
        raise SystemExit("no run of the recipe salmon; give the over_seeds.json of one")
    found = Found(groups[0])
    return {
        "run": about(found),
        "claims": claims(found),
        "followed": followed(found),
        "policies": policies(found),
    }


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python docs/fill_salmon.py RUN/over_seeds.json")
    found = texts(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "salmon", found), encoding="utf-8")


if __name__ == "__main__":
    main()
