"""Logical time orders events; a database has a name of its own; a buffer knows its key function.

Revision ID: 0003
"""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _columns(is_server: bool) -> dict[str, list[sa.Column]]:
    big_id = sa.BigInteger() if is_server else sa.Integer()
    timestamp = sa.DateTime(timezone=True) if is_server else sa.Text()
    return {
        "buffers": [
            sa.Column(
                "key", sa.Text(), comment="Module and name of the key function; '' for none, '?' for one without a name"
            ),
        ],
        "samples": [
            sa.Column(
                "created_tick", big_id, comment="Logical time when it was first stored; NULL: by an older release"
            ),
            sa.Column("scored_tick", big_id, comment="Logical time when it was scored"),
            sa.Column("rewarded_tick", big_id, comment="Logical time when the reward was stored"),
        ],
        "batches": [
            sa.Column("drawn_tick", big_id, comment="Logical time when it was drawn; NULL: by an older release"),
            sa.Column("closed_tick", big_id, comment="Logical time when it was settled or released"),
        ],
        "workers": [
            sa.Column(
                "tick",
                big_id,
                nullable=False,
                server_default=sa.text("0"),
                comment="Logical time of its last transaction: more than that of any transaction it could see",
            ),
            sa.Column("finished_at", timestamp, comment="When it closed the buffer (UTC); NULL while it is attached"),
        ],
    }


def upgrade() -> None:
    """Add the columns, and the table with the name of the database."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.add_column(table, column, schema=schema)
    lineage = op.create_table(
        "lineage",
        sa.Column(
            "id", sa.Text(), primary_key=True, comment="Random name of this database, given when it was created"
        ),
        schema=schema,
    )
    op.bulk_insert(lineage, [{"id": secrets.token_hex(8)}])


def downgrade() -> None:
    """Drop the columns and the table."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    op.drop_table("lineage", schema=schema)
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.drop_column(table, column.name, schema=schema)
