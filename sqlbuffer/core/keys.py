"""The keys of samples: samples with equal keys are one sample; a buffer may keep them as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.samples.codec import decode_all
from sqlbuffer.samples.hashing import digests
from sqlbuffer.samples.preview import as_texts


def keys_of(buffer: BufferHandle, samples: Sequence[Any]) -> list[Any]:
    """Return the key of each sample, of a buffer that keeps keys.

    Raises:
        InvalidArgument: If the buffer was opened without a key function.
    """
    if buffer.key is None:
        raise InvalidArgument(
            f"buffer {buffer.name!r} keeps the key of each sample, and was opened without a key "
            "function: give the same key= to open_store as the process that created the buffer."
        )
    return [buffer.key(sample) for sample in samples]


def hashes_of_keys(keys: Sequence[Any], *, start: int | None) -> list[bytes | None]:
    """Return the hash of each key, None for None.

    Raises:
        UnsupportedType: If a key has no hash; the error names its position from `start` on.
    """
    numbers = (
        None if start is None else [start + i for i, key in enumerate(keys) if key is not None]
    )
    found = iter(digests((key for key in keys if key is not None), numbers))
    return [None if key is None else next(found) for key in keys]


def stored_again(buffer: BufferHandle, known: Any, places: Sequence[int]) -> dict[str, list[Any]]:
    """Return the columns of samples that the database has lost, without their meta.

    Args:
        buffer: The buffer.
        known: Samples that this process has read (`rewards.Known`).
        places: Positions of the lost ones in `known`.
    """
    names = ("hash", "text", "payload", "codec", "source")
    columns = {name: [getattr(known, name)[i] for i in places] for name in names}
    columns["meta"] = [None] * len(places)
    if buffer.keep_key:
        encoded = columns["text"], columns["payload"], columns["codec"]
        found = decode_all(*encoded, allow_pickle=buffer.allow_pickle)
        columns["key"] = (
            [None] * len(places) if buffer.key is None else as_texts(keys_of(buffer, found))
        )
    return columns
