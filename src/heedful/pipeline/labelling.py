"""Steps in which somebody judges: simulated labelers answer at once, people through the store and the next command."""

import random
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from heedful.config import InputError
from heedful.feedback.marks import MARKS
from heedful.feedback.simulated import SimulatedLabeler
from heedful.pipeline.recipe import Recipe
from heedful.pipeline.source import Source
from heedful.run import Run, Waiting
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.stages.reward_model import RewardModelConfig
from heedful.store.database import Store
from heedful.store.erase import without_erased
from heedful.store.export import export_snapshot
from heedful.store.labels import add_demonstration, add_labeler, add_ranking, add_rating, add_response
from heedful.store.progress import Work, evaluation_work, marking_work, progress, ranking_work
from heedful.store.slots import offer, on_offer, withdraw
from heedful.types import Demonstration, Labeler, LabelerGroup, Prompt, Ranking, Rating, Response

R = TypeVar("R", Prompt, Response, Demonstration)

EMPTY_LAST = Labeler(id="empty-last", group="heldout", kind="principles")


def demonstrate(run: Run, store: Store, source: Source, prompts: Path) -> None:
    """A demonstration for every prompt of the SFT pool, written by labelers; then the snapshot.

    Raises:
        Waiting: people still have to write some.
        InputError: none that people wrote is of a training, or of a validation, prompt; the step is not done.
    """
    asked = read_snapshot(prompts)
    written = not_erased(run, store, source.demonstrations(asked.prompts))
    simulated = {labeler.labeler.id: labeler.labeler for labeler in source.labelers("train")}
    authors = sorted({demonstration.labeler for demonstration in written} - simulated.keys())
    add_labeler(store, *simulated.values(), *(Labeler(id=author) for author in authors))
    add_demonstration(store, *written)
    wait_for(store, [Work("demonstration", pool="sft")], prompts)
    snapshot = export_snapshot(store, pools=["sft"])
    training, validation = (len(snapshot.demonstrations_of(split)) for split in ("train", "valid"))
    if not training or not validation:
        raise InputError(
            f"{run.folder}: {training} training and {validation} validation demonstrations by training labelers, and "
            f"sft needs both; write some of prompts that were passed over, and run the same command again"
        )
    write_snapshot(run.folder / "snapshot", snapshot)
    run.finish(num_demonstrations=len(snapshot.demonstrations))


def not_erased(run: Run, store: Store, records: Sequence[R]) -> list[R]:
    """The records without those of persons who had their data erased meanwhile; the others are counted."""
    kept = without_erased(store, records)
    run.count("erased_on_request", len(records) - len(kept))
    return kept


def wait_for(store: Store, works: Sequence[Work], where: Path) -> None:
    """Go on where people have judged all that is wanted of what stands in `where`; else it is on offer to them.

    Raises:
        Waiting: they have not, with the ways to bring their judgements in.
    """
    states = [progress(store, work) for work in works]
    missing = [state for state in states if state.done < state.total]
    for state in states:
        show_in_app(store, state.work, state in missing)
    if missing:
        database = Path(str(store.engine.url.database))
        there = f"--store {shlex.quote(str(database))}"
        lines = [f"waiting for people: {', '.join(map(str, missing))}; what to judge is in {where}"]
        lines.append("it is on offer in the labelling app; open that, then run the same command again:")
        lines.append(f"  heedful label serve {shlex.quote(str(database.parent))}")
        lines.append("or write it as forms to fill in, for each labeler NAME:")
        lines += [f"  heedful label work FILE {there} --labeler NAME {' '.join(options(it.work))}" for it in missing]
        lines.append("take the filled forms in, then run the same command again:")
        raise Waiting("\n".join([*lines, f"  heedful label import FILE {there}"]), lambda: still_missing(store, works))


def still_missing(store: Store, works: Sequence[Work]) -> str:
    """As "412 of 500 rankings"; "" when all is judged."""
    states = [progress(store, work) for work in works]
    return ", ".join(str(state) for state in states if state.done < state.total)


def show_in_app(store: Store, work: Work, wanted: bool) -> None:
    """Put the work on offer, or take it off where it is not wanted any more; a larger overlap that a project's lead
    has given it stays."""
    with store.read() as connection:
        same = [other for other, _ in on_offer(connection) if replace(other, overlap=work.overlap) == work]
    if any(other.overlap > work.overlap for other in same):
        return
    if wanted:
        offer(store, work)
    elif same:
        withdraw(store, work)


def options(work: Work) -> list[str]:
    """What asks `heedful label work` for this."""
    said = [f"--task {work.task}", f"--pool {work.pool}"]
    said += [f"--round {work.round}"] if work.round else []
    said += [f"--overlap {work.overlap:g}"] if work.overlap > 1 else []
    said += ["--heldout"] if work.group == "heldout" else []
    return said + (["--purpose evaluation"] if work.purpose == "evaluation" else [])


