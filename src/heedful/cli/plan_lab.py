"""The work of the over-optimisation lab."""

from collections.abc import Iterator

from heedful.cli.work import TRAINED, WEIGHT, Sizes, Work
from heedful.models.load import from_scratch
from heedful.pipeline.lab_settings import ppo_of, proxies_of
from heedful.pipeline.recipe import Recipe
from heedful.pipeline.world import WorldSource


def lab_amounts(recipe: Recipe, sizes: Sizes) -> Iterator[tuple[str, Work]]:
    """Proxies, samples and policies; tokens of a model of another size count by its weights."""
    lab = recipe.lab
    if lab is None or recipe.pretrain is None or recipe.reward_model is None:
        return
    yield "lab/gold", Work("the exact utility's rankings")
    larger = {name: 1.0 for name in lab.sizes}
    vocabulary = len(WorldSource(recipe).tokenizer() or ())
    for name, laid_over in lab.sizes.items():
        if laid_over:
            shape = recipe.pretrain.shape | dict(laid_over.get("shape", {})) | {"vocab_size": vocabulary}
            own = sum(p.numel() for p in from_scratch(shape, recipe.seed).parameters())
            larger[name] = own / sizes.parameters
            trained = recipe.world.document_tokens * larger[name]
            what = f"{larger[name]:.2g} times the policy's size"
            yield f"lab/{name}/pretrain", Work(what, trained=trained, size=TRAINED * own)
    k, row = (recipe.rankings.min_k + recipe.rankings.max_k) / 2, sizes.prompt["reward_model"]
    for name, number in proxies_of(lab):
        tokens = number * k * (row + recipe.rankings.max_new_tokens) * recipe.reward_model.epochs * larger[name]
        size = TRAINED * larger[name] * sizes.trunk
        yield f"lab/proxies/{name}-{number}", Work(f"on {number:,} rankings", trained=tokens, size=size)
    samples, new = lab.samples * sizes.total("evaluation"), recipe.evaluate.max_new_tokens
    scored = samples * (sizes.prompt["evaluation"] + new) * sum(larger[name] for name, _ in proxies_of(lab))
    yield "lab/samples", Work(f"{samples:,} responses", scored, sampled=samples * new, size=WEIGHT * sizes.parameters)
    ppo = ppo_of(recipe)
    episodes, each = ppo.iterations * ppo.batch_size, sizes.prompt["ppo"] + ppo.max_new_tokens
    last = "{}-{}".format(*proxies_of(lab)[-1])
    names = [f"{size}-{number}" for size, number in proxies_of(lab)]
    for name in [*names, *(f"{last}-kl-{coef:g}" for coef in lab.kl_coefs)]:
        work = Work(
            f"{episodes:,} episodes",
            episodes * (sizes.prompt["ppo"] + 4 * each),
            2 * ppo.inner_epochs * episodes * each,
            episodes * ppo.max_new_tokens,
            2 * TRAINED * sizes.parameters,
        )
        yield f"lab/ppo/{name}", work
