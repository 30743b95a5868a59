"""The work of the over-optimisation lab."""

from collections.abc import Iterator

from heedful.cli.plan_sized import pretraining, times_larger
from heedful.cli.work import TRAINED, WEIGHT, Sizes, Work
from heedful.pipeline.lab_settings import PPO_SAMPLES, LabConfig, last_proxy, ppo_of, proxies_of
from heedful.pipeline.recipe import Recipe


def lab_amounts(recipe: Recipe, sizes: Sizes) -> Iterator[tuple[str, Work]]:
    """Proxies, samples and policies; tokens of a model of another size count by its weights."""
    lab = recipe.lab
    if lab is None or recipe.pretrain is None or recipe.reward_model is None:
        return
    yield "lab/gold", Work("the exact utility's rankings")
    larger = {name: times_larger(recipe, sizes, laid_over) for name, laid_over in lab.sizes.items()}
    for name in lab.sizes:
        if lab.sizes[name]:
            yield f"lab/{name}/pretrain", pretraining(recipe, sizes, larger[name])
    proxies = proxies_of(lab)
    for name, number in proxies:
        yield f"lab/proxies/{name}-{number}", teaching(recipe, sizes, number, larger[name])
    yield "lab/samples", sampling(recipe, sizes, lab.samples, 1.0, sum(larger[name] for name, _ in proxies))
    for name in [f"{size}-{number}" for size, number in proxies]:
        yield f"lab/ppo/{name}", maximising(recipe, sizes)
    for coef in lab.kl_coefs:
        yield f"lab/ppo/{last_proxy(lab)}-kl-{coef:g}", maximising(recipe, sizes)
    yield from policy_amounts(recipe, sizes, lab)
    yield from round_amounts(recipe, sizes, lab, larger[proxies[-1][0]])


def policy_amounts(recipe: Recipe, sizes: Sizes, lab: LabConfig) -> Iterator[tuple[str, Work]]:
    """Policies of other sizes."""
    for name, laid_over in lab.policies.items():
        here, larger = f"lab/policies/{name}", times_larger(recipe, sizes, laid_over)
        yield f"{here}/pretrain", pretraining(recipe, sizes, larger)
        config, number = recipe.sft[recipe.ppo_start], sizes.number["sft"]["train"]
        tokens = config.epochs * number * (sizes.prompt["sft"] + sizes.demonstration) / (1 - config.pretraining_mix)
        size = TRAINED * larger * sizes.parameters
        yield f"{here}/sft", Work(f"{config.epochs} epochs", trained=tokens * larger, size=size)
        yield f"{here}/samples", sampling(recipe, sizes, lab.samples, larger, 1.0)
        yield f"{here}/ppo", maximising(recipe, sizes, larger)


def round_amounts(recipe: Recipe, sizes: Sizes, lab: LabConfig, larger: float) -> Iterator[tuple[str, Work]]:
    """Rounds with a proxy of their own, which learns from the rankings of all rounds so far."""
    wanted, most = recipe.rankings, lab.rankings[-1]
    for number in range(1, lab.rounds + 1) if lab.rounds > 1 else ():
        here = f"lab/rounds/{number}"
        if number > 1:
            responses = sizes.total("reward_model") * (wanted.min_k + wanted.max_k) / 2
            sampled = responses * wanted.max_new_tokens
            yield f"{here}/responses", Work(f"about {responses:,.0f} responses", sampled=sampled)
            yield f"{here}/gold", Work("the exact utility's rankings")
            yield f"{here}/proxy", teaching(recipe, sizes, number * most, larger)
        yield f"{here}/ppo", maximising(recipe, sizes, rounds=lab.rounds)


def teaching(recipe: Recipe, sizes: Sizes, number: int, larger: float) -> Work:
    """A proxy on so many rankings."""
    assert recipe.reward_model is not None
    k, wanted = (recipe.rankings.min_k + recipe.rankings.max_k) / 2, recipe.rankings
    tokens = number * k * (sizes.prompt["reward_model"] + wanted.max_new_tokens) * recipe.reward_model.epochs * larger
    return Work(f"on {number:,} rankings", trained=tokens, size=TRAINED * larger * sizes.trunk)


def sampling(recipe: Recipe, sizes: Sizes, each: int, larger: float, read_by: float) -> Work:
    """Samples of a policy so many times as large, read by proxies that are together so many times as large."""
    samples, new = each * sizes.total("evaluation"), recipe.evaluate.max_new_tokens
    on_ppo = PPO_SAMPLES * sizes.number["ppo"]["train"]
    scored = samples * (sizes.prompt["evaluation"] + new) * read_by
    sampled = (samples * new + on_ppo * ppo_of(recipe).max_new_tokens) * larger
    size = WEIGHT * larger * sizes.parameters
    return Work(f"{samples + on_ppo:,} responses", scored, sampled=sampled, size=size)


def maximising(recipe: Recipe, sizes: Sizes, larger: float = 1.0, rounds: int = 1) -> Work:
    """PPO of a policy so many times as large, for its share of the iterations."""
    ppo = ppo_of(recipe, rounds=rounds)
    episodes, each = ppo.iterations * ppo.batch_size, sizes.prompt["ppo"] + ppo.max_new_tokens
    return Work(
        f"{episodes:,} episodes",
        episodes * (larger * sizes.prompt["ppo"] + (2 * larger + 2) * each),
        (1 + larger) * ppo.inner_epochs * episodes * each,
        episodes * ppo.max_new_tokens * larger,
        (1 + larger) * TRAINED * sizes.parameters,
    )
