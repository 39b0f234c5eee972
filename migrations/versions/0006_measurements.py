"""Every measurement is kept; attempts and failures, direction, objective and budget are stored.

Revision ID: 0006
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def _columns(is_server: bool) -> dict[str, list[sa.Column]]:
    big_id = sa.BigInteger() if is_server else sa.Integer()
    timestamp = sa.DateTime(timezone=True) if is_server else sa.Text()
    return {
        "buffers": [
            sa.Column(
                "direction",
                sa.Text(),
                nullable=False,
                server_default=sa.text("'maximize'"),
                comment="maximize: a higher reward is better; minimize: a lower one",
            ),
            sa.Column(
                "objective",
                sa.Text(),
                nullable=False,
                server_default=sa.text("'reward'"),
                comment="Name of the reward function whose rewards the samples have",
            ),
            sa.Column(
                "budget",
                big_id,
                comment="Most samples that may be measured, failed or claimed; NULL: any number",
            ),
            sa.Column(
                "max_attempts",
                sa.Integer(),
                server_default=sa.text("3"),
                comment="How often a worker may die while it measures a sample before the sample "
                "has failed; NULL: any number",
            ),
            sa.Column(
                "evict",
                sa.Text(),
                nullable=False,
                server_default=sa.text("'lightest'"),
                comment="Which samples leave beyond max_size: the lightest, or the oldest",
            ),
            sa.Column(
                "keep_key",
                sa.Boolean(),
                nullable=False,
                server_default=sa.false(),
                comment="True if the key of each sample is stored with it",
            ),
            sa.Column(
                "pruned_batch",
                big_id,
                comment="Draws of batches below this number were dropped; NULL: all are there",
            ),
        ],
        "samples": [
            sa.Column(
                "error",
                sa.Text(),
                comment="Why the measurement failed; NULL if it has a reward, or was not measured",
            ),
            sa.Column(
                "attempts",
                sa.Integer(),
                nullable=False,
                server_default=sa.text("0"),
                comment="Workers that have died while they measured it",
            ),
            sa.Column(
                "evicted",
                sa.Boolean(),
                nullable=False,
                server_default=sa.false(),
                comment="True if it left the pool because of max_size",
            ),
            sa.Column("key", sa.Text(), comment="Its key, where the buffer keeps keys"),
        ],
        "batches": [
            sa.Column(
                "counts_attempts",
                sa.Boolean(),
                nullable=False,
                server_default=sa.false(),
                comment="True if the death of its worker is an attempt at each sample that was "
                "started",
            ),
            sa.Column(
                "lease_until",
                timestamp,
                comment="Until when it stays claimed without its worker (UTC); NULL: while that "
                "lives",
            ),
            sa.Column("token", sa.Text(), comment="Token with which another process takes it up"),
            sa.Column(
                "n_argmax",
                sa.Integer(),
                comment="Samples of its argmax share, which come first; NULL: by an older release",
            ),
        ],
        "draws": [
            sa.Column("started_at", timestamp, comment="When its measurement was started (UTC)"),
        ],
    }


def upgrade() -> None:
    """Add the columns and the table; rewards become measurements of the first objective."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    prefix = "sqlbuffer." if is_server else ""
    _refuse_under_workers(is_server)
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.add_column(table, column, schema=schema)
    _create_measurements(is_server, schema)
    failed = "rewarded_at IS NOT NULL AND reward IS NULL"
    op.execute(f"UPDATE {prefix}samples SET error = 'the reward is NaN' WHERE {failed}")
    op.execute(f"""
        INSERT INTO {prefix}measurements
            (buffer_id, sample_id, batch_id, worker_id, objective, reward, error, measured_at,
            measured_tick)
        SELECT s.buffer_id, s.id, t.id, coalesce(t.worker_id, ''), 'reward', s.reward, s.error,
            s.rewarded_at, s.rewarded_tick
        FROM {prefix}samples AS s
        LEFT JOIN (
            SELECT d.sample_id, max(d.batch_id) AS batch_id
            FROM {prefix}draws AS d
            JOIN {prefix}batches AS b ON b.id = d.batch_id
            WHERE b.settled_at IS NOT NULL OR d.reported
            GROUP BY d.sample_id
        ) AS newest ON newest.sample_id = s.id
        LEFT JOIN {prefix}batches AS t ON t.id = newest.batch_id
        WHERE s.rewarded_at IS NOT NULL
        ORDER BY s.id
    """)
    op.create_index("ix_measurements_sample", "measurements", ["sample_id"], schema=schema)
    _create_view(prefix)
    _replace_buffer_overview(prefix, follows_direction=True)
    _replace_sample_overview(prefix, more="s.error, s.attempts, s.meta, s.key,")


