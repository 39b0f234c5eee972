"""`store.table`: what other libraries read, and which samples a condition takes."""

import contextlib
import datetime as dt
import gc
import json
import math
import sqlite3
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from helpers.cleanup import hold
from sqlbuffer.core.conditions import OLD_NAMES
from sqlbuffer.db.schema import samples
from sqlbuffer.db.views import views
from sqlbuffer.errors import InvalidArgument, InvalidPayload, MissingExtra
from sqlbuffer.exchange import arrow, reading
from sqlbuffer.exchange.columns import COLUMNS, MORE_COLUMNS, names_in
from sqlbuffer.store import SampleStore, open_store

METAS = [
    {"mw": 46, "logp": -0.1, "is_salt": False, "note": "x", "tags": [1], "big": 2**70, "both": 1},
    {"mw": 58, "logp": 1, "is_salt": True, "note": "", "tags": {"a": None}, "both": 0.5},
    {"mw": None, "note": '"=1+1"', "tags": "t", "both": None},
]


@pytest.fixture
def states(new_store: Callable[..., SampleStore]) -> SampleStore:
    """A store with a sample in each state, named after it."""
    store = new_store(weighting="uniform")
    store.add(["measured", "failed", "claimed", "out"], "first", METAS[0])
    batch = store.sample(-1)
    at = {name: batch.ids[i] for i, name in enumerate(batch.samples)}
    batch.report([at["measured"]], [1.5], seconds=[0.25])
    batch.fail([at["failed"]], "no conformer")
    batch.release()
    store.remove([at["out"]])
    hold(store.sample(1))
    store.add(["waiting"])
    store.record(["recorded"], [-1.0])
    return store


def column(store: SampleStore, name: str, **options: Any) -> dict[str, Any]:
    """The values of a column, by sample."""
    table = store.to_arrow(["sample", name], **options)
    return dict(zip(table["sample"].to_pylist(), table[name].to_pylist(), strict=True))


def test_the_columns_tell_all_that_is_known(states: SampleStore) -> None:
    assert column(states, "state") == {
        **{name: name for name in ("measured", "failed", "claimed", "out", "waiting")},
        "recorded": "measured",
    }
    nothing = dict.fromkeys(column(states, "state"))
    assert column(states, "reward") == nothing | {"measured": 1.5, "recorded": -1.0}
    assert column(states, "error") == nothing | {"failed": "no conformer"}
    assert column(states, "seconds") == nothing | {"measured": 0.25}
    measured = {"measured": "reward", "failed": "reward", "recorded": "reward"}
    assert column(states, "objective") == nothing | measured
    assert column(states, "measured_iteration") == nothing | {"measured": 0, "failed": 0}
    assert {name for name, by in column(states, "worker_id").items() if by} == measured.keys()
    assert {name for name, at in column(states, "measured_at").items() if at} == measured.keys()
    assert column(states, "drawn")["claimed"] == 1
    assert column(states, "meta")["waiting"] is None
    assert column(states, "source")["out"] == "first"


def test_states_agree_with_the_statistics(states: SampleStore) -> None:
    found = list(column(states, "state").values())
    stats = states.stats()
    names = ("waiting", "claimed", "measured", "failed")
    assert [found.count(name) for name in names] == [getattr(stats, name) for name in names]
    assert [row["sample"] for row in states.failed()] == ["failed"]


def test_a_sample_that_was_added_again_waits(new_store: Callable[..., SampleStore]) -> None:
    store = new_store(weighting="uniform")
    store.record(["a", "b"], [1.0, math.nan])
    store.add(["a", "b"], requeue=True)
    assert set(column(store, "state").values()) == {"waiting"}
    replay = new_store(name="replay", mode="replay", weighting="uniform")
    replay.add(["a", "b", "c"])
    replay.record(["a", "b"], [1.0, math.nan])
    assert column(replay, "state") == {"a": "measured", "b": "failed", "c": "waiting"}


