"""Where a loop's prompts, text, demonstrations and judgements come from: the embedded world, stories, or people."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from heedful.feedback.simulated import SimulatedLabeler
from heedful.store.pools import Pool
from heedful.types import Demonstration, Document, LabelerGroup, Prompt, Response


class Source(Protocol):
    """What the loop asks. Whoever has no simulated labelers returns none, and the loop waits for people."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """What the last call of `prompts` left out, by reason."""

    @property
    def warning(self) -> str:
        """What the last call of `prompts` found that will hardly be meant so; empty where there is nothing."""

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer of a model that is pretrained here; None where a pretrained model brings its own."""

    def prompts(self) -> dict[Pool, list[Prompt]]:
        """Each pool's prompts, users already in one split each."""

    def documents(self) -> list[Document]:
        """Pretraining text; may be empty."""

    def demonstrations(self, prompts: Sequence[Prompt]) -> list[Demonstration]:
        """Simulated labelers' own responses; none where people write them."""

    def labelers(self, group: LabelerGroup) -> list[SimulatedLabeler]:
        """Simulated labelers of the group; none where people judge."""

    def calibrate(self, responses: Sequence[tuple[Prompt, Sequence[Response]]]) -> None:
        """Set the labelers' noise on sampled responses, where their agreement is to be a given one."""

    def prefixes(self) -> list[str]:
        """Candidate few-shot prefixes for the prompted baseline."""

    def utility(self, prompt: Prompt, text: str) -> float | None:
        """The exact evaluation utility of a response; None where nobody knows it."""
