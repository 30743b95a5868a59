"""The work of AI labelers and of the reward models beside the first."""

from collections.abc import Iterator
from math import comb

from heedful.cli.plan_principles import labels_of
from heedful.cli.plan_sized import pretraining, times_larger
from heedful.cli.work import TRAINED, WEIGHT, Sizes, Work
from heedful.feedback.ai.template import marks_of, read_template
from heedful.pipeline.ai_settings import JudgeConfig
from heedful.pipeline.recipe import Recipe

COMPARED = 0.5  # of the ordered pairs of a prompt's answers (world.comparisons)


def ai_amounts(recipe: Recipe, sizes: Sizes) -> Iterator[tuple[str, Work]]:
    """Judges, AI labelers' rankings, further reward models; tokens of a model of another size count by its weights."""
    for name, judge in recipe.judges.items():
        yield from judge_amounts(recipe, sizes, name, judge)
    prompts, row = sizes.total("reward_model"), sizes.prompt["reward_model"]
    k, new = (recipe.rankings.min_k + recipe.rankings.max_k) / 2, recipe.rankings.max_new_tokens
    for round in range(1, recipe.rounds + 1):
        here = f"round-{round}"
        for name, labeler in recipe.ai_labelers.items():
            asked = prompts * (k if labeler.by == "scores" else 2 * comb(round_up(k), 2)) * labeler.rationales
            each = row + (new if labeler.by == "scores" else 2 * new)
            written = asked * labeler.rationale_tokens if labeler.think else 0
            yield f"{here}/labels/{name}", Work(f"about {round_up(asked):,} questions", asked * each, sampled=written)
        for name, config in recipe.further_reward_models.items():
            number = round * sizes.number["reward_model"]["train"] * (1 + recipe.labelers.overlap)
            trained, what = config.epochs * number * k * (row + new), f"on about {number:,.0f} rankings"
            if config.guideline is not None and recipe.principles is not None:
                labels, compared, under = labels_of(recipe, recipe.principles, sizes.number["reward_model"]["train"])
                trained, what = config.epochs * labels * compared * (row + new + under), f"on at most {labels:,} labels"
            size = TRAINED * sizes.trunk + sizes.kept * min(config.max_tokens, config.batch_size * k * (row + new))
            yield f"{here}/further/{name}", Work(what, trained=trained, size=size)
            split = sizes.number["reward_model"]
            held_out = round * (split["valid"] + split["test"]) * k * (row + new)
            yield f"{here}/scores-{name}", Work("responses to held-out prompts", held_out, size=WEIGHT * sizes.trunk)


def judge_amounts(recipe: Recipe, sizes: Sizes, name: str, judge: JudgeConfig) -> Iterator[tuple[str, Work]]:
    """Pretraining where the judge has a size of its own, the pages, and the fine-tune on them."""
    larger = times_larger(recipe, sizes, judge.pretrain or {})
    if judge.pretrain is not None:
        yield f"judges/{name}/pretrain", pretraining(recipe, sizes, larger)
    pairs = judge.prompts * judge.answers * (judge.answers - 1) * COMPARED
    marks = judge.prompts * judge.answers if marks_of(read_template(judge.template)) else 0
    yield f"judges/{name}/pages", Work(f"about {pairs + marks:,.0f} pages")
    each = sizes.prompt["reward_model"] + sizes.demonstration
    tokens = pairs * (each + sizes.demonstration) + marks * each
    size = TRAINED * larger * sizes.parameters
    yield f"judges/{name}/taught", Work("on the pages", trained=judge.epochs * tokens * larger, size=size)


def round_up(number: float) -> int:
    return -int(-number // 1)
