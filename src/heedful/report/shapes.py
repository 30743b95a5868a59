"""Which of the paper's shapes came out: each a claim of InstructGPT's (arXiv 2203.02155), tested on paper_figures.json.

A claim holds by the mean over seeds; how sure that is stands in the intervals of the figures. Nothing is said of a loss
that is mended where nothing was lost, nor of a score that is kept where none was gained.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Json = dict[str, Any]


class Shape(NamedTuple):
    """A claim with the paper's numbers and ours; `holds` is None where ours lack a number, or do not settle it."""

    figure: str
    claim: str
    paper: str
    ours: str
    holds: bool | None


class Numbers:
    """Means by figure, measure, policy and size."""

    def __init__(self, figures: Json) -> None:
        self.rows: list[Json] = figures["rows"]
        self.sizes = list(figures["sizes"])
        self.small, self.large = self.sizes[0], self.sizes[-1]

    def of(self, figure: str, **place: Any) -> list[float]:
        """Every mean of the figure at the place; none where one is missing."""
        found = [r["mean"] for r in self.rows if r["figure"] == figure and all(r[k] == v for k, v in place.items())]
        return [] if None in found else found

    def one(self, figure: str, **place: Any) -> float | None:
        found = self.of(figure, **place)
        return found[0] if len(found) == 1 else None

    def win(self, policy: str, size: str) -> float | None:
        return self.one("1", policy=policy, size=size)

    def classic(self, policy: str, size: str | None = None) -> float | None:
        """Mean classic score over tasks and shots, of one size or of all."""
        own = [r for r in self.rows if r["figure"] == "14" and r["policy"] == policy and size in (None, r["size"])]
        found = [r["mean"] for r in own if r["measure"] != "lm_loss"]
        return sum(found) / len(found) if found and None not in found else None

    def loss(self, policy: str) -> float | None:
        found = self.of("14", policy=policy, measure="lm_loss")
        return sum(found) / len(found) if found else None


def shapes(figures: Json) -> list[Shape]:
    """All claims in the paper's order."""
    n = Numbers(figures)
    return [
        *figure_1(n),
        figure_3(n),
        *figure_4(n),
        figure_5(n),
        *table_14(n),
        *figure_33(n),
        *figure_34(n),
        *suite(n),
    ]


def said(values: Sequence[float | None], digits: int = 3) -> str:
    return " ".join("–" if value is None else f"{value:.{digits}f}" for value in values)


def rising(values: Sequence[float | None]) -> bool | None:
    """Whether each is at least the one before; None of one alone, or where one is missing."""
    known = [value for value in values if value is not None]
    return None if len(known) < max(2, len(values)) else known == sorted(known)


def holds(test: Callable[..., bool], *values: float | None) -> bool | None:
    return None if None in values else test(*values)


def figure_1(n: Numbers) -> list[Shape]:
    order = ("gpt", "gpt_prompted", "sft", "ppo_ptx")
    each = {size: [n.win(name, size) for name in order] for size in n.sizes}
    orders = [rising(values) for values in each.values()]
    growth = [n.win("ppo_ptx", size) for size in n.sizes]
    small, large = n.win("ppo_ptx", n.small), n.win("gpt", n.large)
    plain, mixed = ([n.win(name, size) for size in n.sizes] for name in ("ppo", "ppo_ptx"))
    gaps = [abs(a - b) for a, b in zip(plain, mixed, strict=True) if a is not None and b is not None]
    return [
        Shape(
            "1",
            "GPT < prompted GPT < SFT < PPO-ptx at every size",
            "so at every size",
            "; ".join(f"{size} {said(values)}" for size, values in each.items()),
            None if None in orders else all(orders),
        ),
        Shape(
            "1",
            "the smallest PPO-ptx is preferred to the largest GPT",
            "1.3B over 175B",
            f"{said([small])} against {said([large])}",
            holds(lambda a, b: a > b, small, large),
        ),
        Shape(
            "1",
            "PPO-ptx of the largest size wins clearly over its SFT",
            "0.734 ± 0.02",
            said([n.win("ppo_ptx", n.large)]),
            holds(lambda a: a > 0.55, n.win("ppo_ptx", n.large)),
        ),
        Shape("1", "PPO-ptx wins more the larger it is", "rises with size", said(growth), rising(growth)),
        Shape(
            "1",
            "PPO and PPO-ptx differ little in win rate",
            "curves lie close",
            f"gaps {said(gaps)}",
            max(gaps) < 0.06 if len(gaps) == len(n.sizes) else None,
        ),
    ]


