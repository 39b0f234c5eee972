"""Stored samples, decoded when they are read, or stacked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlbuffer.samples.codec import decode_all
from sqlbuffer.samples.payload_plan import Columns, columns_of
from sqlbuffer.samples.stacking import stack

_FEW = 4
"""Fewer samples are decoded at once."""


class Decoded:
    """n stored samples, all of which can be decoded.

    Samples of one structure are decoded when they are read first. The first of them is decoded at
    once, and the others have the same bytes except for numbers, texts and elements of arrays.
    """

    def __init__(
        self,
        texts: Sequence[str],
        payloads: Sequence[bytes | None],
        codecs: Sequence[str],
        *,
        allow_pickle: bool,
    ) -> None:
        """Read the samples as far as necessary.

        Raises:
            InvalidPayload: As `decode_all`.
        """
        self._n = len(texts)
        self._samples: list[Any] | None = None
        self._columns: Columns | None = None
        self._stored = texts, payloads, codecs
        kinds = set(codecs)  # 30 us for 512
        if kinds == {"text"}:
            self._samples, self._stored = list(texts), ((), (), ())
            return
        if len(texts) >= _FEW and kinds == {"cbor"} and None not in payloads:
            decode_all(texts[:1], payloads[:1], codecs[:1])
            self._columns = columns_of(payloads)  # type: ignore[arg-type]
        if self._columns is None:
            self._decode(allow_pickle=allow_pickle)

    def __len__(self) -> int:
        return self._n

    @property
    def samples(self) -> list[Any]:
        """The n samples, the same objects at each reading."""
        return self._decode() if self._samples is None else self._samples

    def _decode(self, *, allow_pickle: bool = False) -> list[Any]:
        self._samples = decode_all(*self._stored, allow_pickle=allow_pickle)
        self._stored = (), (), ()
        return self._samples

    def stacked(self) -> Any:
        """Return the container of the samples, with leaves of shape (n, ...).

        Raises:
            StructureMismatch: If a sample has another structure than the first.
            InvalidArgument: If there is no sample, or an integer is beyond int64.
        """
        if self._columns is not None:
            try:
                return self._columns.stacked()
            except OverflowError:
                pass  # the other way names the sample
        return stack(self.samples)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the samples themselves: the reader may not have registered their classes."""
        return {"_n": self._n, "_samples": self.samples, "_columns": None, "_stored": ((), (), ())}
