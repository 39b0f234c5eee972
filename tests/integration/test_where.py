"""Conditions in SQL: the names that they may use mean the same in every method and command."""

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from helpers import inside
from helpers.cleanup import hold
from helpers.commands import run
from sqlbuffer.cli.commands import ENTRIES
from sqlbuffer.db.views import sample_overview
from sqlbuffer.errors import InvalidArgument
from sqlbuffer.store import SampleStore

NewStore = Callable[..., SampleStore]

METAS = {
    "CCO": {"mw": 700, "LogP": 1.5, "vendor": "acme", "source": "q", "score": 3, "ok": True},
    "CCN": {"mw": "n/a", "vendor": "b", "ok": False, "7 odd\"'%: name": 5, "mw.dry": 9},
    "C1": {"mw": 500.5, "code": "007", "2d": 1},
    "x": {"code": 7, "mw": None},
    "y": None,
    "z": {"mw": 650},
}


def measure_some(store: SampleStore) -> None:
    store.record(["C1", "CCO"], [0.1, 0.5], meta=[METAS["C1"], METAS["CCO"]])
    store.add(["x", "CCN"], "v", [METAS["x"], METAS["CCN"]])
    batch = store.sample(-1)
    batch.fail(batch.ids, "no conformer: meta.mw")


@pytest.fixture
def store(new_store: NewStore) -> SampleStore:
    """A store with samples in several states, of which each has another meta."""
    store = new_store(weighting="uniform")
    measure_some(store)
    store.add(["y"], "v")
    hold(store.sample(1))
    store.add(["z"], "v", METAS["z"])
    return store


def found(store: SampleStore, where: str) -> list[str]:
    return sorted(store.to_arrow(["sample"], where)["sample"].to_pylist())


CONDITIONS = {
    "sample LIKE 'C%'": "C1 CCN CCO",
    "sample_id < 3 AND reward > 0.2": "CCO",
    "state = 'failed'": "CCN x",
    "state IN ('claimed', 'waiting')": "y z",
    "measured_at > '2020-01-01' AND error IS NULL": "C1 CCO",
    "buffer = 'default' AND predictor IS NULL AND key IS NULL AND sample = 'y'": "y",
    "id < 3 OR text = 'x' OR rewarded_at IS NULL": "C1 CCO x y z",
    "samples.sample = 'x' OR samples.reward > 0.2": "CCO x",
    "meta.mw > 600": "CCO z",
    "META.mw>600.5 AND State = 'measured'": "CCO",
    "600 < meta.mw": "CCO z",
    "NOT meta.mw > 600": "C1",
    "meta.mw BETWEEN -1 AND 600": "C1",
    "meta.mw NOT IN (700, 1)": "C1 z",
    "meta.mw IS NULL": "x y",
    "meta.mw IS NOT NULL": "C1 CCN CCO z",
    "meta.mw = 'n/a'": "CCN",
    "meta.mw > 9 OR meta.mw = 'n/a'": "C1 CCN CCO z",
    "abs(meta.mw) > 1": "C1 CCO z",
    "meta.mw > reward": "C1 CCO",
    "meta.mw * 2 > 1000.5": "C1 CCO z",
    "round(meta.mw / 3, 1) = 233.3": "CCO",
    "meta.code = '007'": "C1",
    "meta.code = 7": "x",
    "meta.LogP > 1": "CCO",
    "meta.logp > 1": "",
    "meta /* - */ . mw > 1": None,
    'meta . "LogP" > 1': "CCO",
    'meta."7 odd""\'%: name" = 5': "CCN",
    "meta.mw.dry = 9": "CCN",
    "meta.2d = 1": "C1",
    "meta.ok": "CCO",
    "NOT meta.ok": "CCN",
    "meta.ok = false": "CCN",
    "lower(meta.vendor) = 'acme'": "CCO",
    "meta.vendor || 'x' = 'bx'": "CCN",
    "meta.vendor LIKE 'a%'": "CCO",
    "meta.source = 'q' AND source = ''": "CCO",
    "meta.score > 2 AND score IS NULL": "CCO",
    "meta.none > 2 OR meta.none = meta.none": "",
    "meta.mw > 600 AND error IS NULL /* it's meta.mw */ -- 'x meta.mw": "CCO z",
    "error LIKE '%meta.mw' AND sample <> 'meta.mw'": "CCN x",
    "mw > 600": None,
    "1=1) OR (1=1": None,
    "meta.mw > 600) OR (1=1": None,
    "meta.mw > 600 --\n) OR (1=1": None,
}
"""The samples that conditions find; None if they are refused."""


@pytest.mark.slow
def test_names_of_the_view_and_values_of_the_metas_are_known(store: SampleStore) -> None:
    for where, expected in CONDITIONS.items():
        if expected is None:
            with pytest.raises(InvalidArgument, match="where must be a condition"):
                found(store, where)
        else:
            assert " ".join(found(store, where)) == expected, where


def test_a_condition_finds_the_same_rows_as_the_view(store: SampleStore) -> None:
    columns = [column.name for column in sample_overview.c]
    wheres = [f"{name} IS NOT NULL" for name in columns]
    for where in [*wheres, "state >= 'm'", "attempts = 0 AND queued", "sample > 'CCO'"]:
        view = sa.select(sample_overview.c.sample).where(sa.text(where))
        assert found(store, where) == sorted(row.sample for row in inside.rows(store, view)), where


