"""Labels by written principles within a run (SALMON, arXiv 2310.05910): from a round's responses to reward models.

principles/pages, principles/taught        what the world's judge of principles is taught on, and the fine-tune
principles/comparisons, …/preference       plain comparisons, and preference pretraining on them
round-1/principles/scores                  each pair of responses by each principle, in both orders
round-1/principles/labels                  rankings under principles, as `heedful judge aggregate` makes them
round-1/further/NAME                       a reward model with a guideline (pipeline.rewarding)
round-1/principles/pairs, …/decoded        the labels as questions, and the language model that answers them
round-1/principles/measured                both forms on held-out prompts (pipeline.principle_measure)
"""

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heedful.config import Config
from heedful.feedback.ai.labeler import AILabeler
from heedful.feedback.ai.template import Template, read_template, write
from heedful.feedback.principles.collect import asking, pairs_of, read_form, score_pairs
from heedful.pipeline.ai_labels import items_of, local_ask
from heedful.pipeline.jobs import Job
from heedful.pipeline.judges import PAGE, VALID_SHARE
from heedful.pipeline.principle_labels import AggregateConfig, aggregate
from heedful.pipeline.principle_measure import PrincipleMeasureConfig, as_pairs, asked_under, measure
from heedful.pipeline.principle_scores import CHUNK, SCORES, ScoreConfig, figures
from heedful.pipeline.principle_settings import DecodedConfig, Worded, worded
from heedful.principles import PrincipleScore
from heedful.run import Run, write_atomic
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.stages import judge as judge_stage
from heedful.stages import reward_model, sft
from heedful.text.principles import guideline
from heedful.types import Demonstration, Labeler, Prompt, Ranking, Response, Split
from heedful.world import World

if TYPE_CHECKING:
    from heedful.pipeline.loop import Loop

PEOPLE = Labeler(id="people", kind="simulated")


class TaughtConfig(Config):
    """On whose answers something is taught."""

    prompts: int
    answers: int


class Scored(Config):
    """What scores are known by."""

    sha256: str


# Before the rounds: the judge and preference pretraining.


def teaching(loop: "Loop") -> None:
    """Teach the world's judge of principles, and pretrain on plain comparisons, side by side."""
    settings = loop.recipe.principles
    if settings is None:
        return
    inputs: dict[str, Any]
    made, taught = [], []
    if judge := settings.judge:
        inputs = {"template": read_form(settings.template), "principles": worded(settings)}
        made.append(loop.job("principles/pages", "pages", make_pages, taught_on(judge), inputs))
    before = settings.preference
    if before and not before.comparisons:
        made.append(loop.job("principles/comparisons", "pages", make_comparisons, taught_on(before), {}))
    loop.workers.run(made)
    if judge:
        inputs = {"model": loop.start(), "pages": loop.folder / "principles" / "pages" / "snapshot", "format": PAGE}
        taught.append(loop.job("principles/taught", "judge", judge_stage.main, judge, inputs))
    if before:
        own = loop.folder / "principles" / "comparisons" / "snapshot"
        inputs = {"model": loop.start(), "rankings": Path(before.comparisons) if before.comparisons else own}
        inputs |= {"demonstrations": None, "format": loop.recipe.format}
        taught.append(loop.job("principles/preference", "reward_model", reward_model.main, before, inputs))
    loop.workers.run(taught)


def taught_on(config: Any) -> TaughtConfig:
    return TaughtConfig(prompts=config.prompts, answers=config.answers)


def shares(prompts: int) -> dict[Split, int]:
    return {"train": prompts, "valid": max(1, round(VALID_SHARE * prompts))}


