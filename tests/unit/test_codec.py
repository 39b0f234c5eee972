"""Samples go into a database and come back as they were, and a payload from anywhere
does no harm.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import itertools
import os
import pickle
import resource
import subprocess
import sys
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
import numpy as np
import pytest
import torch
from cbor2 import CBORTag
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.strategies import Colour, Ligand, Point, Polymer, Smiles, exactly, samples, texts
from sqlbuffer.errors import InvalidArgument, InvalidPayload, UnsupportedType
from sqlbuffer.samples import limits
from sqlbuffer.samples.codec import decode_all, encode_all
from sqlbuffer.samples.hashing import digest, register
from sqlbuffer.samples.preview import TEXT_LENGTH


def round_trip(value: object) -> Any:
    return decode_all(*encode_all([value]))[0]


def payload_of(value: object) -> bytes:
    payload = encode_all([value]).payloads[0]
    assert payload is not None
    return payload


def read(payload: bytes) -> object:
    return decode_all([""], [payload], ["cbor"])[0]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(samples())
def test_a_sample_comes_back_as_it_was(value: object) -> None:
    restored = round_trip(value)
    assert exactly(value, restored)
    assert digest(restored) == digest(value)


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(samples(max_leaves=3), max_size=4))
def test_the_texts_are_readable_and_the_columns_aligned(values: list[object]) -> None:
    texts, payloads, codecs = encode_all(values)
    assert len(texts) == len(payloads) == len(codecs) == len(values)
    for text, payload, codec in zip(texts, payloads, codecs, strict=True):
        assert (payload is None) == (codec == "text")
        assert "\0" not in text
        text.encode()
        assert codec == "text" or 0 < len(text) <= TEXT_LENGTH


def test_a_flag_of_numpy_is_rendered_as_a_flag() -> None:
    assert encode_all([{"done": np.False_}, {"done": np.True_}])[0] == [
        "{'done': False}",
        "{'done': True}",
    ]


@given(texts())
def test_a_string_is_its_own_text_unless_no_database_takes_it(value: str) -> None:
    (text,), (payload,), (codec,) = encode_all([value])
    storable = "\0" not in value and not any(
        "\ud800" <= character <= "\udfff" for character in value
    )
    assert (codec, payload is None) == (("text", True) if storable else ("cbor", False))
    assert text == value if storable else text != value
    assert round_trip(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("C\0", r"'C\x00'"),
        ("\ud800", r"'\ud800'"),
        ((1, "a"), "(1, 'a')"),
        (10**5000, "<int of 16610 bits>"),
        (list(range(100)), "[0, 1, 2, 3, 4, 5, 6, 7, ...]"),
        (
            np.arange(6, dtype="f4").reshape(2, 3) / 10,
            "ndarray(float32, (2, 3): 0 0.1 0.2 0.3 0.4 0.5)",
        ),
        (torch.ones(20).bfloat16(), "Tensor(bfloat16, (20,): 1 1 1 1 1 1 1 1 ...)"),
        (Ligand("a", 1), "Ligand(name='a', pose=1, note=None)"),
        (Colour.RED, "<Colour.RED: 1>"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_renderings(value: object, text: str) -> None:
    assert encode_all([value]).texts == [text]


def test_subclasses_of_built_in_types_come_back_as_those() -> None:
    for value, expected in [
        (Smiles("CC"), "CC"),
        (np.str_("CC"), "CC"),
        (np.bytes_(b"CC"), b"CC"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (torch.Size([1, 2]), (1, 2)),
    ]:
        assert exactly(round_trip(value), expected)


def test_tensors_come_back_dense_on_the_cpu_and_without_gradient() -> None:
    weights = torch.nn.Parameter(torch.eye(2).T)
    restored = round_trip(weights)
    assert type(restored) is torch.Tensor
    assert not restored.requires_grad
    restored += 1  # writable
    assert torch.equal(round_trip(torch.eye(2).to_sparse()), torch.eye(2))
    swapped = round_trip(np.arange(3, dtype=">i4"))
    assert swapped.dtype == np.dtype("int32")
    assert swapped.flags.writeable


def test_a_named_zone_becomes_the_offset_it_had() -> None:
    class Zone(dt.tzinfo):
        def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
            return dt.timedelta(hours=1)

    value = dt.datetime(2020, 1, 1, tzinfo=Zone())
    restored = round_trip(value)
    assert restored == value
    assert restored.tzinfo == dt.timezone(dt.timedelta(hours=1))


def test_a_dataclass_is_restored_without_its_init() -> None:
    @register
    @dataclasses.dataclass(frozen=True)
    class Counted:
        x: int
        seed: dataclasses.InitVar[int]
        twice: int = dataclasses.field(init=False)

        def __post_init__(self, seed: int) -> None:
            object.__setattr__(self, "twice", 2 * self.x + seed)

    restored = round_trip(Counted(1, seed=5))
    assert (restored.x, restored.twice) == (1, 7)
    assert restored == Counted(1, 5)


def test_what_is_not_registered_is_refused_both_ways() -> None:
    @dataclasses.dataclass
    class Pose:
        x: int

    class Pair(NamedTuple):
        x: int

    for value in (
        Pose(1),
        Pair(1),
        enum.Enum("Shade", "DARK").DARK,
        enum.IntEnum("Rank", "TOP").TOP,
    ):
        with pytest.raises(UnsupportedType, match=r"not registered: call sqlbuffer\.register"):
            encode_all([[value]])
    with pytest.raises(UnsupportedType, match=r"register\(deque, encode=\.\.\., decode=\.\.\.\)"):
        encode_all([deque()])
    with pytest.raises(InvalidPayload, match=r"'Foreign'.*sqlbuffer\.register\(Foreign\)"):
        read(cbor2.dumps([CBORTag(27, ["tuple", CBORTag(27, ["object", "Foreign", {"x": 1}])])]))
    with pytest.raises(InvalidPayload, match="fields"):
        read(cbor2.dumps(CBORTag(27, ["object", "Ligand", {"x": 1}])))
    with pytest.raises(InvalidPayload):
        read(cbor2.dumps(CBORTag(27, ["object", "Colour", "BLUE"])))


def test_a_sample_that_contains_itself_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["again"] = [loop]
    with pytest.raises(InvalidArgument, match="contains itself"):
        encode_all([loop])


@pytest.mark.parametrize(
    ("wrap", "levels"),
    [
        (lambda x: [x], 1),
        (lambda x: (x,), 1),
        (lambda x: {1: x}, 1),
        (lambda x: Point(x, 0), 2),  # the object and its fields
        (lambda x: Ligand(x, 0), 2),
    ],
)
def test_the_deepest_sample_that_can_be_written_can_be_read(wrap: Any, levels: int) -> None:
    value: object = np.zeros(2, "c8")
    for _ in range(limits.MAX_DEPTH // levels):
        value = wrap(value)
    assert digest(round_trip(value)) == digest(value)
    with pytest.raises(InvalidArgument, match="deeper"):
        encode_all([wrap(value)])


def test_pickle_needs_a_request_and_a_type_without_other_support() -> None:
    queue = deque([1, 2])
    encoded = encode_all(["a", (1,), [queue]], allow_pickle=True)
    assert encoded.codecs == ["text", "cbor", "pickle"]
    assert decode_all(*encoded, allow_pickle=True) == ["a", (1,), [queue]]
    with pytest.raises(InvalidPayload, match="allow_pickle=True"):
        decode_all(*encoded)
    with pytest.raises(UnsupportedType, match="cannot be pickled"):
        encode_all([lambda: 1], allow_pickle=True)
    with pytest.raises(InvalidPayload):
        decode_all([""], [b"nonsense"], ["pickle"], allow_pickle=True)


@pytest.mark.slow
def test_reading_needs_neither_torch_nor_what_a_payload_names() -> None:
    payloads = [payload_of(value) for value in ((1, "a"), np.zeros(3), Decimal(1))]
    payloads.append(cbor2.dumps(CBORTag(27, ["object", "antigravity.Flight", {}])))
    script = (
        "import sys; from sqlbuffer.samples import codec; from sqlbuffer import errors\n"
        f"for payload in {payloads!r}:\n"
        "    try: codec.decode_all([''], [payload], ['cbor'])\n"
        "    except errors.InvalidPayload: pass\n"
        "sys.exit('torch' in sys.modules or 'antigravity' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(root)}, check=True
    )


TAG, ARRAY = 27, ["array", "float32", [2], bytes(8)]

MALFORMED = {
    "nothing": b"",
    "trailing bytes": payload_of([1]) + b"\0",
    "truncated": payload_of([1, (2, "abc")])[:-1],
    "indefinite": b"\x9f\x01\xff",
    "undefined": b"\x81\xf7",
    "undefined in a tuple": cbor2.dumps(CBORTag(TAG, ["tuple", [cbor2.undefined]])),
    "a simple value": b"\xe5",
    "keys that are no strings": cbor2.dumps({1: 2}),
    "a key twice": b"\xa2\x61a\x01\x61a\x02",
    "nested arrays": b"\x81" * 100_000 + b"\x01",
    "nested tags": b"\xd8\x1b" * 100_000 + b"\x01",
    "nested maps": b"\xa1\x61a" * 100_000 + b"\x01",
    "a long array": b"\x9b" + b"\x7f" * 8,
    "a long string": b"\x7b" + b"\x7f" * 8 + b"a",
    "long bytes": b"\x5b\0\0\0\x7f" + b"\xff" * 4 + b"a",
    "an array too short for its shape": cbor2.dumps(
        CBORTag(TAG, [*ARRAY[:2], [1 << 40, 1 << 40], b""])
    ),
    "an empty array of a huge shape": cbor2.dumps(
        CBORTag(TAG, [*ARRAY[:2], [0, 1 << 62, 1 << 62], b""])
    ),
    "an empty tensor of a huge shape": cbor2.dumps(
        CBORTag(TAG, ["tensor", "float32", [0, 1 << 62, 1 << 62], b""])
    ),
    "a negative shape": cbor2.dumps(CBORTag(TAG, [*ARRAY[:2], [-1, -2], bytes(8)])),
    "a shape of many dimensions": cbor2.dumps(CBORTag(TAG, [*ARRAY[:2], [1] * 1000, bytes(4)])),
    "an unknown dtype": cbor2.dumps(CBORTag(TAG, ["array", "object", [1], bytes(8)])),
    "a bfloat16 of numpy": cbor2.dumps(CBORTag(TAG, ["array", "bfloat16", [1], bytes(2)])),
    "a boolean of 2": cbor2.dumps(CBORTag(TAG, ["tensor", "bool", [1], b"\x02"])),
    "a scalar of two": cbor2.dumps(CBORTag(TAG, ["scalar", "float32", bytes(8)])),
    "bytes by their number": cbor2.dumps(CBORTag(TAG, ["bytearray", 1 << 29])),
    "an unknown kind": cbor2.dumps(CBORTag(TAG, ["os.system", "true"])),
    "no kind": cbor2.dumps(CBORTag(TAG, [])),
    "a kind without its parts": cbor2.dumps(CBORTag(TAG, ["decimal"])),
    "a half of a dict": cbor2.dumps(CBORTag(TAG, ["dict", 1])),
    "a list in a set": cbor2.dumps(CBORTag(258, [[1]])),
    "a set with a duplicate": cbor2.dumps(CBORTag(258, [1, 1.0])),
    "a ratio with zero": cbor2.dumps(CBORTag(30, [1, 0])),
    "a ratio in words": cbor2.dumps(CBORTag(30, ["1e999999999"])),
    "a short UUID": cbor2.dumps(CBORTag(37, b"1")),
    "no decimal": cbor2.dumps(CBORTag(TAG, ["decimal", "one"])),
    "no date": cbor2.dumps(CBORTag(1004, "2020-13-01")),
    "no time": cbor2.dumps(CBORTag(TAG, ["time", "25:00", 0])),
    **{
        f"tag {tag}": cbor2.dumps(CBORTag(tag, "a"))
        for tag in (0, 1, 4, 5, 25, 28, 29, 35, 36, 256, 260, 261, 55799)
    },
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_payloads_are_refused(payload: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidPayload):
        read(payload)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024  # KiB


COLLIDING: dict[str, Callable[[int], Any]] = {
    "integers": lambda i: i * (2**61 - 1),
    "ratios": lambda i: Fraction(i * (2**61 - 1), 7),
    "decimals": lambda i: Decimal(i * (2**61 - 1)),
    "complex numbers": lambda i: complex(2.0**40 - 1_000_003 * i, i),
    "UUIDs": lambda i: uuid.UUID(int=i * (2**61 - 1)),
    "tuples": lambda i: ("a", (i * (2**61 - 1),)),
    "frozensets": lambda i: frozenset({i * (2**61 - 1)}),
    "named tuples": lambda i: Point(i * (2**61 - 1), "a"),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", COLLIDING.values(), ids=COLLIDING.keys())
def test_elements_of_one_hash_cost_no_quadratic_time(make: Callable[[int], Any]) -> None:
    elements = [make(i) for i in range(1, 12_001)]
    assert len({hash(element) for element in elements[:100]}) == 1
    parts = [part for part in encode_all(elements).payloads if part is not None]
    few, many = containers(parts[:3_000]), containers(parts)
    for kind, payload in many.items():
        # Four times as long for four times as many; sixteen times if each met each.
        assert cost(payload) < 10 * cost(few[kind]) + 0.05, kind


def containers(parts: list[bytes]) -> dict[str, bytes]:
    """Return the payloads of sets and mappings of encoded elements."""
    many, pairs = b"".join(parts), b"".join(part + b"\x01" for part in parts)
    n, n_and_name = len(parts).to_bytes(2, "big"), (len(parts) + 1).to_bytes(2, "big")
    twice_and_name = (2 * len(parts) + 1).to_bytes(2, "big")
    return {
        "set": b"\xd9\x01\x02\x99" + n + many,
        "frozenset": b"\xd8\x1b\x99" + n_and_name + cbor2.dumps("frozenset") + many,
        "dict": b"\xd8\x1b\x99" + twice_and_name + cbor2.dumps("dict") + pairs,
        "map": b"\xb9" + n + pairs,
    }


def cost(payload: bytes) -> float:
    """Return the processor time of reading a payload that is refused, the least of three."""
    found = []
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(InvalidPayload):
            read(payload)
        found.append(time.process_time() - start)
    return min(found)


@pytest.mark.slow
def test_what_cannot_be_read_in_time_is_not_written() -> None:
    class Colliding(int):
        """So that the test itself need not wait: the set is built by other hashes."""

        def __hash__(self) -> int:
            return int.__hash__(self) if is_colliding else int.__hash__(int(self) // (2**61 - 1))

    is_colliding = False
    elements = [Colliding(i * (2**61 - 1)) for i in range(1, 20_001)]
    collections: list[Any] = [set(elements), frozenset(elements), dict.fromkeys(elements, 1)]
    start = time.process_time()
    assert len({digest(collection) for collection in collections}) == 2
    is_colliding = True
    for collection in collections:
        with pytest.raises(InvalidArgument, match="sorted list"):
            encode_all([(collection,)])
    with pytest.raises(InvalidArgument, match="tuple"):
        encode_all([Fraction(3**100_000, 2)])
    assert time.process_time() - start < 4.0


@pytest.mark.slow
def test_large_sets_and_dicts_are_read_as_ever() -> None:
    elements = range(-20_000, 20_000)  # -1 and -2 have one hash
    lattice = set(itertools.product(range(-3, 4), repeat=5))
    few = {i * (2**61 - 1) for i in range(1_000)}
    for value in (
        set(elements),
        dict.fromkeys(elements, "a"),
        lattice,
        frozenset(few),
        Fraction(3**40_000, 2**60_000),
    ):
        assert round_trip(value) == value


def test_a_huge_ratio_is_refused_at_once() -> None:
    huge = [3**400_000, 5**300_000]
    start = time.process_time()
    with pytest.raises(InvalidPayload, match="bits"):
        read(cbor2.dumps(CBORTag(30, huge)))
    assert time.process_time() - start < 0.2


def test_a_billion_laughs_are_refused() -> None:
    laughs: Any = CBORTag(28, ["ha"])
    for level in range(40):
        laughs = CBORTag(28, [laughs, CBORTag(29, level)])
    with pytest.raises(InvalidPayload, match="unknown tag 28"):
        read(cbor2.dumps(laughs))


@pytest.mark.parametrize(
    ("payload", "codec"), [(None, "cbor"), (None, "pickle"), (b"\x01", "yaml"), (b"\x01", "")]
)
def test_a_row_that_makes_no_sense_is_refused(payload: bytes | None, codec: str) -> None:
    with pytest.raises(InvalidPayload):
        decode_all(["1"], [payload], [codec], allow_pickle=True)


def survives(payload: bytes) -> None:
    try:
        value = read(payload)
    except InvalidPayload:
        return
    try:
        digest(value)
        round_trip(value)
    except (InvalidArgument, UnsupportedType):
        pass  # read in good order, yet too deep or out of bounds


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
@example(pickle.dumps(Decimal(1)))
def test_random_bytes_do_no_harm(payload: bytes) -> None:
    survives(payload)


SEEDS = [
    payload_of([1, -1.5, 2**70, (None, "abc"), {"a": b"x", 1: frozenset({1j})}]),
    payload_of(
        {
            Decimal("-1.50"),
            dt.date(2020, 1, 1),
            dt.datetime(2020, 1, 1, 1),
            dt.time(1),
            dt.timedelta(1),
        }
    ),
    payload_of(
        [
            np.arange(3, dtype="i2"),
            np.float32(1),
            np.array([True, False]),
            torch.ones(2, 1).bfloat16(),
        ]
    ),
    payload_of([Ligand("a", Point(1, 2)), Colour.RED, Polymer(["C"]), bytearray(b"a"), "\ud800"]),
]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2), st.binary(max_size=2))),
)
def test_mutated_payloads_do_no_harm(payload: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    mutated = bytearray(payload)
    for at, removed, inserted in edits:
        mutated[at : at + removed] = inserted
    survives(bytes(mutated))


class Nameless:
    """A class without a repr of its own."""

    def __init__(self, units: list[str]) -> None:
        self.units = units

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Nameless) and self.units == other.units

    def __hash__(self) -> int:
        return hash(tuple(self.units))


class Unspeakable(Nameless):
    """A class whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


