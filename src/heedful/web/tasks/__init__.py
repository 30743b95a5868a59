"""What labelers do, a module for each task: what its page shows, and what is read from the form that comes back."""

from types import ModuleType

from heedful.web.tasks import demonstrate, rank

TASKS: dict[str, ModuleType] = {"ranking": rank, "demonstration": demonstrate}
