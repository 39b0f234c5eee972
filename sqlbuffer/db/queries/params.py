"""What statements have in common: the shapes of the rows that travel with them, and terms that many of them use."""

from __future__ import annotations

import math

import sqlalchemy as sa
from sqlalchemy import bindparam, select

from sqlbuffer.db.backends import BigId, Rows
from sqlbuffer.db.schema import batches, pool, samples, workers

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
INCOMING_HASHES = Rows("incoming_hashes", (("hash", sa.LargeBinary()),))
INCOMING_IDS = Rows("incoming_ids", (("sample_id", BigId),))
INCOMING_KNOWN = Rows("incoming_known", (("sample_id", BigId), ("hash", sa.LargeBinary())))
INCOMING_SCORES = Rows(
    "incoming_scores", (("sample_id", BigId), ("hash", sa.LargeBinary()), ("score", sa.Double()))
)
INCOMING_REWARDS = Rows(
    "incoming_rewards", (("id", BigId), ("hash", sa.LargeBinary()), ("reward", sa.Double()))
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

NEVER = sa.literal(math.inf, sa.Double)
"""The race key of what has no weight: it never arrives."""

BUFFER: sa.BindParameter[int] = bindparam("buffer", type_=sa.Integer)
"""The buffer's id."""

TICK: sa.BindParameter[int] = bindparam("tick", type_=BigId)
"""The logical time of the transaction."""

NEXT_TICK = sa.func.coalesce(sa.func.max(workers.c.tick), 0) + 1
"""Of the workers of a buffer: later than all that the statement can see."""


LATER_THAN_ALL = select(NEXT_TICK.label("tick")).where(workers.c.buffer_id == BUFFER)
"""The same by itself."""

CONTENT = (samples.c.text, samples.c.payload, samples.c.codec)
"""What a sample is decoded from."""

TIE: sa.ColumnElement[bytes] = sa.func.substr(samples.c.hash, 9, type_=sa.LargeBinary())
"""The bytes of a sample's hash that decide between equal keys, weights, rewards or scores (`race.TIE`)."""


def tie_of(
    top: sa.ColumnElement[bool], sample_id: sa.ColumnElement[int]
) -> sa.ColumnElement[bytes | None]:
    """What `pool.tie` is: `TIE` of what is marked as top. Nothing else pays for its bytes, or looks its hash up."""
    found = select(TIE.label("tie")).where(samples.c.id == sample_id).correlate_except(samples)
    return sa.case((top, found.scalar_subquery()))


IS_OPEN = sa.and_(batches.c.settled_at.is_(None), batches.c.released_at.is_(None))
"""The condition of an open batch, which is neither settled nor released."""

STANDING = select(pool.c.sample_id, pool.c.race_key, pool.c.weight, pool.c.score, pool.c.entries)
"""Where samples stand in the race."""
