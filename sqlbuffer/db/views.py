"""The views, as users may rely on them; Alembic creates them (`migrations/`), a test compares.

One name means one thing in all views: `sample` is the text, `sample_id` the number, `predictor` the
version, and a time ends with `_at`. A column that is renamed keeps its earlier name until 1.0. The
last column is the number of the buffer, by which PostgreSQL knows how many rows it has.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, Double, Integer, MetaData, Table, Text

from sqlbuffer.db.backends import BigId, Json, Timestamp

views = MetaData()
"""The views, in the order of the documentation; nothing creates tables from it."""


def _view(name: str, comment: str, *columns: Column[Any]) -> Table:
    number = Column("buffer_id", Integer, comment="Number of the buffer")
    return Table(name, views, *columns, number, comment=comment)


def _earlier(name: str, kind: Any, now: str) -> Column[Any]:
    """Return a column under its earlier name."""
    return Column(name, kind, comment=f"Same as {now}; accepted until 1.0")


buffer_overview = _view(
    "buffer_overview",
    "One row for each buffer: its settings, its counts and its best reward",
    Column("buffer", Text, comment="Name of the buffer"),
    Column("kind", Text, comment="Name of the weight function"),
    Column("mode", Text, comment="consume: a drawn sample leaves the pool; replay: it stays"),
    Column("direction", Text, comment="maximize: a higher reward is better; minimize: a lower one"),
    Column("objective", Text, comment="Name of the reward function"),
    Column("iteration", Integer, comment="Batches settled so far"),
    Column("waiting", BigId, comment="Samples in the pool"),
    Column("unscored", BigId, comment="Samples in the pool without a score"),
    Column(
        "unscorable", BigId, comment="Samples in the pool that are never drawn: their weight is 0"
    ),
    Column("stored", BigId, comment="Distinct samples stored so far"),
    Column("claimed", BigId, comment="Draws that are neither settled nor released"),
    Column("measured", BigId, comment="Distinct samples with a reward"),
    Column("failed", BigId, comment="Distinct samples whose measurement failed"),
    Column("best_reward", Double, comment="The highest reward, under minimize the lowest"),
    Column(
        "budget",
        BigId,
        comment="Most samples that may be measured, failed or claimed; NULL: any number",
    ),
    Column("budget_used", BigId, comment="Distinct samples that are measured, failed or claimed"),
    Column(
        "max_size",
        BigId,
        comment="Most samples that may wait once they are scored; NULL: any number",
    ),
    Column("score_version", Integer, comment="Version that the next scores get"),
    Column("created_at", Timestamp, comment="When it was created (UTC)"),
    Column("seen_at", Timestamp, comment="When one of its workers was last seen alive (UTC)"),
)

sample_overview = _view(
    "sample_overview",
    "One row for each sample: its state, its score and its reward",
    Column("buffer", Text, comment="Name of the buffer"),
    Column("sample_id", BigId, comment="Number of the sample"),
    Column("sample", Text, comment="The sample, or a readable rendering of it"),
    Column("key", Text, comment="Its key, where the buffer keeps keys"),
    Column("source", Text, comment="Name of the generator that added it first"),
    Column(
        "state",
        Text,
        comment="waiting, claimed, measured, failed, or out: removed, evicted, settled without a "
        "reward",
    ),
    Column("queued", Boolean, comment="True while it waits in the pool or in an open batch"),
    Column("requeues", Integer, comment="How often it was added again after it had left the pool"),
    Column(
        "score",
        Double,
        comment="Newest prediction for it; NULL when not scored, or when it was not finite",
    ),
    Column("score_version", Integer, comment="Version of the score; NULL when not scored"),
    Column(
        "predictor",
        Integer,
        comment="Version of the predictor that made the score; NULL if none was stored by then",
    ),
    Column(
        "reward",
        Double,
        comment="Measured reward; NULL when not measured, or when the measurement failed",
    ),
    Column(
        "error",
        Text,
        comment="Why the measurement failed; NULL if it has a reward, or was not measured",
    ),
    Column(
        "attempts",
        Integer,
        comment="Workers that have died while they measured it, and its failures under "
        'on_error="retry"',
    ),
    Column("meta", Json, comment="What the user said about it, as JSON"),
    Column(
        "created_iteration", Integer, comment="Iteration of the buffer when it was first stored"
    ),
    Column("created_at", Timestamp, comment="When it was first stored (UTC)"),
    Column("scored_at", Timestamp, comment="When it was scored (UTC)"),
    Column("measured_at", Timestamp, comment="When the reward, or the failure, was stored (UTC)"),
    _earlier("id", BigId, "sample_id"),
    _earlier("text", Text, "sample"),
    _earlier("rewarded_at", Timestamp, "measured_at"),
)

batch_overview = _view(
    "batch_overview",
    "One row for each batch: its state, its worker and its mean reward",
    Column("buffer", Text, comment="Name of the buffer"),
    Column("batch_id", BigId, comment="Number of the batch"),
    Column("iteration", Integer, comment="Iteration that it was drawn for, from 0"),
    Column("state", Text, comment="open, settled or released"),
    Column("size", Integer, comment="Samples in it"),
    Column(
        "n_argmax",
        Integer,
        comment="Samples of its argmax share, which come first; NULL: by an older release",
    ),
    Column("mean_reward", Double, comment="Mean of the rewards that its samples have now"),
    Column("worker_id", Text, comment="The worker that drew it"),
    Column("open_s", Double, comment="Seconds from the draw until it was closed, or until now"),
    Column("drawn_at", Timestamp, comment="When it was drawn (UTC)"),
    Column("settled_at", Timestamp, comment="When its rewards were stored (UTC)"),
    Column("released_at", Timestamp, comment="When its samples went back to the pool (UTC)"),
    Column(
        "lease_until",
        Timestamp,
        comment="Until when it stays claimed without its worker (UTC); NULL: while that lives",
    ),
    _earlier("id", BigId, "batch_id"),
)

draw_overview = _view(
    "draw_overview",
    "One row for each sample in each batch",
    Column("buffer", Text, comment="Name of the buffer"),
    Column("batch_id", BigId, comment="Number of the batch"),
    Column("iteration", Integer, comment="Iteration that the batch was drawn for, from 0"),
    Column("position", Integer, comment="Place in the batch, from 0"),
    Column("sample_id", BigId, comment="Number of the sample"),
    Column("sample", Text, comment="The sample, or a readable rendering of it"),
    Column("source", Text, comment="Name of the generator that added it first"),
    Column("state", Text, comment="open, settled or released"),
    Column("weight", Double, comment="Its weight when it was drawn"),
    Column(
        "score",
        Double,
        comment="Newest prediction for it; NULL when not scored, or when it was not finite",
    ),
    Column(
        "reward",
        Double,
        comment="Reward that the sample has now; NULL when not measured, or failed",
    ),
    Column("worker_id", Text, comment="The worker that drew it"),
    Column(
        "waited_s", Double, comment="Seconds from when the sample was first stored until this draw"
    ),
    Column("drawn_at", Timestamp, comment="When it was drawn (UTC)"),
    Column("started_at", Timestamp, comment="When its measurement was started (UTC)"),
    _earlier("text", Text, "sample"),
)

measurement_overview = _view(
    "measurement_overview",
    "One row for each measurement, also of samples that were measured several times",
    Column("buffer", Text, comment="Name of the buffer"),
    Column("measurement_id", BigId, comment="Number of the measurement"),
    Column("sample_id", BigId, comment="Number of the sample"),
    Column("sample", Text, comment="The sample, or a readable rendering of it"),
    Column("source", Text, comment="Name of the generator that added it first"),
    Column(
        "batch_id",
        BigId,
        comment="Number of the batch that it was drawn in; NULL: it was not drawn",
    ),
    Column(
        "iteration",
        Integer,
        comment="Iteration that the batch was drawn for, from 0; NULL: it was not drawn",
    ),
    Column("objective", Text, comment="Name of the reward function"),
    Column("reward", Double, comment="Measured reward; NULL if the measurement failed"),
    Column("error", Text, comment="Why the measurement failed; NULL if it did not"),
    Column("seconds", Double, comment="How long it took; NULL if it is not known"),
    Column("details", Json, comment="What else was measured, as JSON"),
    Column("worker_id", Text, comment="The worker that stored it"),
    Column("measured_at", Timestamp, comment="When it was stored (UTC)"),
    _earlier("id", BigId, "measurement_id"),
    _earlier("text", Text, "sample"),
)

failure_overview = _view(
    "failure_overview",
    "One row for each measurement that failed, also of samples that were measured later",
    Column("buffer", Text, comment="Name of the buffer"),
    Column("measurement_id", BigId, comment="Number of the measurement"),
    Column("sample_id", BigId, comment="Number of the sample"),
    Column("sample", Text, comment="The sample, or a readable rendering of it"),
    Column("source", Text, comment="Name of the generator that added it first"),
    Column(
        "batch_id",
        BigId,
        comment="Number of the batch that it was drawn in; NULL: it was not drawn",
    ),
    Column(
        "iteration",
        Integer,
        comment="Iteration that the batch was drawn for, from 0; NULL: it was not drawn",
    ),
    Column("objective", Text, comment="Name of the reward function"),
    Column(
        "reason", Text, comment="The error up to its first colon, such as the class of an exception"
    ),
    Column("error", Text, comment="Why the measurement failed"),
    Column("seconds", Double, comment="How long it took; NULL if it is not known"),
    Column(
        "attempts",
        Integer,
        comment="Workers that have died while they measured the sample, and its failures under "
        'on_error="retry"',
    ),
    Column(
        "sample_state",
        Text,
        comment="State of the sample now, as in sample_overview",
    ),
    Column("worker_id", Text, comment="The worker that stored it"),
    Column("measured_at", Timestamp, comment="When it was stored (UTC)"),
)

predictor_overview = _view(
    "predictor_overview",
    "One row for each version of the predictor, with its quality",
    Column("buffer", Text, comment="Name of the buffer"),
    Column("predictor", Integer, comment="Version of the predictor"),
    Column("iteration", Integer, comment="Batches settled when it was trained"),
    Column("rows_trained", Integer, comment="Labelled samples it was trained on"),
    Column(
        "rows_held_out", Integer, comment="Labelled samples it never saw, on which it was measured"
    ),
    Column("train_loss", Double, comment="Loss on the training rows"),
    Column("valid_loss", Double, comment="Loss on the rows by which the best epoch was chosen"),
    Column(
        "rank_correlation",
        Double,
        comment="Correlation of the ranks of predictions and rewards of the rows held out",
    ),
    Column("r2", Double, comment="Share of the variance of the held-out rewards that it explains"),
    Column("metrics", Json, comment="Other measures of its training, as JSON"),
    Column("size_bytes", Integer, comment="Size of its stored weights; 0 if they were dropped"),
    Column("worker_id", Text, comment="The worker that trained it"),
    Column("trained_at", Timestamp, comment="When it was stored (UTC)"),
)

worker_overview = _view(
    "worker_overview",
    "One row for each worker, and a ledger of each buffer that sums up those that are gone",
    Column("buffer", Text, comment="Name of the buffer"),
    Column(
        "worker_id",
        Text,
        comment="Host, pid and random letters; 'ledger' sums up the workers that are gone",
    ),
    Column("host", Text, comment="Host, boot and pid namespace in which the pid is unique"),
    Column("pid", Integer, comment="Process number"),
    Column("state", Text, comment="attached, closed or ledger"),
    Column("open_batches", BigId, comment="Batches that it holds"),
    Column("batches", Integer, comment="Batches drawn by it, those released taken off"),
    Column("iterations", Integer, comment="Batches settled by it as iterations of a loop"),
    Column("added", BigId, comment="Samples stored by it for the first time"),
    Column("recorded", BigId, comment="Samples stored by it with a reward, without waiting"),
    Column("requeued", BigId, comment="Samples put into the pool again by it"),
    Column("drawn", BigId, comment="Draws made by it"),
    Column("settled", BigId, comment="Draws settled by it"),
    Column("released", BigId, comment="Draws given back by it"),
    Column("removed", BigId, comment="Samples taken out of the pool without a draw by it"),
    Column("refused", BigId, comment="Samples without a key refused by it"),
    Column("measured", BigId, comment="Change in samples that have a reward by it"),
    Column("failed", BigId, comment="Change in samples whose measurement failed by it"),
    Column("silent_s", Double, comment="Seconds since it was seen alive"),
    Column("attached_at", Timestamp, comment="When it attached (UTC)"),
    Column("seen_at", Timestamp, comment="When it was last seen alive (UTC)"),
    Column(
        "finished_at",
        Timestamp,
        comment="When it closed the buffer (UTC); NULL while it is attached",
    ),
)
