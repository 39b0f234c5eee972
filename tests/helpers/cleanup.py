"""Batches that a test keeps open, and the end of everything that it has dropped."""

import os
import time

from sqlbuffer.core import heartbeat
from sqlbuffer.core.batch import Batch
from sqlbuffer.db import disposal

_held: list[Batch] = []


def hold(batch: Batch) -> Batch:
    """Keep a batch until the test ends: one that is dropped would be released."""
    _held.append(batch)
    return batch


def wait_for_disposal() -> None:
    """Wait until what a test has dropped is put away: threads and connections of stores, claims of
    batches.
    """
    _held.clear()
    end = time.monotonic() + 120  # who waits for a server that is gone gives up after a minute
    while not disposal.wait(120) or is_ending():
        assert time.monotonic() < end, "something that was dropped is not put away"
        time.sleep(0.01)


def is_ending() -> bool:
    """Tell whether a heartbeat is giving its last beat."""
    mine = [beating._threads.get(os.getpid()) for beating in list(heartbeat._beating)]
    return not set(heartbeat._running) <= {each.thread for each in mine if each is not None}
