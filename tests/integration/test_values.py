"""What numpy, torch and pandas compute is stored as what it is, and what was measured is never lost
to a failure.
"""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import inside
from helpers.samples import scores_of
from helpers.strategies import Polymer
from sqlbuffer.core.transaction import Transaction
from sqlbuffer.db.schema import checkpoints, metrics, predictors, samples
from sqlbuffer.errors import InvalidArgument, UnsupportedType
from sqlbuffer.maintenance import audit
from sqlbuffer.maintenance.repair import repair
from sqlbuffer.store import SampleStore, open_store

OpenStore = Callable[..., SampleStore]
TEN = [f"s{i}" for i in range(10)]
INT_KINDS: list[Any] = [int, np.int8, np.int64, np.uint16, np.array, torch.tensor]
LIST_KINDS: list[Any] = [
    list,
    tuple,
    np.array,
    torch.tensor,
    pd.Series,
    lambda ids: pd.Series(ids, index=ids),
]


@pytest.fixture
def ten(store: SampleStore) -> SampleStore:
    """A store with ten scored samples."""
    store.add(TEN)
    store.score(scores_of)
    return store


def one(store: SampleStore, statement: sa.Select[Any]) -> Any:
    return inside.rows(store, statement)


# -- integers --------------------------------------------------------------------------------------


@pytest.mark.each_database
@pytest.mark.parametrize("kind", INT_KINDS)
def test_integers_of_every_kind_are_stored_as_integers(new_store: OpenStore, kind: Any) -> None:
    store = new_store(max_size=kind(9), seed=kind(3), grace_s=kind(60))
    store.add(TEN)
    assert store.score(scores_of, chunk=kind(4)) == 10
    assert len(store) == 9
    batch = store.sample(kind(2))
    batch.settle([1.0, 2.0], checkpoint={"a": b"x"}, kept={"a": kind(2)}, metrics={"n": kind(5)})
    store.log_metrics(kind(7), {"loss": kind(1)})
    store.save_checkpoints({"b": b"y"}, iteration=kind(1), kept={"b": kind(3)})
    store.save_predictor(
        b"z", rows_trained=kind(2), rows_held_out=kind(1), metrics={"n": kind(4)}, keep=kind(2)
    )
    assert store.score(scores_of, only="stale", budget=kind(3)) == 3
    assert [row["iteration"] for row in store.history()] == [0, 7]
    assert [row["value"] for row in store.history()] == [5.0, 1.0]
    assert store.checkpoint("b") == (1, b"y")
    assert store.predictor_state(kind(1)) == b"z"
    (version,) = store.predictors()
    assert (version.rows_trained, version.rows_held_out, version.metrics) == (2, 1, {"n": 4})
    assert len(store.top(kind(1))) == 1
    assert len(store.labelled_rows(newest=kind(1), best=kind(1))) == 1
    with store.copy("copy", at_iteration=kind(1), seed=kind(5)) as copy:
        assert len(copy) == 7
        assert copy.check() == []
    with store.leased("job", seen=kind(0)) as lease:
        assert lease is not None
    assert store.check() == []


@pytest.mark.each_database
@pytest.mark.parametrize("kind", LIST_KINDS)
def test_ids_of_every_kind_are_found(ten: SampleStore, kind: Any) -> None:
    batch = ten.sample(4)
    ids = kind(batch.ids.tolist())
    assert ten.samples_of(ids) == dict(zip(batch.ids.tolist(), batch.samples, strict=True))
    assert (
        batch.report(ids[:2] if kind is not LIST_KINDS[-1] else ids.iloc[:2], kind([1.0, 2.0])) == 2
    )
    batch.release()
    assert ten.remove(ids) == 2
    waiting = ten.waiting().ids.tolist()[:2]
    assert ten.replace(kind(waiting), ["new", "newer"]) == 2
    assert ten.check() == []


