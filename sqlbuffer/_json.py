"""What users give to be stored as JSON: metadata of samples, and measures of predictors."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sqlbuffer._validation import as_mapping, is_text, plain
from sqlbuffer.errors import InvalidArgument, shown

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
"""The escape for NUL in JSON, which is none behind an odd backslash."""


def as_json(value: Any, what: str) -> str:
    """Return a mapping as JSON; NaN, which is a gap in a table, becomes null.

    Raises:
        InvalidArgument: Where it is none, or holds what JSON, or a database, does not take. The message says where.
    """
    mapping = as_mapping(value, what)
    try:
        text = _dumped(mapping)
    except (TypeError, ValueError, RecursionError):
        text = _as_text(_jsonable(mapping, what, _gap), what)
    _require_storable(text, what)
    return text


def as_measures(value: Any, what: str) -> dict[str, Any]:
    """Return a mapping as JSON can hold it, in which "NaN", "Infinity" and "-Infinity" stand for what JSON has not.

    These are the words of PostgreSQL, which reads them as numbers; `measures_from` reads them back.

    Raises:
        InvalidArgument: Where it is none, or holds what JSON, or a database, does not take. The message says where.
    """
    found: dict[str, Any] = _jsonable(as_mapping(value, what), what, _word)
    _require_storable(_as_text(found, what), what)
    return found


def measures_from(stored: Any) -> Any:
    """Return what `as_measures` was given."""
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


def _gap(number: float, where: str) -> None:
    if not math.isnan(number):
        raise _not_json(number, where)


def _dumped(value: Any) -> str:
    return json.dumps(value, allow_nan=False, sort_keys=True, ensure_ascii=False)


def _as_text(value: Any, what: str) -> str:
    try:
        return _dumped(value)
    except ValueError as exc:  # an integer of more digits than Python writes
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


def _json_value(value: Any, where: str, spelled: Callable[[float, str], Any]) -> Any:
    value = plain(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else spelled(float(value), where)
    if isinstance(value, Mapping):
        found: dict[str, Any] = {}
        for key, each in value.items():
            name = _json_key(key, where)
            if name in found:
                raise InvalidArgument(
                    f"{where} has the key {name!r} twice, as text and as a number: give each once."
                )
            found[name] = _json_value(each, f"{where}[{shown(key)}]", spelled)
        return found
    if isinstance(value, (list, tuple)):
        return [_json_value(each, f"{where}[{i}]", spelled) for i, each in enumerate(value)]
    if _is_missing(value):
        return spelled(math.nan, where)
    raise _not_json(value, where)


def _json_key(key: Any, where: str) -> str:
    """Return a key as json writes it."""
    key = plain(key)
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (bool, int, float)):
        return json.dumps(key)
    raise InvalidArgument(
        f"{where} has the key {shown(key)}, but keys of JSON are text: give {shown(str(key))}."
    )


def _is_missing(value: Any) -> bool:
    """Tell whether it is pandas' NA or NaT."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and any(
        value is getattr(pandas, name, None) for name in ("NA", "NaT")
    )


def _not_json(value: Any, where: str) -> InvalidArgument:
    return InvalidArgument(
        f"{where} is {shown(value)}, which JSON cannot hold: give text, a finite number, True, False or None, or lists "
        f"and mappings of these."
    )
