"""Lists of samples, most of one structure: what a training loop adds, and what deviates from it."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st

from helpers.strategies import Colour, Level, Ligand, Point, Polymer, Smiles
from sqlbuffer.samples.hashing import register

Make = Callable[[random.Random], Any]


@register
@dataclasses.dataclass
class Transition:
    """Nine fields, of which a text shows eight; one is not shown, and one not compared."""

    obs: Any
    action: Any
    a: int = 0
    b: int = 1
    c: int = 2
    d: int = 3
    e: int = 4
    hidden: Any = dataclasses.field(default=None, repr=False)
    note: Any = dataclasses.field(default="", compare=False)
    last: int = 9


@register
@dataclasses.dataclass(frozen=True)
class Named:
    """A dataclass with a text of its own."""

    part: Any

    def __repr__(self) -> str:
        return "named"


@register
class Step(NamedTuple):
    obs: Any
    reward: Any


FLOATS = (
    *(0.0, -0.0, 1.0, -7.0, 255.0, 256.0, 65536.0, 2.0**32, -(2.0**33), 2.0**63, -(2.0**63), 1e300),
    *(2.0**24 + 1, 2.0**53 + 2, -(2.0**53) - 2, 2.0**64),  # integral, and no float32
    *(0.5, 1.5, 2.0**-24, 65504.5, 0.1, -0.1, float(np.float32(0.1)), 5e-324, 1e-7, 1e40),
    *(math.nan, -math.nan, math.inf, -math.inf),
)
INTEGERS = (
    *(0, 1, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1),
    *(-1, -24, -25, -256, -257, -(2**32), -(2**63)),
)
LARGE = (2**63, 2**64 - 1, 2**64, -(2**64), -(2**64) - 1, 2**70, 10**120, -(10**200))
DTYPES = (*("f4", "f8", "f2", ">f4", "i8", "u1", ">i2", "u8", "?", "c8", "c16", "f4", "f8"),)
SHAPES = ((4,), (2, 3), (), (0,), (2, 0), (1,), (9,))


def _arrays(dtype: str, shape: tuple[int, ...], layout: str) -> Make:
    def make(rng: random.Random) -> Any:
        draw = np.random.default_rng(rng.randrange(2**32))
        wide = draw.normal(size=(*shape, 2)) * 10
        if rng.random() < 0.3:
            wide[draw.random(wide.shape) < 0.5] = rng.choice((-0.0, 0.0, math.nan, math.inf))
        with np.errstate(all="ignore"):
            made = np.abs(wide).astype(dtype) if "u" in dtype else wide.astype(dtype)
        return {
            "plain": made[..., 0].copy(),
            "strided": made[..., 0],
            "fortran": np.asfortranarray(made[..., 0]),
            "backwards": made[..., 0].T[::-1].T if shape else made[..., 0],
        }[layout]

    return make


def _tensors(kind: str, shape: tuple[int, ...]) -> Make:
    make_array = _arrays("c8" if kind == "complex" else "f4", shape, "plain")

    def make(rng: random.Random) -> Any:
        tensor = torch.from_numpy(np.asarray(make_array(rng)))
        if kind == "half":
            return tensor.bfloat16()
        if kind == "view" and tensor.ndim > 1:
            return tensor.mT
        if kind == "grad":
            return tensor.requires_grad_() * 1 if rng.random() < 0.5 else tensor.requires_grad_()
        if kind == "complex":
            return tensor.conj()
        if kind == "sparse" and tensor.numel() and tensor.ndim:
            return tensor.to_sparse()
        return torch.nn.Parameter(tensor) if kind == "parameter" else tensor

    return make


def _choice(*values: Any) -> Make:
    return lambda rng: rng.choice(values)


_LEAVES = st.one_of(
    st.sampled_from(
        [
            _choice(*FLOATS),
            _choice(1.0, 0.0),
            lambda rng: rng.random(),
            lambda rng: rng.uniform(-1e4, 1e4) // 1,
            lambda rng: float(np.float32(rng.random())),
            lambda rng: float(np.float16(rng.random())),
            _choice(*INTEGERS),
            lambda rng: rng.randrange(-(2**40), 2**40),
            lambda rng: rng.randrange(4),
            _choice(*INTEGERS, *LARGE),
            _choice(True, False),
            _choice(True, 1, 0, 1.0, 0.5),
            _choice(None),
            _choice(None, 3, "a"),
            _choice("a", "b"),
            lambda rng: chr(rng.randrange(32, 0xD800)) * rng.choice((1, 7, 40, 300)),
            _choice("\0", "\ud800", "é", "'", "a" * 119, ""),
            _choice(b"", b"ab\0"),
            _choice(bytearray(b"a"), Decimal("1.5"), 2j, {1, 2}, frozenset((1,))),
            _choice(Colour.RED, Colour.GREEN),
            _choice(Level.LOW, Level.HIGH),
            lambda rng: Smiles(rng.choice("ab")),
            lambda rng: Polymer(["C"] * rng.randrange(3)),
            *(
                (lambda rng, cls=cls: cls(rng.choice((0, 1, 0.5, 3, 100))))
                for cls in (np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_)
            ),
            lambda rng: np.float32(rng.choice((math.nan, -0.0, 0.1))),
            lambda rng: np.complex64(rng.random()),
            lambda rng: np.uint64(2**64 - rng.randrange(1, 9)),
            lambda rng: np.str_("a"),
            lambda rng: object() if rng.random() < 0.02 else 1,  # cannot be stored
        ]
    ),
    st.builds(
        _arrays,
        st.sampled_from(DTYPES),
        st.sampled_from(SHAPES),
        st.sampled_from(["plain", "plain", "strided", "fortran", "backwards"]),
    ),
    st.builds(
        _tensors,
        st.sampled_from(["plain", "half", "view", "grad", "complex", "sparse", "parameter"]),
        st.sampled_from(SHAPES),
    ),
)


def _dicts(keys: list[Any], parts: list[Make], how: str) -> Make:
    def make(rng: random.Random) -> Any:
        items = [(key, part(rng)) for key, part in zip(keys, parts, strict=False)]
        if how == "order" and rng.random() < 0.3:
            rng.shuffle(items)
        if how == "missing" and rng.random() < 0.3:
            items = items[:-1]
        if how == "subclass" and rng.random() < 0.3:
            return defaultdict(list, items)
        if how == "refused" and rng.random() < 0.05:
            return OrderedDict(items)
        return dict(items)

    return make


def _sequences(cls: Any, part: Make, other: Make, size: int, how: str) -> Make:
    def make(rng: random.Random) -> Any:
        n = rng.randrange(size + 1) if how == "lengths" else size
        return cls([part(rng)] + [other(rng) for _ in range(n - 1)] if n else [])

    return make


def _made(cls: Any, part: Make, other: Make, field: str) -> Make:
    return lambda rng: cls(part(rng), **{field: other(rng)})


_KEYS = st.lists(
    st.sampled_from([*"abcdefghijk", "observation", "é", "\0", "\ud800", "", 1, True, None, (1,)]),
    max_size=10,
    unique=True,
)


def _nest(inner: st.SearchStrategy[Make]) -> st.SearchStrategy[Make]:
    text_keys = st.lists(st.sampled_from([*"abcdefghijkl"]), max_size=10, unique=True)
    return st.one_of(
        st.builds(
            _dicts,
            text_keys | text_keys | _KEYS,
            st.lists(inner, min_size=1, max_size=10),
            st.sampled_from(["same", "same", "order", "missing", "subclass", "refused"]),
        ),
        st.builds(
            _sequences,
            st.sampled_from([list, tuple]),
            inner,
            inner,
            st.sampled_from([0, 1, 2, 3, 9, 40]),
            st.sampled_from(["same", "same", "lengths"]),
        ),
        st.builds(_made, st.just(Transition), inner, inner, st.sampled_from(["action"])),
        st.builds(_made, st.just(Ligand), inner, inner, st.just("pose")),
        st.builds(_made, st.just(Step), inner, inner, st.just("reward")),
        st.builds(_made, st.just(Point), inner, inner, st.just("y")),
        st.builds(lambda part: lambda rng: Named(part(rng)), inner),
    )


_STRUCTURES = st.recursive(_LEAVES, _nest, max_leaves=6)
_USUAL = _nest(_STRUCTURES) | _LEAVES
_OTHERS = st.lists(_STRUCTURES, max_size=2)


@st.composite
def batches(draw: st.DrawFn, n: int = 14) -> list[Any]:
    """n samples, most of one structure."""
    usual, others = draw(_USUAL), draw(_OTHERS)
    rng = random.Random(draw(st.integers(0, 2**32)))
    return [
        rng.choice(others)(rng) if others and rng.random() < 0.15 else usual(rng) for _ in range(n)
    ]
