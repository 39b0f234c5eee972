"""The law of the canonical hash: equal samples, and no others, have the same digest."""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import json
import math
import os
import subprocess
import sys
import time
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.strategies import (
    DTYPES,
    Access,
    Colour,
    Grade,
    Level,
    Ligand,
    Point,
    Polymer,
    Smiles,
    equal_pairs,
    hashables,
    numbers,
    same,
    samples,
    texts,
)
from sqlbuffer.errors import InvalidArgument, UnsupportedType
from sqlbuffer.samples import limits
from sqlbuffer.samples.hashing import SCHEME, canonical_bytes, digest, digests, register

UTC = dt.timezone.utc

# A digest that changes splits every stored buffer: a new value here needs a new SCHEME.
GOLDEN = {
    "none": (None, "03ca21011423ea1eb88919ef43e973a3"),
    "str": ("CC(=O)Oc1ccccc1C(=O)O", "e09a1440fba14dc9a59694998153dde7"),
    "str unicode": ("é\0", "a7613f96455fc9d323e9a7c8165133c9"),
    "str surrogate": ("\ud800", "84a7bcf10690d06b3bbcbc35d413f456"),
    "bytes": (b"ab", "7571c53842471380a50c16f54c6e91d2"),
    "zero": (-0.0, "ead9a09ae23f059006f2bea50e245ff4"),
    "one": (True, "228289fbee6c5936254a4662998056a4"),
    "int": (-7, "6d2594f91ffcab6e0f1be303b7039025"),
    "big int": (2**80, "b9065d8d1d4f56da4c4dbec0047ee6fd"),
    "half": (0.5, "c290da5b79243ea9e34f8f159239042c"),
    "float": (0.1, "666e933fbd3d72bed59f2ad463bd03c5"),
    "infinity": (math.inf, "8b1ca42f3aa21c5a49da68ba148f4e06"),
    "nan": (math.nan, "8d9eef7b9fcf978720bf067adeed5301"),
    "complex": (1 - 2j, "ce19ee4a54bde70b2c90af4b293e3b43"),
    "decimal": (Decimal("0.1"), "75813ac05c0b701bc2ea7add5cc5a347"),
    "fraction": (Fraction(1, 3), "f9ff86a63cd3a90afc9fe6e0d11dcdd3"),
    "tuple": ((1, "a", (None,)), "8c03c75fb5f62845dbd18d45b56369c7"),
    "list": ([1, "a", [None]], "e0b30bddd259951bbf2896b5220f00d6"),
    "dict": ({"b": 1, "a": [2], 3: "c", (1,): None}, "f8b44091862ba36b528fd843c557f2b2"),
    "set": ({"b", "a", 1, 2.5, None, (1, 2), frozenset({3})}, "ae085633c80bf59f7ae39127d065efd7"),
    "date": (dt.date(2020, 2, 29), "90e66e3d353da6613171d7e740f12d62"),
    "datetime": (dt.datetime(2020, 2, 29, 12, 30, 1, 5), "555a2129eead49ae906deab984b4d6a0"),
    "instant": (
        dt.datetime(2020, 2, 29, 12, 30, tzinfo=dt.timezone(dt.timedelta(hours=2))),
        "cbf78fd307412143785f44b4ab9be455",
    ),
    "time": (dt.time(12, 30), "d8e992eebb25e1c507320e0b0bbe7e69"),
    "time with offset": (dt.time(12, 30, tzinfo=UTC), "3bf5d782db94274be0140fa92563ac05"),
    "timedelta": (dt.timedelta(days=-1, microseconds=1), "8fc278a5ef296b9a31c13ed516f82a23"),
    "uuid": (uuid.UUID("12345678123456781234567812345678"), "ea8e8234dfa870e29c58b23b53e7da9f"),
    "enum": (Colour.GREEN, "04fb56f8832861758db42850ed00a46e"),
    "int enum": (Level.HIGH, "649b985f62b8345e30dc590d56851b37"),
    "str enum": (Grade.B, "e3ca98cbe620ba532bb06b1b97cf4949"),
    "flag": (Access.READ | Access.WRITE, "0b64398970eeb39cd94d569a474af9a9"),
    "named tuple": (Point(1, 2), "05fc3d100167ed75600ce7bb0809aa4e"),
    "dataclass": (Ligand("a", 1, note=2), "e4ffa217833038121b416659b1bcab4d"),
    "registered": (Polymer(["C", "O"]), "c0a8c768d7997fa3a8f616e18cf0924e"),
    "scalar": (np.float32(0.1), "d36309cc91f4fa3296619dee0b16f047"),
    "array of no dimensions": (np.array(1.5), "82b1a2726a57a47304bb54c08d805c58"),
    "empty array": (np.zeros((0, 3)), "72b832123d493396017bcba3bb1368f9"),
    "uint8": (np.array([[0, 1, 2]], "uint8"), "6bf9e4a7afafda592cf65d250ad2232d"),
    "uint16": (np.array([[0, 1, 2]], "uint16"), "01d9ef6afeab678f341801ba3d9098aa"),
    "uint32": (np.array([[0, 1, 2]], "uint32"), "3b3ef0fd9baf4c2c2c7d79640d431f06"),
    "uint64": (np.array([[0, 1, 2]], "uint64"), "214d8822215bc4f5237a5dd27fb6f2e2"),
    "int8": (np.array([[0, 1, 2]], "int8"), "e585ea7578af2b6e7602a5230a8a9445"),
    "int16": (np.array([[0, 1, 2]], "int16"), "216e92e1e10e7f566bc895cc052e7c08"),
    "int32": (np.array([[0, 1, 2]], "int32"), "4ea5c9acfc9067c1bc418dd9b10d1149"),
    "int64": (np.array([[0, 1, 2]], "int64"), "12d405bbde428c78c372e35272fddb0c"),
    "float16": (np.array([[0, 1, 2]], "float16"), "941df06ceb88c41e2d7aebcef4fee557"),
    "float32": (np.array([[0, 1, 2]], "float32"), "4f82efe1f8e4d0963fac006b9386c6d3"),
    "float64": (np.array([[0, 1, 2]], "float64"), "ed09c0d59ec43e5c2a31f284b996e062"),
    "bool": (np.array([[0, 1, 2]], "bool"), "e159493fee14f47c3e88a0243b56891a"),
    "complex64": (np.array([[0, 1, 2]], "complex64"), "dcb028ab5128ebe399a9931493cf6b98"),
    "complex128": (np.array([[0, 1, 2]], "complex128"), "bdab6a27b2b8831b7fa718d474f6c0cf"),
    "bfloat16": (
        torch.tensor([0.0, -0.0, 1.5, math.nan]).bfloat16(),
        "49a0c0a46ec36cc3be03f0c231356d42",
    ),
    "tensor": (torch.tensor([[0.0, 1.0, 2.0]]), "4f82efe1f8e4d0963fac006b9386c6d3"),
}


