"""Stored, no longer inferred: scores in the pool, the clock of the last change, epochs, the limit.

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
            sa.Column(
                "top_score",
                sa.Double(),
                comment="What can be drawn and has at least this score is marked as top; NULL: "
                "nothing is",
            ),
            sa.Column(
                "max_size",
                big_id,
                comment="Most samples that may wait once they are scored; NULL: any number",
            ),
            sa.Column(
                "epoch",
                big_id,
                nullable=False,
                server_default=sa.text("0"),
                comment="How often every key of the race has been moved at once",
            ),
        ],
        "pool": [
            sa.Column(
                "score",
                sa.Double(),
                comment="Score that its weight comes from; NULL when it has none or cannot be "
                "drawn",
            ),
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
        f"WHERE s.id = pool.sample_id AND pool.weight > 0 "
        f"AND pool.buffer_id IN (SELECT id FROM {prefix}buffers WHERE kind <> 'uniform')"
    )
    _weigh_again(prefix)
    op.drop_column("buffers", "top_weight", schema=schema)  # the next argmax share marks by score
    op.drop_index("ix_pool_top", "pool", schema=schema)
    _index_top(schema, "score")
    op.execute(
        f"UPDATE {prefix}workers SET touched = clock"
    )  # no process has noted when samples joined


def downgrade() -> None:
    """Drop the columns."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    op.drop_index("ix_pool_top", "pool", schema=schema)
    _index_top(schema, "weight")
    comment = "Whatever waits with at least this weight is marked as top; NULL: nothing is"
    op.add_column("buffers", sa.Column("top_weight", sa.Double(), comment=comment), schema=schema)
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.drop_column(table, column.name, schema=schema)


def _refuse_under_workers(is_server: bool) -> None:
    """Refuse to upgrade while an older release draws: it neither locks draws nor notes changes."""
    recent = (
        "heartbeat_at > now() - interval '1 minute' AND heartbeat_at < now() + interval '1 minute'"
        if is_server
        else "abs(julianday('now') - julianday(heartbeat_at)) * 1440 < 1"
    )
    prefix = "sqlbuffer." if is_server else ""
    found = op.get_bind().execute(
        sa.text(
            f"SELECT id, heartbeat_at FROM {prefix}workers WHERE id <> 'ledger' AND {recent} "
            "ORDER BY id"
        )
    )
    if workers := [f"{row.id} (last seen at {row.heartbeat_at})" for row in found]:
        raise RuntimeError(
            f"a worker of an older release may still run: {', '.join(workers)}. Stop the worker, "
            "and run the upgrade a minute after it was last seen."
        )


def _weigh_again(prefix: str) -> None:
    """Compute shifted weights from the scores: they were moved by differences, each rounded.

    While a refresh is under way, some weights are not those of the scores; the refresh sets them.
    """
    bounded = "min({0}, 5e149)" if not prefix else "least({0}, 5e149)"
    bounded = f"max({bounded}, -5e149)" if not prefix else f"greatest({bounded}, -5e149)"
    score, base = bounded.format("pool.score"), bounded.format("b.base_score")
    weight = (
        f"(CASE WHEN {score} > of_buffer.base THEN {score} - of_buffer.base + 1e-8 ELSE 1e-8 END)"
    )
    stretched = f"of_buffer.clock + (race_key - of_buffer.clock) * (weight / {weight})"
    op.execute(
        f"UPDATE {prefix}pool SET weight = {weight}, "
        f"race_key = CASE WHEN race_key > of_buffer.clock THEN {stretched} ELSE race_key END "
        f"FROM (SELECT b.id, {base} AS base, max(w.clock) AS clock "
        f"FROM {prefix}buffers AS b JOIN {prefix}workers AS w ON w.buffer_id = b.id "
        f"WHERE b.kind = 'shift' AND b.base_score IS NOT NULL AND b.refresh_version = "
        "b.refreshed_version "
        f"GROUP BY b.id, b.base_score) AS of_buffer "
        f"WHERE pool.buffer_id = of_buffer.id AND pool.score IS NOT NULL AND pool.weight <> "
        f"{weight}"
    )


def _index_top(schema: str | None, by: str) -> None:
    op.create_index(
        "ix_pool_top",
        "pool",
        ["buffer_id", by, "tie", "sample_id"],
        schema=schema,
        sqlite_where=sa.text("top = 1"),
        postgresql_where=sa.text("top = true"),
    )