def test_the_newest_measurement_that_counts_is_told(store: SampleStore) -> None:
    store.record(["a"], [1.0], seconds=[1.0])
    store.record(["a"], [2.0], seconds=[2.0])
    store.record(["a"], [None], seconds=[3.0])
    assert store.table(["reward", "seconds"]).to_arrow().to_pylist() == [
        {"reward": 2.0, "seconds": 2.0}
    ]
    store.remeasure("other")
    assert column(store, "objective") == {"a": None}


@pytest.mark.parametrize("n", [0, 3])
def test_types_do_not_depend_on_values(store: SampleStore, n: int) -> None:
    store.add([str(i) for i in range(n)])
    table = store.to_arrow([*COLUMNS, *MORE_COLUMNS])
    assert not any(pa.types.is_null(field.type) for field in table.schema)
    assert table.num_rows == n
    assert table.schema == store.table([*COLUMNS, *MORE_COLUMNS]).schema
    frame = store.to_pandas()
    for name in ("score", "reward", "seconds", "score_version", "measured_iteration", "sample_id"):
        assert pd.api.types.is_numeric_dtype(frame[name]), name
    for name in ("created_at", "scored_at", "measured_at"):
        assert frame[name].dtype == "datetime64[us, UTC]"


def test_every_library_reads_the_stream_again_and_again(states: SampleStore) -> None:
    table = states.table(chunk=2)
    assert [batch.num_rows for batch in table] == [2, 2, 2]
    assert pa.table(table).equals(pa.table(table))
    assert pa.schema(table) == table.schema
    states.add(["later"])
    assert pa.RecordBatchReader.from_stream(table).read_all().num_rows == 7
    assert pa.table(table, schema=table.schema.set(0, pa.field("sample_id", pa.float64())))[
        "sample_id"
    ][0].as_py()
    assert pa.table(table).sort_by("sample_id").equals(pa.table(table)), "by id"
    assert pa.table(table).cast(table.schema).equals(states.to_arrow(list(COLUMNS)))
    assert "state" in repr(table)
    assert table.columns == list(COLUMNS)


def test_samples_that_come_during_a_reading_are_left_out(store: SampleStore) -> None:
    store.add(["a", "b", "c"])
    batches = iter(store.table(["sample"], chunk=1))
    found = []
    for batch in batches:
        found += batch["sample"].to_pylist()
        store.add([f"new {len(found)}"])
    assert sorted(found) == ["a", "b", "c"]


def test_a_chunk_of_large_samples_ends_early(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "CHUNK_BYTES", 100)
    monkeypatch.setattr(reading, "_AT_ONCE", 2)
    store.add([f"{i}" * 30 for i in range(10)])
    sizes = [batch.num_rows for batch in store.table(["sample"])]
    assert sum(sizes) == 10
    assert max(sizes) == 4


def test_gaps_of_ids_are_passed_over(new_store: Callable[..., SampleStore]) -> None:
    first, second = new_store(), new_store(name="second")
    for i in range(4):
        first.add([f"first {i} {j}" for j in range(3)])
        second.add([f"second {i} {j}" for j in range(4)])
    first.forget(first.to_arrow(["sample_id"])["sample_id"].to_pylist()[3:9])
    for chunk in (1, 2, 5, 100):
        assert [pa.table(each.table(chunk=chunk)).num_rows for each in (first, second)] == [6, 16]
        assert pa.table(second.table(where=("sample", "like", "%3 3"), chunk=chunk)).num_rows == 1


@pytest.mark.slow
def test_a_reading_that_is_dropped_keeps_no_transaction(store: SampleStore) -> None:
    store.add(["a", "b"])
    batches = iter(store.table(chunk=1))
    next(batches)
    store.add(["c"])  # on SQLite it would wait for the log, and fixtures look for transactions
    del batches
    gc.collect()


