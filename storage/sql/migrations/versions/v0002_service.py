"""For a service of several tenants: revisions, results by address, keys, files, webhooks."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    serial = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    for column in (
        sa.Column("rev", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("photo_sha256", sa.String(64)),
        sa.Column("result_id", sa.String(64)),
        sa.Column("predicted_at", sa.Double),
        sa.Column("feedback", sa.Text),
        sa.Column("recorded", sa.Boolean, nullable=False, server_default=sa.false()),
    ):
        op.add_column("jobs", column)
    _fill()
    op.create_index("jobs_listing_status", "jobs", ["tenant", "status", "seq"])
    op.create_index("jobs_listing_sku", "jobs", ["tenant", "sku", "seq"])
    op.create_index("jobs_results", "jobs", ["tenant", "result_id"])
    op.create_index("jobs_photos", "jobs", ["tenant", "photo_sha256"])
    op.create_index("jobs_ended", "jobs", ["status", "completed_at"])
    op.create_index("jobs_created", "jobs", ["tenant", "created_at"])
    op.create_index("jobs_unrecorded", "jobs", ["recorded", "status"])
    op.create_table(
        "tenants",
        sa.Column("name", sa.String(128), primary_key=True),
        sa.Column("quota", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("revoked_at", sa.Double),
    )
    op.create_index("api_keys_tenant", "api_keys", ["tenant"])
    op.create_table(
        "files",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("id", sa.String(128), nullable=False, unique=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("media_type", sa.String(128), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("files_listing", "files", ["tenant", "seq"])
    op.create_index("files_content", "files", ["tenant", "sha256"])
    op.create_table(
        "deliveries",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("id", sa.String(128), nullable=False, unique=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("job_id", sa.String(128), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Double),
        sa.Column("outcome", sa.String(32)),
        sa.Column("detail", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_due", "deliveries", ["due_at"])
    op.create_index("deliveries_job", "deliveries", ["job_id"])
    op.create_table(
        "endpoints",
        sa.Column("tenant", sa.String(128), primary_key=True),
        sa.Column("url", sa.String(2048), primary_key=True),
        sa.Column("disabled_at", sa.Double, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "purges",
        sa.Column("seq", serial, primary_key=True),
        sa.Column("tenant", sa.String(128), nullable=False),
        sa.Column("job_id", sa.String(128), nullable=False),
        sa.Column("result_id", sa.String(64)),
        sa.Column("created_at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("purges_results", "purges", ["tenant", "result_id"])
    op.create_table(
        "facts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("written_at", sa.Double, nullable=False),
    )


def _fill() -> None:
    """The new columns of old rows, a thousand at a time."""
    db = op.get_bind()
    seq: sa.ColumnClause[int] = sa.column("seq")
    request: sa.ColumnClause[str] = sa.column("request")
    result: sa.ColumnClause[str | None] = sa.column("result")
    jobs = sa.table("jobs", seq, request, result, sa.column("photo_sha256"), sa.column("result_id"))
    fill = (
        sa.update(jobs)
        .where(seq == sa.bindparam("of"))
        .values(photo_sha256=sa.bindparam("photo"), result_id=sa.bindparam("made"))
    )
    done = 0
    while rows := db.execute(
        sa.select(seq, request, result)
        .select_from(jobs)
        .where(seq > done)
        .order_by(seq)
        .limit(1000)
    ).all():
        values = [
            {
                "of": row.seq,
                "photo": json.loads(row.request)["photo_sha256"],
                "made": json.loads(row.result)["result_id"] if row.result else None,
            }
            for row in rows
        ]
        db.execute(fill, values)
        done = rows[-1].seq
