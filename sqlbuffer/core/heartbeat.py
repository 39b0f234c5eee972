"""Background thread that calls a function periodically and survives its errors."""

from __future__ import annotations

import atexit
import contextlib
import enum
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from sqlbuffer._messages import summary

INTERVAL_S = 10.0
"""Seconds between two beats; less if `grace_s` is short."""

PATIENCE_S = 5.0
"""Seconds for which `stop` and `fork` wait for a beat that is under way."""

EXIT_PATIENCE_S = 2.0
"""Seconds for which the exit of the process waits for the last beats."""

log = logging.getLogger(__name__)


class Occasion(enum.Enum):
    """The reason for a beat."""

    ALIVE = enum.auto()
    """The interval has passed."""
    CLOSED = enum.auto()
    """The last beat: the heartbeat was stopped or dropped."""
    EXIT = enum.auto()
    """The last beat: the process exits."""


Beat = Callable[[Occasion], None]
Beats = Callable[[], contextlib.AbstractContextManager[Beat]]
_Mailbox: TypeAlias = "queue.SimpleQueue[Occasion | None]"
"""Queue that ends a thread: with a last beat, or without (None) for a fork.

A finalizer may call its `put`.
"""


class _Thread(NamedTuple):
    """The thread of a heartbeat in one process."""

    thread: threading.Thread
    mailbox: _Mailbox
    dropped: weakref.finalize[[Any], Any]

    def end(self, occasion: Occasion | None) -> None:
        self.dropped.detach()
        self.mailbox.put(occasion)


class Heartbeat:
    """Calls a function periodically from `start` to `stop`, or until it is garbage.

    Args:
        beats: Called in the thread; returns a context manager that opens the resources of a beat
            and yields the function to call. It must hold no reference to the heartbeat or its
            owner, which would then never be garbage.
        interval_s: Seconds between two beats.
    """

    def __init__(self, beats: Beats | None = None, interval_s: float = INTERVAL_S) -> None:
        self._beats = beats
        self._interval_s = interval_s
        self._threads: dict[int, _Thread] = {}

    def __reduce__(self) -> Any:
        return Heartbeat, (self._beats, self._interval_s)  # a thread stays in its process

    def start(self) -> None:
        """Start the thread of this process, unless it runs; a forked child has its own thread."""
        if self._beats is None or os.getpid() in self._threads:
            return
        _beating.add(self)
        mailbox: _Mailbox = queue.SimpleQueue()
        # Without a reference to the heartbeat, which ends the thread when it is garbage.
        arguments = (self._beats, mailbox, self._interval_s)
        thread = threading.Thread(
            target=_run, args=arguments, name="sqlbuffer heartbeat", daemon=True
        )
        dropped = weakref.finalize(self, mailbox.put, Occasion.CLOSED)
        dropped.atexit = False  # `_before_exit` does more
        ours = _Thread(thread, mailbox, dropped)
        try:
            if self._threads.setdefault(os.getpid(), ours) is ours:  # no other thread was quicker
                _running[thread] = mailbox
                thread.start()
            else:
                dropped.detach()
        except BaseException:  # a signal handler may raise too: the next `start` tries again
            _running.pop(thread, None)
            if self._threads.get(os.getpid()) is ours:
                del self._threads[os.getpid()]
            ours.end(None)  # the thread may have been started
            raise

    def stop(self, *, patience_s: float = PATIENCE_S) -> None:
        """End the thread of this process after a last beat; wait up to `patience_s` for it."""
        _beating.discard(self)
        self._end(Occasion.CLOSED, patience_s)

    def pause(self) -> None:
        """End the thread without a last beat, until the next `start`."""
        self._end(None, PATIENCE_S)

    def _end(self, occasion: Occasion | None, patience_s: float) -> None:
        found = self._threads.pop(os.getpid(), None)
        if found is not None:
            found.end(occasion)
            if found.thread.is_alive():
                found.thread.join(patience_s)


def _run(beats: Beats, mailbox: _Mailbox, interval_s: float) -> None:
    try:
        with beats() as beat:
            occasion: Occasion | None = Occasion.ALIVE
            while occasion is Occasion.ALIVE:
                with contextlib.suppress(queue.Empty):
                    occasion = mailbox.get(timeout=interval_s)
                if occasion is not None:
                    _beat(beat, occasion)
    finally:
        _running.pop(threading.current_thread(), None)


def _beat(beat: Beat, occasion: Occasion) -> None:
    try:
        beat(occasion)
    except Exception as exc:  # lock, lost connection, full disk: the next beat may succeed
        log.warning("a heartbeat failed: %s", summary(exc))


_beating: weakref.WeakSet[Heartbeat] = weakref.WeakSet()
"""The heartbeats of this process with a thread, or with one before a fork."""

_running: dict[threading.Thread, _Mailbox] = {}
"""The threads of this process, including those of dropped heartbeats."""


def _join_all(patience_s: float) -> None:
    end = time.monotonic() + patience_s
    for thread in list(_running):
        if thread.is_alive():
            thread.join(max(end - time.monotonic(), 0.0))


def _before_fork() -> None:
    for heartbeat in list(_beating):
        heartbeat.pause()
    _join_all(PATIENCE_S)  # threads of stopped and dropped heartbeats


def _after_fork() -> None:
    for heartbeat in list(_beating):
        heartbeat.start()


def _in_child() -> None:
    _beating.clear()
    _running.clear()


# A lock that another thread holds during a fork stays locked in the child for good.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)


@atexit.register
def _before_exit() -> None:
    for mailbox in list(_running.values()):
        mailbox.put(Occasion.EXIT)
    _join_all(EXIT_PATIENCE_S)