def test_values_of_metas_are_columns(store: SampleStore) -> None:
    store.add(["a", "b", "c"], meta=METAS)
    names = ["mw", "logp", "is_salt", "note", "tags", "big", "both", "none"]
    table = store.to_arrow(["sample", *(f"meta.{name}" for name in names)])
    kinds = ["int64", "double", "bool", "string", "string", "double", "double", "double"]
    assert [str(field.type) for field in table.schema][1:] == kinds
    rows = {row.pop("sample"): row for row in table.to_pylist()}
    assert list(rows["a"].values()) == [46, -0.1, False, "x", "[1]", 2.0**70, 1.0, None]
    assert list(rows["b"].values()) == [58, 1.0, True, "", '{"a": null}', None, 0.5, None]
    assert list(rows["c"].values()) == [None, None, None, '"=1+1"', "t", None, None, None]
    dtypes = store.to_pandas(["meta.mw", "meta.is_salt", "meta.none"]).dtypes
    assert [str(each) for each in dtypes] == ["Int64", "boolean", "float64"]


NOW = dt.datetime.now(dt.timezone.utc)


CONDITIONS: list[tuple[Any, list[str]]] = [
    (("reward", ">", 0), ["measured"]),
    (("reward", "<=", np.float64(1.5)), ["measured", "recorded"]),
    ([("reward", "!=", None), ("seconds_", "=", 0)][:1], ["measured", "recorded"]),
    ([("state", "in", ["failed", "claimed"]), ("source", "=", "first")], ["claimed", "failed"]),
    (("state", "not in", ("out", "waiting", "claimed")), ["failed", "measured", "recorded"]),
    (("error", "like", "no %"), ["failed"]),
    (("meta.mw", ">", 40), ["claimed", "failed", "measured", "out"]),
    (("meta.logp", "<", 10**30), ["claimed", "failed", "measured", "out"]),
    (("meta.is_salt", "=", True), []),
    (("meta.note", "=", "x"), ["claimed", "failed", "measured", "out"]),
    (("meta.mw", "=", None), ["recorded", "waiting"]),
    (("created_at", "<", NOW - dt.timedelta(days=1)), []),
    (("queued", "=", True), ["claimed", "waiting"]),
    ([], ["claimed", "failed", "measured", "out", "recorded", "waiting"]),
    ("reward > 0 -- the best", ["measured"]),
    (samples.c.error.is_not(None), ["failed"]),
]


@pytest.mark.slow
def test_a_condition_takes_some_samples(states: SampleStore) -> None:
    for where, found in CONDITIONS:
        told = states.to_arrow(["sample"], where)["sample"].to_pylist()
        assert sorted(told) == found, where
        batches = states.table(["sample", "seconds", "drawn", "meta.mw"], where, chunk=1)
        assert sorted(pa.table(batches)["sample"].to_pylist()) == found, where


WRONG_CONDITIONS: list[tuple[Any, str]] = [
    (("seconds", ">", 1), "must be on one of the columns sample_id, sample"),
    (("meta", "=", "{}"), "must be on one of the columns"),
    (("reward", "above", 1), "the operator of a condition must be one of =, =="),
    (("reward", ">", "high"), "column reward of a condition is compared with a finite number"),
    (("reward", ">", math.nan), "compared with a finite number; got nan"),
    (("reward", ">", True), "compared with a finite number; got True"),
    (("reward", "<", None), "None can be compared by = and !="),
    (("state", "=", 1), "compared with text without NUL; got 1"),
    (("sample", "=", "a\0"), "compared with text without NUL"),
    (("created_at", "<", dt.datetime(2020, 1, 1)), "compared with a datetime with a time zone"),
    (("reward", ">"), "a condition must be"),
    (["reward", ">", 1], "a condition must be"),
    ("rewards > 1", "where must be a condition on the columns of samples"),
    (5, "where must be"),
]


def test_a_wrong_condition_is_refused(store: SampleStore) -> None:
    store.add(["a"])
    for where, message in WRONG_CONDITIONS:
        with pytest.raises(InvalidArgument, match=message):
            store.to_arrow(where=where)
        with pytest.raises(InvalidArgument, match=message):
            list(store.table(where=where))