def test_golden_digests() -> None:
    assert {name: digest(value).hex() for name, (value, _) in GOLDEN.items()} == {
        name: expected for name, (_, expected) in GOLDEN.items()
    }


@pytest.mark.slow
def test_another_process_with_another_hash_seed_agrees() -> None:
    """Hashes of this process have another seed, which Python has drawn."""
    script = (
        "import json, test_hashing as t; print(json.dumps({n: t.digest(v).hex() for n, (v, _) in "
        "t.GOLDEN.items()}))"
    )
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {name: expected for name, (_, expected) in GOLDEN.items()}


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(equal_pairs(max_leaves=6))
def test_equal_samples_have_one_digest(pair: tuple[object, object]) -> None:
    a, b = pair
    assert same(a, b)
    assert canonical_bytes(a) == canonical_bytes(b)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(samples(max_leaves=4), samples(max_leaves=4))
def test_two_samples_share_a_digest_only_if_equal(a: object, b: object) -> None:
    assert (digest(a) == digest(b)) == same(a, b)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(numbers(), numbers())
def test_two_numbers_share_a_digest_only_if_equal(a: object, b: object) -> None:
    assert (digest(a) == digest(b)) == same(a, b)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(hashables(), hashables())
def test_two_plain_samples_share_a_digest_only_if_equal(a: object, b: object) -> None:
    assert (digest(a) == digest(b)) == same(a, b)


def test_close_relatives_agree_with_python_in_every_pair() -> None:
    family = [
        *(0, 0.0, -0.0, False, 1, True, 1.0, 1 + 0j, Decimal("1.0"), Fraction(1), Level.LOW),
        *(
            0.1,
            Decimal("0.1"),
            Fraction(1, 10),
            Fraction(0.1),
            Decimal.from_float(0.1),
            0.5,
            1j,
            1 + 1j,
        ),
        *(
            2**53,
            2.0**53,
            2**53 + 1,
            2**64,
            2.0**64,
            10**22,
            1e22,
            10**23,
            1e23,
            2**1000,
            2.0**1000,
            -(2**64),
            -(2.0**64),
        ),
        *(
            "",
            "a",
            Smiles("a"),
            Grade.A,
            "1",
            b"",
            b"a",
            bytearray(b"a"),
            None,
            Colour.RED,
            Access.READ,
        ),
        *(
            (),
            [],
            {},
            set(),
            frozenset(),
            (1, 2),
            [1, 2],
            [1, [2]],
            Point(1, 2),
            {1, 2},
            frozenset({2, 1.0}),
            {1: 2},
        ),
        *(
            [()],
            ((),),
            [[]],
            {"a": 1, 1: "a"},
            defaultdict(int, [(1.0, "a"), ("a", True)]),
            defaultdict(int, {"a": 1}),
        ),
        *(
            dt.date(2020, 1, 1),
            dt.datetime(2020, 1, 1),
            dt.datetime(2020, 1, 1, tzinfo=UTC),
            dt.timedelta(0),
            dt.time(),
        ),
        *(
            dt.datetime(2020, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2))),
            dt.time(tzinfo=UTC),
            dt.timedelta(1),
        ),
        *(
            Ligand("a", 1),
            Ligand("a", 1.0, note=2),
            Ligand("a", 2),
            ("a", 1),
            {"name": "a", "pose": 1},
        ),
    ]
    for a, b in itertools.combinations(family, 2):
        assert (digest(a) == digest(b)) == bool(a == b), (a, b)


