"""Workers: one row for each process that is attached to a buffer."""

from __future__ import annotations

import functools

import sqlalchemy as sa
from sqlalchemy import bindparam

from sqlbuffer.db.queries.params import BUFFER
from sqlbuffer.db.schema import workers

_PASSED: sa.BindParameter[float] = bindparam("passed", type_=sa.Double)
_NEW_CLOCK: sa.BindParameter[float] = bindparam("new_clock", type_=sa.Double)


@functools.cache
def turn_back_clocks() -> sa.Update:
    """Set the clock of every worker to 0, `passed` being the clock of the race before."""
    this = sa.update(workers).where(workers.c.buffer_id == BUFFER)
    return this.values(clock=0.0, touched=workers.c.touched - _PASSED)


@functools.cache
def take_back_clock() -> sa.Update:
    """Set the clock of each worker that is beyond `new_clock` to it."""
    beyond = sa.update(workers).where(workers.c.buffer_id == BUFFER, workers.c.clock > _NEW_CLOCK)
    return beyond.values(clock=_NEW_CLOCK)