def test_a_wrong_column_is_refused(store: SampleStore) -> None:
    wrong: list[Any] = [["nope"], [], ["sample", "sample"], [5], ["meta."], "id"]
    for columns in wrong:
        with pytest.raises(InvalidArgument, match="column"):
            store.table(columns)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (["a", "b\0"], "string"),
        ([1, 2**40], "int64"),
        ([0.5, math.inf], "double"),
        ([b"x", b""], "binary"),
        ([(1, 2), (3,)], "list<item: int64>"),
        ([np.array([1.5, 2.5])], "list<item: double>"),
    ],
)
def test_samples_of_one_type_are_decoded(store: SampleStore, given: list[Any], kind: str) -> None:
    store.add(given)
    found = store.to_arrow(["sample"], decode=True)["sample"]
    assert str(found.type) == kind
    plain = [getattr(each, "tolist", lambda each=each: each)() for each in given]
    plain = [list(each) if isinstance(each, tuple) else each for each in plain]
    assert sorted(found.to_pylist()) == sorted(plain)


def test_samples_of_several_types_are_read_as_text(store: SampleStore) -> None:
    store.add([1, 0.5])
    with pytest.raises(InvalidArgument, match="samples are of several types"):
        store.to_arrow(decode=True)
    with pytest.raises(InvalidArgument, match="samples are of several types"):
        list(store.table(decode=True, chunk=1))
    assert set(store.to_arrow()["sample"].to_pylist()) == {"1", "0.5"}
    store.remove(store.waiting().ids)
    store.forget(store.to_arrow(["sample_id"])["sample_id"].to_pylist())
    store.add([{1, "a"}])
    with pytest.raises(InvalidArgument, match="do not fit into a column of Arrow"):
        store.to_arrow(decode=True)


