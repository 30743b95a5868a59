"""The over-optimisation lab: what an exact rater says while its proxies are maximised (Gao et al. 2022,
arXiv 2210.10760).

lab/gold                    round 1's responses ranked by the exact utility: a snapshot for each number of rankings
lab/SIZE/pretrain           where a proxy's size is not the policy's
lab/proxies/SIZE-N          the reward model of that size, taught on N of those rankings
lab/samples                 n responses of the start policy to each evaluation prompt: exact utility, each proxy's score
lab/ppo/SIZE-N              PPO on that proxy; its metrics tell the exact utility of each iteration's rollout
lab/ppo/SIZE-N-kl-COEF      the same with a KL penalty
lab/policies/NAME/…         a policy of another size: pretrain, sft, samples, and ppo on the last proxy
lab/rounds/R/…              a policy whose proxy is taught anew each round: responses, gold, proxy, ppo
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from heedful.config import Config
from heedful.engine.follow import by_reward_model
from heedful.engine.sample import Sampled, Sampler, score_rows
from heedful.losses.kl import kl_k1
from heedful.losses.masked import masked_sum
from heedful.models.checkpoint import load_policy, load_reward_model
from heedful.models.heads import Policy
from heedful.models.optimizer import autocast
from heedful.pipeline import measure
from heedful.pipeline.jobs import Job
from heedful.pipeline.lab_settings import PPO_SAMPLES, last_proxy, ppo_of, proxies_of
from heedful.pipeline.measure import fitting, sampling_of
from heedful.pipeline.sized import pretraining
from heedful.ranks import dense
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.stages import ppo, reward_model, sft
from heedful.stages.ppo import PPOConfig
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.text.parts import by_prompt
from heedful.types import Labeler, Prompt, Ranking
from heedful.world import World

if TYPE_CHECKING:
    from heedful.pipeline.loop import Loop

GOLD = Labeler(id="gold", group="train", kind="metric")


class GoldConfig(Config):
    """Numbers of training rankings to learn from."""

    rankings: tuple[int, ...]
    name: str = "gold"  # what their ids begin with


class SamplesConfig(Config):
    """Samples of each evaluation prompt, and some of each prompt that PPO learns on."""

    samples: int
    temperature: float
    max_new_tokens: int
    ppo_samples: int = PPO_SAMPLES
    ppo_temperature: float
    ppo_max_new_tokens: int
    max_tokens: int = 16384  # per forward pass


def laboratory(loop: "Loop", round: int) -> None:
    """Every step of the lab, side by side where they do not wait for each other."""
    recipe, lab = loop.recipe, loop.recipe.lab
    assert lab is not None and recipe.reward_model is not None
    responses = loop.round_folder(round) / "responses" / "responses"
    asked = GoldConfig(rankings=lab.rankings)
    others = {name: laid_over for name, laid_over in lab.sizes.items() if laid_over}
    loop.workers.run(
        [
            loop.job("lab/gold", "gold", rank_by_gold, asked, {"responses": responses}),
            *pretraining(loop, "lab", others),
            *pretraining(loop, "lab/policies", lab.policies),
        ]
    )
    jobs = []
    for size, number in proxies_of(lab):
        rankings = loop.folder / "lab" / "gold" / str(number)
        jobs.append(teaching(loop, f"lab/proxies/{size}-{number}", size, rankings))
    loop.workers.run([*jobs, *(tuning(loop, name) for name in lab.policies)])
    names, last = [f"{size}-{number}" for size, number in proxies_of(lab)], last_proxy(lab)
    jobs = [sampling(loop, round, "lab/samples", loop.ppo_start(), names)]
    jobs += [maximising(loop, round, f"lab/ppo/{name}", name, 0.0) for name in names]
    jobs += [maximising(loop, round, f"lab/ppo/{last}-kl-{coef:g}", last, coef) for coef in lab.kl_coefs]
    for name in lab.policies:
        start = tuned(loop, name)
        jobs.append(sampling(loop, round, f"lab/policies/{name}/samples", start, [last]))
        jobs.append(maximising(loop, round, f"lab/policies/{name}/ppo", last, 0.0, start))
    if lab.rounds > 1:
        jobs.append(maximising(loop, round, "lab/rounds/1/ppo", last, 0.0, rounds=lab.rounds))
    loop.workers.run(jobs)
    for number in range(2, lab.rounds + 1):
        again(loop, round, number)


def teaching(loop: "Loop", place: str, size: str, rankings: Path) -> Job:
    """A proxy of the size."""
    config = loop.recipe.reward_model
    assert config is not None
    inputs: dict[str, Any] = {"model": model_of(loop, size), "rankings": rankings, "demonstrations": None}
    return loop.job(place, "reward_model", reward_model.main, config, inputs | {"format": loop.recipe.format})


def tuning(loop: "Loop", name: str) -> Job:
    """A policy of another size, fine-tuned as the start policy is."""
    inputs: dict[str, Any] = {"model": loop.folder / "lab" / "policies" / name / "pretrain" / "model"}
    inputs |= {"demonstrations": loop.folder / "demonstrations" / "snapshot", "documents": loop.documents()}
    config = loop.recipe.sft[loop.recipe.ppo_start]
    return loop.job(f"lab/policies/{name}/sft", "sft", sft.main, config, inputs | {"format": loop.recipe.format})


def tuned(loop: "Loop", name: str) -> Path:
    """Where that one begins, after its last epoch as the start policy."""
    epochs = loop.recipe.sft[loop.recipe.ppo_start].epochs
    return sft.epoch_folder(loop.folder / "lab" / "policies" / name / "sft", epochs)


def again(loop: "Loop", round: int, number: int) -> None:
    """A round of iterated optimisation: the newest policy's responses are ranked by gold, a new proxy learns from the
    rankings of all rounds so far, and the policy goes on by it."""
    recipe, lab = loop.recipe, loop.recipe.lab
    assert lab is not None
    here, before = loop.folder / "lab" / "rounds" / str(number), loop.folder / "lab" / "rounds" / str(number - 1)
    wanted, policy = recipe.rankings, before / "ppo" / "model"
    config = sampling_of(wanted, f"lab-{number}")
    inputs: dict[str, Any] = {"policy": policy, "prompts": loop.data("reward_model"), "format": recipe.format}
    place = f"lab/rounds/{number}"
    loop.workers.run([loop.job(f"{place}/responses", "sample", measure.sample, config, inputs)])
    most = lab.rankings[-1]
    gold = GoldConfig(rankings=(most,), name=f"gold-{number}")
    first = loop.folder / "lab" / "gold" if number == 2 else before / "gold"
    inputs = {"responses": here / "responses" / "responses", "before": first / str(most)}
    loop.workers.run([loop.job(f"{place}/gold", "gold", rank_by_gold, gold, inputs)])
    size, _ = proxies_of(lab)[-1]
    loop.workers.run([teaching(loop, f"{place}/proxy", size, here / "gold" / str(most))])
    proxy = here / "proxy" / "model"
    loop.workers.run([maximising(loop, round, f"{place}/ppo", proxy, 0.0, policy, rounds=lab.rounds)])


def model_of(loop: "Loop", size: str) -> Path:
    """The pretrained model of the size."""
    lab = loop.recipe.lab
    assert lab is not None
    return loop.folder / "lab" / size / "pretrain" / "model" if lab.sizes[size] else loop.start()


def rank_by_gold(config: GoldConfig, run: Run, responses: Path, before: Path | None = None) -> None:
    """Snapshots of the first so many training prompts' rankings by the exact utility, validation prompts' all.

    The same order of prompts for every number, so that fewer rankings are part of more. Rankings of the snapshot
    `before` stand in front of them.
    """
    sampled, world = read_snapshot(responses), World(run.seed)
    of: dict[str, list[Any]] = {prompt.id: [] for prompt in sampled.prompts}
    for response in sampled.responses:
        of[response.prompt_id].append(response)
    rankings = {
        prompt.id: Ranking(
            id=f"{config.name}/{prompt.id}",
            prompt_id=prompt.id,
            labeler=GOLD.id,
            responses=tuple(response.id for response in of[prompt.id]),
            rank=dense([-world.rate(prompt, response.text).evaluation_utility for response in of[prompt.id]]),
        )
        for prompt in sampled.prompts
        if prompt.split != "test"
    }
    train = [prompt for prompt in sampled.prompts if prompt.split == "train"]
    random.Random(run.seed).shuffle(train)
    valid = [prompt for prompt in sampled.prompts if prompt.split == "valid"]
    for number in config.rankings:
        prompts = (*train[:number], *valid)
        kept = {prompt.id for prompt in prompts}
        earlier = read_snapshot(before) if before else Snapshot()
        known = {prompt.id for prompt in earlier.prompts}
        part = Snapshot(
            prompts=(*earlier.prompts, *(prompt for prompt in prompts if prompt.id not in known)),
            responses=(*earlier.responses, *(r for r in sampled.responses if r.prompt_id in kept)),
            labelers=(GOLD,),
            rankings=(*earlier.rankings, *(rankings[prompt.id] for prompt in prompts)),
        )
        write_snapshot(run.folder / str(number), replace(part, dropped=sampled.dropped))
        run.count(f"rankings_missing_of_{number}", max(0, number - len(train)))
    run.finish(num_rankings=len(rankings))


def sampling(loop: "Loop", round: int, place: str, policy: Path, names: list[str]) -> Job:
    """A policy's samples, scored by the named proxies."""
    lab, wanted, learning = loop.recipe.lab, loop.recipe.evaluate, ppo_of(loop.recipe)
    assert lab is not None
    config = SamplesConfig(
        samples=lab.samples,
        temperature=wanted.temperature,
        max_new_tokens=wanted.max_new_tokens,
        ppo_temperature=learning.temperature,
        ppo_max_new_tokens=learning.max_new_tokens,
    )
    inputs: dict[str, Any] = {"policy": policy, "prompts": loop.data("evaluation"), "ppo": loop.prompts("ppo", round)}
    inputs |= {"proxies": [loop.folder / "lab" / "proxies" / name / "model" for name in names]}
    return loop.job(place, "lab_samples", sample, config, inputs | {"format": loop.recipe.format})