def rank(
    recipe: Recipe,
    run: Run,
    store: Store,
    source: Source,
    responses: Path,
    round: int,
    ask_ai: Callable[[], None] = lambda: None,
) -> None:
    """Every prompt's responses ranked by a training labeler, some by two, held-out prompts by held-out ones as well.

    `ask_ai` has AI labelers rank them, into the store; where they alone do, people rank nothing to train on, and
    simulated held-out labelers still rank the held-out prompts.

    People rank the same: see `store.progress.ranking_work`. The snapshot holds the rankings of all rounds so far.

    Raises:
        Waiting: people still have to rank some.
        InputError: nothing they judged tells who learns from it one response from another; the step is not done.
    """
    config, sampled = recipe.labelers, read_snapshot(responses)
    responses_left = not_erased(run, store, sampled.responses)
    grouped = by_prompt(replace(sampled, responses=tuple(responses_left)))
    add_response(store, *responses_left, round=round)
    train, heldout = source.labelers("train"), source.labelers("heldout")
    asked = grouped if recipe.rankings.by != "ai" else []  # of training labelers
    if train:
        source.calibrate(by_prompt(sampled))  # as `judge` does, whatever is erased between them
        train, heldout = source.labelers("train"), source.labelers("heldout")
        add_labeler(store, *[labeler.labeler for labeler in (*train, *heldout)])
        add_ranking(store, *simulated_rankings(asked, train, config.overlap, run.seed))
        tested = [item for item in grouped if item[0].split != "train"]
        add_ranking(store, *simulated_rankings(tested, heldout, 1.0, run.seed))
        if config.ratings:
            add_rating(store, *simulated_ratings(grouped, train, run.seed))
        if config.references:
            written = source.demonstrations([prompt for prompt, _ in grouped])
            add_demonstration(store, *not_erased(run, store, written))
    elif asked:
        wanted = ranking_work(round, config.train, config.heldout, config.overlap)
        wait_for(store, [*wanted, *marking_work(round, config.ratings, config.references)], responses)
    ask_ai()
    snapshot = without_strangers(recipe, export_snapshot(store, pools=["reward_model"], heldout="validation"))
    learners = [recipe.reward_model, RewardModelConfig() if recipe.dpo else None]  # DPO learns from orders as well
    for learner in filter(None, learners) if not train else ():
        check_judged(learner, snapshot, store, run.folder)
    run.count("rankings_by_unnamed_ai_labelers", snapshot.dropped.get("rankings_by_unnamed_ai_labelers", 0))
    write_snapshot(run.folder / "snapshot", snapshot)
    for prompt, group in grouped:
        for response in group if prompt.split == "test" else []:
            utility = source.utility(prompt, response.text)
            run.sample(prompt_id=prompt.id, response_id=response.id, utility=utility)
    run.finish(num_rankings=len(snapshot.rankings), num_responses=len(snapshot.responses))


def without_strangers(recipe: Recipe, snapshot: Snapshot) -> Snapshot:
    """The snapshot without rankings by AI labelers that the recipe names nowhere: `heedful judge label` put them into
    the store beside the run, and whoever wants to learn from them says so in labeler_weights. They are counted."""
    named = {name for name, labeler in recipe.ai_labelers.items() if labeler.rankings}
    learners = [recipe.reward_model, *recipe.further_reward_models.values(), *recipe.dpo.values()]
    named |= {name for learner in learners if learner is not None for name in learner.labeler_weights}
    strangers = {one.id for one in snapshot.labelers if one.kind == "ai" and not named & {one.id, "ai"}}
    rankings = tuple(ranking for ranking in snapshot.rankings if ranking.labeler not in strangers)
    left_out = {"rankings_by_unnamed_ai_labelers": len(snapshot.rankings) - len(rankings)} if strangers else {}
    who = tuple(one for one in snapshot.labelers if one.id not in strangers)
    return replace(snapshot, rankings=rankings, labelers=who, dropped=dict(snapshot.dropped) | left_out)


