"""Puts away what garbage leaves behind: connections, and claims that no process can settle any more.

A finalizer may run at any moment, in any thread, in the middle of a transaction of the same store. So it neither takes
a lock nor writes: it hands the work to a thread, which is there for as long as there is work.
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
    """One thing to do, and the database that it is done in."""

    do: Callable[[], object]
    database: str | None


POLL_S = 0.002

PATIENCE_S = 2.0
"""How long the end of the process, and a fork, wait for work that is under way."""

log = logging.getLogger(__name__)

_work: deque[Work] = deque()  # whose `append` may interrupt an `append` of the same thread
_under_way: Work | None = None
_busy = threading.Lock()
"""Held while there is a thread, by that thread alone: what a signal handler raises in another one leaves it free."""
_forking = threading.local()


def later(do: Callable[[], object], *, database: str | None = None) -> None:
    """Have some work done soon, by a thread, in a database. Safe in a finalizer and in a signal handler."""
    _work.append(Work(do, database))
    _see_to_it()


def wait(timeout_s: float = PATIENCE_S, *, database: str | None = None) -> bool:
    """Wait until all work is done, or that in a database; return False if it takes longer."""
    end = time.monotonic() + timeout_s
    while _is_left(database):
        if not _see_to_it() or time.monotonic() >= end:
            return False
        time.sleep(POLL_S)
    return True


def _is_left(database: str | None) -> bool:
    if database is None:
        return _busy.locked() or bool(_work)
    if not _work and _under_way is None:
        return False
    # A copy, which is one step for other threads. Work that is about to be done is in the queue until it is under way.
    return any(
        work is not None and work.database == database for work in (*_work.copy(), _under_way)
    )


def _see_to_it() -> bool:
    """Start a thread that does the work, unless there is one; return False where none can be started."""
    if not _busy.locked():  # any process that holds it looks for work once more after letting go
        try:
            # Not a `threading.Thread`, whose start takes a lock that the interrupted code may hold.
            _thread.start_new_thread(_begin, ())
        except (
            RuntimeError
        ):  # no more threads, or the process is ending: the next work, or the end, sees to it
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
        if not _work or not _busy.acquire(blocking=False):  # another thread has what came since
            return


def _do_all() -> None:
    global _under_way
    while _work:
        _under_way = _work[0]
        _work.popleft()  # by this thread alone
        try:
            _under_way.do()
        except Exception as exc:
            log.warning("a dropped object could not be released: %s", exc)
        finally:
            _under_way = None  # what it holds is not to wait for the next


def before_fork() -> None:
    """Let the thread come to its end: the child is to find no lock taken, of SQLAlchemy's or a driver's, for good."""
    _forking.holds = _busy.acquire(timeout=PATIENCE_S)


def _after_fork() -> None:
    if getattr(_forking, "holds", False):
        _busy.release()
        if _work:
            _see_to_it()


def _forget() -> None:
    """Begin again in a forked child, in which there is neither a thread nor work of its own."""
    global _work, _under_way, _busy
    _work, _under_way, _busy = deque(), None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=_after_fork, after_in_child=_forget)
atexit.register(wait)
