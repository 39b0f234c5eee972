"""Hypothesis strategies for samples of every supported type, for equal pairs of them, and what
equal means.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import sqlbuffer.samples.hashing as hashing
from sqlbuffer.samples.arrays import NUMPY_SCALARS, TYPED_ARRAY_TAGS, flatten


@hashing.register
@dataclasses.dataclass(frozen=True)
class Ligand:
    """Equal by name and pose; the note takes no part."""

    name: Any
    pose: Any
    note: Any = dataclasses.field(default=None, compare=False)


class Point(NamedTuple):
    x: Any
    y: Any


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 7


class Grade(str, enum.Enum):
    A = "a"
    B = "b"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Smiles(str):
    """A string that is equal to its text, and comes back as text."""


class Polymer:
    """No dataclass: it is registered with two functions."""

    def __init__(self, units: list[str]) -> None:
        self.units = units

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polymer) and self.units == other.units

    def __hash__(self) -> int:
        return hash(tuple(self.units))


for _cls in (Point, Colour, Level, Grade, Access):
    hashing.register(_cls)
hashing.register(Polymer, encode=lambda polymer: polymer.units, decode=Polymer)

NUMBERS = (bool, int, float, complex, Decimal, Fraction, np.number, np.bool_)
DTYPES = (*TYPED_ARRAY_TAGS, "bool", "complex64", "complex128")
TENSOR_DTYPES = (*DTYPES, "bfloat16")
OFFSETS = (dt.timedelta(0), dt.timedelta(hours=2), dt.timedelta(hours=-9, minutes=-30))
SHAPES = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


def finite_decimals() -> st.SearchStrategy[Decimal]:
    digits = st.lists(st.integers(0, 9), min_size=1, max_size=25)
    return st.builds(
        lambda s, d, e: Decimal((s, tuple(d), e)), st.integers(0, 1), digits, st.integers(-40, 40)
    )


def numbers() -> st.SearchStrategy[Any]:
    """Real and complex numbers of every type; small ones are frequent, so that equal ones meet."""
    return st.one_of(
        st.booleans(),
        st.integers(-3, 3),
        st.integers(),
        st.integers(-(2**70), 2**70),
        st.sampled_from(
            [0.0, -0.0, 0.5, 0.1, 1e300, 2.0**64, math.inf, -math.inf, math.nan, 5e-324]
        ),
        st.floats(),
        st.complex_numbers(),
        st.fractions(),
        finite_decimals(),
        st.sampled_from(
            [Decimal(text) for text in ("-0.00", "0.1", "1E+2", "Infinity", "NaN", "-NaN12")]
        ),
        st.sampled_from(NUMPY_SCALARS).flatmap(lambda cls: npst.from_dtype(np.dtype(cls))),
    )


def texts() -> st.SearchStrategy[str]:
    """Strings, with NUL and lone surrogates among them."""
    common = st.sampled_from(["", "a", "b", "green", "é", "\0", "\ud800"])
    return common | st.text(st.characters(), max_size=12)


@st.composite
def aware_datetimes(draw: st.DrawFn) -> dt.datetime:
    return draw(st.datetimes()).replace(tzinfo=dt.timezone(draw(st.sampled_from(OFFSETS))))


def hashables() -> st.SearchStrategy[Any]:
    """What may be a key of a dict or an element of a set, without nesting."""
    return st.one_of(
        st.none(),
        numbers(),
        texts(),
        st.binary(max_size=8),
        st.dates(),
        st.datetimes(allow_imaginary=False),
        aware_datetimes(),
        st.times(timezones=st.none() | st.builds(dt.timezone, st.sampled_from(OFFSETS))),
        st.timedeltas(),
        st.uuids(),
        st.sampled_from([*Colour, *Level, *Grade, Access.READ | Access.WRITE]),
    )


def arrays() -> st.SearchStrategy[np.ndarray]:
    """Numpy arrays in native order, any strides."""
    plain = st.sampled_from(DTYPES).flatmap(lambda dtype: npst.arrays(dtype, SHAPES))
    return st.one_of(
        plain,
        plain.map(np.transpose),
        plain.map(lambda array: array[..., ::2] if array.ndim else array),
    )


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Torch tensors, contiguous or not, with and without a gradient."""
    dtype = draw(st.sampled_from(TENSOR_DTYPES))
    source = draw(npst.arrays("float32" if dtype == "bfloat16" else dtype, SHAPES))
    tensor = torch.from_numpy(source).to(getattr(torch, dtype))
    if tensor.ndim > 1 and draw(st.booleans()):
        tensor = tensor.mT
    return tensor.requires_grad_() if tensor.is_floating_point() and draw(st.booleans()) else tensor


