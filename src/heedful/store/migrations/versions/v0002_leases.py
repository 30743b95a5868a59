"""Leases: what is handed out to a labeler and not to be handed to others until then."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("labeler", sa.Text, sa.ForeignKey("labelers.id"), primary_key=True),
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("purpose", sa.Text, primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True),
        sa.Column("item", sa.Text, primary_key=True),
        sa.Column("expires", sa.Text, nullable=False),
    )
