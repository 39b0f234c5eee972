"""A thread in the background that does something now and then, and that no error ends."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from sqlbuffer.errors import summary

INTERVAL_S = 10.0
"""Time between two beats, unless workers count as dead so soon that it must be less."""

PATIENCE_S = 5.0
"""How long `stop` and `fork` wait for a beat that is under way."""

Beat = Callable[[], None]

log = logging.getLogger(__name__)


class Heartbeat:
    """Beats while the process lives, from `start` to `stop`.

    Args:
        beats: Opens what a beat needs, in the thread, and returns a context that gives the function to call.
        interval_s: Seconds between two beats.
    """

    def __init__(
        self, beats: Callable[[], contextlib.AbstractContextManager[Beat]] | None = None, interval_s: float = INTERVAL_S
    ) -> None:
        self._beats = beats
        self._interval_s = interval_s
        self._threads: dict[int, tuple[threading.Thread, threading.Event]] = {}

    def __reduce__(self) -> Any:
        return Heartbeat, (self._beats, self._interval_s)  # a thread stays in its process

    def start(self) -> None:
        """Begin to beat in this process, unless it does already; a forked child has a thread of its own."""
        if self._beats is None or os.getpid() in self._threads:
            return
        _beating.add(self)
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(self._beats, stop), name="sqlbuffer heartbeat", daemon=True)
        if self._threads.setdefault(os.getpid(), (thread, stop))[0] is thread:  # no other thread was quicker
            thread.start()

    def stop(self) -> None:
        """End the beating in this process."""
        _beating.discard(self)
        self.pause()

    def pause(self) -> None:
        """Be without a thread until the next `start`."""
        thread, stop = self._threads.pop(os.getpid(), (None, None))
        if thread is not None and stop is not None:
            stop.set()
            if thread.is_alive():
                thread.join(PATIENCE_S)

    def _run(self, beats: Callable[[], contextlib.AbstractContextManager[Beat]], stop: threading.Event) -> None:
        with beats() as beat:
            while not stop.wait(self._interval_s):
                try:
                    beat()
                except Exception as exc:  # a lock, a lost connection, a full disk: the next beat may do
                    log.warning("a heartbeat failed: %s", summary(exc))


_beating: weakref.WeakSet[Heartbeat] = weakref.WeakSet()
"""The heartbeats of this process that have a thread, or had one before a fork."""


def _before_fork() -> None:
    for heartbeat in list(_beating):
        heartbeat.pause()


def _after_fork() -> None:
    for heartbeat in list(_beating):
        heartbeat.start()


# A child that is forked while another thread holds a lock finds it locked for good: there is no other thread then.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_beating.clear)
