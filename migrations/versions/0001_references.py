"""References on runs, and our own tables.

Written out in full rather than taken from server_ext.database: a migration stays what it was when the model moves on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Look before adding: vantage6 itself may have added a column of its model."""
    inspector = sa.inspect(op.get_bind())
    _add_run_columns(inspector)
    _add_tables(set(inspector.get_table_names()))


def _add_run_columns(inspector: sa.engine.reflection.Inspector) -> None:
    there = {column["name"] for column in inspector.get_columns("run")}
    indexed = {tuple(index["column_names"]) for index in inspector.get_indexes("run")}
    reference = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
    for kind in ("result", "input"):
        if f"{kind}_reference" not in there:
            op.add_column("run", sa.Column(f"{kind}_reference", reference))
        if f"{kind}_object_id" not in there:
            op.add_column("run", sa.Column(f"{kind}_object_id", sa.String(36)))
        if (f"{kind}_object_id",) not in indexed:
            op.create_index(f"ix_run_{kind}_object_id", "run", [f"{kind}_object_id"])


def _add_tables(there: set[str]) -> None:
    if "largefile_server" not in there:
        op.create_table(
            "largefile_server",
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("server_id", sa.String(36), nullable=False),
            sa.CheckConstraint("id = 1", name="largefile_server_one_row"),
        )
    if "largefile_node" not in there:
        op.create_table(
            "largefile_node",
            sa.Column("node_id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("version", sa.String(64), nullable=False),
            sa.Column("registered_at", sa.DateTime, nullable=False),
        )
    if "largefile_task" not in there:
        op.create_table("largefile_task", sa.Column("task_id", sa.Integer, primary_key=True, autoincrement=False))
    if "largefile_object" not in there:
        op.create_table(
            "largefile_object",
            sa.Column("object_id", sa.String(36), primary_key=True),
            sa.Column("kind", sa.String(6), nullable=False),
            sa.Column("organization_id", sa.Integer, nullable=False),
            sa.Column("collaboration_id", sa.Integer, nullable=False),
            sa.Column("job_id", sa.Integer, nullable=False),
            sa.Column("location", sa.Text, nullable=False),
            sa.Column("size", sa.BigInteger, nullable=False),
            sa.Column("stored_size", sa.BigInteger, nullable=False),
            sa.Column("sha256", sa.String(64), nullable=False),
            sa.Column("registered_at", sa.DateTime, nullable=False),
        )
        op.create_index("ix_largefile_object_organization_id", "largefile_object", ["organization_id"])


def downgrade() -> None:
    """Not needed: stock vantage6 works with the additional columns and tables, and would lose what they hold."""
    raise NotImplementedError("A rollback to stock vantage6 needs no downgrade of the database.")
