"""Public sets as one HTML file, and OpenAI's released outputs beside the paper's numbers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from heedful.config import InputError
from heedful.report.bars import Group, GroupedBar, bar_chart
from heedful.report.charts import Dot, interval_chart, legend
from heedful.report.evaluation import Panel
from heedful.report.folder import Json
from heedful.report.layout import laid_out
from heedful.report.numbers import plain
from heedful.run import write_atomic

ABOVE_ONE = ("bleu", "loss", "perplexity")  # metrics whose axis is their own
SIZES = ("xl", "6b", "175b")
KINDS = {"gpt": "GPT", "sft": "SFT", "ppo-noptx": "PPO", "ppo-ptx": "PPO-ptx"}
PROMPTS = ("QA", "instruction", "QA + instruction")
PREFIXES = ("basic", "respectful", "biased")
SIZE_NAME = {"xl": "1.3B", "6b": "6B", "175b": "175B"}
TITLES = {
    "truthful": "TruthfulQA, truthful",
    "both": "TruthfulQA, truthful and informative",
    "toxicity": "RealToxicityPrompts, mean toxicity",
    "squad_f1": "SQuAD 2, F1",
}


class Line(NamedTuple):
    """One row of a set's table: one number of one model."""

    model: str
    metric: str
    estimate: Mapping[str, Any]


class ReleasedSet(NamedTuple):
    """One set of the released outputs: a row for each model, a cell for each prompt."""

    title: str
    prompts: list[str]
    rows: list[tuple[str, list[Json]]]


class SetPanel(NamedTuple):
    """One set: its main number by model, and every number."""

    name: str
    main: str
    chart: Markup
    lines: list[Line]
    counts: list[tuple[str, str]]  # of each model: asked, scored, why not
    source: str


def write_sets_report(folder: Path) -> Path:
    """Write `folder`/sets.html from its sets.json alone.

    Raises:
        InputError: there is none, or it is broken.
    """
    found = _json(folder / "sets.json")
    path = folder / "sets.html"
    panels = [panel(found, name) for name in found["sets"]]
    judged = any(result["judges"] for results in found["sets"].values() for result in results.values())
    write_atomic(path, laid_out("sets.html", found=found, panels=panels, judged=judged))
    return path


def panel(found: Json, name: str) -> SetPanel:
    """The set's chart and table."""
    results: Mapping[str, Json] = found["sets"][name]
    main = found["main"][name]
    dots = []
    for place, (model, result) in enumerate(results.items()):
        estimate = result["metrics"][main]
        text = plain(estimate["mean"])
        dots.append(Dot(model, estimate["mean"], estimate["low"], estimate["high"], place % 8, text))
    known = [dot.high if dot.high is not None else dot.mean for dot in dots if dot.mean is not None]
    least = min([dot.low if dot.low is not None else dot.mean or 0 for dot in dots if dot.mean is not None], default=0)
    low, high = (least, max(known, default=1)) if main in ABOVE_ONE else (0, 1)
    chart = interval_chart(dots, f"{name}: {main}", low, high if high > low else low + 1)
    lines = [Line(model, metric, e) for model, result in results.items() for metric, e in result["metrics"].items()]
    return SetPanel(
        name, main, chart, lines, [counted(model, result) for model, result in results.items()], _source(results)
    )


def counted(model: str, result: Json) -> tuple[str, str]:
    """How many items were asked, how, and scored, and why the others were not."""
    why = [f"{number} {reason.replace('_', ' ')}" for reason, number in result["unscored"].items()]
    why += [
        f"{number} left out of the set: {reason.replace('_', ' ')}" for reason, number in result["left_out"].items()
    ]
    if result["fewer_examples"]:
        why.append(f"{result['fewer_examples']} with fewer worked examples")
    asked, drawn = result["asked"], ""
    if asked["limit"]:
        drawn = f", at most {asked['limit']} drawn by seed {asked['seed']}"
    text = f"{result['num_scored']} of {result['num_items']} scored{drawn}, {asked['shots']} worked examples"
    return model, text + (f" ({', '.join(why)})" if why else "")


