"""Samples to the columns text, payload and codec of the database, and back, with their exact type.

A string is stored as `text` alone. Every other sample is CBOR in `payload`, with a readable
rendering in `text`; so are strings with NUL or a lone surrogate, which no database takes as text.
`payload_writer` and `payload_reader` have the format.

A decoded sample equals the encoded one and has its type, with these exceptions: an unregistered
subclass of a built-in type becomes that type, a datetime with a named zone keeps the offset of the
zone at that time, an array is in native byte order and C order, a tensor is dense, on the CPU and
without gradient.

Pickle is used only if the user allows it, because unpickling runs code from the database.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence

import cbor2

from sqlbuffer._validation import is_storable
from sqlbuffer.errors import InvalidArgument, InvalidPayload, UnsupportedType
from sqlbuffer.samples.encoded import Encoded, hash_and_encode
from sqlbuffer.samples.errors import with_sample
from sqlbuffer.samples.payload_reader import from_cbor
from sqlbuffer.samples.payload_writer import to_cbor
from sqlbuffer.samples.preview import render

__all__ = ["Encoded", "decode_all", "encode_all"]


def encode_all(
    values: Iterable[object], *, allow_pickle: bool = False, numbers: Sequence[int] | None = None
) -> Encoded:
    """Encode samples as columns.

    Args:
        values: (n,) samples.
        allow_pickle: Pickle a sample of an unsupported type, instead of refusing it.
        numbers: (n,) numbers by which an error names the samples.

    Returns:
        Three columns of length n, in order.

    Raises:
        UnsupportedType: If a sample, or a part of it, has a type that is neither supported nor
            registered.
        InvalidArgument: If a sample nests too deep, contains itself, or would take too long to
            read.
    """
    texts = list(values)
    if set(map(type, texts)) == {str} and is_storable("".join(texts)):  # type: ignore[arg-type]
        return Encoded(texts, [None] * len(texts), ["text"] * len(texts))  # type: ignore[arg-type]
    if (hashed := hash_and_encode(texts)) is not None:
        return hashed.encoded
    rows: list[tuple[str, bytes | None, str]] = []
    try:
        for value in texts:
            if type(value) is str and is_storable(value):
                rows.append((value, None, "text"))
            else:
                rows.append(_encode(value, allow_pickle=allow_pickle))
    except (UnsupportedType, InvalidArgument) as exc:
        if numbers is None:
            raise
        raise with_sample(exc, numbers[len(rows)], texts[len(rows)]) from exc
    return Encoded(
        [text for text, _, _ in rows],
        [payload for _, payload, _ in rows],
        [codec for _, _, codec in rows],
    )


def decode_all(
    texts: Sequence[str],
    payloads: Sequence[bytes | None],
    codecs: Sequence[str],
    *,
    allow_pickle: bool = False,
) -> list[object]:
    """Decode stored samples.

    Args:
        texts: (n,) strings.
        payloads: (n,) bytes, None if the text is the whole sample.
        codecs: (n,) "text", "cbor" or "pickle".
        allow_pickle: Unpickle pickled samples. Any process that can write to the database can then
            run code here.

    Returns:
        (n,) samples, in order.

    Raises:
        InvalidPayload: If a payload is missing, malformed, of an unknown codec or of a class that
            is not registered, or if it was pickled and `allow_pickle` is False.
    """
    if codecs.count("text") == len(texts):
        return list(texts)
    return [
        text if codec == "text" else _decode(payload, codec, allow_pickle=allow_pickle)
        for text, payload, codec in zip(texts, payloads, codecs, strict=True)
    ]


def _encode(value: object, *, allow_pickle: bool) -> tuple[str, bytes | None, str]:
    try:
        content = to_cbor(value, 0)
    except UnsupportedType:
        if not allow_pickle:
            raise
        return render(value), _pickled(value), "pickle"
    if type(content) is str and is_storable(content):
        return content, None, "text"
    return render(value), cbor2.dumps(content), "cbor"


def _decode(payload: bytes | None, codec: str, *, allow_pickle: bool) -> object:
    if codec not in ("cbor", "pickle"):
        raise InvalidPayload(f"unknown codec {codec!r}: the codecs are text, cbor and pickle")
    if payload is None:
        raise InvalidPayload(f"a sample of codec {codec} has no payload")
    if codec == "pickle" and not allow_pickle:
        raise InvalidPayload(
            "a sample was pickled: read it with allow_pickle=True if you trust the database"
        )
    try:
        return pickle.loads(payload) if codec == "pickle" else from_cbor(payload)
    except InvalidPayload:
        raise
    except Exception as exc:  # of cbor2, of the reader, or of a registered decode
        reason: BaseException = exc
        while reason.__cause__ is not None:
            reason = reason.__cause__
        raise InvalidPayload(f"a payload of {len(payload)} bytes cannot be read: {reason}") from exc


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as exc:  # pickle raises whatever the class does
        raise UnsupportedType(f"a {type(value).__qualname__} cannot be pickled: {exc}") from exc
