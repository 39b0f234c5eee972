"""The indices that TorchRL gives, as lists of slots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sqlbuffer._messages import shown
from sqlbuffer.errors import InvalidArgument


def is_single(index: Any) -> bool:
    """Tell whether an index names one slot, not a list of one."""
    if isinstance(index, (torch.Tensor, np.ndarray)):
        return index.ndim == 0 and index.dtype not in (torch.bool, np.dtype(bool))
    return isinstance(index, (int, np.integer)) and not isinstance(index, bool)


def as_slots(index: Any, length: int, *, last: int | None = None) -> list[int]:
    """Return the slots that an index names; a negative number counts from the end.

    Args:
        index: An integer, or a slice, range, list, array or tensor of integers, or of booleans.
        length: Number of written slots.
        last: Largest slot that may be named; by default the last written one.

    Raises:
        IndexError: If a number is out of range.
        InvalidArgument: If it is no index.
    """
    if isinstance(index, slice):
        return list(range(*index.indices(length)))
    if isinstance(index, tuple) and len(index) == 1:
        return as_slots(index[0], length, last=last)
    numbers = _numbers(index)
    least, most = -length, length - 1 if last is None else last
    for number in numbers:
        if not least <= number <= most:
            raise IndexError(f"slot {number} is out of range: the storage has {most + 1} slots.")
    return [number + length if number < 0 else number for number in numbers]


def _numbers(index: Any) -> list[int]:
    if isinstance(index, torch.Tensor):
        index = index.detach().cpu().numpy()
    found = np.asarray(index if isinstance(index, (np.ndarray, Sequence, range)) else [index])
    if found.dtype == bool and found.ndim == 1:
        found = np.flatnonzero(found)
    if found.ndim == 2 and found.shape[1] == 1:  # TorchRL's form of an index in one dimension
        found = found[:, 0]
    if not found.size:
        return []
    if found.ndim > 1 or not np.issubdtype(found.dtype, np.integer):
        raise InvalidArgument(
            f"an index is an integer, or a slice or list of integers, got {shown(index)}."
        )
    return [int(number) for number in found.reshape(-1).tolist()]
