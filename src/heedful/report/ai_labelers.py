"""A run's AI labelers beside people, and the reward models that learned beside the run's own: tables in plain words."""

from typing import NamedTuple

from markupsafe import Markup

from heedful.report.charts import ACCENT, MUTED, Dot, interval_chart
from heedful.report.evaluation import Panel
from heedful.report.folder import Json, RunFolder, pointer
from heedful.report.numbers import Show


class Figure(NamedTuple):
    """A figure's key in results.json, its name in tables, at most 24 letters, and what it means."""

    key: str
    name: str
    meaning: str


FIGURES = (
    Figure(
        "alignment",
        "agrees with people",
        "how often its choice, both orders averaged, is that of a person who compared the same pair; at 50 % it judges "
        "by chance",
    ),
    Figure("alignment_one_order", "… with one order alone", "the same, had it been asked in one order only"),
    Figure(
        "same_position",
        "same place, both orders",
        "pairs of which it prefers the same place in both orders: there it reads places and not responses",
    ),
    Figure("first_of_same", "… of those the first", "how often that place is the first"),
    Figure(
        "alignment_same_position",
        "… agreement there",
        "agreement with people where both orders prefer the same place and their average alone decides",
    ),
    Figure("order_gap", "gap of the two orders", "how far the two orders' probabilities lie apart, on average"),
    Figure(
        "calibration_error",
        "calibration error",
        "distance between how sure it is and how often it is right; of n comparisons, chance alone makes about 1/√n, "
        "so fewer than 400 have none",
    ),
    Figure("prefers_longer", "prefers the longer one", "its probability for the longer response of a pair"),
    Figure("people_prefer_longer", "people prefer the longer", "how often people preferred it, of the same pairs"),
)
PICTURES = {  # figure → what stands above and below its picture
    "alignment": (
        "Agrees with people, percent",
        "People: training labelers among themselves. Left of the dashed line is worse than chance.",
    ),
    "same_position": ("Same place preferred in both orders, percent", "0 is best: the order does not matter."),
}
MODELS = {"heldout": "accuracy on held-out labelers", "train": "accuracy on training labelers"}


class Row(NamedTuple):
    """A name, and where each column's estimate stands in results.json; None where it has none."""

    name: str
    places: list[str | None]


class Section(NamedTuple):
    """What the page shows of AI labelers."""

    figures: tuple[Figure, ...]
    rows: list[Row]
    panels: list[Panel]


def section(run: RunFolder, show: Show) -> Section | None:
    """A row for each AI labeler, and two pictures; None where none ranked."""
    found: list[Json] = run.at("/ai_labelers") or []
    if not found:
        return None
    place = {(row["labeler"], row["figure"]): pointer("ai_labelers", i) for i, row in enumerate(found)}
    names = list(dict.fromkeys(row["labeler"] for row in found))
    rows = [Row(readable(name), [place.get((name, figure.key)) for figure in FIGURES]) for name in names]
    panels = []
    for key, (title, caption) in PICTURES.items():
        dots = [dot(run, show, readable(name), place[name, key]) for name in names if (name, key) in place]
        if key == "alignment" and run.at("/agreement/train/mean") is not None:
            people = show("/agreement/train/mean", 1, percent=True, tag="tspan")
            dots.append(Dot("people", run.at("/agreement/train/mean"), None, None, MUTED, people))
        rule = 0.5 if key == "alignment" else None
        panels.append(Panel(title, interval_chart(dots, title, 0, 1, rule=rule, unit=100), caption))
    return Section(FIGURES, rows, panels)


def dot(run: RunFolder, show: Show, name: str, place: str) -> Dot:
    row: Json = run.at(place)
    text: Markup = show(f"{place}/mean", 1, percent=True, tag="tspan")
    return Dot(name, row["mean"], row["low"], row["high"], ACCENT, text)


def reward_models(run: RunFolder) -> list[Row]:
    """Each reward model's accuracy by group of people, as `MODELS` names them; [] where there is but the run's own."""
    found: list[Json] = run.at("/reward_models") or []
    place = {(row["reward_model"], row["labelers"]): pointer("reward_models", i) for i, row in enumerate(found)}
    names = dict.fromkeys(row["reward_model"] for row in found)
    return [Row(readable(name), [place.get((name, group)) for group in MODELS]) for name in names]


def readable(name: str) -> str:
    """A recipe's key as words."""
    return name.replace("_", " ")
