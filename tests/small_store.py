"""A small store for tests: two prompts with responses, four labelers, rankings to order."""

from heedful.store.database import Store
from heedful.store.labels import add_labeler, add_ranking, add_response
from heedful.store.pools import add_prompt
from heedful.types import Labeler, Prompt, Ranking, Response


def fill(store: Store) -> None:
    for number, split in enumerate(("train", "train", "valid")):
        prompt = Prompt(id=f"p{number}", text=f"Say {number}, 说“好”\u2028😀", user=f"u{number}", split=split)
        add_prompt(store, prompt, pool="reward_model")
        add_response(store, *(Response(id=f"r{number}{i}", prompt_id=prompt.id, text=f"Ja {i}") for i in range(3)))
    add_labeler(store, Labeler(id="ann"), Labeler(id="bob"), Labeler(id="hal", group="heldout"))
    for labeler in ("ann", "bob", "hal"):
        for number in range(3):
            add_ranking(store, ranking(f"{labeler}-{number}", number, labeler))


def ranking(id: str, number: int, labeler: str, rank: tuple[int, ...] = (1, 2, 3), **more: object) -> Ranking:
    ids = tuple(f"r{number}{i}" for i in range(3))
    return Ranking(
        id=id, prompt_id=f"p{number}", labeler=labeler, responses=ids, rank=rank, order=ids[::-1], seconds=12.25, **more
    )
