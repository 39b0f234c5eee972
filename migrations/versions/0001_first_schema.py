"""The first schema.

Revision ID: 0001
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

VIEWS = ("buffer_overview", "sample_overview", "batch_overview", "draw_overview")
TABLES = "receipts metrics checkpoints jobs predictors workers draws batches pool samples buffers".split()


def upgrade() -> None:
    """Create all tables, indexes and views."""
    is_server = op.get_bind().dialect.name == "postgresql"
    schema = "sqlbuffer" if is_server else None
    prefix = "sqlbuffer." if is_server else ""
    _tables(is_server, schema, prefix)
    _indexes(schema)
    _views(prefix)


def downgrade() -> None:
    """Drop everything."""
    prefix = "sqlbuffer." if op.get_bind().dialect.name == "postgresql" else ""
    for view in VIEWS:
        op.execute(f"DROP VIEW {prefix}{view}")
    for table in TABLES:
        op.execute(f"DROP TABLE {prefix}{table}")


def _tables(is_server: bool, schema: str | None, prefix: str) -> None:
    big_id = sa.BigInteger() if is_server else sa.Integer()
    json: Any = JSONB() if is_server else sa.JSON()
    timestamp: Any = sa.DateTime(timezone=True) if is_server else sa.Text()
    op.create_table(
        "buffers",
        sa.Column("id", sa.Integer(), primary_key=True, comment="Number of the buffer"),
        sa.Column("name", sa.Text(), nullable=False, comment="Name under which it is opened"),
        sa.Column("kind", sa.Text(), nullable=False, comment="Name of the weight function"),
        sa.Column(
            "mode",
            sa.Text(),
            nullable=False,
            comment="consume: a drawn sample leaves the pool; replay: it stays",
        ),
        sa.Column(
            "seed", sa.Text(), nullable=False, comment="Seed of the race, an integer of any size"
        ),
        sa.Column(
            "base_score",
            sa.Double(),
            comment="Lowest score of the pool, from which the shift weighting counts",
        ),
        sa.Column(
            "top_weight",
            sa.Double(),
            comment="Whatever waits with at least this weight is marked as top; NULL: nothing is",
        ),
        sa.Column(
            "score_version",
            sa.Integer(),
            nullable=False,
            comment="Version that the next scores get",
        ),
        sa.Column(
            "refresh_version",
            sa.Integer(),
            nullable=False,
            comment="Score version that the newest refresh asked for",
        ),
        sa.Column(
            "refreshed_version",
            sa.Integer(),
            nullable=False,
            comment="Score version that the newest finished refresh gave",
        ),
        sa.Column(
            "settings",
            json,
            nullable=False,
            comment="Parameters of the weight function, and what else shapes draws",
        ),
        sa.Column("created_at", timestamp, nullable=False, comment="When it was created (UTC)"),
        sa.CheckConstraint("mode IN ('consume', 'replay')", name="ck_buffers_mode"),
        sa.UniqueConstraint("name", name="uq_buffers_name"),
        schema=schema,
    )
    op.create_table(
        "samples",
        sa.Column("id", big_id, primary_key=True, comment="Number of the sample"),
        sa.Column("buffer_id", sa.Integer(), nullable=False, comment="The buffer it belongs to"),
        sa.Column(
            "hash",
            sa.LargeBinary(),
            nullable=False,
            comment="Canonical hash, 16 bytes: equal samples have equal hashes",
        ),
        sa.Column(
            "text", sa.Text(), nullable=False, comment="The sample, or a readable rendering of it"
        ),
        sa.Column(
            "payload",
            sa.LargeBinary(),
            comment="The encoded sample; NULL when text is the whole sample",
        ),
        sa.Column(
            "codec",
            sa.Text(),
            nullable=False,
            comment="How payload is encoded: text, cbor or pickle",
        ),
        sa.Column(
            "source", sa.Text(), nullable=False, comment="Name of the generator that added it first"
        ),
        sa.Column("meta", json, comment="What the user said about it"),
        sa.Column(
            "queued",
            sa.Boolean(),
            nullable=False,
            comment="True while it waits in the pool or in an open batch",
        ),
        sa.Column(
            "requeues",
            sa.Integer(),
            nullable=False,
            comment="How often it was added again after it had left the pool",
        ),
        sa.Column(
            "score",
            sa.Double(),
            comment="Cached prediction; NULL when not scored, or when the prediction was not finite",
        ),
        sa.Column(
            "score_version", sa.Integer(), comment="Version of the score; NULL when not scored"
        ),
        sa.Column("scored_at", timestamp, comment="When it was scored (UTC)"),
        sa.Column(
            "reward",
            sa.Double(),
            comment="Measured reward; NULL when not measured, or when the measurement failed",
        ),
        sa.Column("rewarded_at", timestamp, comment="When the reward was stored (UTC)"),
        sa.Column(
            "created_at", timestamp, nullable=False, comment="When it was first stored (UTC)"
        ),
        sa.Column(
            "created_iteration",
            sa.Integer(),
            nullable=False,
            comment="Iteration of the buffer when it was first stored",
        ),
        sa.UniqueConstraint("buffer_id", "hash", name="uq_samples_buffer_id_hash"),
        schema=schema,
    )
    op.create_table(
        "pool",
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
        sqlite_with_rowid=False,
        schema=schema,
    )
    op.create_table(
        "batches",
        sa.Column("id", big_id, primary_key=True, comment="Number of the batch"),
        sa.Column("buffer_id", sa.Integer(), nullable=False, comment="The buffer it belongs to"),
        sa.Column("worker_id", sa.Text(), nullable=False, comment="The worker that drew it"),
        sa.Column(
            "iteration",
            sa.Integer(),
            nullable=False,
            comment="Iteration that it was drawn for, from 0",
        ),
        sa.Column("size", sa.Integer(), nullable=False, comment="Samples in it"),
        sa.Column(
            "clock_before", sa.Double(), nullable=False, comment="Clock of the race before the draw"
        ),
        sa.Column("clock", sa.Double(), nullable=False, comment="Clock of the race after the draw"),
        sa.Column("drawn_at", timestamp, nullable=False, comment="When it was drawn (UTC)"),
        sa.Column("settled_at", timestamp, comment="When its rewards were stored (UTC)"),
        sa.Column("released_at", timestamp, comment="When its samples went back to the pool (UTC)"),
        schema=schema,
    )
    op.create_table(
        "draws",
        sa.Column("batch_id", big_id, primary_key=True, autoincrement=False, comment="The batch"),
        sa.Column(
            "position",
            sa.Integer(),
            primary_key=True,
            autoincrement=False,
            comment="Place in the batch, from 0",
        ),
        sa.Column("sample_id", big_id, nullable=False, comment="The sample drawn"),
        sa.Column(
            "race_key", sa.Double(), nullable=False, comment="Its race key when it was drawn"
        ),
        sa.Column("weight", sa.Double(), comment="Its weight when it was drawn"),
        sa.Column(
            "reported",
            sa.Boolean(),
            nullable=False,
            server_default=sa.false(),
            comment="True when its reward came before the batch was closed",
        ),
        sqlite_with_rowid=False,
        schema=schema,
    )
    op.create_table(
        "workers",
        sa.Column(
            "buffer_id",
            sa.Integer(),
            sa.ForeignKey(f"{prefix}buffers.id", name="fk_workers_buffer_id"),
            primary_key=True,
            comment="The buffer it belongs to",
        ),
        sa.Column(
            "id",
            sa.Text(),
            primary_key=True,
            comment="Host, pid and random letters; 'ledger' sums up those that are gone",
        ),
        sa.Column(
            "host",
            sa.Text(),
            nullable=False,
            comment="Host, boot and pid namespace in which the pid is unique",
        ),
        sa.Column("pid", sa.Integer(), nullable=False, comment="Process number"),
        sa.Column(
            "process_started_at",
            sa.Double(),
            nullable=False,
            comment="When the process started, seconds since 1970",
        ),
        sa.Column("created_at", timestamp, nullable=False, comment="When it attached (UTC)"),
        sa.Column(
            "heartbeat_at", timestamp, nullable=False, comment="When it was last seen alive (UTC)"
        ),
        sa.Column("clock", sa.Double(), nullable=False, comment="Largest race key it has drawn"),
        sa.Column(
            "batches",
            sa.Integer(),
            nullable=False,
            comment="Batches drawn by this worker, those released taken off",
        ),
        sa.Column(
            "iterations",
            sa.Integer(),
            nullable=False,
            comment="Batches settled as iterations of a loop by this worker",
        ),
        sa.Column(
            "added",
            big_id,
            nullable=False,
            comment="Samples stored for the first time by this worker",
        ),
        sa.Column(
            "recorded",
            big_id,
            nullable=False,
            comment="Samples stored with a reward, without waiting, by this worker",
        ),
        sa.Column(
            "requeued",
            big_id,
            nullable=False,
            comment="Samples put into the pool again by this worker",
        ),
        sa.Column("drawn", big_id, nullable=False, comment="Draws made by this worker"),
        sa.Column("settled", big_id, nullable=False, comment="Draws settled by this worker"),
        sa.Column("released", big_id, nullable=False, comment="Draws given back by this worker"),
        sa.Column(
            "removed",
            big_id,
            nullable=False,
            comment="Samples taken out of the pool without a draw by this worker",
        ),
        sa.Column(
            "refused",
            big_id,
            nullable=False,
            comment="Samples without a key refused by this worker",
        ),
        sa.Column(
            "unscored",
            big_id,
            nullable=False,
            comment="Change in waiting samples without a score by this worker",
        ),
        sa.Column(
            "unscorable",
            big_id,
            nullable=False,
            comment="Change in waiting samples of weight 0 by this worker",
        ),
        sa.Column(
            "measured",
            big_id,
            nullable=False,
            comment="Change in samples that have a reward by this worker",
        ),
        sa.Column(
            "failed",
            big_id,
            nullable=False,
            comment="Change in samples whose measurement failed by this worker",
        ),
        schema=schema,
    )
    op.create_table(
        "predictors",
        sa.Column(
            "buffer_id",
            sa.Integer(),
            sa.ForeignKey(f"{prefix}buffers.id", name="fk_predictors_buffer_id"),
            primary_key=True,
            comment="The buffer it belongs to",
        ),
        sa.Column(
            "version",
            sa.Integer(),
            primary_key=True,
            comment="Score version from which it is in force",
        ),
        sa.Column(
            "iteration", sa.Integer(), nullable=False, comment="Batches settled when it was trained"
        ),
        sa.Column("state", sa.LargeBinary(), nullable=False, comment="Its weights, as safetensors"),
        sa.Column(
            "rows_trained",
            sa.Integer(),
            nullable=False,
            comment="Labelled samples it was trained on",
        ),
        sa.Column("train_loss", sa.Double(), comment="Loss on the training rows"),
        sa.Column("valid_loss", sa.Double(), comment="Loss on the held-out rows"),
        sa.Column("metrics", json, nullable=False, comment="Other measures of its training"),
        sa.Column("trained_at", timestamp, nullable=False, comment="When it was stored (UTC)"),
        sa.Column("worker_id", sa.Text(), nullable=False, comment="The worker that trained it"),
        schema=schema,
    )
    op.create_table(
        "jobs",
        sa.Column(
            "buffer_id",
            sa.Integer(),
            sa.ForeignKey(f"{prefix}buffers.id", name="fk_jobs_buffer_id"),
            primary_key=True,
            comment="The buffer it belongs to",
        ),
        sa.Column("name", sa.Text(), primary_key=True, comment="Name of the job"),
        sa.Column("owner", sa.Text(), comment="The worker that runs it; NULL when nobody does"),
        sa.Column("lease_until", timestamp, comment="Until when the owner has it (UTC)"),
        sa.Column("last_started_at", timestamp, comment="When it last started (UTC)"),
        sa.Column("last_finished_at", timestamp, comment="When it last finished (UTC)"),
        sa.Column(
            "last_error", sa.Text(), comment="What went wrong the last time; NULL when nothing did"
        ),
        schema=schema,
    )
    op.create_table(
        "checkpoints",
        sa.Column(
            "buffer_id",
            sa.Integer(),
            sa.ForeignKey(f"{prefix}buffers.id", name="fk_checkpoints_buffer_id"),
            primary_key=True,
            comment="The buffer it belongs to",
        ),
        sa.Column("name", sa.Text(), primary_key=True, comment="What it is a checkpoint of"),
        sa.Column(
            "iteration",
            sa.Integer(),
            primary_key=True,
            autoincrement=False,
            comment="Batches settled when it was written",
        ),
        sa.Column("data", sa.LargeBinary(), nullable=False, comment="The state"),
        sa.Column("created_at", timestamp, nullable=False, comment="When it was written (UTC)"),
        schema=schema,
    )
    op.create_table(
        "metrics",
        sa.Column(
            "buffer_id",
            sa.Integer(),
            sa.ForeignKey(f"{prefix}buffers.id", name="fk_metrics_buffer_id"),
            primary_key=True,
            comment="The buffer it belongs to",
        ),
        sa.Column(
            "iteration",
            sa.Integer(),
            primary_key=True,
            autoincrement=False,
            comment="Iteration that it measures, from 0",
        ),
        sa.Column("name", sa.Text(), primary_key=True, comment="Name of the metric"),
        sa.Column("value", sa.Double(), comment="Its value; NULL when not a number"),
        sa.Column("recorded_at", timestamp, nullable=False, comment="When it was recorded (UTC)"),
        schema=schema,
    )

    op.create_table(
        "receipts",
        sa.Column(
            "connection",
            sa.Text(),
            primary_key=True,
            comment="Random name of a connection to a server; none on SQLite",
        ),
        sa.Column(
            "number",
            big_id,
            nullable=False,
            comment="Number of the last transaction that it committed",
        ),
        sa.Column("written_at", timestamp, nullable=False, comment="When that was (UTC)"),
        schema=schema,
    )


def _indexes(schema: str | None) -> None:
    measured = sa.text("reward IS NOT NULL")
    still_open = sa.text("settled_at IS NULL AND released_at IS NULL")
    op.create_index(
        "ix_samples_reward",
        "samples",
        ["buffer_id", "reward", "id"],
        schema=schema,
        sqlite_where=measured,
        postgresql_where=measured,
    )
    op.create_index(
        "ix_pool_top",
        "pool",
        ["buffer_id", "weight", "sample_id"],
        schema=schema,
        sqlite_where=sa.text("top = 1"),
        postgresql_where=sa.text("top = true"),
    )
    op.create_index(
        "ix_pool_unscored",
        "pool",
        ["buffer_id", "sample_id"],
        schema=schema,
        sqlite_where=sa.text("weight IS NULL"),
        postgresql_where=sa.text("weight IS NULL"),
    )
    op.create_index(
        "ix_batches_open",
        "batches",
        ["buffer_id", "worker_id"],
        schema=schema,
        sqlite_where=still_open,
        postgresql_where=still_open,
    )
    op.create_index("ix_batches_iteration", "batches", ["buffer_id", "iteration"], schema=schema)


def _views(prefix: str) -> None:
    op.execute(f"""
        CREATE VIEW {prefix}buffer_overview AS
        SELECT
            b.name AS buffer,
            b.kind,
            b.mode,
            sum(w.iterations) AS iteration,
            sum(w.added + w.requeued - w.removed
                - CASE b.mode WHEN 'consume' THEN w.drawn - w.released ELSE 0 END) AS waiting,
            sum(w.unscored) AS unscored,
            sum(w.unscorable) AS unscorable,
            sum(w.added + w.recorded) AS stored,
            sum(w.drawn - w.released - w.settled) AS claimed,
            sum(w.measured) AS measured,
            sum(w.failed) AS failed,
            (SELECT max(s.reward) FROM {prefix}samples AS s
             WHERE s.buffer_id = b.id AND s.reward IS NOT NULL) AS best_reward,
            b.score_version,
            b.created_at,
            max(w.heartbeat_at) AS seen_at
        FROM {prefix}buffers AS b
        LEFT JOIN {prefix}workers AS w ON w.buffer_id = b.id
        GROUP BY b.id, b.name, b.kind, b.mode, b.score_version, b.created_at
    """)
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
            s.created_iteration,
            s.created_at,
            s.scored_at,
            s.rewarded_at
        FROM {prefix}samples AS s
        JOIN {prefix}buffers AS b ON b.id = s.buffer_id
    """)
    op.execute(f"""
        CREATE VIEW {prefix}batch_overview AS
        SELECT
            b.name AS buffer,
            t.id,
            t.iteration,
            t.size,
            CASE
                WHEN t.settled_at IS NOT NULL THEN 'settled'
                WHEN t.released_at IS NOT NULL THEN 'released'
                ELSE 'open'
            END AS state,
            (SELECT avg(s.reward) FROM {prefix}draws AS d
             JOIN {prefix}samples AS s ON s.id = d.sample_id
             WHERE d.batch_id = t.id) AS mean_reward,
            t.worker_id,
            t.drawn_at,
            t.settled_at,
            t.released_at
        FROM {prefix}batches AS t
        JOIN {prefix}buffers AS b ON b.id = t.buffer_id
    """)
    op.execute(f"""
        CREATE VIEW {prefix}draw_overview AS
        SELECT
            b.name AS buffer,
            t.iteration,
            t.id AS batch_id,
            d.position,
            d.sample_id,
            s.text,
            s.source,
            d.weight,
            s.score,
            s.reward,
            t.drawn_at
        FROM {prefix}draws AS d
        JOIN {prefix}batches AS t ON t.id = d.batch_id
        JOIN {prefix}buffers AS b ON b.id = t.buffer_id
        JOIN {prefix}samples AS s ON s.id = d.sample_id
    """)
