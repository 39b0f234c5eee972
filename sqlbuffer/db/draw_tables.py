"""The tables of draws: batches, the draws in them, and measurements."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Double, Integer, Table, Text, false

from sqlbuffer.db.backends import CLUSTERED, BigId, Json, Timestamp
from sqlbuffer.db.metadata import OF_BUFFER, metadata

batches = Table(
    "batches",
    metadata,
    Column("id", BigId, primary_key=True, comment="Number of the batch"),
    Column("buffer_id", Integer, nullable=False, comment=OF_BUFFER),
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
    Column(
        "counts_attempts",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="True if the death of its worker is an attempt at each sample that was started",
    ),
    Column(
        "lease_until",
        Timestamp,
        comment="Until when it stays claimed without its worker (UTC); NULL: while that lives",
    ),
    Column("token", Text, comment="Token with which another process takes it up"),
    Column(
        "n_argmax",
        Integer,
        comment="Samples of its argmax share, which come first; NULL: by an older release",
    ),
    comment="One row for each claim of samples by one worker",
)

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
    Column("started_at", Timestamp, comment="When its measurement was started (UTC)"),
    comment="One row for each sample in each batch",
    **CLUSTERED,
)

measurements = Table(
    "measurements",
    metadata,
    Column("id", BigId, primary_key=True, comment="Number of the measurement"),
    Column("buffer_id", Integer, nullable=False, comment=OF_BUFFER),
    Column("sample_id", BigId, nullable=False, comment="The measured sample"),
    Column("batch_id", BigId, comment="The batch that it was drawn in; NULL: it was not drawn"),
    Column("worker_id", Text, nullable=False, comment="The worker that stored it"),
    Column("objective", Text, nullable=False, comment="Name of the reward function"),
    Column("reward", Double, comment="Measured reward; NULL if the measurement failed"),
    Column("error", Text, comment="Why the measurement failed; NULL if it did not"),
    Column("seconds", Double, comment="How long it took; NULL if it is not known"),
    Column("details", Json, comment="What else was measured"),
    Column("measured_at", Timestamp, nullable=False, comment="When it was stored (UTC)"),
    Column(
        "measured_tick",
        BigId,
        comment="Logical time when it was stored; NULL: by an older release",
    ),
    comment="One row for each reward, and each failure, that was stored",
)
