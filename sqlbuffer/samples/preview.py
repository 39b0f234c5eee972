"""Readable renderings of samples: the `text` next to a payload."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from sqlbuffer._sample_classes import find
from sqlbuffer._validation import is_storable
from sqlbuffer.samples.arrays import is_tensor

TEXT_LENGTH = 240
"""The most characters of a rendering."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+>")
"""End of the default repr of an object."""


class _Rendering(reprlib.Repr):
    """The repr of a sample, cut to size while it is made."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = 8
        self.maxstring = self.maxother = 120

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, np.ndarray) or is_tensor(type(x)):
            return _render_array(x)
        if type(x).__module__ != "builtins":  # a user's class may be named "list"
            return self.repr_instance(x, level)
        return super().repr1(x, level)

    def repr_instance(self, x: Any, level: int) -> str:
        """Render an object by its repr, without its address in memory.

        A registered class whose repr has an address is rendered by its encoded value.
        """
        try:
            text = repr(x)
        except Exception:  # a user's __repr__ may raise anything
            text = f"<{type(x).__name__} at 0x0>"
        entry = find(type(x))
        if entry is None or not _ADDRESS.search(text):
            text = _ADDRESS.sub(">", text)
            return text if len(text) <= self.maxother else f"{text[:58]}...{text[len(text) - 59 :]}"
        if level <= 0:
            return f"{entry.name}(...)"
        return f"{entry.name}({self.repr1(entry.encode(x), level - 1)})"

    def repr_int(self, x: int, level: int) -> str:
        return str(x) if x.bit_length() < 400 else f"<int of {x.bit_length()} bits>"


def _render_array(value: Any) -> str:
    dense = value if isinstance(value, np.ndarray) else value.detach().to_dense()
    first = dense.reshape(-1)[:8].tolist()
    numbers = " ".join(
        f"{number:.6g}" if type(number) is float else str(number) for number in first
    )
    dtype = str(value.dtype).removeprefix("torch.")
    more = " ..." if math.prod(value.shape) > len(first) else ""
    return f"{type(value).__name__}({dtype}, {tuple(value.shape)}: {numbers}{more})"


_RENDERING = _Rendering()


def render(value: object) -> str:
    """Return the repr of a sample, cut to `TEXT_LENGTH`, as text that every database takes."""
    text = _RENDERING.repr(value).encode(errors="backslashreplace").decode().replace("\0", "\\0")
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 3] + "..."


def as_texts(values: Iterable[object]) -> list[str | None]:
    """Return each value as text: a string as it is, another value by `render`."""
    return [
        value if type(value) is str and is_storable(value) else render(value) for value in values
    ]
