"""The labelling app: works on offer, slots in place of leases, drafts, accounts, guidelines, and what else it keeps."""

import secrets
from collections import Counter

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("ratings", sa.Column("scales", sa.JSON, nullable=False, server_default="{}"))
    op.add_column("rankings", sa.Column("strength", sa.Integer))
    op.add_column("rankings", sa.Column("both_bad", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("rankings", sa.Column("preference", sa.JSON, nullable=False, server_default="[]"))
    _work()
    _leases_become_slots()
    _judged_in_the_app()
    _accounts()
    _project()


def _text(name: str, *more: sa.ForeignKey, nullable: bool = False, index: bool = False) -> sa.Column:
    return sa.Column(name, sa.Text, *more, nullable=nullable, index=index)


def _key(name: str, *more: sa.ForeignKey) -> sa.Column:
    return sa.Column(name, sa.Text, *more, primary_key=True)


def _integer(name: str) -> sa.Column:
    return sa.Column(name, sa.Integer, nullable=False)


def _json(name: str) -> sa.Column:
    return sa.Column(name, sa.JSON, nullable=False)


def _of_work() -> list[sa.Column]:
    return [_key("task"), _key("purpose"), sa.Column("round", sa.Integer, primary_key=True), _key("group")]


def _labeler() -> sa.ForeignKey:
    return sa.ForeignKey("labelers.id")


def _work() -> None:
    op.create_table(
        "works",
        *_of_work(),
        _key("pool"),
        sa.Column("overlap", sa.Double, nullable=False),
        _json("options"),
        _text("closed", nullable=True),
        _text("created"),
    )
    op.create_table(
        "slots",
        *_of_work(),
        _key("item"),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("key", sa.Text, nullable=False, unique=True),
        _integer("priority"),
        _text("language"),
        _text("labeler", _labeler(), nullable=True),
        _text("expires", nullable=True),
        _text("done", nullable=True),
        sa.Column("seconds", sa.Double),
        sa.UniqueConstraint("task", "purpose", "round", "group", "item", "labeler"),
        sa.Index("ix_slots_labeler", "labeler", "done"),
        sa.Index("ix_slots_queue", "task", "purpose", "round", "group", "done", "labeler", "priority", "item"),
    )


def _leases_become_slots() -> None:
    """What was handed out as files stays its labeler's; open slots are made when work is handed out next."""
    connection = op.get_bind()
    leases = sa.table("leases", *map(sa.column, ("task", "purpose", "round", "item", "labeler", "expires")))
    labelers = sa.table("labelers", sa.column("id"), sa.column("group"))
    held = sa.select(leases, labelers.c.group).join(labelers, labelers.c.id == leases.c.labeler)
    numbers: Counter[tuple[str, ...]] = Counter()
    rows = []
    for row in connection.execute(held).mappings():
        place = tuple(row[name] for name in ("task", "purpose", "round", "group", "item"))
        numbers[place] += 1
        more = {"number": numbers[place], "key": secrets.token_hex(8), "priority": 0, "language": ""}
        rows.append({**row, **more})
    if rows:
        names = [*rows[0]]
        connection.execute(sa.table("slots", *map(sa.column, names)).insert(), rows)
    op.drop_table("leases")


def _judged_in_the_app() -> None:
    op.create_table(
        "skips",
        *_of_work(),
        _key("item"),
        _key("labeler", _labeler()),
        _text("reason"),
        _text("note"),
        sa.Column("final", sa.Boolean, nullable=False),
        _text("created"),
    )
    op.create_table(
        "drafts",
        *_of_work(),
        _key("item"),
        _key("labeler", _labeler()),
        _json("content"),
        _text("saved"),
    )
    op.create_table(
        "chats",
        _key("id"),
        _text("labeler", _labeler(), index=True),
        _text("kind"),
        _text("model"),
        _json("messages"),
        _json("marks"),
        _integer("round"),
        _text("created"),
    )
    op.create_table(
        "gold",
        _key("task"),
        _key("item"),
        _json("answer"),
        _text("author"),
        _text("note"),
        _text("created"),
    )
    op.create_table(
        "grades",
        _key("demonstration_id", sa.ForeignKey("demonstrations.id")),
        _key("grader", _labeler()),
        _integer("grade"),
        _text("created"),
    )


def _accounts() -> None:
    op.create_table(
        "accounts",
        _key("id", _labeler()),
        _text("role"),
        _text("password"),
        _json("languages"),
        _text("locale"),
        _text("screening"),
        _json("answers"),
        _text("closed", nullable=True),
        _text("created"),
    )
    op.create_table(
        "sessions",
        _key("token"),
        _text("account", sa.ForeignKey("accounts.id"), index=True),
        _text("csrf"),
        _text("seen"),
        _text("expires"),
        _text("created"),
    )
    op.create_table(
        "tokens",
        _key("token"),
        _text("account", sa.ForeignKey("accounts.id"), index=True),
        _text("name"),
        _text("revoked", nullable=True),
        _text("created"),
    )
    op.create_table(
        "invitations",
        _key("token"),
        _text("role"),
        _text("group"),
        sa.Column("screening", sa.Boolean, nullable=False),
        _text("author"),
        _text("used_by", nullable=True),
        _text("expires"),
        _text("created"),
    )
    op.create_table(
        "resets",
        _key("token"),
        _text("account", sa.ForeignKey("accounts.id"), index=True),
        _text("author"),
        _text("used", nullable=True),
        _text("expires"),
        _text("created"),
    )
    op.create_table(
        "attempts",
        _key("key"),
        _integer("failures"),
        _text("until"),
    )


def _project() -> None:
    op.create_table(
        "guidelines",
        _key("task"),
        _key("purpose"),
        _key("language"),
        sa.Column("version", sa.Integer, primary_key=True),
        _text("text"),
        _text("author"),
        _text("created"),
    )
    op.create_table(
        "settings",
        _key("key"),
        _json("value"),
        _text("author"),
        _text("changed"),
    )
    op.create_table(
        "events",
        _key("id"),
        _text("at", index=True),
        _text("account", index=True),
        _text("what"),
        _json("detail"),
    )
