"""The work of labels by written principles: the judge of principles, scores, labels, and what learns from them."""

from collections.abc import Iterator
from math import comb
from pathlib import Path

from heedful.cli.work import TRAINED, WEIGHT, Sizes, Work
from heedful.feedback.principles.aggregate import RELEASED
from heedful.pipeline.principle_settings import PrinciplesConfig, worded
from heedful.pipeline.recipe import Recipe
from heedful.snapshot import read_snapshot

WORDS = 12  # tokens of a principle and what stands around it, about


def principle_amounts(recipe: Recipe, sizes: Sizes) -> Iterator[tuple[str, Work]]:
    """Steps under principles/ and round-N/principles/; a judge of another size is not known here."""
    settings = recipe.principles
    if settings is None:
        return
    row, response = sizes.prompt["reward_model"], sizes.demonstration
    size = TRAINED * sizes.parameters
    if judge := settings.judge:
        pages, asked = judge.prompts * comb(judge.answers, 2), len(worded(settings).principles)
        yield "principles/pages", Work(f"about {pages:,} pages")
        trained = judge.epochs * pages * (row + 2 * response + asked * WORDS)
        yield "principles/taught", Work("on the pages", trained=trained, size=size)
    if before := settings.preference:
        if before.comparisons:
            pairs = len(read_snapshot(Path(before.comparisons)).rankings)
        else:
            pairs = before.prompts * comb(before.answers, 2)
            yield "principles/comparisons", Work(f"about {pairs:,} comparisons")
        trained = before.epochs * pairs * (row + 2 * response)
        yield "principles/preference", Work("on the comparisons", trained=trained, size=TRAINED * sizes.trunk)
    for round in range(1, recipe.rounds + 1):
        yield from of_round(recipe, sizes, settings, f"round-{round}/principles")


def labels_of(recipe: Recipe, settings: PrinciplesConfig, prompts: int) -> tuple[int, int, int]:
    """At most how many labels come of the prompts, of how many responses each, under how many tokens of principles."""
    how, weighty = settings.labels, sum(one.weight > 0 for one in worded(settings).principles)
    k = round((recipe.rankings.min_k + recipe.rankings.max_k) / 2)
    if how.way == "sets":
        return round(prompts * weighty * (1 + how.negated)), k, WORDS
    listed = how.principles if how.way == "paper" else RELEASED.most
    return prompts * comb(k, 2) * how.passes, 2, min(listed, weighty) * WORDS


def of_round(recipe: Recipe, sizes: Sizes, settings: PrinciplesConfig, here: str) -> Iterator[tuple[str, Work]]:
    """Questions share what stands before the principle, labels their prompt."""
    k, new = (recipe.rankings.min_k + recipe.rankings.max_k) / 2, recipe.rankings.max_new_tokens
    row, number = sizes.prompt["reward_model"], sizes.total("reward_model")
    pairs = round(number * comb(round(k), 2))
    principles = len(worded(settings).principles)
    read = 2 * pairs * (row + 2 * new + principles * WORDS)
    yield f"{here}/scores", Work(f"{pairs:,} pairs by {principles} principles", read, size=WEIGHT * sizes.parameters)
    labels, compared, listed = labels_of(recipe, settings, number)
    yield f"{here}/labels", Work(f"at most {labels:,} labels")
    questions, under = labels * comb(compared, 2), row + 2 * new + listed
    forms = sum(config.guideline is not None for config in recipe.further_reward_models.values())
    if decoded := settings.decoded:
        forms += 1
        yield f"{here}/pairs", Work(f"at most {questions:,} questions")
        trained, size = decoded.epochs * questions * under, TRAINED * sizes.parameters
        yield f"{here}/decoded", Work("on the questions", trained=trained, size=size)
    asked = 2 * settings.measured * forms
    yield (
        f"{here}/measured",
        Work(f"{asked:,} pairs of held-out prompts", asked * under, size=WEIGHT * sizes.parameters),
    )
