"""The loop: each method is one step of InstructGPT's figure 2, and each leaves a finished run folder behind.

store.db                             the labelling store
clock                                seconds of work so far, by the wall clock
data/                                snapshots: documents, and the prompts of each pool
demonstrations/ pretrain/ sft/ …     one run folder per step or trained model
round-1/responses, rankings, reward_model, choose_epoch, ppo, ppo_ptx …
evaluation/                          one measured policy per folder, and the judgements
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from heedful.config import Config
from heedful.feedback.principles.rulebook import read_rules
from heedful.models.load import load_tokenizer
from heedful.pipeline import baselines, judges, principle_steps
from heedful.pipeline.ai_settings import own_shapes
from heedful.pipeline.clock import clocked
from heedful.pipeline.early import check_prompts, context_of
from heedful.pipeline.jobs import Job, Workers
from heedful.pipeline.lab import laboratory
from heedful.pipeline.labelling import demonstrate, judge, not_erased, rank
from heedful.pipeline.measure import (
    ChooseConfig,
    MeasureConfig,
    ScoreConfig,
    choose,
    measure,
    sample,
    sampling_of,
    score_snapshot,
)
from heedful.pipeline.optimise import optimising
from heedful.pipeline.recipe import POOLS, Recipe
from heedful.pipeline.renew import RENEWED, NewPromptsConfig, renew
from heedful.pipeline.reuse import content_hash, finished, take_over
from heedful.pipeline.rewarding import rewarding
from heedful.pipeline.sized import pretraining
from heedful.pipeline.source import Source
from heedful.run import Run, Waiting
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.stages import distil, pretrain, sft
from heedful.steps import best_rows
from heedful.store.database import Store
from heedful.store.pools import Pool, add_prompt

__all__ = ["Loop", "Waiting"]


class Nothing(Config):
    """A step without settings of its own."""


class Loop:
    """One recipe in one folder."""

    def __init__(self, recipe: Recipe, folder: Path, store: Store, source: Source, workers: Workers) -> None:
        self.recipe = recipe
        self.folder = folder
        self.store = store
        self.source = source
        self.workers = workers
        # Runs whose finished steps are taken over where they would come out the same.
        self.siblings: Sequence[Path] = ()
        self.until = "evaluate"

    def run(self, until: str = "evaluate") -> None:
        """Every step in order, up to and including the last one named `until`; finished ones are passed over.

        Raises:
            Waiting: people have not judged enough yet.
        """
        self.until, steps = until, self.steps()
        last = max(place for place, (name, _) in enumerate(steps) if name == until)
        with clocked(self.folder / "clock"):
            for _, step in steps[: last + 1]:
                step()

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        """The whole loop: each step with the name its command has."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("data", self.prepare),
            ("pretrain", self.pretrain),
            ("demonstrations", self.demonstrate),
            ("sft", self.fine_tune),
        ]
        for round in range(1, self.recipe.rounds + 1):
            steps += [
                ("rankings", partial(self.collect, round)),
                ("reward", partial(self.reward, round)),
                ("ppo", partial(self.optimise, round)),
            ]
        return [*steps, ("evaluate", self.evaluate)]

    # Where things are.

    def data(self, name: str) -> Path:
        """A snapshot: "documents", or a pool's name for its prompts at the start."""
        return self.folder / "data" / name

    def documents(self) -> Path | None:
        return self.data("documents") if self.data("documents").exists() else None

    def round_folder(self, round: int) -> Path:
        return self.folder / f"round-{round}"

    def reward_model(self, round: int, name: str = "reward_model") -> Path:
        """The reward model, or a further one."""
        further = ("further",) if name in self.recipe.further_reward_models else ()
        return self.round_folder(round).joinpath(*further, name if further else "reward_model", "model")

    def prompts(self, pool: Pool, round: int) -> Path:
        """The pool's prompts as they stand in the round: those of the start, and what came in for later rounds."""
        return self.data(pool) if round == 1 else self.round_folder(round) / "prompts" / pool

    def start(self) -> Path:
        """The pretrained model: ours, or the one the recipe names."""
        return self.folder / "pretrain" / "model" if self.recipe.pretrain else Path(str(self.recipe.model))

    def fine_tuned(self, name: str, epoch: int | None = None) -> Path:
        """An SFT variant after an epoch (None: the one of lowest loss), or a distilled model; the start's name is the
        pretrained model."""
        if name == self.recipe.start_name:
            return self.start()
        if name in self.recipe.distil:
            return self.folder / name / "model"
        folder = self.folder / name
        return sft.epoch_folder(folder, epoch or finished(folder)["lowest_loss_epoch"])

    def ppo_start(self) -> Path:
        """PPO's start and reference: the last epoch of its variant, as the paper trains it for two."""
        name = self.recipe.ppo_start
        return self.fine_tuned(name, self.recipe.sft[name].epochs if name in self.recipe.sft else None)

    def newest_policy(self, round: int) -> Path:
        """Whose responses are ranked: the SFT policy first, the newest PPO policy (the recipe's last) afterwards."""
        if round == 1 or not self.recipe.optimised():
            return self.fine_tuned(self.recipe.rankings.policy)
        return self.round_folder(round - 1) / list(self.recipe.optimised())[-1] / "model"

    # Steps.

    def prepare(self) -> None:
        """Prompts into the store and into one snapshot per pool; pretraining text into a snapshot.

        Raises:
            InputError: a later step would find no prompts, or none that its model's context holds.
        """

        def body(config: Config, run: Run) -> None:
            pools = self.source.prompts()
            tokenizer = self.source.tokenizer() or load_tokenizer(str(self.recipe.model))
            check_prompts(self.recipe, self.source, pools, tokenizer, context_of(self.recipe), self.until)
            for pool, prompts in pools.items():
                kept = not_erased(run, self.store, prompts)
                add_prompt(self.store, *kept, pool=pool)
                write_snapshot(self.data(pool), Snapshot(prompts=tuple(kept)))
            for reason, number in self.source.dropped.items():
                run.count(reason, number)
            documents = self.source.documents()
            if documents:
                write_snapshot(self.data("documents"), Snapshot(documents=tuple(documents)))
            run.finish(**{pool: len(read_snapshot(self.data(pool)).prompts) for pool in POOLS})

        self.step("data", self.recipe.data_config(), body)

    def pretrain(self) -> None:
        if self.recipe.pretrain is not None:
            inputs = {"tokenizer": self.source.tokenizer(), "documents": self.data("documents")}
            inputs["format"] = self.recipe.format
            job = self.job("pretrain", "pretrain", pretrain.main, self.recipe.pretrain, inputs)
            self.workers.run([job, *pretraining(self, "judges", own_shapes(self.recipe))])

    def demonstrate(self) -> None:
        """Labelers' own responses to the SFT pool, into a snapshot."""
        if self.recipe.sft:
            prompts = self.data("sft")

            def body(config: Config, run: Run) -> None:
                demonstrate(run, self.store, self.source, prompts)

            self.step("demonstrations", Nothing(), body, {"prompts": prompts})

    def fine_tune(self) -> None:
        self.workers.run(
            [
                self.job(
                    name,
                    "sft",
                    sft.main,
                    config,
                    {
                        "model": self.start(),
                        "demonstrations": self.folder / "demonstrations" / "snapshot",
                        "format": self.recipe.format,
                        "documents": self.documents(),
                    },
                )
                for name, config in self.recipe.sft.items()
            ]
            + [
                self.job(
                    name,
                    "distil",
                    distil.main,
                    config,
                    {
                        "model": self.start(),
                        "prompts": self.data(config.pool),
                        "format": self.recipe.format,
                        "rules": read_rules(config.rules) if config.rules else None,
                    },
                )
                for name, config in self.recipe.distil.items()
            ]
            + baselines.tuning(self)
        )
        self.workers.run(judges.teaching(self))
        principle_steps.teaching(self)

    def collect(self, round: int) -> None:
        """K responses of the newest policy to each prompt, ranked whole; a snapshot of all rounds' rankings so far."""
        if round > 1:
            self.renew(round)
        wanted = self.recipe.rankings
        config = sampling_of(wanted, f"round-{round}")
        inputs = {
            "policy": self.newest_policy(round),
            "prompts": self.prompts("reward_model", round),
            "format": self.recipe.format,
        }
        self.workers.run([self.job(f"round-{round}/responses", "sample", sample, config, inputs)])
        responses = self.round_folder(round) / "responses" / "responses"
        self.step(
            f"round-{round}/rankings",
            self.recipe.labelers,
            lambda c, run: rank(
                self.recipe, run, self.store, self.source, responses, round, partial(judges.label, self, round)
            ),
            {"responses": responses, **self.asked()},
        )

    def asked(self) -> dict[str, Any]:
        """The AI labelers that rank, with what their models are known by."""
        found: dict[str, Any] = {}
        for name, labeler in self.recipe.ai_labelers.items():
            if labeler.rankings:
                found |= {name: labeler, f"{name} model": judges.model_of(self, labeler)}
                found[f"{name} template"] = judges.template_of(labeler)
        return found

    def renew(self, round: int) -> None:
        """The round's prompts: those of the round before, and what people have asked the newest policy since."""
        before = {pool: self.prompts(pool, round - 1) for pool in RENEWED}
        policy = self.newest_policy(round)
        self.step(
            f"round-{round}/prompts",
            NewPromptsConfig(new_prompts=self.recipe.new_prompts),
            lambda config, run: renew(config, run, self.store, self.source, before, policy, round),
            {str(pool): place for pool, place in before.items()},
        )

    def reward(self, round: int) -> None:
        """Reward models on all rankings so far; then the prefix and the SFT epoch the first prefers, and scores."""
        rewarding(self, round)

    def scoring(self, name: str, model: Path, snapshot: Path) -> Job:
        inputs = {"reward_model": model, "snapshot": snapshot, "format": self.recipe.format}
        return self.job(name, "score", score_snapshot, ScoreConfig(), inputs)

    def choose_epoch(self, round: int) -> Job:
        """The SFT epoch whose validation responses score highest (InstructGPT, section 3.5)."""
        name = self.recipe.rankings.policy
        epochs = range(1, self.recipe.sft[name].epochs + 1)
        return self.choosing(
            f"round-{round}/choose_epoch", [self.fine_tuned(name, epoch) for epoch in epochs], [""], round
        )

    def choose_prefix(self, round: int) -> Job:
        """The few-shot prefix under which the pretrained model's validation responses score highest."""
        return self.choosing("evaluation/choose_prefix", [self.start()], self.source.prefixes(), round)

    def choosing(self, name: str, policies: list[Path], prefixes: list[str], round: int) -> Job:
        wanted, stop = self.recipe.rankings, (self.recipe.evaluate.prefix_stop,)
        config = ChooseConfig(temperature=wanted.temperature, max_new_tokens=wanted.max_new_tokens, stop=stop)
        inputs = {
            "policies": policies,
            "prefixes": prefixes,
            "reward_model": self.reward_model(round),
            "prompts": self.data("reward_model"),
            "format": self.recipe.format,
        }
        return self.job(name, "choose", choose, config, inputs)

    def optimise(self, round: int) -> None:
        """Every variant of every optimiser, side by side; after the last round the over-optimisation lab."""
        self.workers.run(optimising(self, round))
        if self.recipe.lab is not None and round == self.recipe.rounds:
            laboratory(self, round)

    def evaluate(self) -> None:
        """Measure every policy on the evaluation prompts, then have the held-out labelers judge them."""
        round = self.recipe.rounds
        names = list(self.policies(round))
        jobs = [self.measuring(name, folder, round) for name, folder in self.policies(round).items()]
        most = best_rows(self.recipe.evaluate.best_of)
        for job in jobs:
            if job.folder.name in most:  # much work: on all cores
                self.workers.run([job])
        self.workers.run([job for job in jobs if job.folder.name not in most])
        self.workers.run(baselines.testing(self, self.policies(round)))
        ranked = self.round_folder(round) / "responses" / "responses"
        self.step(
            "evaluation/judgements",
            self.recipe.evaluate,
            lambda c, run: judge(self.recipe, run, self.store, self.source, self.folder / "evaluation", names, ranked),
            {name: self.folder / "evaluation" / name / "responses" for name in names},
        )

    def policies(self, round: int) -> dict[str, Path]:
        """What is evaluated, in the order of the results table."""
        recipe, start = self.recipe, self.recipe.start_name
        found = {start: self.start()}
        if recipe.evaluate.prompted:
            found[f"{start}_prompted"] = self.start()
        found |= dict.fromkeys(best_rows(recipe.evaluate.best_of), self.ppo_start())
        for name in recipe.sft:
            found[name] = self.fine_tuned(name, self.best_epoch(name, round))
        found |= {name: self.fine_tuned(name) for name in recipe.distil} | baselines.tuned(self, round)
        if recipe.optimised():
            found[recipe.start_row()] = self.ppo_start()
        return found | {name: self.round_folder(round) / name / "model" for name in recipe.optimised()}

    def best_epoch(self, name: str, round: int) -> int | None:
        if name != self.recipe.rankings.policy or self.recipe.reward_model is None:
            return None
        return finished(self.round_folder(round) / "choose_epoch")["best_policy"] + 1

    def measuring(self, name: str, policy: Path, round: int) -> Job:
        wanted = self.recipe.evaluate
        prefix = ""
        if name == f"{self.recipe.start_name}_prompted":
            prefix = self.source.prefixes()[finished(self.folder / "evaluation" / "choose_prefix")["best_prefix"]]
        config = MeasureConfig(
            name=name,
            temperature=wanted.temperature,
            max_new_tokens=wanted.max_new_tokens,
            best_of=best_rows(wanted.best_of).get(name, 1),
            prefix=prefix,
            stop=(wanted.prefix_stop,) if prefix else (),
        )
        inputs = {
            "policy": policy,
            "reference": self.ppo_start(),
            "reward_model": self.reward_model(round) if self.recipe.reward_model else None,
            "prompts": self.data("evaluation"),
            "documents": self.documents(),
            "format": self.recipe.format,
        }
        return self.job(f"evaluation/{name}", "measure", measure, config, inputs)

    # How a step is run.

    def job(self, name: str, stage: str, body: Callable[..., None], config: Config, inputs: Mapping[str, Any]) -> Job:
        job = Job(self.folder / name, stage, body, config, self.recipe.seed, self.parents(inputs), inputs)
        take_over(job, [sibling / name for sibling in self.siblings])
        return job

    def step(
        self, name: str, config: Config, body: Callable[[Any, Run], None], inputs: Mapping[str, Path] | None = None
    ) -> None:
        """A step that needs the store: run here, once."""
        settings, parents = config.model_dump(mode="json"), self.parents(inputs or {})
        run = Run.open(self.folder / name, name.split("/")[-1], settings, self.recipe.seed, parents)
        if not run.done:
            body(config, run)

    def parents(self, inputs: Mapping[str, Any]) -> dict[str, str]:
        """The hash of everything a step reads: models and snapshots by content, settings by value."""
        found = {}
        for name, value in inputs.items():
            paths = value if isinstance(value, list) else [value]
            for i, path in enumerate(paths):
                if isinstance(path, Path):
                    key = f"{name}[{i}]" if len(paths) > 1 else name
                    found[key] = content_hash(path)
                elif isinstance(path, Config):
                    found[name] = path.model_dump_json()
        return found
