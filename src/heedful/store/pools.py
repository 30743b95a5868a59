"""The pools a prompt can be in: SFT, reward model, PPO, evaluation; each stands in one (InstructGPT, 3.2)."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

from sqlalchemy import Connection, select

from heedful.config import InputError
from heedful.store.database import Store
from heedful.store.records import Entry, chunks, insert, select_entries
from heedful.store.schema import prompts
from heedful.types import Prompt, Source

Pool = Literal["sft", "reward_model", "ppo", "evaluation"]
Shares = Mapping[Source, Mapping[Pool, float]]

# Table 6 of InstructGPT (arXiv 2203.02155), training prompts: labelers' prompts never reach PPO.
PAPER_SHARES: Shares = {
    "labeler": {"sft": 11295, "reward_model": 6623},
    "customer": {"sft": 1430, "reward_model": 26584, "ppo": 31144},
}


def unit(key: str, salt: str) -> float:
    """A number in [0, 1) fixed by the two: the same on every machine, in every order."""
    digest = hashlib.sha256(f"{salt}\n{key}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def pool_of(prompt: Prompt, shares: Shares = PAPER_SHARES, salt: str = "") -> Pool:
    """The prompt's pool: a test prompt is for evaluation, others fall by a hash of their id in proportion to `shares`.

    Raises:
        InputError: no share is positive for the prompt's source.
    """
    if prompt.split == "test":
        return "evaluation"
    weights = {pool: weight for pool, weight in shares.get(prompt.source, {}).items() if weight > 0}
    if not weights:
        raise InputError(f"pool shares: none is positive for {prompt.source} prompts; give one")
    point = unit(prompt.id, f"pool {salt}") * sum(weights.values())
    upper = dict(zip(weights, accumulate(weights.values()), strict=True))
    return next((pool for pool, bound in upper.items() if point < bound), list(weights)[-1])


def add_prompt(store: Store, *records: Prompt, pool: Pool | None = None, round: int = 0) -> int:
    """Add prompts as they are, without intake's filters; returns the number of new ones.

    Raises:
        InputError: an empty text, a user who stands in another split, or an id taken by other content.
    """
    entries = [Entry(record, {"pool": pool, "round": round}) for record in records]
    return store.write(lambda connection: insert_prompts(connection, entries))


def insert_prompts(connection: Connection, entries: Sequence[Entry]) -> int:
    """`add_prompt` inside a transaction."""
    split_of: dict[str, str] = {}
    users = sorted({entry.record.user for entry in entries if isinstance(entry.record, Prompt)})
    for chunk in chunks(users):
        found = connection.execute(select(prompts.c.user, prompts.c.split).where(prompts.c.user.in_(chunk)).distinct())
        split_of.update((row.user, row.split) for row in found)
    for entry in entries:
        prompt = entry.record
        assert isinstance(prompt, Prompt)
        if not prompt.text.strip():
            raise InputError(f"prompt {prompt.id} is empty; leave it out or write a text")
        split = split_of.setdefault(prompt.user, prompt.split)
        if split != prompt.split:
            raise InputError(
                f"prompt {prompt.id}: user {prompt.user} would stand in two splits, {split} and {prompt.split}; "
                "split by user, with the shares and salt used before"
            )
    return insert(connection, entries)


def assign_pools(store: Store, shares: Shares = PAPER_SHARES, salt: str = "") -> int:
    """Give every prompt that is in no pool its pool; returns how many were assigned."""

    def work(connection: Connection) -> int:
        waiting = select_entries(connection, Prompt, prompts.c.pool.is_(None))
        for prompt, _ in waiting:
            pool = pool_of(prompt, shares, salt)
            connection.execute(prompts.update().where(prompts.c.id == prompt.id).values(pool=pool))
        return len(waiting)

    return store.write(work)


def prompts_with_pool(store: Store, round: int | None = None) -> list[tuple[Prompt, Pool | None]]:
    """Every prompt (of a round, when given) with its pool, in order of id."""
    of_round = [] if round is None else [prompts.c.round == round]
    with store.read() as connection:
        return [(prompt, row["pool"]) for prompt, row in select_entries(connection, Prompt, *of_round)]
