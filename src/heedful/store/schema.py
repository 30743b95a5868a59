"""The store's tables. They mirror `heedful.types`; what a record does not know (pool, round, when) stands beside it.

Judgements are append-only: an edit is a new row whose `supersedes` names the old one, and no row is superseded twice,
so every judgement is a chain whose newest link is the current one. Erasing removes the row; a tombstone stays.

A change here needs a new revision under migrations/versions; a test compares the two.
"""

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from heedful.types import Demonstration, Labeler, Prompt, Ranking, Rating, Response

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _entered() -> list[Column]:
    return [
        Column("round", Integer, nullable=False),  # 0 is the first turn of the loop
        Column("created", Text, nullable=False),  # UTC, 2026-11-21T09:10:57.000123Z: sorts as text
    ]


def _judgement(table: str) -> list[Column]:
    return [
        Column("prompt_id", Text, ForeignKey("prompts.id"), nullable=False, index=True),
        Column("labeler", Text, ForeignKey("labelers.id"), nullable=False, index=True),
        Column("guideline", Text, nullable=False),
        Column("seconds", Double),
        Column("supersedes", Text, ForeignKey(f"{table}.id"), unique=True),
        *_entered(),
    ]


prompts = Table(
    "prompts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("user", Text, nullable=False, index=True),
    Column("organisation", Text),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("use_case", Text, nullable=False),
    Column("split", Text, nullable=False),
    Column("task", JSON, nullable=False),
    Column("pool", Text, index=True),
    *_entered(),
)

