"""The tables, as the code sees them. Alembic alone creates them (`migrations/`); a test compares the two.

What changes with every batch lives in narrow tables beside the samples. `pool`, `draws`, `samples` and `batches` carry
no foreign keys: on PostgreSQL each would lock a parent row for every child written, the row of the buffer first of
all. `SampleStore.check` audits what the keys would have enforced.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

from sqlbuffer.db.backends import CHURNED, CLUSTERED, BigId, Json, Timestamp, where

REVISION = "0005"
"""The Alembic revision that this release works with."""

metadata = MetaData(
    naming_convention={
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_OF_BUFFER = "The buffer it belongs to"


def _buffer_key() -> Column[int]:
    return Column(
        "buffer_id", Integer, ForeignKey("buffers.id"), primary_key=True, comment=_OF_BUFFER
    )


buffers = Table(
    "buffers",
    metadata,
    Column("id", Integer, primary_key=True, comment="Number of the buffer"),
    Column("name", Text, nullable=False, unique=True, comment="Name under which it is opened"),
    Column("kind", Text, nullable=False, comment="Name of the weight function"),
    Column(
        "mode",
        Text,
        nullable=False,
        comment="consume: a drawn sample leaves the pool; replay: it stays",
    ),
    Column("seed", Text, nullable=False, comment="Seed of the race, an integer of any size"),
    Column(
        "base_score",
        Double,
        comment="Lowest score of the pool, from which the shift weighting counts",
    ),
    Column(
        "top_score",
        Double,
        comment="What can be drawn and has at least this score is marked as top; NULL: nothing is",
    ),
    Column("score_version", Integer, nullable=False, comment="Version that the next scores get"),
    Column(
        "refresh_version",
        Integer,
        nullable=False,
        comment="Score version that the newest refresh asked for",
    ),
    Column(
        "refreshed_version",
        Integer,
        nullable=False,
        comment="Score version that the newest finished refresh gave",
    ),
    Column(
        "settings",
        Json,
        nullable=False,
        comment="Parameters of the weight function, and what else shapes draws",
    ),
    Column("created_at", Timestamp, nullable=False, comment="When it was created (UTC)"),
    Column(
        "key",
        Text,
        comment="Module and name of the key function; '' for none, '?' for one without a name",
    ),
    Column(
        "max_size",
        BigId,
        comment="Most samples that may wait once they are scored; NULL: any number",
    ),
    Column(
        "epoch",
        BigId,
        nullable=False,
        server_default=text("0"),
        comment="How often every key of the race has been moved at once",
    ),
    CheckConstraint("mode IN ('consume', 'replay')", name="mode"),
)

samples = Table(
    "samples",
    metadata,
    Column("id", BigId, primary_key=True, comment="Number of the sample"),
    Column("buffer_id", Integer, nullable=False, comment=_OF_BUFFER),
    Column(
        "hash",
        LargeBinary,
        nullable=False,
        comment="Canonical hash, 16 bytes: equal samples have equal hashes",
    ),
    Column("text", Text, nullable=False, comment="The sample, or a readable rendering of it"),
    Column(
        "payload", LargeBinary, comment="The encoded sample; NULL when text is the whole sample"
    ),
    Column("codec", Text, nullable=False, comment="How payload is encoded: text, cbor or pickle"),
    Column("source", Text, nullable=False, comment="Name of the generator that added it first"),
    Column("meta", Json, comment="What the user said about it"),
    Column(
        "queued",
        Boolean,
        nullable=False,
        comment="True while it waits in the pool or in an open batch",
    ),
    Column(
        "requeues",
        Integer,
        nullable=False,
        comment="How often it was added again after it had left the pool",
    ),
    Column(
        "score",
        Double,
        comment="Cached prediction; NULL when not scored, or when the prediction was not finite",
    ),
    Column("score_version", Integer, comment="Version of the score; NULL when not scored"),
    Column("scored_at", Timestamp, comment="When it was scored (UTC)"),
    Column(
        "reward",
        Double,
        comment="Measured reward; NULL when not measured, or when the measurement failed",
    ),
    Column("rewarded_at", Timestamp, comment="When the reward was stored (UTC)"),
    Column("created_at", Timestamp, nullable=False, comment="When it was first stored (UTC)"),
    Column(
        "created_iteration",
        Integer,
        nullable=False,
        comment="Iteration of the buffer when it was first stored",
    ),
    Column(
        "created_tick",
        BigId,
        comment="Logical time when it was first stored; NULL: by an older release",
    ),
    Column("scored_tick", BigId, comment="Logical time when it was scored"),
    Column("rewarded_tick", BigId, comment="Logical time when the reward was stored"),
    UniqueConstraint("buffer_id", "hash"),
)
# Without the hash, which decides between equals: with it, a batch of rewards writes half as many pages again.
Index(
    "ix_samples_reward",
    samples.c.buffer_id,
    samples.c.reward,
    **where(samples.c.reward.is_not(None)),
)

pool = Table(
    "pool",
    metadata,
    Column("buffer_id", Integer, primary_key=True, autoincrement=False, comment=_OF_BUFFER),
    Column(
        "race_key",
        Double,
        primary_key=True,
        comment="Arrival time in the race; +infinity: never drawn",
    ),
    Column("sample_id", BigId, primary_key=True, autoincrement=False, comment="The waiting sample"),
    Column(
        "weight",
        Double,
        comment="Rate at which it is drawn; NULL when not scored, 0 when never to be drawn",
    ),
    Column(
        "top",
        Boolean,
        nullable=False,
        comment="True for the heaviest, from which the argmax share is taken",
    ),
    Column(
        "tie",
        LargeBinary,
        comment="Last 8 bytes of the hash, which decide between equal scores; NULL where not top",
    ),
    Column(
        "entries",
        BigId,
        nullable=False,
        server_default=text("0"),
        comment="How often it has entered the race; in replay mode it names the variate of its key",
    ),
    Column(
        "score",
        Double,
        comment="Score that its weight comes from; NULL when it has none or cannot be drawn",
    ),
    **CLUSTERED,
    **CHURNED,
)
# Partial, both: a draw takes 512 neighbours out of the table, but would take 512 far-flung rows out of an index over
# all scores, which trebles its cost at a million rows.
# "= true", as statements have it on SQLite: from "top = 1" it does not see that an index WHERE top would do.
Index(
    "ix_pool_top",
    pool.c.buffer_id,
    pool.c.score,
    pool.c.tie,
    pool.c.sample_id,
    **where(pool.c.top == true()),
)
Index("ix_pool_unscored", pool.c.buffer_id, pool.c.sample_id, **where(pool.c.weight.is_(None)))

batches = Table(
    "batches",
    metadata,
    Column("id", BigId, primary_key=True, comment="Number of the batch"),
    Column("buffer_id", Integer, nullable=False, comment=_OF_BUFFER),
    Column("worker_id", Text, nullable=False, comment="The worker that drew it"),
    Column("iteration", Integer, nullable=False, comment="Iteration that it was drawn for, from 0"),
    Column("size", Integer, nullable=False, comment="Samples in it"),
    Column("clock_before", Double, nullable=False, comment="Clock of the race before the draw"),
    Column("clock", Double, nullable=False, comment="Clock of the race after the draw"),
    Column("drawn_at", Timestamp, nullable=False, comment="When it was drawn (UTC)"),
    Column("settled_at", Timestamp, comment="When its rewards were stored (UTC)"),
    Column("released_at", Timestamp, comment="When its samples went back to the pool (UTC)"),
    Column(
        "drawn_tick", BigId, comment="Logical time when it was drawn; NULL: by an older release"
    ),
    Column("closed_tick", BigId, comment="Logical time when it was settled or released"),
)
_OPEN = batches.c.settled_at.is_(None) & batches.c.released_at.is_(None)
Index("ix_batches_open", batches.c.buffer_id, batches.c.worker_id, **where(_OPEN))
Index("ix_batches_iteration", batches.c.buffer_id, batches.c.iteration)

draws = Table(
    "draws",
    metadata,
    Column("batch_id", BigId, primary_key=True, autoincrement=False, comment="The batch"),
    Column(
        "position",
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="Place in the batch, from 0",
    ),
    Column("sample_id", BigId, nullable=False, comment="The sample drawn"),
    Column("race_key", Double, nullable=False, comment="Its race key when it was drawn"),
    Column("weight", Double, comment="Its weight when it was drawn"),
    Column(
        "reported",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="True when its reward came before the batch was closed",
    ),
    **CLUSTERED,
)

_COUNTED = "by this worker"

workers = Table(
    "workers",
    metadata,
    _buffer_key(),
    Column(
        "id",
        Text,
        primary_key=True,
        comment="Host, pid and random letters; 'ledger' sums up those that are gone",
    ),
    Column(
        "host",
        Text,
        nullable=False,
        comment="Host, boot and pid namespace in which the pid is unique",
    ),
    Column("pid", Integer, nullable=False, comment="Process number"),
    Column(
        "process_started_at",
        Double,
        nullable=False,
        comment="When the process started, seconds since 1970",
    ),
    Column("created_at", Timestamp, nullable=False, comment="When it attached (UTC)"),
    Column("heartbeat_at", Timestamp, nullable=False, comment="When it was last seen alive (UTC)"),
    Column("clock", Double, nullable=False, comment="Largest race key it has drawn"),
    Column(
        "batches",
        Integer,
        nullable=False,
        comment=f"Batches drawn {_COUNTED}, those released taken off",
    ),
    Column(
        "iterations",
        Integer,
        nullable=False,
        comment=f"Batches settled as iterations of a loop {_COUNTED}",
    ),
    Column("added", BigId, nullable=False, comment=f"Samples stored for the first time {_COUNTED}"),
    Column(
        "recorded",
        BigId,
        nullable=False,
        comment=f"Samples stored with a reward, without waiting, {_COUNTED}",
    ),
    Column(
        "requeued", BigId, nullable=False, comment=f"Samples put into the pool again {_COUNTED}"
    ),
    Column("drawn", BigId, nullable=False, comment=f"Draws made {_COUNTED}"),
    Column("settled", BigId, nullable=False, comment=f"Draws settled {_COUNTED}"),
    Column("released", BigId, nullable=False, comment=f"Draws given back {_COUNTED}"),
    Column(
        "removed",
        BigId,
        nullable=False,
        comment=f"Samples taken out of the pool without a draw {_COUNTED}",
    ),
    Column("refused", BigId, nullable=False, comment=f"Samples without a key refused {_COUNTED}"),
    Column(
        "unscored",
        BigId,
        nullable=False,
        comment=f"Change in waiting samples without a score {_COUNTED}",
    ),
    Column(
        "unscorable",
        BigId,
        nullable=False,
        comment=f"Change in waiting samples of weight 0 {_COUNTED}",
    ),
    Column(
        "measured",
        BigId,
        nullable=False,
        comment=f"Change in samples that have a reward {_COUNTED}",
    ),
    Column(
        "failed",
        BigId,
        nullable=False,
        comment=f"Change in samples whose measurement failed {_COUNTED}",
    ),
    Column(
        "tick",
        BigId,
        nullable=False,
        server_default=text("0"),
        comment="Logical time of its last transaction: more than that of any transaction it could see",
    ),
    Column(
        "finished_at",
        Timestamp,
        comment="When it closed the buffer (UTC); NULL while it is attached",
    ),
    Column(
        "touched",
        Double,
        nullable=False,
        server_default=text("0"),
        comment="Latest clock at which it let a sample join the race, or changed a weight",
    ),
)

predictors = Table(
    "predictors",
    metadata,
    _buffer_key(),
    Column("version", Integer, primary_key=True, comment="Score version from which it is in force"),
    Column("iteration", Integer, nullable=False, comment="Batches settled when it was trained"),
    Column("state", LargeBinary, nullable=False, comment="Its weights, as safetensors"),
    Column("rows_trained", Integer, nullable=False, comment="Labelled samples it was trained on"),
    Column("train_loss", Double, comment="Loss on the training rows"),
    Column("valid_loss", Double, comment="Loss on the held-out rows"),
    Column("metrics", Json, nullable=False, comment="Other measures of its training"),
    Column("trained_at", Timestamp, nullable=False, comment="When it was stored (UTC)"),
    Column("worker_id", Text, nullable=False, comment="The worker that trained it"),
    Column(
        "rows_held_out",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="Labelled samples it never saw, on which it was measured",
    ),
    Column(
        "rank_correlation",
        Double,
        comment="Spearman's, of predictions and rewards of the rows held out",
    ),
    Column("r2", Double, comment="Share of the variance of the held-out rewards that it explains"),
    Column(
        "trained_tick", BigId, comment="Logical time when it was stored; NULL: by an older release"
    ),
)

jobs = Table(
    "jobs",
    metadata,
    _buffer_key(),
    Column("name", Text, primary_key=True, comment="Name of the job"),
    Column("owner", Text, comment="The worker that runs it; NULL when nobody does"),
    Column("lease_until", Timestamp, comment="Until when the owner has it (UTC)"),
    Column("last_started_at", Timestamp, comment="When it last started (UTC)"),
    Column("last_finished_at", Timestamp, comment="When it last finished (UTC)"),
    Column("last_error", Text, comment="What went wrong the last time; NULL when nothing did"),
    Column(
        "runs",
        BigId,
        nullable=False,
        server_default=text("0"),
        comment="How often it was taken; the owner of an earlier run can store nothing any more",
    ),
    Column(
        "measured",
        BigId,
        nullable=False,
        server_default=text("0"),
        comment="Labelled samples there were when it last started",
    ),
    Column("schedule", Text, comment="When it is due, in words"),
    Column(
        "ended_run",
        BigId,
        comment="Run that came to an end last; NULL: none, or one of an older release",
    ),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _buffer_key(),
    Column("name", Text, primary_key=True, comment="What it is a checkpoint of"),
    Column(
        "iteration",
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="Batches settled when it was written",
    ),
    Column("data", LargeBinary, nullable=False, comment="The state"),
    Column("created_at", Timestamp, nullable=False, comment="When it was written (UTC)"),
)

metrics = Table(
    "metrics",
    metadata,
    _buffer_key(),
    Column(
        "iteration",
        Integer,
        primary_key=True,
        autoincrement=False,
        comment="Iteration that it measures, from 0",
    ),
    Column("name", Text, primary_key=True, comment="Name of the metric"),
    Column("value", Double, comment="Its value; NULL when not a number"),
    Column("recorded_at", Timestamp, nullable=False, comment="When it was recorded (UTC)"),
)

receipts = Table(
    "receipts",
    metadata,
    Column(
        "connection",
        Text,
        primary_key=True,
        comment="Random name of a connection to a server; none on SQLite",
    ),
    Column(
        "number", BigId, nullable=False, comment="Number of the last transaction that it committed"
    ),
    Column("written_at", Timestamp, nullable=False, comment="When that was (UTC)"),
)

lineage = Table(
    "lineage",
    metadata,
    Column(
        "id",
        Text,
        primary_key=True,
        comment="Random name of this database, given when it was created",
    ),
)
