"""Settings that are stored with a buffer: one that is not given is taken as stored."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from sqlbuffer._integrity import tampered
from sqlbuffer._messages import shown
from sqlbuffer._validation import (
    EVICTIONS,
    as_evict,
    as_max_size,
    require_flag,
    require_int,
)
from sqlbuffer.core import budget
from sqlbuffer.core.handle import BufferHandle
from sqlbuffer.core.settings import DIRECTIONS, Settings, direction_from
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.core.weighting import (
    Shift,
    weighting_from,
    weighting_from_settings,
    weighting_settings,
)
from sqlbuffer.db import queries
from sqlbuffer.errors import InvalidPayload, SettingsMismatch

STORED = "stored"
"""Default of settings for which None is a value: take the stored one."""

_NEW: dict[str, Any] = {
    "mode": "consume",
    "seed": 0,
    "weighting": Shift(),
    "max_size": None,
    "direction": DIRECTIONS[0],
    "evict": EVICTIONS[0],
    "budget": None,
    "max_attempts": 3,
    "keep_key": False,
}
"""The settings of a new buffer, by name."""

_FILLED = ("max_size", "budget")
"""Settings that a buffer without them takes from the first process that gives them."""

_WAYS_OUT = {
    "mode": "make a copy with another one (store.copy(name, mode={given!r}))",
    "seed": "make a copy with another one (store.copy(name, seed={given!r}))",
    "weighting": "make a copy with another one (store.copy(name, weighting=...))",
    "max_size": "make a copy with another one (store.copy(name, max_size={given!r}))",
    "evict": "make a copy with another one (store.copy(name, evict={given!r}))",
    "budget": "store another one (store.set_budget({given!r}))",
    "keep_key": "begin a new buffer, under another name",
    "direction": "store its samples under another name (`sqlbuffer export all.jsonl --name "
    "{name}`, then `sqlbuffer import all.jsonl --name OTHER --direction {given}`)",
}
"""How to have another value of a setting than the stored one; in a buffer of another name if a
setting is not listed."""


def as_given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings, and return those that were given.

    Raises:
        InvalidArgument: If a value is none that the setting may have.
    """
    given = {name: value for name, value in settings.items() if _is_given(name, value)}
    shape = _shape({**_NEW, **given})
    checked = {
        "mode": lambda _: shape.mode,
        "seed": lambda _: shape.seed,
        "weighting": lambda _: shape.weighting,
        "max_size": as_max_size,
        "direction": direction_from,
        "evict": as_evict,
        "budget": budget.as_budget,
        "max_attempts": _as_max_attempts,
        "keep_key": _as_keep_key,
    }
    return {name: checked[name](value) for name, value in given.items()}


def _is_given(name: str, value: Any) -> bool:
    if name == "max_attempts":
        return not (isinstance(value, str) and value == STORED)
    return value is not None


def _as_max_attempts(value: Any) -> int | None:
    rule = "max_attempts must be a number of attempts, 1 or more, or None for any number"
    return None if value is None else require_int(value, rule, least=1, most=2**31 - 1)


def _as_keep_key(value: Any) -> bool:
    return require_flag(value, "keep_key")


def _shape(settings: Mapping[str, Any]) -> Settings:
    """Return the settings that shape the draws."""
    weighting = weighting_from(settings["weighting"])
    return Settings(settings["mode"], settings["seed"], weighting)


def columns_of_new(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of `buffers` for a new buffer; `given` has settings of `as_given`."""
    settings = {**_NEW, **given}
    shape = _shape(settings)
    return {
        "kind": shape.weighting.name,
        "mode": shape.mode,
        "seed": str(shape.seed),
        "settings": {"weighting": weighting_settings(shape.weighting)},
        **{name: settings[name] for name in settings if name not in vars(shape)},
    }


def read_shape(row: Any) -> Settings:
    """Read the stored settings that shape the draws from a row of `buffers`.

    Raises:
        InvalidPayload: If they are corrupt.
    """
    try:
        return Settings(row.mode, int(row.seed), weighting_from_settings(row.settings["weighting"]))
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as exc:
        raise InvalidPayload(
            f"buffer {row.name!r} is stored with invalid settings ({shown(exc)}): its row in "
            "`buffers` is corrupt or was edited; fix the row, or restore a backup."
        ) from exc


def read_direction(row: Any) -> str:
    """Read the stored direction from a row of `buffers`.

    Raises:
        InvalidPayload: If it is corrupt.
    """
    if row.direction not in DIRECTIONS:
        raise tampered(
            f"the direction of buffer {row.name!r} is stored as {shown(row.direction)}, which is "
            "neither 'maximize' nor 'minimize'"
        )
    return str(row.direction)


def reconcile(buffer: BufferHandle, row: Any, given: Mapping[str, Any]) -> None:
    """Compare given settings with the stored ones; store those that the buffer has not yet.

    Args:
        buffer: The buffer.
        row: Its row of `buffers`.
        given: Settings of `as_given`.

    Raises:
        SettingsMismatch: If a setting is stored with another value.
    """
    shape = vars(buffer.settings)
    stored = {name: getattr(buffer.settings if name in shape else row, name) for name in given}
    missing = [name for name in given if stored[name] is None and name in _FILLED]
    for name in given:
        if name not in missing:
            _require_same(row.name, name, stored[name], given[name])
    for name in missing:  # once the buffer is known to be the one that was meant
        _require_same(
            row.name, name, buffer.write(_fill, name=name, value=given[name]), given[name]
        )


def _require_same(buffer_name: str, name: str, stored: Any, given: Any) -> None:
    """Raise SettingsMismatch if a setting is stored with another value."""
    if stored != given:
        way_out = _WAYS_OUT.get(name, "give another name").format(
            given=given, name=shlex.quote(buffer_name)
        )
        raise SettingsMismatch(
            f"buffer {buffer_name!r} is stored with {name}={shown(stored)}, but was opened with "
            f"{name}={given!r}: open it without {name}, which takes the stored value, or {way_out}."
        )


def _fill(tx: Transaction, *, name: str, value: int) -> Any:
    """Store a setting in a buffer that has none; return the stored value."""
    tx.lock_race(exclusive=True)
    stored = getattr(tx.own_row(queries.audit.buffer_row()), name)
    if stored is None and name == "budget":
        budget.set_budget(tx, value)
    elif stored is None:
        tx.execute(queries.buffers.limit_size(), most=value)
    return value if stored is None else stored
