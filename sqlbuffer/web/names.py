"""Names of buffers as one part of a path: any name, also with slashes and dots.

Letters, digits, `-` and `_` stand for themselves, every other byte of UTF-8 is `~` and two
hexadecimal digits.

Source:
    The tilde encoding of Datasette, https://docs.datasette.io/en/stable/internals.html.
"""

from __future__ import annotations

import re

_PLAIN = re.compile(rb"[A-Za-z0-9_-]")
_CODED = re.compile(rb"~([0-9A-F]{2})")


def to_path(name: str) -> str:
    """Return a name as one part of a path."""
    coded = (
        bytes([each]) if _PLAIN.match(bytes([each])) else b"~%02X" % each for each in name.encode()
    )
    return b"".join(coded).decode()


def from_path(part: str) -> str | None:
    """Return the name that a part of a path stands for; None if it stands for none."""
    raw = _CODED.sub(lambda found: bytes([int(found[1], 16)]), part.encode())
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        return None
    return name if to_path(name) == part else None
