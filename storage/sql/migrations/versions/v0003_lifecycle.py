"""When a purge's objects went, which videos have expired, and the queue as one line."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("purges", sa.Column("gone_at", sa.Double))
    expired = sa.Column("expired", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("jobs", expired)
    # Until here this was how version 2 said it; what it has not recorded, version 1 completed.
    op.execute(
        sa.text(
            "UPDATE jobs SET expired = true"
            " WHERE status = 'completed' AND result_id IS NULL AND recorded"
        )
    )
    waiting = sa.text("status = 'queued'")
    op.create_index(
        "jobs_line",
        "jobs",
        ["priority", "seq"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
