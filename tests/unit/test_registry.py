"""The law of the hash on classes of every make: equal samples are one, others are not, or the class
is refused.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import itertools
import math
import uuid
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbuffer.errors import InvalidArgument, UnsupportedType
from sqlbuffer.samples import subclasses
from sqlbuffer.samples.canonical import _ENCODERS
from sqlbuffer.samples.codec import decode_all, encode_all
from sqlbuffer.samples.hashing import digest, register

HERE = __name__


def round_trip(value: object) -> Any:
    return decode_all(*encode_all([value]))[0]


def require_the_law(instances: list[Any], relatives: list[Any] = ()) -> None:  # type: ignore[assignment]
    """Instances are equal where their digests are, to each other and to plain values, and come back
    equal.
    """
    for a, b in itertools.product(instances, [*instances, *relatives]):
        assert (digest(a) == digest(b)) == bool(a == b), (a, b)
    for a in instances:
        assert round_trip(a) == a, a
        assert digest(round_trip(a)) == digest(a)


def is_registered(cls: type[Any]) -> bool:
    try:
        register(cls)
    except InvalidArgument as exc:
        assert "give encode=" in str(exc) or "rename the property" in str(exc)  # noqa: PT017
        return False
    return True


# --- equality as a class may have it

OWN_EQUALITY: dict[str, Callable[[Any, Any], Any]] = {
    "first field": lambda a, b: type(a) is type(b) and a.x == b.x,
    "identity": lambda a, b: a is b,
    "everything": lambda _a, _b: True,
    "nothing": lambda _a, _b: False,
    "by size": lambda a, b: type(a) is type(b) and abs(a.x) == abs(b.x) and abs(a.y) == abs(b.y),
    "case": lambda a, b: str(a).lower() == str(b).lower(),
}
FIELDS = st.sampled_from([0, 1, -1, 1.0, True, Decimal(1), 2])


@st.composite
def dataclasses_of_every_make(draw: st.DrawFn) -> type[Any]:
    eq = draw(st.booleans())
    options = {
        "eq": eq,
        "order": eq and draw(st.booleans()),
        "frozen": draw(st.booleans()),
        "unsafe_hash": draw(st.booleans()),
        "slots": draw(st.booleans()),
    }
    body: dict[str, Any] = {"__module__": HERE, "__qualname__": "Made"}
    if own := draw(st.none() | st.sampled_from([*OWN_EQUALITY])):
        body["__eq__"] = OWN_EQUALITY[own]
    if draw(st.booleans()) and not options["unsafe_hash"]:
        body["__hash__"] = lambda self: hash(type(self))
    base = draw(st.sampled_from(["none", "plain", "dataclass", "identity", "mixin"]))
    bases: tuple[type[Any], ...] = ()
    names = ["x", "y"]
    if base == "plain":
        bases = (type("Plain", (), {"__slots__": ()}),)
    elif base == "mixin":
        bases = (type("Mixin", (), {"__eq__": draw(st.sampled_from([*OWN_EQUALITY.values()]))}),)
    elif base in ("dataclass", "identity"):
        bases = (
            dataclasses.make_dataclass(
                "Base", ["x"], eq=base == "dataclass", frozen=options["frozen"], slots=True
            ),
        )
        names = draw(st.sampled_from([["y"], []]))
    fields = [(name, Any, dataclasses.field(compare=draw(st.booleans()))) for name in names]
    made = dataclasses.make_dataclass("Made", fields, bases=bases, namespace=body, **options)
    made.__module__ = HERE
    return made


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(dataclasses_of_every_make(), st.lists(st.tuples(FIELDS, FIELDS), min_size=2, max_size=4))
def test_a_dataclass_of_any_make_keeps_the_law_or_is_refused(
    cls: type[Any], values: list[tuple[Any, Any]]
) -> None:
    n_fields = len(dataclasses.fields(cls))
    if is_registered(cls):
        instances = [cls(*value[:n_fields]) for value in values]
        require_the_law(instances, [None, values[0], {"x": values[0][0]}])


@pytest.mark.parametrize(
    "options", [{}, {"order": True}, {"frozen": True}, {"unsafe_hash": True}, {"slots": True}]
)
@pytest.mark.parametrize("compared", [0, 1, 2])
def test_a_dataclass_as_it_is_made_is_not_refused(options: dict[str, bool], compared: int) -> None:
    fields = [(name, Any, dataclasses.field(compare=i < compared)) for i, name in enumerate("xy")]
    made = dataclasses.make_dataclass("Made", fields, **options)
    made.__module__ = HERE
    assert is_registered(made)
    assert is_registered(type("Derived", (made,), {"__module__": HERE, "__hash__": lambda self: 1}))
    require_the_law([made(a, b) for a, b in itertools.product((0, 1), (0, 1))])


def as_named_tuple(body: dict[str, Any]) -> type[Any]:
    class Pair(NamedTuple):
        x: Any
        y: Any

    return type("Pair", (Pair,), {"__module__": HERE, "__qualname__": "Pair", **body})


OF_TUPLES: dict[str, Any] = {
    "__eq__": OWN_EQUALITY["first field"],
    "__iter__": lambda self: iter("ab"),
    "__len__": lambda self: 7,
    "__getitem__": lambda self, i: i,
    "__contains__": lambda self, x: False,
    "__hash__": lambda self: 1,
    "x": property(lambda self: "hidden"),
    "__repr__": lambda self: "Pair",
    "note": "of the class",
}


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.sampled_from([*OF_TUPLES])),
    st.lists(st.tuples(FIELDS, FIELDS), min_size=2, max_size=4),
)
def test_a_named_tuple_of_any_make_keeps_the_law_or_is_refused(
    own: set[str], values: list[tuple[Any, Any]]
) -> None:
    cls = as_named_tuple({name: OF_TUPLES[name] for name in own})
    assert is_registered(cls) == own.isdisjoint({"__eq__", "__iter__"})
    if own.isdisjoint({"__eq__", "__iter__"}):
        require_the_law([tuple.__new__(cls, value) for value in values], values)


OF_ENUMS: dict[str, Any] = {
    "__eq__": OWN_EQUALITY["case"],
    "__int__": lambda self: 7,
    "__float__": lambda self: 7.0,
    "__str__": lambda self: "shown",
    "__len__": lambda self: 7,
    "name": property(lambda self: "hidden"),
    "__bool__": lambda self: False,
}
ENUMS: dict[str, tuple[tuple[type[Any], ...], tuple[Any, Any]]] = {
    "Enum": ((enum.Enum,), (1, "b")),
    "IntEnum": ((enum.IntEnum,), (1, 2)),
    "str": ((str, enum.Enum), ("a", "b")),
    "float": ((float, enum.Enum), (1.0, 2.5)),
    "Flag": ((enum.Flag,), (1, 2)),
    "IntFlag": ((enum.IntFlag,), (1, 2)),
    "date": ((dt.date, enum.Enum), ((2020, 1, 1), (2021, 1, 1))),
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*ENUMS]), st.sets(st.sampled_from([*OF_ENUMS]), max_size=3))
def test_an_enum_of_any_make_keeps_the_law_or_is_refused(kind: str, own: set[str]) -> None:
    bases, values = ENUMS[kind]
    namespace = enum.EnumMeta.__prepare__("Made", bases)
    for key, value in {"__module__": HERE, "__qualname__": "Made"}.items():
        namespace[key] = value
    for name in own:
        namespace[name] = OF_ENUMS[name]
    if "__eq__" in own:
        namespace["__hash__"] = lambda self: 1
    namespace["A"], namespace["B"] = values
    cls = enum.EnumMeta("Made", bases, namespace)
    if is_registered(cls):
        assert "__eq__" not in own
        members: list[Any] = [*cls]
        if issubclass(cls, enum.Flag):
            members += [members[0] | members[1], cls(0)]
        require_the_law(members, [1, 2, "a", "b", 2.5, dt.date(2020, 1, 1), "A", 7, 7.0])
        assert all(type(round_trip(member)) is cls for member in members)
    else:
        assert own & {"__eq__", "__int__", "__float__", "name"}


def test_an_enum_whose_members_are_dataclasses_keeps_the_law() -> None:
    @dataclasses.dataclass(frozen=True)
    class Body:
        mass: float

    class Planet(Body, enum.Enum):
        EARTH = 5.97
        MARS = 0.64

    assert is_registered(Planet)
    require_the_law([*Planet])

    @dataclasses.dataclass(frozen=True, eq=False)
    class Loose:
        mass: float

        def __eq__(self, other: object) -> bool:
            return other == "everything"

        __hash__ = object.__hash__

    class Moon(Loose, enum.Enum):
        IO = 1.0

    assert not is_registered(Moon)


# --- what derives from a built-in type

PLAIN: list[Any] = [
    *(
        "CCO",
        5,
        -(2**70),
        2.0,
        0.5,
        -0.0,
        1 + 2j,
        3 + 0j,
        b"CCO",
        bytearray(b"CC"),
        Decimal("1.50"),
        Fraction(1, 3),
    ),
    *((1, 2), [1, 2], {"a": 1}, {1: "a"}, {1, 2}, frozenset({1, 2}), uuid.UUID(int=5)),
    *(
        dt.date(2020, 1, 2),
        dt.datetime(2020, 1, 2, 3, 4, 5, 6),
        dt.time(1, 2, 3, 4),
        dt.timedelta(1, 2, 3),
    ),
    dt.datetime(2020, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)), fold=1),
    dt.time(1, 2, tzinfo=dt.timezone.utc),
    np.float32(0.1),
    np.int16(5),
]
OF_BUILT_INS: dict[str, Any] = {
    "__eq__": lambda self, other: True,
    "__ne__": lambda self, other: True,
    "__hash__": lambda self: 1,
    "__float__": lambda self: 7.0,
    "__int__": lambda self: 7,
    "__index__": lambda self: 7,
    "__trunc__": lambda self: 7,
    "__complex__": lambda self: 7j,
    "__bytes__": lambda self: b"seven",
    "__str__": lambda self: "seven",
    "__repr__": lambda self: "seven",
    "__len__": lambda self: 0,
    "__iter__": lambda self: iter([7]),
    "__getitem__": lambda self, key: 7,
    "__contains__": lambda self, key: False,
    "__radd__": lambda self, other: b"7",
    "__sub__": lambda self, other: dt.timedelta(7),
    "__floordiv__": lambda self, other: 7,
    "keys": lambda self: ["seven"],
    "values": lambda self: [7],
    "items": lambda self: [("seven", 7)],
    "copy": lambda self: {"seven": 7},
    "encode": lambda self, *_: b"seven",
    "is_integer": lambda self: True,
    "as_integer_ratio": lambda self: (7, 1),
    "as_tuple": lambda self: Decimal(7).as_tuple(),
    "is_nan": lambda self: True,
    "item": lambda self: 7,
    "isoformat": lambda self, *_: "2007-07-07",
    "utcoffset": lambda self, *_: dt.timedelta(hours=7),
    "replace": lambda self, **_: self,
    "date": lambda self: dt.date(2007, 7, 7),
    "timetz": lambda self: dt.time(7),
    "toordinal": lambda self: 7,
    **{
        name: property(lambda self: 7)
        for name in (
            "real",
            "imag",
            "numerator",
            "denominator",
            "year",
            "hour",
            "day",
            "days",
            "seconds",
            "fold",
        )
    },
    "int": property(lambda self: 7),
    "bytes": property(lambda self: bytes(16)),
    "dtype": property(lambda self: np.dtype("int8")),
}


def made_of(value: Any, own: set[str]) -> Any:
    """Return the value as an instance of a class that derives from its own, with other members."""
    base = type(value)
    body = {name: OF_BUILT_INS[name] for name in own}
    if (
        base is uuid.UUID
    ):  # its members are slots, which a property of the same name would hide from its constructor
        made = type("Made", (base,), {})(int=value.int)
        for name in body:
            setattr(type(made), name, body[name])
        return made
    cls = type("Made", (base,), {})
    if isinstance(value, Fraction):
        made = cls(value.numerator, value.denominator)
    elif isinstance(value, dt.datetime):
        made = cls.combine(value.date(), value.timetz())
    elif isinstance(value, dt.date):
        made = cls.fromordinal(value.toordinal())
    elif isinstance(value, dt.time):
        made = cls(value.hour, value.minute, value.second, value.microsecond, value.tzinfo)
    elif isinstance(value, dt.timedelta):
        made = cls(value.days, value.seconds, value.microseconds)
    else:
        made = cls(value)
    for name, member in body.items():
        setattr(cls, name, member)
    return made


def require_law_or_refusal(value: Any, own: set[str]) -> bool:
    """Return whether it was refused."""
    made = made_of(value, own)
    for sample, plain in ((made, value), ([made], [value])):
        try:
            found = digest(sample)
        except UnsupportedType as exc:
            assert "Made" in str(exc)  # noqa: PT017
            with pytest.raises(UnsupportedType):
                encode_all([sample])
            continue
        assert found == digest(plain)
        restored = round_trip(sample)
        assert restored == plain
        assert type(restored) is type(plain)
        return False
    return True


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_each_member_that_a_built_in_type_has_may_be_overridden(value: Any) -> None:
    assert not require_law_or_refusal(value, set())
    assert require_law_or_refusal(value, {"__eq__"})
    refused = {name for name in OF_BUILT_INS if require_law_or_refusal(value, {name})}
    base = next(
        base for base in type(value).__mro__ if base in subclasses.READ_BY or base is np.generic
    )
    assert refused == {"__eq__"} | (set(subclasses.READ_BY.get(base, ())) & OF_BUILT_INS.keys())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLAIN), st.sets(st.sampled_from([*OF_BUILT_INS]), max_size=6))
def test_a_subclass_of_a_built_in_type_counts_as_it_or_is_refused(
    value: Any, own: set[str]
) -> None:
    require_law_or_refusal(value, own)


def test_every_supported_type_says_how_its_subclasses_are_read() -> None:
    known = {*subclasses.READ_BY, type(None), bool}
    assert {cls for cls in _ENCODERS if not issubclass(cls, np.generic)} <= known


def test_a_registered_class_is_not_equal_to_a_built_in_value() -> None:
    class Smiles(str):
        pass

    class Canonical(str):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Canonical) and str(self) == str(other)

        __hash__ = str.__hash__

    class Rank(enum.IntEnum):
        LOW = 1

    for cls in (Smiles, as_named_tuple({}), Rank, OrderedDict, type("Own", (dict,), {}), int):
        with pytest.raises(
            InvalidArgument, match=r"is equal to a \w+ of the same value.*__eq__ and a __hash__"
        ):
            register(cls, encode=str, decode=cls)
    register(Canonical, encode=str, decode=Canonical)
    require_the_law([Canonical("C"), Canonical("N")], ["C", "N"])
    assert type(round_trip(Canonical("C"))) is Canonical


# --- what was stored before stays readable


def test_what_a_refused_class_has_stored_is_read_by_functions_under_the_same_digest() -> None:
    """Digests and payloads are those of the release before, which registered these classes without
    functions.
    """

    @dataclasses.dataclass(eq=False)
    class Pose:
        angle: int

    class Hue(enum.Enum):
        RED = "r"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Hue) and self.value == other.value

        __hash__ = enum.Enum.__hash__

    Pair = as_named_tuple(
        {"__eq__": lambda a, b: sorted(a) == sorted(b), "__hash__": lambda self: 1}
    )
    before = {
        Pose: (
            Pose(3),
            "9a0bd40cbcee67d67158d752799d1525",
            "d81b83666f626a65637464506f7365a165616e676c6503",
        ),
        Hue: (Hue.RED, "6a5fdd353cbaa6d46d0ecf86cf898044", "d81b83666f626a6563746348756563524544"),
        Pair: (
            Pair(2, 1),
            "40d12e80161e43d0ad77b0c9453927a9",
            "d81b83666f626a6563746450616972a2617802617901",
        ),
    }
    for cls in before:
        with pytest.raises(
            InvalidArgument, match=r"decode=, which gets .* for samples stored before"
        ):
            register(cls, name=f"{cls.__name__}")
    register(
        Pose,
        name="Pose",
        encode=lambda pose: {"angle": pose.angle},
        decode=lambda fields: Pose(**fields),
    )
    register(Hue, name="Hue", encode=lambda hue: hue.name, decode=Hue.__members__.__getitem__)
    register(
        Pair,
        name="Pair",
        encode=lambda pair: {"x": pair.x, "y": pair.y},
        decode=lambda f: Pair(f["x"], f["y"]),
    )
    for cls, (value, stored_digest, payload) in before.items():
        assert digest(value).hex() == stored_digest
        (restored,) = decode_all([""], [bytes.fromhex(payload)], ["cbor"])
        assert type(restored) is cls
        assert digest(restored) == digest(value)


def test_a_dataclass_that_lacks_a_field_is_refused_in_words() -> None:
    @register
    @dataclasses.dataclass
    class Late:
        x: int
        y: int = dataclasses.field(init=False)

    with pytest.raises(UnsupportedType, match=r"Late lacks a field .*'y'"):
        digest(Late(1))


# --- arrays and tensors


def test_arrays_with_operators_of_their_own_are_refused() -> None:
    class Metres(np.ndarray):
        def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
            return "metres"

    class Named(np.ndarray):
        """Equal as any array is."""

    assert digest(np.zeros(2).view(Named)) == digest(np.zeros(2))
    for value in (np.zeros(2).view(Metres), np.ma.array([1, 2], mask=[0, 1])):
        for function in (digest, lambda value: encode_all([value])):
            with pytest.raises(UnsupportedType, match="of its own and does not count as a ndarray"):
                function(value)


def test_tensors_with_operators_of_their_own_are_refused() -> None:
    class Named(torch.Tensor):
        pass

    class Equal(torch.Tensor):
        def __eq__(self, other: object) -> bool:  # type: ignore[override]
            return self is other

        __hash__ = torch.Tensor.__hash__

    class Units(torch.Tensor):
        @classmethod
        def __torch_function__(
            cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return super().__torch_function__(func, types, args, kwargs or {})

    assert digest(torch.zeros(2).as_subclass(Named)) == digest(torch.zeros(2))  # type: ignore[arg-type]
    lazy = [torch.nn.UninitializedParameter(), torch.nn.UninitializedBuffer()]
    own = [torch.zeros(2).as_subclass(cls) for cls in (Equal, Units)]  # type: ignore[arg-type]
    for value in (*own, *lazy):
        for function in (digest, lambda value: encode_all([value])):
            with pytest.raises(
                UnsupportedType, match=f"{type(value).__name__} is not a supported type"
            ):
                function(value)


def test_where_numpy_is_not_transitive_python_s_exact_value_decides() -> None:
    single, double = np.float32(0.1), np.float64(0.1)
    assert (
        single == 0.1 == double != single
    )  # numpy rounds Python's number to float32 before it compares
    assert digest(0.1) == digest(double) != digest(single) == digest(float(single))
    big, near = np.int64(2**53 + 1), 2.0**53
    assert big == near == 2**53 != big  # and here an integer to float64
    assert digest(2**53 + 1) == digest(big) != digest(near) == digest(2**53)
    assert math.isclose(float(single), 0.1, rel_tol=1e-7)
