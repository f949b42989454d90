"""Batches: catalogue runs that were asked for by HTTP."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "batches",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("id", sa.String(128), nullable=False, unique=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("output_uri", sa.String(2048), nullable=False),
        sa.Column("webhook", sa.Text),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("moments", sa.Text, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("completed", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.Text, nullable=False),
        sa.Column("prepared", sa.Boolean, nullable=False),
        sa.Column("starts", sa.Integer, nullable=False),
        sa.Column("looks", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.Double),
        sa.UniqueConstraint("tenant", "idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("batches_listing", "batches", ["tenant", "seq"])
    op.create_index("batches_due", "batches", ["due_at"])
    op.create_index("batches_output", "batches", ["output_uri"])
