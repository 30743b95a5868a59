"""A later round's prompts: what people asked the newest policy, beside the prompts of the rounds before.

InstructGPT's prompts came from people who used the models of earlier rounds (arXiv 2203.02155, section 3.2).
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from heedful.config import Config, InputError
from heedful.pipeline.labelling import not_erased
from heedful.pipeline.source import Source
from heedful.pipeline.world import WorldSource
from heedful.run import Run, Waiting
from heedful.snapshot import Snapshot, read_snapshot, write_snapshot
from heedful.store.database import Store
from heedful.store.pools import Pool, prompts_with_pool
from heedful.store.progress import CHAT
from heedful.types import Prompt

RENEWED: tuple[Pool, ...] = ("reward_model", "ppo")  # demonstrations and the evaluation stay those of the start


class NewPromptsConfig(Config):
    """How many prompts a later round waits for."""

    new_prompts: int = Field(default=0, ge=0)


def renew(
    config: NewPromptsConfig,
    run: Run,
    store: Store,
    source: Source,
    before: Mapping[Pool, Path],
    policy: Path,
    round: int,
) -> None:
    """A snapshot of each renewed pool: its prompts so far, and those imported into the store for the round.

    Raises:
        Waiting: fewer new prompts than wanted came in, with the way to collect them.
        InputError: there are new ones in a run of the embedded world, whose labelers know only its own prompts.
    """

    def missing() -> str:
        number = sum(pool in before for _, pool in new_prompts(store, round))
        return f"{number} of {config.new_prompts} prompts" if number < config.new_prompts else ""

    came = new_prompts(store, round)
    new = {pool: [prompt for prompt, its in came if its == pool] for pool in before}
    number = sum(map(len, new.values()))
    if number < config.new_prompts:
        raise Waiting(
            f"waiting for prompts of round {round}: {number} of {config.new_prompts}; heedful serve {policy} "
            f"--collect FILE keeps what people ask who agree to it, heedful prompts import FILE --round {round} "
            f"--store {store.engine.url.database} brings it in; then run the same command again",
            missing,
        )
    if number and isinstance(source, WorldSource):
        raise InputError(
            f"round {round} has new prompts, whose truth the world does not know; start from prompts: FILE"
        )
    for pool, place in before.items():
        kept = not_erased(run, store, read_snapshot(place).prompts)
        write_snapshot(run.folder / pool, Snapshot(prompts=(*kept, *new[pool])))
    run.count("new prompts of pools that later rounds do not use", len(came) - number)
    run.finish(**{f"num_new_{pool}": len(prompts) for pool, prompts in new.items()})


def new_prompts(store: Store, round: int) -> list[tuple[Prompt, Pool | None]]:
    """The round's prompts with their pools; turns of chats came with their answers and are judged."""
    return [(prompt, pool) for prompt, pool in prompts_with_pool(store, round) if not prompt.id.startswith(CHAT)]