def make_pages(config: TaughtConfig, run: Run, template: Template, principles: Worded) -> None:
    """The world's comparisons by principles as pages with questions: a snapshot that `stages.judge` learns from.

    A page shows one pair; behind it stand the questions by all principles that people told the two apart by, each as it
    will be asked.
    """
    world, by_id = World(run.seed), {one.id: one for one in principles.principles}
    pages: list[Prompt] = []
    answers: list[Demonstration] = []
    for split, number in shares(config.prompts).items():
        for one in world.comparisons_by_principles(number, split, config.answers):
            known = {id: better for id, better in one.first_is_better.items() if id in by_id}
            run.count("principle_not_in_collection", len(one.first_is_better) - len(known))
            shown = write(template.model_copy(update={"ending": ""}), one.prompt, one.first, one.second)
            page = Prompt(id=f"page-{len(pages)}", text=shown, user=one.prompt.user, split=split)
            pages.append(page)
            for id, better in known.items():
                text = f"{asking(template, by_id[id]).ending} {template.labels[0 if better else 1]}"
                answers.append(Demonstration(id=f"{page.id}-{id}", prompt_id=page.id, text=text, labeler=PEOPLE.id))
    write_snapshot(run.folder / "snapshot", Snapshot(prompts=tuple(pages), demonstrations=tuple(answers)))
    run.finish(num_pages=len(pages), num_questions=len(answers))


def write_pages(folder: Path, asked: list[tuple[Prompt, str]]) -> int:
    """Questions with their answers, as demonstrations of people's; returns how many."""
    answers = (
        Demonstration(id=f"{page.id}-label", prompt_id=page.id, text=f" {label}", labeler="people")
        for page, label in asked
    )
    write_snapshot(folder, Snapshot(prompts=tuple(page for page, _ in asked), demonstrations=tuple(answers)))
    return len(asked)


def make_comparisons(config: TaughtConfig, run: Run) -> None:
    """The world's plain comparisons as rankings of two: what HH and SHP are to SALMON."""
    world = World(run.seed)
    prompts: dict[str, Prompt] = {}
    responses: dict[tuple[str, str], Response] = {}
    rankings: list[Ranking] = []
    for split, number in shares(config.prompts).items():
        for one in world.comparisons(number, split, config.answers).comparisons:
            prompts[one.prompt.id] = one.prompt
            for text in (one.first, one.second):
                place = (one.prompt.id, text)
                responses.setdefault(place, Response(id=f"r{len(responses)}", prompt_id=one.prompt.id, text=text))
            ids = tuple(responses[one.prompt.id, text].id for text in (one.first, one.second))
            rank = (1, 2) if one.first_is_better else (2, 1)
            id = f"compared-{len(rankings)}"
            rankings.append(Ranking(id=id, prompt_id=one.prompt.id, labeler=PEOPLE.id, responses=ids, rank=rank))
    found = Snapshot(tuple(prompts.values()), tuple(responses.values()), (PEOPLE,), rankings=tuple(rankings))
    write_snapshot(run.folder / "snapshot", found)
    run.finish(num_rankings=len(rankings))


# Within a round.


def scorer(loop: "Loop") -> Path:
    """The folder or the hub's name of the model that scores by principles."""
    settings = loop.recipe.principles
    assert settings is not None
    if settings.judge:
        return loop.folder / "principles" / "taught" / "model"
    return loop.fine_tuned(settings.policy) if settings.policy else Path(str(settings.model))


def labelling(loop: "Loop", round: int) -> Path:
    """Score the round's responses by the principles and make labels of it; the snapshot of the labels."""
    settings, here = loop.recipe.principles, f"round-{round}/principles"
    assert settings is not None
    asked = ScoreConfig(
        principles=settings.collection,
        template=settings.template,
        style=settings.style,
        min_characters=settings.min_characters,
        name="judge" if settings.judge else settings.policy or "",
    )
    inputs: dict[str, Any] = {
        "model": scorer(loop),
        "responses": loop.round_folder(round) / "responses" / "responses",
        "principles": worded(settings),
        "template": read_form(settings.template),
    }
    loop.workers.run([loop.job(f"{here}/scores", "judge_principles", score, asked, inputs)])
    labels = settings.labels.model_copy(update={"seed": loop.recipe.seed})
    scored = loop.folder / here / "scores"
    known = Scored(sha256=hashlib.sha256((scored / SCORES).read_bytes()).hexdigest())
    inputs = {"scored": scored / "items", "scores": known}
    loop.workers.run([loop.job(f"{here}/labels", "labels", make_labels, labels, inputs)])
    return loop.folder / here / "labels" / "snapshot"