def figure_3(n: Numbers) -> Shape:
    """Held-out labelers judge as training labelers do."""
    places = [
        {key: row[key] for key in ("size", "policy", "prompts")}
        for row in n.rows
        if row["figure"] == "3" and row["labelers"] == "heldout"
    ]
    pairs = [(n.one("3", labelers="heldout", **place), n.one("3", labelers="train", **place)) for place in places]
    gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    ours = f"mean gap {said([sum(gaps) / len(gaps)])}, largest {said([max(gaps)])}" if gaps else "–"
    claim = "held-out labelers prefer what training labelers prefer"
    came = max(gaps) < 0.1 if gaps and len(gaps) == len(pairs) else None
    return Shape("3", claim, "about the same", ours, came)


def figure_4(n: Numbers) -> list[Shape]:
    lower = {"fails_instruction": "fails less", "hallucination": "hallucinates less where a text is given"}
    lower["inappropriate_assistant"] = "is less often inappropriate"
    paper = {"hallucination": "0.41 → 0.21"}
    found = []
    for flag, words in {**lower, "satisfies_constraint": "keeps constraints more often"}.items():
        before, after = (n.one("4", measure=flag, policy=name) for name in ("gpt", "ppo_ptx"))
        more = flag == "satisfies_constraint"
        came = holds(lambda a, b, more=more: (b > a) == more and a != b, before, after)
        found.append(
            Shape("4", f"PPO-ptx {words} than GPT", paper.get(flag, "so"), f"{said([before])} → {said([after])}", came)
        )
    return found


def figure_5(n: Numbers) -> Shape:
    names = ("flan", "t0", "sft", "ppo_ptx")
    values = [n.win(name, n.large) for name in names]
    came = holds(lambda flan, t0, sft, ptx: max(flan, t0) < sft < ptx, *values)
    paper = "win rate 0.298 and 0.268 against SFT; PPO-ptx 0.734"
    return Shape(
        "5", "FLAN and T0 lose to SFT, and PPO-ptx wins", paper, f"FLAN, T0, SFT, PPO-ptx {said(values)}", came
    )


def table_14(n: Numbers) -> list[Shape]:
    gpt, start, ppo, ptx = (n.classic(name) for name in ("gpt", "ppo_init", "ppo", "ppo_ptx"))
    losses = [n.loss(name) for name in ("gpt", "ppo_init", "ppo", "ppo_ptx")]
    return [
        Shape(
            "14",
            "PPO loses on classic tasks against GPT",
            "SQuADv2 few-shot, largest: 69.8 → 52.0",
            f"mean score {said([gpt, ppo])}",
            holds(lambda a, b: b < a, gpt, ppo),
        ),
        Shape(
            "14",
            "PPO-ptx undoes most of what PPO lost",
            "SQuADv2 few-shot, largest: 69.9",
            f"GPT, PPO's start, PPO, PPO-ptx {said([gpt, start, ppo, ptx])}",
            None if gpt is None or ppo is None or ptx is None or ppo >= gpt else ptx - ppo > 0.5 * (gpt - ppo),
        ),
        Shape(
            "14",
            "held-out LM loss: PPO-ptx below PPO",
            "so",
            f"GPT, PPO's start, PPO, PPO-ptx {said(losses)}",
            holds(lambda a, b, c, d: d < c, *losses),
        ),
    ]