def check_judged(config: RewardModelConfig, snapshot: Snapshot, store: Store, where: Path) -> None:
    """Raises InputError where training people's judgements of training prompts are all ties, or all marks are equal."""
    there = f"--store {shlex.quote(str(store.engine.url.database))}"
    mend = (
        f"write them out with heedful label export FILE {there}, correct some, take them in with heedful label edit "
        f"FILE {there}, and run the same command again"
    )
    judged = snapshot.rankings_of("train", "train")
    if config.objective != "regression":
        if not any(len(set(ranking.rank)) > 1 for _, _, ranking in judged):
            number = len(judged)
            raise InputError(
                f"{where}: of {number} rankings of training prompts all are tied throughout, which teaches nothing; "
                f"{mend}"
            )
    elif config.target in ("likert", "good_bad"):
        prompts, group = snapshot.prompt_by_id(), {labeler.id: labeler.group for labeler in snapshot.labelers}
        mine = [r for r in snapshot.ratings if group[r.labeler] == "train" and prompts[r.prompt_id].split == "train"]
        marks = MARKS[config.target](replace(snapshot, ratings=tuple(mine))) if mine else {}
        if len(set(marks.values())) < 2:
            raise InputError(
                f"{where}: the {config.target} marks of {len(marks)} responses to training prompts are all equal, "
                f"which tells a reward model nothing; {mend}"
            )


def by_prompt(snapshot: Snapshot) -> list[tuple[Prompt, list[Response]]]:
    """Each prompt with its responses, in the snapshot's order of prompts."""
    found: dict[str, list[Response]] = defaultdict(list)
    for response in snapshot.responses:
        found[response.prompt_id].append(response)
    return [(prompt, found[prompt.id]) for prompt in snapshot.prompts if found[prompt.id]]


def simulated_rankings(
    items: Iterable[tuple[Prompt, Sequence[Response]]],
    labelers: Sequence[SimulatedLabeler],
    overlap: float,
    seed: int,
) -> list[Ranking]:
    """One labeler ranks each item, a second one a share `overlap` of them."""
    rankings = []
    for prompt, responses in items:
        draw = random.Random(f"{seed} {prompt.id} ranking")
        number = min(len(labelers), 1 + (draw.random() < overlap))
        for labeler in draw.sample(list(labelers), number):
            rankings.append(labeler.rank(prompt, responses))
    return rankings


def simulated_ratings(
    items: Iterable[tuple[Prompt, Sequence[Response]]], labelers: Sequence[SimulatedLabeler], seed: int
) -> list[Rating]:
    """One labeler marks all responses of an item."""
    ratings = []
    for prompt, responses in items:
        labeler = random.Random(f"{seed} {prompt.id} rating").choice(list(labelers))
        ratings += [labeler.rate(prompt, response) for response in responses]
    return ratings


def judge(
    recipe: Recipe, run: Run, store: Store, source: Source, folder: Path, names: Sequence[str], ranked: Path
) -> None:
    """Labelers rank and rate the policies' responses side by side, equal texts judged once.

    The store takes no empty responses, so people are not shown them: each comes last in every ranking of its prompt.

    `ranked` holds the last responses that were ranked: the labelers' noise is set on them again, since this process may
    not be the one that ranked them. Writes the judgements' snapshot; samples.jsonl says which response each policy gave
    to each prompt.

    Raises:
        Waiting: people still have to rank some.
    """
    items = side_by_side(run, store, source, folder, names)
    shown = [response for _, responses in items for response in responses if response.text.strip()]
    run.count("empty_response", sum(len(responses) for _, responses in items) - len(shown))
    add_response(store, *shown)
    source.calibrate(by_prompt(read_snapshot(ranked)))
    wanted = recipe.evaluate
    if source.labelers("heldout") or source.labelers("train"):
        judged = judged_by_groups(items, source, wanted.labelers_per_prompt, run.seed, wanted.training_labelers)
        add_labeler(store, *judged.labelers)
        known = {response.id for response in shown}
        add_ranking(store, *[r for r in judged.rankings if known.issuperset(r.responses)])
        add_rating(store, *[r for r in judged.ratings if r.response_id in known])
    else:
        train, heldout = recipe.labelers.train, recipe.labelers.heldout
        works = evaluation_work(train, heldout, wanted.labelers_per_prompt, wanted.training_labelers)
        wait_for(store, works, folder)
        judged = export_snapshot(store, pools=["evaluation"], purpose="evaluation", heldout="include")
        judged = with_empty_last(items, of_groups(judged, [work.group for work in works]))
    everything = Snapshot(
        prompts=tuple(prompt for prompt, _ in items),
        responses=tuple(response for _, responses in items for response in responses),
        labelers=judged.labelers,
        rankings=judged.rankings,
        ratings=judged.ratings,
    )
    write_snapshot(run.folder / "snapshot", everything)
    run.finish(num_rankings=len(judged.rankings), num_ratings=len(judged.ratings))


