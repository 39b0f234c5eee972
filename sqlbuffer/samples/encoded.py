"""Samples hashed and encoded at once, in chunks that fit into the processor's cache."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlbuffer._validation import is_storable
from sqlbuffer.samples.column_parts import each_joined, joined
from sqlbuffer.samples.columns import FEW, encode_column
from sqlbuffer.samples.preview import MAX_LEVEL, finished

SCHEME = b"\x01"
"""First of the hashed bytes. Another number would split every stored buffer."""

DIGEST_BYTES = 16

FIRST_CHUNK, LARGEST_CHUNK = 64, 4_096
"""Samples in the first chunk, whose size is unknown, and the most samples in a chunk."""

CHUNK_BYTES = 2_000_000


class Encoded(NamedTuple):
    """Samples as columns.

    Attributes:
        texts: (n,) the string itself, or a readable rendering.
        payloads: (n,) None if the text is the whole sample.
        codecs: (n,) "text", "cbor" or "pickle".
    """

    texts: list[str]
    payloads: list[bytes | None]
    codecs: list[str]

    def at(self, positions: Sequence[int]) -> Encoded:
        """Return the samples at some positions."""
        texts, payloads, codecs = self
        return Encoded(
            [texts[i] for i in positions],
            [payloads[i] for i in positions],
            [codecs[i] for i in positions],
        )


class Hashed(NamedTuple):
    """Digests of n samples, and the samples as columns."""

    digests: list[bytes]
    encoded: Encoded


def hash_and_encode(values: Sequence[Any], *, is_hash_only: bool = False) -> Hashed | None:
    """Hash and encode samples by the structures that they share.

    Args:
        values: n samples.
        is_hash_only: Make no renderings.

    Returns:
        None if the samples are few or strings, or if one of them cannot be hashed and encoded: the
        functions for single samples then name it.
    """
    kinds = set(map(type, values))
    if len(values) < FEW or kinds == {str} or any(issubclass(k, str) for k in kinds - {str}):
        return None
    found = Hashed([], Encoded([], [], []))
    first, size = 0, FIRST_CHUNK
    try:
        while first < len(values):
            n_bytes = _add(found, list(values[first : first + size]), is_hash_only)
            first += size
            size = min(max(FEW, size * CHUNK_BYTES // max(n_bytes, 1)), LARGEST_CHUNK)
    except Exception:  # of an unsupported sample, or of a user's class
        return None
    return found


def _add(found: Hashed, values: list[Any], is_hash_only: bool) -> int:
    """Add the columns of a chunk; return the number of its bytes."""
    n = len(values)
    column = encode_column(values, 0, None if is_hash_only else MAX_LEVEL)
    n_bytes = 0
    for each in each_joined([SCHEME, *column.canonical], n, b""):
        n_bytes += len(each)
        found.digests.append(blake2b(each, digest_size=DIGEST_BYTES).digest())
    if is_hash_only:
        return n_bytes
    payloads: list[bytes | None] = list(joined(column.payload, n, b""))
    texts, codecs = finished(joined(column.text, n, "")), ["cbor"] * n
    if str in map(type, values):
        for i, value in enumerate(values):
            if type(value) is str and is_storable(value):
                texts[i], payloads[i], codecs[i] = value, None, "text"
    found.encoded.texts.extend(texts)
    found.encoded.payloads.extend(payloads)
    found.encoded.codecs.extend(codecs)
    return n_bytes
