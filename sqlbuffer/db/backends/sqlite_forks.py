"""A process with open SQLite connections that forks.

A child would take the locks of its parent's connections for its own, and could close the files.
So a fork waits until no connection is open, and a child refuses files that were open anyway.
"""

from __future__ import annotations

import os
import threading
import weakref

from sqlbuffer.db.backends.sqlite_files import file_id, open_files
from sqlbuffer.db.backends.sqlite_lock import locks
from sqlbuffer.errors import DatabaseUnavailable

FORK_TAKES_S = 10.0
"""More than a fork waits for the transactions of other threads."""

may_open = threading.Event()
"""Not set while this process is about to fork. Read as an attribute: a child has another one."""
may_open.set()


class Passage:
    """A connection that is being opened or closed, for as long as a reference to this exists.

    Args:
        waits: True to wait first for a fork that is under way.
    """

    def __init__(self, *, waits: bool) -> None:
        _passages.add(self)
        if waits and not may_open.is_set():
            _passages.discard(self)
            may_open.wait(FORK_TAKES_S)
            _passages.add(self)


_passages: weakref.WeakSet[Passage] = weakref.WeakSet()


def hold_back() -> bool:
    """Block new connections until this process has forked; return True if some are still open."""
    may_open.clear()
    return len(_passages) > 0 or any(same.is_ours for same in list(open_files))


_inherited: set[tuple[int, int] | None] = set()
"""The files that a parent of this process had open when it forked."""


def require_not_inherited(file: str) -> None:
    """Refuse to open a file that SQLite takes for open already, with the locks of the parent.

    Raises:
        DatabaseUnavailable: If the parent had it open.
    """
    if _inherited and file_id(file) in _inherited:
        raise DatabaseUnavailable(
            f"{file} was open in the process from which this one was forked, in a transaction of "
            "another thread or by `store.connect()`, and SQLite can only open it again there: fork "
            'when no thread uses the store, or start processes by "spawn".'
        )


def _after_fork() -> None:
    """Forget the parent's connections: it may close them and give their names to other files."""
    global may_open
    may_open = threading.Event()  # the old one may be locked by a thread of the parent
    may_open.set()
    _passages.clear()
    _inherited.update(same.file_id for same in list(open_files))
    open_files.clear()
    for lock in list(locks):
        lock.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=lambda: may_open.set(), after_in_child=_after_fork)
