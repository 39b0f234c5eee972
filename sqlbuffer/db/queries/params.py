"""Parts of many statements: columns of rows that travel with them, parameters and terms."""

from __future__ import annotations

import math
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Dialect, Rows
from sqlbuffer.db.backends.json_values import JSON_KINDS, json_kind
from sqlbuffer.db.schema import batches, draws, measurements, pool, samples, workers

INCOMING_SAMPLES = Rows(
    "incoming_samples",
    (
        ("hash", sa.LargeBinary()),
        ("text", sa.Text()),
        ("payload", sa.LargeBinary()),
        ("codec", sa.Text()),
        ("source", sa.Text()),
        ("meta", sa.Text()),
    ),
)
INCOMING_KEYED = Rows("incoming_keyed", (*INCOMING_SAMPLES.columns, ("key", sa.Text())))
"""`INCOMING_SAMPLES` of a buffer that keeps the key of each sample."""
INCOMING_HASHES = Rows("incoming_hashes", (("hash", sa.LargeBinary()),))
INCOMING_IDS = Rows("incoming_ids", (("sample_id", BigId),))
INCOMING_ATTEMPTS = Rows("incoming_attempts", (("sample_id", BigId), ("attempts", sa.Integer())))
INCOMING_KNOWN = Rows("incoming_known", (("sample_id", BigId), ("hash", sa.LargeBinary())))
INCOMING_SCORES = Rows(
    "incoming_scores", (("sample_id", BigId), ("hash", sa.LargeBinary()), ("score", sa.Double()))
)
INCOMING_SLOTS = Rows(
    "incoming_slots",
    (
        ("hash", sa.LargeBinary()),
        ("text", sa.Text()),
        ("payload", sa.LargeBinary()),
        ("codec", sa.Text()),
        ("key", sa.Text()),
        ("score", sa.Double()),
    ),
)
INCOMING_REWARDS = Rows(
    "incoming_rewards",
    (
        ("id", BigId),
        ("hash", sa.LargeBinary()),
        ("reward", sa.Double()),
        ("error", sa.Text()),
    ),
)
INCOMING_MEASUREMENTS = Rows(
    "incoming_measurements",
    (
        ("sample_id", BigId),
        ("reward", sa.Double()),
        ("error", sa.Text()),
        ("seconds", sa.Double()),
        ("details", sa.Text()),
    ),
)
INCOMING_ENTRIES = Rows(
    "incoming_entries",
    (
        ("sample_id", BigId),
        ("race_key", sa.Double()),
        ("weight", sa.Double()),
        ("score", sa.Double()),
        ("top", sa.Boolean()),
        ("entries", BigId),
    ),
)
INCOMING_PLACES = Rows("incoming_places", (("sample_id", BigId), ("race_key", sa.Double())))
INCOMING_KEYS = Rows(
    "incoming_keys",
    (
        ("sample_id", BigId),
        ("old_key", sa.Double()),
        ("old_weight", sa.Double()),
        ("race_key", sa.Double()),
        ("weight", sa.Double()),
        ("score", sa.Double()),
        ("top", sa.Boolean()),
        ("entries", BigId),
    ),
)
INCOMING_STANDS = Rows(
    "incoming_stands", (("sample_id", BigId), ("old_key", sa.Double()), ("race_key", sa.Double()))
)
INCOMING_DRAWN = Rows(
    "incoming_drawn",
    (
        ("batch", BigId),
        ("position", sa.Integer()),
        ("old_key", sa.Double()),
        ("race_key", sa.Double()),
    ),
)
INCOMING_DRAWS = Rows(
    "incoming_draws",
    (
        ("position", sa.Integer()),
        ("sample_id", BigId),
        ("race_key", sa.Double()),
        ("weight", sa.Double()),
    ),
)
INCOMING_METRICS = Rows("incoming_metrics", (("metric", sa.Text()), ("number", sa.Double())))

NEVER = sa.literal(math.inf, sa.Double)
"""The race key of samples without a weight: they never arrive."""

KEYLESS: tuple[Any, ...] = (
    samples.c.id.label("sample_id"),
    NEVER.label("race_key"),
    sa.null().label("weight"),
    samples.c.score,
    samples.c.scored_at.is_not(None).label("scored"),
    samples.c.hash,
    samples.c.requeues,
)
"""Samples that have no key in the race, in the columns of `batches.draws_of_batch`."""

