"""Conditions on values of the metas of every type: both databases find what Python finds."""

import math
import operator
from collections.abc import Callable
from typing import Any

import pyarrow
import pytest

from sqlbuffer.errors import InvalidArgument
from sqlbuffer.store import SampleStore, open_store

NewStore = Callable[..., SampleStore]
Meta = dict[str, Any]

LARGE = 2**53
VALUES: list[Any] = [
    *(3, 0, -7, LARGE, LARGE + 1, LARGE + 2, 2**63 - 1, 2**63, 10**20, 7),
    *(1, 1.0, 0.0, 2.5, 7.0, 0.1, -0.5, 1e20, 1e16, 0.30000000000000004, math.nan),
    *(True, False, None),
    *("abc", "ABC", "Abc", "é", "É", "", "b", "true", "it's", "a%b"),
    *("7", " 7 ", "007", "1e2", "-0.5", "+7", ".5", "7.", "0x1F", "9007199254740993", "7 g", "NaN"),
    *(
        [],
        [1],
        ["a", 7],
        {},
        {"k": 7},
        {"k": "v"},
        {"k": None},
        {"k": True},
        {"k": {"j": [5, "w"]}},
    ),
]
"""Values under the name `x`."""
NUMBERS = [5, 2.5, -2, 0, LARGE + 1, 10, 0.1, 3]
TEXTS = ["a", "B", "é", "", "it's"]
ROWS: list[Meta | None] = [
    {
        "x": value,
        "n": NUMBERS[i % len(NUMBERS)],
        "m": NUMBERS[i % 3],
        "t": TEXTS[i % len(TEXTS)],
        "u": TEXTS[i % 2],
        "b": i % 3 == 0,
        "w": i - 5,
        "l": [i] * (i % 4),
        "größe": i,
        'it\'s "odd" %(x)s': {"a.b": i, "größe": [i]},
    }
    for i, value in enumerate(VALUES)
]
ROWS += [None, {}, {"X": 3}]


def number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return value if abs(value) < 2**63 else float(value)


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def flag(value: Any) -> bool | None:
    """Return the flag that a value is: many files have 1 and 0 for true and false."""
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None or found != int(found) or abs(found) >= 2**63 else int(found)


def cast_number(value: Any) -> Any:
    """Text that is a number of JSON is a number, too."""
    known = {"7": 7, " 7 ": 7, "1e2": 100.0, "-0.5": -0.5, "9007199254740993": LARGE + 1}
    return known.get(value) if isinstance(value, str) else number(value)


def within(value: Any, *path: Any) -> Any:
    for key in path:
        is_list = isinstance(value, list) and isinstance(key, int) and key < len(value)
        is_object = isinstance(value, dict) and key in value
        value = value[key] if is_list or is_object else None
    return value


def of(
    kind: Callable[[Any], Any],
    test: Callable[..., Any],
    *names: str,
) -> Callable[[Meta], Any]:
    """Return a test of values of one type, which is unknown (None) if a value is missing."""

    def ask(meta: Meta) -> Any:
        values = [kind(meta.get(name)) for name in names or ("x",)]
        return None if None in values else test(*values)

    return ask


def inner(*path: Any, test: Callable[[Any], Any], kind: Any = number) -> Callable[[Meta], Any]:
    def ask(meta: Meta) -> Any:
        value = kind(within(meta, *path))
        return None if value is None else test(value)

    return ask


def either(value: Any, other: Any) -> Any:
    return other if value is None else value


def present(meta: Meta) -> bool:
    value = meta.get("x")
    return value is not None and value == value


