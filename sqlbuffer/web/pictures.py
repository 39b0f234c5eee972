"""Samples as pictures: molecules if rdkit is installed, arrays that have the shape of an image."""

from __future__ import annotations

import functools
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db import queries
from sqlbuffer.errors import SqlBufferError
from sqlbuffer.samples.codec import decode_all

LONGEST_SMILES = 400
"""Longer texts are not tried: drawings of hundreds of atoms show nothing."""

SIDES = (4, 2048)
"""Least and greatest length of a side of an image."""

_SHAPE = re.compile(r"\w+\(\w+, \((\d+), (\d+)(?:, (\d+))?\):")
"""Beginning of the stored text of an array: see `samples.preview`."""


def drawable(texts: Sequence[str]) -> bool:
    """Return whether a list of samples is shown with pictures.

    Most of the texts must be molecules or images: a word such as CNN is a molecule by chance.
    """
    n = sum(_is_image(text) or _molecule(text) is not None for text in texts)
    return bool(texts) and n >= 0.8 * len(texts)


def draw(tx: Transaction, sample: int, *, is_dark: bool) -> tuple[bytes, str] | None:
    """Return a picture of a sample and its media type; None if it has none."""
    row = tx.execute(queries.pages.sample_content(), sample=sample).one_or_none()
    if row is None:
        return None
    if row.codec == "text":
        svg = _drawn_molecule(row.text, is_dark)
        return None if svg is None else (svg, "image/svg+xml")
    if not _is_image(row.text):
        return None
    try:
        (value,) = decode_all([row.text], [row.payload], [row.codec])
    except SqlBufferError:  # such as a pickle, which is never read here
        return None
    image = as_image(value)
    return None if image is None else (as_png(image), "image/png")


# -- molecules ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2000)
def _molecule(text: str) -> Any:
    """Return a molecule of rdkit; None if the text is no SMILES, or rdkit is not installed."""
    if not 0 < len(text) <= LONGEST_SMILES or not text.isascii() or " " in text:
        return None
    try:
        from rdkit import Chem, rdBase
    except ImportError:
        return None
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(text)


@functools.lru_cache(maxsize=500)
def _drawn_molecule(text: str, is_dark: bool) -> bytes | None:
    if (molecule := _molecule(text)) is None:
        return None
    from rdkit.Chem.Draw import rdMolDraw2D

    drawing = rdMolDraw2D.MolDraw2DSVG(280, 200)
    options: Any = drawing.drawOptions()
    if is_dark:
        rdMolDraw2D.SetDarkMode(options)
    options.clearBackground = False
    options.padding = 0.04
    options.bondLineWidth = 1.5
    try:
        rdMolDraw2D.PrepareAndDrawMolecule(drawing, molecule)
    except Exception:  # of a molecule without coordinates; a page shows its text
        return None
    drawing.FinishDrawing()
    return str(drawing.GetDrawingText()).encode()


# -- arrays ---------------------------------------------------------------------------------------


def _is_image(text: str) -> bool:
    """Return whether the stored text of an array tells the shape of an image."""
    found = _SHAPE.match(text)
    if found is None:
        return False
    shape = [int(each) for each in found.groups() if each is not None]
    return _channels_last(shape) is not None


def _channels_last(shape: Sequence[int]) -> bool | None:
    """Return whether colours are the last axis; None if no image has the shape."""
    low, high = SIDES
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4)):
        sides, is_last = shape[:2], True
    elif len(shape) == 3 and shape[0] in (1, 3, 4):
        sides, is_last = shape[1:], False
    else:
        return None
    return is_last if all(low <= side <= high for side in sides) else None


def as_image(value: Any) -> np.ndarray[Any, Any] | None:
    """Return an array or tensor as bytes of shape (height, width, 1, 3 or 4); None for another.

    Integers of 8 bits stay, other numbers are stretched from their least to their greatest.
    """
    if hasattr(value, "detach"):
        value = value.detach().to("cpu").float().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "buif":
        return None
    is_last = _channels_last(value.shape)
    if is_last is None:
        return None
    image = value if is_last else np.moveaxis(value, 0, -1)
    image = image.reshape(*image.shape[:2], -1)
    if image.dtype == np.uint8:
        return image
    numbers = image.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    scaled = (np.nan_to_num(numbers, nan=low, posinf=high, neginf=low) - low) / (high - low or 1.0)
    return (scaled * 255).round().astype(np.uint8)


def as_png(image: np.ndarray[Any, Any]) -> bytes:
    """Return an image, (height, width, 1, 3 or 4) uint8, as PNG.

    Source:
        PNG specification, third edition, section 11: a signature, then IHDR, IDAT and IEND.
    """
    height, width, channels = image.shape
    kind = {1: 0, 3: 2, 4: 6}[channels]
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with the filter 0
    rows[:, 1:] = image.reshape(height, -1)

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows.tobytes())), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
