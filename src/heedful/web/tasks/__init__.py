"""What labelers do, a module for each task: what its page shows, and what is read from the form that comes back."""

from types import ModuleType

from heedful.web.tasks import chat, compare, demonstrate, rank, rating, red_team, toxicity, write_prompt

TASKS: dict[str, ModuleType] = {
    "ranking": rank,
    "demonstration": demonstrate,
    "rating": rating,
    "comparison": compare,
    "toxicity": toxicity,
    "prompt": write_prompt,
    "red_team": red_team,
    "chat": chat,
}
