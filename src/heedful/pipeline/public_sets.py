"""Models through public sets, one step for each model and set, so that what is finished is not computed again.

    sets.json, sets.csv, sets.html        every model's numbers on every set
    parts/MODEL/SET/                      that step's run folder: its settings, its result

The tables hold all that the parts hold: of earlier calls, of other models and other sets too.

Command: heedful evaluate MODEL --sets NAMES --data FOLDER --dir DIR
"""

import csv
import hashlib
import importlib
import inspect
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from heedful import run as runs
from heedful.config import InputError, parse
from heedful.evaluate.sets.catalogue import ALL, SETS, AnswerSet, NoExamples, Options, TextSet, evaluate_set, read_set
from heedful.evaluate.sets.item import Judge, Part, Scorer, Tools, load_model
from heedful.evaluate.sets.judge import About, judge_of
from heedful.evaluate.sets.language import Texts
from heedful.evaluate.sets.toxicity import scored
from heedful.interrupt import stop_if_asked
from heedful.models.checkpoint import weights_hash
from heedful.models.optimizer import Precision
from heedful.pipeline.loop import Loop
from heedful.pipeline.recipe import Recipe
from heedful.pipeline.start import at_work
from heedful.pipeline.truth_judge import judge_about
from heedful.report.sets import write_sets_report
from heedful.run import Run, read_done, write_atomic
from heedful.steps import best_rows, existing_run

Json = dict[str, Any]
TRUTH: About = "truth"
INFO: About = "info"
TRIAL = "A red boat lies by the sea."  # what a scorer of toxicity must be able to score
JUDGES = ("truth_judge", "info_judge", "toxicity")  # among a part's parents


class Judges(NamedTuple):
    """What judges generated answers: folders of trained judges, and a function `module:name` from texts to numbers."""

    truth: Path | None = None
    info: Path | None = None
    toxicity: str | None = None


def evaluate_sets(
    models: Mapping[str, str | Path],
    names: Sequence[str],
    options: Options,
    judges: Judges,
    folder: Path,
    precision: Precision = "fp32",
) -> Json:
    """Every model through every set; writes and returns sets.json, with all that the folder held before.

    "all" among the names: every set whose files are there, with worked examples where it has any; why the others were
    not asked stands under `not_asked`.

    Raises:
        InputError: a model, a file or a judge is not to be had, or the folder holds results of other settings.
    """
    check_judges(judges)
    asked, not_asked = read_sets(names, options)  # a missing file is noticed now, not after hours
    for model, place in models.items():
        steps = {name: step(folder, model, place, name, one, judges, precision) for name, one in asked.items()}
        waiting = [name for name in asked if not steps[name].done]
        if waiting:
            tools = tools_of(place, judges, precision)
            for name in waiting:
                part, own = asked[name]
                through(steps[name], name, part, f"{model}: {name}", tools, own, str(place))
    found = gathered(folder, models) | {"not_asked": not_asked}
    write_atomic(folder / "sets.json", json.dumps(found, indent=2) + "\n")
    write_atomic(folder / "sets.csv", as_csv(found))
    write_sets_report(folder)
    return found


class Asked(NamedTuple):
    """A set as read, and how it is asked."""

    part: Part | Texts
    options: Options


def read_sets(names: Sequence[str], options: Options) -> tuple[dict[str, Asked], dict[str, str]]:
    """Each set by name, and why those that "all" wanted are not among them.

    Raises:
        InputError: a set that was named is not to be had; or none is.
    """
    if ALL not in names:
        return {name: Asked(read_set(name, options), options) for name in names}, {}
    found: dict[str, Asked] = {}
    why: dict[str, str] = {}
    for name in SETS:
        try:
            found[name] = read_if_any(name, options)
        except InputError as error:
            if name in names:
                raise
            why[name] = str(error).replace(f"{options.data}: ", "").replace(f"{options.data}/", "")
    if not found:
        raise InputError(f"no public set is to be had; the first one: {next(iter(why.values()))}")
    return found, why


