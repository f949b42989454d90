"""Listings by category: what stood in the request alone becomes a column of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_READ = {
    "sqlite": "json_extract(request, '$.category')",
    "postgresql": "CAST(request AS json) ->> 'category'",
}


def upgrade() -> None:
    op.add_column("jobs", sa.Column("category", sa.Text))
    category = _READ[op.get_bind().dialect.name]
    # Most requests name none, and those of candidates are in no listing: these stay untouched.
    op.execute(
        f"UPDATE jobs SET category = {category}"
        ' WHERE parent_id IS NULL AND request LIKE \'%"category": "%\''
    )
    op.create_index("jobs_listing_category", "jobs", ["tenant", "category", "seq"])