FOUND: dict[str, Callable[[Meta], Any]] = {
    # literals
    "meta.x = 7": of(number, lambda x: x == 7),
    "meta.x <> 7": of(number, lambda x: x != 7),
    "NOT meta.x = 7": of(number, lambda x: x != 7),
    "meta.x >= 2.5": of(number, lambda x: x >= 2.5),
    "-meta.x > 0": of(number, lambda x: x < 0),
    "meta.x < -0.4": of(number, lambda x: x < -0.4),
    "1e-1 = meta.x": of(number, lambda x: x == 0.1),
    "meta.x = 9007199254740992": of(number, lambda x: x == LARGE),
    "meta.x = 9007199254740993": of(number, lambda x: x == LARGE + 1),
    "meta.x > 9007199254740992": of(number, lambda x: x > LARGE),
    "meta.x = 9223372036854775807": of(number, lambda x: x == 2**63 - 1),
    "meta.x > 9223372036854775807": of(number, lambda x: x > 2**63 - 1),
    "meta.x = 1e20": of(number, lambda x: x == 1e20),
    "meta.x = 0.30000000000000004": of(number, lambda x: x == 0.1 + 0.2),
    "meta.x IN (7, 2.5)": of(number, lambda x: x in (7, 2.5)),
    "meta.x NOT IN (7, 2.5)": of(number, lambda x: x not in (7, 2.5)),
    "meta.x BETWEEN 0 AND 7 AND sample <> ''": of(number, lambda x: 0 <= x <= 7),
    "meta.x NOT BETWEEN -1 AND +7": of(number, lambda x: not -1 <= x <= 7),
    "meta.x = '7'": of(text, lambda x: x == "7"),
    "meta.x = 'it''s'": of(text, lambda x: x == "it's"),
    "meta.x > 'a'": of(text, lambda x: x > "a"),
    "meta.x BETWEEN 'A' AND 'b'": of(text, lambda x: "A" <= x <= "b"),
    "meta.x LIKE '%7%'": of(text, lambda x: "7" in x),
    "meta.x LIKE 'a\\%b' ESCAPE '\\'": of(text, lambda x: x == "a%b"),
    "meta.x = ''": of(text, lambda x: x == ""),
    "meta.x = true": of(flag, lambda x: x),
    "meta.x <> TRUE": of(flag, lambda x: not x),
    "meta.x IS TRUE": of(flag, lambda x: x),
    "meta.x IS NOT TRUE": lambda meta: flag(meta.get("x")) is not True,
    "meta.x": of(flag, lambda x: x),
    "NOT (meta.x)": of(flag, lambda x: not x),
    "meta.b AND NOT meta.x": lambda meta: flag(meta.get("x")) is False and meta["b"],
    "(meta.x > 2) = meta.b": lambda meta: (
        None
        if number(meta.get("x")) is None or "b" not in meta
        else (number(meta["x"]) > 2) == meta["b"]
    ),
    # presence
    "meta.x IS NULL": lambda meta: not present(meta),
    "(meta.x) IS NOT NULL": present,
    "((meta.x)) IS NULL OR meta.x IS NULL": lambda meta: not present(meta),
    "meta.none IS NULL": lambda _: True,
    "coalesce(meta.x, meta.none) IS NULL": lambda meta: not present(meta),
    "meta.x->>'k' IS NULL": lambda meta: within(meta, "x", "k") is None,
    # functions
    "lower(meta.x) = 'abc'": of(text, lambda x: x in ("abc", "ABC", "Abc")),
    "upper(meta.x) = 'É'": of(text, lambda x: x == "É"),
    "length(meta.x) = 1": of(text, lambda x: len(x) == 1),
    "length(meta.x) > meta.w": lambda meta: (
        isinstance(meta.get("x"), str) and len(meta["x"]) > meta["w"]
    ),
    "substr(meta.x, 2, 1) = 'b'": of(text, lambda x: x[1:2] == "b"),
    "replace(meta.x, 'b', '') = 'ac'": of(text, lambda x: x.replace("b", "") == "ac"),
    "trim(meta.x) = '7'": of(text, lambda x: x.strip(" ") == "7"),
    "abs(meta.x) = 7": of(number, lambda x: abs(x) == 7),
    "abs(meta.x) = 9007199254740993": of(number, lambda x: abs(x) == LARGE + 1),
    "floor(meta.x) = 2": of(number, lambda x: math.floor(x) == 2),
    "round(meta.x) = 3": of(number, lambda x: math.floor(x + 0.5) == 3),
    "round(meta.x / 3, 1) = 0.8": of(number, lambda x: round(x / 3, 1) == 0.8),
    "abs(meta.x) / 2 = 3.5": of(number, lambda x: abs(x) == 7),
    "coalesce(meta.x, 0) > 3": lambda meta: either(number(meta.get("x")), 0) > 3,
    "coalesce(meta.x, 'abc') = 'abc'": lambda meta: either(text(meta.get("x")), "abc") == "abc",
    "coalesce(meta.x, false)": of(flag, lambda x: x),
    "coalesce(meta.x, 5) / 2 = 2.5": lambda meta: either(number(meta.get("x")), 5) == 5,
    "sign(meta.w) / 2 = 0.5": of(whole, lambda w: w > 0, "w"),
    "mod(meta.w, 3) / 2 = 0.5": of(whole, lambda w: math.fmod(w, 3) == 1, "w"),
    "meta.w % 3 / 2 = 0.5 AND meta.w > 0": of(whole, lambda w: w > 0 and w % 3 == 1, "w"),
    "(meta.w & 3) / 2 = 1.5": of(whole, lambda w: w & 3 == 3, "w"),
    "length(meta.t) / 2 = 0.5": of(text, lambda t: len(t) == 1, "t"),
    "length(meta.t) * 3 / 2 / 2 = 0.75": of(text, lambda t: len(t) == 1, "t"),
    "CASE WHEN meta.b THEN 1 ELSE 0 END / 2 = 0.5": of(flag, lambda b: b, "b"),
    "(-meta.w) / (2) = 0.5": of(whole, lambda w: w == -1, "w"),
    "nullif(meta.n, meta.m) IS NULL": lambda meta: (
        number(meta.get("n")) is None or number(meta.get("n")) == number(meta.get("m"))
    ),
    "nullif(meta.x, 7) > 2": of(number, lambda x: x != 7 and x > 2),
    "CASE WHEN meta.x > 1 THEN 'big' ELSE 'small' END = 'big'": of(number, lambda x: x > 1),
    "CASE WHEN meta.x > 1 THEN meta.n ELSE -1 END > 2": lambda meta: (
        number(meta.get("x")) is not None and number(meta["x"]) > 1 and meta["n"] > 2
    ),
    "CASE WHEN meta.b THEN meta.x END = 'abc'": lambda meta: (
        flag(meta.get("b")) and text(meta["x"]) == "abc"
    ),
    "CASE meta.x WHEN 7 THEN true ELSE false END": lambda meta: number(meta.get("x")) == 7,
    # operators
    "meta.x + 1 = 8": of(number, lambda x: x + 1 == 8),
    "meta.x * 3 = 0.3": of(number, lambda x: x * 3 == 0.3),
    "meta.x / 2 = 3.5": of(number, lambda x: x / 2 == 3.5),
    "7 / (meta.x - 0.5) > 2": of(number, lambda x: x != 0.5 and 7 / (x - 0.5) > 2),
    "meta.x % 2 = 1": of(whole, lambda x: x > 0 and x % 2 == 1),
    "10 % nullif(meta.w, 0) = 1": of(whole, lambda w: w != 0 and math.fmod(10, w) == 1, "w"),
    "length(meta.x) % 2 = 1": of(text, lambda x: len(x) % 2 == 1),
    "meta.w % 10 % 3 = 1": of(whole, lambda w: math.fmod(math.fmod(w, 10), 3) == 1, "w"),
    "meta.x || '!' = 'abc!'": of(text, lambda x: x == "abc"),
    "meta.t || meta.u = 'aa'": of(text, lambda t, u: t + u == "aa", "t", "u"),
    "meta.x || meta.t IS NULL": lambda meta: text(meta.get("x")) is None,
    # other values and columns
    "meta.n = meta.m": of(number, operator.eq, "n", "m"),
    "meta.n - meta.m > 2": of(number, lambda n, m: n - m > 2, "n", "m"),
    "meta.t = meta.u": of(text, operator.eq, "t", "u"),
    "meta.t < meta.u": of(text, operator.lt, "t", "u"),
    "meta.n": lambda _: None,
    "meta.x > reward": of(number, lambda x: x > 4),
    "meta.x < reward + meta.n": lambda meta: (
        number(meta.get("x")) is not None and meta["x"] < 4.0 + meta["n"]
    ),
    "meta.x = source": of(text, lambda x: x == "abc"),
    "meta.x = key": lambda _: None,
    "meta.x = queued": of(flag, lambda x: not x),
    "meta.x IN (SELECT reward + 3 FROM samples)": of(number, lambda x: x == 7),
    "meta.x IN (SELECT source FROM samples WHERE meta.n > 3)": lambda meta: (
        meta.get("x") == "abc" and meta["n"] > 3
    ),
    "EXISTS (SELECT 1 FROM samples AS s WHERE s.reward < meta.x)": of(number, lambda x: x > 4),
    "meta.n IN (meta.m, 10)": of(number, lambda n, m: n in (m, 10), "n", "m"),
    "(meta.n, meta.t) = (5, 'a')": lambda meta: (meta.get("n"), meta.get("t")) == (5, "a"),
    "(meta.n, meta.t) IN ((5, 'a'), (3, 'B'))": lambda meta: (
        (meta.get("n"), meta.get("t")) in ((5, "a"), (3, "B"))
    ),
    # casts
    "CAST(meta.x AS REAL) > 6": lambda meta: (
        cast_number(meta.get("x")) is not None and cast_number(meta["x"]) > 6
    ),
    "CAST(meta.x AS double precision) = 9007199254740993": lambda meta: (
        cast_number(meta.get("x")) == LARGE + 1
    ),
    "CAST(meta.x AS REAL) / 2 = 3.5": lambda meta: cast_number(meta.get("x")) == 7,
    "(meta.x)::numeric = 7": lambda meta: cast_number(meta.get("x")) == 7,
    "CAST(meta.w AS TEXT) LIKE '1%'": of(whole, lambda w: str(w).startswith("1"), "w"),
    "meta.w::text = '-5' OR meta.t::TEXT = 'a'": lambda meta: (
        meta.get("w") == -5 or meta.get("t") == "a"
    ),
    "CAST(meta.b AS TEXT) = 'true'": of(flag, lambda b: b, "b"),
    "CAST(meta.x AS BOOLEAN)": of(flag, lambda x: x),
    "CAST(meta.n AS REAL) = CAST(meta.x AS REAL)": lambda meta: (
        "n" in meta and cast_number(meta["x"]) == meta["n"]
    ),
    # nested values
    "meta.x->>'k' = 7": inner("x", "k", test=lambda k: k == 7),
    "meta.x->>'k' = 'v'": inner("x", "k", kind=text, test=lambda k: k == "v"),
    "meta.x->>'k'": inner("x", "k", kind=flag, test=lambda k: k),
    "meta.x->>0 = 1": inner("x", 0, test=lambda k: k == 1),
    "meta.x->>1 = 7": inner("x", 1, test=lambda k: k == 7),
    "(meta.x -> 'k' -> 'j' ->> 1) = 'w'": inner(
        "x", "k", "j", 1, kind=text, test=lambda k: k == "w"
    ),
    "CAST(meta.x->>'k' AS TEXT) = 'true'": inner("x", "k", kind=flag, test=lambda k: k),
    "meta.l->>0 > 5": inner("l", 0, test=lambda k: k > 5),
    "meta.l IS NULL": lambda meta: "l" not in meta,
    # names
    "meta.größe > 5": of(number, lambda g: g > 5, "größe"),
    'meta."it\'s ""odd"" %(x)s"->>\'a.b\' = 5': lambda meta: meta.get("größe") == 5,
    'meta."it\'s ""odd"" %(x)s"->\'größe\'->>0 = 5': lambda meta: meta.get("größe") == 5,
    "meta.X = 3": of(number, lambda x: x == 3, "X"),
    "meta.none = meta.none OR lower(meta.none) = '' OR abs(meta.none) > 0": lambda _: None,
}
"""Conditions, and what Python says of a meta."""

