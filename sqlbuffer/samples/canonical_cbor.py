"""Deterministic CBOR (RFC 8949, section 4.2) of numbers, text and bytes, for the hash.

A number is encoded by its exact value, so that equal numbers of different types have the same
bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from decimal import Decimal

from sqlbuffer.errors import InvalidArgument

MAX_DECIMAL_EXPONENT = 10_000
"""Largest exponent of a Decimal: its exact value has as many digits as the exponent says."""

_NAN = b"\xf9\x7e\x00"


def head(major: int, argument: int) -> bytes:
    """Encode the head of a CBOR item in its shortest form."""
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, size in ((24, 1), (25, 2), (26, 4)):
        if argument < 1 << 8 * size:
            return bytes((major << 5 | info,)) + argument.to_bytes(size, "big")
    return bytes((major << 5 | 27,)) + argument.to_bytes(8, "big")


def byte_string(value: bytes | bytearray, _depth: int = 0) -> bytes:
    """Encode bytes."""
    return head(2, len(value)) + value


def array(items: Sequence[bytes]) -> bytes:
    """Encode an array of encoded items."""
    return head(4, len(items)) + b"".join(items)


def tagged_object(kind: str, *parts: bytes) -> bytes:
    """Encode an object of tag 27: its kind and its encoded parts."""
    return head(6, 27) + array((text(kind), *parts))


def text(value: str, _depth: int = 0) -> bytes:
    """Encode a string; if it has lone surrogates, which CBOR text may not have, as its bytes."""
    try:
        utf8 = str.encode(value)
    except UnicodeEncodeError:
        return tagged_object("str", byte_string(str.encode(value, errors="surrogatepass")))
    return head(3, len(utf8)) + utf8


def integer(value: int, _depth: int = 0) -> bytes:
    """Encode an integer of any size."""
    value = int(value)  # an enum or bool has operators of its own
    major, argument = (0, value) if value >= 0 else (1, -1 - value)
    if argument < 1 << 64:
        return head(major, argument)
    magnitude = argument.to_bytes((argument.bit_length() + 7) // 8, "big")
    return head(6, 2 + major) + byte_string(magnitude)


def floating(value: float, _depth: int = 0) -> bytes:
    """Encode a float: as an integer if it is one, else as the shortest float that is exact."""
    if value != value:
        return _NAN
    if value.is_integer():
        return integer(int(value))
    for initial, form in ((b"\xf9", ">e"), (b"\xfa", ">f")):
        try:
            packed = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, packed)[0] == value:
            return initial + packed
    return b"\xfb" + struct.pack(">d", value)


def complex_number(value: complex, _depth: int = 0) -> bytes:
    """Encode a complex number: as a float if its imaginary part is zero, else with tag 43000."""
    if value.imag == 0:
        return floating(value.real)
    return head(6, 43000) + array((floating(value.real), floating(value.imag)))


def ratio(numerator: int, denominator: int) -> bytes:
    """Encode a ratio in lowest terms: as an integer or float if exact, else with tag 30."""
    if denominator == 1:
        return integer(numerator)
    if denominator & (denominator - 1) == 0:  # a power of two: perhaps a float
        try:
            nearest_float = numerator / denominator
        except OverflowError:
            nearest_float = 0.0
        if nearest_float.as_integer_ratio() == (numerator, denominator):
            return floating(nearest_float)
    return head(6, 30) + array((integer(numerator), integer(denominator)))


def decimal(value: Decimal, _depth: int = 0) -> bytes:
    """Encode a Decimal as its exact ratio.

    Raises:
        InvalidArgument: If its exponent is beyond `MAX_DECIMAL_EXPONENT`.
    """
    if value.is_nan():
        return _NAN
    if value.is_infinite() or not value:
        return floating(float(value))
    exponent = value.as_tuple().exponent
    if max(abs(int(exponent)), abs(value.adjusted())) > MAX_DECIMAL_EXPONENT:
        raise InvalidArgument(
            f"a Decimal about 10 ** {value.adjusted()} is out of bounds: "
            f"exponents go to ±{MAX_DECIMAL_EXPONENT}"
        )
    return ratio(*value.as_integer_ratio())
