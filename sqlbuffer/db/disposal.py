"""Closes and releases, in a thread, the connections and claims of objects that were garbage.

A finalizer may run at any moment, in any thread, in the middle of a transaction of the same store.
So it neither takes a lock nor writes: it gives the work to a thread, which lives while there is
work.
"""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class Work(NamedTuple):
    """A function to call, and the database that it works on."""

    do: Callable[[], object]
    database: str | None
    """None for a function that only closes connections which no other object refers to."""


POLL_S = 0.002

PATIENCE_S = 2.0
"""How long the end of the process, and a fork, wait for work."""

log = logging.getLogger(__name__)

_work: deque[Work] = deque()  # whose `append` may interrupt an `append` of the same thread
_under_way: Work | None = None
_busy = threading.Lock()
"""Held by the thread while it lives: an exception of a signal handler in another thread cannot
leave it locked."""
_forking = threading.local()


def later(do: Callable[[], object], *, database: str | None = None) -> None:
    """Call a function soon, in a thread. Safe in a finalizer and in a signal handler.

    Args:
        do: The function.
        database: The database that it works on, for `wait`; None if it only closes connections.
    """
    _work.append(Work(do, database))
    _ensure_thread()


def wait(timeout_s: float = PATIENCE_S, *, database: str | None = None) -> bool:
    """Wait until all work, or that on one database, is done; return False after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while _is_left(database):
        if not _ensure_thread() or time.monotonic() >= end:
            return False
        time.sleep(POLL_S)
    return True


def _is_left(database: str | None) -> bool:
    if database is None:
        return _busy.locked() or bool(_work)
    if not _work and _under_way is None:
        return False
    # A copy, which is one step for other threads. Work stays in the queue until it is under way.
    return any(
        work is not None and work.database == database for work in (*_work.copy(), _under_way)
    )


def _ensure_thread() -> bool:
    """Start a thread that does the work, unless there is one; return False if none can start."""
    if not _busy.locked():  # a thread that holds it looks for work again after releasing it
        try:
            # Not a `threading.Thread`, whose start takes a lock that the interrupted code may hold.
            _thread.start_new_thread(_begin, ())
        except RuntimeError:  # no more threads, or the process is ending: tried again later
            return False
    return True


def _begin() -> None:
    if _busy.acquire(blocking=False):
        try:
            threading.Thread(target=_do, name="sqlbuffer disposal", daemon=True).start()
        except RuntimeError:
            _busy.release()


def _do() -> None:
    while True:
        try:
            _do_all()
        finally:
            _busy.release()
        if not _work or not _busy.acquire(blocking=False):  # another thread does later work
            return


def _do_all() -> None:
    global _under_way
    while _work:
        _under_way = _work[0]
        _work.popleft()  # by the holder of `_busy` alone
        try:
            _attempt(_under_way)
        finally:
            _under_way = None  # its objects must not live until the next work


def _attempt(work: Work) -> None:
    try:
        work.do()
    except Exception as exc:
        log.warning("a dropped object could not be released: %s", exc)


def before_fork() -> None:
    """Wait for the thread to end: the child would inherit locks of SQLAlchemy or a driver."""
    _forking.holds = _busy.acquire(timeout=PATIENCE_S)
    close_before_fork()


def close_before_fork() -> None:
    """Close the connections that wait for the thread, which cannot begin before the fork.

    Work on a database waits for the thread: it could need a lock that the code around the fork
    holds.
    """
    if not getattr(_forking, "holds", False):
        return
    for _ in range(len(_work)):
        work = _work.popleft()
        if work.database is None:
            _attempt(work)
        else:
            _work.append(work)


def _after_fork() -> None:
    if getattr(_forking, "holds", False):
        _forking.holds = False
        _busy.release()
        if _work:
            _ensure_thread()


def _forget() -> None:
    """Reset in a forked child, which has neither the thread nor work of its own."""
    global _work, _under_way, _busy
    _work, _under_way, _busy = deque(), None, threading.Lock()
    _forking.holds = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_after_fork, after_in_child=_forget)
atexit.register(wait)
