"""A writer whose cursor is in the database: processes that write to one storage share it."""

from __future__ import annotations

from typing import Any

import torch
from torchrl.data.replay_buffers.writers import Writer


class SqlWriter(Writer):
    """Writes round-robin from the cursor of a `SqlStorage`.

    A replay buffer on a `SqlStorage` gets one in the place of TorchRL's writer, whose cursor is in
    the memory of one process.
    """

    def __init__(self) -> None:
        super().__init__()

    def __repr__(self) -> str:
        return f"SqlWriter(cursor={self._cursor}, full_storage={self._storage._is_full})"

    def add(self, data: Any) -> int:
        """Write one element, and return its slot."""
        (slot,) = self._storage.append_one(data)
        self._mark_updated(slot)
        return int(slot)

    def extend(self, data: Any) -> torch.Tensor:
        """Write elements in one transaction, and return their slots."""
        slots = torch.tensor(
            self._storage.append(data), dtype=torch.long, device=getattr(data, "device", None)
        )
        self._mark_updated(slots)
        return slots

    def _mark_updated(self, index: int | torch.Tensor) -> None:
        """Tell the samplers of other buffers on this storage."""
        for buffer in self._storage._attached_entities_iter():
            buffer.mark_update(index)

    @property
    def _cursor(self) -> int:
        return int(self._storage.slots.cursor.slot)

    @property
    def _write_count(self) -> int:
        return int(self._storage.slots.cursor.writes)

    def _empty(self, empty_write_count: bool = True) -> None:
        """Empty the storage; TorchRL calls its `_empty`, too."""
        self._storage.slots.empty(writes=0 if empty_write_count else None)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the storage has the cursor."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the storage has the cursor."""

    def dumps(self, path: Any) -> None:
        """Do nothing: the storage has the cursor."""

    def loads(self, path: Any) -> None:
        """Do nothing: the storage has the cursor."""
