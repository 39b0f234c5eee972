"""Indexes of the batches that were released, by their clock, and of those that have a token.

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_INDEXES = {
    "ix_batches_released": (["buffer_id", "clock"], "released_at"),
    "ix_batches_token": (["token"], "token"),
}
"""Columns of each index, and the column that has a value in all of its rows."""


def _schema() -> str | None:
    return "sqlbuffer" if op.get_bind().dialect.name == "postgresql" else None


def upgrade() -> None:
    """Create the indexes; neither has a row for a batch that is settled by its own worker."""
    for name, (columns, known) in _INDEXES.items():
        condition = sa.text(f"{known} IS NOT NULL")
        op.create_index(
            name,
            "batches",
            columns,
            schema=_schema(),
            sqlite_where=condition,
            postgresql_where=condition,
        )


def downgrade() -> None:
    """Drop them."""
    for name in _INDEXES:
        op.drop_index(name, "batches", schema=_schema())
