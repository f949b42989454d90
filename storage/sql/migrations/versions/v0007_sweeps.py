"""Indexes of what a sweep has still to do, so that it reads again nothing that is done, and of the
bytes that a tenant has stored."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    kept = sa.text("result_id IS NOT NULL AND parent_id IS NULL")
    columns = ["status", "completed_at"]
    op.create_index("jobs_kept", "jobs", columns, sqlite_where=kept, postgresql_where=kept)
    op.create_index("purges_listing", "purges", ["tenant", "seq"])
    op.create_index("files_stored", "files", ["tenant", "size_bytes"])
    # As it was, with one column more at the end: the version before goes on using it.
    op.drop_index("deliveries_due", "deliveries")
    op.create_index("deliveries_due", "deliveries", ["due_at", "created_at"])