OF_ONE_DATABASE: dict[str, dict[str, Callable[[Meta], Any]]] = {
    "sqlite": {
        "meta.x NOT NULL": present,
        "meta.b AND reward NOT NULL": of(flag, lambda b: b, "b"),
    },
    "postgresql": {
        "meta.n ^ 2 = 25": of(number, lambda n: n == 5, "n"),
        "meta.b AND reward ^ 2 = 16": of(flag, lambda b: b, "b"),
        "meta.t ^@ 'it'": of(text, lambda t: t == "it's", "t"),
        "meta ? 'b' AND meta.b": of(flag, lambda b: b, "b"),
        "meta.l @> '[3]'": lambda meta: 3 in meta.get("l", []),
        "measured_at > now() - interval '1 day' AND meta.b": of(flag, lambda b: b, "b"),
        "meta.b AND measured_at AT TIME ZONE 'UTC' > '2020-01-01'": of(flag, lambda b: b, "b"),
        "meta.n = ANY ('{5, 10}')": of(number, lambda n: n in (5, 10), "n"),
    },
}
"""Conditions with words and operators that one of the databases has."""

REFUSED = {
    "meta.x = meta.n": "and samples have text, numbers, true or false and lists or objects",
    "meta.x IN (SELECT error FROM samples) OR hex(meta.x) = ''": "does not tell the type of meta.x",
    "meta.l = meta.l": "samples have lists or objects under this name",
    "meta.n = meta.t": "samples have text and numbers under this name",
    "meta.n || 'x' > 3": "takes meta.n for text and numbers at once",
    "coalesce(meta.n, 'none') = 3": "takes meta.n for text and numbers at once",
    "lower(meta.t) = 7": "takes meta.t for text and numbers at once",
    "(meta.n > 3) = 1": "takes meta.n for numbers and true or false at once",
    "meta.n + 1": "takes meta.n for numbers and true or false at once",
    "meta.b AND meta.n + 1": "takes meta.n for numbers and true or false at once",
    "meta.t > measured_at": "compares meta.t with times",
    "meta.t > CURRENT_TIMESTAMP": "compares meta.t with times",
    "meta.t || 1 = 'a1'": "takes meta.t for text and numbers at once",
    "'1' * meta.n = 5": "takes meta.n for text and numbers at once",
    "meta.t = hash": "compares meta.t with bytes",
    "meta.n = 9223372036854775809": "more digits than a float",
    "meta.n = 9007199254740993.0": "more digits than a float",
    "(meta.n + 0.5) % 2 = 1": "takes meta.NAME and integers",
    "meta.n % 2.5 = 1": "takes meta.NAME and integers",
    "CAST(meta.n AS INTEGER) = 1": "round or floor makes an integer",
    "CAST(meta.n AS numeric(3, 1)) = 1": "TEXT, REAL and BOOLEAN are the types",
    "meta.t::timestamptz > now()": "compare times as text",
    "meta.t::date > '2026-01-31'": "compare times as text",
    "CAST(meta.n + 1 AS TEXT) = '1'": "CAST takes meta.NAME alone",
    "CAST(substr(meta.t, 6, 2) AS INTEGER) = 7": "substr(meta.date, 6, 2) = '07'",
    "CAST(meta.n AS TEXT) = '5'": "no integers of 64 bits",
    "meta.x->'k' = 7": "->> in the place of the last ->",
    "meta.x->>sample = 7": "a key in single quotes",
    "meta.x->>-1 = 7": "a key in single quotes",
    "nullif(meta.x, meta.n) IS NULL": "does not tell the type of meta.x",
    "coalesce(nullif(meta.x, meta.n), meta.t) IS NOT NULL": "does not tell the type of meta.x",
}
"""Conditions that both databases would answer in their own way, and what the error says."""
OF_STORED = ("does not tell", "samples have", "no integers of")
"""Errors about values that are stored."""