BUFFER: sa.BindParameter[int] = bindparam("buffer", type_=sa.Integer)
"""The buffer's id."""

NO_BUFFER = 0
"""Value of `samples.buffer_id` in a row that only keeps its id from being given again."""

TICK: sa.BindParameter[int] = bindparam("tick", type_=BigId)
"""The logical time of the transaction."""

NEXT_TICK = sa.func.coalesce(sa.func.max(workers.c.tick), 0) + 1
"""A tick later than all of the buffer that the statement can see; select it from `workers`."""


LATER_THAN_ALL = select(NEXT_TICK.label("tick")).where(workers.c.buffer_id == BUFFER)
"""`NEXT_TICK` as a statement."""

CONTENT = (samples.c.text, samples.c.payload, samples.c.codec)
"""The columns from which a sample is decoded."""

TIE: sa.ColumnElement[bytes] = sa.func.substr(samples.c.hash, 9, type_=sa.LargeBinary())
"""The bytes of a sample's hash that order equal keys, weights, rewards or scores (`race.TIE`)."""


def tie_of(
    top: sa.ColumnElement[bool], sample_id: sa.ColumnElement[int]
) -> sa.ColumnElement[bytes | None]:
    """The value of `pool.tie`: `TIE` of a top sample; others save the bytes and the lookup."""
    found = select(TIE.label("tie")).where(samples.c.id == sample_id).correlate_except(samples)
    return sa.case((top, found.scalar_subquery()))


IS_OPEN = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
"""The condition of an open batch, which is neither settled nor released."""

# The worker makes SQLite use the index of open batches: others have all batches of the buffer.
OPEN_HERE = sa.and_(batches.c.buffer_id == BUFFER, IS_OPEN, batches.c.worker_id > "")
"""The condition of an open batch of this buffer."""

IS_RELEASED = batches.c.released_at.is_not(None)
"""The condition of a released batch, as in its index."""

TRY, TRIES = "failed_try", "failed_tries"
"""Keys of the details of a measurement: the number of a try, and of those after which it failed."""


def n_in_details(key: str) -> sa.ColumnElement[int]:
    """The number in the details of a measurement; NULL if there is none, 0 if it is too large."""
    number = measurements.c.details[key].as_float()
    n = sa.case((number.between(0, 2**31 - 1), sa.cast(number, sa.Integer)), else_=0)
    return sa.case((_has_number(key), n))


def _has_number(key: str) -> sa.ColumnElement[bool]:
    return json_kind(measurements.c.details, key).in_(JSON_KINDS[float])


IS_TRY = sa.func.coalesce(_has_number(TRY), sa.false())
"""A measurement is a try that failed and did not end the measurement of its sample."""

STANDING = select(pool.c.sample_id, pool.c.race_key, pool.c.weight, pool.c.score, pool.c.entries)
"""The keys and weights of samples in the pool."""


_MOST_SUMMED = 1e290


def total(numbers: sa.ColumnElement[float]) -> sa.Function[float]:
    """The sum of numbers, each counted as 1e290 at most: more of them might overflow.

    PostgreSQL ends a statement whose sum overflows.
    """
    return sa.func.sum(_summable(numbers))


def mean(numbers: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    """The mean of numbers, each counted as 1e290 at most.

    PostgreSQL's `avg` overflows from 1e155 on, because it adds squares too.
    """
    return total(numbers) / sa.func.nullif(sa.func.count(numbers), 0)


def _summable(numbers: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    most = sa.literal(_MOST_SUMMED, sa.Double)
    return sa.case((numbers > most, most), (numbers < -most, -most), else_=numbers)


def draws_of_samples(dialect: Dialect) -> sa.ColumnElement[bool]:
    """The condition of the draws of a batch whose samples travel with the statement.

    A subquery, for which a batch is read once. In a join SQLite reads it once for each sample: the
    key of a draw is its position.
    """
    incoming = dialect.relation(INCOMING_IDS)
    of_batch = draws.c.batch_id == bindparam("batch", type_=BigId)
    return sa.and_(of_batch, draws.c.sample_id.in_(select(incoming.c.sample_id)))
