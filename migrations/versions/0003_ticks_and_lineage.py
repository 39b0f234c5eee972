"""Logical time orders events; hashes decide ties; race entries are counted; databases have names.

Revision ID: 0003
"""

import secrets
from typing import Any

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
                "key",
                sa.Text(),
                comment="Module and name of the key function; '' for none, '?' for one without "
                "a name",
            ),
        ],
        "samples": [
            sa.Column(
                "created_tick",
                big_id,
                comment="Logical time when it was first stored; NULL: by an older release",
            ),
            sa.Column("scored_tick", big_id, comment="Logical time when it was scored"),
            sa.Column("rewarded_tick", big_id, comment="Logical time when the reward was stored"),
        ],
        "batches": [
            sa.Column(
                "drawn_tick",
                big_id,
                comment="Logical time when it was drawn; NULL: by an older release",
            ),
            sa.Column(
                "closed_tick", big_id, comment="Logical time when it was settled or released"
            ),
        ],
        "predictors": [
            sa.Column(
                "trained_tick",
                big_id,
                comment="Logical time when it was stored; NULL: by an older release",
            ),
        ],
        "jobs": [
            sa.Column(
                "ended_run",
                big_id,
                comment="Run that came to an end last; NULL: none, or one of an older release",
            ),
        ],
        "workers": [
            sa.Column(
                "tick",
                big_id,
                nullable=False,
                server_default=sa.text("0"),
                comment="Logical time of its last transaction: more than that of any "
                "transaction it could see",
            ),
            sa.Column(
                "finished_at",
                timestamp,
                comment="When it closed the buffer (UTC); NULL while it is attached",
            ),
        ],
    }


def upgrade() -> None:
    """Add the columns, and the table with the name of the database."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    _refuse_under_workers(is_server)
    if is_server:
        _extend_pool()
    else:
        _rebuild_pool(_POOL + _POOL_NEW)
    _index_pool(schema, ["buffer_id", "weight", "tie", "sample_id"])
    _index_rewards(schema, "hash")
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.add_column(table, column, schema=schema)
    lineage = op.create_table(
        "lineage",
        sa.Column(
            "id",
            sa.Text(),
            primary_key=True,
            comment="Random name of this database, given when it was created",
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
    if is_server:
        op.drop_index("ix_pool_top", "pool", schema=schema)
        for name in ("tie", "entries"):
            op.drop_column("pool", name, schema=schema)
    else:
        _rebuild_pool(_POOL)
    _index_pool(schema, ["buffer_id", "weight", "sample_id"])
    _index_rewards(schema, "id")


def _refuse_under_workers(is_server: bool) -> None:
    """Refuse to change how draws are made while an older release makes them."""
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


def _extend_pool() -> None:
    op.drop_index("ix_pool_top", "pool", schema="sqlbuffer")
    for column in _pool_columns(sa.BigInteger()):
        if column.name in _POOL_NEW:
            op.add_column("pool", column, schema="sqlbuffer")
    op.execute(
        "UPDATE sqlbuffer.pool SET tie = substr(s.hash, 9) FROM sqlbuffer.samples AS s WHERE "
        "s.id = pool.sample_id"
    )
    op.alter_column("pool", "tie", nullable=False, schema="sqlbuffer")


def _rebuild_pool(names: tuple[str, ...]) -> None:
    """Write the pool again with other columns: SQLite cannot add NOT NULL without a default."""
    for index in ("ix_pool_top", "ix_pool_unscored"):
        op.drop_index(index, "pool")
    op.rename_table("pool", "pool_before")
    columns = [column for column in _pool_columns(sa.Integer()) if column.name in names]
    for column in columns:
        column.nullable = column.nullable and column.name != "tie"
    op.create_table("pool", *columns, sqlite_with_rowid=False)
    old = ", ".join(f"p.{name}" for name in _POOL)
    new = ", substr(s.hash, 9)" if "tie" in names else ""
    listed = ", ".join(_POOL) + (", tie" if "tie" in names else "")
    op.execute(
        f"INSERT INTO pool ({listed}) SELECT {old}{new} FROM pool_before AS p JOIN samples AS s "
        "ON s.id = p.sample_id "
        "ORDER BY p.buffer_id, p.race_key, p.sample_id"
    )
    op.drop_table("pool_before")
    op.create_index(
        "ix_pool_unscored",
        "pool",
        ["buffer_id", "sample_id"],
        sqlite_where=sa.text("weight IS NULL"),
    )


def _index_pool(schema: str | None, columns: list[str]) -> None:
    op.create_index(
        "ix_pool_top",
        "pool",
        columns,
        schema=schema,
        sqlite_where=sa.text("top = 1"),
        postgresql_where=sa.text("top = true"),
    )


def _index_rewards(schema: str | None, last: str) -> None:
    op.drop_index("ix_samples_reward", "samples", schema=schema)
    measured = sa.text("reward IS NOT NULL")
    op.create_index(
        "ix_samples_reward",
        "samples",
        ["buffer_id", "reward", last],
        schema=schema,
        sqlite_where=measured,
        postgresql_where=measured,
    )


_POOL = ("buffer_id", "race_key", "sample_id", "weight", "top")
_POOL_NEW = ("tie", "entries")


def _pool_columns(big_id: Any) -> list[sa.Column[Any]]:
    return [
        sa.Column(
            "buffer_id",
            sa.Integer(),
            primary_key=True,
            autoincrement=False,
            comment="The buffer it belongs to",
        ),
        sa.Column(
            "race_key",
            sa.Double(),
            primary_key=True,
            comment="Arrival time in the race; +infinity: never drawn",
        ),
        sa.Column(
            "sample_id", big_id, primary_key=True, autoincrement=False, comment="The waiting sample"
        ),
        sa.Column(
            "weight",
            sa.Double(),
            comment="Rate at which it is drawn; NULL when not scored, 0 when never to be drawn",
        ),
        sa.Column(
            "top",
            sa.Boolean(),
            nullable=False,
            comment="True for the heaviest, from which the argmax share is taken",
        ),
        sa.Column(
            "tie",
            sa.LargeBinary(),
            comment="Last 8 bytes of the hash: decides between equal keys or weights",
        ),
        sa.Column(
            "entries",
            big_id,
            nullable=False,
            server_default=sa.text("0"),
            comment="How often it has entered the race; in replay mode it names the variate of "
            "its key",
        ),
    ]
