"""Converters: one for each kind of argument, and every value of a kind, wherever it was computed,
is one.
"""

import collections
import io
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sqlbuffer._validation import (
    as_floats,
    as_ids,
    as_list,
    as_mask,
    as_name,
    as_names,
    as_rewards,
    as_scores,
    plain,
    require_choice,
    require_count,
    require_flag,
    require_int,
    require_real,
)
from sqlbuffer.errors import InvalidArgument, InvalidReward

INTS: list[Callable[[int], Any]] = [
    *(int, np.int8, np.int32, np.int64, np.uint8, np.uint64, np.array, torch.tensor),
    *(
        lambda n: torch.tensor(n, dtype=torch.int16),
        lambda n: np.array(n, dtype=np.uint16),
        lambda n: pd.Series([n])[0],
    ),
]
REALS: list[Callable[[float], Any]] = [
    *(float, np.float16, np.float32, np.float64, np.longdouble, np.array, torch.tensor, Fraction),
    *(
        lambda x: torch.tensor(x, requires_grad=True),
        lambda x: torch.tensor(x, dtype=torch.bfloat16),
    ),
]
NO_NUMBERS: list[Any] = [
    *(
        None,
        True,
        False,
        np.True_,
        np.array(False),
        torch.tensor(True),
        "1",
        b"1",
        1j,
        np.complex64(1),
    ),
    *(
        np.array([1]),
        torch.tensor([1]),
        [1],
        (1,),
        {1},
        {1: 1},
        pd.NA,
        pd.NaT,
        pd.Series([1]),
        object(),
    ),
    *(
        np.datetime64(1, "ns"),
        np.timedelta64(1, "ns"),
        torch.tensor(1j),
        torch.ones((), device="meta"),
        np.str_("1"),
    ),
]


@pytest.mark.parametrize("kind", INTS)
def test_an_integer_is_an_integer(kind: Callable[[int], Any]) -> None:
    for number in (0, 3, 100):
        found = require_int(kind(number), "n must be one")
        assert (type(found), found) == (int, number)
        assert type(require_real(kind(number), "x must be one")) is float


@pytest.mark.parametrize("kind", REALS)
def test_a_real_number_is_a_float(kind: Callable[[float], Any]) -> None:
    found = require_real(kind(0.5), "x must be one")
    assert (type(found), found) == (float, 0.5)
    with pytest.raises(InvalidArgument, match="n must be one; got"):
        require_int(kind(1.0) if kind is not Fraction else 0.5, "n must be one")


@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_what_is_no_number(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="n must be one; got"):
        require_int(value, "n must be one")
    with pytest.raises(InvalidArgument, match="x must be one; got"):
        require_real(value, "x must be one")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, np.float32("inf"), 10**400, np.longdouble("1e400")]
)
def test_a_number_is_finite(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="x must be one; got"):
        require_real(value, "x must be one")


@given(st.integers())
def test_an_integer_is_in_its_range(number: int) -> None:
    if -3 <= number <= 2**31 - 1:
        assert require_int(number, "", least=-3) == number
    else:
        with pytest.raises(InvalidArgument):
            require_int(number, "", least=-3)
    if number >= 0:
        assert require_count(number, "") == min(number, 2**31 - 1)


def test_an_integer_that_python_cannot_write_is_refused_all_the_same() -> None:
    with pytest.raises(
        InvalidArgument, match="n must be one; got <int, whose repr fails: ValueError>"
    ):
        require_int(10**5_000, "n must be one")


@pytest.mark.parametrize("kind", [bool, np.bool_, np.array, torch.tensor])
def test_a_flag_is_a_bool(kind: Callable[[bool], Any]) -> None:
    assert require_flag(kind(True), "flag") is True
    assert require_flag(kind(False), "flag") is False


@pytest.mark.parametrize("value", [0, 1, None, "True", np.int64(1), np.array([True]), pd.NA, 1.0])
def test_what_is_no_flag(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="flag must be True or False; got"):
        require_flag(value, "flag")