def along(n: Numbers, figure: str, measure: str) -> list[float | None]:
    """The measure by rising coefficient."""
    found = [row for row in n.rows if row["figure"] == figure and row["measure"] == measure]
    return [row["mean"] for row in sorted(found, key=lambda row: row["coefficient"])]


def figure_33(n: Numbers) -> list[Shape]:
    classic, loss, score = (known(along(n, "33", measure)) for measure in ("classic", "lm_loss", "score"))
    if min(len(classic), len(loss), len(score)) < 2:
        return []
    swept = next(row["size"] for row in n.rows if row["figure"] == "33")
    gpt = n.classic("gpt", swept)
    large = classic[1:][len(classic[1:]) // 2 :]  # the larger half of what was tried
    lost = None if gpt is None or gpt <= classic[0] else gpt - classic[0]
    return [
        Shape(
            "33",
            "a larger pretraining coefficient restores classic tasks",
            "20 or more undoes the loss",
            f"{said(classic)}; GPT {said([gpt])}",
            None if lost is None else min(large) > classic[0] + 0.5 * lost,
        ),
        Shape("33", "and language loss falls", "so", said(loss), loss[-1] < loss[0]),
        Shape(
            "33",
            "at little cost in score, until it is very large",
            "validation reward hardly falls",
            said(score),
            min(score[1:-1] or score[1:]) > 0.8 * score[0] if score[0] > 0 else None,
        ),
    ]


def figure_34(n: Numbers) -> list[Shape]:
    """What the mix does not mend by itself, no KL coefficient can fail to mend as the mix does."""
    classic, loss, score = (known(along(n, "34", measure)) for measure in ("classic", "lm_loss", "score"))
    plain = {measure: known(along(n, "33", measure))[:1] for measure in ("classic", "lm_loss")}
    mixed = {measure: n.one("33", measure=measure, policy="ppo_ptx") for measure in plain}
    least, clear = mixed["classic"], mixed["lm_loss"]
    if least is None or clear is None or not all(plain.values()) or min(len(classic), len(loss), len(score)) < 2:
        return []
    best = max(score)
    kept = [i for i, value in enumerate(score) if value > 0.5 * best] if best > 0 else []
    restored, fell = least > plain["classic"][0], clear < plain["lm_loss"][0]
    return [
        Shape(
            "34",
            "a large KL coefficient costs score",
            "falls beyond 0.02",
            said(score),
            score[-1] < 0.8 * best if best > 0 else None,
        ),
        Shape(
            "34",
            "no KL coefficient that keeps half of the score restores classic tasks as the pretraining mix does",
            "not even 2.0",
            f"{said(classic)}; PPO-ptx {said([least])}",
            all(classic[i] < least for i in kept) if kept and restored else None,
        ),
        Shape(
            "34",
            "nor language loss",
            "not even 2.0",
            f"{said(loss)}; PPO-ptx {said([clear])}",
            all(loss[i] > clear for i in kept) if kept and fell else None,
        ),
    ]


def known(values: Sequence[float | None]) -> list[float]:
    """All of the values; none where one is missing."""
    found = [value for value in values if value is not None]
    return found if len(found) == len(values) else []


def suite(n: Numbers) -> list[Shape]:
    words = {
        "language": "follows instructions in another language better",
        "code": "answers about code better",
        "false_premise": "takes a false premise for true",
        "hedging": "hedges where the answer is plain",
        "constraints": "loses one of several constraints",
    }
    found = []
    for kind, claim in words.items():
        values = [
            mean(n.of("qualitative", measure=f"{kind} mistake", policy=name)) for name in ("gpt", "sft", "ppo_ptx")
        ]
        came = (
            holds(lambda gpt, sft, ptx: ptx < gpt, *values)
            if kind in ("language", "code")
            else holds(lambda *v: v[2] > 0.1, *values)
        )
        paper = "than GPT, without training for it" if kind in ("language", "code") else "still does"
        found.append(Shape("4.3", f"PPO-ptx {claim}", paper, f"mistakes of GPT, SFT, PPO-ptx {said(values)}", came))
    return found


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
