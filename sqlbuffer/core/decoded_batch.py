"""The samples of a batch: one by one, or stacked."""

from __future__ import annotations

from typing import Any

from sqlbuffer._typing import Ints
from sqlbuffer.core.content import metas_of
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.samples.decoded import Decoded


class DecodedBatch:
    """Samples that were read from the database."""

    ids: Ints
    _buffer: BufferHandle
    _decoded: Decoded

    @property
    def samples(self) -> list[Any]:
        """The n samples: those of the argmax share first, then the others in the race's order.

        Examples:
            >>> batch = store.sample(3)
            >>> batch.samples
            ['C#N', 'CC=O', 'CCN']
        """
        return self._decoded.samples

    @property
    def meta(self) -> list[Any]:
        """N mappings, what `add` was told about each sample as `meta`; None for nothing.

        Examples:
            >>> store.add(["CCCCO"], meta={"vendor": "A"}).added
            1
            >>> store.score(lambda samples: [100.0])
            1
            >>> batch = store.sample(1, pct_argmax=1.0)
            >>> batch.meta
            [{'vendor': 'A'}]
        """
        return self._buffer.read(metas_of, self.ids.tolist())

    def stacked(self) -> Any:
        """Return all samples as one: their own container, with leaves of shape (n, ...).

        Dicts, lists, tuples, named tuples and dataclasses are containers. Integers become int64,
        floats float64, bools bool, and numbers of several types `np.result_type` of these. Arrays
        stay arrays and tensors tensors. Strings and other values become a list. The arrays are new
        at each call, and writable.

        Raises:
            StructureMismatch: If a sample has another structure than the first, such as other keys
                or an array of another shape; the error names its position.
            InvalidArgument: If the batch is empty, or an integer is beyond int64.

        Examples:
            >>> import numpy as np
            >>> steps = open_store("sqlite:///steps.db", weighting="uniform")
            >>> steps.add([{"obs": np.zeros(4) + i, "action": i} for i in range(3)]).added
            3
            >>> batch = steps.sample(3)
            >>> batch.stacked()["obs"].shape, batch.stacked()["action"].dtype
            ((3, 4), dtype('int64'))
        """
        return self._decoded.stacked()