def test_names_and_choices_are_strings_of_python() -> None:
    assert type(as_name(np.str_("a"), "a name")) is str
    assert type(as_name(np.array("a"), "a name")) is str
    assert type(require_choice(np.str_("a"), "", ("a", "b"))) is str
    for value in (None, 1, b"a", "c", np.array(["a", "b"]), pd.DataFrame({"a": [1]})):
        with pytest.raises(InvalidArgument):
            require_choice(value, "", ("a", "b"))
    assert as_names(pd.Series(["a", "b"], [3, 1]), 2, "source") == ["a", "b"]
    assert as_names(np.array(["a", "b"]), 2, "source") == ["a", "b"]


IDS: list[Callable[[list[int]], Any]] = [
    *(list, tuple, np.array, torch.tensor, pd.Series, pd.Index, lambda ids: map(int, ids)),
    *(
        lambda ids: np.array(ids, dtype=np.uint64),
        lambda ids: [np.int64(i) for i in ids],
        lambda ids: pd.Series(ids, ids),
    ),
    *(
        lambda ids: [torch.tensor(i) for i in ids],
        lambda ids: pd.Series(ids, dtype="Int64"),
        lambda ids: pa.array(ids),
    ),
]


@pytest.mark.parametrize("kind", IDS)
def test_a_list_of_ids(kind: Callable[[list[int]], Any]) -> None:
    found = as_ids(kind([3, 1, 2]))
    assert found == [3, 1, 2]
    assert {type(number) for number in found} == {int}


@pytest.mark.parametrize(
    "ids",
    [
        *(
            None,
            1,
            "12",
            b"12",
            {1, 2},
            {1: 2},
            [1.0],
            [None],
            ["1"],
            [True, 2],
            [[1], [2]],
            [[1], [2, 3]],
            1.5,
        ),
        *(
            np.array(1),
            np.eye(2, dtype=int),
            np.array([1.0]),
            np.array([True]),
            np.array([2**63], np.uint64),
            [2**64],
        ),
        *(
            torch.tensor(1),
            torch.eye(2),
            torch.ones(2, device="meta"),
            pd.Series([1, None]),
            pd.DataFrame({"x": [1]}),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_list_of_ids(ids: Any) -> None:
    with pytest.raises(
        InvalidArgument, match=r"ids must be a list of integers, such as batch.ids; got"
    ):
        as_ids(ids)


FLOATS: list[Callable[[list[float]], Any]] = [
    *(
        list,
        tuple,
        np.array,
        torch.tensor,
        pd.Series,
        lambda xs: [torch.tensor(x) for x in xs],
        lambda xs: np.array(xs, object),
    ),
    *(
        lambda xs: np.array(xs, np.float16),
        lambda xs: torch.tensor(xs, requires_grad=True),
        lambda xs: pd.Series(xs, [9, 7]),
    ),
    *(lambda xs: torch.tensor(xs, dtype=torch.bfloat16), lambda xs: [np.float32(x) for x in xs]),
    *(
        lambda xs: [Fraction(x) for x in xs],
        lambda xs: [torch.tensor(x, requires_grad=True) for x in xs],
    ),
]


@pytest.mark.parametrize("kind", FLOATS)
def test_a_list_of_floats(kind: Callable[[list[float]], Any]) -> None:
    for found in (as_floats(kind([0.5, 2.0])).tolist(), as_rewards(kind([0.5, 2.0]), 2)):
        assert found == [0.5, 2.0]
        assert {type(number) for number in found} == {float}


@pytest.mark.parametrize(
    "values",
    [
        *(
            ["1", "2"],
            np.array(["1", "2"]),
            np.array(["1", "2"], object),
            [b"1", b"2"],
            pd.Series(["1", "2"]),
            [1j, 2j],
        ),
        *(
            np.array(["2020", "2021"], "M8[s]"),
            pd.Series(pd.to_datetime(["2020", "2021"])),
            [pd.NaT, pd.NaT],
            "12",
        ),
        *(
            [[1.0], [2.0]],
            np.eye(2),
            torch.eye(2),
            pd.DataFrame({"x": [1.0, 2.0]}),
            torch.ones(2, device="meta"),
            {1, 2},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_text_and_times_are_no_measurements(values: Any) -> None:
    with pytest.raises(InvalidReward, match="rewards must be 2 numbers, one for each sample; got"):
        as_rewards(values, 2)
    with pytest.raises(InvalidArgument):
        as_scores(values, 2)


def test_measurements_that_are_flags_count_as_0_and_1() -> None:
    for values in (
        [True, False],
        np.array([True, False]),
        torch.tensor([True, False]),
        pd.Series([True, False]),
    ):
        assert as_rewards(values, 2) == [1.0, 0.0]
    assert as_scores([True, False], 2).tolist() == [1.0, 0.0]


def test_scores_may_be_a_tensor_with_gradients() -> None:
    scores = torch.tensor([0.5, torch.inf], requires_grad=True)
    for values in (scores, scores.bfloat16(), list(scores)):
        assert as_scores(values, 2).tolist() == pytest.approx([0.5, np.nan], nan_ok=True)


class Row(collections.namedtuple("Row", "smiles weight")):
    """A sample of two fields."""


ONE_SAMPLE: list[Any] = [
    *(
        "CCO",
        b"CCO",
        bytearray(b"CCO"),
        memoryview(b"CCO"),
        np.str_("CCO"),
        collections.UserString("CCO"),
        {"a": 1},
    ),
    *(
        {1, 2},
        frozenset({1}),
        Row("CCO", 1.0),
        np.array(1),
        np.float64(1),
        torch.tensor(1),
        5,
        None,
        1.5,
        object(),
    ),
    collections.OrderedDict(a=1),
]


@pytest.mark.parametrize("one", ONE_SAMPLE, ids=lambda value: type(value).__name__)
def test_one_sample_is_no_list(one: Any) -> None:
    with pytest.raises(
        InvalidArgument, match=rf"list, got one {type(one).__name__}: put it into a list\."
    ):
        as_list(one)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8)), torch.zeros(2, 3), np.zeros((0, 3)), np.zeros((2, 2, 2), bool)]
)
def test_an_image_is_no_list(image: Any) -> None:
    with pytest.raises(
        InvalidArgument, match=r"of shape \(.*put it into a list, or use add_one.*list\(\.\.\.\)"
    ):
        as_list(image)
    assert len(as_list([image])) == 1
    assert len(as_list(list(image))) == len(image)


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"x": [1]}),
        pd.DataFrame(),
        pa.table({"x": [1]}),
        pa.table({"x": [1]}).to_batches()[0],
    ],
)
def test_a_table_is_no_list(table: Any) -> None:
    with pytest.raises(
        InvalidArgument, match=r"which is a table: give one column.*to_dict\('records'\)"
    ):
        as_list(table)