def test_the_ids_of_a_batch_are_found_as_they_are(ten: SampleStore) -> None:
    """As an array, as a list of numpy's integers, and with numbers that no process has."""
    batch = ten.sample(3)
    expected = dict(zip(batch.ids.tolist(), batch.samples, strict=True))
    assert ten.samples_of(batch.ids) == expected  # type: ignore[arg-type]
    assert ten.samples_of(list(batch.ids)) == expected
    assert ten.samples_of([*batch.ids.tolist(), 2**62, -1]) == expected
    assert ten.samples_of([]) == {}
    for ids in ([2**63], ["1"], [True], 1, None):
        with pytest.raises(InvalidArgument, match="ids must be a list of integers"):
            ten.samples_of(ids)  # type: ignore[arg-type]


@pytest.mark.each_database
@pytest.mark.parametrize("kind", [np.int64, np.float32, np.array, torch.tensor])
def test_numbers_in_a_condition_are_found(ten: SampleStore, kind: Any) -> None:
    ten.sample(4).settle([1.0, 2.0, 3.0, 4.0])
    assert len(ten.labelled_rows(where=samples.c.reward == kind(2))) == 1
    assert len(ten.labelled_rows(where=samples.c.reward.in_([kind(2), kind(3)]))) == 2
    assert len(ten.labelled_rows(where=samples.c.reward.between(kind(2), kind(4)))) == 3


@pytest.mark.each_database
@pytest.mark.parametrize("iteration", [-1, 2**31, 10**30, 0.0, None, True, "1", math.nan])
def test_an_iteration_that_is_none(store: SampleStore, iteration: Any) -> None:
    for call in (
        lambda: store.log_metrics(iteration, {"x": 1.0}),
        lambda: store.save_checkpoints({"x": b""}, iteration=iteration),
    ):
        with pytest.raises(
            InvalidArgument, match="iteration must be a number of batches, 0 or more; got"
        ):
            call()


@pytest.mark.each_database
@pytest.mark.parametrize("n", [10**30, np.uint64(2**64 - 1), 2**31, 2**63])
def test_a_number_beyond_all_samples_means_all_of_them(new_store: OpenStore, n: Any) -> None:
    store = new_store(max_size=n)
    store.add(TEN)
    assert store.score(scores_of, chunk=n) == 10
    store.sample(n).settle([1.0] * 10, checkpoint={"a": b"x"}, kept={"a": n})
    assert len(store.top(n)) == len(store.labelled_rows(newest=n)) == 10
    store.save_predictor(b"", rows_trained=1, keep=n)
    assert store.score(scores_of, only="stale", budget=n) == 0
    assert store.check() == []


def test_flags_are_bools(new_store: OpenStore) -> None:
    store = new_store(fresh=np.True_, allow_pickle=np.bool_(False))
    store.sample(0).settle([], is_iteration=np.True_)
    store.sample(0).settle([], is_iteration=np.array(False))
    assert store.iteration == 1
    for wrong in (2, None, "no", 0):
        with pytest.raises(InvalidArgument, match="is_iteration must be True or False"):
            store.sample(0).settle([], is_iteration=wrong)
        with pytest.raises(InvalidArgument, match="fresh must be True or False"):
            new_store(fresh=wrong)
    assert store.iteration == 1


# -- rows of a wrong type --------------------------------------------------------------------------

PLACES = [
    (table.name, column.name)
    for table in audit._TABLES
    for column in table.columns
    if column.name != "buffer_id"
]
FIXED = {
    *(("samples", "id"), ("batches", "id"), ("buffers", "id"), ("measurements", "id")),
    ("draws", "batch_id"),
}
"""Row numbers of SQLite, which takes nothing but integers there, and what says whose row it is."""

FITS: dict[type, tuple[str, ...]] = {
    bytes: ("LargeBinary",),
    str: ("Text", "Json", "Timestamp"),
    int: ("Integer", "BigInteger", "Double", "Boolean", "Text", "Timestamp"),
    float: ("Double", "Text", "Timestamp"),
}
"""What SQLite stores as what the column is to hold: it converts numbers to text, and integers to
floats.
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    """A buffer that has a row in every table."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('types')}/x.db")
    store.add(TEN, meta={"x": 1})
    store.score(scores_of)
    store.sample(3).settle([1.0, 2.0, 3.0], metrics={"m": 1.0}, checkpoint={"c": b"x"})
    _held = store.sample(2)
    store.save_predictor(b"x", rows_trained=1)
    with store.leased("job"):
        pass
    assert store.check() == []
    return store