def with_empty_last(items: Iterable[tuple[Prompt, Sequence[Response]]], judged: Snapshot) -> Snapshot:
    """The judgements with each prompt's empty responses, tied, behind all that people ranked.

    Where they leave nothing to ask people for, one ranking of its own says the same, by the labeler `EMPTY_LAST`. Where
    people rated as well, an empty response gets the lowest mark.
    """
    rankings = list(judged.rankings)
    by_rule, marks = [], []
    for prompt, responses in items:
        empty = tuple(response.id for response in responses if not response.text.strip())
        asked = tuple(response.id for response in responses if response.text.strip())
        common = {"prompt_id": prompt.id, "labeler": EMPTY_LAST.id, "purpose": "evaluation"}
        for id in empty if judged.ratings else ():
            mark = {"id": f"{EMPTY_LAST.id}/{id}", "response_id": id, "overall": 1}
            marks.append(Rating.model_validate(common | mark))
        if empty and len(asked) < 2 and len(responses) > 1:
            rank = (1,) * len(asked) + (1 + len(asked),) * len(empty)
            order = {"id": f"{EMPTY_LAST.id}/{prompt.id}", "responses": asked + empty, "rank": rank}
            by_rule.append(Ranking.model_validate(common | order))
        elif empty:
            rankings = [behind(ranking, empty) if ranking.prompt_id == prompt.id else ranking for ranking in rankings]
    labelers = judged.labelers + ((EMPTY_LAST,) if by_rule or marks else ())
    return replace(judged, labelers=labelers, rankings=(*rankings, *by_rule), ratings=(*judged.ratings, *marks))


def behind(ranking: Ranking, last: tuple[str, ...]) -> Ranking:
    """The ranking with further responses, tied, behind its last; they were not on the page, so `order` is unknown, and
    a comparison of two has its strength, that both are bad, or probabilities no more."""
    rank = ranking.rank + (max(ranking.rank) + 1,) * len(last)
    more = {"responses": ranking.responses + last, "rank": rank, "order": (), "strength": None, "both_bad": False}
    return ranking.model_copy(update=more | {"preference": ()})


def of_groups(judged: Snapshot, groups: Sequence[LabelerGroup]) -> Snapshot:
    """The judgements of these groups' labelers."""
    who = {labeler.id: labeler for labeler in judged.labelers if labeler.group in groups}
    rankings = tuple(ranking for ranking in judged.rankings if ranking.labeler in who)
    ratings = tuple(rating for rating in judged.ratings if rating.labeler in who)
    return Snapshot(labelers=tuple(who.values()), rankings=rankings, ratings=ratings)


def side_by_side(
    run: Run, store: Store, source: Source, folder: Path, names: Sequence[str]
) -> list[tuple[Prompt, list[Response]]]:
    """Each evaluation prompt with the policies' different responses; logs which one each policy gave."""
    given = {name: read_snapshot(folder / name / "responses") for name in names}
    prompts = given[names[0]].prompt_by_id()
    asked: dict[str, dict[str, Response]] = {id: {} for id in prompts}
    for name in names:
        for response in not_erased(run, store, given[name].responses):
            kept = asked[response.prompt_id].setdefault(response.text, response)
            utility = source.utility(prompts[response.prompt_id], response.text)
            run.sample(policy=name, prompt_id=response.prompt_id, response_id=kept.id, gold=utility)
    return [(prompt, list(asked[id].values())) for id, prompt in prompts.items() if asked[id]]


def judged_by_groups(
    items: Sequence[tuple[Prompt, Sequence[Response]]], source: Source, number: int, seed: int, also_training: bool
) -> Snapshot:
    """Held-out labelers, or training ones where nobody is held out, rank and rate; training labelers rank them too."""
    judged = simulated_judgements(items, source.labelers("heldout") or source.labelers("train"), number, seed)
    if not also_training or not source.labelers("heldout"):
        return judged
    more = simulated_judgements(items, source.labelers("train"), number, seed)
    return replace(judged, labelers=(*judged.labelers, *more.labelers), rankings=(*judged.rankings, *more.rankings))


def simulated_judgements(
    items: Iterable[tuple[Prompt, Sequence[Response]]], labelers: Sequence[SimulatedLabeler], number: int, seed: int
) -> Snapshot:
    """Each item ranked by `number` of the labelers, each of its responses rated by one."""
    rankings, ratings = [], []
    for prompt, responses in items:
        draw = random.Random(f"{seed} {prompt.id} evaluation")
        for labeler in draw.sample(list(labelers), min(len(labelers), number)):
            if len(responses) > 1:
                rankings.append(labeler.rank(prompt, responses, purpose="evaluation"))
        ratings += [labelers[draw.randrange(len(labelers))].rate(prompt, r, purpose="evaluation") for r in responses]
    who = tuple(labeler.labeler for labeler in labelers)
    return Snapshot(labelers=who, rankings=tuple(rankings), ratings=tuple(ratings))
