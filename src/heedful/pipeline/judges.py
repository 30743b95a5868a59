"""AI labelers at work in a run: judges of the world's own are made, a round's responses ranked, marks taken as rewards.

judges/NAME/pretrain   where the judge has a size of its own
judges/NAME/pages      what it is taught on: comparisons and marks as prompts, the answers as demonstrations
judges/NAME/taught     the fine-tune on them
round-1/labels/NAME    an AI labeler's rankings, as `heedful judge label` leaves them
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from heedful.config import Config, InputError
from heedful.engine.sample import Sampled, Sampler
from heedful.feedback.ai.labeler import AILabeler
from heedful.feedback.ai.template import Template, marks_of, read_template, write, write_score
from heedful.models.checkpoint import load_policy
from heedful.pipeline.ai_labels import Choice, LabelConfig, Who, begin_job, judge_items, local_ask, plan_job
from heedful.pipeline.ai_settings import AILabelerConfig, JudgeConfig
from heedful.pipeline.jobs import Job
from heedful.pipeline.measure import fitting
from heedful.pipeline.recipe import RankingsConfig
from heedful.pipeline.reuse import content_hash
from heedful.run import Run
from heedful.snapshot import Snapshot, write_snapshot
from heedful.stages import sft
from heedful.text.collate import Encoder
from heedful.text.format import PromptFormat
from heedful.types import Demonstration, Labeler, Prompt, Split
from heedful.world import World

if TYPE_CHECKING:
    from heedful.pipeline.loop import Loop

VALID_SHARE = 0.05  # of a judge's prompts, beside those it is taught on
PAGE = PromptFormat(template="{prompt}")  # a page ends where the answer stands


class PagesConfig(Config):
    """What a judge is taught on."""

    prompts: int
    answers: int
    temperature: float
    max_new_tokens: int


def make_pages(config: PagesConfig, run: Run, template: Template, policy: Path | None, format: PromptFormat) -> None:
    """The world's comparisons and marks as prompts with their answers: a snapshot that `stages.sft` trains on.

    `policy`: whose answers are compared and marked; None: people's own.
    """
    world = World(run.seed)
    sizes: dict[Split, int] = {"train": config.prompts, "valid": max(1, round(VALID_SHARE * config.prompts))}
    pages = []
    for split, number in sizes.items():
        asked = world.prompts(number, split, pool="judge") if policy else []
        given = answers_of(policy, asked, format, config, run.seed) if policy else None
        found = world.comparisons(number, split, config.answers, given)
        for one in found.comparisons:
            text = write(template, one.prompt, one.first, one.second)
            pages.append((text, template.labels[0 if one.first_is_better else 1], one.prompt.user, split))
        for mark in found.marks if template.score else []:
            text = write_score(template, mark.prompt, mark.text)
            pages.append((text, marks_of(template)[mark.mark - 1], mark.prompt.user, split))
    prompts = tuple(Prompt(id=f"page-{n}", text=text, user=user, split=s) for n, (text, _, user, s) in enumerate(pages))
    answers = tuple(
        Demonstration(id=f"page-{n}-label", prompt_id=f"page-{n}", text=f" {label}", labeler="people")
        for n, (_, label, _, _) in enumerate(pages)
    )
    write_snapshot(run.folder / "snapshot", Snapshot(prompts=prompts, demonstrations=answers))
    run.finish(num_pages=len(pages))


def answers_of(
    policy: Path, prompts: list[Prompt], format: PromptFormat, config: PagesConfig, seed: int
) -> dict[str, list[str]]:
    """Different answers of the policy by their prompt's id, drawn as those that are ranked; without empty ones."""
    model, tokenizer = load_policy(policy)
    kept, tokens = fitting(Encoder(tokenizer, format), prompts, policy)
    draw = random.Random(f"{seed} judge")
    seeds, number = [draw.getrandbits(62) for _ in kept], [config.answers] * len(kept)
    sampled = Sampler(model.decoder, tokenizer, config.max_new_tokens, config.temperature)(tokens, seeds, number)
    found: dict[str, dict[str, None]] = {prompt.id: {} for prompt in kept}
    asked = (prompt.id for prompt in kept for _ in range(config.answers))
    for id, text in zip(asked, sampled.text, strict=True):
        if text.strip():
            found[id][text.strip()] = None
    return {id: list(texts) for id, texts in found.items()}


