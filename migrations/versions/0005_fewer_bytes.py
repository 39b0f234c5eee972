"""Fewer bytes a batch: ties are stored for what is marked as top alone, and the index of rewards has no hashes.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TIE = "substr(s.hash, 9)"


def upgrade() -> None:
    """Forget ties and hashes that decide nothing."""
    is_server = op.get_bind().dialect.name == "postgresql"
    _refuse_under_workers(is_server)
    comment = "Last 8 bytes of the hash, which decide between equal scores; NULL where not top"
    if is_server:
        op.alter_column("pool", "tie", nullable=True, comment=comment, schema="sqlbuffer")
        op.execute("UPDATE sqlbuffer.pool SET tie = NULL WHERE NOT top")
    else:
        _rebuild_pool(tie=f"CASE WHEN p.top THEN {_TIE} END", nullable=True)
    _index_rewards(is_server, ["buffer_id", "reward"])


def downgrade() -> None:
    """Store them all again."""
    is_server = op.get_bind().dialect.name == "postgresql"
    comment = "Last 8 bytes of the hash: decides between equal keys or weights"
    if is_server:
        op.execute(
            f"UPDATE sqlbuffer.pool SET tie = {_TIE} FROM sqlbuffer.samples AS s WHERE s.id = pool.sample_id"
        )
        op.alter_column("pool", "tie", nullable=False, comment=comment, schema="sqlbuffer")
    else:
        _rebuild_pool(tie=_TIE, nullable=False)
    _index_rewards(is_server, ["buffer_id", "reward", "hash"])


def _refuse_under_workers(is_server: bool) -> None:
    """Refuse to go on while an older release draws: it finds the last of its arrivals by the ties of the pool."""
    recent = (
        "heartbeat_at > now() - interval '1 minute' AND heartbeat_at < now() + interval '1 minute'"
        if is_server
        else "abs(julianday('now') - julianday(heartbeat_at)) * 1440 < 1"
    )
    prefix = "sqlbuffer." if is_server else ""
    found = op.get_bind().execute(
        sa.text(
            f"SELECT id, heartbeat_at FROM {prefix}workers WHERE id <> 'ledger' AND {recent} ORDER BY id"
        )
    )
    if workers := [f"{row.id} (last seen at {row.heartbeat_at})" for row in found]:
        raise RuntimeError(
            f"a worker of an older release may still run: {', '.join(workers)}. "
            "Stop the worker, and run the upgrade a minute after it was last seen."
        )


def _rebuild_pool(*, tie: str, nullable: bool) -> None:
    """Write the pool again: SQLite cannot say of a column that it may be NULL from now on, or no longer."""
    for index in ("ix_pool_top", "ix_pool_unscored"):
        op.drop_index(index, "pool")
    op.rename_table("pool", "pool_before")
    columns = [
        sa.Column("buffer_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("race_key", sa.Double(), primary_key=True),
        sa.Column("sample_id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("weight", sa.Double()),
        sa.Column("top", sa.Boolean(), nullable=False),
        sa.Column("tie", sa.LargeBinary(), nullable=nullable),
        sa.Column("entries", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("score", sa.Double()),
    ]
    op.create_table("pool", *columns, sqlite_with_rowid=False)
    names = [column.name for column in columns]
    values = ", ".join(tie if name == "tie" else f"p.{name}" for name in names)
    op.execute(
        f"INSERT INTO pool ({', '.join(names)}) SELECT {values} "
        "FROM pool_before AS p JOIN samples AS s ON s.id = p.sample_id ORDER BY p.buffer_id, p.race_key, p.sample_id"
    )
    op.drop_table("pool_before")
    op.create_index(
        "ix_pool_top",
        "pool",
        ["buffer_id", "score", "tie", "sample_id"],
        sqlite_where=sa.text("top = 1"),
    )
    op.create_index(
        "ix_pool_unscored",
        "pool",
        ["buffer_id", "sample_id"],
        sqlite_where=sa.text("weight IS NULL"),
    )


def _index_rewards(is_server: bool, columns: list[str]) -> None:
    schema = "sqlbuffer" if is_server else None
    measured = sa.text("reward IS NOT NULL")
    op.drop_index("ix_samples_reward", "samples", schema=schema)
    op.create_index(
        "ix_samples_reward",
        "samples",
        columns,
        schema=schema,
        sqlite_where=measured,
        postgresql_where=measured,
    )
