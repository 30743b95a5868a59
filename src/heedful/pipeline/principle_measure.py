"""Reward models that follow principles, measured on held-out prompts: the scalar form, the decoded form, who scored.

Each label is asked about twice, under the principles as they stood and with the deciding one turned round. In the
embedded world the exact fulfilment is known, and stands beside what the judge said.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from heedful.config import Config
from heedful.engine.sample import score_rows
from heedful.evaluate.principles import Followed, Gap, followed_rows, labeler_rows
from heedful.feedback.ai.labeler import AILabeler
from heedful.feedback.ai.template import Template, write
from heedful.feedback.principles.collect import margin
from heedful.models.checkpoint import guideline_of, load_reward_model
from heedful.models.load import context_length
from heedful.models.optimizer import Precision
from heedful.pipeline.ai_labels import local_ask
from heedful.pipeline.principle_labels import texts_of
from heedful.pipeline.principle_scores import read_scores
from heedful.pipeline.principle_settings import DecodedConfig
from heedful.principles import Listed, PrincipleRanking
from heedful.run import Run
from heedful.snapshot import Snapshot, read_snapshot
from heedful.text.collate import Encoder, to_rows
from heedful.text.format import PromptFormat
from heedful.text.principles import PrincipleFormat, guideline
from heedful.text.tokenizer import pad_id
from heedful.types import Labeler, Prompt, Response
from heedful.world import World
from heedful.world.principles import PRINCIPLES

DECODED = "decoded"


class PrincipleMeasureConfig(Config):
    """Measuring what follows principles."""

    names: tuple[str, ...]  # of the reward models with a scalar head
    most: int = Field(ge=1)  # labels of held-out prompts, drawn by the seed where there are more
    exact: bool  # the prompts are the world's, whose principles' fulfilment is known
    style: Literal["auto", "plain", "chat"] = "auto"
    precision: Precision = "auto"
    max_tokens: int = 8192


class Asked(NamedTuple):
    """A pair under principles: by how much is the first response the better?"""

    prompt: Prompt
    texts: tuple[str, ...]  # the principles'
    first: Response
    second: Response


Margins = Callable[[Sequence[Asked]], list[float | None]]  # None where it does not fit


@dataclass
class ByScore:
    """The scalar form: a difference of scores."""

    folder: Path
    format: PromptFormat
    config: PrincipleMeasureConfig

    def __call__(self, pairs: Sequence[Asked]) -> list[float | None]:
        form = PrincipleFormat(**(guideline_of(self.folder) or {}))
        model, tokenizer = load_reward_model(self.folder, form)
        encoder = Encoder(tokenizer, self.format, context_length(model.trunk))
        under = [(encoder.under(guideline(one.texts, form)), one) for one in pairs]
        found = [reader.responses(one.prompt, [one.first, one.second]) or [] for reader, one in under]
        rows = [row for both in found if len(both) == 2 for _, row in both]
        if not rows:
            return [None] * len(pairs)
        score = score_rows(model, to_rows(rows, pad_id(tokenizer)), self.config.max_tokens, self.config.precision)
        each = iter((score[::2] - score[1::2]).tolist())
        return [next(each) if len(both) == 2 else None for both in found]


@dataclass
class ByDecoding:
    """The decoded form: log P(first label) − log P(second), averaged over both orders (nats)."""

    folder: Path
    template: Template
    form: PrincipleFormat
    style: Literal["auto", "plain", "chat"]

    def __call__(self, pairs: Sequence[Asked]) -> list[float | None]:
        labeler = AILabeler(local_ask(str(self.folder), self.style), self.template, Labeler(id=DECODED, kind="ai"))
        asked = []
        for one in pairs:
            under = asked_under(self.template, guideline(one.texts, self.form))
            texts = one.first.text, one.second.text
            asked.append((write(under, one.prompt, *texts), write(under, one.prompt, *texts[::-1])))
        different = list(dict.fromkeys(text for both in asked for text in both))
        said = labeler.asked(different, self.template.labels, margin)
        values = [(said[one].value, said[other].value) for one, other in asked]
        return [None if a is None or b is None else (a - b) / 2 for a, b in values]


def asked_under(template: Template, guideline: str) -> Template:
    """The template with the guideline behind both responses, before what is asked."""
    return template.model_copy(update={"ending": f"{guideline}{template.ending}"})


def measure(
    config: PrincipleMeasureConfig,
    run: Run,
    labels: Path,
    scored: Path,
    reward_models: Sequence[Path],
    decoded: Path | None,
    decoded_config: DecodedConfig | None,
    template: Template | None,
    format: PromptFormat,
) -> None:
    """Rows of every model's accuracy and flips by principle, and of the scorer's own accuracy."""
    data, world = read_snapshot(labels), World(run.seed) if config.exact else None
    items = heldout(data, config.most, run.seed)
    forms: dict[str, Margins] = {
        name: ByScore(place, format, config) for name, place in zip(config.names, reward_models, strict=True)
    }
    if decoded is not None and decoded_config is not None and template is not None:
        forms[DECODED] = ByDecoding(decoded, template, decoded_config.guideline, config.style)
    rows = []
    for name, form in forms.items():
        found, left_out = followed(form, data, items, world)
        run.count("does_not_fit", left_out)
        rows += followed_rows(name, found)
    rows += labeler_rows("judge", gaps(scored, world))
    run.finish(num_labels=len(items), rows=rows)


Held = tuple[Prompt, list[Response], PrincipleRanking]


def heldout(data: Snapshot, most: int, seed: int) -> list[Held]:
    """Untied pairs of test prompts that a principle decided, of validation prompts where there are none."""
    test, valid = data.principle_rankings_of("test"), data.principle_rankings_of("valid")
    pairs = as_pairs([item for item in test or valid if item[2].decided_by in dict(item[2].principles)])
    return pairs if len(pairs) <= most else random.Random(seed).sample(pairs, most)


def as_pairs(items: Sequence[Held]) -> list[Held]:
    """The untied pairs of each ranking's responses, each a ranking of two."""
    found = []
    for prompt, responses, ranking in items:
        for i, j in combinations(range(len(responses)), 2):
            if (a := ranking.rank[i]) != (b := ranking.rank[j]):
                ids = ranking.responses[i], ranking.responses[j]
                more = {"id": ranking.id if len(responses) == 2 else f"{ranking.id}-{i}-{j}", "responses": ids}
                pair = ranking.model_copy(update=more | {"rank": (1, 2) if a < b else (2, 1)})
                found.append((prompt, [responses[i], responses[j]], pair))
    return found


