"""Prompts that labelers wrote in the app: their writer may correct them until somebody has used them."""

from sqlalchemy import Connection, delete, or_, select

from heedful.store.incoming import PART
from heedful.store.schema import demonstrations, drafts, examples, grades, prompts, responses, skips, slots


def take_back(connection: Connection, prompt: str) -> bool:
    """Remove the prompt with this id as intake stored it, few-shot examples and their demonstrations included; False,
    and nothing is removed, where a response, somebody's judgement or their work stands on it."""
    parts = or_(prompts.c.id == prompt, prompts.c.id.like(f"{prompt}{PART}%"))
    ids = list(connection.execute(select(prompts.c.id).where(parts)).scalars())
    own = [f"d{id}" for id in ids]  # the writer's own answers, see `expand_few_shot`
    uses = [
        select(responses.c.id).where(responses.c.prompt_id.in_(ids)),
        select(demonstrations.c.id).where(demonstrations.c.prompt_id.in_(ids), demonstrations.c.id.not_in(own)),
        select(grades.c.grader).where(grades.c.demonstration_id.in_(own)),
        select(slots.c.key).where(slots.c.item.in_(ids), slots.c.labeler.is_not(None)),
        select(skips.c.item).where(skips.c.item.in_(ids)),
        select(drafts.c.item).where(drafts.c.item.in_(ids)),
    ]
    if any(connection.execute(use.limit(1)).first() for use in uses):
        return False
    connection.execute(delete(slots).where(slots.c.item.in_(ids)))
    connection.execute(delete(demonstrations).where(demonstrations.c.prompt_id.in_(ids)))
    connection.execute(delete(examples).where(examples.c.prompt_id.in_(ids)))
    connection.execute(delete(prompts).where(prompts.c.id.in_(ids)))
    return True
