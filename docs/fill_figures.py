"""The tables of docs/paper_figures.md, from the paper_figures.json of a finished run and never by hand.

    python docs/fill_figures.py runs/figures/paper_figures.json

Each table stands between `<!-- figures:NAME -->` and `<!-- /figures -->`.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heedful.report.figures import policies, rows_of, table_14
from heedful.report.shapes import shapes

PAGE = Path(__file__).parent / "paper_figures.md"
Json = dict[str, Any]


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def with_interval(row: Json) -> str:
    if row["mean"] is None or row["low"] is None or row["low"] == row["high"]:
        return number(row["mean"])
    return f"{row['mean']:.3f} ({row['low']:.3f}…{row['high']:.3f})"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def run(figures: Json) -> str:
    sizes = ", ".join(f"{size} {parameters / 1e6:.2f} M" for size, parameters in figures["sizes"].items())
    hours = sum(figures["seconds"].values()) / 60
    seeds = ", ".join(map(str, figures["seeds"]))
    commits = ", ".join(f"`{commit}`" for commit in figures["commits"])
    prompts = figures["num_prompts"]
    measured = f"Seeds {seeds}; {prompts} prompts; {hours:.0f} min for all cells; commit {commits}."
    return f"Sizes (parameters): {sizes}. {measured}"


def verdicts(figures: Json) -> str:
    words = {True: "yes", False: "**no**", None: "–"}
    rows = [[s.figure, s.claim, s.paper, s.ours, words[s.holds]] for s in shapes(figures)]
    return markdown(["figure", "shape", "paper", "here", "reproduces"], rows)


def wins(figures: Json, figure: str, **place: Any) -> str:
    found = {(row["policy"], row["size"]): with_interval(row) for row in rows_of(figures, figure, **place)}
    sizes = list(figures["sizes"])
    rows = [[name, *(found.get((name, size), "–") for size in sizes)] for name in policies(figures)]
    return markdown(["policy", *sizes], rows)


def boxes(figures: Json) -> str:
    rows = rows_of(figures, "4")
    flags = list(dict.fromkeys(row["measure"] for row in rows))
    found = {(row["policy"], row["measure"]): with_interval(row) for row in rows}
    return markdown(["policy", *flags], [[name, *(found[name, flag] for flag in flags)] for name in policies(figures)])


def classic(figures: Json) -> str:
    table = table_14(figures)
    rows = [
        [row.measure, row.size, *(number(None if cell is None else cell["mean"]) for cell in row.cells)]
        for row in table.rows
    ]
    return markdown(["task", "size", *table.policies], rows)


def along(figures: Json, figure: str) -> str:
    rows = rows_of(figures, figure)
    measures = ("score", "kl", "lm_loss", "classic")
    found = {(row["coefficient"], row["measure"]): with_interval(row) for row in rows}
    values = sorted({row["coefficient"] for row in rows})
    return markdown(
        ["coefficient", *measures], [[f"{value:g}", *(found[value, m] for m in measures)] for value in values]
    )


def mistakes(figures: Json) -> str:
    rows = rows_of(figures, "qualitative")
    kinds = [row["measure"] for row in rows if row["measure"].endswith(" mistake")]
    found: dict[tuple[str, str], list[float | None]] = {}
    for row in rows:
        found.setdefault((row["policy"], row["measure"]), []).append(row["mean"])
    kinds = list(dict.fromkeys(kinds))
    names = [name for name in policies(figures) if name != "gpt_prompted"]
    cells = [[name, *(number(average(found[name, kind])) for kind in kinds)] for name in names]
    return markdown(["policy", *kinds], cells)


def average(values: Sequence[float | None]) -> float | None:
    """None as soon as one is missing: a mean over fewer sizes would not say so."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def tables(figures: Json) -> dict[str, str]:
    cells = [(prompts, group) for prompts in ("base", "instruct") for group in ("heldout", "train")]
    return {
        "run": run(figures),
        "shapes": verdicts(figures),
        "1": wins(figures, "1"),
        **{f"3-{p}-{g}": wins(figures, "3", prompts=p, labelers=g) for p, g in cells},
        "4": boxes(figures),
        "5": wins(figures, "5"),
        "14": classic(figures),
        "33": along(figures, "33"),
        "34": along(figures, "34"),
        "qualitative": mistakes(figures),
    }


def filled(page: str, figures: Json) -> str:
    """The page with every table written anew.

    Raises:
        LookupError: the page has no marker for a table.
    """
    for name, table in tables(figures).items():
        pattern = rf"(<!-- figures:{name} -->\n).*?(<!-- /figures -->)"
        page, found = re.subn(pattern, lambda m, t=table: f"{m[1]}{t}\n{m[2]}", page, flags=re.DOTALL)
        if not found:
            raise LookupError(f"no <!-- figures:{name} --> on the page")
    return page


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    PAGE.write_text(
        filled(PAGE.read_text(encoding="utf-8"), json.loads(Path(sys.argv[1]).read_text())), encoding="utf-8"
    )