def test_every_nan_is_one() -> None:
    payload = np.array([0x7FF8000000000001, 0xFFF0000000000001], np.uint64).view(np.float64)
    nans = [
        math.nan,
        -math.nan,
        *payload,
        np.float16("nan"),
        Decimal("NaN"),
        Decimal("sNaN7"),
        complex(math.nan, 0),
    ]
    assert len(set(digests(nans))) == 1
    assert (
        digest(payload)
        == digest(np.array([math.nan, math.nan]))
        == digest(torch.tensor([math.nan] * 2).double())
    )
    assert digest([math.nan]) != digest([None])


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_is_its_dtype_shape_and_elements(dtype: str) -> None:
    array = np.arange(24).reshape(4, 6).astype(dtype)
    tensor = torch.from_numpy(array.copy())
    wide = np.zeros((4, 12), dtype)
    wide[:, ::2] = array
    one = [
        array,
        np.asfortranarray(array),
        array.astype(array.dtype.newbyteorder(">")),
        wide[:, ::2],
        tensor,
    ]
    one += [tensor.T.contiguous().T, torch.from_numpy(wide)[:, ::2]]
    one += (
        [] if dtype in ("uint16", "uint32", "uint64") else [tensor.to_sparse()]
    )  # torch has no such sparse ones
    others = [
        array.reshape(6, 4),
        array[::-1],
        array[None],
        array.tolist(),
        array.astype("complex128" if dtype != "complex128" else "complex64"),
    ]
    assert len(set(digests(one))) == 1
    assert len({digest(array), *digests(others)}) == 1 + len(others)


def test_arrays_have_no_negative_zero() -> None:
    for dtype in ("float16", "float32", "float64", "complex64", "complex128"):
        assert digest(-np.zeros(3, dtype)) == digest(np.zeros(3, dtype))
    assert digest(-torch.zeros(3, dtype=torch.bfloat16)) == digest(
        torch.zeros(3, dtype=torch.bfloat16)
    )
    assert digest(torch.tensor([-math.nan]).bfloat16()) == digest(
        torch.tensor([math.nan]).bfloat16()
    )


def test_tensors_are_equal_wherever_and_however_they_live() -> None:
    tensor = torch.tensor([[1 + 2j, 3 - 4j]])
    assert digest(tensor.conj()) == digest(tensor.conj().resolve_conj())
    assert digest(tensor[:1, :1].conj().imag) == digest(
        torch.tensor([[-2.0]])
    )  # a negative bit on what is contiguous
    weights = torch.nn.Parameter(torch.ones(2, 2))
    assert digest(weights) == digest(weights.detach()) == digest(np.ones((2, 2), np.float32))
    assert digest(torch.tensor(0.0)) == digest(torch.tensor(0.0)) != digest(0.0)


@pytest.mark.slow
def test_hashing_alone_does_not_import_torch() -> None:
    script = (
        "import sys, sqlbuffer.samples.hashing as h; h.digest([1, 'a']); sys.exit('torch' in "
        "sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(root)}, check=True
    )


def test_an_hour_that_comes_twice_is_two_instants() -> None:
    zone = zoneinfo.ZoneInfo("Europe/Berlin")
    first = dt.datetime(2023, 10, 29, 2, 30, tzinfo=zone)
    assert digest(first) != digest(first.replace(fold=1))
    assert digest(first) == digest(first.astimezone(UTC))
    assert digest(dt.datetime(2020, 1, 1)) == digest(dt.datetime(2020, 1, 1, fold=1))


def test_instants_at_the_ends_of_the_calendar() -> None:
    early, late = dt.timezone(dt.timedelta(hours=-12)), dt.timezone(dt.timedelta(hours=14))
    ends = [
        end.replace(tzinfo=zone)
        for end in (dt.datetime.min, dt.datetime.max)
        for zone in (early, UTC, late)
    ]
    assert len(set(digests(ends))) == len(ends)


@pytest.mark.slow
@given(st.lists(texts()))
def test_digests_of_strings_take_a_short_cut_to_the_same_place(values: list[str]) -> None:
    assert (
        digests(values)
        == [digest(value) for value in values]
        == digests([Smiles(value) for value in values])
    )


