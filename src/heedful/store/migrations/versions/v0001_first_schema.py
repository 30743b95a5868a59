"""The first schema. Constraint names come from the naming convention in `heedful.store.schema`."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _prompts()
    _responses_and_labelers()
    _demonstrations_and_ratings()
    _rankings()
    op.create_table("tombstones", _id("kind"), _id(), _text("erased"), _text("reason"))


def _id(name: str = "id") -> sa.Column:
    return sa.Column(name, sa.Text, primary_key=True)


def _text(name: str) -> sa.Column:
    return sa.Column(name, sa.Text, nullable=False)


def _integer(name: str) -> sa.Column:
    return sa.Column(name, sa.Integer, nullable=False)


def _json(name: str) -> sa.Column:
    return sa.Column(name, sa.JSON, nullable=False)


def _refers(name: str, to: str) -> sa.Column:
    return sa.Column(name, sa.Text, sa.ForeignKey(f"{to}.id"), nullable=False, index=True)


def _judgement(table: str) -> list[sa.Column]:
    return [
        _refers("prompt_id", "prompts"),
        _refers("labeler", "labelers"),
        _text("guideline"),
        sa.Column("seconds", sa.Double),
        sa.Column("supersedes", sa.Text, sa.ForeignKey(f"{table}.id"), unique=True),
        _integer("round"),
        _text("created"),
    ]


def _prompts() -> None:
    op.create_table(
        "prompts",
        _id(),
        _text("text"),
        sa.Column("user", sa.Text, nullable=False, index=True),
        sa.Column("organisation", sa.Text),
        *(_text(name) for name in ("kind", "source", "use_case", "split")),
        _json("task"),
        sa.Column("pool", sa.Text, index=True),
        _integer("round"),
        _text("created"),
    )
    op.create_table(
        "examples",
        sa.Column("prompt_id", sa.Text, sa.ForeignKey("prompts.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        _text("query"),
        _text("response"),
    )


def _responses_and_labelers() -> None:
    op.create_table(
        "responses",
        _id(),
        _refers("prompt_id", "prompts"),
        _text("text"),
        _text("model"),
        sa.Column("finished", sa.Boolean, nullable=False),
        _json("tokens"),
        _text("tokenizer"),
        _integer("round"),
        _text("created"),
    )
    op.create_table("labelers", _id(), _text("group"), _text("kind"), _integer("round"), _text("created"))


def _demonstrations_and_ratings() -> None:
    op.create_table("demonstrations", _id(), _text("text"), *_judgement("demonstrations"))
    op.create_table(
        "ratings",
        _id(),
        _refers("response_id", "responses"),
        _integer("overall"),
        _json("flags"),
        _text("purpose"),
        *_judgement("ratings"),
    )


def _rankings() -> None:
    op.create_table("rankings", _id(), _text("purpose"), *_judgement("rankings"))
    op.create_table(
        "ranking_items",
        sa.Column("ranking_id", sa.Text, sa.ForeignKey("rankings.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        _refers("response_id", "responses"),
        _integer("rank"),
        sa.Column("presented", sa.Integer),
    )
