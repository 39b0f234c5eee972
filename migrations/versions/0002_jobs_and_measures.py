"""Jobs count their runs; predictors have measures on held-out rows; the pool is vacuumed sooner.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _columns(is_server: bool) -> dict[str, list[sa.Column]]:
    big_id = sa.BigInteger() if is_server else sa.Integer()
    return {
        "jobs": [
            sa.Column(
                "runs",
                big_id,
                nullable=False,
                server_default=sa.text("0"),
                comment="How often it was taken; the owner of an earlier run can store nothing "
                "any more",
            ),
            sa.Column(
                "measured",
                big_id,
                nullable=False,
                server_default=sa.text("0"),
                comment="Labelled samples there were when it last started",
            ),
            sa.Column("schedule", sa.Text(), comment="When it is due, in words"),
        ],
        "predictors": [
            sa.Column(
                "rows_held_out",
                sa.Integer(),
                nullable=False,
                server_default=sa.text("0"),
                comment="Labelled samples it never saw, on which it was measured",
            ),
            sa.Column(
                "rank_correlation",
                sa.Double(),
                comment="Spearman's, of predictions and rewards of the rows held out",
            ),
            sa.Column(
                "r2",
                sa.Double(),
                comment="Share of the variance of the held-out rewards that it explains",
            ),
        ],
    }


def upgrade() -> None:
    """Add the columns; vacuum the pool at 1 % of dead rows instead of 20 %."""
    is_server = op.get_bind().dialect.name == "postgresql"
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.add_column(table, column, schema="sqlbuffer" if is_server else None)
    if is_server:
        op.execute("ALTER TABLE sqlbuffer.pool SET (autovacuum_vacuum_scale_factor = 0.01)")


def downgrade() -> None:
    """Drop the columns, and what the pool was told."""
    is_server = op.get_bind().dialect.name == "postgresql"
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.drop_column(table, column.name, schema="sqlbuffer" if is_server else None)
    if is_server:
        op.execute("ALTER TABLE sqlbuffer.pool RESET (autovacuum_vacuum_scale_factor)")
