"""The options of a PostgreSQL URL: each is used, or refused."""

from __future__ import annotations

import difflib
import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from sqlbuffer._messages import shown
from sqlbuffer.errors import InvalidArgument

CONNECT_TIMEOUT_S = 10

_PARTS_OF_A_URL = {"host", "port"}
"""Options that may be given more than once: one for each server."""

_SET_BY_US = {"application_name", "client_encoding", "fallback_application_name", "replication"}
_LIBPQ_PAGE = "https://www.postgresql.org/docs/current/libpq-connect.html"


def driver_options(url: sa.URL) -> tuple[sa.URL, dict[str, Any]]:
    """Take the options that the driver wants as numbers out of a URL; refuse unknown options.

    `prepare_threshold=none` prepares no statements.

    Returns:
        The URL without these options, and the options.

    Raises:
        InvalidArgument: If an option is unknown, invalid, set by sqlbuffer or given twice.
    """
    known = _options_of_urls()
    for name, given in url.query.items():
        if name in _SET_BY_US:
            raise InvalidArgument(
                f"{name} cannot be an option of the database URL, because sqlbuffer sets it: leave "
                "it out."
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"known are prepare_threshold and libpq's ({_LIBPQ_PAGE})."
            )
            raise InvalidArgument(
                f"PostgreSQL does not know the option {shown(name)} in the database URL: {hint}"
            )
        if not isinstance(given, str) and name not in _PARTS_OF_A_URL:
            raise InvalidArgument(
                f"the option {name} is given more than once in the database URL: give it once."
            )
    options: dict[str, Any] = {}
    for name, rule, convert in (
        ("prepare_threshold", "a positive number of executions, or none", _as_threshold),
        ("connect_timeout", "a positive number of seconds", _as_positive),
    ):
        if (text := url.query.get(name)) is not None:
            options[name] = convert(str(text))
            if options[name] == 0:
                raise InvalidArgument(
                    f"{name} in the database URL must be {rule}; got {shown(text)}."
                )
    _require_ports(url)
    return url.difference_update_query(list(options)), {
        "connect_timeout": CONNECT_TIMEOUT_S,
        **options,
    }


def _as_positive(text: str) -> int:
    """Return a positive number, 0 for any other text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0


def _as_threshold(text: str) -> int | None:
    return None if text == "none" else _as_positive(text)


def _require_ports(url: sa.URL) -> None:
    """Refuse hosts and ports that do not match, and ports that are no numbers."""
    try:
        _, arguments = postgresql.psycopg.dialect().create_connect_args(url)  # type: ignore[no-untyped-call]
        for port in str(arguments.get("port", "")).split(","):
            if port and not 0 < int(port) < 65536:
                raise ValueError(port)
    except (ValueError, sa.exc.ArgumentError) as exc:
        raise InvalidArgument(
            "the hosts and ports in the database URL are invalid: write HOST:PORT, for several "
            "servers ?host=HOST:PORT&host=HOST:PORT, each port a number from 1 to 65535."
        ) from exc


@functools.cache
def _options_of_urls() -> frozenset[str]:
    """Return the options that a URL may have: those of libpq but for ours, and one of psycopg."""
    from psycopg.pq import Conninfo  # an extra

    of_libpq = {option.keyword.decode() for option in Conninfo.get_defaults()}
    return frozenset(of_libpq - _SET_BY_US) | {"prepare_threshold"}