def sample(
    config: SamplesConfig, run: Run, policy: Path, prompts: Path, ppo: Path, proxies: list[Path], format: PromptFormat
) -> None:
    """samples.jsonl: a row for each prompt, with the exact utility and every proxy's score of each sample.

    In the results, `ppo_gold`: the mean exact utility on the prompts that PPO learns on. They are other prompts, and
    prompts differ by more than a policy gains, so what an RL curve gains is counted from there.
    """
    model, tokenizer = load_policy(policy)
    encoder = Encoder(tokenizer, format)
    kept, tokens = fitting(encoder, read_snapshot(prompts).prompts, prompts)
    draw, n, world = random.Random(f"{run.seed} lab"), config.samples, World(run.seed)
    seeds = [draw.getrandbits(62) for _ in kept]
    sampled = Sampler(model.decoder, tokenizer, config.max_new_tokens, config.temperature)(
        tokens, seeds, [n] * len(kept)
    )
    scored: dict[str, list[float]] = {}
    for place in proxies:
        proxy, _ = load_reward_model(place)
        scored[place.parent.name] = score_rows(proxy, sampled.rows, config.max_tokens, "fp32").tolist()
    for i, prompt in enumerate(kept):
        at = slice(i * n, (i + 1) * n)
        gold = [world.rate(prompt, text).evaluation_utility for text in sampled.text[at]]
        run.sample(prompt_id=prompt.id, gold=gold, scores={name: own[at] for name, own in scored.items()})
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    learned, tokens = fitting(Encoder(tokenizer, format), read_snapshot(ppo).prompts_of("train"), ppo)
    seeds = [draw.getrandbits(62) for _ in learned]
    begun = Sampler(model.decoder, tokenizer, config.ppo_max_new_tokens, config.ppo_temperature)(
        tokens, seeds, [config.ppo_samples] * len(learned)
    )
    asked = [prompt for prompt in learned for _ in range(config.ppo_samples)]
    worth = [world.rate(prompt, text).evaluation_utility for prompt, text in zip(asked, begun.text, strict=True)]
    told = {"ppo_gold": sum(worth) / len(worth), "num_ppo_prompts": len(learned)}
    run.finish(num_prompts=len(kept), num_samples=n * len(kept), **told)