WHERE = "state <> 'waiting' AND sample LIKE 'C%' AND (meta.mw > 600 OR meta.vendor = 'b')"
METHODS: dict[str, tuple[Callable[[SampleStore], Any], Any]] = {
    "table": (lambda store: sum(each.num_rows for each in store.table(where=WHERE)), 2),
    "to_pandas": (lambda store: set(store.to_pandas(where=WHERE)["sample"]), {"CCO", "CCN"}),
    "top": (lambda store: [row["sample"] for row in store.top(where=WHERE)], ["CCO"]),
    "failed": (lambda store: [row["sample"] for row in store.failed(where=WHERE)], ["CCN"]),
    "labelled_rows": (lambda store: store.labelled_rows(where=WHERE).rewards.tolist(), [0.5]),
    "newest": (lambda store: len(store.labelled_rows(where=WHERE, newest=1)), 1),
    "retry": (lambda store: store.retry(where=WHERE), 1),
}


@pytest.mark.slow
def test_every_method_knows_the_names(store: SampleStore) -> None:
    for name, (call, expected) in METHODS.items():
        assert call(store) == expected, name


COMMANDS = {
    ("top", "--json"): '"sample": "CCO"',
    ("failed", "--csv"): "CCN",
    ("export", "-", "--format", "smi"): "CCO\nCCN\n",
    ("retry",): "1 sample waits again",
    ("remeasure", "other", "--yes"): "1 sample waits again",
}


def test_every_command_knows_the_names(new_store: NewStore, store_url: str) -> None:
    with_where = {
        name
        for name, entry in ENTRIES.items()
        if any(parameter.name == "where" for parameter in entry.load(name).params)
    }
    # A worker trains on `labelled_rows`.
    assert with_where == {command[0] for command in COMMANDS} | {"worker"}
    measure_some(new_store(weighting="uniform"))
    for command, expected in COMMANDS.items():
        result = run(*command, "--where", WHERE, url=store_url)
        assert (result.code, expected in result.out) == (0, True), result


def test_names_of_an_earlier_objective_are_not_ambiguous(new_store: NewStore) -> None:
    store = new_store(weighting="uniform")
    store.record(["a", "b"], [1.0, 2.0], meta=[{"mw": 1}, {"mw": 2}])
    assert store.remeasure("other", where="meta.mw > 1 AND state = 'measured'") == 1
    for where in ("reward IS NULL", "sample_id > 0 AND meta.mw > 1"):
        assert store.top(objective="reward", where=where)[0]["reward"] == 2.0


@pytest.mark.parametrize(
    "where",
    ['"meta.mw" > 600', "\"stat\" = 'failed'", 'state = "failed"', 'NOT "mw"', 'state IN ("x")'],
)
def test_a_quoted_name_of_no_column_is_no_text(store: SampleStore, where: str) -> None:
    """As SQLite would take it: a misspelt name would choose all samples, or none."""
    for method in (store.top, store.retry, store.to_arrow):
        with pytest.raises(InvalidArgument, match=r"name of no column: text has single quotes"):
            method(where=where)


@pytest.mark.each_database
@pytest.mark.parametrize(
    "where",
    [
        '"sample_id" > 0 AND "state" IS NOT NULL',
        '(SELECT "n" FROM (SELECT 1 AS "n") AS "t") = 1',
        'sample_id IN (SELECT "x"."id" FROM samples "x")',
        """sample <> '"no name"' /* "nor" this */""",
    ],
)
def test_quoted_names_are_those_of_columns_and_of_the_condition(
    store: SampleStore, where: str
) -> None:
    assert len(store.to_pandas(where=where)) == len(store.to_pandas())


def test_an_unknown_name_brings_those_that_are_known(store: SampleStore) -> None:
    for method in (store.to_arrow, store.top, store.failed, store.retry, store.labelled_rows):
        with pytest.raises(
            InvalidArgument, match=r"no column 'mw'; columns are sample_id.*meta\.N"
        ):
            method(where="mw > 600")


MISNAMED = {
    "reason = 'x'": "use error",
    "seconds > 1": "use sample_id IN (SELECT sample_id FROM measurement_overview",
    "worker_id = 'x'": "FROM measurement_overview WHERE worker_id ...)",
}


@pytest.mark.parametrize("where", MISNAMED)
def test_a_column_of_another_view_is_told_its_place(store: SampleStore, where: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        found(store, where)
    assert MISNAMED[where] in str(refused.value)
    place = "sample_id IN (SELECT sample_id FROM measurement_overview WHERE {})"
    if "measurement" in MISNAMED[where]:
        assert found(store, place.format(where)) == []


WRONG = 'meta.mw > 1e9 OR meta.weight > 3 OR meta."a b" = 1'


@pytest.mark.each_database
def test_a_command_tells_which_metas_of_a_condition_no_sample_has(store: SampleStore) -> None:
    for words in (("top",), ("failed",), ("export", "-", "--format", "csv")):
        done = run(*words, "--where", WRONG, url=inside.url_of(store))
        assert "no sample of buffer 'default' has meta.weight, meta.a b" in done.err, words
        done = run(*words, "--where", "meta.mw > 1e9", url=inside.url_of(store))
        assert "has meta." not in done.err, words


@pytest.mark.each_database
def test_a_condition_that_ends_too_early_is_told_so(store: SampleStore) -> None:
    for where in ("meta.LogP >", "source =", "(reward > 1", "reward > 1 AND"):
        with pytest.raises(InvalidArgument, match="it ends too early, or has a quote"):
            found(store, where)
    with pytest.raises(InvalidArgument, match="the database says"):
        found(store, "reward > 1 LIMIT")
