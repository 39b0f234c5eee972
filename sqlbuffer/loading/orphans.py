"""The workers of a loader end soon after their parent was killed, so that their claims go back."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time

LOOK_S = 0.2
"""Seconds between two looks for the parent; torch's own workers look every five seconds."""

_watched: set[int] = set()
"""This process, if it watches its parent: a fork of it does not."""


def end_with_parent() -> None:
    """Let this process, a worker of a loader, end when its parent has ended."""
    parent = multiprocessing.parent_process()
    if parent is None or os.getpid() in _watched:
        return
    _watched.add(os.getpid())
    threading.Thread(target=_watch, args=(parent,), name="sqlbuffer parent", daemon=True).start()


def _watch(parent: multiprocessing.process.BaseProcess) -> None:
    # A fork that came later may hold the pipe by which `is_alive` knows a parent that forks, and a
    # process of a fork server has the server for its parent.
    is_fork = os.getppid() == parent.pid
    while parent.is_alive() and (not is_fork or os.getppid() == parent.pid):
        time.sleep(LOOK_S)
    os._exit(1)  # what it makes is lost anyway, and a transaction is rolled back
