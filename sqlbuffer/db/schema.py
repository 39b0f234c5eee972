"""The tables, as the code uses them; Alembic creates them (`migrations/`), a test compares the two.

The columns that change with every batch are in narrow tables next to the samples. `pool`, `draws`,
`samples` and `batches` have no foreign keys: on PostgreSQL each key would lock a parent row for
every child written, above all the row of the buffer. `SampleStore.check` audits the same rules.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from sqlbuffer.db import REVISION
from sqlbuffer.db.backends import CHURNED, CLUSTERED, BigId, Json, Timestamp
from sqlbuffer.db.draw_tables import batches, draws, measurements
from sqlbuffer.db.metadata import OF_BUFFER, metadata
from sqlbuffer.db.run_tables import (
    checkpoints,
    jobs,
    lineage,
    metrics,
    predictors,
    receipts,
    workers,
)

__all__ = [
    "REVISION",
    "batches",
    "buffers",
    "checkpoints",
    "draws",
    "jobs",
    "lineage",
    "measurements",
    "metadata",
    "metrics",
    "pool",
    "predictors",
    "receipts",
    "samples",
    "workers",
]

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
    Column(
        "direction",
        Text,
        nullable=False,
        server_default=text("'maximize'"),
        comment="maximize: a higher reward is better; minimize: a lower one",
    ),
    Column(
        "objective",
        Text,
        nullable=False,
        server_default=text("'reward'"),
        comment="Name of the reward function whose rewards the samples have",
    ),
    Column(
        "budget",
        BigId,
        comment="Most samples that may be measured, failed or claimed; NULL: any number",
    ),
    Column(
        "max_attempts",
        Integer,
        server_default=text("3"),
        comment="How often a worker may die while it measures a sample before the sample has "
        "failed; NULL: any number",
    ),
    Column(
        "evict",
        Text,
        nullable=False,
        server_default=text("'lightest'"),
        comment="Which samples leave beyond max_size: the lightest, or the oldest",
    ),
    Column(
        "keep_key",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="True if the key of each sample is stored with it",
    ),
    Column(
        "pruned_batch",
        BigId,
        comment="Draws of batches below this number were dropped; NULL: all are there",
    ),
    CheckConstraint("mode IN ('consume', 'replay')", name="mode"),
    comment="One row for each buffer, with its settings",
)

samples = Table(
    "samples",
    metadata,
    Column("id", BigId, primary_key=True, comment="Number of the sample"),
    Column("buffer_id", Integer, nullable=False, comment=OF_BUFFER),
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
    Column(
        "codec",
        Text,
        nullable=False,
        comment="How payload is encoded: text, cbor, or pickle, which is read with --allow-pickle "
        "only",
    ),
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
    Column(
        "error",
        Text,
        comment="Why the measurement failed; NULL if it has a reward, or was not measured",
    ),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default=text("0"),
        comment="Workers that have died while they measured it, and its failures under "
        'on_error="retry"',
    ),
    Column(
        "evicted",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="True if it left the pool because of max_size",
    ),
    Column("key", Text, comment="Its key, where the buffer keeps keys"),
    UniqueConstraint("buffer_id", "hash"),
    comment="One row for each distinct sample of a buffer, with its score and its reward",
)
pool = Table(
    "pool",
    metadata,
    Column("buffer_id", Integer, primary_key=True, autoincrement=False, comment=OF_BUFFER),
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
    comment="One row for each waiting sample, clustered by its place in the race",
    **CLUSTERED,
    **CHURNED,
)
