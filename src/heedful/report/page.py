"""The page: every section's content, laid out by report.html.

Command: heedful report DIR
"""

import json
from pathlib import Path
from typing import Any

from heedful.config import InputError
from heedful.report import ai_labelers, evaluation, judgements, lab, preference, principles, provenance, training
from heedful.report.charts import ACCENT, MUTED, legend
from heedful.report.episodes import episode_trace, gap, outcome
from heedful.report.folder import RunFolder, pointer
from heedful.report.layout import laid_out
from heedful.report.numbers import Show, duration, shower
from heedful.report.samples import samples
from heedful.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from heedful.report.trace import ranking_trace
from heedful.run import write_atomic
from heedful.steps import optimised_in

PAPER = "https://arxiv.org/abs/2203.02155"


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from the run's files alone; an unfinished run gives what there is and says so.

    Raises:
        InputError: the folder holds no run.
    """
    if not (folder / "recipe.json").exists() and not (folder / "results.json").exists():
        raise InputError(f"{folder} holds no run: neither recipe.json nor results.json is there")
    path = folder / "report.html"
    write_atomic(path, render(RunFolder(folder)))
    return path


def render(run: RunFolder) -> str:
    """The whole page as HTML."""
    show = shower(run)
    content = sections(run, show)
    content["missing_files"] = dict(sorted(run.missing.items()))  # after every section has looked for its files
    tools = {"pointer": pointer, "duration": duration, "gap": gap, "PAPER": PAPER}
    box = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
    return laid_out("report.html", run=run, show=show, **tools, **box, **content)


def sections(run: RunFolder, show: Show) -> dict[str, Any]:
    """What each section shows; None or an empty list where the run has nothing for it."""
    snapshot = judgements.rankings_of(run)
    margins = judgements.margins(run, snapshot) if snapshot else []
    counted, clean = provenance.counts(run)
    ranking = ranking_trace(run)
    panels, never = evaluation.figure_4(run, show)
    return {
        "about": evaluation.where_run(run),
        "ran": provenance.sizes(run),
        "judge": evaluation.judge_name(run),
        "results": run.results,
        "baseline": run.results.get("baseline"),
        "optimised": optimised_in(run.recipe),
        "figure_1": evaluation.figure_1(run, show),
        "pairwise": evaluation.pairwise(run),
        "wins": evaluation.wins_and_losses(run, show),
        "preference": preference.panels(run, show),
        "preference_tables": preference.tables(run, show),
        "reward_tables": preference.reward_tables(run, show),
        "lab": lab.section(run, show),
        "ai": ai_labelers.section(run, show),
        "reward_models": ai_labelers.reward_models(run),
        "reward_model_groups": list(ai_labelers.MODELS.values()),
        "principles": principles.section(run, show),
        "suite_tables": preference.suite_tables(run, show),
        "flags": evaluation.flags(run),
        "flag_names": evaluation.FLAG_NAMES,
        "figure_4": panels,
        "never": never,
        "likert": evaluation.likert(run, show),
        "tax": evaluation.alignment_tax(run, show),
        "policy_legend": legend([(name, run.colour(name)) for name in run.policies]),
        "pretraining": training.pretraining(run),
        "fine_tuning": training.fine_tuning(run),
        "sft_legend": legend([(name, run.colour(name)) for name in run.fine_tuned]),
        "reward_curves": training.reward_model_curves(run),
        "reward_legend": legend([("training", MUTED), ("validation", ACCENT)]),
        "ppo": [(round, training.ppo_curves(run, round)) for round in run.rounds],
        "ppo_legend": legend([(name, run.colour(name)) for name in optimised_in(run.recipe)]),
        "frontier": training.frontier(run),
        "accuracy": judgements.accuracy_chart(run, show),
        "calibration": judgements.calibration_chart(run),
        "margins": margins,
        "margin_chart": judgements.margin_chart(margins),
        "labelers": judgements.labeler_table(snapshot) if snapshot else [],
        "judgements": judgements.judgement_panels(run, snapshot, show) if snapshot else [],
        "samples": samples(run),
        "ranking": ranking,
        "outcome": outcome(run, ranking) if ranking else None,
        "episode": episode_trace(run),
        "counts": counted,
        "clean": clean,
        "nulls": run.nulls(),
        "seconds": provenance.seconds(run),
        "total_seconds": sum(value for _, value in provenance.seconds(run)) or 1,
        "steps": provenance.steps(run),
        "recipe": json.dumps(run.recipe, indent=2, ensure_ascii=False),
    }
