"""Which of Gao et al.'s findings (2022, arXiv 2210.10760) a run of the over-optimisation lab shows, from results.json.

Proxies are named SIZE-NUMBER of rankings, sizes from the smallest as the recipe lists them; what maximises the last
proxy in another way is LAST-kl-COEF, LAST-by-POLICY and LAST-rounds-K. A finding is judged by one run's curves, without
an interval; nothing is said where a curve is missing.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from math import log, sqrt
from typing import Any

from heedful.report.shapes import Shape

Json = dict[str, Any]

NEAR = 1.0  # nats between a predicted and an observed peak
ALIKE = 0.25  # of their mean, in which values that are alike lie
FEW = 2_000  # comparisons below which the paper's proxies were hardly better than chance
CHANCE = 0.55  # of comparisons right: what is called near chance here


class Found:
    """What the proxies learned; the lab's laws and curves by proxy and form."""

    def __init__(self, lab: Json) -> None:
        self.proxies: list[Json] = lab.get("proxies", [])  # runs of before have none
        self.laws = {(row["proxy"], row["form"]): row for row in lab["laws"]}
        self.compared = {(row["proxy"], row["form"]): row for row in lab["comparisons"]}
        self.curves: dict[tuple[str, str], list[Json]] = {}
        for point in lab["curves"]:
            self.curves.setdefault((point["proxy"], point["form"]), []).append(point)
        names = [re.fullmatch(r"(\w+)-(\d+)", proxy) for proxy, form in self.laws if form == "best_of_n"]
        own = [(name[1], int(name[2])) for name in names if name]
        self.sizes, self.numbers = list(dict.fromkeys(s for s, _ in own)), sorted({n for _, n in own})
        self.last = f"{self.sizes[-1]}-{self.numbers[-1]}"

    def along_sizes(self, form: str, key: str) -> list[float]:
        """Of the proxies of most rankings, from the smallest; none where one is missing."""
        rows = [self.laws.get((f"{size}-{self.numbers[-1]}", form)) for size in self.sizes]
        values = [row[key] for row in rows if row is not None and row[key] is not None]
        return values if len(values) == len(self.sizes) > 1 else []

    def others(self, kind: str) -> list[Json]:
        """Rows of comparison of the last proxy maximised otherwise by RL: -kl-, -by- or -rounds-."""
        found = [row for (name, form), row in self.compared.items() if form == "rl" and f"{self.last}{kind}" in name]
        return [row for row in found if row["gold"] is not None]


def shapes(lab: Json) -> list[Shape]:
    """The paper's findings in its order."""
    found = Found(lab)
    return [
        *peaks(found),
        coefficient(found, "best_of_n", "beta", "β of best-of-n falls as the proxy grows"),
        coefficient(found, "rl", "beta", "β of RL falls as the proxy grows"),
        alike(found),
        more_rankings(found),
        hardly_any(found),
        less_efficient(found),
        *penalty(found),
        *policies(found),
        iterated(found),
    ]


def said(values: Sequence[float], digits: int = 3) -> str:
    return " → ".join(f"{value:.{digits}f}" for value in values) or "–"


def inside(row: Json) -> bool:
    """Whether the curve comes down again: its observed peak is not its end."""
    return bool(row["observed_kl"] < row["kl_reached"])


def peaks(found: Found) -> list[Shape]:
    """Predicted from the near half, held against the whole."""
    made = []
    for form, how in (("best_of_n", "best-of-n"), ("rl", "RL")):
        rows = [row for (_, of), row in found.laws.items() if of == form and row["off"] is not None]
        near = [row for row in rows if row["off"] <= NEAR]
        turned = sum(inside(row) for row in rows)
        ours = f"{len(near)} of {len(rows)}; {turned} of the curves peak before their end" if rows else "–"
        claim = f"the peak of {how} predicted from the near half lies within 1 nat of the observed one, for every proxy"
        paper = "n = 60,000 predicted from n ≤ 1,000" if form == "best_of_n" else "fits extrapolate"
        made.append(Shape("1", claim, paper, ours, len(near) == len(rows) if rows else None))
    return made


def coefficient(found: Found, form: str, key: str, claim: str) -> Shape:
    values = found.along_sizes(form, key)
    holds = all(a > b for a, b in pairwise(values)) if values else None
    return Shape("3", claim, "falls smoothly with log(size)", said(values), holds)


def alike(found: Found) -> Shape:
    values = found.along_sizes("rl", "alpha")
    claim = "α of RL is the same for all sizes of proxies (within a quarter of the mean)"
    if not values:
        return Shape("3", claim, "held constant", "–", None)
    middle = sum(values) / len(values)
    return Shape("3", claim, "held constant", said(values), max(values) - min(values) <= ALIKE * abs(middle))


def more_rankings(found: Found) -> Shape:
    """Of each size, the proxy of most rankings beside that of fewest: gold at the peak of best-of-n."""
    claim = "with more rankings more gold is gained, at every size"
    rows = [
        [found.laws.get((f"{size}-{number}", "best_of_n")) for number in (found.numbers[0], found.numbers[-1])]
        for size in found.sizes
    ]
    pairs = [(a["observed_gold"], b["observed_gold"]) for a, b in rows if a is not None and b is not None]
    if len(pairs) < len(found.sizes) or len(found.numbers) < 2:
        return Shape("4", claim, "holds for all sizes", "–", None)
    ours = "; ".join(f"{size} {said(pair)}" for size, pair in zip(found.sizes, pairs, strict=True))
    return Shape("4", claim, "holds for all sizes", ours, all(a < b for a, b in pairs))


