"""Closes connections before this process forks: a child must not find open ones."""

from __future__ import annotations

import gc
import os
import time
import weakref
from typing import Protocol

from sqlbuffer.db import disposal
from sqlbuffer.db.backends import Dialect

FORK_PATIENCE_S = 5.0
"""How long a fork waits for the transactions of other threads."""
_LONGER_THAN_A_TRANSACTION_S = 0.1


class _Opened(Protocol):
    dialect: Dialect

    def close_idle(self) -> None: ...

    def __hash__(self) -> int: ...


databases: weakref.WeakSet[_Opened] = weakref.WeakSet()
"""All databases that this process has opened."""


def _before_fork() -> None:
    """Close the connections that a child must not find; the next use opens new ones."""
    disposal.before_fork()
    begun = time.monotonic()
    is_collected = False
    while open_ones := [each for each in list(databases) if not each.dialect.may_fork()]:
        for database in open_ones:
            database.close_idle()
        passed_s = time.monotonic() - begun
        if passed_s > FORK_PATIENCE_S:
            return
        if passed_s > _LONGER_THAN_A_TRANSACTION_S and not is_collected:
            gc.collect()  # a thread that waited at a replaced pool has left a connection in it
            is_collected = True
        time.sleep(0.001)
        disposal.close_before_fork()  # a database that was dropped since is not among `databases`


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork)