def test_a_file_is_no_list() -> None:
    with pytest.raises(
        InvalidArgument, match=r"got a file: give its lines, such as file.read\(\)\.splitlines\(\)"
    ):
        as_list(io.StringIO("CCO\nCCN\n"))


LISTS: list[Callable[[list[str]], Any]] = [
    *(
        list,
        tuple,
        iter,
        np.array,
        pd.Series,
        pd.Index,
        lambda xs: pd.Series(xs, [7, 3]),
        collections.deque,
    ),
    *(
        lambda xs: (x for x in xs),
        lambda xs: np.array(xs, object),
        lambda xs: pd.Series(xs, dtype="category"),
    ),
    *(
        lambda xs: pd.Series(xs, ["columns", "ndim"]),
        lambda xs: dict(enumerate(xs)).values(),
        pa.array,
    ),
]


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_samples(kind: Callable[[list[str]], Any]) -> None:
    assert as_list(kind(["b", "a"])) == ["b", "a"]


@pytest.mark.parametrize(
    "kind",
    [list, tuple, np.array, torch.tensor, pd.Series, lambda xs: pd.Series(xs, dtype="boolean")],
)
def test_a_mask(kind: Callable[[list[bool]], Any]) -> None:
    assert as_mask(kind([True, False]), 2, "give bools").tolist() == [True, False]


@pytest.mark.parametrize(
    "flags",
    [
        [1, 0],
        [0.5, 1.0],
        "ab",
        ["", "x"],
        [True],
        np.eye(2, dtype=bool),
        None,
        [None, True],
        [0, 1],
    ],
)
def test_what_is_no_mask(flags: Any) -> None:
    with pytest.raises(InvalidArgument, match="give bools; got"):
        as_mask(flags, 2, "give bools")


def test_plain_leaves_alone_what_it_does_not_know() -> None:
    for value in (
        object(),
        [1],
        np.array([1]),
        torch.tensor([1]),
        np.datetime64("2020"),
        torch.ones((), device="meta"),
    ):
        assert plain(value) is value