def test_old_names_stay_for_a_release(store: SampleStore) -> None:
    store.record(["a"], [1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = store.to_pandas()
    assert frame["text"].equals(frame["sample"].rename("text"))
    assert frame["rewarded_at"].tolist() == frame["measured_at"].tolist()
    assert {"queued", "requeues", "score_version"} <= set(frame.columns)
    assert store.to_arrow().column_names == frame.columns.tolist()
    with pytest.warns(DeprecationWarning, match="text is sample"):
        assert store.to_arrow(["text"]).column_names == ["text"]


def test_a_corrupt_value_is_reported(sqlite_url: str) -> None:
    with open_store(sqlite_url) as store:
        store.add(["a"])
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE samples SET reward = 'x'")
        connection.commit()
    with (
        open_store(sqlite_url) as store,
        pytest.raises(InvalidPayload, match="column reward"),
    ):
        store.to_arrow()


def test_a_missing_package_is_named(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for read in (store.table, store.to_arrow, store.to_pandas):
        with pytest.raises(MissingExtra, match=r'pip install "sqlbuffer\[export\]"'):
            read()


def test_conditions_on_metas_go_by_type_and_patterns_by_capitals_on_both_databases(
    store_url: str,
) -> None:
    given = {"A1": 1, "B1": "n/a", "T": True, "S": "5 apples", "a\\b": 0.5, "s1": "1", "N": None}
    with open_store(store_url, weighting="uniform") as store:
        store.add(list(given), meta=[{"x": value} for value in given.values()])

        def found(*condition: Any) -> set[str]:
            return set(store.to_arrow(columns=["sample"], where=condition)["sample"].to_pylist())

        assert found("meta.x", ">=", 1) == {"A1"}
        assert found("meta.x", "=", 0) == set()
        assert found("meta.x", "=", True) == {"A1", "T"}
        assert found("meta.x", "=", "1") == {"s1"}
        assert found("meta.x", "in", [1, 0.5]) == {"A1", "a\\b"}
        assert found("meta.x", "=", None) == {"N"}
        assert found("meta.x", "like", "%app%") == {"S"}
        assert found("sample", "like", "S%") == {"S"}
        assert found("sample", "like", "_1") == {"A1", "B1", "s1"}
        assert found("sample", "like", "a\\b") == {"a\\b"}
        assert found("sample", "like", "[As]1") == set()
        with pytest.raises(InvalidArgument, match="queued cannot be compared by >"):
            found("queued", ">", False)
        with pytest.raises(InvalidArgument, match="datetime"):
            found("created_at", ">", dt.datetime.min.replace(tzinfo=dt.timezone.utc))
        deep: Any = []
        for _ in range(100):
            deep = [deep]
        with pytest.raises(InvalidArgument, match="nests too deep"):
            store.add(["deep"], meta=[{"x": deep}])


@pytest.mark.slow
def test_a_list_of_a_condition_may_be_long(new_store: Callable[..., SampleStore]) -> None:
    """Longer than the parameters of a statement; of values of any type."""
    store = new_store(weighting="uniform")
    names = ["a", "\u00e9'\"\\,{}", "NULL", "c"]
    store.add(names, meta=[{"x": i, "t": name} for i, name in enumerate(names)])
    store.record(["a"], [0.1])
    known = store.to_arrow(["sample", "sample_id", "hash"]).to_pylist()
    some = [row for row in known if row["sample"] in names[1:3]]
    long, few = range(70_000), range(3)
    cases: list[tuple[str, list[Any]]] = [
        ("sample_id", [row["sample_id"] for row in some] + [-1 - i for i in long]),
        ("sample", [row["sample"] for row in some] + [f"x{i}" for i in few]),
        ("hash", [row["hash"] for row in some] + [i.to_bytes(16, "big") for i in few]),
        ("meta.t", [row["sample"] for row in some] + [f"x{i}" for i in few]),
        ("meta.x", [1, 2.0] + [-1 - i for i in few]),
    ]
    for name, values in cases:
        found = store.to_arrow(["sample"], (name, "in", values))["sample"].to_pylist()
        assert found == [row["sample"] for row in some], name
        others = store.to_arrow(["sample"], (name, "not in", values))["sample"].to_pylist()
        assert sorted(others) == ["a", "c"], name
    floats = [0.1, *(1.0 + i for i in range(2_000))]
    assert store.to_arrow(where=("reward", "in", floats)).num_rows == 1
    assert store.to_arrow(where=("reward", "in", floats[:9])).num_rows == 1
    times = [row["created_at"] for row in store.to_arrow(["created_at"]).to_pylist()]
    assert store.to_arrow(where=("created_at", "in", times)).num_rows == 4
    assert store.to_arrow(where=("queued", "in", [True, False])).num_rows == 4
    assert store.to_arrow(where=("source", "in", [])).num_rows == 0
    assert store.to_arrow(where=("source", "not in", [])).num_rows == 4


ODD = ["a", "a.b", "a b", " ", "$", "$.a", "[0]", "a[0]", '"', 'a"b', "'", "\\", 'a\\"b', "\\u0041"]
ODD += ["?", "%s", "%(a)s", ":a", "{}", "\u00e9", "e\u0301", "\U0001f9ea", "\u202e", "\n", "#"]


@pytest.mark.slow
def test_a_value_of_the_metas_may_have_any_name(new_store: Callable[..., SampleStore]) -> None:
    store = new_store(weighting="uniform")
    rng = np.random.default_rng(0)
    names = [*ODD, *("".join(rng.choice(list("".join(ODD)), 3)) for _ in range(5))]
    store.add([str(i) for i in range(len(names))], meta=[{name: 5} for name in names])
    store.add(["texts", "flags"], meta=[dict.fromkeys(names, "t"), dict.fromkeys(names, True)])
    for i, name in enumerate(names):
        for value, found in ((5, str(i)), ("t", "texts"), (True, "flags")):
            where = (f"meta.{name}", "=", value)
            assert store.to_arrow(["sample"], where)["sample"].to_pylist() == [found], name
    with pytest.raises(InvalidArgument, match="a value of the metas"):
        store.to_arrow(where=("meta.a\0", "=", 1))


def test_the_name_of_a_value_of_the_metas_may_stand_in_quotes(store: SampleStore) -> None:
    metas = {"batch no": 1, 'a"b': 2, '"c"': 3, "a,b": 4}
    store.add(["x"], meta=metas)
    names = ["batch no", 'a"b', '"c"', "a,b"]
    quoted = ['meta."batch no"', 'meta."a""b"', 'meta."""c"""', 'meta."a,b"']
    table = store.to_arrow(quoted)
    assert table.column_names == [f"meta.{name}" for name in names]
    assert list(table.to_pylist()[0].values()) == [1, 2, 3, 4]
    assert store.table(quoted).columns == table.column_names
    assert store.to_arrow(["meta.batch no", 'meta.a"b']).column_names == table.column_names[:2]
    for name, value in zip(quoted, (1, 2, 3, 4), strict=True):
        assert store.to_arrow(["sample"], (name, "=", value)).num_rows == 1, name
        assert store.to_arrow(["sample"], f"{name} = {value}").num_rows == 1, name
    with pytest.raises(InvalidArgument, match="each once"):
        store.table(['meta."batch no"', "meta.batch no"])
    assert names_in(",".join(["sample", *quoted, 'meta.5"', "reward"])) == [
        *("sample", *quoted, 'meta.5"', "reward")
    ]
    for text in ("", ",", "a,", ",a", 'meta."a,b', 'meta.""', 'meta."a"b,c'):
        assert names_in(text) == text.split(","), text


def test_old_names_of_columns_are_accepted(states: SampleStore) -> None:
    for old, now in OLD_NAMES.items():
        with pytest.warns(DeprecationWarning, match=f"{old} is {now}") as told:
            table = states.to_arrow([old])
        assert told[0].filename == __file__
        assert table[old].to_pylist() == states.to_arrow([now])[now].to_pylist()
    with pytest.warns(DeprecationWarning, match="id is sample_id") as told:
        assert states.to_arrow(where=("id", ">", 0)).num_rows == 6
    assert told[0].filename == __file__


def test_a_column_of_the_table_and_of_the_views_has_one_name() -> None:
    view = views.tables["sample_overview"].c
    known = set(view.keys()) - {"buffer", "buffer_id", "predictor"} - OLD_NAMES.keys()
    assert known <= {*COLUMNS, *MORE_COLUMNS}
    assert {"seconds", "worker_id", "objective"} <= {*COLUMNS} & {
        *views.tables["measurement_overview"].c.keys()
    }


def test_details_are_a_column_on_request(store_url: str) -> None:
    with open_store(store_url) as store:
        details = [{"b": 1, "a": [1, None, "x"]}, None]
        store.record(["a", "b"], [1.0, 2.0], details=details)
        store.add(["waits"])
        found = store.to_arrow(["sample", "details"]).to_pylist()
        assert "details" not in store.table().columns
    texts = {row["sample"]: row["details"] for row in found}
    assert {name: text and json.loads(text) for name, text in texts.items()} == {
        "a": details[0],
        "b": None,
        "waits": None,
    }


def test_a_schema_tells_of_its_buffer(store_url: str) -> None:
    with open_store(store_url, name="qed", direction="minimize", weighting="softmax") as store:
        store.record(["a"], [1.0])
        store.remeasure("second")
        expected = {
            "name": "qed",
            "direction": "minimize",
            "objective": "second",
            "weighting": "softmax",
        }
        assert arrow.told_of(store.table().schema) == expected
        assert arrow.told_of(store.to_arrow(["reward"]).schema) == expected
    assert arrow.told_of(pa.schema([])) == {}
    for wrong in (b"{", b"[1]", b"1", b"\xff", b"[" * 100_000):
        assert arrow.told_of(pa.schema([], metadata={arrow.ABOUT: wrong})) == {}
