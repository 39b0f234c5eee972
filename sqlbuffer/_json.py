"""Values of users as JSON: metadata of samples, and measures of predictors."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlbuffer._messages import shown
from sqlbuffer._validation import as_list, as_mapping, is_text, plain
from sqlbuffer.errors import InvalidArgument

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of NUL in JSON; after an odd number of backslashes it is text."""


MAX_DEPTH = 64
"""Levels of lists and mappings: readers of JSON, of databases and of others, stop somewhere."""


def as_json(value: Any, what: str) -> str:
    """Return a mapping as JSON; NaN, which marks a gap in a table, becomes null.

    Raises:
        InvalidArgument: If the value is not a mapping, or has a part that JSON or a database does
            not take; the message gives the path of the part.
    """
    mapping = as_mapping(value, what)
    try:
        text = _dumped(mapping)
        if text.count("[") + text.count("{") > MAX_DEPTH:  # may be too deep: look
            raise RecursionError
    except (TypeError, ValueError, RecursionError):
        text = _as_text(_jsonable(mapping, what, _gap), what)
    _require_storable(text, what)
    return text


def as_metas(meta: Any, n: int, start: int = 0) -> list[str | None]:
    """Return n texts of JSON: one mapping for all samples, or one or None for each from `start`."""
    if meta is None or isinstance(meta, Mapping):
        return [None if meta is None else as_json(meta, "meta")] * n
    if isinstance(meta, (str, bytes)) or not isinstance(meta, Iterable):
        raise InvalidArgument(
            f"meta must be a mapping, or a list of one for each sample; got {shown(meta)}."
        )
    metas = as_list(meta, "meta")
    if len(metas) != n:
        raise InvalidArgument(
            f"{n} samples came with {len(metas)} metas: give one mapping, or one for each sample."
        )
    return [
        None if one is None else as_json(one, f"meta[{start + i}]") for i, one in enumerate(metas)
    ]


def as_measures(value: Any, what: str) -> dict[str, Any]:
    """Return a mapping of values that JSON has.

    "NaN", "Infinity" and "-Infinity" replace floats that JSON lacks; PostgreSQL reads these words
    as numbers. `measures_from` is the inverse.

    Raises:
        InvalidArgument: If the value is not a mapping, or has a part that JSON or a database does
            not take; the message gives the path of the part.
    """
    found: dict[str, Any] = _jsonable(as_mapping(value, what), what, _word)
    _require_storable(_as_text(found, what), what)
    return found


def measures_from(stored: Any) -> Any:
    """Return the measures that `as_measures` was given."""
    if isinstance(stored, str):
        return _NUMBERS.get(stored, stored)
    if isinstance(stored, list):
        return [measures_from(each) for each in stored]
    if isinstance(stored, dict):
        return {key: measures_from(each) for key, each in stored.items()}
    return stored


_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def _word(number: float, _: str) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _gap(number: float, path: str) -> None:
    if not math.isnan(number):
        raise _not_json(number, path)


_dumped = json.JSONEncoder(allow_nan=False, sort_keys=True, ensure_ascii=False).encode
"""Made once: `json.dumps` makes an encoder for each call with other options than its own."""


def _as_text(value: Any, what: str) -> str:
    try:
        return _dumped(value)
    except ValueError as exc:  # an integer with more digits than Python writes
        raise InvalidArgument(f"{what} has a number that JSON cannot hold: {exc}.") from exc


def _require_storable(text: str, what: str) -> None:
    if _NUL.search(text) or not is_text(text):
        raise InvalidArgument(f"{what} has text with NUL or lone surrogates: take them out.")


def _jsonable(value: Any, what: str, spelled: Callable[[float, str], Any]) -> Any:
    try:
        return _json_value(value, what, spelled)
    except RecursionError:
        raise InvalidArgument(
            f"{what} nests too deep for JSON, or contains itself: flatten it."
        ) from None


def _json_value(value: Any, path: str, spelled: Callable[[float, str], Any], depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise RecursionError
    value = plain(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else spelled(float(value), path)
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, each in value.items():
            name = _json_key(key, path)
            if name in found:
                raise InvalidArgument(
                    f"{path} has the key {name!r} twice, as text and as a number: give each once."
                )
            found[name] = _json_value(each, f"{path}[{shown(key)}]", spelled, depth + 1)
        return found
    if isinstance(value, (list, tuple)):
        return [
            _json_value(each, f"{path}[{i}]", spelled, depth + 1) for i, each in enumerate(value)
        ]
    if _is_missing(value):
        return spelled(math.nan, path)
    raise _not_json(value, path)


def _json_key(key: Any, path: str) -> str:
    """Return a key as `json` writes it."""
    key = plain(key)
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    raise InvalidArgument(
        f"{path} has the key {shown(key)}, but keys of JSON are text: give {shown(str(key))}."
    )


def _is_missing(value: Any) -> bool:
    """Tell whether it is pandas' NA or NaT."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and any(
        value is getattr(pandas, name, None) for name in ("NA", "NaT")
    )


def _not_json(value: Any, path: str) -> InvalidArgument:
    return InvalidArgument(
        f"{path} is {shown(value)}, which JSON cannot hold: give text, a finite number, True, "
        "False or None, or lists and mappings of these."
    )
