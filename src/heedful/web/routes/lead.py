"""The pages by which leads and administrators run a project, and everybody's own account."""

from heedful.web.routes import (
    account,
    lead_events,
    lead_guidelines,
    lead_people,
    lead_principles,
    lead_settings,
    lead_tasks,
)

ROUTERS = (
    account.router,
    lead_people.router,
    lead_tasks.router,
    lead_guidelines.router,
    lead_principles.router,
    lead_settings.router,
    lead_events.router,
)