class _Undone(Exception):
    """Rolls a transaction back."""


def found_after(store: SampleStore, sql: str, value: Any) -> list[str]:
    """What the audit says of a row that a stranger has written."""
    found: list[str] = []

    def harm(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
        connection.exec_driver_sql(sql, (value,))
        found.extend(audit.check(Transaction(connection, inside.handle_of(store))))
        raise _Undone

    with pytest.raises(_Undone):
        inside.database_of(store).write(harm)
    return found


VALUES = st.one_of(
    st.binary(max_size=9),
    st.integers(2, 2**63 - 1),
    st.floats(allow_nan=False).filter(lambda number: not number.is_integer()),
    st.text("abc", min_size=1, max_size=5),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(place=st.sampled_from([place for place in PLACES if place not in FIXED]), value=VALUES)
def test_a_value_of_another_type_is_found(
    whole: SampleStore, place: tuple[str, str], value: Any
) -> None:
    name, column = place
    table = next(each for each in audit._TABLES if each.name == name)
    if type(table.c[column].type).__name__ in FITS[type(value)]:
        return
    key = ", ".join(table.primary_key.columns.keys())
    sql = f'UPDATE {name} SET "{column}" = ? WHERE ({key}) IN (SELECT {key} FROM {name} LIMIT 1)'
    assert f"1 row of {name} has a {column} that is no" in " ".join(found_after(whole, sql, value))


def test_what_older_releases_have_stored_as_bytes_is_brought_back(sqlite_url: str) -> None:
    """`log_metrics(np.int64(0), ...)` wrote the eight bytes of the integer into the file."""
    with open_store(sqlite_url) as store:
        store.log_metrics(0, {"x": 1.0, "y": 1.0})
        store.save_checkpoints({"c": b"state"}, iteration=3)
        store.save_predictor(b"", rows_trained=7)
        database = inside.database_of(store)
        packed: dict[Any, int] = {
            metrics.c.iteration: 0,
            checkpoints.c.iteration: 3,
            predictors.c.rows_trained: 7,
        }
        for column, number in packed.items():
            raw = sa.literal_column(f"x'{np.int64(number).tobytes().hex()}'")
            database.write(
                lambda c, column=column, raw=raw: c.execute(
                    sa.update(column.table).values({column.name: raw})
                )
            )
        store.log_metrics(0, {"y": 2.0})
        assert len(store.check()) == 3
        done = inside.handle_of(store).write(repair)
        assert done == ["4 integers that were stored as bytes were written as integers."]
        assert store.check() == []
        assert [(row["name"], row["value"]) for row in store.history()] == [("x", 1.0), ("y", 2.0)]
        assert store.checkpoint("c") == (3, b"state")
        assert store.predictors()[0].rows_trained == 7


# -- lists of samples ------------------------------------------------------------------------------


def test_a_table_stores_nothing(store: SampleStore) -> None:
    table = pd.DataFrame({"smiles": ["C", "CC"], "logp": [1.0, math.nan]}, index=[5, 3])
    for call in (
        lambda: store.add(table),
        lambda: store.record(table, [1.0, 2.0]),
        lambda: store.rewards_of(table),
        lambda: store.replace([1, 2], table),
        lambda: store.add(["a", "b"], meta=table),
        lambda: store.add(["a", "b"], source=table),
    ):
        with pytest.raises(InvalidArgument, match="which is a table: give one column"):
            call()
    assert store.stats().stored == 0
    store.add(table["smiles"], meta=table.to_dict("records"))
    store.record(table["smiles"], table["logp"])
    assert store.waiting().samples == ["C", "CC"]
    assert store.rewards_of(table["smiles"]) == pytest.approx([1.0, math.nan], nan_ok=True)


@pytest.mark.parametrize("image", [np.eye(8), torch.eye(8)])
def test_an_image_is_one_sample(store: SampleStore, image: Any) -> None:
    with pytest.raises(
        InvalidArgument, match=r"of shape \(8, 8\): put it into a list, or use add_one"
    ):
        store.add(image)
    with pytest.raises(InvalidArgument, match="add_one"):
        store.record(image, np.ones(8))
    assert store.stats().stored == 0
    assert store.add_one(image, "camera", {"x": 1}).added == 1
    assert store.add([image]).duplicates == 1
    (waiting,) = store.waiting().samples
    assert waiting.shape == (8, 8)
    assert store.waiting().sources == ["camera"]


def test_one_sample_of_any_kind(store: SampleStore) -> None:
    assert store.add_one("CCO").added == 1
    assert store.add_one(["C", "C", "O"]).added == 1
    assert store.add_one({"a": 1}).added == 1
    assert store.stats().stored == 3
    with pytest.raises(UnsupportedType):
        store.add_one(pd.DataFrame({"a": [1]}))


# -- JSON ------------------------------------------------------------------------------------------


def meta_of(store: SampleStore) -> list[Any]:
    return [row.meta for row in one(store, sa.select(samples.c.meta).order_by(samples.c.id))]


def test_metadata_of_a_table_with_gaps(store: SampleStore) -> None:
    table = pd.DataFrame(
        {"name": ["a", None], "n": [1.0, math.nan], "k": pd.array([1, None], dtype="Int64")}
    )
    store.add(["a", "b"], meta=table.to_dict("records"))
    stored = sorted(meta_of(store), key=lambda meta: meta["n"] is None)
    assert stored == [{"name": "a", "n": 1.0, "k": 1}, {"name": None, "n": None, "k": None}]


def test_metadata_of_numpy(store: SampleStore) -> None:
    meta = {
        "f": np.float32(0.5),
        "i": np.int64(3),
        "b": np.True_,
        "s": np.str_("x"),
        "t": torch.tensor(2),
        "l": [np.int8(1)],
    }
    store.add(["a"], meta={**meta, "nested": {np.int64(1): (np.float64("nan"),)}, "none": None})
    expected = {
        "f": 0.5,
        "i": 3,
        "b": True,
        "s": "x",
        "t": 2,
        "l": [1],
        "nested": {"1": [None]},
        "none": None,
    }
    assert meta_of(store) == [expected]
    types = {type(value) for value in meta_of(store)[0].values()}
    assert types == {float, int, bool, str, list, dict, type(None)}


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({"x": {"y": [1, object()]}}, r"meta\['x'\]\['y'\]\[1\] is <object"),
        ({"x": math.inf}, r"meta\['x'\] is inf, which JSON cannot hold"),
        ({"x": np.ones(2)}, r"meta\['x'\] is array"),
        ({"x": b"y"}, r"meta\['x'\] is b'y'"),
        ({"x": {1, 2}}, r"meta\['x'\] is \{1, 2\}"),
        ({"x": 1j}, r"meta\['x'\] is 1j"),
        ({(1, 2): 1}, r"meta has the key \(1, 2\), but keys of JSON are text"),
        ({1: "a", "1": "b"}, r"meta has the key '1' twice"),
        ({"x": 10**5_000}, "meta has a number that JSON cannot hold"),
    ],
)
def test_metadata_that_json_cannot_hold_is_told_by_its_key(
    store: SampleStore, meta: Any, words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        store.add(["a"], meta=meta)
    assert store.stats().stored == 0


def test_metadata_that_contains_itself(store: SampleStore) -> None:
    meta: dict[str, Any] = {}
    meta["x"] = meta
    with pytest.raises(InvalidArgument, match="contains itself"):
        store.add(["a"], meta=meta)


NUMBERS = [
    math.inf,
    -math.inf,
    math.nan,
    0.0,
    1e308,
    -5e-324,
    0.1,
    np.float32("inf"),
    np.float64("nan"),
    torch.tensor(math.inf),
]


def test_metrics_come_back_as_they_were(store: SampleStore) -> None:
    given = {str(i): number for i, number in enumerate(NUMBERS)}
    store.log_metrics(0, given)
    store.sample(0).settle([], metrics=given)
    expected = [float(number) for number in NUMBERS]
    found = [row["value"] for row in store.history()]
    assert found == pytest.approx(expected, nan_ok=True)
    assert [math.isinf(value) for value in found] == [math.isinf(value) for value in expected]


def test_measures_of_a_predictor_come_back_as_they_were(store: SampleStore) -> None:
    numbers = {str(i): number for i, number in enumerate(NUMBERS)}
    measures = {
        **numbers,
        "calibration": [{"predicted": math.nan, "rows": 3}],
        "note": "x",
        "none": None,
    }
    store.save_predictor(
        b"", rows_trained=1, metrics={**measures, "train_loss": math.inf, "r2": -math.inf}
    )
    (version,) = store.predictors()
    assert [version.metrics[name] for name in numbers] == pytest.approx(
        [float(n) for n in NUMBERS], nan_ok=True
    )
    assert math.isnan(version.metrics["calibration"][0]["predicted"])
    assert (version.metrics["note"], version.metrics["none"]) == ("x", None)
    assert (version.train_loss, version.r2, version.valid_loss) == (math.inf, -math.inf, None)
    found = store.newest_predictor()
    assert found is not None
    assert found.metrics["0"] == math.inf


def test_measures_can_be_read_by_sql(store: SampleStore) -> None:
    """As PostgreSQL writes them in JSON, where it reads them as numbers again."""
    store.save_predictor(
        b"", rows_trained=1, metrics={"a": math.inf, "b": -math.inf, "c": math.nan}
    )
    text = sa.cast(predictors.c.metrics, sa.Text)
    ((stored,),) = one(store, sa.select(text))
    assert json.loads(stored) == {"a": "Infinity", "b": "-Infinity", "c": "NaN"}
    if store.url.startswith("postgresql"):
        ((found,),) = one(
            store, sa.select(sa.text("(metrics ->> 'a')::float8 FROM sqlbuffer.predictors"))
        )
        assert found == math.inf


# -- rewards that failed ---------------------------------------------------------------------------

WAYS = ["settle", "report", "record", "settle alongside"]


def measure(store: SampleStore, way: str, reward: float) -> None:
    """Store a reward of the sample "s1", which waits."""
    if way == "record":
        store.record(["s1"], [reward])
        return
    batch = store.sample(1 if way != "settle alongside" else 0)
    if way == "settle":
        batch.settle([reward])
    elif way == "report":
        batch.report(batch.ids, [reward])
    else:
        batch.settle([], record=(["s1"], [reward], ""))


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(WAYS), st.sampled_from([math.nan, 1.0, 2.0])),
        min_size=1,
        max_size=5,
    )
)
@pytest.mark.parametrize("mode", ["consume", "replay"])
def test_a_failure_never_replaces_a_reward(
    store_url: str, mode: str, steps: list[tuple[str, float]]
) -> None:
    with open_store(store_url, mode=mode, fresh=True) as store:
        expected = None
        for way, reward in steps:
            store.add(["s1"], requeue=True)
            store.score(scores_of)
            measure(store, way, reward)
            expected = expected if math.isnan(reward) and expected is not None else reward
            assert store.rewards_of(["s1"]) == pytest.approx([expected], nan_ok=True)
            stats = store.stats()
            assert (stats.measured, stats.failed) == ((0, 1) if math.isnan(expected) else (1, 0))
            assert store.check() == []


def test_a_failure_leaves_the_time_of_a_reward(ten: SampleStore) -> None:
    ten.record(["s1"], [1.0])
    before = ten.top(1)[0]["rewarded_at"]
    ten.record(["s1"], [math.nan])
    assert ten.top(1)[0]["rewarded_at"] == before
    ten.record(["s1"], [2.0])
    assert ten.top(1)[0]["rewarded_at"] >= before


def test_within_one_call_a_failure_replaces_nothing(ten: SampleStore) -> None:
    ten.record(["x", "y", "x", "x"], [math.nan, 1.0, 3.0, 4.0], ["a", "b", "c", "d"])
    assert ten.rewards_of(["x", "y"]) == [4.0, 1.0]
    assert ten.check() == []


def test_a_class_without_a_repr_is_readable_in_the_database(store: SampleStore) -> None:
    store.add([Polymer(["C", "O"])])
    assert one(store, sa.select(samples.c.text)) == [("Polymer(['C', 'O'])",)]