def read_if_any(name: str, options: Options) -> Asked:
    """The set with its worked examples, without any where it has none."""
    try:
        return Asked(read_set(name, options), options)
    except NoExamples:
        plain = options._replace(shots=0)
        return Asked(read_set(name, plain), plain)


def gathered(folder: Path, models: Mapping[str, str | Path]) -> Json:
    """All finished parts as sets.json has them: sets in their usual order, the models of this call first."""
    sets: dict[str, dict[str, Json]] = {}
    order = list(dict.fromkeys([*models, *(path.name for path in sorted((folder / "parts").iterdir()))]))
    for name in SETS:
        for model in order:
            part = folder / "parts" / model / name
            if (part / "done.json").exists():
                sets.setdefault(name, {})[model] = told(part)
    places = {model: row["place"] for rows in sets.values() for model, row in rows.items()}
    return {
        "models": {model: places[model] for model in order if model in places},
        "main": {name: SETS[name].metrics[0] for name in sets},
        "sets": sets,
    }


def told(part: Path) -> Json:
    """A finished part's results, with how it was asked and the hashes of what judged."""
    manifest = json.loads((part / "manifest.json").read_text(encoding="utf-8"))
    config, parents = manifest["config"], manifest["parents"]
    asked = {"shots": config.get("shots", 0), "limit": config["limit"], "seed": manifest["seed"]}
    judges = {name: parents[name] for name in JUDGES if name in parents}
    known = {"place": part.parent.name, "fewer_examples": 0}  # what parts of earlier versions do not tell
    return known | read_done(part)["results"] | {"asked": asked | {"precision": config["precision"]}, "judges": judges}


def step(
    folder: Path,
    model: str,
    place: str | Path,
    name: str,
    asked: Asked,
    judges: Judges,
    precision: Precision,
) -> Run:
    """The run folder of one model and set, begun or finished; what its result depends on is its identity."""
    wanted, (part, options) = SETS[name], asked
    config: Json = {"set": name, "limit": options.limit, "precision": precision}
    if not isinstance(wanted, TextSet):
        config["shots"] = options.shots
    if isinstance(wanted, AnswerSet):
        config |= wanted.wish._asdict()
    parents = {"model": weights_hash(place) if Path(place).is_dir() else str(place)}
    if name.startswith("truthfulqa") and isinstance(wanted, AnswerSet):
        kept = {"truth_judge": judges.truth, "info_judge": judges.info}
        parents |= {key: weights_hash(at / "model") for key, at in kept.items() if at is not None}
    if name.startswith("real_toxicity") and judges.toxicity is not None:
        parents["toxicity"] = f"{judges.toxicity} {source_hash(judges.toxicity)}"
    parents["data"] = data_hash(part.files)
    return Run.open(folder / "parts" / model / name, "public_set", config, options.seed, parents)


def data_hash(files: Mapping[str, str]) -> str:
    """One hash of all files that a set was read from, by their names and hashes; of a single file its own."""
    if len(files) == 1:
        return next(iter(files.values()))
    lines = sorted(f"{Path(place).name} {digest}\n" for place, digest in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def source_hash(scorer: str) -> str:
    """SHA-256 of the code behind a scorer `module:function`: the module's file, and the one its function is from."""
    code = getattr(inspect.unwrap(scorer_of(scorer)), "__code__", None)
    places = {sys.modules[scorer.partition(":")[0]].__file__, code.co_filename if code else None}
    content = sorted(Path(place).read_bytes() for place in places if place and Path(place).is_file())
    return hashlib.sha256(b"".join(content)).hexdigest()


def through(run: Run, name: str, part: Part | Texts, label: str, tools: Tools, options: Options, place: str) -> None:
    """One model through one set, with a bar of the items done."""
    shown = runs.draw_bars and runs.console.is_terminal
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*bar, TimeRemainingColumn(), console=runs.console, disable=not shown) as progress:
        task = progress.add_task(label, total=len(part.items) if isinstance(part, Part) else 1)

        def track(done: int) -> None:
            stop_if_asked()
            progress.advance(task, done)

        run.finish(**evaluate_set(name, part, tools, options, track), place=place)


