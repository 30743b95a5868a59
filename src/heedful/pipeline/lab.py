"""The over-optimisation lab: what an exact rater says while its proxies are maximised (Gao et al. 2022,
arXiv 2210.10760).

lab/gold                    round 1's responses ranked by the exact utility: a snapshot for each number of rankings
lab/SIZE/pretrain           where a proxy's size is not the policy's
lab/proxies/SIZE-N          the reward model of that size, taught on N of those rankings
lab/samples                 n responses of the start policy to each evaluation prompt: exact utility, each proxy's score
lab/ppo/SIZE-N              PPO on that proxy; gold.jsonl: the exact utility of each iteration's rollout
lab/ppo/SIZE-N-kl-COEF      the same with a KL penalty
lab/laws                    the curves, the fitted laws, predicted and observed peaks: lab.json is made of these
"""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from heedful.config import Config
from heedful.engine.follow import by_reward_model
from heedful.engine.sample import Sampled, Sampler, score_rows
from heedful.models.checkpoint import load_policy, load_reward_model
from heedful.pipeline.jobs import Job
from heedful.pipeline.lab_settings import LabConfig, ppo_of, proxies_of
from heedful.pipeline.measure import fitting
from heedful.pipeline.sized import pretraining
from heedful.ranks import dense
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.stages import ppo, reward_model
from heedful.stages.ppo import PPOConfig
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.types import Labeler, Prompt, Ranking
from heedful.world import World

if TYPE_CHECKING:
    from heedful.pipeline.loop import Loop

GOLD = Labeler(id="gold", group="train", kind="metric")


class GoldConfig(Config):
    """Numbers of training rankings to learn from."""

    rankings: tuple[int, ...]


class SamplesConfig(Config):
    """Samples of each evaluation prompt."""

    samples: int
    temperature: float
    max_new_tokens: int
    max_tokens: int = 16384  # per forward pass


def laboratory(loop: "Loop", round: int) -> None:
    """Every step of the lab, side by side where they do not wait for each other."""
    recipe, lab = loop.recipe, loop.recipe.lab
    assert lab is not None and recipe.reward_model is not None
    responses = loop.round_folder(round) / "responses" / "responses"
    asked = GoldConfig(rankings=lab.rankings)
    others = {name: laid_over for name, laid_over in lab.sizes.items() if laid_over}
    loop.workers.run(
        [loop.job("lab/gold", "gold", rank_by_gold, asked, {"responses": responses}), *pretraining(loop, "lab", others)]
    )
    jobs = []
    for size, number in proxies_of(lab):
        inputs: dict[str, Any] = {"model": model_of(loop, size), "rankings": loop.folder / "lab" / "gold" / str(number)}
        inputs |= {"demonstrations": None, "format": recipe.format}
        name = f"lab/proxies/{size}-{number}"
        jobs.append(loop.job(name, "reward_model", reward_model.main, recipe.reward_model, inputs))
    loop.workers.run(jobs)
    optimised = [optimising(loop, round, f"{size}-{number}", 0.0) for size, number in proxies_of(lab)]
    last = "{}-{}".format(*proxies_of(lab)[-1])
    optimised += [optimising(loop, round, last, coef) for coef in lab.kl_coefs]
    loop.workers.run([sampling(loop, lab), *optimised])


def model_of(loop: "Loop", size: str) -> Path:
    """The pretrained model of the size."""
    lab = loop.recipe.lab
    assert lab is not None
    return loop.folder / "lab" / size / "pretrain" / "model" if lab.sizes[size] else loop.start()


