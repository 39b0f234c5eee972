"""The hash of a sample: equal samples have equal canonical bytes and digests, other samples others.

The hashed bytes are a scheme version and the bytes of `canonical`, which has the rules.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from sqlbuffer.errors import InvalidArgument, UnsupportedType
from sqlbuffer.samples.canonical import encode
from sqlbuffer.samples.canonical_cbor import head
from sqlbuffer.samples.encoded import DIGEST_BYTES, SCHEME, hash_and_encode
from sqlbuffer.samples.errors import with_sample
from sqlbuffer.samples.registry import register

__all__ = ["SCHEME", "canonical_bytes", "digest", "digests", "register"]


def canonical_bytes(value: object) -> bytes:
    """Return the bytes that are hashed.

    Args:
        value: A string, number, bytes, None, tuple, list, dict, set, date, time, Decimal, Fraction,
            UUID, numpy array or scalar, torch tensor, named tuple, registered dataclass, enum or
            other class, or a nesting of these.

    Returns:
        The scheme version and deterministic CBOR.

    Raises:
        UnsupportedType: If the value, or a part of it, has a type without a canonical form.
        InvalidArgument: If the value nests too deep, contains itself, or is a Decimal with an
            exponent out of bounds.
    """
    return SCHEME + encode(value, 0)


def digest(value: object) -> bytes:
    """Return the hash of one sample: 16 bytes of BLAKE2b of its canonical bytes.

    Args:
        value: A supported sample.

    Returns:
        16 bytes, the same in every process, on every machine and in every release with the same
        `SCHEME`.

    Raises:
        UnsupportedType: As `canonical_bytes`.
        InvalidArgument: As `canonical_bytes`.
    """
    return blake2b(SCHEME + encode(value, 0), digest_size=DIGEST_BYTES).digest()


def digests(values: Iterable[object], numbers: Sequence[int] | None = None) -> list[bytes]:
    """Return the hashes of many samples; strings and samples of one structure take a faster path.

    Args:
        values: (n,) supported samples.
        numbers: (n,) numbers by which an error names the samples.

    Returns:
        (n,) digests of 16 bytes, in order.

    Raises:
        UnsupportedType: As `canonical_bytes`.
        InvalidArgument: As `canonical_bytes`.
    """
    values = list(values)
    if set(map(type, values)) == {str}:
        # A lone surrogate, or a string too long for the table.
        with contextlib.suppress(UnicodeEncodeError, IndexError):
            return [
                blake2b(_STR_HEADS[len(utf8)] + utf8, digest_size=DIGEST_BYTES).digest()
                for utf8 in map(str.encode, values)  # type: ignore[arg-type]
            ]
    if (hashed := hash_and_encode(values, is_hash_only=True)) is not None:
        return hashed.digests
    found: list[bytes] = []
    try:
        for value in values:
            found.append(digest(value))
    except (UnsupportedType, InvalidArgument) as exc:
        if numbers is None:
            raise
        raise with_sample(exc, numbers[len(found)], values[len(found)]) from exc
    return found


_STR_HEADS = tuple(SCHEME + head(3, size) for size in range(4096))
