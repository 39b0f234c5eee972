"""Compares samples in the loop as the store compares them: by the hash of their keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlbuffer.samples.hashing import digests


class SampleKeys:
    """Hashes the keys of samples; hashes each object once between two calls of `forget`.

    Args:
        key: The `key` of the buffer; None if a sample is its own key.
    """

    def __init__(self, key: Callable[[Any], Any] | None) -> None:
        self._key = key
        self._hashed: dict[int, tuple[Any, bytes]] = {}

    def forget(self) -> None:
        """Drop the remembered hashes and the samples that they belong to."""
        self._hashed = {}

    def hashes(self, samples: Sequence[Any]) -> list[bytes]:
        """Return the hash of each sample's key; each object is hashed once: `key` may be slow."""
        new = [sample for sample in samples if id(sample) not in self._hashed]
        for sample, digest in zip(new, self._digests(new), strict=True):
            self._hashed[id(sample)] = sample, digest  # a sample kept alive keeps its id
        return [self._hashed[id(sample)][1] for sample in samples]

    def equal(self, first: Any, second: Any) -> bool:
        """Return whether two samples are one sample to the store."""
        if first is second or (type(first) is type(second) is str and first == second):
            return True
        one, other = self._digests([first, second])
        return one == other

    def _digests(self, samples: Sequence[Any]) -> list[bytes]:
        if self._key is None:
            return digests(samples)
        keys = [self._key(sample) for sample in samples]
        # A sample without a key equals only itself: the sample stands in for its key, and a prefix
        # keeps its hash apart from the hashes of keys.
        is_none = [key is None for key in keys]
        found = digests(
            [
                sample if none else key
                for sample, key, none in zip(samples, keys, is_none, strict=True)
            ]
        )
        return [
            b"invalid" + digest if none else digest
            for digest, none in zip(found, is_none, strict=True)
        ]