def rank_by_gold(config: GoldConfig, run: Run, responses: Path) -> None:
    """Snapshots of the first so many training prompts' rankings by the exact utility, validation prompts' all.

    The same order of prompts for every number, so that fewer rankings are part of more.
    """
    sampled, world = read_snapshot(responses), World(run.seed)
    of: dict[str, list[Any]] = {prompt.id: [] for prompt in sampled.prompts}
    for response in sampled.responses:
        of[response.prompt_id].append(response)
    rankings = {
        prompt.id: Ranking(
            id=f"gold/{prompt.id}",
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
        part = Snapshot(
            prompts=prompts,
            responses=tuple(response for response in sampled.responses if response.prompt_id in kept),
            labelers=(GOLD,),
            rankings=tuple(rankings[prompt.id] for prompt in prompts),
        )
        write_snapshot(run.folder / str(number), replace(part, dropped=sampled.dropped))
        run.count(f"rankings_missing_of_{number}", max(0, number - len(train)))
    run.finish(num_rankings=len(rankings))


def sampling(loop: "Loop", lab: LabConfig) -> Job:
    """The start policy's samples, scored by every proxy."""
    wanted = loop.recipe.evaluate
    config = SamplesConfig(samples=lab.samples, temperature=wanted.temperature, max_new_tokens=wanted.max_new_tokens)
    names = [f"{size}-{number}" for size, number in proxies_of(lab)]
    inputs: dict[str, Any] = {"policy": loop.ppo_start(), "prompts": loop.data("evaluation")}
    inputs |= {"proxies": [loop.folder / "lab" / "proxies" / name / "model" for name in names]}
    return loop.job("lab/samples", "lab_samples", sample, config, inputs | {"format": loop.recipe.format})


def sample(
    config: SamplesConfig, run: Run, policy: Path, prompts: Path, proxies: list[Path], format: PromptFormat
) -> None:
    """samples.jsonl: a row for each prompt, with the exact utility and every proxy's score of each sample."""
    model, tokenizer = load_policy(policy)
    encoder = Encoder(tokenizer, format)
    kept, tokens = fitting(encoder, read_snapshot(prompts).prompts, prompts)
    draw, n = random.Random(f"{run.seed} lab"), config.samples
    seeds = [draw.getrandbits(62) for _ in kept]
    sampled = Sampler(model.decoder, tokenizer, config.max_new_tokens, config.temperature)(
        tokens, seeds, [n] * len(kept)
    )
    scored: dict[str, list[float]] = {}
    for place in proxies:
        proxy, _ = load_reward_model(place)
        scored[place.parent.name] = score_rows(proxy, sampled.rows, config.max_tokens, "fp32").tolist()
    world = World(run.seed)
    for i, prompt in enumerate(kept):
        at = slice(i * n, (i + 1) * n)
        gold = [world.rate(prompt, text).evaluation_utility for text in sampled.text[at]]
        run.sample(prompt_id=prompt.id, gold=gold, scores={name: own[at] for name, own in scored.items()})
    for reason, number in encoder.dropped.items():
        run.count(reason, number)
    run.finish(num_prompts=len(kept), num_samples=n * len(kept))


def optimising(loop: "Loop", round: int, proxy: str, kl_coef: float) -> Job:
    """PPO from the start policy on one proxy."""
    inputs: dict[str, Any] = {"policy_folder": loop.ppo_start(), "prompts": loop.prompts("ppo", round)}
    inputs |= {"reward_model_folder": loop.folder / "lab" / "proxies" / proxy / "model", "format": loop.recipe.format}
    name = f"lab/ppo/{proxy}" + (f"-kl-{kl_coef:g}" if kl_coef else "")
    return loop.job(name, "lab_ppo", watched, ppo_of(loop.recipe, kl_coef), inputs)


def watched(config: PPOConfig, run: Run, reward_model_folder: Path, **inputs: Any) -> None:
    """PPO whose every rollout is also rated exactly: gold.jsonl, a row for each iteration."""
    proxy, _ = load_reward_model(reward_model_folder)
    world, log = World(run.seed), run.folder / "gold.jsonl"
    done, _ = run.restore()
    lines = log.read_text(encoding="utf-8").splitlines()[:done] if log.exists() else []
    log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    by_proxy = by_reward_model(proxy, config.max_tokens, config.precision)

    def score(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
        gold = [world.rate(p, text).evaluation_utility for p, text in zip(prompts, sampled.text, strict=True)]
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"gold": sum(gold) / len(gold)}) + "\n")
        return by_proxy(prompts, sampled)

    ppo.main(config, run, reward_model_folder=reward_model_folder, score=score, documents=None, **inputs)
