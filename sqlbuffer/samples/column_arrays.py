"""Columns of numpy arrays and scalars and of torch tensors."""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable
from typing import Any

from sqlbuffer._numpy import np
from sqlbuffer.samples.arrays import (
    ELEMENT_DTYPES,
    NUMPY_SCALARS,
    Elements,
    is_normal,
    normalised,
)
from sqlbuffer.samples.canonical import array_head
from sqlbuffer.samples.canonical_cbor import array, head, integer, text
from sqlbuffer.samples.column_numbers import booleans, floats, integers, rows_of
from sqlbuffer.samples.column_parts import Column, Texts, by_group
from sqlbuffer.samples.preview import MAX_LEVEL, array_form, rendered

_Form = tuple[Any, tuple[int, ...]]
"""dtype and shape."""

_FORM = operator.attrgetter("dtype", "shape")
_DTYPE = operator.attrgetter("dtype")
_KIND = operator.attrgetter("dtype", "layout", "is_nested")


def arrays(values: list[Any], depth: int, level: int | None) -> Column | None:
    """Encode arrays, those of one dtype and shape together; None if a dtype is not supported."""
    if any(dtype.name not in ELEMENT_DTYPES for dtype in set(map(_DTYPE, values))):
        return None
    return by_group(values, depth, level, key=_FORM, encode=_alike)


def _alike(form: _Form, values: list[Any], _depth: int, level: int | None) -> Column:
    """Encode arrays of one dtype and shape."""
    dtype, shape = form
    stored = ELEMENT_DTYPES[dtype.name]
    if dtype != stored:
        values = [value.astype(stored) for value in values]
    contents = list(map(np.ndarray.tobytes, values))
    data = np.frombuffer(b"".join(contents), stored)
    return _encoded("array", Elements(dtype.name, shape, data), contents, level, str(dtype))


def tensors(values: list[Any], depth: int, level: int | None) -> Column | None:
    """Encode tensors of one class, those of one dtype and shape together.

    The caller has checked that torch is imported.

    Returns:
        None if one is sparse, has no data or an unsupported dtype, or if they are of a subclass.
    """
    torch = sys.modules["torch"]
    if type(values[0]) is not torch.Tensor:
        return None
    for dtype, layout, is_nested in set(map(_KIND, values)):
        name = str(dtype).removeprefix("torch.")
        if name not in ELEMENT_DTYPES or layout != torch.strided or is_nested:
            return None
    if any(map(operator.attrgetter("is_meta"), values)):
        return None
    return by_group(values, depth, level, key=_FORM, encode=_tensors_alike)


def _tensors_alike(form: Any, values: list[Any], _depth: int, level: int | None) -> Column:
    torch = sys.modules["torch"]
    dtype, shape = form
    name = str(dtype).removeprefix("torch.")
    with torch.no_grad():
        stacked = torch.stack([value.cpu() for value in values] if _on_devices(values) else values)
    plain = stacked.resolve_conj().resolve_neg().reshape(-1)
    data = (plain.view(torch.int16) if name == "bfloat16" else plain).numpy()
    elements = Elements(name, tuple(shape), data.astype(ELEMENT_DTYPES[name], copy=False))
    return _encoded("tensor", elements, _rows(elements, len(values)), level, name, plain)


def _on_devices(values: list[Any]) -> bool:
    return any(value.device.type != "cpu" for value in values)


def _encoded(
    kind: str,
    elements: Elements,
    contents: list[bytes],
    level: int | None,
    dtype: str,
    readable: Any = None,
) -> Column:
    """Encode n arrays or tensors.

    Args:
        kind: "array" or "tensor".
        elements: Their dtype, their shape, and the elements of all.
        contents: n times the elements of one, as bytes.
        level: Level of their text.
        dtype: Name of the dtype in the text.
        readable: The elements of all in a form that has numbers, if `elements` has none.
    """
    name, shape, data = elements
    n, hashed = len(contents), contents
    if not is_normal(elements):
        hashed = _rows(Elements(name, shape, normalised(elements)), n)
    canonical = array_head(name, shape, len(contents[0]))
    texts: Texts = []
    if level is not None:
        texts = _texts(
            _CLASS_NAMES[kind],
            (data if readable is None else readable).reshape(n, -1),
            dtype,
            shape,
            level,
        )
    return Column([canonical, hashed], [_head(kind, name, shape), contents], texts)


def _rows(elements: Elements, n: int) -> list[bytes]:
    return rows_of(elements.data.reshape(n, -1)) if elements.data.size else [b""] * n


@functools.lru_cache(maxsize=256)
def _head(kind: str, dtype: str, shape: tuple[int, ...]) -> bytes:
    """Encode what stands before the elements in the payload."""
    sizes = array([integer(size) for size in shape])
    n_bytes = math.prod(shape) * ELEMENT_DTYPES[dtype].itemsize
    return head(6, 27) + head(4, 4) + text(kind) + text(dtype) + sizes + head(2, n_bytes)


def _texts(kind: str, elements: Any, dtype: str, shape: tuple[int, ...], level: int) -> Texts:
    """Render arrays as `preview` does, all at once."""
    form = array_form(kind, dtype, shape, is_sample=level == MAX_LEVEL)
    first = [elements[:, i].tolist() for i in range(min(form.n, elements.shape[1]))]
    if not first:
        return [form.before + form.after]
    digits = f"%{form.digits}" if type(first[0][0]) is float else "%s"
    numbers = " ".join([digits] * len(first))
    return [form.before, list(map(numbers.__mod__, zip(*first, strict=True))), form.after]


def scalars(cls: type[Any], values: list[Any], level: int | None) -> Column | None:
    """Encode numpy scalars of one class; None for a kind without an encoder."""
    dtype = np.dtype(cls)
    encode = _NUMBERS.get(dtype.kind)
    if encode is None:
        return None
    data = np.array(values, dtype=ELEMENT_DTYPES[dtype.name])
    before = head(6, 27) + head(4, 3) + text("scalar") + text(dtype.name) + head(2, dtype.itemsize)
    numbers = encode(data.tolist(), 0, None)
    texts: Texts = [] if level is None else [[rendered(value, level) for value in values]]
    return Column(numbers.canonical, [before, rows_of(data)], texts)


_CLASS_NAMES = {"array": "ndarray", "tensor": "Tensor"}

_NUMBERS: dict[str, Callable[[Any, int, int | None], Column]] = {
    "b": booleans,
    "i": integers,
    "u": integers,
    "f": floats,
}

SCALARS = frozenset(NUMPY_SCALARS)