def hardly_any(found: Found) -> Shape:
    """Proxies of fewer comparisons than the paper's threshold, on comparisons they have not seen."""
    claim = f"proxies of fewer than {FEW:,} comparisons are near chance (at most {100 * CHANCE:.0f} % right)"
    few = [row for row in found.proxies if row["num_comparisons"] < FEW and row["valid_accuracy"] is not None]
    if not few:
        return Shape("4", claim, "loss hardly below chance's", "–", None)
    ours = "; ".join(f"{row['proxy']} {100 * row['valid_accuracy']:.1f} %, loss {row['valid_loss']:.3f}" for row in few)
    holds = all(row["valid_accuracy"] <= CHANCE for row in few)
    return Shape("4", claim, "loss hardly below chance's", f"{ours}; chance {log(2):.3f}", holds)


def less_efficient(found: Found) -> Shape:
    """RL's gold beside best-of-n's at the same KL, of the last proxy: the mean over every n."""
    claim = "RL gains less gold than best-of-n at the same KL, on average over n"
    best, rl = found.curves.get((found.last, "best_of_n")), found.curves.get((found.last, "rl"))
    reached = max((point["kl"] for point in rl), default=0.0) if rl else 0.0
    inside = [point for point in best or [] if 0 < point["kl"] <= reached]
    if not rl or len(inside) < 2:
        return Shape("1", claim, "far less efficient", "–", None)
    off = [at(rl, point["kl"]) - point["gold"] for point in inside]
    shown = [inside[0], inside[len(inside) // 4], inside[-1]]
    beside = "; ".join(
        f"at {point['kl']:.1f} nats {at(rl, point['kl']):.3f}, best-of-n {point['gold']:.3f}" for point in shown
    )
    mean = sum(off) / len(off)
    return Shape("1", claim, "far less efficient", f"{mean:+.3f}; {beside}", mean < 0)


def at(points: Sequence[Json], kl: float) -> float:
    """Gold of a curve at a KL within its reach, between its points along a straight line in √KL."""
    known = sorted((sqrt(max(point["kl"], 0.0)), point["gold"]) for point in [{"kl": 0.0, "gold": 0.0}, *points])
    d = sqrt(kl)
    place = next(i for i in range(1, len(known)) if known[i][0] >= d)
    (before, low), (after, high) = known[place - 1], known[place]
    return float(low + (high - low) * (d - before) / (after - before)) if after > before else float(high)


def penalty(found: Found) -> list[Shape]:
    """With a penalty beside without one at the same KL: gold, and how far the proxy's own score outgrows it."""
    same = "a KL penalty only stops early: gold at a KL is what it is without (within a tenth of the peak)"
    gap = "at the same KL the gap between proxy and gold is larger with a KL penalty"
    rows, own = found.others("-kl-"), found.laws.get((found.last, "rl"))
    if not rows or own is None:
        return [Shape("9", same, "same frontier", "–", None), Shape("9", gap, "strictly larger", "–", None)]
    coefs = [row["proxy"].rpartition("-")[2] for row in rows]
    ours = "; ".join(f"{coef}: {row['gold']:+.3f}" for coef, row in zip(coefs, rows, strict=True))
    holds = all(abs(row["gold"]) <= 0.1 * abs(own["observed_gold"]) for row in rows)
    wider = [row["score"] - row["gold"] for row in rows]
    told = "; ".join(
        f"{coef}: {more:+.3f} (score {row['score']:+.3f})" for coef, row, more in zip(coefs, rows, wider, strict=True)
    )
    return [
        Shape("9", same, "same frontier", f"off by {ours}; peak {own['observed_gold']:.3f}", holds),
        Shape("9", gap, "strictly larger", told, all(more > 0 for more in wider)),
    ]


def policies(found: Found) -> list[Shape]:
    """Each policy of another size beside the recipe's own, maximising the last proxy by best-of-n."""
    made = []
    own = found.laws.get((found.last, "best_of_n"))
    for (name, form), row in found.laws.items():
        if own is None or form != "best_of_n" or not name.startswith(f"{found.last}-by-"):
            continue
        who = name.removeprefix(f"{found.last}-by-")
        gold = f"{who} {row['observed_gold']:.3f}, own {own['observed_gold']:.3f}"
        nats = f"{who} {row['observed_kl']:.2f}, own {own['observed_kl']:.2f}"
        made.append(Shape("7", f"the {who} policy gains another amount of gold", "a larger one gains less", gold, None))
        off = abs(row["observed_kl"] - own["observed_kl"])
        made.append(Shape("7", f"the {who} policy peaks at the same KL", "about the same KL", nats, off <= NEAR))
    return made


def iterated(found: Found) -> Shape:
    """Gold of the rounds off one round's curve, and off that raised by β√KL ln k."""
    claim = "a proxy renewed k times gains β√KL ln k more: nearer to that than to one round's curve"
    rows = found.others("-rounds-")
    if not rows:
        return Shape("6", claim, "an assumption, not measured", "–", None)
    row = rows[-1]
    ours = f"off one round's curve {row['gold']:+.3f}, off that for k rounds {row['iterated']:+.3f}"
    return Shape("6", claim, "an assumption, not measured", ours, abs(row["iterated"]) < abs(row["gold"]))