def samples(max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """Every supported kind of sample, and nestings of them; each comes back from storage with its
    own type.
    """
    keys = (
        hashables() | st.tuples(hashables(), hashables()) | st.frozensets(hashables(), max_size=3)
    )
    leaves = st.one_of(
        keys, st.binary(max_size=8).map(bytearray), arrays(), tensors(), st.sets(keys, max_size=4)
    )

    def nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.dictionaries(keys, inner, max_size=3),
            st.dictionaries(texts(), inner, max_size=3),
            st.builds(Point, inner, inner),
            st.builds(Ligand, inner, inner, inner),
            st.lists(texts(), max_size=3).map(Polymer),
        )

    return st.recursive(leaves, nest, max_leaves=max_leaves)


def other_numbers(number: Any) -> list[Any]:
    """Return the numbers of other types that have exactly this value."""
    plain = number.item() if isinstance(number, np.generic) else number
    if isinstance(plain, complex) and plain.imag != 0:
        return [plain, np.complex128(plain)]
    if plain != plain:
        return [
            float("nan"),
            -float("nan"),
            Decimal("NaN"),
            Decimal("sNaN"),
            np.float32("nan"),
            np.float64("nan"),
        ]
    if isinstance(plain, complex):
        return [plain, np.complex128(plain), plain.real]
    if plain in (math.inf, -math.inf):
        return [float(plain), Decimal(float(plain)), np.float16(plain), complex(float(plain), 0)]
    exact = Fraction(plain)
    found: list[Any] = [exact]
    if exact.denominator == 1:
        found += [int(exact), Decimal(int(exact))]
        found += [
            cls(int(exact)) for cls in (np.int8, np.uint64, np.int64) if _fits(cls, int(exact))
        ]
    if exact in (0, 1):
        found += [bool(exact), np.bool_(bool(exact)), Level.LOW if exact else -0.0]
    if max(abs(exact.numerator), exact.denominator) < 2**200 and Fraction(float(exact)) == exact:
        found += [
            float(exact),
            complex(float(exact)),
            np.float64(float(exact)),
            Decimal(float(exact)),
        ]
        single = np.float32(float(exact)) if abs(exact) < 2**100 else np.float32(0)
        found += [single] if Fraction(float(single)) == exact else []
    return found


def _fits(cls: type[np.integer[Any]], value: int) -> bool:
    return np.iinfo(cls).min <= value <= np.iinfo(cls).max


def variant(draw: st.DrawFn, value: Any) -> Any:
    """Draw a value that is equal to this one, where possible of another type, order, layout or time
    zone.
    """

    def again(item: Any) -> Any:
        return variant(draw, item)

    if isinstance(value, NUMBERS):
        return draw(st.sampled_from([value, *other_numbers(value)]))
    if isinstance(value, str):
        return draw(
            st.sampled_from(
                [
                    str.__str__(value),
                    Smiles(str.__str__(value)),
                    *([Grade.A] if value == "a" else []),
                ]
            )
        )
    if isinstance(value, (bytes, bytearray)):
        return draw(st.sampled_from([bytes, bytearray]))(value)
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return (
            value.astimezone(dt.timezone(draw(st.sampled_from(OFFSETS))))
            if 1 < value.year < 9999
            else value
        )
    if isinstance(value, np.ndarray):
        swapped = value.astype(value.dtype.newbyteorder(">"))
        return draw(
            st.sampled_from([value.copy(order="F"), swapped, torch.from_numpy(value.copy())])
        )
    if isinstance(value, torch.Tensor):
        plain = value.detach()
        others = (
            [plain.clone()] if value.dtype == torch.bfloat16 else [plain.clone(), plain.numpy()]
        )
        return draw(
            st.sampled_from([*others, plain.to_sparse()] if value.is_floating_point() else others)
        )
    if isinstance(value, Ligand):
        return Ligand(again(value.name), again(value.pose), note="another")
    if isinstance(value, tuple):
        items = tuple(map(again, value))
        return Point(*items) if len(items) == 2 and draw(st.booleans()) else items
    if isinstance(value, list):
        return list(map(again, value))
    if isinstance(value, dict):
        items = [
            (_hashable_variant(draw, key), again(item)) for key, item in reversed(value.items())
        ]
        return draw(st.sampled_from([dict, lambda pairs: defaultdict(list, pairs)]))(items)
    if isinstance(value, (set, frozenset)):
        return draw(st.sampled_from([set, frozenset]))(
            _hashable_variant(draw, item) for item in sorted(value, key=repr)
        )
    return value


