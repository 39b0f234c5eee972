"""Values that are read again only when they are some seconds old, by one thread at a time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

MOST = 500
"""Most values that are kept; the oldest are dropped."""

SHARE = 1 / 20
"""Largest share of the time that reading one value takes: a value that takes a second to read is
kept for 20, so that a page disturbs those who write as little at any size."""


class Cache:
    """Values by key, each for some seconds; threads that want the same one wait for the first."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, key: Hashable, read: Callable[[], Any], *, keep_s: float) -> Any:
        """Return the value of a key, read if it is too old or not there.

        Args:
            key: The key.
            read: Returns the value.
            keep_s: Seconds for which the value is kept at least.
        """
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            known = self._values.get(key)
            began = time.monotonic()
            if known is not None and began < known[0]:
                return known[1]
            value = read()
            ended = time.monotonic()
            until = ended + max(keep_s, (ended - began) / SHARE)
            with self._guard:
                self._values[key] = (until, value)
                self._values.move_to_end(key)
                while len(self._values) > MOST:
                    dropped, _ = self._values.popitem(last=False)
                    self._locks.pop(dropped, None)
            return value