def score(config: ScoreConfig, run: Run, model: Path, responses: Path, principles: Worded, template: Template) -> None:
    """Score every pair of each prompt's responses by every principle: a folder as `heedful judge principles` makes."""
    items = replace(read_snapshot(responses), principles=principles.principles)
    write_snapshot(run.folder / "items", items)
    name = config.name or model.name
    labeler = AILabeler(local_ask(str(model), config.style), template, Labeler(id=name, kind="ai"))
    every = pairs_of(items_of(items))
    pairs = [one for one in every if min(len(one.first.text), len(one.second.text)) >= config.min_characters]
    done, kept = run.restore()
    lines: list[str] = kept.get("scores", [])
    unscored = Counter(kept.get("unscored", {}))
    steps = -(-len(pairs) // CHUNK)
    for step in run.track(range(done, steps), steps, f"{name} scores"):
        found = score_pairs(labeler, principles.principles, pairs[step * CHUNK : (step + 1) * CHUNK])
        lines += [one.model_dump_json() for one in found.scores]
        unscored += found.unscored
        run.save_if_due(step + 1, scores=lines, unscored=dict(unscored))
    for reason, number in {"short": len(every) - len(pairs), **unscored}.items():
        run.count(reason, number)
    write_atomic(run.folder / SCORES, "".join(line + "\n" for line in lines))
    scores = [PrincipleScore.model_validate_json(line) for line in lines]
    run.finish(labeler=name, num_pairs=len(pairs), num_scores=len(lines), principles=figures(scores))


def make_labels(config: AggregateConfig, run: Run, scored: Path, scores: Scored) -> None:
    """Rankings under principles out of the scores beside `scored`."""
    found = aggregate(scored.parent, run.folder / "snapshot", config)
    for reason, number in found.dropped.items():
        run.count(reason, number)
    run.finish(num_rankings=len(found.principle_rankings))


def decoding(loop: "Loop", round: int, labels: Path) -> list[Job]:
    """The fine-tune of the decoded form, where it is asked for; the pairs it is taught on are made now."""
    settings, here = loop.recipe.principles, f"round-{round}/principles"
    if settings is None or settings.decoded is None:
        return []
    decoded = settings.decoded
    inputs: dict[str, Any] = {"labels": labels, "template": read_template(decoded.template)}
    loop.workers.run([loop.job(f"{here}/pairs", "pages", make_pairs, decoded, inputs)])
    inputs = {"model": loop.start(), "demonstrations": loop.folder / here / "pairs" / "snapshot"}
    inputs |= {"format": PAGE, "documents": loop.documents()}
    return [loop.job(f"{here}/decoded", "sft", sft.main, decoded, inputs)]


def make_pairs(config: DecodedConfig, run: Run, labels: Path, template: Template) -> None:
    """Each label as a question, its responses in an order drawn by its id, with the answer."""
    data, asked = read_snapshot(labels), []
    splits: tuple[Split, ...] = ("train", "valid")
    for split in splits:
        for prompt, responses, ranking in as_pairs(data.principle_rankings_of(split)):
            first = random.Random(f"{run.seed}\x1f{ranking.id}").randrange(2)
            under = asked_under(template, guideline(data.asked_for(ranking), config.guideline))
            text = write(under, prompt, responses[first].text, responses[1 - first].text)
            page = Prompt(id=ranking.id, text=text, user=prompt.user, split=split)
            asked.append((page, template.labels[0 if ranking.rank[first] == 1 else 1]))
    run.finish(num_pages=write_pages(run.folder / "snapshot", asked))


def measuring(loop: "Loop", round: int, labels: Path) -> Job:
    """Both forms of the reward model, and who scored, on held-out prompts."""
    settings, recipe = loop.recipe.principles, loop.recipe
    assert settings is not None
    names = [name for name, config in recipe.further_reward_models.items() if config.guideline is not None]
    decoded = settings.decoded
    taught = loop.folder / f"round-{round}" / "principles" / "decoded"
    config = PrincipleMeasureConfig(
        names=tuple(names), most=settings.measured, exact=recipe.prompts == "world", style=settings.style
    )
    inputs: dict[str, Any] = {
        "labels": labels,
        "scored": loop.folder / f"round-{round}" / "principles" / "scores" / "items",
        "reward_models": [loop.reward_model(round, name) for name in names],
        "decoded": sft.epoch_folder(taught, decoded.epochs) if decoded else None,
        "decoded_config": decoded,
        "template": read_template(decoded.template) if decoded else None,
        "format": recipe.format,
    }
    return loop.job(f"round-{round}/principles/measured", "principles_measured", measure, config, inputs)