examples = Table(
    "examples",
    metadata,
    Column("prompt_id", Text, ForeignKey("prompts.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("query", Text, nullable=False),
    Column("response", Text, nullable=False),
)

responses = Table(
    "responses",
    metadata,
    Column("id", Text, primary_key=True),
    Column("prompt_id", Text, ForeignKey("prompts.id"), nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("finished", Boolean, nullable=False),
    Column("tokens", JSON, nullable=False),
    Column("tokenizer", Text, nullable=False),
    *_entered(),
)

labelers = Table(
    "labelers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("group", Text, nullable=False),
    Column("kind", Text, nullable=False),
    *_entered(),
)

demonstrations = Table(
    "demonstrations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("text", Text, nullable=False),
    *_judgement("demonstrations"),
)

ratings = Table(
    "ratings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("response_id", Text, ForeignKey("responses.id"), nullable=False, index=True),
    Column("overall", Integer, nullable=False),
    Column("flags", JSON, nullable=False),
    Column("scales", JSON, nullable=False),
    Column("purpose", Text, nullable=False),
    *_judgement("ratings"),
)

rankings = Table(
    "rankings",
    metadata,
    Column("id", Text, primary_key=True),
    Column("strength", Integer),
    Column("both_bad", Boolean, nullable=False),
    Column("preference", JSON, nullable=False),  # [[P(i before j) with i shown first, with j], …] of the pairs i < j
    Column("purpose", Text, nullable=False),
    *_judgement("rankings"),
)

ranking_items = Table(
    "ranking_items",
    metadata,
    Column("ranking_id", Text, ForeignKey("rankings.id"), primary_key=True),
    Column("position", Integer, primary_key=True),  # index in Ranking.responses
    Column("response_id", Text, ForeignKey("responses.id"), nullable=False, index=True),
    Column("rank", Integer, nullable=False),
    Column("presented", Integer),  # index in Ranking.order; NULL when the order was not recorded
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("kind", Text, primary_key=True),  # the table the row stood in
    Column("id", Text, primary_key=True),
    Column("erased", Text, nullable=False),
    Column("reason", Text, nullable=False),
)


def _work() -> list[Column]:
    """What names a piece of work (`heedful.store.progress.Work`) among the rows of one table."""
    return [
        Column("task", Text, primary_key=True),
        Column("purpose", Text, primary_key=True),
        Column("round", Integer, primary_key=True),
        Column("group", Text, primary_key=True),
    ]


works = Table(
    "works",
    metadata,
    *_work(),
    Column("pool", Text, primary_key=True),  # "" is any
    Column("overlap", Double, nullable=False),
    Column("options", JSON, nullable=False),  # what only the work's own task knows
    Column("closed", Text),  # when; NULL while it is on offer
    Column("created", Text, nullable=False),
)

# A slot is the right to judge an item once: it is open (no labeler), leased (until `expires`) or done. There are as
# many as the item's overlap, and the keys see to it that nobody holds two and no number is given twice.
slots = Table(
    "slots",
    metadata,
    *_work(),
    Column("item", Text, primary_key=True),  # a prompt's id; a response's for ratings; "new/7" for what is yet to be
    Column("number", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),  # random: what the app's addresses show of it
    Column("priority", Integer, nullable=False),  # the least goes first
    Column("language", Text, nullable=False),  # of what is to be judged; "" is any
    Column("labeler", Text, ForeignKey("labelers.id")),
    Column("expires", Text),  # as `created`: from then on others may have the slot
    Column("done", Text),
    Column("seconds", Double),  # of work on the page, corrections included; NULL where it was judged elsewhere
    UniqueConstraint("task", "purpose", "round", "group", "item", "labeler"),
    Index("ix_slots_labeler", "labeler", "done"),
    Index("ix_slots_queue", "task", "purpose", "round", "group", "done", "labeler", "priority", "item"),
)

skips = Table(
    "skips",
    metadata,
    *_work(),
    Column("item", Text, primary_key=True),
    Column("labeler", Text, ForeignKey("labelers.id"), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("final", Boolean, nullable=False),  # a judgement ("cannot be ranked"), not a request for another item
    Column("created", Text, nullable=False),
)

drafts = Table(
    "drafts",
    metadata,
    *_work(),
    Column("item", Text, primary_key=True),
    Column("labeler", Text, ForeignKey("labelers.id"), primary_key=True),
    Column("content", JSON, nullable=False),
    Column("saved", Text, nullable=False),
)

chats = Table(
    "chats",
    metadata,
    Column("id", Text, primary_key=True),
    Column("labeler", Text, ForeignKey("labelers.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False),  # red_team, pairs
    Column("model", Text, nullable=False),
    Column("messages", JSON, nullable=False),
    Column("marks", JSON, nullable=False),  # success of an attack 1-7, what it was about
    *_entered(),
)

# Answers that are known: the labeler is measured by them, unknowingly.
gold = Table(
    "gold",
    metadata,
    Column("task", Text, primary_key=True),
    Column("item", Text, primary_key=True),
    Column("answer", JSON, nullable=False),  # {"rank": {response id: rank}, "flags": {response id: {box: ticked}}}
    Column("author", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("created", Text, nullable=False),
)

grades = Table(
    "grades",
    metadata,
    Column("demonstration_id", Text, ForeignKey("demonstrations.id"), primary_key=True),
    Column("grader", Text, ForeignKey("labelers.id"), primary_key=True),
    Column("grade", Integer, nullable=False),  # 1-7
    Column("created", Text, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Text, ForeignKey("labelers.id"), primary_key=True),  # the name they log in by
    Column("role", Text, nullable=False),  # admin, lead, labeler, researcher
    Column("password", Text, nullable=False),  # argon2's encoded hash
    Column("languages", JSON, nullable=False),  # of prompts they can judge
    Column("locale", Text, nullable=False),  # of the app's own words
    Column("screening", Text, nullable=False),  # none, invited, passed, failed
    Column("answers", JSON, nullable=False),  # their self-assessment
    Column("closed", Text),  # when they were shut out; NULL while they may log in
    Column("created", Text, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token", Text, primary_key=True),  # SHA-256 of the cookie's
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("csrf", Text, nullable=False),
    Column("seen", Text, nullable=False),
    Column("expires", Text, nullable=False),
    Column("created", Text, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("token", Text, primary_key=True),  # SHA-256 of what the API's user sends
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("revoked", Text),
    Column("created", Text, nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("token", Text, primary_key=True),  # SHA-256 of the link's
    Column("role", Text, nullable=False),
    Column("group", Text, nullable=False),
    Column("screening", Boolean, nullable=False),  # whether they are tested first
    Column("author", Text, nullable=False),
    Column("used_by", Text),
    Column("expires", Text, nullable=False),
    Column("created", Text, nullable=False),
)

# Links by which one person sets their account's password anew.
resets = Table(
    "resets",
    metadata,
    Column("token", Text, primary_key=True),  # SHA-256 of the link's
    Column("account", Text, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("author", Text, nullable=False),
    Column("used", Text),
    Column("expires", Text, nullable=False),
    Column("created", Text, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("key", Text, primary_key=True),  # a name or an address from which somebody tries to log in
    Column("failures", Integer, nullable=False),
    Column("until", Text, nullable=False),  # no further try before
)

guidelines = Table(
    "guidelines",
    metadata,
    Column("task", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("language", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("text", Text, nullable=False),  # Markdown
    Column("author", Text, nullable=False),
    Column("created", Text, nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", JSON, nullable=False),
    Column("author", Text, nullable=False),
    Column("changed", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("at", Text, nullable=False, index=True),
    Column("account", Text, nullable=False, index=True),
    Column("what", Text, nullable=False),
    Column("detail", JSON, nullable=False),
)

Stored = Prompt | Response | Labeler | Demonstration | Rating | Ranking

TABLE_OF: dict[type, Table] = {
    Prompt: prompts,
    Response: responses,
    Labeler: labelers,
    Demonstration: demonstrations,
    Rating: ratings,
    Ranking: rankings,
}
