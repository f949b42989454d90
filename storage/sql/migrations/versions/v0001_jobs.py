"""The job table and its Dispatchers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "jobs",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("id", sa.String(128), nullable=False, unique=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("fingerprint", sa.String(64)),
        sa.Column("request", sa.Text, nullable=False),
        sa.Column("sku", sa.Text),
        sa.Column("priority", sa.String(32), nullable=False),
        sa.Column("deadline_at", sa.Double),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("started_at", sa.Double),
        sa.Column("completed_at", sa.Double),
        sa.Column("stage", sa.String(32)),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("tier", sa.String(128)),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("lease_until", sa.Double),
        sa.Column("result", sa.Text),
        sa.Column("error_code", sa.String(64)),
        sa.Column("error_message", sa.Text),
        sa.Column("events", sa.Text, nullable=False),
        sa.UniqueConstraint("tenant", "idempotency_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_queue", "jobs", ["status", "priority", "tenant", "seq"])
    op.create_index("jobs_deadlines", "jobs", ["status", "deadline_at"])
    op.create_index("jobs_listing", "jobs", ["tenant", "seq"])
    op.create_table(
        "dispatchers",
        sa.Column("epoch", serial, primary_key=True),
        sa.Column("started_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
