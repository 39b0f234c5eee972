"""The tables of runs: workers, predictors, jobs, checkpoints, metrics; receipts and lineage."""

from __future__ import annotations

from sqlalchemy import Column, Double, Integer, LargeBinary, Table, Text, text

from sqlbuffer.db.backends import BigId, Json, Timestamp
from sqlbuffer.db.metadata import buffer_key, metadata

_COUNTED = "by this worker"

workers = Table(
    "workers",
    metadata,
    buffer_key(),
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
        comment="Logical time of its last transaction: more than that of any transaction it could "
        "see",
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
    comment="One row for each process attached to a buffer, with its counters",
)

predictors = Table(
    "predictors",
    metadata,
    buffer_key(),
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
    comment="One row for each trained state of the predictor",
)

jobs = Table(
    "jobs",
    metadata,
    buffer_key(),
    Column("name", Text, primary_key=True, comment="Name of the job"),
    Column("owner", Text, comment="The worker that runs it; NULL when none does"),
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
    comment="One row for each kind of work that one process does at a time",
)

checkpoints = Table(
    "checkpoints",
    metadata,
    buffer_key(),
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
    comment="One row for each checkpoint of a training loop",
)

metrics = Table(
    "metrics",
    metadata,
    buffer_key(),
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
    comment="One row for each metric of each iteration",
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
    comment="One row for each connection of a server, which proves its last commit",
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
    comment="The random name of this database",
)