def _source(results: Mapping[str, Json]) -> str:
    """The file's own name: where it lay on somebody's machine is nobody's business."""
    first = next(iter(results.values()), {"source": ""})["source"]
    return first if first.startswith("hub ") else Path(first).name


def write_released_report(folder: Path) -> Path:
    """Write `folder`/released.html from its released.json: figures 6 and 7 of the paper in shape, ours and its table.

    Raises:
        InputError: there is none, or it is broken.
    """
    cells = {(c["metric"], c["prompt"], c["model"]): c for c in _json(folder / "released.json")["cells"]}
    path = folder / "released.html"
    page = laid_out(
        "released.html",
        truthful=[truthful_panel(cells, prompt) for prompt in PROMPTS],
        toxic=[toxic_panel(cells, size, most_toxic(cells)) for size in reversed(SIZES)],
        squad=[squad_panel(cells, shots) for shots in ("zero-shot", "few-shot")],
        sizes=legend([(SIZE_NAME[size], n) for n, size in enumerate(SIZES)]),
        kinds=legend([(name, n) for n, name in enumerate(KINDS.values())]),
        sets=[released_set(cells, metric) for metric in dict.fromkeys(metric for metric, _, _ in cells)],
    )
    write_atomic(path, page)
    return path


Cells = Mapping[tuple[str, str, str], Json]


def released_set(cells: Cells, metric: str) -> ReleasedSet:
    prompts = list(dict.fromkeys(prompt for m, prompt, _ in cells if m == metric))
    models = list(dict.fromkeys(model for m, _, model in cells if m == metric))
    rows = [(model_name(model), [cells[metric, prompt, model] for prompt in prompts]) for model in models]
    return ReleasedSet(TITLES[metric], prompts, rows)


def most_toxic(cells: Cells) -> float:
    """Where the axis ends in every panel of the figure: bars of different panels are compared."""
    ends = [cell["estimate"] for (metric, _, _), cell in cells.items() if metric == "toxicity"]
    return max(0.5, *(end["mean"] if end["high"] is None else end["high"] for end in ends))


def model_name(model: str) -> str:
    kind, _, size = model.rpartition("-")
    return f"{KINDS[kind]} {SIZE_NAME[size]}"


def bar(cell: Json, colour: int, behind: Json | None = None) -> GroupedBar:
    estimate = cell["estimate"]
    return GroupedBar(
        model_name(cell["model"]),
        estimate["mean"],
        estimate["low"],
        estimate["high"],
        colour,
        None if behind is None else behind["estimate"]["mean"],
    )


def by_kind(cells: Cells, metric: str, prompt: str, behind: str | None = None) -> list[Group]:
    """The four kinds of model from left to right, each in three sizes."""
    return [
        Group(
            name,
            [
                bar(
                    cells[metric, prompt, f"{kind}-{size}"],
                    n,
                    cells[behind, prompt, f"{kind}-{size}"] if behind else None,
                )
                for n, size in enumerate(SIZES)
            ],
        )
        for kind, name in KINDS.items()
    ]


def truthful_panel(cells: Cells, prompt: str) -> Panel:
    chart = bar_chart(by_kind(cells, "both", prompt, "truthful"), f"TruthfulQA, {prompt} prompt", "", 1)
    return Panel(f"{prompt} prompt", chart)


def toxic_panel(cells: Cells, size: str, most: float) -> Panel:
    groups = [
        Group(prompt, [bar(cells["toxicity", prompt, f"{kind}-{size}"], n) for n, kind in enumerate(KINDS)])
        for prompt in PREFIXES
    ]
    return Panel(SIZE_NAME[size], bar_chart(groups, f"Toxicity of {SIZE_NAME[size]} models by prompt", "prompt", most))


def squad_panel(cells: Cells, shots: str) -> Panel:
    return Panel(shots, bar_chart(by_kind(cells, "squad_f1", shots), f"SQuAD 2, {shots}", "", 1))


def _json(path: Path) -> Json:
    try:
        found: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is not there; heedful evaluate --sets writes it") from None
    except ValueError:
        raise InputError(f"{path} is broken; run the command that wrote it again") from None
    return found
