"""Jobs of a catalogue run bear its id; jobs of several candidates have a row for each."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("batch_id", sa.String(64)))
    op.create_index("jobs_listing_batch", "jobs", ["tenant", "batch_id", "seq"])
    candidates = sa.Column("candidates", sa.Integer, nullable=False, server_default="0")
    op.add_column("jobs", candidates)
    op.add_column("jobs", sa.Column("parent_id", sa.String(128)))
    waiting = sa.text("status = 'queued'")
    # As they were, with one column more at the end: the version before goes on using them.
    for name, columns, where in (
        ("jobs_queue", ["status", "priority", "tenant", "seq"], None),
        ("jobs_listing_status", ["tenant", "status", "seq"], None),
        ("jobs_line", ["priority", "seq"], waiting),
    ):
        op.drop_index(name, "jobs")
        op.create_index(
            name, "jobs", [*columns, "candidates"], sqlite_where=where, postgresql_where=where
        )
    family = sa.text("parent_id IS NOT NULL")
    op.create_index(
        "jobs_family", "jobs", ["parent_id"], sqlite_where=family, postgresql_where=family
    )