def fill(store: SampleStore) -> None:
    names = [f"s{i}" for i in range(len(ROWS))]
    store.record(names, [4.0] * len(ROWS), source="abc", meta=ROWS)


def found(store: SampleStore, where: str) -> list[int]:
    names = store.to_arrow(["sample"], where)["sample"].to_pylist()
    return sorted(int(name[1:]) for name in names)


@pytest.mark.slow
@pytest.mark.each_database
def test_conditions_find_what_python_finds(new_store: NewStore) -> None:
    store = new_store(weighting="uniform")
    fill(store)
    for where, asked in FOUND.items():
        expected = [i for i, meta in enumerate(ROWS) if asked(meta or {})]
        assert found(store, where) == expected, where


@pytest.mark.each_database
def test_words_and_operators_of_one_database(new_store: NewStore) -> None:
    store = new_store(weighting="uniform")
    fill(store)
    for where, asked in OF_ONE_DATABASE[store.url.split(":")[0].split("+")[0]].items():
        expected = [i for i, meta in enumerate(ROWS) if asked(meta or {})]
        assert found(store, where) == expected, where


@pytest.mark.each_database
def test_what_databases_would_answer_in_their_own_way_is_refused(new_store: NewStore) -> None:
    store = new_store(weighting="uniform")
    for is_filled in (False, True):
        for where, said in REFUSED.items():
            if is_filled or not any(each in said for each in OF_STORED):
                with pytest.raises(InvalidArgument) as refused:
                    found(store, where)
                assert said in str(refused.value), where
                assert "the database says" not in str(refused.value), where
        fill(store)


