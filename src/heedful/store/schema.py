"""The store's tables. They mirror `heedful.types`; what a record does not know (pool, round, when) stands beside it.

Judgements are append-only: an edit is a new row whose `supersedes` names the old one, and no row is superseded twice,
so every judgement is a chain whose newest link is the current one. Erasing removes the row; a tombstone stays.

A change here needs a new revision under migrations/versions; a test compares the two.
"""

from sqlalchemy import JSON, Boolean, Column, Double, ForeignKey, Integer, MetaData, Table, Text

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
    Column("purpose", Text, nullable=False),
    *_judgement("ratings"),
)

rankings = Table(
    "rankings",
    metadata,
    Column("id", Text, primary_key=True),
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

leases = Table(
    "leases",
    metadata,
    Column("labeler", Text, ForeignKey("labelers.id"), primary_key=True),
    Column("task", Text, primary_key=True),
    Column("purpose", Text, primary_key=True),
    Column("round", Integer, primary_key=True),
    Column("item", Text, primary_key=True),  # a prompt's id; a response's for ratings
    Column("expires", Text, nullable=False),  # as `created`: from then on others may have the item
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
