"""The pool as a list to read, assign and filter by position, as callbacks of MRL do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sqlbuffer._validation import as_list, as_mask, is_share
from sqlbuffer.errors import InvalidArgument

if TYPE_CHECKING:
    from sqlbuffer.core.read import Waiting
    from sqlbuffer.store import SampleStore


class WaitingList:
    """All waiting samples of a store, in the order in which they were stored.

    A callback reads the list, assigns it in a standard form with None for an invalid sample, reads
    it again, and filters it. Positions refer to the list as last read, even if other processes have
    drawn samples since. The pool is read again only if it has changed, scores included, and only
    items that differ are written.

    Args:
        store: The store.
        equal: Returns whether two samples are one sample to the store.
    """

    def __init__(self, store: SampleStore, equal: Callable[[Any, Any], bool]) -> None:
        self._store = store
        self._equal = equal
        self._seen: tuple[Any, ...] | None = None
        self._waiting: Waiting | None = None
        self._assigned: list[Any] | None = None

    def read(self) -> Waiting:
        """Return the waiting samples; positions refer to this list until the next read."""
        changes = self._store._changes()
        if self._waiting is None or (self._assigned is None and self._seen != changes):
            self._seen, self._waiting = changes, self._store.waiting()
        return self._waiting

    def items(self) -> list[Any]:
        """Return the samples, in their assigned form if there is one."""
        waiting = self.read()
        return list(waiting.samples if self._assigned is None else self._assigned)

    def assign(self, items: Sequence[Any]) -> None:
        """Set the assigned form, for `filter` or `flush` to write; [] empties the pool."""
        waiting = self.read() if self._waiting is None else self._waiting
        n, items = len(waiting.ids), as_list(items, "the list assigned to the buffer")
        if len(items) not in (0, n):
            raise InvalidArgument(
                f"{n} samples wait, but {len(items)} were assigned: assign one for each, None for "
                "an invalid sample."
            )
        self._assigned = items or [None] * n
        if not items:
            self.flush()

    def filter(self, valids: ArrayLike) -> None:
        """Write the assigned form of samples whose `valids` is true; others leave the pool."""
        waiting = self.read() if self._waiting is None else self._waiting
        n = len(waiting.ids)
        keep = as_mask(valids, n, f"{n} samples wait: valids must have a bool for each")
        items = waiting.samples if self._assigned is None else self._assigned
        pairs = zip(waiting.samples, items, strict=True)
        changed = [i for i, (old, new) in enumerate(pairs) if keep[i] and not self._equal(old, new)]
        if not keep.all():
            self._store._remove_known(waiting, np.flatnonzero(~keep).tolist())
        if changed:
            self._store._replace_known(waiting, changed, [items[i] for i in changed])
        # Only now, after both writes: if one fails, the next call repeats it.
        self._assigned = None
        if changed or not keep.all():
            self._waiting = None

    def flush(self) -> None:
        """Write the assigned form; samples that became None leave the pool."""
        if self._assigned is not None:
            self.filter([item is not None for item in self._assigned])

    def renew(self) -> None:
        """Write the assigned form and read the list again: the pool is about to change."""
        self.flush()
        self._waiting = None


def flat(item: Any) -> list[Any]:
    """Return the items of a list or Series and of lists in it; another object is one item."""
    if hasattr(item, "iloc"):  # pandas; `as_list` refuses a table
        return as_list(item)
    if type(item) is not list:
        return [item]
    if not any(type(part) is list for part in item):
        return item
    return [leaf for part in item for leaf in flat(part)]


def is_part(share: float) -> bool:
    """Tell whether a number is a share of a batch, or -1 for everything."""
    return share == -1.0 or is_share(share)


def from_buffer(sources: Sequence[str]) -> list[str]:
    """Return sources as batches name them: each ends in `_buffer`."""
    return [source if source.endswith("_buffer") else f"{source}_buffer" for source in sources]
