"""People as a source: prompts come from a file by the rules of intake, and whatever is to be judged waits for people.

Their demonstrations and rankings reach the loop through the store. Until there are enough the loop says how many are
missing and ends; the same command goes on.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from heedful.config import InputError
from heedful.feedback.simulated import SimulatedLabeler
from heedful.pipeline.recipe import Recipe
from heedful.snapshot import read_lines, read_records
from heedful.store.database import open_store
from heedful.store.export import export_snapshot
from heedful.store.intake import few_demonstrations, import_prompts, read_prompts
from heedful.store.pools import Pool, prompts_with_pool, unit
from heedful.types import Demonstration, Document, LabelerGroup, Prompt, Response

OTHER_SHARES = "set intake.shares, such as {customer: {sft: 1, reward_model: 2, ppo: 2}}"
VALID_DOCUMENTS = 0.02  # share held out of pretraining text that brings no split of its own
IN_MEMORY = "sqlite://"


class PeopleSource:
    """Prompts of a .jsonl or .txt file (see `store.intake.read_prompts`); `dropped` counts what the rules left out."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.dropped: Counter[str] = Counter()
        self.warning = ""
        self.rows = read_prompts(Path(recipe.prompts))

    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        return None

    def prompts(self) -> dict[Pool, list[Prompt]]:
        """A pool holds at most as many (training) prompts as the recipe's `pools` says; 0: all that fall to it."""
        with open_store(IN_MEMORY) as store:  # the rules alone: the run's own store gets what is kept
            report = import_prompts(store, self.rows, self.recipe.intake)
            taken = prompts_with_pool(store)
        self.dropped = report.dropped + Counter({f"redacted {kind}": number for kind, number in report.pii.items()})
        found: dict[Pool, list[Prompt]] = {"sft": [], "reward_model": [], "ppo": [], "evaluation": []}
        for prompt, pool in taken:
            assert pool is not None
            found[pool].append(prompt)
        if self.recipe.sft and not 0 < self.recipe.pools.sft <= len(found["sft"]):
            self.warning = few_demonstrations(taken, OTHER_SHARES)
        return {pool: self.first(pool, prompts) for pool, prompts in found.items()}

    def first(self, pool: Pool, prompts: list[Prompt]) -> list[Prompt]:
        """Without the training (or evaluation) prompts beyond the pool's size; ids decide, not the file's order."""
        size = getattr(self.recipe.pools, pool)
        counted = [prompt for prompt in prompts if prompt.split == "train" or pool == "evaluation"]
        over = {prompt.id for prompt in sorted(counted, key=lambda p: unit(p.id, "size"))[size:]} if size else set()
        self.dropped[f"over pools.{pool}"] += len(over)
        return [prompt for prompt in prompts if prompt.id not in over]

    def documents(self) -> list[Document]:
        return read_documents(self.recipe.documents)

    def demonstrations(self, prompts: Sequence[Prompt]) -> list[Demonstration]:
        """Those that labelers' few-shot prompts bring with them."""
        with open_store(IN_MEMORY) as store:
            import_prompts(store, self.rows, self.recipe.intake)
            written = export_snapshot(store, pools=["sft"]).demonstrations
        asked = {prompt.id for prompt in prompts}
        return [demonstration for demonstration in written if demonstration.prompt_id in asked]

    def labelers(self, group: LabelerGroup) -> list[SimulatedLabeler]:
        return []

    def calibrate(self, responses: Sequence[tuple[Prompt, Sequence[Response]]]) -> None:
        pass

    def prefixes(self) -> list[str]:
        return list(self.recipe.evaluate.prefixes)

    def utility(self, prompt: Prompt, text: str) -> float | None:
        return None


def read_documents(name: str | None) -> list[Document]:
    """Pretraining text from a .jsonl file ("text", and "split" if you choose) or a .txt file, a document a line.

    Where the file has no validation text, a fiftieth of its documents becomes it, one at least.

    Raises:
        InputError: no such file, another suffix, wrong encoding or a broken line, by its number.
    """
    if name is None:
        return []
    path = Path(name)
    if path.suffix == ".jsonl":
        found = read_records(path, Document)
    elif path.suffix == ".txt":
        found = [Document(text=line.strip()) for line in read_lines(path) if line.strip()]
    else:
        raise InputError(f"documents: {path}: read from .jsonl or .txt files; rename or convert it")
    return with_validation(found)


def with_validation(found: list[Document]) -> list[Document]:
    """The documents, a fiftieth of them for validation where none is, one at least."""
    if any(document.split == "valid" for document in found):
        return found
    place = {document.text: unit(document.text, "documents") for document in found}
    held = {text for text, at in place.items() if at < VALID_DOCUMENTS}
    if not held and len(place) > 1:
        held = {min(place, key=place.__getitem__)}
    return [d.model_copy(update={"split": "valid"}) if d.text in held else d for d in found]
