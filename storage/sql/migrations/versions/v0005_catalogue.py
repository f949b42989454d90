"""Jobs of a catalogue run bear its id; videos of several candidates have a job for each."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("batch_id", sa.String(64)))
    op.create_index("jobs_listing_batch", "jobs", ["tenant", "batch_id", "seq"])
