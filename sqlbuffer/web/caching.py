"""Values that are read again only when they are some seconds old, by one thread at a time."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

MOST = 500
"""Most values that are kept; the oldest are dropped."""


class Cache:
    """Values by key, each for some seconds; threads that want the same one wait for the first."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._values: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._guard = threading.Lock()

    def get(self, key: Hashable, read: Callable[[], Any]) -> Any:
        """Return the value of a key, read if it is too old or not there."""
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            known = self._values.get(key)
            if known is not None and time.monotonic() - known[0] < self._keep_s:
                return known[1]
            value = read()
            with self._guard:
                self._values[key] = (time.monotonic(), value)
                self._values.move_to_end(key)
                while len(self._values) > MOST:
                    dropped, _ = self._values.popitem(last=False)
                    self._locks.pop(dropped, None)
            return value
