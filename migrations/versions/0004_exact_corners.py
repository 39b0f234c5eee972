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
    _refuse_under_workers(is_server)
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.add_column(table, column, schema=schema)
    op.execute(
        f"UPDATE {prefix}pool SET score = s.score FROM {prefix}samples AS s "
        f"WHERE s.id = pool.sample_id AND pool.weight IS NOT NULL"
    )
    op.execute(f"UPDATE {prefix}workers SET touched = clock")  # nobody has noted when samples joined


def _refuse_under_workers(is_server: bool) -> None:
    """Refuse to go on while an older release draws: it takes no lock of the draws, and notes no change of the race."""
    recent = (
        "heartbeat_at > now() - interval '1 minute' AND heartbeat_at < now() + interval '1 minute'"
        if is_server
        else "abs(julianday('now') - julianday(heartbeat_at)) * 1440 < 1"
    )
    prefix = "sqlbuffer." if is_server else ""
    found = op.get_bind().execute(
        sa.text(f"SELECT id, heartbeat_at FROM {prefix}workers WHERE id <> 'ledger' AND {recent} ORDER BY id")
    )
    if workers := [f"{row.id} (last seen at {row.heartbeat_at})" for row in found]:
        raise RuntimeError(
            f"a process of an older release may be at work: {', '.join(workers)}. "
            "Stop it, and run the upgrade a minute after it was last seen."
        )


def downgrade() -> None:
    """Drop the columns."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.drop_column(table, column.name, schema=schema)