def turned(principles: Sequence[Listed], decided_by: str) -> tuple[Listed, ...]:
    """The list with the deciding principle negated, or no longer."""
    return tuple((id, negated != (id == decided_by)) for id, negated in principles)


def followed(form: Margins, data: Snapshot, items: Sequence[Held], world: World | None) -> tuple[list[Followed], int]:
    """What the model says of each label, and how many it could not be asked about."""
    asked = []
    for prompt, responses, ranking in items:
        better, worse = responses if ranking.rank[0] < ranking.rank[1] else responses[::-1]
        other = ranking.model_copy(update={"principles": turned(ranking.principles, ranking.decided_by)})
        asked += [Asked(prompt, tuple(data.asked_for(one)), better, worse) for one in (ranking, other)]
    margins = form(asked)
    found = []
    for n, (prompt, _, ranking) in enumerate(items):
        as_it_stood, otherwise = margins[2 * n], margins[2 * n + 1]
        if as_it_stood is not None and otherwise is not None:
            pair = asked[2 * n]
            gap = exact_gap(world, prompt, ranking.decided_by, pair.first.text, pair.second.text)
            right = None if not gap else (gap > 0) != dict(ranking.principles)[ranking.decided_by]
            found.append(Followed(prompt.id, ranking.decided_by, as_it_stood, otherwise, right))
    return found, len(items) - len(found)


def exact_gap(world: World | None, prompt: Prompt, principle: str, first: str, second: str) -> float | None:
    """By how much the first text keeps to the principle better, exactly; None where nobody knows."""
    if world is None or principle not in PRINCIPLES:
        return None
    return world.fulfilment(prompt, first)[principle] - world.fulfilment(prompt, second)[principle]


def gaps(scored: Path, world: World | None) -> list[Gap]:
    """The scores of held-out prompts' pairs, beside the exact distance."""
    items = read_snapshot(scored)
    prompts, texts = items.prompt_by_id(), texts_of(items)
    found = []
    for one in read_scores(scored.parent):
        prompt = prompts[one.prompt_id]
        if prompt.split != "train":
            exact = exact_gap(world, prompt, one.principle, *(texts[id] for id in one.responses))
            found.append(Gap(prompt.id, one.principle, one.orders, exact))
    return found