def teaching(loop: "Loop") -> list[Job]:
    """A fine-tune for each judge; the pages it is taught on are made now."""
    recipe = loop.recipe
    pages, found = [], []
    for name, config in recipe.judges.items():
        inputs: dict[str, Any] = {"template": read_template(config.template), "format": recipe.format}
        inputs["policy"] = loop.fine_tuned(config.policy) if config.policy else None
        pages.append(loop.job(f"judges/{name}/pages", "pages", make_pages, pages_of(config, recipe.rankings), inputs))
    loop.workers.run(pages)
    for name, config in recipe.judges.items():
        own = loop.folder / "judges" / name
        model = own / "pretrain" / "model" if config.pretrain is not None else loop.start()
        inputs = {"model": model, "demonstrations": own / "pages" / "snapshot"}
        inputs |= {"format": PAGE, "documents": loop.documents()}
        found.append(loop.job(f"judges/{name}/taught", "sft", sft.main, config, inputs))
    return found


def pages_of(config: JudgeConfig, wanted: RankingsConfig) -> PagesConfig:
    return PagesConfig(
        prompts=config.prompts,
        answers=config.answers,
        temperature=wanted.temperature,
        max_new_tokens=wanted.max_new_tokens,
    )


def model_of(loop: "Loop", labeler: AILabelerConfig) -> Path | str:
    """The folder or the hub's name of the model that labels."""
    if labeler.judge is None:
        return str(labeler.model)
    taught = loop.folder / "judges" / labeler.judge / "taught"
    return sft.epoch_folder(taught, loop.recipe.judges[labeler.judge].epochs)


def template_of(labeler: AILabelerConfig) -> Template:
    """What it is asked with, as it stands in the file now: steps are known by that, not by the file's name."""
    return read_template(labeler.template, labeler.shots, labeler.think)


def label(loop: "Loop", round: int) -> None:
    """Each AI labeler that ranks ranks the round's responses into the store, the held-out prompts' too."""
    for name, labeler in loop.recipe.ai_labelers.items():
        if labeler.rankings:
            model = str(model_of(loop, labeler))
            asked = labeler.model_dump(exclude={"model", "judge", "rankings"})
            config = LabelConfig(**asked, name=name, seed=loop.recipe.seed)
            choice = Choice(pool="reward_model", round=round, seed=loop.recipe.seed)
            known_by = content_hash(Path(model)) if Path(model).is_dir() else model
            who = Who(local_ask(model, labeler.style), model, known_by)
            place = loop.round_folder(round) / "labels" / name
            judge_items(begin_job(plan_job(config, choice, who, loop.store, place), loop.store, place), loop.store)


def by_marks(main: Callable[..., None]) -> Callable[..., None]:
    """The stage with an AI labeler's marks as what is maximised: direct RLAIF (arXiv 2309.00267, section 2.3)."""
    return partial(_with_marks, main)


def _with_marks(
    main: Callable[..., None],
    config: Config,
    run: Run,
    *,
    labeler: AILabelerConfig,
    labeler_template: Template,
    labeler_model: Path | str,
    **inputs: Any,
) -> None:
    main(config, run, score=marks(labeler, labeler_template, labeler_model), **inputs)


def marks(
    labeler: AILabelerConfig, template: Template, model: Path | str
) -> Callable[[list[Prompt], Sampled], torch.Tensor]:
    """N prompts with their responses → (N,) expected marks in −1 … 1.

    Raises:
        InputError: when called, a response that got none.
    """
    asked = AILabeler(local_ask(str(model), labeler.style), template, Labeler(id="marks", kind="ai"))

    def score(prompts: list[Prompt], sampled: Sampled) -> torch.Tensor:
        found = asked.score(list(zip(prompts, sampled.text, strict=True)))
        missing = Counter(answer.reason for answer in found if answer.value is None)
        if missing:
            told = ", ".join(f"{number} {reason}" for reason, number in missing.items())
            raise InputError(
                f"of {len(found)} responses some got no mark ({told}); lower max_new_tokens, or choose a labeler "
                "with a longer context"
            )
        return torch.tensor([answer.value for answer in found])

    return score