def _hashable_variant(draw: st.DrawFn, value: Any) -> Any:
    other = variant(draw, value)
    try:
        hash(other)
    except TypeError:
        return value
    return other


@st.composite
def equal_pairs(draw: st.DrawFn, max_leaves: int = 8) -> tuple[Any, Any]:
    """Two samples that are equal, though often of other types."""
    value = draw(samples(max_leaves))
    return value, variant(draw, value)


def same(a: Any, b: Any) -> bool:
    """Tell whether two samples are equal: by Python's own answer where it has one, NaN as NaN,
    arrays by elements.
    """
    if isinstance(a, NUMBERS) or isinstance(b, NUMBERS):
        a, b = (x.item() if isinstance(x, np.generic) else x for x in (a, b))
        return isinstance(a, NUMBERS) and isinstance(b, NUMBERS) and _same_number(a, b)
    if isinstance(a, (np.ndarray, torch.Tensor)) or isinstance(b, (np.ndarray, torch.Tensor)):
        return _same_array(a, b)
    if isinstance(a, Ligand) and isinstance(b, Ligand):
        return same(a.name, b.name) and same(a.pose, b.pose)
    if (isinstance(a, list) and isinstance(b, list)) or (
        isinstance(a, tuple) and isinstance(b, tuple)
    ):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return _same_multiset([*a.items()], [*b.items()])
    if isinstance(a, (set, frozenset)) and isinstance(b, (set, frozenset)):
        return _same_multiset([*a], [*b])
    return bool(a == b)


def _same_number(a: Any, b: Any) -> bool:
    if isinstance(a, complex) and isinstance(b, complex):
        return _same_number(a.real, b.real) and _same_number(a.imag, b.imag)
    if isinstance(a, complex) or isinstance(b, complex):
        a, b = (b, a) if isinstance(b, complex) else (a, b)
        return a.imag == 0 and _same_number(a.real, b)
    nan_a, nan_b = (x.is_nan() if isinstance(x, Decimal) else x != x for x in (a, b))
    return nan_a and nan_b if nan_a or nan_b else a == b


def _same_multiset(a: list[Any], b: list[Any]) -> bool:
    left = list(b)
    for item in a:
        match = next((i for i, other in enumerate(left) if same(item, other)), None)
        if match is None:
            return False
        del left[match]
    return not left


def _same_array(a: Any, b: Any) -> bool:
    if not all(isinstance(x, (np.ndarray, torch.Tensor)) for x in (a, b)):
        return False
    tensors = [x.detach().to_dense() if isinstance(x, torch.Tensor) else _tensor(x) for x in (a, b)]
    a, b = tensors
    return (
        a.dtype == b.dtype and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
    )


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")).copy())


def exactly(a: Any, b: Any) -> bool:
    """Tell whether b is a in all that storage keeps: value, type, sign of zero, digits, offset,
    order of keys.
    """
    if isinstance(a, np.generic) and isinstance(b, np.generic):
        return a.dtype == b.dtype and exactly(
            a.item(), b.item()
        )  # longlong is int64 by another name
    if type(a) is not type(b):
        return False
    if isinstance(a, (np.ndarray, torch.Tensor)):
        return _bits(a) == _bits(b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(exactly, a, b))
    if isinstance(a, dict):
        return exactly([*a.items()], [*b.items()])
    if isinstance(a, (set, frozenset)):
        left = list(b)
        return len(a) == len(b) and all(any(exactly(item, other) for other in left) for item in a)
    if dataclasses.is_dataclass(a):
        return exactly(vars(a), vars(b))
    if isinstance(a, (dt.datetime, dt.time)):
        return (a.isoformat(), a.fold) == (b.isoformat(), b.fold)
    if isinstance(a, (float, complex, Decimal)):
        return repr(a) == repr(b)
    return bool(a == b)


def _bits(value: Any) -> tuple[Any, ...]:
    elements = flatten(value)
    return elements.dtype, elements.shape, elements.data.tobytes()