@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, 4095, 4096, 65535, 65536])
def test_long_strings_take_it_too(size: int) -> None:
    assert digests(["é" * size, "a" * size]) == [digest("é" * size), digest("a" * size)]
    assert canonical_bytes("a" * size).endswith(b"a" * size)


def test_the_bytes_are_a_version_and_deterministic_cbor() -> None:
    assert SCHEME == b"\x01"
    for value, expected in [
        (10.0, "0a"),
        (1.5, "f93e00"),
        (100000.5, "fa47c35040"),
        (0.1, "fb3fb999999999999a"),
        (-(2**64) - 1, "c349010000000000000000"),
        (math.inf, "f97c00"),
        (Decimal("0.1"), "d81e82010a"),
        ({"b": 1, "a": 2, 10: 3, -1: 4}, "a40a03200461610261 6201"),
        ([1, [True, None]], "82018201f6"),
        ({2, 1}, "d90102820102"),
        (np.array([[1, 2]], np.uint16), "d82882820102d8454401000200"),
        ((1,), "d81b82657475706c6501"),
    ]:
        assert canonical_bytes(value).hex() == "01" + expected.replace(" ", "")


def test_a_sample_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append({"again": (loop, loop)})
    with pytest.raises(InvalidArgument, match="contains itself"):
        digest(loop)
    nested: object = 1
    for _ in range(limits.MAX_DEPTH):
        nested = [nested]
    digest(nested)
    with pytest.raises(InvalidArgument, match="deeper than 64"):
        digest((nested,))


@pytest.mark.parametrize("text", ["1E+999999", "1E-999999", "-1E+20000", "1E+99999999999"])
def test_a_decimal_out_of_bounds_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(InvalidArgument, match="out of bounds"):
        digest(Decimal(text))
    assert time.perf_counter() - started < 1
    assert digest(Decimal("0E+999999")) == digest(0)


@dataclass
class Unregistered:
    x: int


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        (Unregistered(1), r"sqlbuffer\.register\(Unregistered\)"),
        (enum.Enum("Shade", "DARK").DARK, r"sqlbuffer\.register\(Shade\)"),
        (object(), r"sqlbuffer\.register\(object, encode=\.\.\., decode=\.\.\.\)"),
        ({"a": [deque()]}, "deque"),
        (Counter("ab"), "Counter"),
        (OrderedDict(a=1), r"dict\(sample\), or list\(sample\.items\(\)\)"),
        ([OrderedDict()], "in its own"),
        (range(3), "range"),
        (memoryview(b"a"), "memoryview"),
        (np.datetime64("2020-01-01"), "datetime64"),
        (np.timedelta64(1, "s"), "timedelta64"),
        (np.longdouble(1), "longdouble|float64"),
        (np.array(["2020-01-01"], "M8[D]"), r"tolist"),
        (np.array([None, 1]), "object"),
        (np.array(["a"]), "tolist"),
        (np.zeros(2, [("a", "i4")]), "tolist"),
        (np.ma.array([1, 2], mask=[0, 1]), "MaskedArray"),
        (torch.zeros(2, device="meta"), "meta"),
        (torch.zeros(2).to(torch.float8_e5m2), "float8_e5m2"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_advice(value: object, advice: str) -> None:
    with pytest.raises(UnsupportedType, match=advice):
        digest(value)


def test_a_name_belongs_to_one_class_and_a_class_has_one_name() -> None:
    @dataclass
    class First:
        x: int

    @dataclass
    class Second:
        x: int

    assert register(First, name="test: first") is First
    register(First, name="test: first")
    with pytest.raises(InvalidArgument, match=r"belongs to .*First.*name="):
        register(Second, name="test: first")
    with pytest.raises(InvalidArgument, match="registered as 'test: first'"):
        register(First, name="test: other")
    register(Second, name="test: second")
    assert digest(First(1)) != digest(Second(1))
    assert digest(First(1)) == digest(First(True))


def test_a_plain_class_needs_both_functions() -> None:
    class Plain:
        pass

    with pytest.raises(InvalidArgument, match="not a dataclass, named tuple or enum"):
        register(Plain)
    with pytest.raises(InvalidArgument, match="only one of"):
        register(Plain, encode=str)

    @dataclass
    class Derived(str):
        x: int = 0

    with pytest.raises(InvalidArgument, match="built-in type"):
        register(Derived)


def test_a_registered_class_is_hashed_by_what_it_encodes_to() -> None:
    assert digest(Polymer(["C", "O"])) == digest(Polymer(["C", "O"]))
    assert digest(Polymer(["C", "O"])) != digest(["C", "O"])
    assert digest([Polymer(["C"])]) != digest([Polymer(["N"])])
