"""What the race inferred from values is stored: scores in the pool, the clock of the last change, epochs, the limit.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _columns(is_server: bool) -> dict[str, list[sa.Column]]:
    big_id = sa.BigInteger() if is_server else sa.Integer()
    return {
        "buffers": [
            sa.Column("max_size", big_id, comment="Samples that may wait; NULL: any number"),
            sa.Column(
                "epoch",
                big_id,
                nullable=False,
                server_default=sa.text("0"),
                comment="How often every key of the race has been moved at once",
            ),
        ],
        "pool": [
            sa.Column("score", sa.Double(), comment="Score that its weight comes from; NULL when there is none"),
        ],
        "workers": [
            sa.Column(
                "touched",
                sa.Double(),
                nullable=False,
                server_default=sa.text("0"),
                comment="Latest clock at which it let a sample join the race, or changed a weight",
            ),
        ],
    }


def upgrade() -> None:
    """Add the columns."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    prefix = "sqlbuffer." if is_server else ""
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.add_column(table, column, schema=schema)
    op.execute(
        f"UPDATE {prefix}pool SET score = s.score FROM {prefix}samples AS s "
        f"WHERE s.id = pool.sample_id AND pool.weight IS NOT NULL"
    )
    op.execute(f"UPDATE {prefix}workers SET touched = clock")  # nobody has noted when samples joined


def downgrade() -> None:
    """Drop the columns."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.drop_column(table, column.name, schema=schema)