@dataclasses.dataclass(frozen=True, repr=False)
class Quiet:
    """A dataclass without a repr."""

    part: Any


for _cls in (Nameless, Unspeakable):
    register(_cls, encode=lambda value: value.units, decode=_cls)
register(Quiet)


@pytest.mark.parametrize(
    ("sample", "text"),
    [
        (Nameless(["C", "O"]), "Nameless(['C', 'O'])"),
        (Unspeakable(["C", "O"]), "Unspeakable(['C', 'O'])"),
        (Quiet(1), "Quiet({'part': 1})"),
        (Quiet(Nameless(["C"])), "Quiet({'part': Nameless(['C'])})"),
        ([Nameless(["C"])], "[Nameless(['C'])]"),
        ({"a": (Nameless(["C"]),)}, "{'a': (Nameless(['C']),)}"),
        (Ligand(Nameless(["C"]), 1), "Ligand(name=Nameless(['C']), pose=1, note=None)"),
    ],
)
def test_a_class_without_a_repr_is_told_by_what_it_is_made_of(sample: object, text: str) -> None:
    """Not by its address in the memory of one process."""
    assert encode_all([sample]).texts == [text]


def test_what_is_pickled_has_no_address_in_its_text() -> None:
    (text,) = encode_all([Polymerase()], allow_pickle=True).texts
    assert text == f"<{__name__}.Polymerase object>"


class Polymerase:
    """A class that no process has registered."""