EXTREMES = [10**400, -(10**400), 1e308, 5e-324, -1.5e300, 2**63, -(2**63), 10**19 + 1, 0]
COMPARED = {
    "meta.v > 9223372036854775807": lambda v: v > 2**63 - 1,
    "meta.v >= 1e308": lambda v: v >= 1e308,
    "meta.v < -1e300": lambda v: v < -1e300,
    "meta.v > 0": lambda v: v > 0,
    "meta.v = 5e-324": lambda v: v == 5e-324,
    "meta.v = 1e19": lambda v: v == 10**19 + 1,
    "meta.v > reward": lambda v: v > 1,
}


@pytest.mark.each_database
def test_numbers_of_every_size_are_compared(new_store: NewStore) -> None:
    store = new_store(weighting="uniform")
    names = [f"s{i}" for i in range(len(EXTREMES))]
    store.record(names, [1.0] * len(names), meta=[{"v": v} for v in EXTREMES])
    for where, asked in COMPARED.items():
        assert found(store, where) == [i for i, v in enumerate(EXTREMES) if asked(v)], where


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("1 / meta.v > 0", r"where must be.*division by zero: nullif\(DIVISOR, 0\) is NULL"),
        ("meta.v * 10 > 0", "where must be.*out of range"),
    ],
)
def test_what_postgresql_cannot_compute_is_explained(
    postgresql_url: str, where: str, said: str
) -> None:
    with open_store(postgresql_url, weighting="uniform") as store:
        store.record(["a", "b"], [1.0, 2.0], meta=[{"v": 0}, {"v": 1e308}])
        with pytest.raises(InvalidArgument, match=said):
            found(store, where)
        assert found(store, "1 / nullif(meta.v, 0) > 0 AND sample = ''") == []