def tools_of(place: str | Path, judges: Judges, precision: Precision) -> Tools:
    """The model with the judges.

    Raises:
        InputError: one of them is not to be had, or a judge was trained to say something else.
    """
    truthful, informative = judge_in(judges.truth, "truth"), judge_in(judges.info, "info")
    scorer = None if judges.toxicity is None else scorer_of(judges.toxicity)
    return Tools(load_model(place, precision), truthful, informative, scorer)


def judge_in(folder: Path | None, about: About) -> Judge | None:
    return None if folder is None else judge_of(load_model(checked(folder, about) / "model"), about)


def check_judges(judges: Judges) -> None:
    """Raises InputError for one that is not to be had, before anything is computed."""
    for folder, about in ((judges.truth, TRUTH), (judges.info, INFO)):
        if folder is not None:
            checked(folder, about)
    if judges.toxicity is not None:
        scored(scorer_of(judges.toxicity), [TRIAL])


def checked(folder: Path, about: About) -> Path:
    """The judge's folder, if that is what it judges."""
    found = judge_about(folder)
    if found != about:
        raise InputError(f"{folder} was trained to judge {found}, not {about}; name it by --{found}-judge")
    return folder


def scorer_of(name: str) -> Scorer:
    """The function `module:name`: texts → numbers from 0 to 1, None where one cannot be scored.

    Raises:
        InputError: there is no such function, or its module does not load.
    """
    module, colon, function = name.partition(":")
    if not colon:
        raise InputError(f"--toxicity {name}: write module:function, such as my_scorer:toxicity")
    try:
        found: Scorer = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"--toxicity {name}: {error}; PYTHONPATH must hold the module's folder") from None
    except Exception as error:  # somebody else's module raises whatever it likes
        raise InputError(f"--toxicity {name}: loading it failed: {type(error).__name__}: {error}") from error
    return found


def policies_of(folder: Path) -> dict[str, str | Path]:
    """Every policy of a finished run by the name of its row; those that are another one behind a prefix, or its best
    of n, are no models of their own.

    Raises:
        InputError: there is no run, or it is not finished.
    """
    recipe = parse(Recipe, existing_run(folder), "")
    if not (folder / "evaluation" / "judgements" / "done.json").exists():
        raise InputError(f"{folder} is not finished; name one of its models' folders, or let the run end first")
    with at_work(recipe, folder, cores=1) as loop:
        return own_models(recipe, loop)


def own_models(recipe: Recipe, loop: Loop) -> dict[str, str | Path]:
    derived = {f"{recipe.start_name}_prompted", *best_rows(recipe.evaluate.best_of)}
    found = loop.policies(recipe.rounds)
    return {name: place if place.exists() else str(place) for name, place in found.items() if name not in derived}


COLUMNS = ("set", "model", "metric", "mean", "stderr", "low", "high", "num", "num_clusters", "reason")
COUNTS = ("num_items", "num_scored", "unscored", "left_out", "fewer_examples", "source")
ASKED = ("shots", "limit", "seed", "precision")


def as_csv(found: Json) -> str:
    """One line for each number, with how many items were asked and scored, and how; one for each set not asked."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *COUNTS, *ASKED])
    for name, models in found["sets"].items():
        for model, result in models.items():
            counts = [json.dumps(v) if isinstance(v, dict) else v for v in (result[key] for key in COUNTS)]
            counts += [result["asked"][key] for key in ASKED]
            for metric, estimate in result["metrics"].items():
                writer.writerow([name, model, metric, *(estimate[key] for key in COLUMNS[3:]), *counts])
    for name, reason in found["not_asked"].items():
        writer.writerow([name, *[""] * (len(COLUMNS) - 2), reason])
    return text.getvalue()
