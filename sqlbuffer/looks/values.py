"""Stored values as JSON has them, and as tables show them."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any

from sqlbuffer._messages import printable


def plain(value: Any) -> Any:
    """Return a value as JSON takes it: times in UTC and ISO 8601, bytes in hexadecimal digits."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return (
            value
            if math.isfinite(value)
            else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
        )
    if isinstance(value, decimal.Decimal):
        return as_number(value)
    if isinstance(value, dt.datetime):
        moment = value if value.tzinfo is None else value.astimezone(dt.timezone.utc)
        return moment.isoformat(timespec="milliseconds")
    if isinstance(value, (bytes, memoryview)):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def as_number(value: decimal.Decimal) -> Any:
    """Return an integer if it is one, else a float; text if JSON has no such number."""
    if not value.is_finite() or abs(value) > 10**300:
        return str(value)
    return int(value) if value == value.to_integral_value() else float(value)


def cell(value: Any) -> str:
    """Return a value as a table shows it: None as `-`, floats to eight digits.

    Of more than 32 bytes it shows the first 16.
    """
    if isinstance(value, (bytes, memoryview)) and len(value) > 32:
        return f"{bytes(value[:16]).hex()}... ({len(value):,} bytes)"
    if isinstance(value, dt.datetime):  # JSON, CSV and files have it to the last digit
        return f"{value:%Y-%m-%d %H:%M:%SZ}"
    value = plain(value)
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.8g}"
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