def downgrade() -> None:
    """Drop the columns, the table and the view; the other view has the highest reward again."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    prefix = "sqlbuffer." if is_server else ""
    op.execute(f"DROP VIEW {prefix}measurement_overview")
    _replace_buffer_overview(prefix, follows_direction=False)
    _replace_sample_overview(prefix, more="")
    op.drop_table("measurements", schema=schema)
    for table, columns in _columns(is_server).items():
        for column in columns:
            op.drop_column(table, column.name, schema=schema)


def _refuse_under_workers(is_server: bool) -> None:
    """Refuse to upgrade while an older release works: it stores rewards without measurements."""
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
            f"a worker of an older release may still run: {', '.join(workers)}. "
            "Stop the worker, and run the upgrade a minute after it was last seen."
        )


def _create_measurements(is_server: bool, schema: str | None) -> None:
    big_id = sa.BigInteger() if is_server else sa.Integer()
    json: Any = JSONB() if is_server else sa.JSON()
    timestamp = sa.DateTime(timezone=True) if is_server else sa.Text()
    op.create_table(
        "measurements",
        sa.Column("id", big_id, primary_key=True, comment="Number of the measurement"),
        sa.Column("buffer_id", sa.Integer(), nullable=False, comment="The buffer it belongs to"),
        sa.Column("sample_id", big_id, nullable=False, comment="The measured sample"),
        sa.Column(
            "batch_id", big_id, comment="The batch that it was drawn in; NULL: it was not drawn"
        ),
        sa.Column("worker_id", sa.Text(), nullable=False, comment="The worker that stored it"),
        sa.Column("objective", sa.Text(), nullable=False, comment="Name of the reward function"),
        sa.Column("reward", sa.Double(), comment="Measured reward; NULL if the measurement failed"),
        sa.Column("error", sa.Text(), comment="Why the measurement failed; NULL if it did not"),
        sa.Column("seconds", sa.Double(), comment="How long it took; NULL if it is not known"),
        sa.Column("details", json, comment="What else was measured"),
        sa.Column("measured_at", timestamp, nullable=False, comment="When it was stored (UTC)"),
        sa.Column(
            "measured_tick",
            big_id,
            comment="Logical time when it was stored; NULL: by an older release",
        ),
        schema=schema,
    )


def _create_view(prefix: str) -> None:
    op.execute(f"""
        CREATE VIEW {prefix}measurement_overview AS
        SELECT
            b.name AS buffer,
            m.id,
            m.sample_id,
            s.text,
            s.source,
            m.batch_id,
            t.iteration,
            m.objective,
            m.reward,
            m.error,
            m.seconds,
            m.details,
            m.worker_id,
            m.measured_at
        FROM {prefix}measurements AS m
        JOIN {prefix}buffers AS b ON b.id = m.buffer_id
        JOIN {prefix}samples AS s ON s.id = m.sample_id
        LEFT JOIN {prefix}batches AS t ON t.id = m.batch_id
    """)


def _replace_buffer_overview(prefix: str, *, follows_direction: bool) -> None:
    """Create the view again; its best reward is the lowest where a buffer minimizes."""
    best = f"""
            (SELECT max(s.reward) FROM {prefix}samples AS s
             WHERE s.buffer_id = b.id AND s.reward IS NOT NULL)"""
    if follows_direction:
        best = f"""
            CASE b.direction WHEN 'minimize' THEN
            (SELECT min(s.reward) FROM {prefix}samples AS s
             WHERE s.buffer_id = b.id AND s.reward IS NOT NULL)
            ELSE{best}
            END"""
    direction = ", b.direction" if follows_direction else ""
    op.execute(f"DROP VIEW {prefix}buffer_overview")
    op.execute(f"""
        CREATE VIEW {prefix}buffer_overview AS
        SELECT
            b.name AS buffer,
            b.kind,
            b.mode{direction},
            sum(w.iterations) AS iteration,
            sum(w.added + w.requeued - w.removed
                - CASE b.mode WHEN 'consume' THEN w.drawn - w.released ELSE 0 END) AS waiting,
            sum(w.unscored) AS unscored,
            sum(w.unscorable) AS unscorable,
            sum(w.added + w.recorded) AS stored,
            sum(w.drawn - w.released - w.settled) AS claimed,
            sum(w.measured) AS measured,
            sum(w.failed) AS failed,{best} AS best_reward,
            b.score_version,
            b.created_at,
            max(w.heartbeat_at) AS seen_at
        FROM {prefix}buffers AS b
        LEFT JOIN {prefix}workers AS w ON w.buffer_id = b.id
        GROUP BY b.id, b.name, b.kind, b.mode{direction}, b.score_version, b.created_at
    """)


def _replace_sample_overview(prefix: str, *, more: str) -> None:
    """Create the view again, with or without errors, attempts and meta."""
    op.execute(f"DROP VIEW {prefix}sample_overview")
    op.execute(f"""
        CREATE VIEW {prefix}sample_overview AS
        SELECT
            b.name AS buffer,
            s.id,
            s.text,
            s.source,
            s.queued,
            s.score,
            (SELECT max(p.version) FROM {prefix}predictors AS p
             WHERE p.buffer_id = s.buffer_id AND p.version <= s.score_version) AS predictor,
            s.reward,
            {more}
            s.created_iteration,
            s.created_at,
            s.scored_at,
            s.rewarded_at
        FROM {prefix}samples AS s
        JOIN {prefix}buffers AS b ON b.id = s.buffer_id
    """)