def maximising(
    loop: "Loop",
    round: int,
    place: str,
    proxy: str | Path,
    kl_coef: float,
    policy: Path | None = None,
    rounds: int = 1,
) -> Job:
    """PPO from the policy (the start policy unless another is named) on one proxy, for its share of `rounds`."""
    folder = loop.folder / "lab" / "proxies" / proxy / "model" if isinstance(proxy, str) else proxy
    inputs: dict[str, Any] = {"policy_folder": policy or loop.ppo_start(), "prompts": loop.prompts("ppo", round)}
    inputs |= {"reward_model_folder": folder, "format": loop.recipe.format}
    inputs |= {"begun": loop.ppo_start()} if rounds > 1 else {}
    return loop.job(place, "lab_ppo", watched, ppo_of(loop.recipe, kl_coef, rounds), inputs)


def watched(config: PPOConfig, run: Run, reward_model_folder: Path, begun: Path | None = None, **inputs: Any) -> None:
    """PPO whose every rollout is also rated exactly: `gold` in its metrics.

    With `begun`, the policy of an earlier round's begin, `kl_begun` is the KL from that, nats per response (k1).
    """
    proxy, _ = load_reward_model(reward_model_folder)
    first = load_policy(begun)[0] if begun else None
    world = World(run.seed)
    by_proxy = by_reward_model(proxy, config.max_tokens, config.precision)

    def score(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
        gold = [world.rate(p, text).evaluation_utility for p, text in zip(prompts, sampled.text, strict=True)]
        run.beside(gold=sum(gold) / len(gold))
        if first is not None:
            run.beside(kl_begun=float(sampled_kl(first, sampled, config).mean()))
        return by_proxy(prompts, sampled)

    ppo.main(config, run, reward_model_folder=reward_model_folder, score=score, documents=None, **inputs)


@torch.no_grad()
def sampled_kl(ref_policy: Policy, sampled: Sampled, config: PPOConfig) -> torch.Tensor:
    """log π(y|x) − log π_ref(y|x) of each sampled response, (N,) in nats, log π as it was sampled."""
    kl = torch.zeros(len(sampled.rows.length), device=ref_policy.device)
    with autocast(ref_policy.device, config.precision):
        for index in by_prompt(sampled.rows, config.max_tokens):
            part = sampled.rows.select(index).to(ref_policy.device)
            ref_logprob = ref_policy.logprob(part, config.temperature)
            logprob = sampled.logprob[index, : ref_logprob.shape[1]]
            kl[index] = masked_sum(kl_k1(logprob, ref_logprob), part.mask)
    return kl