@pytest.mark.each_database
def test_a_table_looks_up_the_types_each_time(new_store: NewStore) -> None:
    store = new_store(weighting="uniform")
    table = store.table(["sample"], where="meta.v = meta.w")
    store.record(["a"], [1.0], meta={"v": "1", "w": "1"})
    assert pyarrow.table(table).num_rows == 1
    store.record(["b"], [1.0], meta={"v": 1, "w": 1.0})
    with pytest.raises(InvalidArgument, match=r"does not tell the type of meta\.v"):
        pyarrow.table(table)


@pytest.mark.slow
@pytest.mark.each_database
def test_a_buffer_without_metas_takes_every_condition(new_store: NewStore) -> None:
    store = new_store(weighting="uniform")
    assert found(store, "abs(meta.x) = 7 OR meta.x = meta.n") == []
    store.record(["s0"], [1.0])
    for where, asked in FOUND.items():
        assert found(store, where) == ([0] if asked({}) else []), where


@pytest.mark.parametrize(
    "where", ["meta.n = ?", "meta.n = ?1", "meta.n = :x", "meta.n = @x", "id > $1"]
)
def test_a_parameter_of_the_statement_is_refused(sqlite_url: str, where: str) -> None:
    with open_store(sqlite_url, weighting="uniform") as store:
        store.add(["s0"], meta=[{"n": 1}])
        with pytest.raises(InvalidArgument, match="begins one: write its value"):
            found(store, where)
        assert found(store, "meta.t IS NULL AND source <> '?:@$'") == [0]
