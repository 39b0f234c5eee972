"""Types of arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from sqlbuffer._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Bools: TypeAlias = "NDArray[np.bool_]"
Floats: TypeAlias = "NDArray[np.float64]"
Ints: TypeAlias = "NDArray[np.int64]"
