"""The best of several answers, by a reward model."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from heedful.config import InputError
from heedful.engine.requests import Completion
from heedful.engine.sample import score_rows
from heedful.export.model import run_of, trained_format
from heedful.models.checkpoint import load_reward_model
from heedful.models.heads import RewardModel
from heedful.models.load import context_length
from heedful.text.collate import Encoded, to_rows
from heedful.text.format import PromptFormat, prompt_tokens
from heedful.text.tokenizer import end_id, fingerprint, pad_id
from heedful.types import Prompt


class Chooser(NamedTuple):
    """How many answers are sampled, and what scores them."""

    number: int
    model: RewardModel
    tokenizer: PreTrainedTokenizerBase
    format: PromptFormat
    shows_all: bool

    @classmethod
    def load(cls, number: int, policy: str, reward_model: Path | None, shows_all: bool) -> "Chooser":
        """With the reward model of the policy's run where none is named.

        Raises:
            InputError: no such reward model, or the policy is of no run that has one.
        """
        place = reward_model or of_run(policy)
        run = run_of(place)
        return cls(number, *load_reward_model(place), trained_format(run) if run else PromptFormat(), shows_all)

    def scores(self, prompt: Prompt, made: Sequence[Completion], told_by: PreTrainedTokenizerBase) -> list[float]:
        """What the reward model gives each answer, by its tokens where its own tokenizer made them, else by its text.

        Raises:
            InputError: an answer behind its prompt does not fit the reward model's context.
        """
        asked = prompt_tokens(prompt, self.format, self.tokenizer)
        own, end = fingerprint(told_by) == fingerprint(self.tokenizer), end_id(self.tokenizer)

        def tokens(one: Completion) -> list[int]:
            if own:
                return one.tokens
            text = told_by.decode(one.tokens, skip_special_tokens=True)
            return self.tokenizer(text, add_special_tokens=False)["input_ids"] + [end] * one.finished

        rows = [Encoded(asked, tokens(one)) for one in made]
        context, longest = context_length(self.model.trunk), max(len(row.prompt) + len(row.response) for row in rows)
        if longest > context:
            raise InputError(
                f"prompt and answer have {longest} tokens, more than the reward model's context of {context}; "
                "shorten the prompt or lower --max-new-tokens"
            )
        return score_rows(self.model, to_rows(rows, pad_id(self.tokenizer)), context, "fp32").tolist()


def of_run(policy: str) -> Path:
    """The reward model beside the policy: of its round, else of the run's last round that has one.

    Raises:
        InputError: there is none.
    """
    run = run_of(Path(policy))
    if run is not None:
        known = {place.parent.parent: place for place in run.glob("round-*/reward_model/model") if place.is_dir()}
        own = [known[folder] for folder in Path(policy).resolve().parents if folder in known]
        last = sorted(known, key=lambda folder: int(folder.name.removeprefix("round-")))
        if last:
            return own[0] if own else known[last[-1]]
    raise InputError(
        f"--best-of chooses by a reward model, and {policy} is of no run that has one; name one with --reward-model"
    )
